"""Everything that happened to one execution, in the order of its beginning, for staff.

Runs with their attempts, the callbacks that ended some, what operators did, start and end. What is
shown of results is what the rows hold: sensitive values are masked in them already.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from config.jsonvalues import JsonValue
from executions.definitions import COMPLETION, VersionFacts, facts_of
from executions.enums import RunKind
from executions.models import OperatorAction, StepAttempt, StepRun, WorkflowExecution
from executions.reading import RunsOfMany


class TimelineKind(StrEnum):
    """What an entry tells of."""

    STARTED = "STARTED"
    STEP = "STEP"
    SUBMISSION = "SUBMISSION"
    CANCELLATION = "CANCELLATION"
    COMPENSATION = "COMPENSATION"
    CALLBACK = "CALLBACK"
    OPERATOR_ACTION = "OPERATOR_ACTION"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class TimelineAttempt:
    """One HTTP try."""

    number: int
    outcome: str
    http_status: int | None
    error_code: str
    started_at: datetime
    duration_ms: int


@dataclass(frozen=True, slots=True)
class TimelineRun:
    """What a run's entry has beyond any other's. `undoes` is the run that a compensation is for.

    `due_at`: when a worker looks at it next. `callback_expires_at`: how long the partner may answer.
    """

    id: UUID
    sequence: int
    step_index: int | None
    timing: str
    mode: str
    visit: int
    connection: str
    trigger_key: UUID | None
    should_proceed: bool
    result: JsonValue
    attempts: tuple[TimelineAttempt, ...]
    undoes: UUID | None
    needs_attention: bool
    in_doubt: bool
    due_at: datetime | None
    claims: int
    callback_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One line. `status` is a run's, an action's outcome, or the execution's; `by` and `reason` say
    who acted and why, as far as it is recorded."""

    kind: TimelineKind
    at: datetime
    label: str
    status: str
    ended_at: datetime | None = None
    duration_ms: int | None = None
    error_code: str = ""
    error: str = ""
    by: str = ""
    reason: str = ""
    run: TimelineRun | None = None


def read_timeline(
    row: WorkflowExecution, *, runs: list[StepRun] | None = None
) -> tuple[TimelineEntry, ...]:
    """Every entry, the earliest first. Three queries, a fourth for a version not seen before.

    `runs` are all of the execution's, in their order and with their attempts, for who has them.
    """
    facts = facts_of([row.version_id])[row.version_id]
    runs = RunsOfMany([row.id]).of(row.id) if runs is None else runs
    entries = [_started(row)]
    for run in runs:
        entries += _of_run(run, facts, runs)
    entries += [_of_action(action) for action in OperatorAction.objects.filter(execution_id=row.id)]
    if row.completed_at is not None:
        entries.append(_ended(row, row.completed_at))
    return tuple(sorted(entries, key=_place))


def _place(entry: TimelineEntry) -> tuple[bool, datetime, int, bool]:
    """The start comes first; of what happened at one moment, runs by sequence, then the end."""
    sequence = 0 if entry.run is None else entry.run.sequence
    is_end = entry.kind is TimelineKind.ENDED
    return (entry.kind is not TimelineKind.STARTED, entry.at, sequence, is_end)


def _started(row: WorkflowExecution) -> TimelineEntry:
    return TimelineEntry(TimelineKind.STARTED, row.started_at, "Start", "", by=row.user_id)


def _ended(row: WorkflowExecution, at: datetime) -> TimelineEntry:
    return TimelineEntry(
        TimelineKind.ENDED,
        at,
        "End",
        row.status,
        error_code=row.error_code,
        error=row.error,
        reason=row.cancel_reason,
    )


def _of_run(run: StepRun, facts: VersionFacts, runs: list[StepRun]) -> Iterator[TimelineEntry]:
    label = _label(run, facts, runs)
    yield TimelineEntry(
        kind=TimelineKind(run.kind),
        at=run.started_at,
        label=label,
        status=run.status,
        ended_at=run.finished_at,
        duration_ms=run.duration_ms,
        error_code=run.error_code,
        error=run.error,
        run=_run(run),
    )
    if run.callback_received_at is not None:
        yield TimelineEntry(TimelineKind.CALLBACK, run.callback_received_at, label, "RECEIVED")


def _run(run: StepRun) -> TimelineRun:
    return TimelineRun(
        id=run.id,
        sequence=run.sequence,
        step_index=run.step_index,
        timing=run.timing,
        mode=run.mode,
        visit=run.visit,
        connection=run.connection,
        trigger_key=run.trigger_key,
        should_proceed=run.should_proceed,
        result=run.result,
        attempts=tuple(map(_attempt, run.attempts.all())),
        undoes=run.compensates_id,
        needs_attention=run.needs_attention,
        in_doubt=run.in_doubt,
        due_at=run.due_at,
        claims=run.claims,
        callback_expires_at=run.callback_expires_at,
    )


def _attempt(attempt: StepAttempt) -> TimelineAttempt:
    return TimelineAttempt(
        number=attempt.number,
        outcome=attempt.outcome,
        http_status=attempt.http_status,
        error_code=attempt.error_code,
        started_at=attempt.started_at,
        duration_ms=attempt.duration_ms,
    )


def _label(run: StepRun, facts: VersionFacts, runs: list[StepRun]) -> str:
    """The step's label; a compensation's is that of the step which it undoes."""
    index = run.step_index
    if run.kind == RunKind.COMPENSATION and index is None:
        undone = [one.step_index for one in runs if one.id == run.compensates_id]
        index = undone[0] if undone else None
    if index is not None:
        return facts.step(index).label
    return COMPLETION if run.kind == RunKind.SUBMISSION else RunKind(run.kind).label


def _of_action(action: OperatorAction) -> TimelineEntry:
    return TimelineEntry(
        TimelineKind.OPERATOR_ACTION,
        action.at,
        str(action.get_action_display()),
        action.outcome,
        by=action.by,
        reason=action.reason,
    )
