"""The partner behind the HTTP: what a call is answered, and which fault it gets.

`Partner` turns requests into answers and knows no sockets; `server.py` does the talking and plays
the faults.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from config.jsonvalues import JsonObject, JsonValue

from . import controls
from .bank import Bank, Fields, Refused
from .callback_sender import PAUSES_SECONDS, USUAL_DELAY_MS, CallbackSender
from .callbacks import CallbackFault, CallbackTiming
from .credentials import Requirement
from .faults import Fault, FaultEffect, FaultKind, FaultQueue, find_magic, make_fault
from .ledger import Ledger
from .messages import (
    Answer,
    Later,
    Request,
    is_callback_url,
    json_answer,
    message_answer,
    parse_json,
    parse_json_object,
)
from .routes import Books, Route, allowed_methods, find_route

API_PREFIX = "/api/"
_MAX_MAGIC_COUNTS = 100_000
_MAGIC_MARK = b"00000"
_RANDOM_FAULTS = (
    make_fault(FaultKind.STATUS, status=503),
    make_fault(FaultKind.STATUS, status=503, effect=FaultEffect.BEFORE),
    make_fault(FaultKind.CUT_BEFORE),
    make_fault(FaultKind.CUT_AFTER),
)


_USUAL_CALLBACK = CallbackFault()


@dataclass(frozen=True, slots=True)
class Postponement:
    """How a call is answered whose result follows by callback: the 202 and the delay."""

    acknowledge: Callable[[JsonObject], JsonValue]
    status: int = 202
    delay_ms: int | None = None


def postponement_of(fault: Fault) -> Postponement:
    """What an `answer_later` asks for."""
    ack: JsonValue = {"status": "PENDING"} if fault.ack is None else fault.ack
    return Postponement(lambda _result: ack, fault.status, fault.callback_delay_ms)


def _is_postponement(fault: Fault) -> bool:
    return fault.kind is FaultKind.ANSWER_LATER


def _is_fault(fault: Fault) -> bool:
    return not _is_postponement(fault)


class Partner:
    """One bank with its ledger, its faults and the credentials it wants; safe for many threads."""

    def __init__(
        self,
        *,
        requirement: Requirement | None = None,
        latency_ms: int = 0,
        fault_rate: float = 0.0,
        seed: int = 0,
        callback_secret: str | None = None,
        callback_delay_ms: int = USUAL_DELAY_MS,
        callback_pauses: Sequence[float] = PAUSES_SECONDS,
    ) -> None:
        self.ledger = Ledger()
        self.faults: FaultQueue[Fault] = FaultQueue()
        self.callback_faults: FaultQueue[CallbackFault] = FaultQueue()
        self.callbacks = CallbackSender(
            secret=callback_secret, delay_ms=callback_delay_ms, pauses=callback_pauses
        )
        self._requirement = requirement
        self._fault_rate = fault_rate
        self._random = random.Random(seed)  # noqa: S311 - faults by chance, no secrets
        self._usual_fault = make_fault(FaultKind.LATENCY, ms=latency_ms) if latency_ms else None
        self._books = Books(Bank(), self.ledger)
        self._magic_counts: Counter[tuple[str, str, bytes]] = Counter()
        self._lock = threading.Lock()

    def queued_fault(self, path: str) -> Fault | None:
        """The fault that waits for this path, used up once; asked when the head has arrived."""
        return self.faults.take(path, _is_fault) if path.startswith(API_PREFIX) else None

    def queued_postponement(self, path: str) -> Fault | None:
        """The `answer_later` that waits for this path, used up once; other faults go with it."""
        return self.faults.take(path, _is_postponement)

    def fault_of(self, request: Request) -> Fault | None:
        """The fault that a magic value asks for, else chance's, else the usual latency."""
        if not request.path.startswith(API_PREFIX):
            return None
        if _MAGIC_MARK in request.body or "00000" in request.path:
            magic = self._magic_fault(request)
            if magic is not None:
                return magic
        if self._fault_rate and self._random.random() < self._fault_rate:
            return self._random.choice(_RANDOM_FAULTS)
        return self._usual_fault

    def answer(
        self,
        request: Request,
        custom: Answer | None = None,
        postponement: Postponement | None = None,
    ) -> tuple[Answer, bool]:
        """The answer and whether it is a replay; `custom` stands in for what the bank would say.

        With a postponement the result follows by callback, if the call says where to; whoever
        sends the answer does so within `calling_back`.
        """
        if request.path.startswith(controls.PREFIX):
            return self._control(request), False
        if self._requirement is not None:
            refusal = self._requirement.refusal(request, now=time.time())
            if refusal is not None:
                challenge = (("WWW-Authenticate", self._requirement.kind),)
                return message_answer(401, f"Unauthorized: {refusal}.", challenge), False
        route = find_route(request.method, request.path)
        if postponement is None and custom is None and route is not None and route.acknowledge:
            postponement = Postponement(route.acknowledge)
        if postponement is not None and not _has_usable_callback(request):
            return message_answer(400, "The callback URL is no http or https URL."), False
        if custom is not None:
            return self._custom_answer(request, route, _postponed(custom, request, postponement))
        if route is None:
            return _no_route(request), False
        return self._bank_answer(request, route, postponement)

    @contextmanager
    def calling_back(self, request: Request, answer: Answer) -> Iterator[None]:
        """Post early callbacks before the block, which sends the answer, and others after it.

        However the block ends: the bank has done its work, whether the caller heard of it or not.
        """
        url = request.callback_url if answer.later is not None else ""
        fault = (self.callback_faults.take(request.path) or _USUAL_CALLBACK) if url else None
        if answer.later is None or fault is None or fault.timing is CallbackTiming.NEVER:
            yield
            return
        chain = self.callbacks.prepare(request, answer.later, fault)
        if fault.timing is CallbackTiming.EARLY:
            self.callbacks.send_now(chain)
            yield
            return
        try:
            yield
        finally:
            delay_ms = answer.later.delay_ms if fault.delay_ms is None else fault.delay_ms
            self.callbacks.send_later(chain, delay_ms)

    def reset(self) -> None:
        """Forget effects, calls, balances, callbacks, faults, counts; how it was started stays."""
        with self._lock:
            self._magic_counts.clear()
            self._books = Books(Bank(), self.ledger)
            self.ledger.clear()
            self.faults.clear()
            self.callback_faults.clear()
            self.callbacks.clear()

    def _control(self, request: Request) -> Answer:
        return controls.answer_control(
            request,
            ledger=self.ledger,
            faults=self.faults,
            callbacks=self.callbacks,
            callback_faults=self.callback_faults,
            reset=self.reset,
        )

    def _bank_answer(
        self, request: Request, route: Route, postponement: Postponement | None
    ) -> tuple[Answer, bool]:
        try:
            fields = Fields(_body_of(request))
        except ValueError as error:
            return message_answer(400, f"The body cannot be read: {error}."), False

        def work() -> Answer:
            return _postponed(self._run(route, request, fields), request, postponement)

        if not route.has_effect:
            return self.ledger.read(work), False
        if not request.key:
            return message_answer(400, "The header Idempotency-Key is missing."), False
        return self.ledger.perform(request, work)

    def _custom_answer(
        self, request: Request, route: Route | None, custom: Answer
    ) -> tuple[Answer, bool]:
        has_effect = request.method != "GET" and (route is None or route.has_effect)
        if not has_effect or not request.key:
            return custom, False
        return self.ledger.perform(request, lambda: custom)

    def _run(self, route: Route, request: Request, fields: Fields) -> Answer:
        try:
            return json_answer(route.work(self._books, request, fields), route.status)
        except Refused as refused:
            return json_answer({"status": "REJECTED", "message": refused.message}, refused.status)

    def _magic_fault(self, request: Request) -> Fault | None:
        route = find_route(request.method, request.path)
        if route is None:
            return None
        try:
            fields = Fields(_body_of(request))
        except ValueError:
            return None
        named = ("recipientAccount", "billNumber", "documentNumber")
        numbers = [*(fields.text(name) for name in named), request.segments[-1]]
        magic = find_magic(numbers, has_effect=route.has_effect)
        if magic is None:
            return None
        is_due = magic.times == 0 or self._count_magic(request) <= magic.times
        return magic.fault if is_due else None

    def _count_magic(self, request: Request) -> int:
        counted = (request.path, request.key, b"" if request.key else request.body)
        with self._lock:
            if len(self._magic_counts) > _MAX_MAGIC_COUNTS:
                self._magic_counts.clear()
            self._magic_counts[counted] += 1
            return self._magic_counts[counted]


def _body_of(request: Request) -> JsonObject:
    """The body's object; the parameters of the query when there is no body."""
    if not request.body:
        return dict(request.parameters)
    return parse_json_object(request.body)


def _has_usable_callback(request: Request) -> bool:
    url = request.callback_url
    return not url or is_callback_url(url)


def _postponed(answer: Answer, request: Request, postponement: Postponement | None) -> Answer:
    """The acknowledgement in place of a result that is called back; a "no" is said at once."""
    if postponement is None or answer.status >= 300 or not request.callback_url:
        return answer
    result = parse_json(answer.body)
    ack = postponement.acknowledge(result if isinstance(result, dict) else {})
    later = Later(result, postponement.delay_ms)
    return replace(json_answer(ack, postponement.status), later=later)


def _no_route(request: Request) -> Answer:
    methods = allowed_methods(request.path)
    if not methods:
        return message_answer(404, f"The partner has no {request.path}.")
    allowed = ", ".join(methods)
    message = f"{request.method} is not allowed here, only {allowed}."
    return message_answer(405, message, (("Allow", allowed),))
