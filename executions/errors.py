"""The errors of running a flow. A partner's or a person's "no" is an outcome, not one of these."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from executions.enums import ErrorCode
from workflows.errors import WorkflowError


@dataclass(frozen=True, slots=True)
class FieldError:
    """One violation of a step's schema: a JSON pointer into the input, and what is wrong there."""

    path: str
    message: str


class ExecutionError(WorkflowError):
    """The call on the execution was refused."""


class ExecutionNotFound(ExecutionError):
    """There is no such execution."""

    code = "NOT_FOUND"


class ExecutionEnded(ExecutionError):
    """The execution has ended."""

    code = ErrorCode.EXECUTION_ENDED.value


class ExecutionBusy(ExecutionError):
    """Another call on this execution is being worked off; try again shortly."""

    code = ErrorCode.EXECUTION_BUSY.value
    retryable = True


class IdempotencyConflict(ExecutionError):
    """This idempotencyKey was used before with other arguments."""

    code = ErrorCode.IDEMPOTENCY_CONFLICT.value


class StepUnknown(ExecutionError):
    """The execution's workflow has no such step."""

    code = ErrorCode.STEP_UNKNOWN.value


class StepOutOfOrder(ExecutionError):
    """An earlier step, or this step's BEFORE_STEP, has to be passed first."""

    code = ErrorCode.STEP_OUT_OF_ORDER.value


class StepLocked(ExecutionError):
    """A step that cannot be undone has been sent; the steps before it are closed."""

    code = ErrorCode.STEP_LOCKED.value


class TimingNotConfigured(ExecutionError):
    """The step has nothing to do at this timing."""

    code = ErrorCode.TIMING_NOT_CONFIGURED.value


class InputRefused(ExecutionError):
    """The value cannot be stored."""

    code = "BAD_USER_INPUT"


class InputInvalid(ExecutionError):
    """The input does not fit what the step asks for."""

    code = ErrorCode.INPUT_INVALID.value

    def __init__(self, field_errors: Sequence[FieldError]) -> None:
        self.field_errors = tuple(field_errors)
        super().__init__()


class StepsIncomplete(ExecutionError):
    """Not every step has been passed."""

    code = ErrorCode.STEPS_INCOMPLETE.value


class StepsPending(ExecutionError):
    """A step is still being worked off."""

    code = ErrorCode.STEPS_PENDING.value
    retryable = True


class SessionExpired(ExecutionError):
    """The session has expired; start again."""

    code = ErrorCode.SESSION_EXPIRED.value


class SessionUnavailable(ExecutionError):
    """What was entered cannot be reached at the moment; the same call may be sent again."""

    code = ErrorCode.SESSION_UNAVAILABLE.value
    retryable = True


class SessionStoreAway(SessionUnavailable):
    """What was entered cannot be reached at the moment; the same call may be sent again.

    The store did not answer, nor will it for another session: who reads many asks no more.
    """


class StoreUnavailable(ExecutionError):
    """The service cannot start an execution at the moment; nothing was changed. Try again shortly."""

    code = "SERVICE_UNAVAILABLE"
    retryable = True


class TriggerError(ExecutionError):
    """The partner call failed."""

    retry_after_ms: int | None = None


class TriggerUnavailable(TriggerError):
    """The partner is not available at the moment."""

    code = ErrorCode.TRIGGER_UNAVAILABLE.value
    retryable: ClassVar[bool] = True


class TriggerTimeout(TriggerError):
    """The partner did not answer in time."""

    code = ErrorCode.TRIGGER_TIMEOUT.value
    retryable: ClassVar[bool] = True


class TriggerBadResponse(TriggerError):
    """The partner's answer could not be read."""

    code = ErrorCode.TRIGGER_BAD_RESPONSE.value
    retryable: ClassVar[bool] = True


class TriggerRejected(TriggerError):
    """The partner refused the request."""

    code = ErrorCode.TRIGGER_REJECTED.value


class SubmissionFailed(TriggerError):
    """The final request could not be submitted."""

    code = ErrorCode.SUBMISSION_FAILED.value
