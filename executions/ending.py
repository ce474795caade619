"""What an execution's end brings about: queued work called off, kept data deleted, steps undone.

Called inside the transaction that ends the execution, whose row that transaction has locked; so a
worker that records a late success either comes before the end, and its step is undone with the
others, or after it, and undoes it itself (`undo_late`). Compensations are runs like any other: the
last step's first, each taken by a worker only when the one before it has succeeded.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import BinaryField, Case, F, Value, When
from django.db.models.functions import Now

from config.crypto import Unsealable
from config.ids import new_id
from config.jsonvalues import JsonValue
from executions import composing, ledger, tasks
from executions.composing import Composed
from executions.enums import ErrorCode, RunKind, RunStatus, WorkflowExecutionStatus
from executions.ledger import Change
from executions.models import StepRun, WorkflowExecution
from workflows.compiled import CompiledStep, CompiledWorkflow
from workflows.connections import connection_for
from workflows.enums import StepExecutionMode, TriggerTiming
from workflows.errors import EndpointForbidden, ExpressionFailed, MappingIncomplete, WorkflowError

logger = logging.getLogger(__name__)

_CALLED_OFF = "Called off before a worker began."
_CANNOT_BE_UNDONE = "The request that would undo the step could not be composed."


def needs_winding_up(compiled: CompiledWorkflow) -> bool:
    """Whether ending an execution of this version takes more than its own row."""
    return compiled.has_async or compiled.has_compensation or compiled.durable_session


def end(change: Change, compiled: CompiledWorkflow, *, undo: bool) -> bool:
    """Write the change that ends an execution, with all that its end brings about, and commit.

    False, and nothing written, when the change's condition did not hold. `undo`: succeeded steps
    that have a compensation are undone.
    """
    if not needs_winding_up(compiled):
        return ledger.apply(change)
    with transaction.atomic():
        if not ledger.apply(change):
            return False
        wind_up(change.execution_id, compiled, undo=undo)
    return True


def leave_failed(change: Change, compiled: CompiledWorkflow) -> bool:
    """Write the change by which a submission fails, and commit; False when its condition did not hold.

    It may be repeated, with the request that its run keeps, but no step can be called any more: what
    was kept for the session goes. What was done stays done until the failure is final.
    """
    if not _keeps_data(compiled):
        return ledger.apply(change)
    with transaction.atomic():
        if not ledger.apply(change):
            return False
        _delete_kept_data(change.execution_id)
    return True


def wind_up(execution_id: UUID, compiled: CompiledWorkflow, *, undo: bool) -> None:
    """Call off what is queued, delete what was kept for the session, and `undo` what was done.

    Needs the transaction that has just ended the execution.
    """
    cancel_queued(execution_id)
    if _keeps_data(compiled):
        _delete_kept_data(execution_id)
    if not compiled.has_compensation:
        return
    if undo:
        _show_doubts(execution_id, compiled)
        undo_succeeded(execution_id, compiled)
    else:
        StepRun.objects.filter(execution_id=execution_id, sealed_compensation__isnull=False).update(
            sealed_compensation=None
        )


def _keeps_data(compiled: CompiledWorkflow) -> bool:
    return compiled.has_async or compiled.durable_session


def _delete_kept_data(execution_id: UUID) -> None:
    StepRun.objects.filter(execution_id=execution_id, sealed_data__isnull=False).update(
        sealed_data=None
    )
    WorkflowExecution.objects.filter(pk=execution_id).update(sealed_start=None)


def cancel_queued(execution_id: UUID, *, keys: Collection[UUID] | None = None) -> None:
    """Call off async runs that no worker holds; what may have been sent already becomes UNKNOWN.

    That keeps its request: a partner's late answer is judged, and the step undone, by it. With `keys`
    only the runs of these Idempotency-Keys.
    """
    queued = StepRun.objects.unfinished_work().filter(
        execution_id=execution_id,
        kind=RunKind.STEP,
        status=RunStatus.QUEUED,
        lease_holder__isnull=True,
        sealed_callback__isnull=True,
    )
    if keys is not None:
        queued = queued.filter(trigger_key__in=keys)
    queued.update(
        status=Case(
            When(in_doubt=True, then=Value(RunStatus.UNKNOWN)), default=Value(RunStatus.CANCELLED)
        ),
        error=_CALLED_OFF,
        should_proceed=False,
        finished_at=Now(),
        client_key=None,
        sealed_request=Case(
            When(in_doubt=True, then=F("sealed_request")), default=None, output_field=BinaryField()
        ),
    )


def _show_doubts(execution_id: UUID, compiled: CompiledWorkflow) -> None:
    """What may have been done and would have to be undone is for operators to find out."""
    runs = StepRun.objects.filter(execution_id=execution_id, kind=RunKind.STEP)
    done = runs.filter(status=RunStatus.SUCCEEDED, trigger_key__isnull=False)
    runs.filter(status=RunStatus.UNKNOWN, step_index__in=_undoable(compiled)).exclude(
        trigger_key__in=done.values("trigger_key")
    ).update(needs_attention=True)


def _undoable(compiled: CompiledWorkflow) -> list[int]:
    return [step.index for step in compiled.steps if step.compensation is not None]


def undo_succeeded(execution_id: UUID, compiled: CompiledWorkflow) -> list[UUID]:
    """Queue the compensation of every succeeded run that has one and was not queued before.

    The last one first; the ids of the new runs. Needs a transaction that has locked the execution.
    """
    runs = StepRun.objects.filter(execution_id=execution_id)
    undone = runs.filter(kind=RunKind.COMPENSATION).values("compensates_id")
    done = runs.filter(
        kind=RunKind.STEP, status=RunStatus.SUCCEEDED, step_index__in=_undoable(compiled)
    ).exclude(pk__in=undone)
    to_undo = [
        run
        for run in done.order_by("-sequence")
        if TriggerTiming(run.timing) in compiled.steps[run.step_index or 0].trigger_timings
    ]
    return _queue(execution_id, compiled, to_undo)


def wake_next_undo(execution_id: UUID, *, after: int) -> None:
    """Wake a worker for the compensation that is next once the one of this sequence is done."""
    following = StepRun.objects.unfinished_work().filter(
        execution_id=execution_id, kind=RunKind.COMPENSATION, sequence__gt=after
    )
    run_id = following.order_by("sequence").values_list("pk", flat=True).first()
    if run_id is not None:
        tasks.wake(run_id)


def _queue(
    execution_id: UUID, compiled: CompiledWorkflow, to_undo: Sequence[StepRun]
) -> list[UUID]:
    if not to_undo:
        return []
    execution = WorkflowExecution.objects.filter(pk=execution_id)
    first = execution.values_list("sequence", flat=True).get() + 1
    execution.update(sequence=F("sequence") + len(to_undo))
    queued = [
        _compensation_of(run, compiled.steps[run.step_index or 0], sequence=first + number)
        for number, run in enumerate(to_undo)
    ]
    StepRun.objects.bulk_create(queued)
    StepRun.objects.filter(pk__in=[run.id for run in to_undo]).update(sealed_compensation=None)
    tasks.wake(queued[0].id)
    return [run.id for run in queued]


def _compensation_of(run: StepRun, step: CompiledStep, *, sequence: int) -> StepRun:
    """The run that will undo this one; one that cannot be sent at all is there for operators."""
    undo = StepRun(
        id=new_id(),
        execution_id=run.execution_id,
        kind=RunKind.COMPENSATION,
        step_id=run.step_id,
        step_index=run.step_index,
        timing=run.timing,
        mode=StepExecutionMode.SERVER_ASYNC,
        status=RunStatus.QUEUED,
        sequence=sequence,
        compensates_id=run.id,
        trigger_key=key_of_compensation(run, visit=0),
        sealed_request=run.sealed_compensation,
        due_at=Now(),
        started_at=Now(),
    )
    connection = _connection_of(run, step)
    if connection is None:
        undo.status = RunStatus.FAILED
        undo.error_code = ErrorCode.MAPPING_INCOMPLETE
        undo.error = _CANNOT_BE_UNDONE
        undo.finished_at = Now()
        undo.needs_attention = True
        return undo
    undo.connection = connection
    return undo


def _connection_of(run: StepRun, step: CompiledStep) -> str | None:
    if run.sealed_compensation is None or step.compensation is None:
        return None
    try:
        composed = Composed.unsealed(run.sealed_compensation, run_id=run.id)
        connection, _ = connection_for(step.compensation.connection, composed.endpoint)
    except (EndpointForbidden, Unsealable) as error:
        logger.error("run %s cannot be undone: %s", run.id, type(error).__name__)  # noqa: TRY400 - no bug
        return None
    return connection.name


def key_of_compensation(run: StepRun, *, visit: int) -> UUID:
    """The Idempotency-Key under which this run is undone; `visit` counts the definite refusals."""
    timing = f"undo {run.timing} {run.visit}"
    return composing.trigger_key(
        run.execution_id, step_id=str(run.step_id), timing=timing, visit=visit
    )


def sealed_compensation(
    step: CompiledStep,
    *,
    execution_id: UUID,
    workflow: str,
    user_id: str,
    context: Mapping[str, JsonValue],
    value: JsonValue,
    result: JsonValue,
    key: UUID,
    secrets: frozenset[str],
    run_id: UUID,
) -> bytes | None:
    """The request that undoes a step that has just succeeded, for its row.

    None when it cannot be composed: that does not make the step fail, but when the time comes
    operators are told.
    """
    try:
        composed = composing.compose_compensation(
            step,
            execution_id=execution_id,
            workflow=workflow,
            user_id=user_id,
            context=context,
            value=value,
            result=result,
            key=key,
        )
    except (MappingIncomplete, ExpressionFailed) as error:
        _log_uncomposed(run_id, error)
        return None
    return None if composed is None else composed.with_secrets(secrets).sealed(run_id)


def _log_uncomposed(run_id: UUID, error: WorkflowError) -> None:
    logger.error("run %s: its compensation cannot be composed: %s", run_id, error.code)


def is_ended_undone(row: WorkflowExecution) -> bool:
    """Whether the execution has ended in a way that undoes what succeeds after it."""
    if row.status == WorkflowExecutionStatus.CANCELLED:
        return True
    is_failed = row.status == WorkflowExecutionStatus.FAILED
    is_final = row.error_code != ErrorCode.SUBMISSION_FAILED
    return is_failed and (is_final or _is_given_up(row.id))


def _is_given_up(execution_id: UUID) -> bool:
    """Whether its failed submission is final (`submission.give_up`): nothing is kept to repeat it."""
    submissions = StepRun.objects.filter(execution_id=execution_id, kind=RunKind.SUBMISSION)
    last = submissions.order_by("-sequence").first()
    return (
        last is not None
        and last.status in (RunStatus.REJECTED, RunStatus.FAILED)
        and last.sealed_request is None
    )
