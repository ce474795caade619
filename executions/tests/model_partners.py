"""The partner of the model test: in memory, and as the sandbox over HTTP.

Both are told what is going to happen to the next calls, and tell what they were asked and what they
did. Neither knows the rules that are tested.
"""

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from config.jsonvalues import JsonValue
from executions.enums import AttemptOutcome
from executions.outcomes import ExchangeFailed, TriggerRequest, TriggerResponse
from executions.tests.model import DONE_UNSEEN, Behaviour, Kind, Seen, told_of
from sandbox.testing import FakePartner

STATUS_PATH = "/api/effects/"
_EXECUTION = "/api/anything/{execution}/{step}"
# The sandbox has to be late for certain, and not so late that its threads pile up.
_LATE_MS = 1_000
_SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Asked:
    """One call as it arrived; the `body` is None where the line was cut before it was read."""

    key: str
    path: str
    body: JsonValue


class PlayedPartner(Protocol):
    """What the model test needs of a partner."""

    def plan(self, execution: str, seen: Sequence[Seen]) -> None:
        """What is about to happen, call by call."""

    def asked(self) -> list[Asked]:
        """The calls since the plan."""

    def effects(self, count: int) -> dict[str, JsonValue]:
        """What was done so far, by Idempotency-Key; waits a little until there are that many."""

    def reset(self) -> None:
        """Forget everything."""


def path_of(execution: str, step_index: int) -> str:
    """Where the calls of a step arrive, those of the submission for -1."""
    return _EXECUTION.format(
        execution=execution, step="final" if step_index < 0 else f"d{step_index}"
    )


@dataclass
class MemoryPartner:
    """An honest partner without a network: a Client whose clock stands still but for time-outs."""

    clock_ms: float = 0.0
    _plan: deque[Behaviour] = field(default_factory=deque)
    _asked: list[Asked] = field(default_factory=list)
    _done: dict[str, tuple[bytes | None, JsonValue]] = field(default_factory=dict)

    def plan(self, execution: str, seen: Sequence[Seen]) -> None:
        del execution
        self._plan = deque(one.behaviour for one in seen)
        self._asked = []

    def asked(self) -> list[Asked]:
        return self._asked

    def effects(self, count: int) -> dict[str, JsonValue]:
        del count
        return {key: answer for key, (_, answer) in self._done.items()}

    def reset(self) -> None:
        self._plan.clear()
        self._asked = []
        self._done = {}

    def sleep(self, seconds: float) -> None:
        """Let the clock pass."""
        self.clock_ms += seconds * 1000

    def send(self, request: TriggerRequest) -> TriggerResponse:
        """Play the next behaviour; unexpected calls are answered, and found by the test."""
        key = dict(request.headers)["Idempotency-Key"]
        path = urlsplit(request.url).path
        is_question = path.startswith(STATUS_PATH)
        body = None if request.body is None else json.loads(request.body)
        self._asked.append(Asked(key, path, body))
        behaviour = self._plan.popleft() if self._plan else Behaviour(Kind.ANSWER)
        if is_question and behaviour.kind is Kind.ANSWER:
            return self._told(path.removeprefix(STATUS_PATH))
        return self._played(behaviour, request, key)

    def _told(self, key: str) -> TriggerResponse:
        if key not in self._done:
            return TriggerResponse(404, {"message": "Nothing was done under this key."})
        return TriggerResponse(200, told_of(self._done[key][1]))

    def _played(self, behaviour: Behaviour, request: TriggerRequest, key: str) -> TriggerResponse:
        status = behaviour.status
        if behaviour.kind is Kind.ANSWER:
            return self._worked_off(key, request.body, behaviour.body)
        if behaviour.kind is Kind.STATUS and 400 <= status < 500:
            if key in self._done and status not in (408, 409, 425, 429):
                return self._worked_off(key, request.body, None)
            after = behaviour.retry_after
            return TriggerResponse(
                status, {"message": "no"}, None if after is None else after * 1000
            )
        if behaviour.kind is Kind.NO_LINE:
            raise ExchangeFailed(AttemptOutcome.CONNECT_FAILED, "refused")
        if behaviour.acts:
            self._worked_off(key, request.body, DONE_UNSEEN)
        if behaviour.kind is Kind.TIMEOUT:
            self.clock_ms += request.timeout_ms
            raise ExchangeFailed(AttemptOutcome.TIMED_OUT, "late")
        if behaviour.kind is Kind.CUT:
            raise ExchangeFailed(AttemptOutcome.LINE_CUT, "cut")
        if behaviour.kind is Kind.GARBAGE:
            raise ExchangeFailed(AttemptOutcome.NOT_JSON, "garbage", status=200)
        return TriggerResponse(status, None)

    def _worked_off(self, key: str, body: bytes | None, answer: JsonValue) -> TriggerResponse:
        """One effect per key; another request under the same key is refused."""
        first_body, first_answer = self._done.setdefault(key, (body, answer))
        if first_body != body:
            return TriggerResponse(422, {"code": "IDEMPOTENCY_KEY_REUSED"})
        return TriggerResponse(200, first_answer)


@dataclass
class HttpPartner:
    """The sandbox over real HTTP; its faults are queued call by call."""

    partner: FakePartner
    _asked_before: int = 0

    def plan(self, execution: str, seen: Sequence[Seen]) -> None:
        self._asked_before = len(self.partner.calls())
        for one in seen:
            if one.is_question:
                self._queue(STATUS_PATH + "*", one.behaviour)
            else:
                self._queue(path_of(execution, one.key[1]), one.behaviour, is_replay=one.is_replay)

    def asked(self) -> list[Asked]:
        calls = self.partner.calls()[self._asked_before :]
        return [Asked(call.key, call.path, json.loads(call.body or b"null")) for call in calls]

    def effects(self, count: int) -> dict[str, JsonValue]:
        patience = time.monotonic() + _SETTLE_SECONDS
        while len(self.partner.effects()) < count and time.monotonic() < patience:
            time.sleep(0.01)
        return {effect.key: effect.result for effect in self.partner.effects()}

    def reset(self) -> None:
        self.partner.reset()
        self._asked_before = 0

    def _queue(self, path: str, behaviour: Behaviour, *, is_replay: bool = False) -> None:
        status, effect = behaviour.status, "before" if behaviour.acts else "none"
        is_refusal = behaviour.kind is Kind.STATUS and 400 <= status < 500
        is_busy = status in (408, 409, 425, 429)
        if behaviour.kind is Kind.ANSWER or (is_refusal and is_replay and not is_busy):
            if not path.startswith(STATUS_PATH):
                self.partner.answer(path, behaviour.body, times=1)
        elif behaviour.kind is Kind.STATUS and status < 400:
            self.partner.fault(path, "redirect", status=status)
        elif behaviour.kind is Kind.STATUS:
            after = behaviour.retry_after
            self.partner.fault(path, "status", status=status, effect=effect, retry_after=after)
        elif behaviour.kind is Kind.TIMEOUT and behaviour.acts:
            self.partner.fault(path, "latency", ms=_LATE_MS, effect=effect)
        elif behaviour.kind is Kind.TIMEOUT:
            self.partner.fault(path, "hang", ms=_LATE_MS)
        elif behaviour.kind is Kind.CUT:
            self.partner.fault(path, "cut_after" if behaviour.acts else "cut_before")
        else:
            self.partner.fault(path, "garbage", effect=effect)
