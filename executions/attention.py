"""What operators have to look at now: runs that are held, outcomes nobody knows, what is stuck.

Everything here is few rows of many, found by indexes that hold nothing else. A kind is counted up to
COUNT_UP_TO: beyond that the number tells nothing new.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Count, Exists, Min, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from executions.availability import state_of_connection
from executions.enums import RunKind, RunStatus, WorkflowExecutionStatus
from executions.models import StepRun
from workflows.connection_states import ConnectionState
from workflows.enums import WorkflowAvailability
from workflows.models import Connection
from workflows.routing import DEFAULT_CONNECTION

COUNT_UP_TO = 1_000
NEWEST = 5
STUCK_SECONDS = 60
"""A lease that ended so long ago should have been taken over: nobody sweeps."""


class AttentionKind(StrEnum):
    """Why somebody has to look, the most urgent first."""

    SUBMISSION_IN_DOUBT = "SUBMISSION_IN_DOUBT"  # FAILED, and the partner may have acted
    HELD = "HELD"  # parked, or a compensation that failed for good
    CALL_IN_DOUBT = "CALL_IN_DOUBT"  # a step's, and the execution has ended
    STUCK = "STUCK"  # its process died, and nobody took over


@dataclass(frozen=True, slots=True)
class RunReference:
    """One run and its execution."""

    run_id: UUID
    execution_id: UUID


@dataclass(frozen=True, slots=True)
class Attention:
    """How many there are of one kind (`is_capped`: at least so many), and the newest of them."""

    kind: AttentionKind
    count: int
    is_capped: bool
    newest: tuple[RunReference, ...]


@dataclass(frozen=True, slots=True)
class QueueState:
    """What workers have before them. `oldest_due_at`: what has waited longest for a free worker."""

    queued: int
    running: int
    waiting: int
    due: int
    oldest_due_at: datetime | None

    def oldest_due_seconds(self, now: datetime) -> float:
        """How long that has waited; 0 when nothing is due."""
        if self.oldest_due_at is None:
            return 0.0
        return max(0.0, (now - self.oldest_due_at).total_seconds())


def read_attention() -> tuple[Attention, ...]:
    """Every kind, also those of which there is none. One query."""
    found: dict[AttentionKind, list[RunReference]] = {kind: [] for kind in AttentionKind}
    for kind, run_id, execution_id in _together(_selections()):
        found[kind].append(RunReference(run_id, execution_id))
    return tuple(_attention(kind, runs) for kind, runs in found.items())


def read_queue() -> QueueState:
    """How the workers' queue stands. One query, over what has not ended."""
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=Now())
    is_due = free & Q(due_at__lte=Now())
    counts = StepRun.objects.unfinished_work().aggregate(
        queued=Count("id", filter=Q(status=RunStatus.QUEUED)),
        running=Count("id", filter=Q(status=RunStatus.RUNNING)),
        waiting=Count("id", filter=Q(status=RunStatus.WAITING)),
        due=Count("id", filter=is_due),
        oldest_due_at=Min("due_at", filter=is_due),
    )
    return QueueState(**counts)


def troubled_connections() -> tuple[tuple[str, ConnectionState], ...]:
    """The connections that are not called freely now, by name. One query."""
    names = set(Connection.objects.values_list("name", flat=True))
    if settings.TRIGGER_BASE_URL:
        names.add(DEFAULT_CONNECTION)
    states = ((name, state_of_connection(name)) for name in sorted(names))
    return tuple(
        (name, state) for name, state in states if state.availability is not WorkflowAvailability.OK
    )


def _attention(kind: AttentionKind, runs: list[RunReference]) -> Attention:
    newest = sorted(runs, key=lambda run: run.run_id, reverse=True)
    count = min(len(newest), COUNT_UP_TO)
    is_capped = len(newest) > COUNT_UP_TO
    return Attention(kind, count, is_capped, tuple(newest[:NEWEST]))


def _selections() -> list[tuple[AttentionKind, QuerySet[StepRun]]]:
    runs = StepRun.objects.all()
    later = StepRun.objects.filter(
        execution_id=OuterRef("execution_id"),
        trigger_key=OuterRef("trigger_key"),
        sequence__gt=OuterRef("sequence"),
    )
    in_doubt = runs.filter(~Exists(later), status=RunStatus.UNKNOWN)
    long_gone = Now() - timedelta(seconds=STUCK_SECONDS)
    return [
        (
            AttentionKind.SUBMISSION_IN_DOUBT,
            in_doubt.filter(
                kind=RunKind.SUBMISSION, execution__status=WorkflowExecutionStatus.FAILED
            ),
        ),
        (AttentionKind.HELD, runs.filter(needs_attention=True)),
        (
            AttentionKind.CALL_IN_DOUBT,
            in_doubt.exclude(kind=RunKind.SUBMISSION).filter(
                execution__completed_at__isnull=False, needs_attention=False
            ),
        ),
        (
            AttentionKind.STUCK,
            runs.filter(
                finished_at__isnull=True,
                due_at__isnull=True,
                execution__lease_until__lt=long_gone,
            ),
        ),
        (AttentionKind.STUCK, runs.unfinished_work().filter(lease_until__lt=long_gone)),
    ]


def _together(
    selections: Sequence[tuple[AttentionKind, QuerySet[StepRun]]],
) -> Iterable[tuple[AttentionKind, UUID, UUID]]:
    """The newest of each selection, in one round trip; each keeps its own index."""
    parts, values = [], []
    for number, (_, rows) in enumerate(selections):
        newest: Any = rows.order_by("-id").values_list("id", "execution_id")[: COUNT_UP_TO + 1]
        sql, parameters = newest.query.sql_with_params()
        parts.append(f"SELECT {number}, part_{number}.* FROM ({sql}) AS part_{number}")  # noqa: S608 - our own
        values += parameters
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts), values)
        rows_found = cursor.fetchall()
    for number, run_id, execution_id in rows_found:
        yield selections[number][0], UUID(str(run_id)), UUID(str(execution_id))
