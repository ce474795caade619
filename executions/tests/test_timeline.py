"""One execution's story: runs with attempts, callbacks, compensations, operators, start and end."""

from datetime import timedelta

import pytest
from pytest_django import DjangoAssertNumQueries

from executions.enums import AttemptOutcome, OperatorActionKind, OperatorOutcome, RunKind, RunStatus
from executions.models import OperatorAction, StepAttempt
from executions.tests.past import FAILED, IN_PROGRESS, NOON, call, execution
from executions.tests.phone import flow, form, published, server_step
from executions.timeline import TimelineAttempt, TimelineKind, read_timeline
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow

pytestmark = pytest.mark.django_db

START = NOON - timedelta(hours=2)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    return published(flow(form(0), server_step(1)))


def test_everything_in_its_order(
    compiled: CompiledWorkflow, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    row = execution(
        compiled, started=START, status=FAILED, code="SUBMISSION_FAILED", position=2, seconds=300
    )
    call(row, at=START + MINUTE, calls_partner=False)
    step = call(
        row,
        index=1,
        at=START + 2 * MINUTE,
        connection="bank",
        callback_received_at=START + 3 * MINUTE,
    )
    call(row, index=None, at=START + 4 * MINUTE, status=RunStatus.UNKNOWN, code="TRIGGER_TIMEOUT")
    undoing = call(
        row,
        index=None,
        kind=RunKind.COMPENSATION,
        at=START + 6 * MINUTE,
        status=RunStatus.FAILED,
        compensates_id=step.id,
        needs_attention=True,
    )
    StepAttempt.objects.create(
        run=step,
        number=2,
        outcome=AttemptOutcome.ANSWERED,
        http_status=202,
        started_at=START + 2 * MINUTE,
        duration_ms=40,
    )
    StepAttempt.objects.create(
        run=step,
        number=1,
        outcome=AttemptOutcome.SERVER_ERROR,
        http_status=503,
        error_code="TRIGGER_UNAVAILABLE",
        started_at=START + 2 * MINUTE,
        duration_ms=30,
    )
    OperatorAction.objects.create(
        execution_id=row.id,
        action=OperatorActionKind.REPLAY_SUBMISSION,
        by="operator",
        reason="asked by support",
        at=START + 7 * MINUTE,
        outcome=OperatorOutcome.UNKNOWN,
    )
    read_timeline(row)
    with django_assert_num_queries(3):
        entries = read_timeline(row)
    assert [(one.kind, one.at - START, one.label, one.status) for one in entries] == [
        (TimelineKind.STARTED, 0 * MINUTE, "Start", ""),
        (TimelineKind.STEP, MINUTE, "Form 0", "SUCCEEDED"),
        (TimelineKind.STEP, 2 * MINUTE, "Call 1", "SUCCEEDED"),
        (TimelineKind.CALLBACK, 3 * MINUTE, "Call 1", "RECEIVED"),
        (TimelineKind.SUBMISSION, 4 * MINUTE, "Completion", "UNKNOWN"),
        (TimelineKind.ENDED, 5 * MINUTE, "End", "FAILED"),
        (TimelineKind.COMPENSATION, 6 * MINUTE, "Call 1", "FAILED"),
        (TimelineKind.OPERATOR_ACTION, 7 * MINUTE, "Replay Submission", "UNKNOWN"),
    ]
    called = entries[2]
    assert called.run is not None
    assert (called.run.connection, called.duration_ms, called.ended_at) == (
        "bank",
        1000,
        START + 2 * MINUTE + timedelta(seconds=1),
    )
    assert called.run.attempts == (
        TimelineAttempt(1, "SERVER_ERROR", 503, "TRIGGER_UNAVAILABLE", START + 2 * MINUTE, 30),
        TimelineAttempt(2, "ANSWERED", 202, "", START + 2 * MINUTE, 40),
    )
    assert (entries[4].error_code, entries[5].error_code) == (
        "TRIGGER_TIMEOUT",
        "SUBMISSION_FAILED",
    )
    undo = entries[6].run
    assert undo is not None
    assert (undo.id, undo.undoes, undo.needs_attention) == (undoing.id, step.id, True)
    assert (entries[7].by, entries[7].reason) == ("operator", "asked by support")


def test_what_lives_has_no_end(compiled: CompiledWorkflow) -> None:
    row = execution(compiled, status=IN_PROGRESS, started=START)
    call(row, index=1, status=RunStatus.QUEUED, due_at=START + MINUTE)
    started, queued = read_timeline(row)
    assert (started.kind, started.by) == (TimelineKind.STARTED, "alice")
    assert (queued.status, queued.ended_at, queued.duration_ms) == ("QUEUED", None, None)
    assert queued.run is not None
    assert queued.run.due_at == START + MINUTE
