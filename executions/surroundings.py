"""What a partner call takes from the world: client, caps, breakers, clocks, waiting and chance."""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from django.conf import settings

from executions.breakers import Breakers, never_opening
from executions.breakers_redis import shared_breakers
from executions.breaking import Policy
from executions.http_client import Client, HttpClient


class ConnectionCaps:
    """How many calls one connection may have at a time in this process.

    A slow partner then holds so many threads and no more. The slot is kept while a call waits
    between attempts, because its thread is.
    """

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def slot(self, connection: str) -> Iterator[bool]:
        """Whether there was a free slot; it is held until the end of the block."""
        with self._lock:
            is_free = self._held[connection] < self._max_calls
            self._held[connection] += is_free
        try:
            yield is_free
        finally:
            with self._lock:
                self._held[connection] -= is_free

    def is_full(self, connection: str) -> bool:
        """Whether the next call would find no free slot."""
        return self._held[connection] >= self._max_calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the loop takes from the world; `clock` gives monotonic ms, `sleep` takes seconds."""

    client: Client
    caps: ConnectionCaps
    clock: Callable[[], float]
    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    jitter: Callable[[], float]
    new_span_id: Callable[[], str]
    breakers: Breakers = field(default_factory=never_opening)


@lru_cache(maxsize=1)
def get_surroundings() -> Surroundings:
    """The real ones, one for the process: kept connections and caps are shared by its threads."""
    max_calls: int = settings.CONNECTION_MAX_CALLS

    def clock() -> float:
        return time.monotonic() * 1000

    return Surroundings(
        client=HttpClient(pool_size=max_calls),
        caps=ConnectionCaps(max_calls),
        clock=clock,
        now=lambda: datetime.now(UTC),
        sleep=time.sleep,
        jitter=random.random,
        new_span_id=lambda: os.urandom(8).hex(),
        breakers=Breakers(clock_ms=clock, policy=_breaker_policy, shared=shared_breakers),
    )


def _breaker_policy() -> Policy:
    return Policy(settings.BREAKER_FAILURES, settings.BREAKER_COOLDOWN_MS)
