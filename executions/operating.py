"""What staff may do to an execution by hand: whether it is possible now, what it would send, doing it.

The commands and the back office call the same functions of the engine; what stands here is what a
page needs besides: every action by one name with the permission that it takes, the reason when it
is not possible, and many executions at once.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from executions import executor, operator_actions
from executions.enums import (
    OperatorActionKind,
    OperatorOutcome,
    RunKind,
    RunStatus,
    WorkflowExecutionStatus,
)
from executions.errors import ExecutionError, ExecutionNotFound
from executions.models import StepRun, WorkflowExecution
from executions.replaying import (
    Known,
    PlannedRequest,
    find_known,
    know_many,
    plan_replay,
    plan_settlement,
)
from executions.surroundings import Surroundings, get_surroundings
from workflows.compiled import CompiledWorkflow
from workflows.errors import WorkflowError

Kind = OperatorActionKind

MAX_BULK: Final = 50
"""So many executions at once by hand; for more there is the command."""

PERMISSIONS: Final[Mapping[Kind, str]] = {
    Kind.REPLAY_SUBMISSION: "executions.replay_execution",
    Kind.REPLAY_COMPENSATION: "executions.replay_execution",
    Kind.SETTLE_SUBMISSION: "executions.replay_execution",
    Kind.SETTLE_COMPENSATION: "executions.replay_execution",
    Kind.REPLAY_STEP: "executions.retry_step",
    Kind.SETTLE_STEP: "executions.retry_step",
    Kind.CANCEL: "executions.cancel_execution",
    Kind.REVEAL_VALUE: "executions.reveal_value",
}

TITLES: Final[Mapping[Kind, str]] = {
    Kind.REPLAY_SUBMISSION: "Replay the submission",
    Kind.REPLAY_STEP: "Run the step again",
    Kind.REPLAY_COMPENSATION: "Undo again",
    Kind.SETTLE_SUBMISSION: "Settle the submission",
    Kind.SETTLE_STEP: "Settle the step",
    Kind.SETTLE_COMPENSATION: "Settle the undoing",
    Kind.CANCEL: "Cancel",
    Kind.REVEAL_VALUE: "Reveal a value",
}

_OF_STEPS: Final = frozenset({Kind.REPLAY_STEP, Kind.SETTLE_STEP})
_OF_UNDOING: Final = frozenset({Kind.REPLAY_COMPENSATION, Kind.SETTLE_COMPENSATION})
_SETTLING: Final = frozenset({Kind.SETTLE_SUBMISSION, Kind.SETTLE_STEP, Kind.SETTLE_COMPENSATION})
_UNCERTAIN: Final = frozenset({RunStatus.UNKNOWN, RunStatus.PARKED})


class ActionRefused(ExecutionError):
    """This is not possible now."""

    code = "ACTION_REFUSED"


class ActionChanged(ExecutionError):
    """What it would do has changed since you looked: nothing was done. Look again."""

    code = "ACTION_CHANGED"


@dataclass(frozen=True, slots=True)
class StaffAction:
    """One thing to do to one execution; `step` is the order of the step that it is about."""

    kind: Kind
    step: str = ""

    @property
    def permission(self) -> str:
        """What somebody has to have for it."""
        return PERMISSIONS[self.kind]


@dataclass(frozen=True, slots=True)
class Offer:
    """An action as it stands now; `refusal` says why it is not possible, "" when it is."""

    action: StaffAction
    label: str
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an action would send, masked. Nothing for a cancellation, or what is settled.

    `undone` are the labels of the steps that a worker would undo, the first to be undone first.
    """

    action: StaffAction
    requests: tuple[PlannedRequest, ...] = ()
    undone: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The same for the same plan: a form carries it, so that nothing else is done than shown."""
        told = json.dumps([[each.to_json() for each in self.requests], list(self.undone)])
        return hashlib.sha256(told.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Done:
    """What came of an action, as the rows tell; `status` is the execution's afterwards."""

    outcome: OperatorOutcome
    error: str = ""
    status: str = ""


def offers_for(
    row: WorkflowExecution, runs: Sequence[StepRun], *, world: Surroundings
) -> tuple[Offer, ...]:
    """What can be done with the execution now, and why not. `runs` are all of its runs, in order."""
    known = Known(row, runs)
    return tuple(
        Offer(action, _label(action, known.compiled), _refusal(known, action, world))
        for action in _thinkable(known)
    )


def plan_of(
    execution_id: UUID,
    action: StaffAction,
    *,
    world: Surroundings,
    known: Known | None = None,
) -> Plan:
    """What the action would do now; nothing is sent or stored. Raises why it cannot be done.

    `known` is the execution for who has just read it.
    """
    if action.kind is Kind.CANCEL:
        return _plan_cancellation(known or find_known(execution_id))
    if action.kind is Kind.REVEAL_VALUE:
        raise ActionRefused("A value is revealed where it is shown.")
    step = _step_of(action)
    is_undoing = action.kind in _OF_UNDOING
    if action.kind in _SETTLING:
        plan_settlement(execution_id, from_step=step, compensation=is_undoing, known=known)
        return Plan(action)
    plan = plan_replay(
        execution_id, from_step=step, compensation=is_undoing, world=world, known=known
    )
    return Plan(action, plan.requests)


def perform(
    execution_id: UUID,
    action: StaffAction,
    *,
    by: str,
    reason: str,
    action_id: UUID,
    now: datetime,
) -> Done:
    """Do it once for this `action_id`, recorded with who and why before anything is sent.

    Raises what it is refused with, ActionRepeated for an id that was used; then nothing was sent.
    """
    if action.kind is Kind.CANCEL:
        return _cancel(execution_id, by=by, reason=reason, action_id=action_id, now=now)
    if action.kind is Kind.REVEAL_VALUE:
        raise ActionRefused("A value is revealed where it is shown.")
    step, is_undoing = _step_of(action), action.kind in _OF_UNDOING
    do = executor.settle if action.kind in _SETTLING else executor.replay
    done = do(
        execution_id,
        by=by,
        reason=reason,
        from_step=step,
        compensation=is_undoing,
        action_id=action_id,
        now=now,
    )
    return Done(done.outcome, done.error, done.row.status)


def perform_as_shown(
    execution_id: UUID,
    action: StaffAction,
    *,
    seen: str,
    by: str,
    reason: str,
    action_id: UUID,
    now: datetime,
) -> Done:
    """`perform`, if it does what was shown: the plan whose fingerprint is `seen`.

    Raises what `perform` raises, ActionChanged; then nothing was sent.
    """
    if plan_of(execution_id, action, world=get_surroundings()).fingerprint != seen:
        raise ActionChanged
    return perform(execution_id, action, by=by, reason=reason, action_id=action_id, now=now)


# --- what can be done -----------------------------------------------------------------------------


def _thinkable(known: Known) -> Iterator[StaffAction]:
    """What somebody who looks at this execution may want to do."""
    row, runs = known.row, known.runs
    yield StaffAction(Kind.REPLAY_SUBMISSION)
    newest = {run.step_index: run for run in runs if run.kind == RunKind.STEP}
    for index, run in sorted(newest.items(), key=lambda item: item[0] or 0):
        order = str(known.compiled.steps[index or 0].order)
        if run.status in (RunStatus.FAILED, *_UNCERTAIN):
            yield StaffAction(Kind.REPLAY_STEP, order)
        if run.status in _UNCERTAIN and not row.is_live:
            yield StaffAction(Kind.SETTLE_STEP, order)
    submitted = [run for run in runs if run.kind == RunKind.SUBMISSION]
    if submitted and submitted[-1].status in _UNCERTAIN:
        yield StaffAction(Kind.SETTLE_SUBMISSION)
    if any(run.kind == RunKind.COMPENSATION and run.needs_attention for run in runs):
        yield StaffAction(Kind.REPLAY_COMPENSATION)
        yield StaffAction(Kind.SETTLE_COMPENSATION)
    yield StaffAction(Kind.CANCEL)


def _label(action: StaffAction, compiled: CompiledWorkflow) -> str:
    title, label = TITLES[action.kind], _step_label(action, compiled)
    return f"{title}: {label}" if label else title


def _step_label(action: StaffAction, compiled: CompiledWorkflow) -> str:
    """ "" for what is about no step."""
    labels = (step.label for step in compiled.steps if str(step.order) == action.step)
    return next(labels, "")


def _refusal(known: Known, action: StaffAction, world: Surroundings) -> str:
    if action.kind is Kind.CANCEL:
        return _why_not_cancelled(known.row)
    try:
        plan_of(known.row.pk, action, world=world, known=known)
    except WorkflowError as error:
        return error.message
    return ""


def _step_of(action: StaffAction) -> str | None:
    if action.kind not in _OF_STEPS:
        return None
    if not action.step:
        raise ActionRefused("Which step is meant is not said.")
    return action.step


# --- cancelling -----------------------------------------------------------------------------------


def _why_not_cancelled(row: WorkflowExecution) -> str:
    if row.status == WorkflowExecutionStatus.CANCELLED:
        return "It was cancelled before."
    if not row.is_live:
        return f"It has ended ({row.status})."
    if row.lease_holder is not None:
        return "A partner is being called for it: try again shortly."
    return ""


def _check_cancellable(row: WorkflowExecution) -> None:
    if refusal := _why_not_cancelled(row):
        raise ActionRefused(refusal)


def _plan_cancellation(known: Known) -> Plan:
    _check_cancellable(known.row)
    compiled = known.compiled
    if not compiled.has_compensation:
        return Plan(StaffAction(Kind.CANCEL))
    steps_taken = [run for run in reversed(known.runs) if run.kind == RunKind.STEP]
    indexes = dict.fromkeys(
        run.step_index for run in steps_taken if run.status == RunStatus.SUCCEEDED
    )
    steps = [compiled.steps[index] for index in indexes if index is not None]
    undone = tuple(step.label for step in steps if step.compensation is not None)
    return Plan(StaffAction(Kind.CANCEL), undone=undone)


def _cancel(execution_id: UUID, *, by: str, reason: str, action_id: UUID, now: datetime) -> Done:
    reason = executor.staff_reason(reason)
    row = find_known(execution_id).row
    _check_cancellable(row)
    action = operator_actions.begin(
        execution_id, action=Kind.CANCEL, by=by, reason=reason, at=now, action_id=action_id
    )
    try:
        row = executor.cancel_execution(
            execution_id, user_id=row.user_id, reason=reason, idempotency_key=None, now=now
        )
        done = Done(OperatorOutcome.SUCCEEDED, "", row.status)
    except WorkflowError as error:
        done = Done(OperatorOutcome.NOT_SENT, error.message, row.status)
    operator_actions.end(action, done.outcome)
    return done


# --- many at once ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """One action of many; `refusal` says why nothing would be done. `step` is the step's label."""

    execution_id: UUID
    action: StaffAction
    step: str = ""
    requests: tuple[PlannedRequest, ...] = field(default=(), repr=False)
    undone: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def fingerprint(self) -> str:
        """That of its plan."""
        return Plan(self.action, self.requests, self.undone).fingerprint

    @property
    def calls(self) -> tuple[tuple[str, int], ...]:
        """How many calls each connection would get, by name."""
        return _calls(self.requests)


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """What an action on many would reach, in the order of doing it.

    A partner that is asked first counts as a call.
    """

    items: tuple[PlannedItem, ...]

    @property
    def possible(self) -> tuple[PlannedItem, ...]:
        """Those that something would be done to."""
        return tuple(item for item in self.items if not item.refusal)

    @property
    def refused(self) -> tuple[PlannedItem, ...]:
        """The others."""
        return tuple(item for item in self.items if item.refusal)

    @property
    def executions(self) -> int:
        """How many executions something would be done to."""
        return len({item.execution_id for item in self.possible})

    @property
    def calls(self) -> tuple[tuple[str, int], ...]:
        """How many calls each connection would get, by name."""
        return _calls(request for item in self.items for request in item.requests)

    @property
    def undone(self) -> int:
        """How many steps a worker would undo."""
        return sum(len(item.undone) for item in self.items)


def _calls(requests: Iterable[PlannedRequest]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(request.connection for request in requests).items()))


def plan_many(kind: Kind, execution_ids: Sequence[UUID], *, world: Surroundings) -> BlastRadius:
    """What would be done to each: to run steps again, every step whose last call failed, in order.

    A step that can be called only once an earlier one was passed is refused, and says so. Five
    queries at most, however many there are.
    """
    known = know_many(execution_ids)
    return BlastRadius(
        tuple(
            item for each in execution_ids for item in _planned(kind, each, known.get(each), world)
        )
    )


def _planned(
    kind: Kind, execution_id: UUID, known: Known | None, world: Surroundings
) -> Iterator[PlannedItem]:
    if known is None:
        yield PlannedItem(execution_id, StaffAction(kind), refusal=ExecutionNotFound().message)
        return
    actions = _actions_on(kind, known)
    if not actions:
        refusal = "There is no step of it whose last call failed."
        yield PlannedItem(execution_id, StaffAction(kind), refusal=refusal)
    for action in actions:
        step = _step_label(action, known.compiled)
        try:
            plan = plan_of(execution_id, action, world=world, known=known)
        except WorkflowError as error:
            yield PlannedItem(execution_id, action, step, refusal=error.message)
        else:
            yield PlannedItem(execution_id, action, step, plan.requests, plan.undone)


def _actions_on(kind: Kind, known: Known) -> list[StaffAction]:
    """The actions of this kind on one of many; none when they are about steps and none has failed."""
    if kind not in _OF_STEPS:
        return [StaffAction(kind)]
    return [action for action in _thinkable(known) if action.kind is kind]
