"""A partner's answer, or a person's, becomes what the step decided.

A 2xx that does not let the flow proceed is a "no", and so are the statuses by which validations say
no. Other 4xx refuse the request. What nobody knows stays unknown until something definite is heard:
after an unknown outcome a 409 is not definite, because a partner that is still working on the first
call may answer the repeat with it, nor is a 401, which is said before anybody looks at the key. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from config.jsonvalues import JsonValue
from executions.enums import AttemptOutcome, ErrorCode, RunStatus
from executions.errors import FieldError
from executions.outcomes import CallResult, Certainty, partner_message
from executions.state import Verdict
from workflows.compiled import CompiledStep
from workflows.conditions import may_proceed
from workflows.enums import StepExecutionMode, StepType
from workflows.expressions import Scope

VALIDATION_NO_STATUSES = frozenset({400, 404, 409, 422})
# A refusal with one of these is about what was asked. Any other (credentials, route, load, a first
# call still at work) may come from in front of the partner and tells nothing of an earlier call.
TELLING_STATUSES = frozenset({400, 402, 410, 422})
UNKNOWN_OUTCOMES = frozenset(
    {
        AttemptOutcome.TIMED_OUT,
        AttemptOutcome.LINE_CUT,
        AttemptOutcome.SERVER_ERROR,
        AttemptOutcome.REDIRECTED,
        AttemptOutcome.TOO_LARGE,
        AttemptOutcome.NOT_JSON,
    }
)

_NOT_ACCEPTED = "The confirmation was not accepted."
_REJECTED = "The check was not passed."


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step call decided: what the app is told, and what it means for the progress."""

    verdict: Verdict
    success: bool
    should_proceed: bool
    result: JsonValue = None
    error: str | None = None
    error_code: ErrorCode | None = None
    retryable: bool = False
    retry_after_ms: int | None = None
    field_errors: tuple[FieldError, ...] = ()

    @property
    def is_definite(self) -> bool:
        """Whether a repeat under the same idempotencyKey may get this answer again."""
        return self.verdict in (Verdict.QUEUED, Verdict.PROCEED, Verdict.STOP, Verdict.REFUSED)

    @property
    def run_status(self) -> RunStatus:
        """The status of the run that came to this."""
        return _RUN_STATUS[self.verdict]


_RUN_STATUS = {
    Verdict.QUEUED: RunStatus.QUEUED,
    Verdict.PROCEED: RunStatus.SUCCEEDED,
    Verdict.STOP: RunStatus.REJECTED,
    Verdict.REFUSED: RunStatus.REJECTED,
    Verdict.NOT_SENT: RunStatus.FAILED,
    Verdict.UNKNOWN: RunStatus.UNKNOWN,
}


def proceed(result: JsonValue = None) -> StepOutcome:
    """The step did what it should and the flow goes on."""
    return StepOutcome(Verdict.PROCEED, success=True, should_proceed=True, result=result)


def queued(run_id: UUID) -> StepOutcome:
    """A worker will work it off; the flow goes on meanwhile."""
    result: JsonValue = {"runId": str(run_id), "status": RunStatus.QUEUED.value}
    return StepOutcome(Verdict.QUEUED, success=True, should_proceed=True, result=result)


def say_no(code: ErrorCode, message: str, result: JsonValue = None) -> StepOutcome:
    """A validation or a person said no: the call succeeded, the flow stays."""
    return StepOutcome(
        Verdict.STOP,
        success=True,
        should_proceed=False,
        result=result,
        error=message,
        error_code=code,
    )


def judge_input(
    step: CompiledStep, value: JsonValue, *, context: Mapping[str, JsonValue]
) -> StepOutcome:
    """What an input decides where no partner is asked. `context` already holds the input.

    `result` in a `proceedWhen` is what the partner said at BEFORE_STEP, null where none was asked.
    """
    if declines(step, value):
        return say_no(ErrorCode.NOT_ACCEPTED, _NOT_ACCEPTED)
    result = context.get(step.result_key) if step.is_server else None
    if not _may_proceed(step, result=result, value=value, context=context):
        return say_no(ErrorCode.VALIDATION_REJECTED, _REJECTED)
    return proceed()


def declines(step: CompiledStep, value: JsonValue) -> bool:
    """Whether a confirmation's input does not accept: `accepted` has to be exactly true."""
    if step.type is not StepType.CONFIRMATION:
        return False
    return not (isinstance(value, dict) and value.get("accepted") is True)


def judge_call(
    step: CompiledStep,
    call: CallResult,
    *,
    value: JsonValue,
    context: Mapping[str, JsonValue],
    was_unknown: bool,
) -> StepOutcome:
    """What a partner's answer decides. `was_unknown`: an earlier call under the key may have acted."""
    certainty = certainty_of(call, was_unknown=was_unknown, is_guarded=not step.reversible)
    if certainty is Certainty.ANSWERED:
        result = None if call.response is None else call.response.body
        return judge_result(step, result, value=value, context=context)
    if certainty is Certainty.REFUSED and says_no(step, call):
        return say_no(ErrorCode.VALIDATION_REJECTED, call.message or _REJECTED)
    return failure(call, certainty)


def judge_result(
    step: CompiledStep, result: JsonValue, *, value: JsonValue, context: Mapping[str, JsonValue]
) -> StepOutcome:
    """What a readable answer decides: `proceedWhen`, or the default of the step's mode."""
    if _may_proceed(step, result=result, value=value, context=context):
        return proceed(result)
    return say_no(ErrorCode.VALIDATION_REJECTED, partner_message(result) or _REJECTED, result)


def certainty_of(call: CallResult, *, was_unknown: bool, is_guarded: bool) -> Certainty:
    """What is known of the effect after this call and the ones before it under the same key.

    `is_guarded`: the effect cannot be undone, so after an unknown outcome only a refusal that is
    about the request itself proves that nothing was done.
    """
    if call.certainty is Certainty.NOT_SENT and was_unknown:
        return Certainty.UNKNOWN
    tells_nothing = call.certainty is Certainty.REFUSED and call.http_status not in TELLING_STATUSES
    if is_guarded and tells_nothing and (was_unknown or _was_in_doubt(call)):
        return Certainty.UNKNOWN
    return call.certainty


def _was_in_doubt(call: CallResult) -> bool:
    return any(attempt.outcome in UNKNOWN_OUTCOMES for attempt in call.attempts[:-1])


def says_no(step: CompiledStep, call: CallResult) -> bool:
    """Whether a refusal is the "no" of a validation."""
    return (
        step.mode is StepExecutionMode.SERVER_VALIDATION
        and call.http_status in VALIDATION_NO_STATUSES
    )


def failure(call: CallResult, certainty: Certainty) -> StepOutcome:
    """A call that brought no result."""
    code = call.error_code or ErrorCode.TRIGGER_UNAVAILABLE
    if certainty is Certainty.UNKNOWN and code is ErrorCode.TRIGGER_REJECTED:
        code = ErrorCode.TRIGGER_UNAVAILABLE
    return StepOutcome(
        verdict=_VERDICTS[certainty],
        success=False,
        should_proceed=False,
        error=call.message,
        error_code=code,
        retryable=call.retryable or certainty is Certainty.UNKNOWN,
        retry_after_ms=call.retry_after_ms,
    )


def unkept(code: ErrorCode, message: str) -> StepOutcome:
    """The partner acted, but its answer could not be kept: a repeat under the same key gets it again."""
    return StepOutcome(
        Verdict.UNKNOWN,
        success=False,
        should_proceed=False,
        error=message,
        error_code=code,
        retryable=True,
    )


_VERDICTS = {
    Certainty.REFUSED: Verdict.REFUSED,
    Certainty.NOT_SENT: Verdict.NOT_SENT,
    Certainty.UNKNOWN: Verdict.UNKNOWN,
}


def _may_proceed(
    step: CompiledStep, *, result: JsonValue, value: JsonValue, context: Mapping[str, JsonValue]
) -> bool:
    """Asked of what the partner answered, what was entered, and the context."""
    scope: Scope = {"result": result, "input": value, "context": context}
    return may_proceed(step.proceed_when, step.mode, result=result, scope=scope)
