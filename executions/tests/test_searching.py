"""The back office's list: every filter finds exactly its executions, in pages that join."""

from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from config.ids import new_id
from executions import searching
from executions.enums import RunStatus, WorkflowExecutionStatus
from executions.models import WorkflowExecution
from executions.searching import (
    Count,
    ExecutionSearch,
    count_executions,
    find_executions,
)
from executions.tests.past import (
    CANCELLED,
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    NOON,
    PENDING,
    call,
    execution,
)
from executions.tests.phone import flow, form, published
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow
from workflows.publishing import publish
from workflows.versions import compiled_version

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
SHAPES: list[tuple[WorkflowExecutionStatus, str]] = [
    (COMPLETED, ""),
    (FAILED, "SESSION_EXPIRED"),
    (FAILED, "SUBMISSION_FAILED"),
    (CANCELLED, ""),
    (PENDING, ""),
    (IN_PROGRESS, ""),
]


@pytest.fixture(autouse=True)
def _fresh_estimates(db: None) -> None:
    """PostgreSQL's estimate may still be one of a test with many executions."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE executions_workflowexecution")


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    return published(flow(form(0), form(1)))


@pytest.fixture
def crowd(compiled: CompiledWorkflow) -> list[WorkflowExecution]:
    """Every status in three versions of two workflows, two each, a minute apart, oldest first."""
    newer = compiled_version(publish(UUID(compiled.workflow_id), by="operator").id)
    other = published(flow(form(0)) | {"name": "Another"})
    rows: list[WorkflowExecution] = []
    for _ in range(2):
        for version, (status, code) in product((compiled, newer, other), SHAPES):
            started = NOON - timedelta(hours=5) + len(rows) * MINUTE
            person = f"person-{len(rows) % 4}"
            rows.append(
                execution(version, started=started, status=status, code=code, user_id=person)
            )
            needs = status is FAILED and version is newer
            call(rows[-1], status=RunStatus.FAILED, needs_attention=needs)
    return rows


def found(limit: int = 200, **filters: Any) -> list[UUID]:
    return [
        row.id for row in find_executions(ExecutionSearch(**filters), now=NOON, limit=limit).rows
    ]


def test_every_combination_finds_exactly_its_own(crowd: list[WorkflowExecution]) -> None:
    first, newer, other = crowd[0], crowd[6], crowd[12]
    scopes: list[dict[str, Any]] = [
        {},
        {"workflow_id": first.workflow_id},
        {"workflow_id": first.workflow_id, "version_id": newer.version_id},
        {"version_id": other.version_id},
        {"workflow_id": other.workflow_id, "version_id": newer.version_id},
    ]
    codes = ["", "SESSION_EXPIRED", "SUBMISSION_FAILED", "TRIGGER_TIMEOUT"]
    dates: list[dict[str, Any]] = [
        {},
        {"since": crowd[9].started_at},
        {"until": crowd[30].started_at},
        {"since": crowd[9].started_at, "until": crowd[30].started_at},
    ]
    texts = ["", "person-1"]
    count = 0
    for scope, status, code, period, needs, text in product(
        scopes, [None, *WorkflowExecutionStatus], codes, dates, [False, True], texts
    ):
        expected = [
            row.id
            for row in reversed(crowd)
            if all(getattr(row, name) == value for name, value in scope.items())
            and (status is None or row.status == status)
            and (not code or row.error_code == code)
            and (row.started_at >= period.get("since", row.started_at))
            and ("until" not in period or row.started_at < period["until"])
            and (not needs or (row.status == FAILED and row.version_id == newer.version_id))
            and (not text or row.user_id == text)
        ]
        filters = {**scope, **period, "status": status, "error_code": code, "text": text}
        if count % 7 == 0:  # a prime: every value of every filter comes up with every other
            assert found(**filters, needs_attention=needs) == expected, filters
            search = ExecutionSearch(**filters, needs_attention=needs)
            assert count_executions(search) == Count(len(expected), is_exact=True)
        count += 1
    assert count == 5 * 6 * 4 * 4 * 2 * 2


@pytest.mark.parametrize(
    "filters", [{}, {"status": FAILED}, {"status": COMPLETED}, {"text": "person-0"}]
)
def test_pages_join_in_both_directions(
    crowd: list[WorkflowExecution], filters: dict[str, Any]
) -> None:
    everything = found(**filters)
    search = ExecutionSearch(**filters)
    page = find_executions(search, now=NOON, limit=4)
    assert page.newer is None
    seen, pages = [row.id for row in page.rows], [page]
    while page.older is not None:
        page = find_executions(search, now=NOON, limit=4, older_than=page.older)
        seen += [row.id for row in page.rows]
        pages.append(page)
    assert seen == everything
    assert len(pages) == -(-len(everything) // 4)
    for earlier in reversed(pages[:-1]):
        assert page.newer is not None
        page = find_executions(search, now=NOON, limit=4, newer_than=page.newer)
        assert [row.id for row in page.rows] == [row.id for row in earlier.rows]
        assert page.older == page.rows[-1].id
    assert page.newer is None


def test_search_by_id_session_and_person(compiled: CompiledWorkflow) -> None:
    mine, other = execution(compiled), execution(compiled, user_id="bob")
    looks_like_an_id = execution(compiled, user_id=str(mine.id))
    assert found(text=f" {other.id} ") == [other.id]
    assert found(text=other.session_id) == [other.id]
    assert found(text="bob") == [other.id]
    assert found(text="bo") == found(text="BOB") == found(text=str(new_id())) == []
    assert set(found(text=str(mine.id))) == {mine.id, looks_like_an_id.id}


def test_a_row_says_where_it_stands(compiled: CompiledWorkflow) -> None:
    started = NOON - timedelta(hours=2)
    done = execution(compiled, started=started, seconds=90)
    live = execution(compiled, started=started - MINUTE, status=IN_PROGRESS, position=1)
    lost = execution(
        compiled, started=started - 2 * MINUTE, status=FAILED, code="SUBMISSION_FAILED", position=2
    )
    call(lost, index=None, status=RunStatus.FAILED, needs_attention=True)
    first, second, third = find_executions(ExecutionSearch(), now=NOON).rows
    assert (first.id, first.step, first.outcome, first.lasted) == (
        done.id,
        "",
        "COMPLETED",
        timedelta(seconds=90),
    )
    assert (second.id, second.step, second.outcome, second.lasted) == (
        live.id,
        "Form 1",
        "",
        timedelta(hours=2, minutes=1),
    )
    assert (third.id, third.step, third.error_code, third.needs_attention) == (
        lost.id,
        "Completion",
        "SUBMISSION_FAILED",
        True,
    )
    assert (first.workflow, first.version, first.position, first.step_count) == ("Flow", 1, 2, 2)
    assert (first.user_id, first.session_id) == ("alice", f"ws_{done.id.hex}")
    assert (first.needs_attention, second.needs_attention) == (False, False)


def test_no_row_lasted_less_than_nothing(compiled: CompiledWorkflow) -> None:
    """By the clock of a machine that is behind, it has not begun yet."""
    execution(compiled, started=NOON + timedelta(hours=2), status=IN_PROGRESS)
    (row,) = find_executions(ExecutionSearch(), now=NOON).rows
    assert row.lasted == timedelta(0)


def test_nothing_is_an_empty_page(db: None) -> None:
    for search in (
        ExecutionSearch(),
        ExecutionSearch(workflow_id=new_id()),
        ExecutionSearch(status=COMPLETED, error_code="SESSION_EXPIRED"),
        ExecutionSearch(error_code="NO_SUCH_CODE"),
    ):
        page = find_executions(search, now=NOON)
        assert (page.rows, page.older, page.newer) == ((), None, None)
        assert count_executions(search) == Count(0, is_exact=True)


def test_no_more_are_counted_than_one_wants_to_know(
    crowd: list[WorkflowExecution], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "COUNT_UP_TO", 5)
    assert count_executions(ExecutionSearch(status=FAILED)) == Count(5, is_exact=False)
    assert count_executions(ExecutionSearch(status=FAILED, text="person-1")) == Count(
        3, is_exact=True
    )


def test_a_page_takes_few_queries(crowd: list[WorkflowExecution]) -> None:
    search = ExecutionSearch(workflow_id=crowd[0].workflow_id, status=FAILED)
    find_executions(search, now=NOON)
    with CaptureQueriesContext(
        connection,
    ) as captured:
        find_executions(search, now=NOON)
    assert len(captured) == 4
    assert not any("COUNT(" in query["sql"].upper() for query in captured)


def test_outcome_follows_the_row(compiled: CompiledWorkflow) -> None:
    row = execution(compiled, status=IN_PROGRESS)
    rows = WorkflowExecution.objects.filter(pk=row.pk)
    outcomes = [rows.get().outcome]
    for status, code in SHAPES[:4]:
        rows.update(status=status, error_code=code, completed_at=NOON)
        outcomes.append(rows.get().outcome)
    assert outcomes == ["", "COMPLETED", "SESSION_EXPIRED", "SUBMISSION_FAILED", "CANCELLED"]
