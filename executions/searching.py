"""The back office's list of executions: any combination of filters, a page at a time, newest first.

"Newest first" is the order of ids, and a page begins behind the id where the last one ended: so no
page costs more than another, and no page counts. Every combination is served by an index:

- an id, a session or a person: the primary key, `execution_by_user`
- what needs attention: the few runs of `run_needs_attention`
- a workflow or version: `execution_by_version`, a descent for each version and outcome
- an outcome among all workflows: `execution_by_outcome`, and `execution_unended` for live ones
- dates, or nothing: the primary key, because ids tell when they were made

A descent gives a page's worth of ids at most; the newest of all of them are the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import Q, QuerySet

from config.ids import first_id_at
from executions.definitions import facts_of
from executions.drops import CANCELLED, COMPLETED, LIVE
from executions.enums import ErrorCode, WorkflowExecutionStatus
from executions.models import LIVE_STATUSES, StepRun, WorkflowExecution
from workflows.models import WorkflowVersion

MAX_PAGE: Final = 200
COUNT_UP_TO: Final = 10_000

_FAILURES: Final = (WorkflowExecutionStatus.FAILED.value, *ErrorCode.values)
_OUTCOMES: Final = (LIVE, COMPLETED, CANCELLED, *_FAILURES)


@dataclass(frozen=True, slots=True)
class ExecutionSearch:
    """What is looked for; everything that is given has to hold.

    `text` is an execution's id, a session's name, or exactly a person's id. `since` and `until`
    (not included) are about the start.
    """

    text: str = ""
    status: WorkflowExecutionStatus | None = None
    workflow_id: UUID | None = None
    version_id: UUID | None = None
    error_code: str = ""
    since: datetime | None = None
    until: datetime | None = None
    needs_attention: bool = False


@dataclass(frozen=True, slots=True)
class ExecutionRow:
    """One execution in the list.

    `step` is the label of the step it stands at, "Completion" behind the last one, "" when it was
    completed; `lasted` is its age while it lives. `outcome` is "" while it lives.
    """

    id: UUID
    session_id: str
    workflow_id: UUID
    workflow: str
    version_id: UUID
    version: int
    user_id: str
    status: WorkflowExecutionStatus
    outcome: str
    error_code: str
    position: int
    step_count: int
    step: str
    started_at: datetime
    completed_at: datetime | None
    lasted: timedelta
    needs_attention: bool


@dataclass(frozen=True, slots=True)
class ExecutionPage:
    """A page of the list; `older` and `newer` begin the neighbouring pages, None where none is."""

    rows: tuple[ExecutionRow, ...]
    older: UUID | None
    newer: UUID | None


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are. Not exact: about so many of all, or more than COUNT_UP_TO of a search."""

    number: int
    is_exact: bool


def find_executions(
    search: ExecutionSearch,
    *,
    now: datetime,
    older_than: UUID | None = None,
    newer_than: UUID | None = None,
    limit: int = 50,
) -> ExecutionPage:
    """The page behind `older_than`, or the one before `newer_than`, or the first one.

    Three queries at most, a fourth for versions not seen before and one for a workflow's versions.
    """
    limit = min(max(limit, 1), MAX_PAGE)
    goes_back = newer_than is not None
    ids = _Selection(search, older_than, newer_than).ids(limit + 1)
    has_more, ids = len(ids) > limit, sorted(ids[:limit], reverse=True)
    rows = _rows(ids, now)
    if not rows:
        return ExecutionPage((), None, None)
    has_newer = has_more if goes_back else older_than is not None
    has_older = True if goes_back else has_more
    return ExecutionPage(
        rows,
        older=rows[-1].id if has_older else None,
        newer=rows[0].id if has_newer else None,
    )


def count_executions(search: ExecutionSearch) -> Count:
    """How many the search finds, counted up to COUNT_UP_TO; of all, what PostgreSQL estimates."""
    if search == ExecutionSearch() and (estimate := _estimate()) > COUNT_UP_TO:
        return Count(estimate, is_exact=False)
    found = _Selection(search).count(COUNT_UP_TO + 1)
    return Count(min(found, COUNT_UP_TO), is_exact=found <= COUNT_UP_TO)


def shown_executions(ids: Sequence[UUID], *, now: datetime) -> tuple[ExecutionRow, ...]:
    """These executions as the list shows them, in the order of the ids. Two queries or three."""
    return _rows(ids, now)


def _estimate() -> int:
    """From PostgreSQL's statistics; 0 where there are none."""
    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass",
            [WorkflowExecution._meta.db_table],
        )
        row = cursor.fetchone()
    return max(0, row[0]) if row else 0


# --- which executions -----------------------------------------------------------------------------


class _Selection:
    """The ids that a search finds, from one side of a page's end on."""

    def __init__(
        self,
        search: ExecutionSearch,
        older_than: UUID | None = None,
        newer_than: UUID | None = None,
    ) -> None:
        self._search = search
        self._order = "-id" if newer_than is None else "id"
        self._first = _later(
            None if search.since is None else first_id_at(search.since), _after(newer_than)
        )
        self._end = _earlier(
            None if search.until is None else first_id_at(search.until), older_than
        )
        self._outcomes = _outcomes_of(search)
        self._versions = _versions_of(search)

    def ids(self, limit: int) -> list[UUID]:
        """The first of them in their order."""
        if self._is_impossible():
            return []
        if self._cells() and connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(*self._descents(limit))
                return [row[0] for row in cursor.fetchall()]
        return list(self._whole()[:limit])

    def count(self, limit: int) -> int:
        """How many, at most `limit`."""
        if self._is_impossible():
            return 0
        if self._cells() and connection.vendor == "postgresql":
            sql, values = self._descents(limit)
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT count(*) FROM ({sql}) AS found", values)  # noqa: S608 - our own
                row = cursor.fetchone()
            return int(row[0]) if row else 0
        return self._whole()[:limit].count()

    def _is_impossible(self) -> bool:
        return self._versions == () or self._outcomes == ()

    def _is_narrow(self) -> bool:
        """Whether what is looked for is few rows by itself."""
        return bool(self._search.text) or self._search.needs_attention

    def _cells(self) -> list[tuple[UUID | None, str]]:
        """The descents: a version, or None for any, and an outcome."""
        if self._is_narrow() or (self._versions is None and self._outcomes in (None, (LIVE,))):
            return []
        return list(product(self._versions or (None,), self._outcomes or _OUTCOMES))

    def _whole(self) -> QuerySet[WorkflowExecution, Any]:
        """The search in one piece: narrow ones, by the primary key alone, and all on SQLite."""
        rows = self._in_range(WorkflowExecution.objects.all())
        if self._versions is not None:
            rows = rows.filter(version_id__in=self._versions)
        if self._outcomes is not None:
            rows = rows.filter(outcome__in=self._outcomes)
        if self._outcomes == (LIVE,):
            rows = rows.filter(completed_at__isnull=True)
        if self._search.text:
            rows = rows.filter(_named(self._search.text))
        if self._search.needs_attention:
            marked = StepRun.objects.filter(needs_attention=True)
            rows = rows.filter(id__in=marked.values("execution_id"))
        return rows.order_by(self._order).values_list("id", flat=True)

    def _in_range(self, rows: QuerySet[WorkflowExecution]) -> QuerySet[WorkflowExecution]:
        if self._first is not None:
            rows = rows.filter(id__gte=self._first)
        if self._end is not None:
            rows = rows.filter(id__lt=self._end)
        if self._search.status in LIVE_STATUSES:
            rows = rows.filter(status=self._search.status)
        return rows

    def _descents(self, limit: int) -> tuple[str, list[Any]]:
        """One statement that goes down an index for each cell, for PostgreSQL."""
        cells = self._cells()
        conditions = ["e.outcome = cell.outcome"]
        if self._versions is None:
            conditions.append("e.completed_at IS NOT NULL")
        else:
            conditions.append("e.version_id = cell.version_id")
        values: list[Any] = [[version for version, _ in cells], [outcome for _, outcome in cells]]
        for condition, value in (
            ("e.id >= %s", self._first),
            ("e.id < %s", self._end),
            ("e.status = %s", self._status_of_live()),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        direction = "DESC" if self._order == "-id" else "ASC"
        table = connection.ops.quote_name(WorkflowExecution._meta.db_table)
        sql = (
            "SELECT found.id FROM unnest(%s::uuid[], %s::varchar[]) AS cell(version_id, outcome)"  # noqa: S608 - ours
            f" CROSS JOIN LATERAL (SELECT e.id FROM {table} AS e WHERE {' AND '.join(conditions)}"
            f" ORDER BY e.id {direction} LIMIT %s) AS found ORDER BY found.id {direction} LIMIT %s"
        )
        return sql, [*values, limit, limit]

    def _status_of_live(self) -> str | None:
        """PENDING and IN_PROGRESS have one outcome."""
        status = self._search.status
        return status.value if status in LIVE_STATUSES and status is not None else None


def _named(text: str) -> Q:
    """A person's id may look like an execution's."""
    wanted = Q(user_id=text.strip())
    name = text.strip().removeprefix("ws_")
    try:
        return wanted | Q(id=UUID(name))
    except ValueError:
        return wanted


def _outcomes_of(search: ExecutionSearch) -> tuple[str, ...] | None:
    """The outcomes that status and error code allow; None for any, () for none."""
    match search.status:
        case None:
            allowed: tuple[str, ...] | None = None
        case WorkflowExecutionStatus.COMPLETED | WorkflowExecutionStatus.CANCELLED:
            allowed = (search.status.value,)
        case WorkflowExecutionStatus.FAILED:
            allowed = _FAILURES
        case _:
            allowed = (LIVE,)
    if not search.error_code:
        return allowed
    is_allowed = allowed is None or allowed == _FAILURES
    return (search.error_code,) if is_allowed and search.error_code in ErrorCode else ()


def _versions_of(search: ExecutionSearch) -> tuple[UUID, ...] | None:
    """The versions that the search allows; None for any, () for none."""
    if search.workflow_id is None:
        return None if search.version_id is None else (search.version_id,)
    versions = WorkflowVersion.objects.filter(workflow_id=search.workflow_id)
    if search.version_id is not None:
        versions = versions.filter(pk=search.version_id)
    return tuple(versions.order_by("-number").values_list("id", flat=True))


def _after(newer_than: UUID | None) -> UUID | None:
    return None if newer_than is None else UUID(int=min(newer_than.int + 1, _LAST))


_LAST: Final = (1 << 128) - 1


def _later(one: UUID | None, other: UUID | None) -> UUID | None:
    return max(filter(None, (one, other)), default=None)


def _earlier(one: UUID | None, other: UUID | None) -> UUID | None:
    return min(filter(None, (one, other)), default=None)


# --- what is shown of them ------------------------------------------------------------------------


def _rows(ids: Sequence[UUID], now: datetime) -> tuple[ExecutionRow, ...]:
    """The rows in the order of the ids, without those deleted meanwhile."""
    if not ids:
        return ()
    found = WorkflowExecution.objects.filter(pk__in=ids).only(*_SHOWN).in_bulk()
    marked = StepRun.objects.filter(execution_id__in=ids, needs_attention=True)
    attention = set(marked.values_list("execution_id", flat=True))
    facts = facts_of({row.version_id for row in found.values()})
    shown = []
    for row in (found[each] for each in ids if each in found):
        version = facts[row.version_id]
        is_completed = row.outcome == COMPLETED
        shown.append(
            ExecutionRow(
                id=row.id,
                session_id=row.session_id,
                workflow_id=row.workflow_id,
                workflow=version.workflow,
                version_id=row.version_id,
                version=version.number,
                user_id=row.user_id,
                status=WorkflowExecutionStatus(row.status),
                outcome=row.outcome,
                error_code=row.error_code,
                position=row.position,
                step_count=len(version.steps),
                step="" if is_completed else version.step(row.position).label,
                started_at=row.started_at,
                completed_at=row.completed_at,
                lasted=max(timedelta(0), (row.completed_at or now) - row.started_at),
                needs_attention=row.id in attention,
            )
        )
    return tuple(shown)


_SHOWN: Final = (
    *("id", "workflow_id", "version_id", "user_id", "status", "outcome", "error_code", "position"),
    *("started_at", "completed_at"),
)
