"""What a callback carries, how it can be made to go wrong, and what came of it. Values only."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from config.jsonvalues import JsonObject, JsonValue

from .credentials import sign
from .faults import MAX_WAIT_MS, FaultInvalid, check_between, read_member
from .ledger import readable
from .messages import parse_json

MAX_COPIES: Final = 100
_OLD_SECONDS: Final = 3600
_WRONG_SECRET: Final = "not the secret of this connection"  # noqa: S105 - a wrong one on purpose
_RETRIED: Final = (408, 425, 429)


class CallbackTiming(StrEnum):
    """When the callback comes: after our answer, before it, or not at all."""

    USUAL = "usual"
    EARLY = "early"
    NEVER = "never"


class CallbackSignature(StrEnum):
    """How a callback is signed; without a secret GOOD has no signature."""

    GOOD = "good"
    BAD = "bad"
    OLD = "old"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class CallbackFault:
    """Everything that can be odd about the callbacks of one call; the defaults are not odd."""

    timing: CallbackTiming = CallbackTiming.USUAL
    delay_ms: int | None = None
    copies: int = 1
    bodies: tuple[JsonValue, ...] = ()
    changes: JsonObject | None = None
    wrong_token: bool = False
    signature: CallbackSignature = CallbackSignature.GOOD

    def bodies_for(self, usual: JsonValue) -> list[JsonValue]:
        """What is posted one after the other: each body as often as there are to be copies."""
        changed = {**usual, **self.changes} if self.changes and isinstance(usual, dict) else usual
        return [body for body in self.bodies or (changed,) for _ in range(self.copies)]

    def url_for(self, url: str) -> str:
        return with_wrong_token(url) if self.wrong_token else url

    def document(self) -> JsonObject:
        return {
            "timing": self.timing.value,
            "delayMs": self.delay_ms,
            "copies": self.copies,
            "bodies": list(self.bodies),
            "changes": self.changes,
            "wrongToken": self.wrong_token,
            "signature": self.signature.value,
        }


def make_callback_fault(
    *,
    timing: CallbackTiming | str = CallbackTiming.USUAL,
    delay_ms: int | None = None,
    copies: int = 1,
    bodies: tuple[JsonValue, ...] | list[JsonValue] = (),
    changes: JsonObject | None = None,
    wrong_token: bool = False,
    signature: CallbackSignature | str = CallbackSignature.GOOD,
) -> CallbackFault:
    """A checked fault; ValueError says what is wrong with it."""
    if changes is not None and bodies:
        raise FaultInvalid("changes: cannot be together with bodies")
    return CallbackFault(
        timing=read_member(CallbackTiming, timing, "timing"),
        delay_ms=None if delay_ms is None else check_between("delayMs", delay_ms, 0, MAX_WAIT_MS),
        copies=check_between("copies", copies, 1, MAX_COPIES),
        bodies=tuple(bodies),
        changes=changes,
        wrong_token=wrong_token,
        signature=read_member(CallbackSignature, signature, "signature"),
    )


_FIELDS: Final[dict[str, tuple[str, type]]] = {
    "timing": ("timing", str),
    "delayMs": ("delay_ms", int),
    "copies": ("copies", int),
    "bodies": ("bodies", list),
    "changes": ("changes", dict),
    "wrongToken": ("wrong_token", bool),
    "signature": ("signature", str),
}


def parse_callback_fault(data: JsonValue) -> CallbackFault:
    """Read `{"timing": "early", "copies": 2}`; ValueError names what is wrong."""
    if not isinstance(data, dict):
        raise FaultInvalid("fault: must be an object")
    for name, value in data.items():
        if name not in _FIELDS:
            raise FaultInvalid(f"fault.{name}: unknown; there are {', '.join(_FIELDS)}")
        wanted = _FIELDS[name][1]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is int):
            raise FaultInvalid(f"fault.{name}: has the wrong type")
    options = {_FIELDS[name][0]: value for name, value in data.items()}
    try:
        return make_callback_fault(**options)  # type: ignore[arg-type]  # the loop above has checked every type
    except ValueError as error:
        raise FaultInvalid(f"fault.{error}") from None


@dataclass(slots=True)
class CallbackDelivery:
    """One callback and its tries: a status each, None for a try that nobody answered.

    `ended` is set when no further try will be made, whatever came of it.
    """

    number: int
    idempotency_key: str
    path: str
    url: str
    body: bytes
    signature: CallbackSignature
    statuses: tuple[int | None, ...] = ()
    ended: bool = False

    @property
    def json(self) -> JsonValue:
        return parse_json(self.body)

    @property
    def status(self) -> int | None:
        """What the last try came to."""
        return self.statuses[-1] if self.statuses else None

    def document(self) -> JsonObject:
        return {
            "number": self.number,
            "key": self.idempotency_key,
            "path": self.path,
            "url": self.url,
            "body": readable(self.body),
            "statuses": list(self.statuses),
            "ended": self.ended,
        }


@dataclass(frozen=True, slots=True)
class CallbackAnswer:
    """What the receiver of a callback answered."""

    status: int
    body: bytes

    @property
    def json(self) -> JsonValue:
        """The body's value; None when there was none; ValueError when it is not JSON."""
        return parse_json(self.body) if self.body else None


def is_worth_another_try(status: int | None) -> bool:
    """Nobody answered, or the answer says that it may be different next time."""
    return status is None or status >= 500 or status in _RETRIED


def signature_of(
    body: bytes, *, signature: CallbackSignature, secret: str | None, unix_seconds: int
) -> str | None:
    """The value of the signature's header, or None for no header."""
    match signature:
        case CallbackSignature.GOOD:
            return None if secret is None else sign(secret, body, signed_at=unix_seconds)
        case CallbackSignature.BAD:
            return sign(_WRONG_SECRET, body, signed_at=unix_seconds)
        case CallbackSignature.OLD:
            signed_at = unix_seconds - _OLD_SECONDS
            return sign(secret or _WRONG_SECRET, body, signed_at=signed_at)
        case CallbackSignature.MISSING:
            return None


def with_wrong_token(url: str) -> str:
    """The URL with another last segment of the same length, as somebody who guesses would have."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    before, _, token = path.rpartition("/")
    digits = hashlib.sha256(token.encode()).hexdigest()
    guess = (digits * (len(token) // len(digits) + 1))[: len(token) or 1]
    return parts._replace(path=f"{before}/{guess}{parts.path[len(path) :]}").geturl()
