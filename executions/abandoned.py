"""Who stopped at a step lately, for support and for winning people back.

An execution counts as abandoned when it expired, or when it is live and nothing was called for
IDLE_MINUTES. It stopped when its last recorded call began (or it was started, when there was none).
What was completed, cancelled, or ended by a failed submission was not abandoned.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import F, OuterRef, Subquery
from django.db.models.functions import Coalesce, Now

from executions.enums import ErrorCode, WorkflowExecutionStatus
from executions.errors import InputRefused
from executions.models import StepRun, WorkflowExecution
from executions.models import WorkflowExecutionQuerySet as Executions
from executions.reading import ExecutionView, RunsOfMany, Sessions
from workflows.compiled import CompiledStep

IDLE_MINUTES = 15
MAX_HOURS = 720

_Stop = tuple[UUID, datetime]


@dataclass(frozen=True, slots=True)
class Abandoned:
    """One abandoned execution: where and when the person stopped."""

    view: ExecutionView = field(repr=False)
    stopped_at: datetime

    @property
    def step(self) -> CompiledStep | None:
        """The first step not passed; None when only the completion was missing."""
        steps, position = self.view.compiled.steps, self.view.row.position
        return steps[position] if position < len(steps) else None


def recently_abandoned(
    *, hours: int, workflow_id: UUID | None, limit: int, viewer: str
) -> list[Abandoned]:
    """Executions that stopped in the last `hours`, the latest first, at most `limit`; for staff.

    Those past their time are ended first, as at every reading. Raises InputRefused for hours or a
    limit out of bounds.
    """
    if not 1 <= hours <= MAX_HOURS:
        raise InputRefused(f"hours has to be between 1 and {MAX_HOURS}.")
    if not 1 <= limit <= settings.MAX_PAGE_SIZE:
        raise InputRefused(f"limit has to be between 1 and {settings.MAX_PAGE_SIZE}.")
    return _shown(recent_stops(hours=hours, workflow_id=workflow_id, limit=limit), viewer=viewer)


def recent_stops(*, hours: int, workflow_id: UUID | None, limit: int) -> list[_Stop]:
    """Which executions stopped in the last `hours` and when, the latest first. Two queries.

    Nothing is ended by looking: what is overdue and was not swept yet is here as live.
    """
    rows = WorkflowExecution.objects.all()
    if workflow_id is not None:
        rows = rows.filter(workflow_id=workflow_id)
    since = Now() - timedelta(hours=hours)
    stops = _expired(rows, since, limit) + _idle(rows, since, limit)
    stops.sort(key=lambda stop: stop[1], reverse=True)
    return stops[:limit]


def _expired(rows: Executions, since: Any, limit: int) -> list[_Stop]:
    """An expiry after `since` is the index's part: who stopped since then expired since then."""
    ended = rows.filter(
        status=WorkflowExecutionStatus.FAILED,
        error_code=ErrorCode.SESSION_EXPIRED,
        completed_at__gte=since,
    )
    return _latest(ended, since, limit)


def _idle(rows: Executions, since: Any, limit: int) -> list[_Stop]:
    return _latest(rows.live().idle(), since, limit, until=Now() - timedelta(minutes=IDLE_MINUTES))


def _latest(rows: Executions, since: Any, limit: int, *, until: Any = None) -> list[_Stop]:
    last_call = StepRun.objects.filter(execution_id=OuterRef("pk")).order_by("-sequence")
    stopped = rows.annotate(
        stopped_at=Coalesce(Subquery(last_call.values("started_at")[:1]), F("started_at"))
    ).filter(stopped_at__gte=since)
    if until is not None:
        stopped = stopped.filter(stopped_at__lte=until)
    return list(stopped.order_by("-stopped_at").values_list("id", "stopped_at")[:limit])


def _shown(stops: list[_Stop], *, viewer: str) -> list[Abandoned]:
    ids = [execution_id for execution_id, _ in stops]
    overdue = WorkflowExecution.objects.expired().filter(pk__in=ids)
    sessions = Sessions()
    for execution_id in list(overdue.values_list("id", flat=True)):
        sessions.mend(execution_id)
    rows = WorkflowExecution.objects.in_bulk(ids)
    runs = RunsOfMany(ids)

    def view(row: WorkflowExecution) -> ExecutionView:
        is_owner = row.user_id == viewer
        return ExecutionView(row, is_staff=True, is_owner=is_owner, runs=runs, sessions=sessions)

    return [
        Abandoned(view(row), stopped_at)
        for execution_id, stopped_at in stops
        if (row := rows.get(execution_id)) is not None
    ]
