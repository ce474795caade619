"""The back office's figures for a period: days and outcomes, workflows, funnels, failing steps.

They are read from what `rollups.py` has counted. Executions that were started since then are added
as they stand; the rest is as of `Figures.as_of`, a minute ago while somebody sweeps.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import DateField, F, Q, QuerySet, Sum, TextField, UUIDField, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast

from executions.definitions import VersionFacts, facts_of
from executions.drops import CANCELLED, COMPLETED, LIVE
from executions.durations import Histogram, merged, quantile
from executions.enums import DropCause, ErrorCode
from executions.figure_models import ExecutionFigures, FigureDay, RunFigures
from executions.models import WorkflowExecution
from executions.rollups import day_of, first_id_of

MAX_DAYS = 366
MAX_FRESH = 20_000
"""So many executions since the last roll-up are read, at most."""

NO_FAILURES = (ErrorCode.VALIDATION_REJECTED.value, ErrorCode.NOT_ACCEPTED.value)
"""A "no" is an outcome; the funnel tells of it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What figures are about: so many days up to today (1 is today alone), perhaps one workflow.

    Days are UTC days, of the executions' start.
    """

    days: int = 30
    workflow_id: UUID | None = None
    version_id: UUID | None = None

    def first_day(self, now: datetime) -> date:
        """The first day of the period."""
        days = min(max(self.days, 1), MAX_DAYS)
        return now.date() - timedelta(days=days - 1)

    def select(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Those of the rows that belong to the workflow and version."""
        wanted = Q()
        if self.workflow_id is not None:
            wanted &= Q(version__workflow_id=self.workflow_id)
        if self.version_id is not None:
            wanted &= Q(version_id=self.version_id)
        return rows.filter(wanted)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many executions were started, and what became of them."""

    completed: int = 0
    cancelled: int = 0
    live: int = 0
    failed_by_code: Mapping[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(self.failed_by_code.values())

    @property
    def started(self) -> int:
        return self.completed + self.cancelled + self.live + self.failed

    @property
    def success_rate(self) -> float | None:
        """The share of the completed among the ended; None when none has ended."""
        ended = self.started - self.live
        return self.completed / ended if ended else None


@dataclass(frozen=True, slots=True)
class DayFigures:
    """One day of the period; days without executions are there, too."""

    day: date
    outcomes: Outcomes


@dataclass(frozen=True, slots=True)
class WorkflowFigures:
    """One workflow over the period; times are within five per cent, None without a completion."""

    workflow_id: UUID
    name: str
    outcomes: Outcomes
    median_seconds: float | None
    p90_seconds: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """The period by day, oldest first, and by workflow, the most used first."""

    as_of: datetime | None
    days: tuple[DayFigures, ...]
    workflows: tuple[WorkflowFigures, ...]
    total: Outcomes


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One step of a version: who came to it, who got past it, and what stopped the others.

    `index` len(steps) is the completion. reached = passed + under_way + the sum of `drops`.
    """

    index: int
    label: str
    type: str
    reached: int
    passed: int
    under_way: int
    drops: Mapping[DropCause, int]


@dataclass(frozen=True, slots=True)
class Funnel:
    """One version's steps in their order, as of the last roll-up."""

    version_id: UUID
    number: int
    started: int
    completed: int
    steps: tuple[FunnelStep, ...]


@dataclass(frozen=True, slots=True)
class FailingStep:
    """Calls of one step (`step_index` None: the submission) that failed with one error code.

    `error_code` is UNKNOWN where a process died during the call. `calls` are all of the step's.
    """

    workflow_id: UUID
    workflow: str
    version_id: UUID
    number: int
    step_index: int | None
    label: str
    connection: str
    error_code: str
    failures: int
    calls: int


def read_figures(scope: Scope, *, now: datetime) -> Figures:
    """The period by day and by workflow. Three queries, a fourth for versions not seen before."""
    first = scope.first_day(now)
    last = FigureDay.objects.order_by("-day").first()
    counted = [] if last is None else _counted(scope, first)
    fresh = _fresh(scope, first, last)
    counts = counted + fresh
    days = _by_day(counts, first, now.date())
    of_version = _by_version(counts)
    return Figures(
        as_of=None if last is None else last.rolled_up_at,
        days=days,
        workflows=_by_workflow(of_version, facts_of(of_version)),
        total=_outcomes(one for found in of_version.values() for one in found),
    )


def read_funnels(scope: Scope, *, now: datetime) -> tuple[Funnel, ...]:
    """The funnel of each version of the scope's workflow, the newest first. One or two queries.

    Where somebody stands is where they stopped: who went back counts at the step they went back to.
    """
    rows = (
        scope.select(ExecutionFigures.objects.filter(day__gte=scope.first_day(now)))
        .values_list("version_id", "position", "outcome", "cause")
        .annotate(count=Sum("executions"))
        .order_by()
    )
    stands: dict[UUID, list[_Stand]] = {}
    for version_id, position, outcome, cause, count in rows:
        stands.setdefault(version_id, []).append(_Stand(position, outcome, cause, count))
    facts = facts_of(stands)
    funnels = [_funnel(facts[version_id], stood) for version_id, stood in stands.items()]
    return tuple(sorted(funnels, key=lambda funnel: funnel.number, reverse=True))


def read_failing_steps(scope: Scope, *, now: datetime, limit: int = 10) -> tuple[FailingStep, ...]:
    """What failed most often, by step, error code and connection. One or two queries.

    A partner's or a person's "no" is no failure.
    """
    rows = list(
        scope.select(RunFigures.objects.filter(day__gte=scope.first_day(now)))
        .values_list("version_id", "step_index", "error_code", "connection")
        .annotate(count=Sum("runs"))
        .order_by()
    )
    calls: Counter[tuple[UUID, int]] = Counter()
    for version_id, index, _, _, count in rows:
        calls[version_id, index] += count
    failed = [row for row in rows if row[2] and row[2] not in NO_FAILURES]
    most = sorted(failed, key=lambda row: (-row[4], str(row[0]), *row[1:4]))[:limit]
    facts = facts_of({row[0] for row in most})
    return tuple(
        _failing(
            facts[version_id],
            index,
            code,
            partner,
            failures=count,
            calls=calls[version_id, index],
        )
        for version_id, index, code, partner, count in most
    )


# --- counts ---------------------------------------------------------------------------------------


class _Count(NamedTuple):
    """So many executions: of one day and version, or for one of both only."""

    day: date | None
    version_id: UUID | None
    outcome: str
    executions: int
    durations: Histogram


def _counted(scope: Scope, first: date) -> list[_Count]:
    """The completed of each day and version, with their durations; the others by day and by version.

    One query: of each day and version alone there are three times as many. Durations are read as
    text, because most are empty, and reading JSON takes longer than all the rest.
    """
    figures = scope.select(ExecutionFigures.objects.filter(day__gte=first)).order_by()
    completed, others = figures.filter(outcome=COMPLETED), figures.exclude(outcome=COMPLETED)
    day, no_day = F("day_id"), Cast(Value(None), DateField())
    version, no_version = F("version_id"), Cast(Value(None), UUIDField())
    rows = _summed(completed, day, version, Cast("durations", TextField())).union(
        _summed(others, day, no_version, Value("{}")),
        _summed(others, no_day, version, Value("{}")),
        all=True,
    )
    return [
        _Count(of_day, version_id, outcome, count, _durations(text))
        for of_day, version_id, outcome, text, count in rows
    ]


def _summed(
    figures: QuerySet[Any], day: Combinable, version: Combinable, durations: Combinable
) -> QuerySet[Any, Any]:
    named = figures.annotate(of_day=day, of_version=version, text=durations)
    columns = named.values_list("of_day", "of_version", "outcome", "text")
    counted: QuerySet[Any, Any] = columns.annotate(count=Sum("executions"))
    return counted


def _durations(text: str) -> Histogram:
    return {} if text == "{}" else {int(at): n for at, n in json.loads(text).items()}


def _fresh(scope: Scope, first: date, last: FigureDay | None) -> list[_Count]:
    """What was started after the last roll-up, by a range of the primary key."""
    after = first_id_of(first) if last is None else max(last.until_id, first_id_of(first))
    rows = scope.select(WorkflowExecution.objects.filter(id__gte=after)).order_by("id")
    counts = Counter(
        (day_of(execution_id), version_id, outcome)
        for execution_id, version_id, outcome in rows.values_list("id", "version_id", "outcome")[
            :MAX_FRESH
        ]
    )
    return [
        _Count(day, version_id, outcome, count, {})
        for (day, version_id, outcome), count in counts.items()
    ]


def _by_day(counts: Iterable[_Count], first: date, last: date) -> tuple[DayFigures, ...]:
    of_day: dict[date, list[_Count]] = {
        first + timedelta(days=n): [] for n in range((last - first).days + 1)
    }
    for one in counts:
        if one.day in of_day:
            of_day[one.day].append(one)
    return tuple(DayFigures(day, _outcomes(found)) for day, found in of_day.items())


def _by_version(counts: Iterable[_Count]) -> dict[UUID, list[_Count]]:
    of_version: dict[UUID, list[_Count]] = {}
    for one in counts:
        if one.version_id is not None:
            of_version.setdefault(one.version_id, []).append(one)
    return of_version


def _by_workflow(
    of_version: Mapping[UUID, list[_Count]], facts: Mapping[UUID, VersionFacts]
) -> tuple[WorkflowFigures, ...]:
    of_workflow: dict[UUID, list[VersionFacts]] = {}
    for version_id in of_version:
        of_workflow.setdefault(facts[version_id].workflow_id, []).append(facts[version_id])
    figures = [
        _workflow(versions, [one for each in versions for one in of_version[each.version_id]])
        for versions in of_workflow.values()
    ]
    return tuple(sorted(figures, key=lambda one: (-one.outcomes.started, one.name)))


def _workflow(versions: Iterable[VersionFacts], counts: list[_Count]) -> WorkflowFigures:
    """Under the name of the newest version that was run."""
    newest = max(versions, key=lambda one: one.number)
    durations = merged(one.durations for one in counts if one.durations)
    return WorkflowFigures(
        workflow_id=newest.workflow_id,
        name=newest.workflow,
        outcomes=_outcomes(counts),
        median_seconds=quantile(durations, 0.5),
        p90_seconds=quantile(durations, 0.9),
    )


def _outcomes(counts: Iterable[_Count]) -> Outcomes:
    by_outcome: Counter[str] = Counter()
    for one in counts:
        by_outcome[one.outcome] += one.executions
    return Outcomes(
        completed=by_outcome.pop(COMPLETED, 0),
        cancelled=by_outcome.pop(CANCELLED, 0),
        live=by_outcome.pop(LIVE, 0),
        failed_by_code=dict(by_outcome.most_common()),
    )


# --- the funnel -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stand:
    """So many executions that stand at a position for this cause."""

    position: int
    outcome: str
    cause: str
    count: int


def _funnel(facts: VersionFacts, stands: list[_Stand]) -> Funnel:
    completed = sum(stand.count for stand in stands if stand.outcome == COMPLETED)
    return Funnel(
        version_id=facts.version_id,
        number=facts.number,
        started=sum(stand.count for stand in stands),
        completed=completed,
        steps=tuple(_funnel_step(facts, index, stands) for index in range(len(facts.steps) + 1)),
    )


def _funnel_step(facts: VersionFacts, index: int, stands: list[_Stand]) -> FunnelStep:
    reached = passed = 0
    stopped: Counter[DropCause] = Counter()
    for stand in stands:
        is_completed = stand.outcome == COMPLETED
        position = math.inf if is_completed else min(stand.position, len(facts.steps))
        reached += stand.count if position >= index else 0
        passed += stand.count if position > index else 0
        if position == index:
            stopped[DropCause(stand.cause)] += stand.count
    step = facts.step(index)
    return FunnelStep(
        index=index,
        label=step.label,
        type=step.type,
        reached=reached,
        passed=passed,
        under_way=stopped.pop(DropCause.UNDER_WAY, 0),
        drops=dict(stopped.most_common()),
    )


def _failing(
    facts: VersionFacts, index: int, code: str, partner: str, *, failures: int, calls: int
) -> FailingStep:
    step = facts.step(index)
    return FailingStep(
        workflow_id=facts.workflow_id,
        workflow=facts.workflow,
        version_id=facts.version_id,
        number=facts.number,
        step_index=None if index == RunFigures.SUBMISSION else index,
        label=step.label,
        connection=partner or step.connection,
        error_code=code,
        failures=failures,
        calls=calls,
    )
