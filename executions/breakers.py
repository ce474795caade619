"""The breakers of a process, one per connection, in step with those of the other processes.

A call that finds its breaker closed asks nobody: it reads one attribute. The shared state is asked
for at most once a second, and told of failures, openings, probes and closings. While it is away
each process goes by what it knows itself, and for two seconds does not ask again.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from sys import maxsize
from typing import TypeVar

from config import metrics
from config.logs import get_logger
from executions import breaking
from executions.breakers_redis import SharedBreakers
from executions.breaking import Breaker, Ending, Permit, Phase, Policy
from executions.errors import SessionUnavailable

_log = get_logger("handrail.breakers")

FRESH_MS = 1_000
"""So long a process goes by what it last heard of the others."""

AWAY_MS = 2_000
"""So long a shared store that did not answer is not asked again."""

_MAX_TRIES = 8
# No store has this revision: it stands for "not known".
_NOT_KNOWN = "?"

Outcome = TypeVar("Outcome")
Change = Callable[[Breaker, float], tuple[Breaker, Outcome]]


@dataclass(frozen=True, slots=True)
class Seen:
    """A breaker as a reader sees it; `rest_ms` is what is left of the cooldown."""

    phase: Phase
    rest_ms: int


class _Entry:
    """What the process knows of one connection. The lock is for who changes it or asks the others."""

    __slots__ = ("breaker", "connection", "fresh_until_ms", "lock", "revision", "shown")

    def __init__(self, connection: str) -> None:
        self.connection = connection
        self.breaker = Breaker()
        self.revision = ""
        self.fresh_until_ms = -inf
        self.shown: Phase | None = None
        self.lock = threading.Lock()


class Breakers:
    """Asked before each attempt and told after it. `clock_ms` is monotonic.

    Without `shared` the process is on its own.
    """

    def __init__(
        self,
        *,
        clock_ms: Callable[[], float],
        policy: Callable[[], Policy],
        shared: Callable[[], SharedBreakers | None] = lambda: None,
    ) -> None:
        self._clock_ms = clock_ms
        self._policy = policy
        self._shared = shared
        self._entries: dict[str, _Entry] = {}
        self._away_until_ms = -inf

    def ask(self, connection: str, *, lasting_ms: int) -> Permit:
        """May an attempt of at most `lasting_ms` be made? One that is granted must be ended."""
        entry = self._entry(connection)
        breaker = entry.breaker
        if breaker.open_until_ms is None and self._clock_ms() < entry.fresh_until_ms:
            return Permit(is_granted=True, generation=breaker.generation)
        token = os.urandom(8).hex()

        def change(breaker: Breaker, now_ms: float) -> tuple[Breaker, Permit]:
            return breaking.ask(
                breaker, token=token, lasting_ms=lasting_ms, policy=self._policy(), now_ms=now_ms
            )

        return self._changed(entry, change)

    def end(self, connection: str, permit: Permit, ending: Ending) -> None:
        """Tell how an attempt that was granted has ended."""

        def change(breaker: Breaker, now_ms: float) -> tuple[Breaker, None]:
            return breaking.end(breaker, permit, ending, policy=self._policy(), now_ms=now_ms), None

        entry = self._entry(connection)
        breaker = entry.breaker
        if ending is Ending.ANSWERED and not breaker.failures and breaker.open_until_ms is None:
            return
        if change(breaker, self._clock_ms())[0] is not breaker:
            self._change(entry, change)

    def look(self, connection: str) -> Seen:
        """How the breaker stands, as of the last second."""

        def change(breaker: Breaker, now_ms: float) -> tuple[Breaker, Seen]:
            policy = self._policy()
            phase = breaker.phase(policy, now_ms=now_ms)
            return breaker, Seen(phase, breaker.rest_ms(policy, now_ms=now_ms))

        return self._changed(self._entry(connection), change)

    def show(self, connection: str) -> None:
        """Tell the metrics how the breaker stands for all; without `shared` nobody knows that."""
        if self._shared() is not None:
            seen = self.look(connection)
            metrics.breaker_changed(connection=connection, state=_GAUGE[seen.phase])

    def reset(self, connection: str) -> None:
        """Close the breaker by hand, for every process."""

        def change(breaker: Breaker, _now_ms: float) -> tuple[Breaker, None]:
            return breaking.reset(breaker), None

        self._change(self._entry(connection), change)

    def forget(self) -> None:
        """Close every breaker that the process knows, for tests that share a process."""
        shared = self._shared()
        for connection in self._entries:
            if shared is not None:
                shared.forget(connection)
        self._entries = {}
        self._away_until_ms = -inf

    def _entry(self, connection: str) -> _Entry:
        entry = self._entries.get(connection)
        return entry or self._entries.setdefault(connection, _Entry(connection))

    def _changed(self, entry: _Entry, change: Change[Outcome]) -> Outcome:
        """The outcome of a change that mostly changes nothing; the others are asked when it is time."""
        now_ms = self._clock_ms()
        if now_ms >= entry.fresh_until_ms and entry.lock.acquire(blocking=False):
            # Whoever comes meanwhile goes by what is known.
            try:
                return self._agree(entry, change)
            finally:
                entry.lock.release()
        breaker = entry.breaker
        after, outcome = change(breaker, now_ms)
        return outcome if after is breaker else self._change(entry, change)

    def _change(self, entry: _Entry, change: Change[Outcome]) -> Outcome:
        with entry.lock:
            breaker, now_ms = entry.breaker, self._clock_ms()
            after, outcome = change(breaker, now_ms)
            if after is breaker and now_ms < entry.fresh_until_ms:
                return outcome  # whoever held the lock before us has changed it
            return self._agree(entry, change)

    def _agree(self, entry: _Entry, change: Change[Outcome]) -> Outcome:
        """Make the change to what every process knows, or when they cannot be asked, to our own."""
        now_ms = self._clock_ms()
        shared = self._shared()
        if shared is not None and now_ms >= self._away_until_ms:
            try:
                return self._exchange(entry, change, shared=shared, now_ms=now_ms)
            except SessionUnavailable:
                self._away_until_ms = self._clock_ms() + AWAY_MS
                _log.warning("breakers are not shared", connection=entry.connection)
        entry.fresh_until_ms = inf if shared is None else self._away_until_ms
        before = entry.breaker
        after, outcome = change(before, now_ms)
        self._keep(entry, before, after, revision=_NOT_KNOWN, now_ms=now_ms)
        return outcome

    def _exchange(
        self, entry: _Entry, change: Change[Outcome], *, shared: SharedBreakers, now_ms: float
    ) -> Outcome:
        """Decide over what stands there, write it, and decide anew when somebody was faster."""
        base = known = entry.breaker
        revision, was_read = entry.revision, False
        for _ in range(_MAX_TRIES):
            after, outcome = change(base, now_ms)
            wanted = None if after == known else after
            if wanted is None and was_read:
                break
            held = shared.exchange(
                entry.connection, expected=revision, wanted=wanted, now_ms=now_ms
            )
            revision, was_read = held.revision, True
            if held.is_written:
                break
            known = held.breaker or Breaker()
            # A store that holds nothing has lost what we know, or never heard of it.
            base = breaking.later(entry.breaker, held.breaker or entry.breaker)
        else:
            revision = _NOT_KNOWN
        entry.fresh_until_ms = self._clock_ms() + FRESH_MS
        self._keep(entry, base, after, revision=revision, now_ms=now_ms)
        return outcome

    def _keep(
        self, entry: _Entry, before: Breaker, after: Breaker, *, revision: str, now_ms: float
    ) -> None:
        entry.breaker, entry.revision = after, revision
        phase = after.phase(self._policy(), now_ms=now_ms)
        if phase is not entry.shown:
            entry.shown = phase
            metrics.breaker_changed(connection=entry.connection, state=_GAUGE[phase])
        if after is not before:
            _tell(entry.connection, before, after)


_GAUGE = {Phase.CLOSED: 0, Phase.HALF_OPEN: 1, Phase.OPEN: 2}


def _tell(connection: str, before: Breaker, after: Breaker) -> None:
    """A line by the process that made the change; the others only learn of it."""
    if after.probe not in {"", before.probe}:
        _log.info("breaker lets a probe through", connection=connection)
    elif after.generation == before.generation:
        return
    elif after.open_until_ms is None:
        _log.info("breaker closed", connection=connection)
    else:
        _log.warning("breaker opened", connection=connection, failures=after.failures)


def never_opening() -> Breakers:
    """Breakers that let everything through, for surroundings that are given none."""
    return Breakers(clock_ms=lambda: 0.0, policy=lambda: Policy(maxsize, 0))
