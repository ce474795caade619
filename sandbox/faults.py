"""What can be made to go wrong with a call, and how a developer asks for it.

A fault comes from the queue (`POST /_sandbox/faults`, first come, first served for its path),
from a magic value in the request's body, or from the command line. It says what the caller gets
instead of the answer, and whether the effect happens: before the fault, never, or only after the
waiting.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeVar

from config.jsonvalues import JsonObject, JsonValue

from .messages import Headers

MAX_WAIT_MS: Final = 600_000
MAX_SIZE: Final = 64 * 1024 * 1024
MAX_TIMES: Final = 1_000_000

_ELSEWHERE: Final = "/api/elsewhere"


class FaultInvalid(ValueError):
    """A fault that makes no sense; the message names the part of its document."""


_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff]*")
_Member = TypeVar("_Member", bound=StrEnum)


class FaultKind(StrEnum):
    """Every way in which a call can go wrong; the values are the words of the fault documents."""

    LATENCY = "latency"
    STATUS = "status"
    ANSWER = "answer"
    ANSWER_LATER = "answer_later"
    CUT_BEFORE = "cut_before"
    CUT_AFTER = "cut_after"
    CUT_MIDDLE = "cut_middle"
    GARBAGE = "garbage"
    HTML = "html"
    HUGE = "huge"
    GZIP_BOMB = "gzip_bomb"
    DRIP = "drip"
    DRIP_HEADERS = "drip_headers"
    HANG = "hang"
    REDIRECT = "redirect"
    EMPTY = "empty"
    CONTENT_TYPE = "content_type"
    EARLY_HINTS = "early_hints"
    INVALID_UTF8 = "invalid_utf8"
    DUPLICATE_HEADERS = "duplicate_headers"
    DEEP_JSON = "deep_json"
    BIG_INTEGERS = "big_integers"
    BAD_HEAD = "bad_head"


class FaultEffect(StrEnum):
    """When the effect of a call with a fault happens."""

    BEFORE = "before"
    NONE = "none"
    AFTER = "after"


WAITING_KINDS = frozenset({FaultKind.LATENCY, FaultKind.HANG})
_WITH_EFFECT = frozenset({FaultKind.LATENCY, FaultKind.ANSWER_LATER})
_WITHOUT_EFFECT = frozenset({FaultKind.CUT_BEFORE, FaultKind.HANG, FaultKind.REDIRECT})
_DEFAULT_MS = {
    FaultKind.LATENCY: 1000,
    FaultKind.HANG: 60_000,
    FaultKind.DRIP: 100,
    FaultKind.DRIP_HEADERS: 100,
}
_DEFAULT_SIZE = {
    FaultKind.HUGE: 2 * 1024 * 1024,
    FaultKind.GZIP_BOMB: 16 * 1024 * 1024,
    FaultKind.DEEP_JSON: 100_000,
    FaultKind.BIG_INTEGERS: 30,
}
_DEFAULT_STATUS = {
    FaultKind.STATUS: 503,
    FaultKind.ANSWER: 200,
    FaultKind.ANSWER_LATER: 202,
    FaultKind.REDIRECT: 302,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault with everything about it decided; `make_fault` fills in the defaults."""

    kind: FaultKind
    effect: FaultEffect
    status: int = 200
    ms: int = 0
    size: int = 0
    reset: bool = False
    chunked: bool = False
    body: JsonValue = None
    headers: Headers = ()
    location: str = _ELSEWHERE
    ack: JsonValue = None
    callback_delay_ms: int | None = None
    gate: threading.Event | None = field(default=None, compare=False)

    def document(self) -> JsonObject:
        return {"kind": self.kind.value}


def make_fault(
    kind: FaultKind | str,
    *,
    effect: FaultEffect | str | None = None,
    status: int | None = None,
    ms: int | None = None,
    size: int | None = None,
    retry_after: int | str | None = None,
    headers: dict[str, str] | None = None,
    body: JsonValue = None,
    location: str | None = None,
    ack: JsonValue = None,
    reset: bool = False,
    chunked: bool = False,
) -> Fault:
    """A fault with the defaults of its kind; ValueError says what is wrong with it."""
    kind = read_member(FaultKind, kind, "kind")
    status = _DEFAULT_STATUS.get(kind, 200) if status is None else status
    default_effect = FaultEffect.BEFORE
    if kind in _WITHOUT_EFFECT or (kind in (FaultKind.STATUS, FaultKind.ANSWER) and status >= 300):
        default_effect = FaultEffect.NONE
    fault = Fault(
        kind=kind,
        effect=default_effect if effect is None else read_member(FaultEffect, effect, "effect"),
        status=check_between("status", status, 200, 599),
        ms=check_between("ms", _DEFAULT_MS.get(kind, 0) if ms is None else ms, 0, MAX_WAIT_MS),
        size=check_between(
            "size", _DEFAULT_SIZE.get(kind, 0) if size is None else size, 0, MAX_SIZE
        ),
        reset=reset,
        chunked=chunked,
        body=body,
        headers=_headers(headers or {}, retry_after),
        location=_ELSEWHERE if location is None else location,
        ack=ack,
        callback_delay_ms=ms if kind is FaultKind.ANSWER_LATER else None,
    )
    _check_effect(fault)
    return fault


_FAULT_TYPES: dict[str, type | tuple[type, ...]] = {
    "kind": str,
    "effect": str,
    "status": int,
    "ms": int,
    "size": int,
    "retryAfter": (int, str),
    "headers": dict,
    "body": object,
    "location": str,
    "ack": object,
    "reset": bool,
    "chunked": bool,
}


def parse_fault(data: JsonValue) -> Fault:
    """Read `{"kind": "status", "status": 503, "retryAfter": 1}`; ValueError names what is wrong."""
    if not isinstance(data, dict) or "kind" not in data:
        raise FaultInvalid('fault: must be an object with a "kind"')
    for name, value in data.items():
        if name not in _FAULT_TYPES:
            raise FaultInvalid(f"fault.{name}: unknown; there are {', '.join(_FAULT_TYPES)}")
        is_flag = isinstance(value, bool)
        wrong_flag = is_flag and _FAULT_TYPES[name] not in (bool, object)
        if wrong_flag or not isinstance(value, _FAULT_TYPES[name]):
            raise FaultInvalid(f"fault.{name}: has the wrong type")
    options = {
        "retry_after" if name == "retryAfter" else name: value for name, value in data.items()
    }
    try:
        return make_fault(**options)  # type: ignore[arg-type]  # the loop above has checked every type
    except ValueError as error:
        raise FaultInvalid(f"fault.{error}") from None


def read_member(enum: type[_Member], value: str, name: str) -> _Member:
    """The member with this value; FaultInvalid lists them all."""
    try:
        return enum(value)
    except ValueError:
        raise FaultInvalid(f"{name}: must be one of {', '.join(enum)}") from None


def check_between(name: str, value: int, least: int, most: int) -> int:
    """The value; FaultInvalid names it when it is outside."""
    if not least <= value <= most:
        raise FaultInvalid(f"{name}: must be between {least} and {most}")
    return value


def _headers(headers: dict[str, str], retry_after: int | str | None) -> Headers:
    pairs = [*headers.items()]
    if retry_after is not None:
        pairs.append(("Retry-After", str(retry_after)))
    for name, value in pairs:
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(str(value)):
            raise FaultInvalid("headers: a name or value cannot be sent")
    return tuple((name, str(value)) for name, value in pairs)


def _check_effect(fault: Fault) -> None:
    if not _HEADER_VALUE.fullmatch(fault.location):
        raise FaultInvalid("location: cannot be sent")
    if fault.effect is FaultEffect.AFTER and fault.kind not in WAITING_KINDS:
        raise FaultInvalid("effect: only latency and hang can have it after")
    if fault.effect is FaultEffect.NONE and fault.kind in _WITH_EFFECT:
        raise FaultInvalid(f"effect: {fault.kind.value} always has one")
    if fault.effect is FaultEffect.BEFORE and fault.kind is FaultKind.CUT_BEFORE:
        raise FaultInvalid("effect: cut_before never has one")
    if fault.kind is FaultKind.ANSWER_LATER and fault.status >= 300:
        raise FaultInvalid("status: answer_later acknowledges with a 2xx")


class Documented(Protocol):
    """What a queue needs of its faults: some words about each for whoever asks what is queued."""

    def document(self) -> JsonObject: ...


_Queued = TypeVar("_Queued", bound=Documented)


@dataclass(slots=True)
class QueuedFault(Generic[_Queued]):
    """A fault that waits for calls to its path; `times` None means until the next reset."""

    path: str
    fault: _Queued
    times: int | None = 1

    def matches(self, path: str) -> bool:
        if self.path.endswith("*"):
            return path.startswith(self.path[:-1])
        return path == self.path

    def document(self) -> JsonObject:
        return {"path": self.path, "times": self.times, **self.fault.document()}


class FaultQueue(Generic[_Queued]):
    """The faults on request, of calls or of callbacks; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queued: list[QueuedFault[_Queued]] = []

    def add(self, path: str, fault: _Queued, *, times: int | None = 1) -> None:
        if not path.startswith("/"):
            raise FaultInvalid("path: must start with a slash")
        if times is not None:
            check_between("times", times, 1, MAX_TIMES)
        with self._lock:
            self._queued.append(QueuedFault(path, fault, times))

    def take(
        self, path: str, wanted: Callable[[_Queued], bool] = lambda _fault: True
    ) -> _Queued | None:
        """The next wanted fault for a call to this path, used up once."""
        if not self._queued:  # read without the lock: the usual case costs nothing
            return None
        with self._lock:
            for position, queued in enumerate(self._queued):
                if queued.matches(path) and wanted(queued.fault):
                    self._use_up(position, queued)
                    return queued.fault
        return None

    def clear(self) -> None:
        with self._lock:
            self._queued.clear()

    def documents(self) -> list[JsonObject]:
        with self._lock:
            return [queued.document() for queued in self._queued]

    def _use_up(self, position: int, queued: QueuedFault[_Queued]) -> None:
        if queued.times is None:
            return
        queued.times -= 1
        if queued.times == 0:
            del self._queued[position]


_MAGIC = re.compile(
    r"(?:(CODE)000000|1(CODE)00000)([0-9])".replace("CODE", r"[345][0-9]{2}|60[1-9]|610")
)
_MAGIC_KINDS = {
    "601": make_fault(FaultKind.CUT_BEFORE),
    "602": make_fault(FaultKind.CUT_AFTER),
    "603": make_fault(FaultKind.CUT_MIDDLE),
    "604": make_fault(FaultKind.HANG),
    "605": make_fault(FaultKind.DRIP, ms=200),
    "606": make_fault(FaultKind.GARBAGE),
    "607": make_fault(FaultKind.HTML),
    "608": make_fault(FaultKind.HUGE),
    "609": make_fault(FaultKind.LATENCY, ms=2000),
    "610": make_fault(FaultKind.EMPTY),
}


@dataclass(frozen=True, slots=True)
class MagicFault:
    """A fault asked for by a value in the body; `times` 0 means each time."""

    fault: Fault
    times: int


def magic_values() -> Iterator[tuple[str, str]]:
    """Each code with a word for its fault, for the table that the command prints."""
    for code, fault in _MAGIC_KINDS.items():
        yield code, fault.kind.value


def find_magic(numbers: Iterable[str], *, has_effect: bool) -> MagicFault | None:
    """The fault that the first magic one of these account or bill numbers stands for.

    `CCC000000N` acts where money moves, `1CCC00000N` at validations and lookups. CCC is a status
    from 300 to 599 or a code of `magic_values`; N is how often a key gets the fault, 0 is always.
    """
    for number in numbers:
        match = _MAGIC.fullmatch(number)
        if match is not None:
            code = match[1] if has_effect else match[2]
            return MagicFault(_magic_fault(code), int(match[3])) if code else None
    return None


def _magic_fault(code: str) -> Fault:
    known = _MAGIC_KINDS.get(code)
    if known is not None:
        return known
    retry_after = 1 if code in ("429", "503") else None
    return make_fault(FaultKind.STATUS, status=int(code), retry_after=retry_after)
