"""The dashboard's figures: exact numbers out of known rows, and few queries."""

from dataclasses import replace
from datetime import date, timedelta
from uuid import UUID

import pytest
from pytest_django import DjangoAssertNumQueries

from config.ids import new_id
from executions.definitions import COMPLETION
from executions.durations import GROWTH
from executions.enums import DropCause, RunStatus
from executions.rollups import roll_up
from executions.statistics import (
    FailingStep,
    Outcomes,
    Scope,
    read_failing_steps,
    read_figures,
    read_funnels,
)
from executions.tests.past import CANCELLED, FAILED, IN_PROGRESS, NOON, PENDING, call, execution
from executions.tests.phone import flow, form, published, server_step
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow
from workflows.drafts import replace_draft
from workflows.publishing import publish
from workflows.versions import compiled_version

pytestmark = pytest.mark.django_db

YESTERDAY = NOON - timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    return published(flow(form(0), server_step(1), finalApi={"endpoint": "/api/payments/submit"}))


def next_version(compiled: CompiledWorkflow) -> CompiledWorkflow:
    workflow_id = UUID(compiled.workflow_id)
    replace_draft(workflow_id, replace(compiled.document, description="Changed"))
    return compiled_version(publish(workflow_id, by="operator").id)


def count() -> None:
    list(roll_up(now=NOON))


def within_five_per_cent(told: float | None, exact: float) -> bool:
    return told is not None and exact / GROWTH**0.5 <= told <= exact * GROWTH**0.5


def test_nothing_is_nothing(db: None) -> None:
    figures = read_figures(Scope(days=3), now=NOON)
    assert (figures.as_of, figures.workflows, figures.total) == (None, (), Outcomes())
    assert [one.day for one in figures.days] == [date(2026, 3, each) for each in (8, 9, 10)]
    assert read_funnels(Scope(), now=NOON) == ()
    assert read_failing_steps(Scope(), now=NOON) == ()
    assert Outcomes().success_rate is None


def test_days_and_outcomes(compiled: CompiledWorkflow) -> None:
    for _ in range(3):
        execution(compiled, started=YESTERDAY)
    execution(compiled, started=YESTERDAY, status=FAILED, code="SESSION_EXPIRED")
    execution(compiled, status=FAILED, code="SESSION_EXPIRED")
    execution(compiled, status=FAILED, code="SUBMISSION_FAILED")
    execution(compiled, status=CANCELLED)
    execution(compiled, status=IN_PROGRESS)
    execution(compiled, started=NOON - timedelta(days=3))  # before the period
    count()
    figures = read_figures(Scope(days=3), now=NOON)
    assert figures.as_of == NOON
    before, yesterday, today = (one.outcomes for one in figures.days)
    assert before == Outcomes()
    assert yesterday == Outcomes(completed=3, failed_by_code={"SESSION_EXPIRED": 1})
    assert today == Outcomes(
        cancelled=1, live=1, failed_by_code={"SESSION_EXPIRED": 1, "SUBMISSION_FAILED": 1}
    )
    assert (figures.total.started, figures.total.failed) == (8, 3)
    assert figures.total.success_rate == 3 / 7


def test_what_was_started_since_is_added(compiled: CompiledWorkflow) -> None:
    execution(compiled)
    count()
    execution(compiled, started=NOON + SECOND, seconds=1)
    execution(compiled, started=NOON + SECOND, status=PENDING)
    figures = read_figures(Scope(days=1), now=NOON + 2 * SECOND)
    assert figures.as_of == NOON
    assert figures.total == Outcomes(completed=2, live=1)


def test_without_a_roll_up_executions_are_read_as_they_stand(compiled: CompiledWorkflow) -> None:
    execution(compiled)
    figures = read_figures(Scope(days=1), now=NOON)
    assert (figures.as_of, figures.total) == (None, Outcomes(completed=1))


def test_workflows_with_their_times(compiled: CompiledWorkflow) -> None:
    for seconds in range(1, 11):
        execution(compiled, seconds=seconds * 10)
    execution(compiled, status=FAILED, code="SESSION_EXPIRED", seconds=3600)
    newer = next_version(compiled)
    execution(newer, status=CANCELLED)
    other = published(flow(form(0)) | {"name": "Another"})
    execution(other, status=PENDING)
    count()
    first, second = read_figures(Scope(), now=NOON).workflows
    assert (first.workflow_id, first.name) == (UUID(compiled.workflow_id), "Flow")
    assert first.outcomes == Outcomes(
        completed=10, cancelled=1, failed_by_code={"SESSION_EXPIRED": 1}
    )
    assert within_five_per_cent(first.median_seconds, 50)
    assert within_five_per_cent(first.p90_seconds, 90)
    assert (second.name, second.outcomes, second.median_seconds, second.p90_seconds) == (
        "Another",
        Outcomes(live=1),
        None,
        None,
    )


def test_one_workflow_and_one_version(compiled: CompiledWorkflow) -> None:
    newer = next_version(compiled)
    execution(compiled)
    execution(newer)
    execution(newer)
    execution(published(flow(form(0))))
    count()
    execution(newer, started=NOON + SECOND)
    workflow, version = UUID(compiled.workflow_id), UUID(newer.version_id)

    def started(scope: Scope) -> int:
        return read_figures(scope, now=NOON + SECOND).total.started

    assert started(Scope()) == 5
    assert started(Scope(workflow_id=workflow)) == 4
    assert started(Scope(workflow_id=workflow, version_id=version)) == 3
    assert started(Scope(version_id=new_id())) == 0


def test_funnel_by_version_with_the_cause_of_each_drop(compiled: CompiledWorkflow) -> None:
    execution(compiled)
    execution(compiled)
    execution(compiled, status=CANCELLED, position=1)
    execution(compiled, status=FAILED, code="SESSION_EXPIRED", position=0)
    execution(compiled, status=IN_PROGRESS, position=1, started=NOON - timedelta(hours=1))
    execution(compiled, status=PENDING, started=NOON - timedelta(minutes=1))
    timed_out = execution(compiled, status=FAILED, code="SESSION_EXPIRED", position=1)
    call(timed_out, index=1, status=RunStatus.UNKNOWN, code="TRIGGER_TIMEOUT")
    unsent = execution(compiled, status=FAILED, code="SUBMISSION_FAILED", position=2)
    call(unsent, index=None, status=RunStatus.FAILED, code="TRIGGER_UNAVAILABLE")
    newer = next_version(compiled)
    execution(newer)
    count()
    scope = Scope(workflow_id=UUID(compiled.workflow_id))
    new, old = read_funnels(scope, now=NOON)
    assert (new.number, new.started, new.completed) == (2, 1, 1)
    assert (old.number, old.started, old.completed) == (1, 8, 2)
    assert [
        (step.label, step.reached, step.passed, step.under_way, step.drops) for step in old.steps
    ] == [
        ("Form 0", 8, 6, 1, {DropCause.EXPIRED: 1}),
        (
            "Call 1",
            6,
            3,
            0,
            {DropCause.CANCELLED: 1, DropCause.LEFT: 1, DropCause.PARTNER_TIMEOUT: 1},
        ),
        (COMPLETION, 3, 2, 0, {DropCause.PARTNER_ERROR: 1}),
    ]
    assert [step.type for step in old.steps] == ["FORM", "API_CALL", ""]


def test_steps_that_fail_most(compiled: CompiledWorkflow) -> None:
    row = execution(compiled)
    for _ in range(3):
        call(row, index=1, status=RunStatus.UNKNOWN, code="TRIGGER_TIMEOUT", connection="bank")
    for _ in range(2):
        call(row, index=None, status=RunStatus.FAILED, code="TRIGGER_UNAVAILABLE")
    call(row, index=1, status=RunStatus.REJECTED, code="VALIDATION_REJECTED")
    call(row, index=1, status=RunStatus.REJECTED, code="TRIGGER_REJECTED")
    call(row, index=1)
    count()
    told = read_failing_steps(Scope(), now=NOON)

    def failing(
        index: int | None, label: str, partner: str, code: str, failures: int, calls: int
    ) -> FailingStep:
        return FailingStep(
            workflow_id=UUID(compiled.workflow_id),
            workflow="Flow",
            version_id=UUID(compiled.version_id),
            number=1,
            step_index=index,
            label=label,
            connection=partner,
            error_code=code,
            failures=failures,
            calls=calls,
        )

    assert told == (
        failing(1, "Call 1", "bank", "TRIGGER_TIMEOUT", 3, 6),
        failing(None, COMPLETION, "default", "TRIGGER_UNAVAILABLE", 2, 2),
        failing(1, "Call 1", "default", "TRIGGER_REJECTED", 1, 6),
    )
    assert read_failing_steps(Scope(), now=NOON, limit=1) == told[:1]


def test_few_queries_whatever_there_is(
    compiled: CompiledWorkflow, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for version in (compiled, next_version(compiled), next_version(compiled)):
        call(execution(version), index=1, status=RunStatus.FAILED, code="TRIGGER_TIMEOUT")
        execution(version, started=YESTERDAY)
    count()
    with django_assert_num_queries(4):
        read_figures(Scope(), now=NOON)
    with django_assert_num_queries(3):
        read_figures(Scope(), now=NOON)
    with django_assert_num_queries(1):
        read_funnels(Scope(workflow_id=UUID(compiled.workflow_id)), now=NOON)
    with django_assert_num_queries(1):
        read_failing_steps(Scope(), now=NOON)
