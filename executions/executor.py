"""The engine's verbs: start, execute_step, complete, cancel, replay. GraphQL, admin and commands call these.

Each reads where the execution stands, decides with pure functions, acts in one place, and writes
down what happened. A call that finds the execution elsewhere than its session says is mended
(`recovery.py`) and decided anew. Business refusals are answers; what a caller may not know, or what
cannot be a call at all, is raised.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction

from config import metrics
from config.ids import new_id
from config.jsonvalues import (
    JsonObject,
    JsonRefused,
    JsonValue,
    check_storable,
    dump_compact,
)
from executions import ending, ledger, operator_actions, requeueing, steps, submission
from executions.answers import StepAnswer, refusal
from executions.enums import (
    ErrorCode,
    OperatorOutcome,
    RunKind,
    RunStatus,
    WorkflowExecutionStatus,
)
from executions.errors import (
    ExecutionBusy,
    ExecutionEnded,
    ExecutionNotFound,
    IdempotencyConflict,
    InputRefused,
    SessionExpired,
    SessionUnavailable,
    StoreUnavailable,
)
from executions.idempotency import ClientKey, client_key, find_recorded, recorded_answer
from executions.ledger import Change, FromNow
from executions.models import LIVE_STATUSES, OperatorAction, StepRun, WorkflowExecution
from executions.recovery import Outpaced, WorkedOff, find_execution, is_lost, mend
from executions.replaying import (
    Replayed,
    ReplayPlan,
    plan_replay,
    plan_settlement,
    read_again,
    read_back,
)
from executions.run_data import seal_data
from executions.session_store import get_session_store
from executions.standing import Standing, find_standing, session_state
from executions.state import Progress
from executions.steps import StepCall
from executions.submission import Completion
from executions.surroundings import Surroundings, get_surroundings
from workflows.compiled import CompiledWorkflow
from workflows.enums import StepExecutionMode, TriggerTiming
from workflows.errors import DefinitionNotFound, WorkflowError
from workflows.versions import as_uuid, compiled_version, live_version_id

logger = logging.getLogger(__name__)

MAX_REASON_LENGTH = 1_000
MAX_PAGE_ID_LENGTH = 255
MAX_TRIES = 3
"""So often a call is decided anew after it was outpaced, before it answers EXECUTION_BUSY."""


def start_execution(
    workflow_id: str,
    *,
    user_id: str,
    scopes: frozenset[str],
    page_id: str,
    initial_context: JsonValue,
    idempotency_key: str | None,
    now: datetime,
) -> WorkflowExecution:
    """A new execution of the workflow's live version, with its session.

    The same key with the same arguments gives the execution that it started before. Raises
    DefinitionNotFound (also without the scopes), WorkflowArchived, InputRefused, InputInvalid,
    IdempotencyConflict, StoreUnavailable. The session comes first: without its row nobody finds it,
    and it ends by itself.
    """
    _check_page_id(page_id)
    context = _checked_context(initial_context)
    arguments: JsonObject = {"pageId": page_id, "initialContext": context}
    key = client_key(idempotency_key, operation="start", arguments=arguments)
    started = _find_started(workflow_id, key, user_id=user_id)
    if started is not None:
        return started
    compiled = _live_version(workflow_id, scopes=scopes, reload=False)
    for is_retry in (False, True):
        if is_retry:
            compiled = _live_version(workflow_id, scopes=scopes, reload=True)
        _check_initial_context(compiled, context)
        row = _new_row(compiled, user_id=user_id, page_id=page_id, key=key, now=now)
        _open_session(row, compiled, context)
        try:
            if _insert(row, compiled, context):
                metrics.execution_started(workflow=compiled.name)
                return row
        except IntegrityError:
            _forget_session(row)
            started = _find_started(workflow_id, key, user_id=user_id)
            if started is None:
                raise
            return started
        _forget_session(row)
    raise DefinitionNotFound


def execute_step(
    execution_id: UUID,
    *,
    step_id: str,
    timing: TriggerTiming,
    value: JsonValue,
    user_id: str,
    idempotency_key: str | None,
    now: datetime,
    world: Surroundings | None = None,
) -> StepAnswer:
    """Work one step off, or say why not.

    Raises ExecutionNotFound, and InputRefused for an input that cannot be stored. Every business
    refusal is an answer. No transaction and no connection is held while a partner is called.
    """
    _check_storable(value, limit=settings.MAX_INPUT_BYTES, what="input")
    world = world or get_surroundings()
    arguments: JsonObject = {"stepId": step_id, "timing": timing.value, "input": value}
    call = StepCall(
        step_id=step_id,
        timing=timing,
        value=value,
        key=client_key(idempotency_key, operation="step", arguments=arguments),
        now=now,
        world=world,
        deadline_ms=world.clock() + settings.SYNC_BUDGET_MS,
    )
    started_ms = world.clock()
    answer, standing = _answered(
        execution_id,
        user_id=user_id,
        key=call.key,
        work=lambda standing: steps.execute(standing, call),
    )
    _count_step(answer, standing, step_id, seconds=(world.clock() - started_ms) / 1000)
    return answer


def complete_execution(
    execution_id: UUID,
    *,
    user_id: str,
    idempotency_key: str | None,
    now: datetime,
    world: Surroundings | None = None,
) -> StepAnswer:
    """Map, submit, record; or say why not. A finished completion answers as it did.

    Raises ExecutionNotFound. A submission that failed leaves FAILED; a repeat sends the same request
    again.
    """
    world = world or get_surroundings()
    call = Completion(
        key=client_key(idempotency_key, operation="complete", arguments=None),
        now=now,
        world=world,
        deadline_ms=world.clock() + settings.SYNC_BUDGET_MS,
    )
    answer, _ = _answered(
        execution_id,
        user_id=user_id,
        key=call.key,
        work=lambda standing: submission.complete(standing, call),
        when_ended=lambda row: _complete_ended(row, call),
    )
    return answer


def cancel_execution(
    execution_id: UUID,
    *,
    user_id: str,
    reason: str | None,
    idempotency_key: str | None,
    now: datetime,
) -> WorkflowExecution:
    """The execution, cancelled. One that was cancelled before is given as it is.

    Raises ExecutionNotFound, ExecutionBusy (a partner is being called), ExecutionEnded (completed,
    failed, or expired), SessionUnavailable, InputRefused, IdempotencyConflict.
    """
    del now
    reason = reason or ""
    _check_reason(reason)
    key = client_key(idempotency_key, operation="cancel", arguments={"reason": reason})
    find_recorded(execution_id, key, user_id=user_id)
    for _ in range(MAX_TRIES):
        row = find_execution(execution_id, user_id=user_id)
        if row.status == WorkflowExecutionStatus.CANCELLED:
            submission.clear_session(row.id)  # whoever cancelled it may have died before it did
            return row
        if not row.is_live:
            raise ExecutionEnded  # whatever ended it, its time included
        if row.lease_holder is not None or not _has_session(row):
            with suppress(ExecutionEnded, SessionExpired):  # ended just now: look again
                mend(execution_id)
        elif _cancel(row, reason=reason, key=key):
            return find_execution(execution_id, user_id=user_id)
    raise ExecutionBusy


def replay(
    execution_id: UUID,
    *,
    by: str,
    reason: str,
    from_step: str | None = None,
    compensation: bool = False,
    action_id: UUID | None = None,
    now: datetime,
    world: Surroundings | None = None,
) -> Replayed:
    """Send a failed submission again, or a failed or unknown step's trigger, or a failed compensation.

    The outcome is read back from the rows; QUEUED where a worker does it. Raises what `plan_replay`
    raises, and InputRefused without a reason; then nothing was sent or recorded. An OperatorAction
    names who did it before anything is sent; it stays STARTED where the process dies. With an
    `action_id` that was used before it raises ActionRepeated, and nothing is sent a second time.
    """
    reason = staff_reason(reason)
    world = world or get_surroundings()
    plan = plan_replay(execution_id, from_step=from_step, compensation=compensation, world=world)
    action = operator_actions.begin(
        execution_id, action=plan.action, by=by, reason=reason, at=now, action_id=action_id
    )
    replayed = read_back(plan, error=_replayed(plan, now=now, world=world))
    OperatorAction.objects.filter(pk=action.pk).update(
        outcome=replayed.outcome, run_id=replayed.run_id
    )
    return dataclasses.replace(replayed, action_id=action.pk)


def verified(replayed: Replayed) -> Replayed:
    """What became of a replay that was QUEUED; the record of who did it learns it, too."""
    now_known = read_again(replayed)
    if now_known.action_id is not None and now_known.outcome is not OperatorOutcome.QUEUED:
        OperatorAction.objects.filter(pk=now_known.action_id).update(outcome=now_known.outcome)
    return now_known


def settle(
    execution_id: UUID,
    *,
    by: str,
    reason: str,
    from_step: str | None = None,
    compensation: bool = False,
    action_id: UUID | None = None,
    now: datetime,
) -> Replayed:
    """Record that somebody of the staff has put right outside what failed or is unknown here.

    Nothing is sent, and what was kept to send it is deleted; the next compensation in the order goes
    on. Raises what `plan_settlement` raises, and InputRefused without a reason.
    """
    reason = staff_reason(reason)
    plan = plan_settlement(execution_id, from_step=from_step, compensation=compensation)
    error = ""
    with transaction.atomic():
        if plan.run is not None and requeueing.settle(plan.run):
            operator_actions.begin(
                execution_id,
                action=plan.action,
                by=by,
                reason=reason,
                at=now,
                action_id=action_id,
                outcome=OperatorOutcome.SETTLED,
            )
        else:
            error = ExecutionBusy().message
    return read_back(plan, error=error)


def _replayed(plan: ReplayPlan, *, now: datetime, world: Surroundings) -> str:
    """Do it, by the same ways as the person's own calls; why it was refused, if it was."""
    row, step = plan.row, plan.step
    if plan.run is not None:
        is_queued = requeueing.requeue(plan.run, connection=plan.connection)
        return "" if is_queued else ExecutionBusy().message
    try:
        if step is None:
            deadline_ms = world.clock() + settings.SYNC_BUDGET_MS
            call = Completion(key=None, now=now, world=world, deadline_ms=deadline_ms)
            answer = submission.repeat(row, call)
        else:
            answer = execute_step(
                row.pk,
                step_id=step.step_id,
                timing=step.timing,
                value=step.value,
                user_id=row.user_id,
                idempotency_key=None,
                now=now,
                world=world,
            )
    except Outpaced:
        return ExecutionBusy().message
    except WorkflowError as error:
        return error.message
    return answer.error or ""


# --- deciding, and deciding anew ------------------------------------------------------------------


def _answered(
    execution_id: UUID,
    *,
    user_id: str,
    key: ClientKey | None,
    work: Callable[[Standing], StepAnswer],
    when_ended: Callable[[WorkflowExecution], StepAnswer | None] = lambda _row: None,
) -> tuple[StepAnswer, Standing | None]:
    """The answer of `work` over the present standing, or the refusal as an answer."""
    standing: Standing | None = None
    try:
        recorded = _recorded(execution_id, key, user_id=user_id)
        if recorded is not None:
            return recorded, None
        for _ in range(MAX_TRIES):
            standing = _own_standing(execution_id, user_id=user_id)
            answered = None if standing is None else _tried(standing, work, key=key)
            if answered is not None:
                return answered
            ended = _mended(execution_id, user_id=user_id, when_ended=when_ended)
            if ended is not None:
                return ended, None
        raise ExecutionBusy
    except WorkflowError as error:
        if error.code not in ErrorCode.values:
            raise
        shown = _shown_with(error, execution_id, standing)
        return refusal(error, execution_id=execution_id, standing=shown), standing


def _tried(
    standing: Standing, work: Callable[[Standing], StepAnswer], *, key: ClientKey | None
) -> tuple[StepAnswer, Standing | None] | None:
    """The answer of `work` over this standing; None when that is not the present one."""
    try:
        return work(standing), standing
    except WorkedOff as done:
        return _with_session(done.answer)
    except Outpaced:
        return None
    except IntegrityError:
        if key is None:
            raise
        # The same call came twice at once, and the other was recorded since we looked.
        recorded = _recorded(standing.execution_id, key, user_id=standing.user_id)
        return None if recorded is None else (recorded, None)
    except WorkflowError:
        if _has_last_word(standing):
            raise
        return None


def _with_session(answer: StepAnswer) -> tuple[StepAnswer, Standing | None]:
    """The answer with the session as the rows bring it back. Raises why there is none any more."""
    standing = None
    with suppress(ExecutionBusy, SessionUnavailable):
        mend(answer.execution_id)
        standing = find_standing(answer.execution_id)
    return (answer if standing is None else answer.with_standing(standing)), standing


def _recorded(execution_id: UUID, key: ClientKey | None, *, user_id: str) -> StepAnswer | None:
    """The answer that this key has had; None when there is none (yet). Raises IdempotencyConflict."""
    run = find_recorded(execution_id, key, user_id=user_id)
    return None if run is None else _repeated(run)


def _has_last_word(standing: Standing) -> bool:
    """Whether a refusal stands: a session may outlive its execution, a durable one be an old copy."""
    live = WorkflowExecution.objects.live().filter(pk=standing.execution_id)
    if standing.compiled.durable_session:
        live = live.filter(sequence__lte=standing.sequence)
    return live.exists()


def _shown_with(
    error: WorkflowError, execution_id: UUID, standing: Standing | None
) -> Standing | None:
    """Where the person stands after a refusal; nowhere after the end."""
    if isinstance(error, ExecutionEnded | SessionExpired):
        return None
    if not isinstance(error, IdempotencyConflict):
        return standing
    # Told before anything was read.
    is_live = WorkflowExecution.objects.live().filter(pk=execution_id).exists()
    with suppress(SessionUnavailable):
        return find_standing(execution_id) if is_live else None
    return None


def _repeated(run: StepRun) -> StepAnswer | None:
    """The recorded answer; None when what it acknowledges is not, or not yet, in the session."""
    answer = recorded_answer(run)
    if run.kind == RunKind.SUBMISSION:
        submission.clear_session(run.execution_id)  # its process may have died before it did
        return answer
    standing = find_standing(run.execution_id) if run.execution.is_live else None
    if standing is None:
        return answer
    return None if is_lost(run, standing) else answer.with_standing(standing)


def _own_standing(execution_id: UUID, *, user_id: str) -> Standing | None:
    standing = find_standing(execution_id)
    if standing is not None and standing.user_id != user_id:
        raise ExecutionNotFound
    return standing


def _mended(
    execution_id: UUID,
    *,
    user_id: str,
    when_ended: Callable[[WorkflowExecution], StepAnswer | None],
) -> StepAnswer | None:
    """None when the call may be decided anew; what `when_ended` makes of an ended execution."""
    find_execution(execution_id, user_id=user_id)
    try:
        mend(execution_id)
    except ExecutionEnded:
        answer = when_ended(find_execution(execution_id, user_id=user_id))
        if answer is None:
            raise
        return answer
    return None


def _complete_ended(row: WorkflowExecution, call: Completion) -> StepAnswer | None:
    if row.status == WorkflowExecutionStatus.COMPLETED:
        return submission.recorded_completion(row)
    if row.error_code == ErrorCode.SUBMISSION_FAILED:
        try:
            return submission.repeat(row, call)
        except Outpaced:
            raise ExecutionBusy from None
    return None


# --- start ----------------------------------------------------------------------------------------


def _live_version(workflow_id: str, *, scopes: frozenset[str], reload: bool) -> CompiledWorkflow:
    version_id = live_version_id(workflow_id, reload=reload)
    if version_id is None:
        raise DefinitionNotFound
    compiled = compiled_version(version_id)
    if not compiled.required_scopes <= scopes:
        raise DefinitionNotFound
    return compiled


def _check_page_id(page_id: str) -> None:
    if not 0 < len(page_id) <= MAX_PAGE_ID_LENGTH:
        raise InputRefused(f"pageId has 1 to {MAX_PAGE_ID_LENGTH} characters.")
    _check_storable(page_id, limit=settings.MAX_INPUT_BYTES, what="pageId")


def _checked_context(value: JsonValue) -> dict[str, JsonValue]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputRefused("initialContext has to be an object.")
    limit = min(settings.MAX_INPUT_BYTES, settings.MAX_CONTEXT_BYTES)
    _check_storable(value, limit=limit, what="initialContext")
    return value


def _check_initial_context(compiled: CompiledWorkflow, context: Mapping[str, JsonValue]) -> None:
    reserved = sorted(compiled.reserved_keys.intersection(context))
    if reserved:
        raise InputRefused(
            f"initialContext cannot hold {', '.join(reserved)}: the server finds these out itself."
        )
    if compiled.initial_context_schema is None:
        return
    violations = compiled.initial_context_schema.violations(dict(context))
    if violations:
        told = "; ".join(f"{path or '/'}: {message}" for path, message in violations)
        raise InputRefused(f"initialContext does not fit the workflow: {told}")


def _find_started(
    workflow_id: str, key: ClientKey | None, *, user_id: str
) -> WorkflowExecution | None:
    if key is None:
        return None
    row = (
        WorkflowExecution.objects.owned_by(user_id)
        .filter(workflow_id=as_uuid(workflow_id), idempotency_key=key.key)
        .first()
    )
    if row is not None and not key.was_sent_with(row.arguments_hash):
        raise IdempotencyConflict
    return row


def _new_row(
    compiled: CompiledWorkflow,
    *,
    user_id: str,
    page_id: str,
    key: ClientKey | None,
    now: datetime,
) -> WorkflowExecution:
    ttl_seconds = compiled.session_ttl_seconds or settings.SESSION_TTL_SECONDS
    return WorkflowExecution(
        id=new_id(),
        workflow_id=UUID(compiled.workflow_id),
        version_id=UUID(compiled.version_id),
        user_id=user_id,
        page_id=page_id,
        started_at=now,
        expires_at=now + timedelta(seconds=ttl_seconds),
        idempotency_key=None if key is None else key.key,
        arguments_hash=None if key is None else key.arguments_hash,
    )


def _open_session(
    row: WorkflowExecution, compiled: CompiledWorkflow, context: Mapping[str, JsonValue]
) -> None:
    try:
        get_session_store().set_context(
            row.session_id,
            context={**context, "userId": row.user_id},
            state=session_state(
                user_id=row.user_id,
                version_id=compiled.version_id,
                started_at=row.started_at,
                progress=Progress(),
            ),
            sequence=row.sequence,
            ttl_seconds=compiled.session_ttl_seconds or settings.SESSION_TTL_SECONDS,
        )
    except SessionUnavailable as error:
        raise StoreUnavailable from error


def _insert(
    row: WorkflowExecution, compiled: CompiledWorkflow, context: Mapping[str, JsonValue]
) -> bool:
    ttl_seconds = compiled.session_ttl_seconds or settings.SESSION_TTL_SECONDS
    kept: dict[str, object] = {}
    if compiled.durable_session:
        start = {**context, "userId": row.user_id}
        kept["sealed_start"] = seal_data(start, owner_id=row.id)
    return ledger.insert_execution(
        {
            "id": row.id,
            "workflow_id": row.workflow_id,
            "version_id": row.version_id,
            "user_id": row.user_id,
            "page_id": row.page_id,
            "status": WorkflowExecutionStatus.PENDING.value,
            "sequence": row.sequence,
            "position": 0,
            "started_at": FromNow(),
            "expires_at": FromNow(ttl_seconds),
            "error_code": "",
            "error": "",
            "cancel_reason": "",
            "idempotency_key": row.idempotency_key,
            "arguments_hash": row.arguments_hash,
            **kept,
        },
        live_version_id=row.version_id,
    )


def _forget_session(row: WorkflowExecution) -> None:
    """Nobody will ask for it: its row was not written."""
    try:
        get_session_store().clear_session(row.session_id)
    except SessionUnavailable:
        logger.warning("a session without an execution stays until its time is over")


# --- cancel ---------------------------------------------------------------------------------------


def staff_reason(reason: str) -> str:
    """Why staff act by hand, without space around it. Raises InputRefused for none that can be kept."""
    reason = reason.strip()
    if not reason:
        raise InputRefused("What staff do by hand needs a reason.")
    _check_reason(reason)
    return reason


def _check_reason(reason: str) -> None:
    if len(reason) > MAX_REASON_LENGTH:
        raise InputRefused(f"A reason has at most {MAX_REASON_LENGTH} characters.")
    _check_storable(reason, limit=settings.MAX_INPUT_BYTES, what="reason")


def _has_session(row: WorkflowExecution) -> bool:
    return get_session_store().get_session_ttl(row.session_id) is not None


def _cancel(row: WorkflowExecution, *, reason: str, key: ClientKey | None) -> bool:
    sequence = row.sequence + 1
    compiled = compiled_version(row.version_id)
    cancelled = ending.end(
        Change(
            execution_id=row.id,
            when={"sequence": row.sequence, "status": LIVE_STATUSES, "lease_holder": None},
            to={
                "status": WorkflowExecutionStatus.CANCELLED.value,
                "sequence": sequence,
                "cancel_reason": reason,
                "completed_at": FromNow(),
            },
            new_run={
                "id": new_id(),
                "execution_id": row.id,
                "kind": RunKind.CANCELLATION.value,
                "timing": "",
                "mode": StepExecutionMode.CLIENT_ONLY.value,
                "status": RunStatus.SUCCEEDED.value,
                "sequence": sequence,
                "visit": 0,
                "should_proceed": False,
                "client_key": None if key is None else key.key,
                "arguments_hash": None if key is None else key.arguments_hash,
                "error_code": "",
                "error": "",
                "started_at": FromNow(),
                "finished_at": FromNow(),
                "duration_ms": 0,
            },
        ),
        compiled,
        undo=True,
    )
    if cancelled:
        metrics.execution_ended(
            workflow=compiled.name,
            status=WorkflowExecutionStatus.CANCELLED.value,
        )
        submission.clear_session(row.id)
    return cancelled


# --- small checks ---------------------------------------------------------------------------------


def _check_storable(value: JsonValue, *, limit: int, what: str) -> None:
    try:
        check_storable(value, max_depth=settings.MAX_JSON_DEPTH)
    except JsonRefused as error:
        raise InputRefused(f"The {what} cannot be stored: {error}") from None
    if len(dump_compact(value)) > limit:
        raise InputRefused(f"The {what} may have {limit} bytes of JSON.")


def _count_step(
    answer: StepAnswer, standing: Standing | None, step_id: str, *, seconds: float
) -> None:
    if standing is None or step_id not in standing.compiled.index_by_id:
        return
    step = standing.compiled.steps[standing.compiled.index_by_id[step_id]]
    metrics.step_executed(
        workflow=standing.compiled.name,
        mode=step.mode.value,
        outcome=answer.error_code or RunStatus.SUCCEEDED.value,
        seconds=seconds,
    )
