"""Ids are version 7 UUIDs in the order of their making."""

import time
import uuid

import pytest

from config.ids import new_id


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
