"""The words of an execution: statuses, outcomes and the error codes of the API."""

from django.db.models import TextChoices


class WorkflowExecutionStatus(TextChoices):
    """Where one person's run of a workflow stands."""

    # `state.py` has the allowed changes.

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class RunKind(TextChoices):
    """What a StepRun is the record of."""

    STEP = "STEP"
    SUBMISSION = "SUBMISSION"
    CANCELLATION = "CANCELLATION"
    COMPENSATION = "COMPENSATION"


class RunStatus(TextChoices):
    """How a run stands. UNKNOWN: a partner was called and nobody knows whether it acted."""

    QUEUED = "QUEUED"  # waits for a worker, also between two attempts
    RUNNING = "RUNNING"
    WAITING = "WAITING"  # for the partner's callback
    SUCCEEDED = "SUCCEEDED"
    REJECTED = "REJECTED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"
    CANCELLED = "CANCELLED"  # never sent
    PARKED = "PARKED"  # killed its worker too often; held for operators
    SETTLED = "SETTLED"  # without success here; somebody of the staff has settled it outside


class OperatorActionKind(TextChoices):
    """What staff did to an execution by hand."""

    REPLAY_SUBMISSION = "REPLAY_SUBMISSION"
    REPLAY_STEP = "REPLAY_STEP"
    REPLAY_COMPENSATION = "REPLAY_COMPENSATION"
    SETTLE_SUBMISSION = "SETTLE_SUBMISSION"
    SETTLE_STEP = "SETTLE_STEP"
    SETTLE_COMPENSATION = "SETTLE_COMPENSATION"
    CANCEL = "CANCEL"
    REVEAL_VALUE = "REVEAL_VALUE"


class OperatorOutcome(TextChoices):
    """What came of it. STARTED stays where the process died; the execution's runs say the rest.

    NOT_SENT: nobody was called. QUEUED: a worker will call. FAILED: called, but nobody acted on it.
    UNKNOWN: nobody knows. SETTLED: nothing was sent, by intent.
    """

    STARTED = "STARTED"
    QUEUED = "QUEUED"
    SUCCEEDED = "SUCCEEDED"
    REJECTED = "REJECTED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"
    NOT_SENT = "NOT_SENT"
    SETTLED = "SETTLED"


class DropCause(TextChoices):
    """Why a person did not get past a step: what the last call said, or else how it ended.

    UNDER_WAY is none: the person called a moment ago.
    """

    UNDER_WAY = "UNDER_WAY"
    LEFT = "LEFT"  # live, and nothing was called for a while
    EXPIRED = "EXPIRED"  # as LEFT, and the session has ended
    BOUNCED = "BOUNCED"  # a validation said no
    PARTNER_ERROR = "PARTNER_ERROR"
    PARTNER_TIMEOUT = "PARTNER_TIMEOUT"
    CANCELLED = "CANCELLED"
    OTHER = "OTHER"  # a definition that does not fit, or ours


class AttemptOutcome(TextChoices):
    """What one HTTP try came to."""

    ANSWERED = "ANSWERED"
    REFUSED = "REFUSED"
    SERVER_ERROR = "SERVER_ERROR"
    REDIRECTED = "REDIRECTED"
    CONNECT_FAILED = "CONNECT_FAILED"
    TLS_FAILED = "TLS_FAILED"
    FORBIDDEN = "FORBIDDEN"
    TIMED_OUT = "TIMED_OUT"
    LINE_CUT = "LINE_CUT"
    TOO_LARGE = "TOO_LARGE"
    NOT_JSON = "NOT_JSON"


class ErrorCode(TextChoices):
    """`errorCode` of an answer: business refusals, which are answers and not GraphQL errors."""

    STEP_OUT_OF_ORDER = "STEP_OUT_OF_ORDER"
    STEP_LOCKED = "STEP_LOCKED"
    STEP_UNKNOWN = "STEP_UNKNOWN"
    TIMING_NOT_CONFIGURED = "TIMING_NOT_CONFIGURED"
    INPUT_INVALID = "INPUT_INVALID"
    NOT_ACCEPTED = "NOT_ACCEPTED"
    VALIDATION_REJECTED = "VALIDATION_REJECTED"
    TRIGGER_REJECTED = "TRIGGER_REJECTED"
    TRIGGER_UNAVAILABLE = "TRIGGER_UNAVAILABLE"
    TRIGGER_TIMEOUT = "TRIGGER_TIMEOUT"
    TRIGGER_BAD_RESPONSE = "TRIGGER_BAD_RESPONSE"
    ENDPOINT_FORBIDDEN = "ENDPOINT_FORBIDDEN"
    MAPPING_INCOMPLETE = "MAPPING_INCOMPLETE"
    STEPS_INCOMPLETE = "STEPS_INCOMPLETE"
    STEPS_PENDING = "STEPS_PENDING"
    SUBMISSION_FAILED = "SUBMISSION_FAILED"
    EXECUTION_BUSY = "EXECUTION_BUSY"
    EXECUTION_ENDED = "EXECUTION_ENDED"
    SESSION_EXPIRED = "SESSION_EXPIRED"
    SESSION_UNAVAILABLE = "SESSION_UNAVAILABLE"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
