"""What a partner call takes from the world: client, caps, clocks, waiting and chance."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from django.conf import settings

from executions.http_client import Client, HttpClient


class ConnectionCaps:
    """How many calls one connection may have at a time in this process.

    A slow partner then holds so many threads and no more. The slot is kept while a call waits
    between attempts, because its thread is.
    """

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._slots: dict[str, threading.BoundedSemaphore] = {}

    @contextmanager
    def slot(self, connection: str) -> Iterator[bool]:
        """Whether there was a free slot; it is held until the end of the block."""
        slots = self._slots.get(connection)
        if slots is None:
            fresh = threading.BoundedSemaphore(self._max_calls)
            slots = self._slots.setdefault(connection, fresh)
        is_free = slots.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                slots.release()


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


@lru_cache(maxsize=1)
def get_surroundings() -> Surroundings:
    """The real ones, one for the process: kept connections and caps are shared by its threads."""
    max_calls: int = settings.CONNECTION_MAX_CALLS
    return Surroundings(
        client=HttpClient(pool_size=max_calls),
        caps=ConnectionCaps(max_calls),
        clock=lambda: time.monotonic() * 1000,
        now=lambda: datetime.now(UTC),
        sleep=time.sleep,
        jitter=random.random,
        new_span_id=lambda: os.urandom(8).hex(),
    )
