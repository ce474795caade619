"""The words of a definition. TextChoices is the one Django import of the pure modules."""

from django.db.models import TextChoices


class StepType(TextChoices):
    """What a step is to the person: it decides what the app shows and who passes it."""

    FORM = "FORM"
    VALIDATION = "VALIDATION"
    CONFIRMATION = "CONFIRMATION"
    API_CALL = "API_CALL"
    INFO = "INFO"


class StepExecutionMode(TextChoices):
    """Who works a step off: the app alone, or the server by calling a partner."""

    CLIENT_ONLY = "CLIENT_ONLY"
    SERVER_SYNC = "SERVER_SYNC"
    SERVER_ASYNC = "SERVER_ASYNC"
    SERVER_VALIDATION = "SERVER_VALIDATION"


class TriggerTiming(TextChoices):
    """When a step's trigger is called: before the app shows the step, after it, or both."""

    BEFORE_STEP = "BEFORE_STEP"
    AFTER_STEP = "AFTER_STEP"
    BOTH = "BOTH"


class StepState(TextChoices):
    """How a step stands in its execution. PENDING and FAILED: its async run is under way, or failed."""

    OPEN = "OPEN"
    CURRENT = "CURRENT"
    PASSED = "PASSED"
    SKIPPED = "SKIPPED"
    REJECTED = "REJECTED"
    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    FAILED = "FAILED"


class WorkflowAvailability(TextChoices):
    """Whether a flow can be walked right now, as far as its partners go."""

    OK = "OK"
    DEGRADED = "DEGRADED"
    BLOCKED = "BLOCKED"


class AuthKind(TextChoices):
    """How a connection proves to the partner who is calling."""

    NONE = "NONE"
    BEARER = "BEARER"
    BASIC = "BASIC"
    API_KEY = "API_KEY"
    HMAC = "HMAC"
