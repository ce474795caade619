"""The breakers that the processes share, in Redis: one hash per connection, one script.

Whoever writes says which state it starts from, so that of two only one gets the probe. Times travel
as "so long from now": the clocks of two machines are never compared.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from django.conf import settings

from executions.breaking import Breaker
from executions.redis_client import RedisClient, Script, shared_client

KEY_PREFIX = "handrail:breaker:"
KEPT_MS = 3_600_000
"""What nobody has touched for an hour after its cooldown is forgotten."""


# ARGV: the revision that is thought to stand there, a new one ('' only asks), generation, failures,
# the cooldown's rest ('' when closed), the probe, its rest, milliseconds to keep.
EXCHANGE = Script("""
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local names = {'revision', 'generation', 'failures', 'open_until', 'probe', 'probe_until'}
local held = redis.call('HMGET', KEYS[1], unpack(names))
local revision = held[1] or ''
if ARGV[2] ~= '' then
    -- Sent a second time after a cut line, it finds its own revision.
    if revision == ARGV[2] then
        return {1}
    end
    if revision == ARGV[1] then
        local open_until = ''
        if ARGV[5] ~= '' then
            open_until = string.format('%.0f', now + ARGV[5])
        end
        redis.call('HSET', KEYS[1],
            'revision', ARGV[2], 'generation', ARGV[3], 'failures', ARGV[4],
            'open_until', open_until,
            'probe', ARGV[6], 'probe_until', string.format('%.0f', now + ARGV[7]))
        redis.call('PEXPIRE', KEYS[1], ARGV[8])
        return {1}
    end
end
if not held[1] then
    return {0}
end
local open_rest = ''
if held[4] ~= '' then
    open_rest = held[4] - now
end
return {0, revision, held[2] + 0, held[3] + 0, open_rest, held[5], held[6] - now}
""")


@dataclass(frozen=True, slots=True)
class Held:
    """What the store holds after an exchange; `breaker` is None when it holds none.

    After a write `breaker` is what was written.
    """

    is_written: bool
    revision: str = ""
    breaker: Breaker | None = None


class SharedBreakers(Protocol):
    """Where processes meet. Raises SessionUnavailable, within two seconds, when it is away."""

    def exchange(
        self, connection: str, *, expected: str, wanted: Breaker | None, now_ms: float
    ) -> Held:
        """Write `wanted` if `expected` is the revision that stands there; else say what stands there.

        Without `wanted` nothing is written. "" is the revision of what is not there. `now_ms` is
        the caller's clock, on which the breakers' times are.
        """

    def forget(self, connection: str) -> None:
        """Remove what is there."""


class RedisBreakers:
    """Shared through one Redis or Valkey server."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    def exchange(
        self, connection: str, *, expected: str, wanted: Breaker | None, now_ms: float
    ) -> Held:
        """One script, one round trip."""
        key = KEY_PREFIX + connection
        if wanted is None:
            return _held(self._redis.run(EXCHANGE, key, (expected, "")), now_ms=now_ms)
        revision = os.urandom(8).hex()
        open_ms = wanted.open_until_ms
        open_rest = "" if open_ms is None else round(open_ms - now_ms)
        probe_rest = round(wanted.probe_until_ms - now_ms) if wanted.probe else 0
        kept_ms = KEPT_MS + (open_rest if isinstance(open_rest, int) and open_rest > 0 else 0)
        answer = self._redis.run(
            EXCHANGE,
            key,
            (
                *(expected, revision, wanted.generation, wanted.failures),
                *(open_rest, wanted.probe, probe_rest, kept_ms),
            ),
        )
        if answer[0]:
            return Held(is_written=True, revision=revision, breaker=wanted)
        return _held(answer, now_ms=now_ms)

    def forget(self, connection: str) -> None:
        """One DEL."""
        self._redis.call("DEL", KEY_PREFIX + connection)


def _held(answer: Sequence[bytes | int], *, now_ms: float) -> Held:
    if len(answer) == 1:
        return Held(is_written=False)
    _, revision, generation, failures, open_rest, probe, probe_rest = answer
    breaker = Breaker(
        generation=int(generation),
        failures=int(failures),
        open_until_ms=now_ms + open_rest if isinstance(open_rest, int) else None,
        probe=_text(probe),
        probe_until_ms=now_ms + int(probe_rest) if probe else 0.0,
    )
    return Held(is_written=False, revision=_text(revision), breaker=breaker)


def _text(value: bytes | int) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def shared_breakers() -> SharedBreakers | None:
    """Those of `REDIS_URL`; None without: then each process has its own."""
    return _shared_breakers(settings.REDIS_URL) if settings.REDIS_URL else None


@cache
def _shared_breakers(redis_url: str) -> RedisBreakers:
    return RedisBreakers(shared_client(redis_url))
