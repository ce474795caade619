"""How often a user and an address may call: windows counted in the process, shared by lots.

A window opens with a key's first call and lasts the limit's period. Counting is in memory, about
two microseconds. With `REDIS_URL` the processes share a count, but not at every call, which would
cost as much as a cheap step: a process adds its calls to the shared count in lots of a twentieth of
the limit, and learns the total. So a key gets at most the limit and one lot per process more, a
limit below 40 is exact, and a person at a person's pace costs no round trip. While Redis is away
each process goes on with its own count, and asks again after two seconds: a dead Redis costs one
request in two seconds its time-out.
"""

import hashlib
import ipaddress
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Protocol

import limits
from django.conf import settings
from limits.storage import RedisStorage
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

logger = logging.getLogger("handrail.rate_limits")

LOTS = 20
MAX_KEYS = 50_000
STORE_TIMEOUT_SECONDS = 0.3
STORE_PAUSE_SECONDS = 2.0


class SharedCounts(Protocol):
    """What the processes share. Raises SharedCountsDown."""

    def add(self, key: str, *, amount: int, period_seconds: int) -> int:
        """The total after adding; a new count ends by itself after the period."""

    def seconds_left(self, key: str) -> float:
        """Until the count ends."""


class SharedCountsDown(Exception):
    """The shared store did not answer."""


@dataclass(slots=True)
class _Window:
    ends_at: float
    known: int = 0
    pending: int = 0


class RateLimiter:
    """One limit over many keys. Thread safe; holds no lock while it asks the shared store."""

    def __init__(
        self,
        rate: str,
        *,
        shared: SharedCounts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        item = limits.parse(rate)
        self._most = item.amount
        self._period = item.get_expiry()
        self._lot = max(1, self._most // LOTS)
        self._shared = shared
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._lock = Lock()
        self._paused_until = float("-inf")

    def hit(self, key: str) -> float | None:
        """Count a call. None when it may go on, else the seconds until the next one may."""
        now = self._clock()
        with self._lock:
            window = self._windows.get(key)
            if window is None or now >= window.ends_at:
                window = self._open(key, now)
            if window.known + window.pending >= self._most:
                return window.ends_at - now
            window.pending += 1
            if self._shared is None or window.pending < self._lot or now < self._paused_until:
                return None
            amount = window.pending
            window.known += amount
            window.pending = 0
        return self._share(key, window, amount)

    def _open(self, key: str, now: float) -> _Window:
        self._windows.pop(key, None)  # so that the first in order is the first to end
        while len(self._windows) >= MAX_KEYS:
            del self._windows[next(iter(self._windows))]
        window = self._windows[key] = _Window(ends_at=now + self._period)
        return window

    def _share(self, key: str, window: _Window, amount: int) -> float | None:
        assert self._shared is not None  # noqa: S101  # the caller looked
        try:
            total = self._shared.add(key, amount=amount, period_seconds=self._period)
            if total >= self._most:
                window.ends_at = self._clock() + self._shared.seconds_left(key)
        except SharedCountsDown:
            self._paused_until = self._clock() + STORE_PAUSE_SECONDS
            return None
        window.known = total
        return window.ends_at - self._clock() if total > self._most else None


class RedisCounts:
    """Counts in Redis, by `limits`' own script (increment and expiry in one step)."""

    def __init__(self, url: str) -> None:
        pool = ConnectionPool.from_url(
            url,
            socket_connect_timeout=STORE_TIMEOUT_SECONDS,
            socket_timeout=STORE_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),  # redis-py's own would wait for seconds
        )
        self._storage = RedisStorage("redis://", connection_pool=pool, key_prefix="handrail:rate")

    def add(self, key: str, *, amount: int, period_seconds: int) -> int:
        try:
            return self._storage.incr(key, period_seconds, amount=amount)
        except (RedisError, OSError) as error:
            raise _down(error) from error

    def seconds_left(self, key: str) -> float:
        try:
            return max(0.0, self._storage.get_expiry(key) - time.time())
        except (RedisError, OSError) as error:
            raise _down(error) from error


def _down(error: Exception) -> SharedCountsDown:
    logger.warning("Rate limits are counted apart: Redis is away (%s)", type(error).__name__)
    return SharedCountsDown()


def address_wait(address: str) -> float | None:
    """Count a call from the address (an IPv6 network of 64 bits counts as one); see `hit`."""
    limiter = _limiter("address", settings.RATE_LIMIT_ADDRESS, settings.REDIS_URL)
    return limiter.hit(_key("address", network(address)))


def user_wait(user_id: str) -> float | None:
    """Count a call of the user; see `hit`."""
    limiter = _limiter("user", settings.RATE_LIMIT_USER, settings.REDIS_URL)
    return limiter.hit(_key("user", user_id))


def sign_in_wait(kind: str, name: str) -> float | None:
    """Count a try to sign in, by its `kind` of key ("address", "name") and that key; see `hit`."""
    limiter = _limiter(f"sign-in {kind}", settings.RATE_LIMIT_SIGN_IN, settings.REDIS_URL)
    return limiter.hit(_key(f"sign-in-{kind}", name))


def forget() -> None:
    """Start anew, for tests."""
    _limiter.cache_clear()


@lru_cache(maxsize=16)  # four in a server; more only where tests change the settings
def _limiter(kind: str, rate: str, redis_url: str) -> RateLimiter:
    del kind  # users and addresses are counted apart, even at the same rate
    return RateLimiter(rate, shared=RedisCounts(redis_url) if redis_url else None)


def _key(kind: str, name: str) -> str:
    """Short, and no personal value in Redis."""
    return f"{kind}:{hashlib.sha256(name.encode()).hexdigest()[:24]}"


def network(address: str) -> str:
    """What counts as one caller: an IPv4 address, or an IPv6 network of 64 bits."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or int(parsed) >> 64)
