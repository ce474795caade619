"""What the partner was asked and what it did: calls, and one effect per Idempotency-Key.

The first answer of the bank under a key is recorded, a "no" too, and given again for every
repeat; another body, path or method under the same key is refused, but a repeat may name another
`callbackUrl`, for whoever tries again may not know the first one. The work runs under the
ledger's lock, so that of several calls at once with one key one does the work and the others get
its answer. The book is bounded: the oldest calls and, far beyond any test, the oldest effects are
forgotten.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from config.jsonvalues import JsonObject, JsonValue, dump_canonical

from .messages import (
    Answer,
    Request,
    callback_url_of,
    message_answer,
    parse_json,
    without_callback_url,
)

MAX_CALLS = 10_000
MAX_EFFECTS = 200_000
REPLAYED_HEADER = ("Idempotency-Replayed", "true")


@dataclass(slots=True)
class Call:
    """One call as it arrived; `status` stays None when no answer was given."""

    number: int
    method: str
    path: str
    query: str
    key: str
    headers: dict[str, str]
    body: bytes
    received_at: float
    fault: str = ""
    status: int | None = None
    replayed: bool = False

    @property
    def json(self) -> JsonValue:
        """The body's value; None when there was none; ValueError when it is not JSON."""
        return parse_json(self.body) if self.body else None

    @property
    def callback_url(self) -> str:
        """The header X-Callback-Url, else the body's `callbackUrl`, else ""."""
        return callback_url_of(self.headers, self.body)

    def document(self) -> JsonObject:
        headers: JsonObject = {name: _shown(name, value) for name, value in self.headers.items()}
        return {
            "number": self.number,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "key": self.key,
            "headers": headers,
            "body": readable(self.body),
            "receivedAt": self.received_at,
            "fault": self.fault or None,
            "status": self.status,
            "replayed": self.replayed,
        }


@dataclass(slots=True)
class Effect:
    """What was done under one key: the request, and the answer that every repeat gets."""

    key: str
    method: str
    path: str
    body: bytes
    answer: Answer
    at: float = field(default_factory=time.time)
    replays: int = 0

    @property
    def json(self) -> JsonValue:
        """The value of the request's body."""
        return parse_json(self.body) if self.body else None

    @property
    def result(self) -> JsonValue:
        """The value of the recorded answer."""
        return parse_json(self.answer.body) if self.answer.body else None

    @property
    def is_refusal(self) -> bool:
        """True for a recorded "no", which is no effect."""
        return self.answer.status >= 300

    def is_repeated_by(self, request: Request) -> bool:
        if (self.method, self.path) != (request.method, request.path):
            return False
        return self.body == request.body or _same_json(self.body, request.body)

    def document(self) -> JsonObject:
        return {
            "key": self.key,
            "method": self.method,
            "path": self.path,
            "body": readable(self.body),
            "status": self.answer.status,
            "answer": readable(self.answer.body),
            "replays": self.replays,
            "at": self.at,
        }


class Ledger:
    """The calls and effects since the last reset; safe to use from many threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._calls: deque[Call] = deque(maxlen=MAX_CALLS)
        self._call_count = 0
        self._records: dict[str, Effect] = {}

    def open_call(self, request: Request, *, fault: str = "") -> Call:
        """Note a call at its arrival, before anything is done about it."""
        with self._changed:
            self._call_count += 1
            call = Call(
                number=self._call_count,
                method=request.method,
                path=request.path,
                query=request.query,
                key=request.key,
                headers=dict(request.headers),
                body=request.body,
                received_at=time.time(),
                fault=fault,
            )
            self._calls.append(call)
            self._changed.notify_all()
        return call

    def perform(self, request: Request, work: Callable[[], Answer]) -> tuple[Answer, bool]:
        """Do the work once per key; returns the answer and whether it is a replay."""
        with self._changed:
            record = self._records.get(request.key)
            if record is None:
                answer = work()
                self._records[request.key] = Effect(
                    request.key, request.method, request.path, request.body, answer
                )
                if len(self._records) > MAX_EFFECTS:
                    del self._records[next(iter(self._records))]
                return answer, False
            if not record.is_repeated_by(request):
                return _key_reused(), False
            record.replays += 1
            answer = record.answer
            return replace(answer, headers=(*answer.headers, REPLAYED_HEADER)), True

    def read(self, work: Callable[[], Answer]) -> Answer:
        """Run a look at the bank's books while nobody changes them."""
        with self._changed:
            return work()

    def find_effect(self, key: str) -> Effect | None:
        with self._changed:
            record = self._records.get(key)
            return None if record is None or record.is_refusal else replace(record)

    def effects(self, path: str | None = None) -> list[Effect]:
        """What was done, the oldest first, recorded refusals left out."""
        with self._changed:
            records = [replace(record) for record in self._records.values()]
        return [
            record for record in records if not record.is_refusal and path in (None, record.path)
        ]

    def calls(self, path: str | None = None) -> list[Call]:
        """The latest calls, the oldest first."""
        with self._changed:
            return [replace(call) for call in self._calls if path in (None, call.path)]

    def wait_for_calls(self, count: int, path: str | None, timeout: float) -> bool:
        """Wait until that many calls have arrived; False when the time runs out first."""
        with self._changed:
            return self._changed.wait_for(
                lambda: sum(path in (None, call.path) for call in self._calls) >= count, timeout
            )

    def clear(self) -> None:
        with self._changed:
            self._calls.clear()
            self._records.clear()
            self._call_count = 0


def readable(body: bytes) -> JsonValue:
    """A body for people: its JSON value, else its text."""
    if not body:
        return None
    try:
        return parse_json(body)
    except ValueError:
        return body.decode(errors="replace")


def _key_reused() -> Answer:
    return message_answer(
        422,
        "This Idempotency-Key was used for another request; a repeat must be the same request.",
        code="IDEMPOTENCY_KEY_REUSED",
    )


def _same_json(one: bytes, other: bytes) -> bool:
    """Equal values whatever their spacing, key order and callback; 1 and 1.0 are different."""
    try:
        return _asked(one) == _asked(other)
    except ValueError:
        return False


def _asked(body: bytes) -> bytes:
    return dump_canonical(without_callback_url(parse_json(body)))


def _shown(name: str, value: str) -> str:
    if name == "authorization":
        return f"{value.partition(' ')[0]} [hidden]"
    return value
