"""The overview on the index: what happened, what goes wrong and where, and what has to be looked at.

Everything is read from figures that are counted already; this module names and arranges it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from executions.attention import (
    Attention,
    AttentionKind,
    QueueState,
    read_attention,
    read_queue,
    troubled_connections,
)
from executions.charts import BarChart, Segment, percent, share_in_words, stacked_bars, stripe
from executions.enums import DropCause, ErrorCode, WorkflowExecutionStatus
from executions.statistics import (
    Figures,
    Funnel,
    FunnelStep,
    Outcomes,
    Scope,
    WorkflowFigures,
    read_failing_steps,
    read_figures,
    read_funnels,
)
from workflows.connection_states import ConnectionState

PERMISSION: Final = "executions.view_workflowexecution"
PERIODS: Final = (7, 30, 90)
DEFAULT_PERIOD: Final = 30
SHOWN_WORKFLOWS: Final = 20
SHOWN_FAILURES: Final = 8

LIST: Final = "admin:executions_workflowexecution_changelist"

CAUSES: Final[Mapping[DropCause, tuple[str, str]]] = {
    DropCause.UNDER_WAY: ("busy", "under way"),
    DropCause.LEFT: ("waiting", "left"),
    DropCause.EXPIRED: ("waiting", "expired"),
    DropCause.BOUNCED: ("doubt", "bounced by validation"),
    DropCause.PARTNER_ERROR: ("bad", "partner error"),
    DropCause.PARTNER_TIMEOUT: ("bad", "partner timeout"),
    DropCause.CANCELLED: ("plain", "cancelled"),
    DropCause.OTHER: ("bad", "other"),
}
"""A cause's tone and words."""

_ATTENTION: Final[Mapping[AttentionKind, tuple[str, str, dict[str, str]]]] = {
    AttentionKind.SUBMISSION_IN_DOUBT: (
        "Submissions of which nobody knows whether the partner acted",
        "Replay them: the same key is used again, so nothing happens twice.",
        {
            "status": WorkflowExecutionStatus.FAILED.value,
            "code": ErrorCode.SUBMISSION_FAILED.value,
        },
    ),
    AttentionKind.HELD: (
        "Held: calls that killed their worker, and steps that could not be undone",
        "Replay them, or settle what was put right outside.",
        {"show": "attention"},
    ),
    AttentionKind.CALL_IN_DOUBT: (
        "Calls of ended executions with an unknown outcome",
        "Ask the partner by the trigger key, and settle them.",
        {},
    ),
    AttentionKind.STUCK: (
        "Stuck: their process died, and nobody took over",
        "Is a worker running? It sweeps every few seconds.",
        {},
    ),
}
"""What is the matter, what to do, and the list that has them, if one has."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """One value of a switch."""

    text: str
    url: str
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class _Trouble:
    """One kind of what needs attention."""

    title: str
    advice: str
    count: str
    url: str
    newest: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Flow:
    """One workflow's line."""

    name: str
    url: str
    started: int
    completed: int
    failed: int
    success: str
    median_ms: float | None
    p90_ms: float | None


@dataclass(frozen=True, slots=True)
class _FunnelLine:
    """One step of the funnel: a line of 100, and what stopped people."""

    label: str
    reached: int
    share: str
    passed: int
    segments: tuple[Segment, ...]
    drops: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class _FunnelView:
    """The chosen flow and version."""

    workflow: str
    number: int
    started: int
    completed: int
    lines: tuple[_FunnelLine, ...]
    versions: tuple[tuple[_Choice, int, int, str], ...]


def overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's hook for the index: the figures, for who may see executions."""
    if request.user.has_perm(PERMISSION):
        context["overview"] = _overview(request, timezone.now())
    return context


def _overview(request: HttpRequest, now: datetime) -> dict[str, Any]:
    days = _period(request.GET.get("days", ""))
    figures = read_figures(Scope(days=days), now=now)
    chosen = _chosen(figures.workflows, request.GET.get("workflow", ""))
    queue = read_queue()
    return {
        "as_of": figures.as_of,
        "days": days,
        "total": figures.total,
        "success": share_in_words(figures.total.success_rate),
        "periods": [
            _Choice(f"{each} days", _link(days=each, workflow=chosen), each == days)
            for each in PERIODS
        ],
        "chart": _chart(figures),
        "rows": list(reversed(figures.days)),
        "workflows": [_flow(one, now, days) for one in figures.workflows[:SHOWN_WORKFLOWS]],
        "flows": [
            _Choice(one.name, _link(days=days, workflow=one.workflow_id), one.workflow_id == chosen)
            for one in figures.workflows[:SHOWN_WORKFLOWS]
        ],
        "funnel": _funnel_view(figures, chosen, days, request.GET.get("version", ""), now),
        "failing": read_failing_steps(Scope(days=days), now=now, limit=SHOWN_FAILURES),
        "troubles": [_trouble(one) for one in read_attention() if one.count],
        "queue": queue,
        "oldest_due_ms": queue.oldest_due_seconds(now) * 1000,
        "is_late": _is_late(queue, now),
        "breakers": _breakers(troubled_connections()),
    }


def _period(text: str) -> int:
    return int(text) if text in map(str, PERIODS) else DEFAULT_PERIOD


def _chosen(workflows: Iterable[WorkflowFigures], text: str) -> UUID | None:
    """The workflow that was asked for, or the most used one."""
    ids = [one.workflow_id for one in workflows]
    asked = [each for each in ids if str(each) == text]
    return next(iter([*asked, *ids]), None)


def _link(*, days: int, workflow: UUID | None, version: int | None = None) -> str:
    wanted = {"days": days, "workflow": workflow, "version": version}
    query = urlencode({name: value for name, value in wanted.items() if value is not None})
    anchor = "" if version is None else "#funnel"
    return f"{reverse('admin:index')}?{query}{anchor}"


def _chart(figures: Figures) -> BarChart:
    return stacked_bars([(f"{one.day:%d %b}", _tones(one.outcomes)) for one in figures.days])


def _tones(outcomes: Outcomes) -> dict[str, int]:
    """The parts of a bar from the bottom up, by the words of the legend."""
    return {
        "completed": outcomes.completed,
        "failed": outcomes.failed,
        "cancelled": outcomes.cancelled,
        "under way": outcomes.live,
    }


def _flow(one: WorkflowFigures, now: datetime, days: int) -> _Flow:
    since = Scope(days=days).first_day(now)
    query = urlencode({"workflow": one.workflow_id, "since": since.isoformat()})
    return _Flow(
        name=one.name,
        url=f"{reverse(LIST)}?{query}",
        started=one.outcomes.started,
        completed=one.outcomes.completed,
        failed=one.outcomes.failed,
        success=share_in_words(one.outcomes.success_rate),
        median_ms=_milliseconds(one.median_seconds),
        p90_ms=_milliseconds(one.p90_seconds),
    )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


# --- the funnel -----------------------------------------------------------------------------------


def _funnel_view(
    figures: Figures, workflow_id: UUID | None, days: int, version: str, now: datetime
) -> _FunnelView | None:
    if workflow_id is None:
        return None
    funnels = read_funnels(Scope(days=days, workflow_id=workflow_id), now=now)
    if not funnels:
        return None
    shown = next((one for one in funnels if str(one.number) == version), funnels[0])
    names = {one.workflow_id: one.name for one in figures.workflows}
    return _FunnelView(
        workflow=names[workflow_id],
        number=shown.number,
        started=shown.started,
        completed=shown.completed,
        lines=tuple(_funnel_line(step, shown) for step in shown.steps),
        versions=tuple(_version(one, shown, workflow_id, days) for one in funnels),
    )


def _version(
    funnel: Funnel, shown: Funnel, workflow_id: UUID, days: int
) -> tuple[_Choice, int, int, str]:
    choice = _Choice(
        f"Version {funnel.number}",
        _link(days=days, workflow=workflow_id, version=funnel.number),
        funnel is shown,
    )
    completed = percent(funnel.completed, funnel.started)
    return choice, funnel.started, funnel.completed, completed


def _funnel_line(step: FunnelStep, funnel: Funnel) -> _FunnelLine:
    drops = tuple(_drops(step))
    parts = [("good", "went on", step.passed), *((tone, words, n) for tone, words, n in drops)]
    return _FunnelLine(
        label=step.label,
        reached=step.reached,
        share=percent(step.reached, funnel.started),
        passed=step.passed,
        segments=stripe(parts, whole=funnel.started),
        drops=drops,
    )


def _drops(step: FunnelStep) -> Iterator[tuple[str, str, int]]:
    for cause, count in step.drops.items():
        yield *CAUSES[cause], count
    if step.under_way:
        yield *CAUSES[DropCause.UNDER_WAY], step.under_way


# --- now ------------------------------------------------------------------------------------------


def _trouble(one: Attention) -> _Trouble:
    title, advice, query = _ATTENTION[one.kind]
    change = "admin:executions_workflowexecution_change"
    return _Trouble(
        title=title,
        advice=advice,
        count=f"{one.count} or more" if one.is_capped else str(one.count),
        url=f"{reverse(LIST)}?{urlencode(query)}" if query else "",
        newest=tuple(
            (str(each), reverse(change, args=[each]))
            for each in dict.fromkeys(run.execution_id for run in one.newest)
        ),
    )


LATE_SECONDS: Final = 30
"""What has waited for a free worker so long needs more of them, or one at all."""


def _is_late(queue: QueueState, now: datetime) -> bool:
    return queue.oldest_due_seconds(now) > LATE_SECONDS


def _breakers(
    found: Iterable[tuple[str, ConnectionState]],
) -> list[tuple[str, str, str]]:
    return [(name, state.availability.value, state.words) for name, state in found]
