"""What an HTTP attempt means, and what a call of several attempts comes to.

The one table that says which answers are a result, which are a definite "no", which are tried
again, and after which nobody knows whether the partner acted. A call is as certain as its last
telling attempt: once an attempt was sent and left unanswered the call is UNKNOWN, until a later one
with the same key is answered. Pure: no clock, no I/O; whoever makes an attempt hands in its times.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

from config.jsonvalues import JsonValue
from executions.enums import AttemptOutcome, ErrorCode
from executions.errors import (
    TriggerBadResponse,
    TriggerRejected,
    TriggerTimeout,
    TriggerUnavailable,
)
from workflows.errors import EndpointForbidden

MAX_MESSAGE_LENGTH = 500
RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# RFC 9110 and 6585: the partner says that it has not worked on the request, so the key stays good.
NOT_ACTED_ON_STATUSES = frozenset({408, 425, 429})

_LONGEST_WAIT_MS = 10**12
_ERROR_CLASSES = {
    error.code: error
    for error in (
        TriggerUnavailable,
        TriggerTimeout,
        TriggerBadResponse,
        TriggerRejected,
        EndpointForbidden,
    )
}


class Certainty(StrEnum):
    """What we know about the partner's effect."""

    ANSWERED = "ANSWERED"
    REFUSED = "REFUSED"
    NOT_SENT = "NOT_SENT"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class TriggerRequest:
    """One HTTP request, ready to send. What is secret or personal stays out of its repr."""

    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes | None = field(repr=False)
    timeout_ms: int
    allow_private: bool
    connection: str


@dataclass(frozen=True, slots=True)
class TriggerResponse:
    """A partner's answer of any status; an empty body is None, an unreadable one of no 2xx too."""

    status: int
    body: JsonValue = field(repr=False)
    retry_after_ms: int | None = None


class ExchangeFailed(Exception):
    """There is no readable answer; `outcome` says how the attempt ended.

    `status` is the partner's, when it came as far as that. The reason is for logs and names no
    value.
    """

    def __init__(self, outcome: AttemptOutcome, reason: str, *, status: int | None = None) -> None:
        self.outcome = outcome
        self.reason = reason
        self.status = status
        super().__init__(f"{outcome.value}: {reason}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one attempt means; `is_retried`: the loop may try again."""

    outcome: AttemptOutcome
    certainty: Certainty
    error_code: ErrorCode | None = None
    is_retried: bool = False

    @property
    def is_retryable(self) -> bool:
        """Whether the same call may succeed later, as the app is told."""
        if self.error_code is None:
            return False
        return self.is_retried or _ERROR_CLASSES[self.error_code.value].retryable


_FAILURES = {
    verdict.outcome: verdict
    for verdict in (
        Verdict(AttemptOutcome.FORBIDDEN, Certainty.NOT_SENT, ErrorCode.ENDPOINT_FORBIDDEN),
        Verdict(
            AttemptOutcome.CONNECT_FAILED,
            Certainty.NOT_SENT,
            ErrorCode.TRIGGER_UNAVAILABLE,
            is_retried=True,
        ),
        Verdict(
            AttemptOutcome.TLS_FAILED,
            Certainty.NOT_SENT,
            ErrorCode.TRIGGER_UNAVAILABLE,
            is_retried=True,
        ),
        Verdict(
            AttemptOutcome.TIMED_OUT,
            Certainty.UNKNOWN,
            ErrorCode.TRIGGER_TIMEOUT,
            is_retried=True,
        ),
        Verdict(
            AttemptOutcome.LINE_CUT,
            Certainty.UNKNOWN,
            ErrorCode.TRIGGER_UNAVAILABLE,
            is_retried=True,
        ),
        Verdict(AttemptOutcome.TOO_LARGE, Certainty.UNKNOWN, ErrorCode.TRIGGER_BAD_RESPONSE),
        Verdict(AttemptOutcome.NOT_JSON, Certainty.UNKNOWN, ErrorCode.TRIGGER_BAD_RESPONSE),
    )
}
_ANSWERED = Verdict(AttemptOutcome.ANSWERED, Certainty.ANSWERED)


def judge_failure(outcome: AttemptOutcome) -> Verdict:
    """What an attempt without a readable answer means."""
    return _FAILURES[outcome]


def judge_status(status: int) -> Verdict:
    """What an answer with this status means; a 2xx has been read and is JSON."""
    if 200 <= status < 300:
        return _ANSWERED
    is_retried = status in RETRIED_STATUSES
    if 400 <= status < 500:
        return Verdict(
            AttemptOutcome.REFUSED,
            Certainty.NOT_SENT if status in NOT_ACTED_ON_STATUSES else Certainty.REFUSED,
            ErrorCode.TRIGGER_UNAVAILABLE if status == 429 else ErrorCode.TRIGGER_REJECTED,
            is_retried,
        )
    if 500 <= status < 600:
        return Verdict(
            AttemptOutcome.SERVER_ERROR,
            Certainty.UNKNOWN,
            ErrorCode.TRIGGER_UNAVAILABLE,
            is_retried,
        )
    outcome = AttemptOutcome.REDIRECTED if 300 <= status < 400 else AttemptOutcome.NOT_JSON
    return Verdict(outcome, Certainty.UNKNOWN, ErrorCode.TRIGGER_BAD_RESPONSE)


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One HTTP try as its row will tell it; `error_code` is "" when it brought a result."""

    number: int
    outcome: AttemptOutcome
    http_status: int | None
    error_code: str
    started_at: datetime
    duration_ms: int
    retry_after_ms: int | None = None


def is_tried_again(record: AttemptRecord) -> bool:
    """Whether a retry policy may follow this attempt with another one."""
    if record.outcome in _FAILURES:
        return _FAILURES[record.outcome].is_retried
    return record.http_status is not None and judge_status(record.http_status).is_retried


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a call came to. `response` is the last attempt's answer, of whatever status.

    `attempts` is empty when nothing was tried: the connection's cap was reached, its breaker is
    open, or no time was left. `is_last_told`: another attempt was to follow the last one, so the
    caller has heard of it, and then the breaker was open.
    """

    response: TriggerResponse | None
    attempts: tuple[AttemptRecord, ...]
    certainty: Certainty
    error_code: ErrorCode | None = None
    retryable: bool = False
    retry_after_ms: int | None = None
    message: str = ""
    is_last_told: bool = False

    @property
    def http_status(self) -> int | None:
        """The last status that the partner sent."""
        return self.attempts[-1].http_status if self.attempts else None


def fold_certainty(certainties: Iterable[Certainty]) -> Certainty:
    """What we know after these: an unsent one changes nothing, an answer settles it."""
    known = Certainty.NOT_SENT
    for certainty in certainties:
        if certainty is not Certainty.NOT_SENT:
            known = certainty
    return known


def default_message(error_code: ErrorCode) -> str:
    """The sentence that the app gets for this code."""
    return str(_ERROR_CLASSES[error_code.value]())


def partner_message(body: JsonValue) -> str:
    """The partner's own words (`message`, `error`, `detail`), made safe to show; else ""."""
    if not isinstance(body, dict):
        return ""
    for key in ("message", "error", "detail"):
        text = body.get(key)
        if isinstance(text, dict):
            text = text.get("message")
        if isinstance(text, str) and (shown := _printable(text)):
            return shown
    return ""


def _printable(text: str) -> str:
    start = text[: 4 * MAX_MESSAGE_LENGTH]
    shown = "".join(mark if mark.isprintable() else " " for mark in start)
    return " ".join(shown.split())[:MAX_MESSAGE_LENGTH]


def parse_retry_after(text: str, *, now: datetime) -> int | None:
    """The wait in ms that a Retry-After header asks for: seconds or an HTTP date; else None."""
    text = text.strip()
    if re.fullmatch(r"[0-9]+", text):
        return _LONGEST_WAIT_MS if len(text) > 9 else int(text) * 1000
    try:
        until = parsedate_to_datetime(text)
        seconds = (until - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0, round(seconds * 1000)), _LONGEST_WAIT_MS)
