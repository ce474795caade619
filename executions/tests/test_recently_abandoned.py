"""recentlyAbandoned: who stopped where and when, told to staff only."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from config.ids import new_id
from executions.models import StepRun, WorkflowExecution
from executions.tests.app import App
from executions.tests.phone import Phone, flow, form, published
from executions.tests.records import let_expire
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow

pytestmark = pytest.mark.django_db

QUERY = """query ($h: Int, $w: ID, $n: Int) {
    recentlyAbandoned(hours: $h, workflowId: $w, limit: $n) {
        execution { id status userId } step { label } stoppedAt
    }
}"""


@pytest.fixture
def boss() -> App:
    return App("boss", "workflows:admin")


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    return published(flow(form(0), form(1)))


def stopped(compiled: CompiledWorkflow, *, ago: timedelta, steps: int = 1) -> Phone:
    """Past so many steps, the last call so long ago, and live."""
    phone = Phone(compiled)
    for index in range(steps):
        assert phone.step(index, {"x": 1}).success
    moment = timezone.now() - ago
    WorkflowExecution.objects.filter(pk=phone.execution_id).update(started_at=moment)
    StepRun.objects.filter(execution_id=phone.execution_id).update(started_at=moment)
    return phone


def expired(phone: Phone) -> Phone:
    let_expire(phone)
    phone.complete()
    assert phone.row.error_code == "SESSION_EXPIRED"
    return phone


def ids(app: App, **variables: Any) -> list[str]:
    return [one["execution"]["id"] for one in app.data(QUERY, **variables)]


def test_expired_and_idle_are_told_the_latest_first(compiled: CompiledWorkflow, boss: App) -> None:
    idle = stopped(compiled, ago=timedelta(minutes=16))
    over = expired(stopped(compiled, ago=timedelta(hours=3), steps=2))
    never = stopped(compiled, ago=timedelta(hours=2), steps=0)
    told = boss.data(QUERY)
    assert [(one["execution"]["id"], one["execution"]["status"], one["step"]) for one in told] == [
        (str(idle.execution_id), "IN_PROGRESS", {"label": "Form 1"}),
        (str(never.execution_id), "PENDING", {"label": "Form 0"}),
        (str(over.execution_id), "FAILED", None),
    ]
    assert parse_datetime(told[0]["stoppedAt"]) == idle.runs[-1].started_at
    assert parse_datetime(told[1]["stoppedAt"]) == never.row.started_at


def test_who_goes_on_or_has_ended_is_not_told(compiled: CompiledWorkflow, boss: App) -> None:
    stopped(compiled, ago=timedelta(minutes=14))
    stopped(compiled, ago=timedelta(hours=1)).cancel()
    assert stopped(compiled, ago=timedelta(hours=1), steps=2).complete().success
    assert ids(boss) == []


def test_hours_reach_back_to_the_last_call(compiled: CompiledWorkflow, boss: App) -> None:
    """Not to the expiry: it may be found long after the person went away."""
    idle = stopped(compiled, ago=timedelta(hours=5))
    over = expired(stopped(compiled, ago=timedelta(hours=30)))
    assert ids(boss, h=4) == []
    assert ids(boss, h=6) == [str(idle.execution_id)]
    assert ids(boss, h=31) == [str(idle.execution_id), str(over.execution_id)]


def test_overdue_execution_is_ended_before_it_is_told(
    compiled: CompiledWorkflow, boss: App
) -> None:
    phone = stopped(compiled, ago=timedelta(hours=2))
    let_expire(phone)
    [told] = boss.data(QUERY)
    assert told["execution"]["status"] == "FAILED"
    assert phone.row.error_code == "SESSION_EXPIRED"


def test_one_workflow_and_a_limit(compiled: CompiledWorkflow, boss: App) -> None:
    first = stopped(compiled, ago=timedelta(hours=1))
    expired(stopped(compiled, ago=timedelta(hours=2)))
    other = stopped(published(flow(form(0), form(1))), ago=timedelta(hours=3))
    assert ids(boss, w=other.compiled.workflow_id) == [str(other.execution_id)]
    assert ids(boss, w=str(new_id())) == []
    assert ids(boss, n=1) == [str(first.execution_id)]
    assert len(ids(boss, n=3)) == 3


@pytest.mark.parametrize("variables", [{"h": 0}, {"h": 721}, {"n": 0}, {"n": 101}])
def test_bounds_are_kept(db: None, boss: App, variables: dict[str, int]) -> None:
    assert boss.code(QUERY, **variables) == "BAD_USER_INPUT"


def test_what_is_no_workflow_is_not_found(db: None, boss: App) -> None:
    assert boss.code(QUERY, w="x") == "NOT_FOUND"


def test_people_are_refused(compiled: CompiledWorkflow) -> None:
    stopped(compiled, ago=timedelta(hours=1))
    assert App("alice").code(QUERY) == "FORBIDDEN"
