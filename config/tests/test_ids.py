"""Ids are version 7 UUIDs in the order of their making."""

import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from config.ids import first_id_at, made_at, new_id


def test_ids_are_of_version_7_and_of_now() -> None:
    before = time.time_ns() // 1_000_000
    made = new_id()
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_ids_of_the_same_millisecond_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [1_700_000_000_000_000_000 + 250 * number for number in range(8_000)]
    clock = iter(times)
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    ids = [new_id() for _ in times]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(times)


def test_an_id_tells_when_it_was_made() -> None:
    moment = datetime(2026, 3, 10, 12, 0, 0, 123456, tzinfo=UTC)
    with time_machine.travel(moment, tick=False):
        made = new_id()
    assert made_at(made) == moment.replace(microsecond=123000)
    assert first_id_at(moment) < made < first_id_at(moment + timedelta(milliseconds=1))
