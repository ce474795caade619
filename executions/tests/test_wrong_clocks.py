"""A process whose clock is wrong by two hours: the database's clock decides, and nobody notices.

On PostgreSQL that clock is the server's, whatever the machines around it think. On SQLite there is
one machine, whose clock is the database's: nothing could be told apart, so there is nothing to test.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.conf import settings
from django.db import connection
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from executions import callbacks, leases, sweeping, worker
from executions.composing import Composed
from executions.enums import RunStatus, WorkflowExecutionStatus
from executions.errors import ExecutionBusy
from executions.leases import Held
from executions.models import StepAttempt, StepRun, WorkflowExecution
from executions.recovery import mend
from executions.session_store import get_session_store
from executions.tests.evidence import nothing_happens
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.records import strand
from executions.tests.test_async_steps import CHECK, async_step, work_off_all
from executions.tests.test_compensation import work_off_everything
from sandbox.testing import FakePartner

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.parametrize("hours", [-2, 2]),
    pytest.mark.skipif(
        connection.vendor != "postgresql",
        reason="SQLite's clock is the machine's; script/test has PostgreSQL in its second pass",
    ),
]

SECONDS = 30
"""More than any of these tests takes, and far less than two hours."""


@contextmanager
def clock_wrong_by(hours: int) -> Iterator[None]:
    """What is done in the block is done by a process with that clock."""
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=True):
        yield


def seconds_until(rows: QuerySet[Any], column: str) -> float:
    """From now to the column's time, both by the database's clock."""
    left: timedelta = rows.annotate(left=F(column) - Now()).values_list("left", flat=True).get()
    return left.total_seconds()


def about(seconds: float, wanted: float) -> bool:
    return abs(seconds - wanted) < SECONDS


@pytest.fixture
def checking(partner: FakePartner) -> FakePartner:
    partner.answer(CHECK, {"score": 7})
    return partner


def test_a_walk_through_such_a_process_takes_its_time_from_the_database(
    hours: int, checking: FakePartner
) -> None:
    document = flow(
        form(0),
        async_step(1),
        server_step(2, triggerEndpoint="/api/anything/x"),
        apiMapping={"score": "call1.score"},
        durableSession=True,
    )
    compiled = published(document)
    with clock_wrong_by(hours):
        phone = Phone(compiled)
        assert phone.step(0, {"a": 1}).success
        assert phone.step(1).success
        assert work_off_all() == 1
        assert phone.step(2).success
    row = WorkflowExecution.objects.filter(pk=phone.execution_id)
    assert about(seconds_until(row, "started_at"), 0)
    assert about(seconds_until(row, "expires_at"), settings.SESSION_TTL_SECONDS)
    left = get_session_store().get_session_ttl(phone.row.session_id)
    assert left is not None
    assert about(left, settings.SESSION_TTL_SECONDS)
    get_session_store().clear_session(phone.row.session_id)
    with clock_wrong_by(hours):
        assert phone.complete().result == {"score": 7}
    ended = phone.row
    assert ended.completed_at is not None
    assert ended.completed_at >= ended.started_at
    for run in phone.runs:
        assert run.finished_at is not None
        assert run.finished_at >= run.started_at
        assert run.duration_ms is not None
        assert 0 <= run.duration_ms < SECONDS * 1000
    durations = StepAttempt.objects.values_list("duration_ms", flat=True)
    assert len(durations) == 2
    assert all(0 <= each < SECONDS * 1000 for each in durations)


def test_nobody_expires_early_or_is_taken_over_early(hours: int, partner: FakePartner) -> None:
    compiled = published(flow(form(0), server_step(1, triggerEndpoint="/api/anything/x")))
    person, calling = Phone(compiled), Phone(compiled)
    person.step(0, {"a": 1})
    calling.step(0, {"a": 1})
    strand(calling, ago=-timedelta(seconds=SECONDS))
    with clock_wrong_by(hours), nothing_happens(partner):
        assert list(sweeping.take_over_stranded()) == []
        assert list(sweeping.expire_overdue(asks_sessions=True)) == []
        assert list(sweeping.delete_past_retention(days=1)) == []
        with pytest.raises(ExecutionBusy):
            mend(calling.execution_id)


def test_what_is_dead_is_found_in_time(hours: int, partner: FakePartner) -> None:
    compiled = published(flow(form(0), server_step(1, triggerEndpoint="/api/anything/x")))
    overdue, stranded = Phone(compiled), Phone(compiled)
    stranded.step(0, {"a": 1})
    strand(stranded, ago=timedelta(seconds=1))
    get_session_store().clear_session(overdue.row.session_id)
    WorkflowExecution.objects.filter(pk=overdue.execution_id).update(
        expires_at=Now() - timedelta(seconds=1)
    )
    with clock_wrong_by(hours):
        assert [one.ids for one in sweeping.take_over_stranded()] == [(stranded.execution_id,)]
        assert [one.ids for one in sweeping.expire_overdue()] == [(overdue.execution_id,)]
    assert overdue.row.status == WorkflowExecutionStatus.FAILED


def test_a_worker_takes_what_is_due_and_nothing_else(hours: int, checking: FakePartner) -> None:
    compiled = published(flow(async_step(0), form(1)))
    due, later, held = Phone(compiled), Phone(compiled), Phone(compiled)
    for phone in (due, later):
        phone.step(0)
    StepRun.objects.filter(execution_id=later.execution_id).update(
        due_at=Now() + timedelta(seconds=SECONDS)
    )
    with clock_wrong_by(hours):
        held.step(0)
        claims = worker.claim_due(10)
    mine = {claim.run_id for claim in claims}
    assert mine == {due.runs[0].id, held.runs[0].id}
    lease = StepRun.objects.filter(pk=held.runs[0].id)
    assert about(seconds_until(lease, "lease_until"), settings.LEASE_SECONDS)
    with clock_wrong_by(hours):
        assert worker.claim_due(10) == []
        assert worker.claim_woken(mine) == []
        assert list(sweeping.park_poisonous()) == []
        assert list(sweeping.wake_lost()) == []


def test_a_lease_is_renewed_by_the_databases_clock(hours: int, checking: FakePartner) -> None:
    phone = Phone(published(flow(async_step(0), form(1))))
    phone.step(0)
    [claim] = worker.claim_due(1)
    run = StepRun.objects.filter(pk=claim.run_id)
    run.update(lease_until=Now() + timedelta(seconds=2))
    with clock_wrong_by(hours):
        leases._renew(frozenset([Held(StepRun, claim.run_id, claim.holder)]))
    assert about(seconds_until(run, "lease_until"), settings.LEASE_SECONDS)
    run.update(lease_until=Now() - timedelta(seconds=2))
    with clock_wrong_by(hours):
        leases._renew(frozenset([Held(StepRun, claim.run_id, claim.holder)]))
    assert about(seconds_until(run, "lease_until"), -2)


def test_the_next_attempt_is_due_in_its_time(hours: int, partner: FakePartner) -> None:
    partner.fault(CHECK, "status", status=503)
    retry = {"maxRetries": 2, "initialDelayMs": 60_000, "maxDelayMs": 60_000}
    phone = Phone(published(flow(async_step(0, retryConfig=retry))))
    phone.step(0)
    with clock_wrong_by(hours):
        work_off_all()
    left = seconds_until(StepRun.objects.filter(pk=phone.runs[0].pk), "due_at")
    assert 30 - SECONDS < left <= 60


def test_a_callback_does_not_expire_early(hours: int, partner: FakePartner) -> None:
    partner.fault(CHECK, "answer", status=202, body={})
    phone = Phone(published(flow(async_step(0), form(1))))
    phone.step(0)
    with clock_wrong_by(hours):
        work_off_all()
    run = phone.runs[0]
    waiting = StepRun.objects.filter(pk=run.pk)
    assert about(seconds_until(waiting, "callback_expires_at"), settings.CALLBACK_TTL_SECONDS)
    waiting.update(callback_expires_at=Now() + timedelta(seconds=SECONDS))
    url = Composed.unsealed(run.sealed_request or b"", run_id=run.id).callback_url
    with clock_wrong_by(hours):
        token = url.rsplit("/", 1)[1]
        callbacks.receive(token, body=b'{"ok": true}', signature=None, now=timezone.now())
    assert phone.runs[0].status == RunStatus.SUCCEEDED


def test_a_failed_submission_is_final_in_its_time(hours: int, partner: FakePartner) -> None:
    partner.fault("/api/submit", "answer", status=400, body={}, times=None)
    undo = {"compensation": {"endpoint": "/api/anything/undo"}}
    document = flow(
        server_step(0, triggerEndpoint="/api/anything/x", config=undo),
        finalApi={"endpoint": "/api/submit"},
        apiMapping={"fixed": "'x'"},
    )
    phone = Phone(published(document))
    phone.step(0)
    with clock_wrong_by(hours):
        phone.complete()
        assert list(sweeping.undo_final_failures()) == []
    row = WorkflowExecution.objects.filter(pk=phone.execution_id)
    assert about(seconds_until(row, "undo_at"), settings.SESSION_TTL_SECONDS)
    row.update(undo_at=Now() - timedelta(seconds=1))
    with clock_wrong_by(hours):
        assert [one.outcome for one in sweeping.undo_final_failures()] == ["DONE"]
        work_off_everything()
    assert [call.path for call in partner.calls()][-1] == "/api/anything/undo"
