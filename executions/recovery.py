"""What a crash or a lost write left behind is mended by whoever comes next.

A call that was outpaced (its session and the row stand at different sequences) ends up here. Either
somebody else is at work, or the execution has ended, or something broke off: then the rows are read,
what has no proof is marked as such, and row and session are brought to the same sequence again.
Rows first, then the session: a crash in here is mended the same way.
"""

import logging
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from config import metrics
from config.jsonvalues import JsonObject
from config.killpoints import reached
from executions import ending, ledger, state
from executions.answers import StepAnswer
from executions.enums import ErrorCode, RunKind, RunStatus, WorkflowExecutionStatus
from executions.errors import (
    ExecutionBusy,
    ExecutionEnded,
    ExecutionError,
    ExecutionNotFound,
    SessionExpired,
    SubmissionFailed,
)
from executions.ledger import Change, FromNow
from executions.models import LIVE_STATUSES, StepRun, WorkflowExecution
from executions.run_data import open_data
from executions.session_store import get_session_store
from executions.standing import Standing, data_of, find_standing, past_run, session_state
from executions.state import MarkStatus, Progress
from workflows.enums import TriggerTiming
from workflows.versions import compiled_version

logger = logging.getLogger(__name__)

IN_FLIGHT_SECONDS = 3
"""For so long after its commit an accepted input may still be on its way to the session."""

_DIED = "The process died during the call; nobody knows whether the partner acted."
_LOST = "The input did not reach the session; it was not acknowledged."
_RESULT_LOST = "The partner's answer did not reach the session."


class Outpaced(Exception):
    """The row does not stand where the session says: somebody was faster, or something broke off."""


class WorkedOff(Outpaced):
    """The same, found out when the call was done: its run is recorded, and the session lacks it.

    `answer` is what came of it. The rows of a durable session bring the rest back, so nothing is to
    be done again.
    """

    def __init__(self, answer: StepAnswer) -> None:
        super().__init__()
        self.answer = answer


def find_execution(execution_id: UUID, *, user_id: str) -> WorkflowExecution:
    """The person's execution. Raises ExecutionNotFound, for a stranger's too."""
    row = WorkflowExecution.objects.owned_by(user_id).filter(pk=execution_id).first()
    if row is None:
        raise ExecutionNotFound
    return row


def reason_ended(row: WorkflowExecution) -> ExecutionError:
    """Why an execution that has ended takes no more calls."""
    if row.error_code == ErrorCode.SESSION_EXPIRED:
        return SessionExpired()
    return ExecutionEnded()


def mend(execution_id: UUID) -> None:
    """Return when the call may be decided anew; raise why it may not.

    ExecutionNotFound, ExecutionEnded, SessionExpired (also when it expires only now), ExecutionBusy,
    SessionUnavailable.
    """
    row = _read(execution_id)
    if row.lease_holder is not None:
        _take_over(row)
        row = _read(execution_id)
    standing = find_standing(execution_id)
    is_durable = compiled_version(row.version_id).durable_session
    if standing is None:
        if is_durable and rebuild_session(row):
            return
        if expire(row):
            raise SessionExpired
        _read(execution_id)
        raise ExecutionBusy
    if is_durable and standing.sequence < row.sequence:
        _refuse_in_flight(_lost_runs(row, standing))
        if not rebuild_session(row):
            raise ExecutionBusy
    elif standing.sequence != row.sequence:
        _realign(row, standing)


def _read(execution_id: UUID) -> WorkflowExecution:
    row = WorkflowExecution.objects.filter(pk=execution_id).first()
    if row is None:
        raise ExecutionNotFound
    if row.lease_holder is not None and _has_living_lease(row):
        raise ExecutionBusy
    if not row.is_live:
        raise reason_ended(row)
    return row


def _has_living_lease(row: WorkflowExecution) -> bool:
    """By the database's clock: another machine's may be wrong."""
    leased = WorkflowExecution.objects.filter(
        pk=row.pk, lease_holder=row.lease_holder, lease_until__gt=Now()
    )
    return leased.exists()


def expire(row: WorkflowExecution) -> bool:
    """End a live execution whose session is gone as FAILED with SESSION_EXPIRED; says if we did."""
    compiled = compiled_version(row.version_id)
    ended = ending.end(
        Change(
            execution_id=row.id,
            when={"sequence": row.sequence, "status": LIVE_STATUSES, "lease_holder": None},
            to={
                "status": WorkflowExecutionStatus.FAILED.value,
                "sequence": row.sequence + 1,
                "completed_at": FromNow(),
                "error_code": ErrorCode.SESSION_EXPIRED.value,
                "error": SessionExpired().message,
            },
        ),
        compiled,
        undo=True,
    )
    if ended:
        workflow = compiled.name
        metrics.session_expired(workflow=workflow)
        metrics.execution_ended(workflow=workflow, status=WorkflowExecutionStatus.FAILED.value)
    return ended


def _take_over(row: WorkflowExecution) -> None:
    """Close the call of a holder whose lease ran out: what it did at the partner is unknown."""
    run = StepRun.objects.filter(
        execution_id=row.id, status=RunStatus.RUNNING, due_at__isnull=True
    ).first()
    to: dict[str, object] = {
        # Past the sequence that the dead holder may have given the session with its last breath.
        "sequence": row.sequence + 2,
        "lease_holder": None,
        "lease_until": None,
    }
    is_submission = run is not None and run.kind == RunKind.SUBMISSION
    if is_submission:
        to |= {
            "status": WorkflowExecutionStatus.FAILED.value,
            "completed_at": FromNow(),
            "error_code": ErrorCode.SUBMISSION_FAILED.value,
            "error": SubmissionFailed().message,
        }
    end: dict[str, object] = {
        "status": RunStatus.UNKNOWN.value,
        "finished_at": FromNow(),
        "client_key": None,
        "error": _DIED,
    }
    change = Change(
        execution_id=row.id,
        when={"lease_holder": row.lease_holder, "sequence": row.sequence},
        to=to,
        run_id=None if run is None else run.id,
        run_end=end,
    )
    if is_submission:
        taken = ending.leave_failed(change, compiled_version(row.version_id))
    else:  # which takes no version that can be read
        taken = ledger.apply(change)
    if not taken:
        raise ExecutionBusy
    logger.warning("execution %s: the holder of its lease is gone, taken over", row.id)


def rebuild_session(row: WorkflowExecution) -> bool:
    """Build a durable session again from the rows; False when its time is over or it moved on.

    The row moves first: of two who try, one writes the session, and what is still on its way to the
    old one finds it gone.
    """
    compiled = compiled_version(row.version_id)
    sequence = row.sequence + 1
    live = WorkflowExecution.objects.filter(
        pk=row.id, sequence=row.sequence, lease_holder=None, status__in=LIVE_STATUSES
    )
    left = live.filter(expires_at__gt=Now()).values_list(F("expires_at") - Now(), flat=True).first()
    if left is None:
        return False
    progress, context = read_from_rows(row)
    if not live.update(sequence=sequence, position=progress.position):
        return False
    reached("after-rebuild")
    get_session_store().set_context(
        row.session_id,
        context=context,
        state=session_state(
            user_id=row.user_id,
            version_id=compiled.version_id,
            started_at=row.started_at,
            progress=progress,
        ),
        sequence=sequence,
        ttl_seconds=max(1, int(left.total_seconds())),
    )
    if not WorkflowExecution.objects.live().filter(pk=row.id).exists():
        # It was built once more, and ended, while this one was on its way.
        get_session_store().clear_session(row.session_id)
        return False
    logger.warning("execution %s: its session was lost, and is built again", row.id)
    return True


def read_from_rows(row: WorkflowExecution) -> tuple[Progress, JsonObject]:
    """The progress and the context of a durable session, as the rows tell them.

    Raises SessionUnavailable when what they keep cannot be unsealed.
    """
    steps = compiled_version(row.version_id).steps
    runs = list(StepRun.objects.filter(execution_id=row.id, kind=RunKind.STEP).order_by("sequence"))
    *found, progress = state.history(map(past_run, runs), steps)
    context = open_data(row.sealed_start, owner_id=row.id)
    for run, before in zip(runs, found, strict=True):
        dropped = state.results_to_drop(
            before, steps, index=run.step_index or 0, timing=TriggerTiming(run.timing)
        )
        context = {key: context[key] for key in context if key not in dropped}
        if run.due_at is not None or run.status in (RunStatus.SUCCEEDED, RunStatus.REJECTED):
            context |= open_data(run.sealed_data, owner_id=run.id)
    return progress, context


def _lost_runs(row: WorkflowExecution, standing: Standing) -> list[StepRun]:
    runs = StepRun.objects.filter(execution_id=row.id)
    return [run for run in runs if is_lost(run, standing)]


def _realign(row: WorkflowExecution, standing: Standing) -> None:
    runs = list(StepRun.objects.filter(execution_id=row.id).order_by("sequence"))
    lost = [run for run in runs if is_lost(run, standing)]
    _refuse_in_flight(lost)
    sequence = max(row.sequence, standing.sequence) + 1
    progress = _write_off(row, runs, lost, standing=standing, sequence=sequence)
    written = get_session_store().update_context(
        standing.session_id,
        expected_sequence=standing.sequence,
        sequence=sequence,
        updates=_async_data(runs, progress),
        remove=state.results_after_recovery(progress, standing.compiled.steps),
        state=standing.state_json(progress),
    )
    if not written:
        raise ExecutionBusy
    logger.warning("execution %s: realigned at sequence %s", row.id, sequence)


def _async_data(runs: list[StepRun], progress: Progress) -> JsonObject:
    """The results of async runs that the progress counts as succeeded."""
    return data_of(
        run
        for run in runs
        if run.kind == RunKind.STEP
        and run.due_at is not None
        and run.status == RunStatus.SUCCEEDED
        and _stands(run, progress)
    )


def _stands(run: StepRun, progress: Progress) -> bool:
    mark = progress.mark(run.step_index or 0, TriggerTiming(run.timing))
    return mark.status is MarkStatus.SUCCEEDED and mark.visit == run.visit


def is_lost(run: StepRun, standing: Standing) -> bool:
    """Whether the session misses what this run wrote to it."""
    if run.kind != RunKind.STEP or run.due_at is not None:
        return False
    if run.status not in (RunStatus.SUCCEEDED, RunStatus.REJECTED):
        return False
    written_at = run.sequence if run.trigger_key is None else run.sequence + 1
    return written_at > standing.sequence


def _refuse_in_flight(lost: list[StepRun]) -> None:
    """An input that was accepted a moment ago may be about to be written by its call."""
    young = Now() - timedelta(seconds=IN_FLIGHT_SECONDS)
    inputs = [run.id for run in lost if run.trigger_key is None]
    if inputs and StepRun.objects.filter(pk__in=inputs, finished_at__gt=young).exists():
        raise ExecutionBusy


def _write_off(
    row: WorkflowExecution,
    runs: list[StepRun],
    lost: list[StepRun],
    *,
    standing: Standing,
    sequence: int,
) -> Progress:
    """Mark the lost runs and move the row; the progress that the rows then stand for."""
    for run in lost:
        is_input = run.trigger_key is None
        run.status = RunStatus.FAILED if is_input else RunStatus.UNKNOWN
        run.error_code = ErrorCode.SESSION_UNAVAILABLE
        run.error = _LOST if is_input else _RESULT_LOST
        run.should_proceed = False
        run.client_key = None
    progress = progress_of(runs, standing)
    with transaction.atomic():
        moved = WorkflowExecution.objects.filter(
            pk=row.id, sequence=row.sequence, lease_holder=None, status__in=LIVE_STATUSES
        ).update(sequence=sequence, position=progress.position)
        if not moved:
            raise ExecutionBusy
        StepRun.objects.bulk_update(
            lost, ["status", "error_code", "error", "should_proceed", "client_key"]
        )
    return progress


def progress_of(runs: list[StepRun], standing: Standing) -> Progress:
    """The progress that these runs of an execution, oldest first, stand for."""
    return state.rebuild(
        (past_run(run) for run in runs if run.kind == RunKind.STEP), standing.compiled.steps
    )
