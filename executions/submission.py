"""The end of a flow: map the context, submit it, keep the record.

The request is sealed into its run before it is sent and kept there until it has succeeded, so a
failed or interrupted submission is repeated with the very same bytes, under the same key unless the
partner definitely said no.
"""

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from config import metrics
from config.crypto import Unsealable
from config.ids import new_id
from config.jsonvalues import JsonValue
from config.killpoints import reached
from executions import calling, composing, ending, judging, ledger, state
from executions.answers import StepAnswer
from executions.calling import Lease
from executions.composing import Composed
from executions.enums import ErrorCode, RunKind, RunStatus, WorkflowExecutionStatus
from executions.errors import (
    ExecutionBusy,
    SessionUnavailable,
    StepsIncomplete,
    StepsPending,
    SubmissionFailed,
)
from executions.idempotency import ClientKey, recorded_answer, seal_answer
from executions.ledger import Change, FromNow, Renewed, Row
from executions.models import LIVE_STATUSES, StepRun, WorkflowExecution, session_id_of
from executions.outcomes import CallResult, Certainty
from executions.partner_calls import PartnerCall
from executions.recovery import Outpaced
from executions.redaction import redactor_of
from executions.session_store import get_session_store
from executions.standing import Standing
from executions.surroundings import Surroundings
from workflows.compiled import CompiledTrigger, CompiledWorkflow
from workflows.enums import StepExecutionMode
from workflows.errors import EndpointForbidden
from workflows.mapping import final_payload
from workflows.versions import compiled_version

logger = logging.getLogger(__name__)

_STEP_ID = "submission"


@dataclass(frozen=True, slots=True)
class Completion:
    """A call that completes an execution."""

    key: ClientKey | None
    now: datetime
    world: Surroundings
    deadline_ms: float


def complete(standing: Standing, call: Completion) -> StepAnswer:
    """Complete a live execution. Raises the refusal, or Outpaced."""
    compiled = standing.compiled
    if not state.is_ready_to_complete(
        standing.progress, compiled.steps, is_skipped=standing.is_skipped
    ):
        raise StepsIncomplete
    if state.is_pending(standing.progress):
        raise StepsPending
    payload = _mapped(standing)
    redactor = redactor_of(compiled.sensitive)
    secrets = redactor.secrets(standing.context)
    submitted = redactor.redact(payload, secrets)
    trigger = compiled.final_api
    if trigger is None:
        return _complete_alone(standing, call, payload=payload, submitted=submitted)
    composed = composing.compose_submission(standing, trigger, payload)
    composed = replace(composed, secrets=secrets)
    when: Row = {
        "sequence": standing.sequence,
        "status": LIVE_STATUSES,
        "lease_holder": None,
    }
    submission = _Submission(
        execution_id=standing.execution_id,
        compiled=compiled,
        sequence=standing.sequence,
        visit=0,
        was_unknown=False,
        secrets=secrets,
        call=call,
    )
    renewed: Row = {
        "expires_at": Renewed(standing.base_ttl_seconds),
        "submitted_payload": submitted,
    }
    return submission.send(composed, trigger, when=when, to=renewed)


def _mapped(standing: Standing) -> JsonValue:
    compiled = standing.compiled
    is_sent = compiled.final_api is not None
    return final_payload(compiled.api_mapping, standing.context, is_sent=is_sent)


def _complete_alone(
    standing: Standing, call: Completion, *, payload: JsonValue, submitted: JsonValue
) -> StepAnswer:
    """Without a final API the payload is the result, and nobody is called."""
    answer = StepAnswer(
        execution_id=standing.execution_id, success=True, should_proceed=True, result=payload
    )
    run_id = new_id()
    sequence = standing.sequence + 1
    reached("before-submission")
    run: Row = {
        **_run(standing.execution_id, run_id, call=call, sequence=sequence, visit=0),
        "mode": StepExecutionMode.CLIENT_ONLY.value,
        "status": RunStatus.SUCCEEDED.value,
        "should_proceed": True,
        "client_key": None if call.key is None else call.key.key,
        "sealed_answer": None if call.key is None else seal_answer(answer, run_id=run_id),
        "finished_at": FromNow(),
        "duration_ms": 0,
    }
    completed = ending.end(
        Change(
            execution_id=standing.execution_id,
            when={
                "sequence": standing.sequence,
                "status": LIVE_STATUSES,
                "lease_holder": None,
            },
            to={**_completed(sequence, standing.compiled), "result": submitted},
            new_run=run,
        ),
        standing.compiled,
        undo=False,
    )
    if not completed:
        raise Outpaced
    _after_end(standing.execution_id, standing.compiled, WorkflowExecutionStatus.COMPLETED)
    return answer


def repeat(row: WorkflowExecution, call: Completion) -> StepAnswer:
    """Submit again what a failed submission kept. Raises Outpaced, ExecutionBusy, SessionUnavailable."""
    kept = _kept(row, last_submission(row.id))
    submission = _Submission(
        execution_id=row.id,
        compiled=kept.compiled,
        sequence=row.sequence,
        visit=kept.visit,
        was_unknown=kept.was_unknown,
        secrets=kept.composed.secrets,
        call=call,
    )
    when: Row = {
        "sequence": row.sequence,
        "status": WorkflowExecutionStatus.FAILED.value,
        "error_code": ErrorCode.SUBMISSION_FAILED.value,
        "lease_holder": None,
    }
    reopened: Row = {"completed_at": None, "error_code": "", "error": "", "undo_at": None}
    return submission.send(kept.composed, kept.trigger, when=when, to=reopened)


def request_of_repeat(
    row: WorkflowExecution, prior: StepRun | None
) -> tuple[Composed, PartnerCall]:
    """What `repeat` would send after this newest run; nothing is sent or stored.

    Raises SubmissionFailed when nothing was kept, SessionUnavailable, EndpointForbidden.
    """
    kept = _kept(row, prior)
    key = composing.trigger_key(row.id, step_id=_STEP_ID, timing="", visit=kept.visit)
    return kept.composed, composing.addressed(
        kept.composed, kept.trigger, execution_id=row.id, step_id="", key=key
    )


def give_up(execution_id: UUID, *, at_once: bool = False) -> bool:
    """Let a failed submission be final, its time being over: what was done before it is undone.

    The kept request is deleted: what is undone cannot be submitted any more. False when somebody has
    repeated it, or its time is not over, which does not matter `at_once`.
    """
    in_time = {"undo_at__isnull": False} if at_once else {"undo_at__lt": Now()}
    with transaction.atomic():
        row = WorkflowExecution.objects.select_for_update().filter(
            pk=execution_id,
            status=WorkflowExecutionStatus.FAILED,
            error_code=ErrorCode.SUBMISSION_FAILED,
            lease_holder=None,
            **in_time,
        )
        execution = row.first()
        if execution is None:
            return False
        row.update(undo_at=None, sequence=F("sequence") + 1)
        StepRun.objects.filter(execution_id=execution_id, kind=RunKind.SUBMISSION).update(
            sealed_request=None
        )
        ending.wind_up(execution_id, compiled_version(execution.version_id), undo=True)
    clear_session(execution_id)
    return True


@dataclass(frozen=True, slots=True)
class _Kept:
    """The request of a failed submission, and the visit (and with it the key) of its repeat."""

    compiled: CompiledWorkflow
    trigger: CompiledTrigger
    composed: Composed
    visit: int
    was_unknown: bool


def _kept(row: WorkflowExecution, prior: StepRun | None) -> _Kept:
    compiled = compiled_version(row.version_id)
    trigger = compiled.final_api
    if prior is None or prior.sealed_request is None or trigger is None:
        raise SubmissionFailed
    try:
        composed = Composed.unsealed(prior.sealed_request, run_id=prior.id)
    except Unsealable as error:
        logger.exception("execution %s: the kept request cannot be unsealed", row.id)
        raise SessionUnavailable from error
    was_refused = prior.status == RunStatus.REJECTED
    return _Kept(
        compiled=compiled,
        trigger=trigger,
        composed=composed,
        visit=prior.visit + 1 if was_refused else prior.visit,
        was_unknown=prior.status == RunStatus.UNKNOWN,
    )


def last_submission(execution_id: UUID) -> StepRun | None:
    """The newest run of the final submission."""
    runs = StepRun.objects.filter(execution_id=execution_id, kind=RunKind.SUBMISSION)
    return runs.order_by("-sequence").first()


def recorded_completion(row: WorkflowExecution) -> StepAnswer:
    """The answer to a repeated completion: what the record keeps. Clears a session left behind."""
    clear_session(row.id)
    run = last_submission(row.id)
    if run is not None and run.sealed_answer is not None:
        return recorded_answer(run)
    return StepAnswer(execution_id=row.id, success=True, should_proceed=True, result=row.result)


def clear_session(execution_id: UUID) -> None:
    """End the session; when its store is away it ends by itself, in its time."""
    reached("before-session-clear")
    try:
        get_session_store().clear_session(session_id_of(execution_id))
    except SessionUnavailable:
        logger.warning("execution %s: its session could not be cleared", execution_id)


@dataclass(frozen=True, slots=True)
class _Submission:
    """One submission from its intent to its record."""

    execution_id: UUID
    compiled: CompiledWorkflow
    sequence: int
    visit: int
    was_unknown: bool
    secrets: frozenset[str]
    call: Completion

    def send(
        self, composed: Composed, trigger: CompiledTrigger, *, when: Row, to: Row
    ) -> StepAnswer:
        """Commit the intent under `when`, call, and commit what came of it."""
        key = composing.trigger_key(
            self.execution_id, step_id=_STEP_ID, timing="", visit=self.visit
        )
        try:
            partner_call = composing.addressed(
                composed, trigger, execution_id=self.execution_id, step_id="", key=key
            )
        except EndpointForbidden as error:
            logger.error("execution %s: %s", self.execution_id, error.message)  # noqa: TRY400 - no bug
            raise EndpointForbidden from error
        lease = Lease(self.execution_id)
        reached("before-submission")
        self._commit_intent(lease, composed, key=key, when=when, to=to)
        reached("after-intent")
        with lease.kept() as is_ours:
            result = calling.call_under(
                lease,
                partner_call,
                policy=trigger.retry,
                world=self.call.world,
                deadline_ms=self.call.deadline_ms,
                is_ours=is_ours,
            )
        reached("after-submission")
        return self._conclude(lease, result)

    def _commit_intent(
        self, lease: Lease, composed: Composed, *, key: UUID, when: Row, to: Row
    ) -> None:
        sequence = self.sequence + 1
        run = {
            **_run(
                self.execution_id, lease.run_id, call=self.call, sequence=sequence, visit=self.visit
            ),
            "mode": StepExecutionMode.SERVER_SYNC.value,
            "status": RunStatus.RUNNING.value,
            "should_proceed": False,
            "trigger_key": key,
            "sealed_request": composed.sealed(lease.run_id),
            "client_key": None if self.call.key is None else self.call.key.key,
        }
        intended = ledger.apply(
            Change(
                execution_id=self.execution_id,
                when=when,
                to={
                    **to,
                    "status": WorkflowExecutionStatus.IN_PROGRESS.value,
                    "sequence": sequence,
                    **lease.taken(),
                },
                new_run=run,
            )
        )
        if not intended:
            raise Outpaced

    def _conclude(self, lease: Lease, result: CallResult) -> StepAnswer:
        certainty = judging.certainty_of(result, was_unknown=self.was_unknown, is_guarded=True)
        sequence = self.sequence + 2
        if certainty is Certainty.ANSWERED:
            body = None if result.response is None else result.response.body
            answer = StepAnswer(
                execution_id=self.execution_id, success=True, should_proceed=True, result=body
            )
            to: Row = {**_completed(sequence, self.compiled), "result": self._redacted(body)}
            run_end = self._end_of_success(answer, lease, result)
        else:
            answer = self._failure(result, certainty)
            to = self._failed(sequence, answer, certainty)
            run_end = self._end_of_failure(result, certainty)
        self._settle(lease, result, to=to, run_end=run_end)
        status = WorkflowExecutionStatus(str(to["status"]))
        _after_end(self.execution_id, self.compiled, status)
        return answer

    def _settle(self, lease: Lease, result: CallResult, *, to: Row, run_end: Row) -> None:
        change = Change(
            execution_id=self.execution_id,
            when={"lease_holder": lease.holder},
            to={**to, **lease.given_back()},
            run_id=lease.run_id,
            run_end={**run_end, "finished_at": FromNow()},
            attempts=calling.last_attempt(lease, result),
        )
        if to["status"] == WorkflowExecutionStatus.COMPLETED.value:
            settled = ending.end(change, self.compiled, undo=False)
        else:
            settled = ending.leave_failed(change, self.compiled)
        if not settled:
            raise ExecutionBusy

    def _end_of_success(self, answer: StepAnswer, lease: Lease, result: CallResult) -> Row:
        return {
            "status": RunStatus.SUCCEEDED.value,
            "should_proceed": True,
            "result": self._redacted(answer.result),
            "sealed_request": None,
            "sealed_answer": seal_answer(answer, run_id=lease.run_id),
            "duration_ms": _duration_of(result),
        }

    def _end_of_failure(self, result: CallResult, certainty: Certainty) -> Row:
        outcome = judging.failure(result, certainty)
        redactor = redactor_of(self.compiled.sensitive)
        return {
            "status": outcome.run_status.value,
            "error_code": "" if outcome.error_code is None else outcome.error_code.value,
            "error": redactor.redact_text(result.message, self.secrets),
            "client_key": None,
            "duration_ms": _duration_of(result),
        }

    def _failure(self, result: CallResult, certainty: Certainty) -> StepAnswer:
        return StepAnswer(
            execution_id=self.execution_id,
            success=False,
            should_proceed=False,
            error=result.message or SubmissionFailed().message,
            error_code=ErrorCode.SUBMISSION_FAILED.value,
            retryable=result.retryable or certainty is Certainty.UNKNOWN,
            retry_after_ms=result.retry_after_ms,
        )

    def _failed(self, sequence: int, answer: StepAnswer, certainty: Certainty) -> Row:
        """FAILED, and final once nobody has repeated it for as long as a session lives.

        An unknown outcome never becomes final by itself: what may have been paid is not undone.
        """
        redactor = redactor_of(self.compiled.sensitive)
        is_final_later = self.compiled.has_compensation and certainty is not Certainty.UNKNOWN
        ttl_seconds = self.compiled.session_ttl_seconds or settings.SESSION_TTL_SECONDS
        return {
            "undo_at": FromNow(ttl_seconds) if is_final_later else None,
            "status": WorkflowExecutionStatus.FAILED.value,
            "sequence": sequence,
            "completed_at": FromNow(),
            "error_code": ErrorCode.SUBMISSION_FAILED.value,
            "error": redactor.redact_text(answer.error or "", self.secrets),
        }

    def _redacted(self, value: JsonValue) -> JsonValue:
        return redactor_of(self.compiled.sensitive).redact(value, self.secrets)


def _duration_of(result: CallResult) -> int:
    return sum(attempt.duration_ms for attempt in result.attempts)


def _run(
    execution_id: UUID, run_id: UUID, *, call: Completion, sequence: int, visit: int
) -> dict[str, object]:
    return {
        "id": run_id,
        "execution_id": execution_id,
        "kind": RunKind.SUBMISSION.value,
        "timing": "",
        "sequence": sequence,
        "visit": visit,
        "arguments_hash": None if call.key is None else call.key.arguments_hash,
        "error_code": "",
        "error": "",
        "started_at": FromNow(),
    }


def _completed(sequence: int, compiled: CompiledWorkflow) -> dict[str, object]:
    return {
        "status": WorkflowExecutionStatus.COMPLETED.value,
        "sequence": sequence,
        "position": len(compiled.steps),
        "completed_at": FromNow(),
    }


def _after_end(
    execution_id: UUID, compiled: CompiledWorkflow, status: WorkflowExecutionStatus
) -> None:
    metrics.execution_ended(workflow=compiled.name, status=status.value)
    if status is WorkflowExecutionStatus.COMPLETED:
        clear_session(execution_id)
