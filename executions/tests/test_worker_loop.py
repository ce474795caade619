"""The worker's loop in a thread of ours: what it takes, keeps and lets go of when something fails.

Workers as processes, killed and ended, are in `test_workers.py`.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection
from pytest_django import Settings

from executions import sweeping, worker
from executions.enums import RunStatus
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.records import strand
from executions.tests.servers import wait_until
from executions.tests.test_async_steps import CHECK, async_step
from executions.worker_loop import WorkerLoop
from sandbox.testing import FakePartner

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def at_work(loop: WorkerLoop, *, sweeps: bool = False) -> Iterator[None]:
    """The loop runs in the block."""
    thread = threading.Thread(target=loop.run, kwargs={"sweeps": sweeps})
    thread.start()
    try:
        yield
    finally:
        loop.stop()
        thread.join()
        for sweeper in threading.enumerate():
            if sweeper.name == "sweeper":
                sweeper.join(20)


@pytest.fixture
def phone(partner: FakePartner) -> Phone:
    """Its check waits for a worker."""
    partner.answer(CHECK, {"score": 7})
    phone = Phone(published(flow(async_step(0, timeoutMs=30_000), form(1))))
    assert phone.step(0).success
    return phone


def has_succeeded(phone: Phone) -> bool:
    return phone.runs[0].status == RunStatus.SUCCEEDED


# --- the database goes away -----------------------------------------------------------------------


def test_what_was_taken_is_begun_although_the_next_look_fails(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand there RUNNING until its lease ended, and in doubt for nothing."""

    def away(*_args: Any, **_named: Any) -> None:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(worker, "claim_due", away)
    with at_work(WorkerLoop(threads=2)):
        wait_until(lambda: has_succeeded(phone), seconds=5)
    assert not phone.runs[0].in_doubt


def failing(monkeypatch: pytest.MonkeyPatch, *, times: int) -> list[UUID]:
    """So many attempts to write down how a call ended fail; the runs that they were of."""
    failed: list[UUID] = []
    write = worker._Work._write_attempts

    def write_or_fail(self: worker._Work, *given: Any) -> None:
        write(self, *given)
        if len(failed) < times:
            failed.append(self.run.id)
            raise OperationalError("the server closed the connection")

    monkeypatch.setattr(worker, "OUTAGE_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(worker._Work, "_write_attempts", write_or_fail)
    return failed


def test_an_answer_is_recorded_once_the_database_is_back(
    phone: Phone, partner: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = failing(monkeypatch, times=3)
    with at_work(WorkerLoop(threads=1)):
        wait_until(lambda: has_succeeded(phone), seconds=5)
    run = phone.runs[0]
    assert failed == [run.id] * 3
    assert [attempt.number for attempt in run.attempts.all()] == [1]
    assert (run.in_doubt, run.claims, run.lease_holder) == (False, 0, None)
    assert len(partner.calls(CHECK)) == 1


def test_nobody_waits_longer_for_the_database_than_a_lease_lives(
    phone: Phone, partner: FakePartner, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """Then the run is another one's to take, and is called again under its key."""
    settings.LEASE_SECONDS = 1
    failed = failing(monkeypatch, times=1_000)
    [claim] = worker.claim_due(1)
    began = time.monotonic()
    with pytest.raises(OperationalError):
        worker.work(claim)
    assert 1 <= time.monotonic() - began < 3
    monkeypatch.undo()
    wait_until(lambda: worker.work_off(claim.run_id), seconds=5)
    assert has_succeeded(phone)
    assert len(failed) > 5
    assert len(partner.calls(CHECK)) == 2
    assert len(partner.effects(CHECK)) == 1


# --- a row is locked ------------------------------------------------------------------------------


@pytest.mark.skipif(
    connection.vendor != "postgresql", reason="SQLite has no locks of rows: needs PostgreSQL"
)
@pytest.mark.timeout(60)  # it would wait for ever
def test_a_run_that_somebody_has_locked_keeps_no_other_waiting(phone: Phone) -> None:
    """As a machine leaves it that lost its power in a transaction."""
    other = connection.copy()
    other.set_autocommit(False)
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT id FROM executions_steprun FOR UPDATE")
        following = Phone(phone.compiled)
        assert following.step(0).success
        with at_work(WorkerLoop(threads=2)):
            wait_until(lambda: has_succeeded(following), seconds=10)
            assert phone.runs[0].status == RunStatus.QUEUED
            other.rollback()
            wait_until(lambda: has_succeeded(phone), seconds=10)
    finally:
        other.rollback()
        other.close()


# --- sweeping -------------------------------------------------------------------------------------


def test_a_dead_call_is_not_waited_for_until_all_that_expired_is_ended(
    partner: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes minutes, when 100,000 expire at once."""
    begun, over = threading.Event(), threading.Event()

    def many(_page: int, **_named: Any) -> Iterator[UUID]:
        begun.set()
        over.wait(60)
        yield from ()

    monkeypatch.setattr(sweeping, "_sessionless", many)
    phone = Phone(published(flow(form(0), server_step(1))))
    phone.step(0, {"a": 1})
    with at_work(WorkerLoop(threads=1), sweeps=True):
        try:
            assert begun.wait(10)
            strand(phone)
            wait_until(lambda: phone.row.lease_holder is None, seconds=10)
        finally:
            over.set()
    assert phone.runs[-1].status == RunStatus.UNKNOWN


# --- ended ----------------------------------------------------------------------------------------


def test_what_is_handed_back_waits_as_after_a_death_and_counts_as_none(
    phone: Phone, partner: FakePartner, settings: Settings
) -> None:
    [claim] = worker.claim_due(1)
    assert worker.hand_back([claim]) == 1
    run = phone.runs[0]
    assert (run.status, run.in_doubt, run.claims) == (RunStatus.QUEUED, True, 0)
    assert run.lease_holder is None
    assert run.due_at is not None
    assert worker.claim_due(1) == []
    assert worker.hand_back([claim]) == 0
    assert phone.runs[0].claims == 0


def test_what_was_called_back_meanwhile_is_due_at_once(phone: Phone) -> None:
    [claim] = worker.claim_due(1)
    run = phone.runs[0]
    run.sealed_callback = b"an answer"
    run.save(update_fields=["sealed_callback"])
    assert worker.hand_back([claim]) == 1
    assert [again.run_id for again in worker.claim_due(1)] == [claim.run_id]


def test_a_second_wish_within_a_second_is_the_first_one(phone: Phone, partner: FakePartner) -> None:
    """Ctrl-C reaches the whole group, and then whoever started us passes it on."""
    loop = WorkerLoop(threads=1)
    with partner.hold(CHECK) as gate:
        done: list[bool] = []
        thread = threading.Thread(target=lambda: done.append(loop.run(sweeps=False)))
        thread.start()
        partner.wait_for_calls(1, CHECK)
        loop.stop()
        loop.stop()
        gate.set()
        thread.join(20)
    assert done == [True]
    assert has_succeeded(phone)
