"""What needs attention: exact counts, the newest ids, and what has settled itself is not told."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from executions import attention
from executions.attention import (
    AttentionKind,
    QueueState,
    RunReference,
    read_attention,
    read_queue,
    troubled_connections,
)
from executions.breaking import Ending
from executions.enums import RunKind, RunStatus
from executions.models import StepRun, WorkflowExecution
from executions.surroundings import get_surroundings
from executions.tests.past import COMPLETED, FAILED, IN_PROGRESS, call, execution
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.records import strand
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow
from workflows.enums import WorkflowAvailability

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    return published(flow(form(0), server_step(1)))


def told() -> dict[AttentionKind, tuple[int, tuple[RunReference, ...]]]:
    return {one.kind: (one.count, one.newest) for one in read_attention()}


def reference(run: StepRun) -> RunReference:
    return RunReference(run.id, run.execution_id)


def test_nothing_is_told_of_nothing(
    db: None, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(1):
        assert told() == dict.fromkeys(AttentionKind, (0, ()))
    with django_assert_num_queries(1):
        assert read_queue() == QueueState(0, 0, 0, 0, None)


def test_held_runs(compiled: CompiledWorkflow) -> None:
    row = execution(compiled)
    call(row, status=RunStatus.PARKED)
    parked = call(row, status=RunStatus.PARKED, needs_attention=True)
    undoing = call(row, kind=RunKind.COMPENSATION, status=RunStatus.FAILED, needs_attention=True)
    assert told()[AttentionKind.HELD] == (2, (reference(undoing), reference(parked)))


def test_outcomes_in_doubt_of_what_has_ended(compiled: CompiledWorkflow) -> None:
    failed = execution(compiled, status=FAILED, code="SUBMISSION_FAILED")
    step = call(failed, index=1, status=RunStatus.UNKNOWN)
    submission = call(failed, index=None, status=RunStatus.UNKNOWN)
    live = execution(compiled, status=IN_PROGRESS)
    call(live, index=1, status=RunStatus.UNKNOWN)
    found = told()
    assert found[AttentionKind.SUBMISSION_IN_DOUBT] == (1, (reference(submission),))
    assert found[AttentionKind.CALL_IN_DOUBT] == (1, (reference(step),))
    assert found[AttentionKind.HELD] == (0, ())


@pytest.mark.parametrize("index", [1, None])
def test_a_repeat_under_the_same_key_settles_a_doubt(
    compiled: CompiledWorkflow, index: int | None
) -> None:
    row = execution(compiled, status=FAILED, code="SUBMISSION_FAILED")
    doubt = call(row, index=index, status=RunStatus.UNKNOWN)
    call(row, index=index, status=RunStatus.SUCCEEDED)  # another key
    assert sum(count for count, _ in told().values()) == 1
    call(row, index=index, status=RunStatus.FAILED, trigger_key=doubt.trigger_key)
    assert sum(count for count, _ in told().values()) == 0


def test_a_doubt_of_what_completed_after_all_is_a_step_s(compiled: CompiledWorkflow) -> None:
    row = execution(compiled, status=COMPLETED)
    call(row, index=None, status=RunStatus.UNKNOWN)
    assert sum(count for count, _ in told().values()) == 0


def test_stuck_are_leases_long_gone(compiled: CompiledWorkflow) -> None:
    strand(Phone(compiled), ago=timedelta(seconds=50))
    stuck = strand(Phone(compiled), ago=timedelta(seconds=70))
    row = execution(compiled, status=IN_PROGRESS)
    now = timezone.now()

    def worked_on(ago: timedelta) -> StepRun:
        return call(
            row,
            status=RunStatus.RUNNING,
            due_at=now - ago,
            lease_holder=uuid4(),
            lease_until=now - ago,
        )

    worked_on(timedelta(seconds=50))
    worker_died = worked_on(timedelta(seconds=70))
    count, newest = told()[AttentionKind.STUCK]
    assert (count, {one.run_id for one in newest}) == (2, {stuck, worker_died.id})


def test_no_more_are_counted_than_tell_something(
    compiled: CompiledWorkflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "COUNT_UP_TO", 6)
    row = execution(compiled)
    runs = [call(row, status=RunStatus.PARKED, needs_attention=True) for _ in range(6)]
    [held] = [one for one in read_attention() if one.kind is AttentionKind.HELD]
    assert (held.count, held.is_capped) == (6, False)
    assert held.newest == tuple(reference(run) for run in reversed(runs[1:]))
    call(row, status=RunStatus.PARKED, needs_attention=True)
    [held] = [one for one in read_attention() if one.kind is AttentionKind.HELD]
    assert (held.count, held.is_capped) == (6, True)


def test_queue(compiled: CompiledWorkflow) -> None:
    row = execution(compiled, status=IN_PROGRESS)
    now = datetime.now(UTC)
    call(row, status=RunStatus.QUEUED, due_at=now - 2 * MINUTE)
    call(row, status=RunStatus.QUEUED, due_at=now - MINUTE)
    call(row, status=RunStatus.QUEUED, due_at=now + MINUTE)
    call(row, status=RunStatus.WAITING, due_at=now + MINUTE)
    call(
        row,
        status=RunStatus.RUNNING,
        due_at=now - 3 * MINUTE,
        lease_holder=uuid4(),
        lease_until=now + MINUTE,
    )
    call(row, status=RunStatus.RUNNING)  # within a request
    queue = read_queue()
    assert queue == QueueState(3, 1, 1, due=2, oldest_due_at=now - 2 * MINUTE)
    assert queue.oldest_due_seconds(now) == 120
    assert queue.oldest_due_seconds(now - 5 * MINUTE) == 0
    assert WorkflowExecution.objects.count() == 1


def test_connections_that_are_left_alone(db: None, partner: FakePartner) -> None:
    assert troubled_connections() == ()
    breakers = get_surroundings().breakers
    for _ in range(5):
        permit = breakers.ask("default", lasting_ms=1_000)
        breakers.end("default", permit, Ending.FAILED)
    [(name, state)] = troubled_connections()
    assert (name, state.availability) == ("default", WorkflowAvailability.BLOCKED)
