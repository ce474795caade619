"""Figures by day: exact counts, counted anew without counting twice, and kept when rows go."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection

from executions.durations import bucket_of
from executions.enums import RunStatus, WorkflowExecutionStatus
from executions.models import (
    ExecutionFigures,
    FigureDay,
    RollUp,
    RunFigures,
    StepRun,
    WorkflowExecution,
)
from executions.rollups import RolledUp, roll_up, roll_up_due
from executions.sweeping import SweepKind, SweepOutcome, count_days_when_due
from executions.tests.past import (
    CANCELLED,
    FAILED,
    IN_PROGRESS,
    NOON,
    PENDING,
    call,
    execution,
)
from executions.tests.phone import flow, form, published, server_step
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow

pytestmark = pytest.mark.django_db

TODAY, YESTERDAY = date(2026, 3, 10), date(2026, 3, 9)
BEFORE = NOON - timedelta(days=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    return published(flow(form(0), server_step(1)))


def rolled(now: datetime = NOON) -> list[RolledUp]:
    return list(roll_up(now=now))


def figures() -> list[tuple[Any, ...]]:
    """Day, outcome, position, cause, count."""
    rows = ExecutionFigures.objects.order_by("day_id", "outcome", "position", "cause")
    return list(rows.values_list("day_id", "outcome", "position", "cause", "executions"))


def runs() -> list[tuple[Any, ...]]:
    """Day, step, code, connection, count."""
    rows = RunFigures.objects.order_by("day_id", "step_index", "error_code", "connection")
    return list(rows.values_list("day_id", "step_index", "error_code", "connection", "runs"))


def test_days_outcomes_and_durations(compiled: CompiledWorkflow) -> None:
    for seconds in (60, 60.2, 600):
        execution(compiled, started=BEFORE, seconds=seconds)
    execution(compiled)
    execution(compiled, status=CANCELLED, position=1)
    assert rolled() == [RolledUp(YESTERDAY, 3), RolledUp(TODAY, 2)]
    assert figures() == [
        (YESTERDAY, "COMPLETED", 2, "", 3),
        (TODAY, "CANCELLED", 1, "CANCELLED", 1),
        (TODAY, "COMPLETED", 2, "", 1),
    ]
    durations = ExecutionFigures.objects.order_by("day_id").values_list("durations", flat=True)
    assert list(durations.filter(outcome="COMPLETED")) == [
        {str(bucket_of(60)): 2, str(bucket_of(600)): 1},
        {str(bucket_of(60)): 1},
    ]


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.05, 59.0, 3_700.5, 86_000.0])
def test_the_database_finds_the_same_bucket(compiled: CompiledWorkflow, seconds: float) -> None:
    execution(compiled, started=BEFORE, seconds=seconds)
    rolled()
    assert ExecutionFigures.objects.get().durations == {str(bucket_of(seconds)): 1}


@pytest.mark.parametrize(
    ("status", "ended_by", "last_code", "minutes", "cause"),
    [
        (IN_PROGRESS, "", "", 14, "UNDER_WAY"),
        (IN_PROGRESS, "", "TRIGGER_TIMEOUT", 14, "UNDER_WAY"),  # may try again
        (IN_PROGRESS, "", "", 16, "LEFT"),
        (IN_PROGRESS, "", "VALIDATION_REJECTED", 16, "BOUNCED"),
        (FAILED, "SESSION_EXPIRED", "", 90, "EXPIRED"),
        (FAILED, "SESSION_EXPIRED", "NOT_ACCEPTED", 90, "BOUNCED"),
        (FAILED, "SESSION_EXPIRED", "TRIGGER_TIMEOUT", 90, "PARTNER_TIMEOUT"),
        (FAILED, "SESSION_EXPIRED", "TRIGGER_REJECTED", 90, "PARTNER_ERROR"),
        (FAILED, "SUBMISSION_FAILED", "TRIGGER_UNAVAILABLE", 90, "PARTNER_ERROR"),
        (FAILED, "SUBMISSION_FAILED", "", 90, "OTHER"),  # its process died
        (FAILED, "SESSION_EXPIRED", "MAPPING_INCOMPLETE", 90, "OTHER"),
        (CANCELLED, "", "TRIGGER_TIMEOUT", 90, "CANCELLED"),
    ],
)
def test_cause_is_what_the_last_call_said(
    compiled: CompiledWorkflow,
    status: WorkflowExecutionStatus,
    ended_by: str,
    last_code: str,
    minutes: int,
    cause: str,
) -> None:
    row = execution(compiled, status=status, code=ended_by, position=1)
    call(row, index=0, code="VALIDATION_REJECTED", status=RunStatus.REJECTED)
    last_status = RunStatus.FAILED if last_code else RunStatus.SUCCEEDED
    at = NOON - timedelta(minutes=minutes)
    call(row, index=1, code=last_code, status=last_status, at=at)
    rolled()
    [(_, _, position, told, count)] = figures()
    assert (position, told, count) == (1, cause, 1)


def test_nothing_called_counts_from_the_start(compiled: CompiledWorkflow) -> None:
    execution(compiled, status=PENDING, started=NOON - timedelta(minutes=16))
    execution(compiled, status=PENDING, started=NOON - timedelta(minutes=14))
    rolled()
    assert figures() == [(TODAY, "", 0, "LEFT", 1), (TODAY, "", 0, "UNDER_WAY", 1)]


def test_calls_by_step_code_and_connection(compiled: CompiledWorkflow) -> None:
    row = execution(compiled)
    call(row, index=0, calls_partner=False)
    call(row, index=1, code="TRIGGER_TIMEOUT", status=RunStatus.UNKNOWN, connection="bank")
    call(row, index=1, code="TRIGGER_TIMEOUT", status=RunStatus.UNKNOWN, connection="bank")
    call(row, index=1, connection="bank")
    call(row, index=None, status=RunStatus.UNKNOWN)  # its process died
    call(row, index=None)
    other = execution(compiled, status=IN_PROGRESS, position=1)
    call(other, index=1, status=RunStatus.CANCELLED)
    call(other, index=1, status=RunStatus.RUNNING)
    rolled()
    assert runs() == [
        (TODAY, -1, "", "", 1),
        (TODAY, -1, "UNKNOWN", "", 1),
        (TODAY, 1, "", "bank", 1),
        (TODAY, 1, "TRIGGER_TIMEOUT", "bank", 2),
    ]


def test_counting_again_comes_to_the_same(compiled: CompiledWorkflow) -> None:
    call(execution(compiled, started=BEFORE), index=1)
    rolled()
    before = figures(), runs()
    RollUp.objects.all().delete()  # as after a kill before the end of the first one
    assert rolled() == [RolledUp(YESTERDAY, 1)]
    assert (figures(), runs()) == before


def test_who_stops_in_the_middle_leaves_the_rest(compiled: CompiledWorkflow) -> None:
    execution(compiled, started=BEFORE)
    execution(compiled)
    assert next(roll_up(now=NOON)) == RolledUp(YESTERDAY, 1)
    assert figures() == [(YESTERDAY, "COMPLETED", 2, "", 1)]
    assert rolled() == [RolledUp(YESTERDAY, 1), RolledUp(TODAY, 1)]


def test_a_day_long_gone_is_counted_when_something_changed(compiled: CompiledWorkflow) -> None:
    long_ago = NOON - timedelta(days=20)
    live = execution(compiled, started=long_ago, status=IN_PROGRESS)
    execution(compiled, started=NOON - timedelta(days=10))
    rolled()
    WorkflowExecution.objects.filter(pk=live.pk).update(
        status=FAILED, error_code="SESSION_EXPIRED", completed_at=NOON + MINUTE
    )
    assert rolled(NOON + 2 * MINUTE) == [RolledUp(long_ago.date(), 1)]
    assert figures()[0] == (long_ago.date(), "SESSION_EXPIRED", 0, "EXPIRED", 1)
    # What a late commit may have hidden is looked at once more, and then no more.
    assert rolled(NOON + 4 * MINUTE) == [RolledUp(long_ago.date(), 1)]
    assert rolled(NOON + 5 * MINUTE) == []


def test_the_last_seconds_are_left_to_the_next(compiled: CompiledWorkflow) -> None:
    """Their rows may not be committed yet."""
    execution(compiled, started=NOON - timedelta(seconds=4), seconds=1)
    assert rolled() == []
    assert rolled(NOON + MINUTE) == [RolledUp(TODAY, 1)]


def test_figures_outlive_what_they_count(compiled: CompiledWorkflow) -> None:
    kept, gone = execution(compiled, started=BEFORE), execution(compiled, started=BEFORE)
    rolled()
    before = figures()
    gone.delete()
    WorkflowExecution.objects.filter(pk=kept.pk).update(completed_at=NOON + MINUTE)
    assert rolled(NOON + 2 * MINUTE) == [RolledUp(YESTERDAY, 2, is_kept=True)]
    assert figures() == before == [(YESTERDAY, "COMPLETED", 2, "", 2)]


def test_versions_are_counted_apart(compiled: CompiledWorkflow, partner: FakePartner) -> None:
    other = published(flow(form(0)))
    execution(compiled)
    execution(other)
    execution(other)
    rolled()
    counts = ExecutionFigures.objects.values_list("version_id", "executions")
    assert dict(counts) == {UUID(compiled.version_id): 1, UUID(other.version_id): 2}


def test_is_due_once_a_minute(compiled: CompiledWorkflow) -> None:
    execution(compiled, started=datetime.now(UTC) - timedelta(days=2))
    assert len(list(roll_up_due())) == 1
    assert list(roll_up_due()) == []
    RollUp.objects.update(due_at=datetime.now(UTC) - MINUTE)
    execution(compiled, started=datetime.now(UTC) - timedelta(minutes=10))
    assert len(list(roll_up_due())) >= 1
    assert FigureDay.objects.count() >= 2


def test_a_long_one_is_followed_by_a_long_rest(
    compiled: CompiledWorkflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 130.0])
    monkeypatch.setattr("executions.rollups.monotonic", lambda: next(clock))
    assert list(roll_up_due()) == []
    rest = RollUp.objects.get().due_at - datetime.now(UTC)
    assert timedelta(seconds=590) < rest <= timedelta(seconds=600)


def test_figures_hold_nothing_of_the_person(compiled: CompiledWorkflow) -> None:
    row = execution(compiled, user_id="sentinel-person")
    call(row, result={"name": "sentinel-result"}, error="sentinel-error")
    rolled()
    for model in (FigureDay, ExecutionFigures, RunFigures, RollUp):
        assert "sentinel" not in str(list(model.objects.values()))
    assert StepRun.objects.count() == 1


def test_cleanup_counts_before_it_deletes(compiled: CompiledWorkflow) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=20)
    execution(compiled, started=long_ago)
    call_command("cleanup_executions", retention_days=10, stdout=StringIO())
    assert not WorkflowExecution.objects.exists()
    assert figures() == [(long_ago.date(), "COMPLETED", 2, "", 1)]


def test_dry_run_counts_nothing(compiled: CompiledWorkflow) -> None:
    execution(compiled)
    call_command("cleanup_executions", dry_run=True, stdout=StringIO())
    assert not FigureDay.objects.exists()


def test_worker_counts_once_a_minute(compiled: CompiledWorkflow) -> None:
    execution(compiled, started=datetime.now(UTC) - timedelta(days=2))
    [done] = count_days_when_due()
    assert (done.kind, done.outcome, done.count) == (SweepKind.COUNT, SweepOutcome.DONE, 1)
    assert list(count_days_when_due()) == []


@pytest.mark.django_db(transaction=True)
def test_two_at_once_come_to_the_same(compiled: CompiledWorkflow) -> None:
    for days in range(5):
        call(execution(compiled, started=NOON - timedelta(days=days, hours=1)), index=1)
    is_together = threading.Barrier(2)

    def count() -> list[RolledUp]:
        try:
            is_together.wait(10)
            return rolled()
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: count(), range(2))
    assert first == second
    assert [one.executions for one in first] == [1] * 5
    assert [(count, outcome) for _, outcome, _, _, count in figures()] == [(1, "COMPLETED")] * 5
    assert [count for *_, count in runs()] == [1] * 5
