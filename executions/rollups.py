"""Executions and runs counted by day, so that the back office's figures need not read them.

A day is counted anew as a whole, in one transaction under its row's lock: counting twice, by two at
once, or again after a kill in the middle comes to the same. Counted are the days that may have
changed: those since the last time, those of executions that ended since then, and those with
executions that still live. docs/decisions/rollups.md says why it is done so.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import (
    BooleanField,
    Case,
    CharField,
    Count,
    F,
    FloatField,
    Func,
    IntegerField,
    OuterRef,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Coalesce, Floor, Greatest, Ln, Now

from config.ids import first_id_at, made_at
from executions.abandoned import IDLE_MINUTES
from executions.drops import COMPLETED, LIVE, cause_of
from executions.durations import GROWTH, SHORTEST_SECONDS
from executions.enums import RunKind, RunStatus
from executions.figure_models import ExecutionFigures, FigureDay, RollUp, RunFigures
from executions.models import StepRun, WorkflowExecution

EVERY_SECONDS = 60
"""How often a roll-up is due, unless it takes long."""

REST = 20
"""A roll-up that took long is followed by so many times its length without one."""

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
# Ids are made shortly before their rows are committed, and ends are seen when they are committed.
_IDS_SETTLE = timedelta(seconds=5)
_ENDS_SETTLE = timedelta(minutes=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RolledUp:
    """One day: how many executions it has. `is_kept`: retention has begun to delete them."""

    day: date
    executions: int
    is_kept: bool = False


def roll_up(*, now: datetime | None = None) -> Iterator[RolledUp]:
    """Count the days that may have changed, one per `next`, each in a transaction of its own.

    Whoever stops before the end leaves the rest to the next. `now` is by the database's clock.
    """
    state = _state()
    now = now or state.now
    for day in _changed_days(state.seen_until, now):
        if rolled := _roll_up_day(day, now):
            yield rolled
    RollUp.objects.filter(seen_until__lt=now).update(seen_until=now)


def roll_up_due() -> Iterator[RolledUp]:
    """Count the changed days if it is time for that and nobody else is at it, one per `next`.

    For whoever sweeps, to be called as often as they like: one update that finds nothing is all.
    """
    _state()
    if not RollUp.objects.filter(due_at__lte=Now()).update(due_at=_in(EVERY_SECONDS)):
        return
    begun = monotonic()
    yield from roll_up()
    RollUp.objects.update(due_at=_in(max(EVERY_SECONDS, REST * (monotonic() - begun))))


def first_id_of(day: date) -> UUID:
    """The least id of an execution that was started on that day."""
    return first_id_at(datetime(day.year, day.month, day.day, tzinfo=UTC))


def day_of(execution_id: UUID) -> date:
    """The day on which the execution was started."""
    return made_at(execution_id).date()


@dataclass(frozen=True, slots=True)
class _State:
    seen_until: datetime
    now: datetime


def _state() -> _State:
    RollUp.objects.get_or_create(defaults={"seen_until": _NEVER, "due_at": Now()})
    seen_until, now = RollUp.objects.values_list("seen_until", Now()).get()
    return _State(seen_until, now)


def _in(seconds: float) -> Any:
    return Now() + timedelta(seconds=seconds)


# --- which days -----------------------------------------------------------------------------------


def _changed_days(since: datetime, now: datetime) -> list[date]:
    """In their order, so that the newest counted day has none uncounted before it."""
    first = _first_day(now) if since == _NEVER else (since - _ENDS_SETTLE).date()
    days = {first + n * _DAY for n in range((now.date() - first).days + 1)}
    executions = WorkflowExecution.objects.filter(id__lt=first_id_of(first))
    earlier = [
        executions.filter(completed_at__gte=since - _ENDS_SETTLE),
        executions.filter(completed_at__isnull=True),
    ]
    for found in earlier:
        days.update(map(day_of, found.values_list("id", flat=True).iterator()))
    return sorted(days)


def _first_day(now: datetime) -> date:
    first = WorkflowExecution.objects.order_by("id").values_list("id", flat=True).first()
    return now.date() if first is None else min(day_of(first), now.date())


# --- one day --------------------------------------------------------------------------------------


def _roll_up_day(day: date, now: datetime) -> RolledUp | None:
    """The day's figures, written; None for a day without any."""
    first, end = first_id_of(day), first_id_of(day + _DAY)
    with transaction.atomic():
        kept, _ = FigureDay.objects.select_for_update().get_or_create(
            day=day, defaults={"until_id": first, "rolled_up_at": now}
        )
        until = max(kept.until_id, min(end, first_id_at(now - _IDS_SETTLE)))
        figures = _execution_figures(day, first, until, now)
        executions = sum(each.executions for each in figures)
        if executions < kept.executions:
            return RolledUp(day, kept.executions, is_kept=True)
        _replace(day, figures, _run_figures(day, first, until))
        FigureDay.objects.filter(day=day).update(
            until_id=until, executions=executions, rolled_up_at=now
        )
    return RolledUp(day, executions) if executions else None


def _replace(day: date, executions: list[ExecutionFigures], runs: list[RunFigures]) -> None:
    ExecutionFigures.objects.filter(day=day).delete()
    RunFigures.objects.filter(day=day).delete()
    ExecutionFigures.objects.bulk_create(executions, batch_size=500)
    RunFigures.objects.bulk_create(runs, batch_size=500)


def _execution_figures(
    day: date, first: UUID, until: UUID, now: datetime
) -> list[ExecutionFigures]:
    """One statement, so that an execution that ends meanwhile is counted once."""
    rows = _standings(first, until, now).values_list(
        "version_id", "outcome", "position", "last_code", "is_idle", "bucket", "count"
    )
    counts: Counter[tuple[UUID, str, int, str]] = Counter()
    durations: dict[tuple[UUID, str, int, str], dict[str, int]] = {}
    for version, outcome, position, last_code, is_idle, bucket, count in rows:
        cause = cause_of(outcome=outcome, last_code=last_code, is_idle=is_idle)
        key = (version, outcome, position, "" if cause is None else cause.value)
        counts[key] += count
        if bucket is not None:
            durations.setdefault(key, {})[str(bucket)] = count
    return [
        ExecutionFigures(
            day_id=day,
            version_id=version,
            outcome=outcome,
            position=position,
            cause=cause,
            executions=count,
            durations=durations.get((version, outcome, position, cause), {}),
        )
        for (version, outcome, position, cause), count in counts.items()
    ]


def _standings(first: UUID, until: UUID, now: datetime) -> Any:
    """How the executions of a range of ids stand, grouped."""
    last_call = StepRun.objects.filter(
        execution_id=OuterRef("pk"), kind__in=(RunKind.STEP, RunKind.SUBMISSION)
    ).order_by("-sequence")
    last_at = Coalesce(Subquery(last_call.values("started_at")[:1]), F("started_at"))
    last_code = Coalesce(Subquery(last_call.values("error_code")[:1]), Value(""))
    return (
        WorkflowExecution.objects.filter(id__gte=first, id__lt=until)
        .annotate(
            last_code=Case(
                When(outcome=COMPLETED, then=Value("")),
                default=last_code,
                output_field=CharField(),
            ),
            last_at=Case(When(outcome=LIVE, then=last_at)),
        )
        .annotate(
            is_idle=Case(
                When(
                    outcome=LIVE,
                    last_at__gte=now - timedelta(minutes=IDLE_MINUTES),
                    then=Value(False),  # noqa: FBT003 - a value of SQL
                ),
                default=Value(True),  # noqa: FBT003 - the same
                output_field=BooleanField(),
            ),
            bucket=Case(When(outcome=COMPLETED, then=_bucket())),
        )
        .values("version_id", "outcome", "position", "last_code", "is_idle", "bucket")
        .annotate(count=Count("id"))
        .order_by()
    )


class _Seconds(Func):
    """The seconds between two times: from the second to the first."""

    template = "EXTRACT(EPOCH FROM (%(expressions)s))"
    arg_joiner = " - "
    output_field = FloatField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "CAST(EXTRACT(EPOCH FROM (%(expressions)s)) AS double precision)"
        return self.as_sql(compiler, connection, template=template, **context)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "((JULIANDAY(%(expressions)s)) * 86400.0)"
        joiner = ") - JULIANDAY("
        return self.as_sql(compiler, connection, template=template, arg_joiner=joiner, **context)


def _bucket() -> Any:
    """`durations.bucket_of`, in SQL."""
    seconds = Greatest(_Seconds(F("completed_at"), F("started_at")), Value(SHORTEST_SECONDS))
    return Floor(Ln(seconds) / Value(math.log(GROWTH)), output_field=IntegerField())


def _run_figures(day: date, first: UUID, until: UUID) -> list[RunFigures]:
    """The calls of partners for these executions' steps and submissions that came to an end."""
    calls = (
        StepRun.objects.filter(
            execution_id__gte=first,
            execution_id__lt=until,
            kind__in=(RunKind.STEP, RunKind.SUBMISSION),
            trigger_key__isnull=False,
            finished_at__isnull=False,
        )
        .exclude(status=RunStatus.CANCELLED)
        .values_list("execution__version_id", "step_index", "status", "error_code", "connection")
        .annotate(count=Count("id"))
        .order_by()
    )
    counts: Counter[tuple[UUID, int, str, str]] = Counter()
    for version, step_index, status, code, partner, count in calls:
        index = RunFigures.SUBMISSION if step_index is None else step_index
        failed = status != RunStatus.SUCCEEDED
        counts[version, index, code or (status if failed else ""), partner] += count
    return [
        RunFigures(
            day_id=day,
            version_id=version,
            step_index=index,
            error_code=code,
            connection=partner,
            runs=count,
        )
        for (version, index, code, partner), count in counts.items()
    ]
