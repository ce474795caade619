"""Posting callbacks as a decent partner does: in the background, again when nobody was there.

A callback that nobody answered, or with a 408, 425, 429 or 5xx, is posted again after a pause,
with the same body and a new signature; every other answer ends it. The callbacks of one call go
out one after the other, those of different calls beside each other. Threads begin with the first
callback and end, like everything under way, at `stop`.
"""

import contextlib
import heapq
import itertools
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from config.jsonvalues import dump_compact

from .callbacks import (
    CallbackAnswer,
    CallbackDelivery,
    CallbackFault,
    CallbackSignature,
    is_worth_another_try,
    signature_of,
)
from .credentials import SIGNATURE_HEADER
from .messages import Later, Request

USUAL_DELAY_MS: Final = 200
# Close to a minute in all: long enough for whoever receives them to be started again.
PAUSES_SECONDS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, *[5.0] * 10)
MAX_DELIVERIES: Final = 50_000
_MAX_THREADS: Final = 16
_TIMEOUT_SECONDS: Final = 10.0
_MAX_ANSWER: Final = 64 * 1024
_STOP_SECONDS: Final = 5.0


class SenderStopped(OSError):
    """The partner has gone down: no callback leaves it any more."""


@dataclass(slots=True)
class Chain:
    """The callbacks of one call, the next one first; `epoch` tells those of before a reset."""

    deliveries: deque[CallbackDelivery]
    epoch: int


class CallbackSender:
    """Sends callbacks and remembers what came of each; safe to use from many threads."""

    def __init__(
        self,
        *,
        secret: str | None = None,
        delay_ms: int = USUAL_DELAY_MS,
        pauses: Sequence[float] = PAUSES_SECONDS,
    ) -> None:
        self._secret = secret
        self._delay_ms = delay_ms
        self._pauses = tuple(pauses)
        lock = threading.Lock()
        self._due_changed = threading.Condition(lock)
        self._ended = threading.Condition(lock)
        self._lock = lock
        self._due: list[tuple[float, int, Chain]] = []
        self._order = itertools.count()
        self._deliveries: deque[CallbackDelivery] = deque(maxlen=MAX_DELIVERIES)
        self._delivery_count = 0
        self._epoch = 0
        self._busy = 0
        self._threads: list[threading.Thread] = []
        self._lines: set[socket.socket] = set()
        self._stopping = False

    def prepare(self, request: Request, later: Later, fault: CallbackFault) -> Chain:
        """Note the callbacks of a call, to be given to `send_now` or `send_later` next."""
        url = fault.url_for(request.callback_url)
        bodies = [dump_compact(body) for body in fault.bodies_for(later.body)]
        with self._lock:
            chain = Chain(deque(), self._epoch)
            for body in bodies:
                self._delivery_count += 1
                delivery = CallbackDelivery(
                    number=self._delivery_count,
                    idempotency_key=request.key,
                    path=request.path,
                    url=url,
                    body=body,
                    signature=fault.signature,
                )
                chain.deliveries.append(delivery)
                self._deliveries.append(delivery)
        return chain

    def send_now(self, chain: Chain) -> None:
        """Post them within this call; what has to be tried again goes on in the background."""
        pause = self._advance(chain)
        while pause == 0:
            pause = self._advance(chain)
        if pause is not None:
            self._schedule(chain, pause)

    def send_later(self, chain: Chain, delay_ms: int | None) -> None:
        """Post them in the background after a delay; None is the usual one."""
        self._schedule(chain, (self._delay_ms if delay_ms is None else delay_ms) / 1000)

    def post(
        self,
        url: str,
        body: bytes,
        *,
        signature: CallbackSignature = CallbackSignature.GOOD,
        secret: str | None = None,
    ) -> CallbackAnswer:
        """One POST with no second try; OSError or HTTPException when nobody answers it.

        `secret` signs in place of the sender's own.
        """
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        line = kind(str(parts.hostname), parts.port, timeout=_TIMEOUT_SECONDS)
        target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        headers = {"Content-Type": "application/json", "User-Agent": "handrail-sandbox"}
        signed = signature_of(
            body,
            signature=signature,
            secret=self._secret if secret is None else secret,
            unix_seconds=int(time.time()),
        )
        if signed is not None:
            headers[SIGNATURE_HEADER] = signed
        try:
            line.connect()
            with self._under_way(line.sock):
                line.request("POST", target, body, headers)
                answer = line.getresponse()
                return CallbackAnswer(answer.status, answer.read(_MAX_ANSWER))
        finally:
            line.close()

    def deliveries(self, path: str | None = None) -> list[CallbackDelivery]:
        """The callbacks so far, those that are still to come too, in the order of their calls."""
        with self._lock:
            return [replace(one) for one in self._deliveries if path in (None, one.path)]

    def wait_for_ended(self, count: int, path: str | None, timeout: float) -> bool:
        """Wait until so many callbacks have ended; False when the time runs out first."""
        with self._lock:
            return self._ended.wait_for(lambda: self._count_ended(path) >= count, timeout)

    def count_ended(self, path: str | None = None) -> int:
        with self._lock:
            return self._count_ended(path)

    def clear(self) -> None:
        """Forget every callback; those to come are not sent."""
        with self._lock:
            self._epoch += 1
            self._due.clear()
            self._deliveries.clear()
            self._delivery_count = 0

    def stop(self) -> None:
        """End what is under way and wait for the threads; nothing is sent afterwards."""
        with self._lock:
            self._stopping = True
            self._due.clear()
            lines, threads = [*self._lines], [*self._threads]
            self._due_changed.notify_all()
        for line in lines:
            _shut(line)
        for thread in threads:
            thread.join(_STOP_SECONDS)

    def _count_ended(self, path: str | None) -> int:
        return sum(one.ended and path in (None, one.path) for one in self._deliveries)

    def _schedule(self, chain: Chain, seconds: float) -> None:
        with self._lock:
            if self._stopping or chain.epoch != self._epoch:
                return
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), chain))
            if len(self._threads) < min(_MAX_THREADS, len(self._due) + self._busy):
                self._start_thread()
            self._due_changed.notify()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="sandbox-callback", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (chain := self._take_due()) is not None:
            pause = self._advance(chain)
            with self._lock:
                self._busy -= 1
            if pause is not None:
                self._schedule(chain, pause)

    def _take_due(self) -> Chain | None:
        """Wait for a chain whose time has come; None when the sender stops."""
        with self._lock:
            while not self._stopping:
                now = time.monotonic()
                if self._due and self._due[0][0] <= now:
                    self._busy += 1
                    return heapq.heappop(self._due)[2]
                self._due_changed.wait(self._due[0][0] - now if self._due else None)
        return None

    def _advance(self, chain: Chain) -> float | None:
        """One try of the next callback; the seconds until the one after it, None for no more."""
        delivery = chain.deliveries[0]
        status = self._try(delivery)
        with self._lock:
            if self._stopping or chain.epoch != self._epoch:
                return None
            tries = len(delivery.statuses)
            delivery.statuses += (status,)
            if is_worth_another_try(status) and tries < len(self._pauses):
                return self._pauses[tries]
            delivery.ended = True
            chain.deliveries.popleft()
            self._ended.notify_all()
            return 0 if chain.deliveries else None

    def _try(self, delivery: CallbackDelivery) -> int | None:
        try:
            return self.post(delivery.url, delivery.body, signature=delivery.signature).status
        except (OSError, HTTPException):
            return None

    @contextlib.contextmanager
    def _under_way(self, line: socket.socket) -> Iterator[None]:
        """Let `stop` end this connection as long as the block lasts."""
        with self._lock:
            if self._stopping:
                raise SenderStopped
            self._lines.add(line)
        try:
            yield
        finally:
            with self._lock:
                self._lines.discard(line)


def _shut(line: socket.socket) -> None:
    """End a connection under the feet of the thread that waits for its answer."""
    with contextlib.suppress(OSError):
        # Not the TLS socket's own shutdown, which takes the reading thread's cipher away.
        socket.socket.shutdown(line, socket.SHUT_RDWR)
