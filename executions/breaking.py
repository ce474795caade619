"""When a partner is left alone, and which call may try whether it is back.

    CLOSED --failures in a row--> OPEN --cooldown over--> HALF_OPEN --probe answered--> CLOSED
                                   ^                          |
                                   '------- probe failed -----'

An attempt that ended TRIGGER_UNAVAILABLE or TRIGGER_TIMEOUT is a failure. Whatever else a partner
says, a refusal or garbage, shows that it is there. HALF_OPEN lets one call through at a time, the
*probe*, and nobody else's word counts until it has ended; a probe that never ends is given up.
Every opening and every closing begins a *generation*: what began in an earlier one says nothing
about this one, or 30 calls that time out together would open a breaker that was just closed.

Pure: times are milliseconds on one clock of the caller's. Functions give the very same object back
when nothing changes.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil

from executions.enums import ErrorCode

PROBE_MARGIN_MS = 2_000
"""A probe may take so much longer than its timeout before another one is let through."""

RETRY_PROBED_MS = 1_000
"""What those hear who come while a probe is under way: it tells soon."""

# Beyond these a time was written by a clock that has been set back since: it counts as over.
_LONGEST_PROBE_MS = 130_000
_CLOCK_SLACK_MS = 1_000


class Phase(StrEnum):
    """How a breaker stands."""

    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


class Ending(StrEnum):
    """What an attempt says about the partner; NOTHING: it never left the house."""

    ANSWERED = "ANSWERED"
    FAILED = "FAILED"
    NOTHING = "NOTHING"


@dataclass(frozen=True, slots=True)
class Policy:
    """So many failures in a row open the breaker for so long."""

    failures: int
    cooldown_ms: int


@dataclass(frozen=True, slots=True)
class Breaker:
    """One connection's breaker. `open_until_ms` is None while it is closed."""

    generation: int = 0
    failures: int = 0
    open_until_ms: float | None = None
    probe: str = ""
    probe_until_ms: float = 0.0

    def phase(self, policy: Policy, *, now_ms: float) -> Phase:
        """How it stands now."""
        if self.open_until_ms is None:
            return Phase.CLOSED
        return Phase.OPEN if self.rest_ms(policy, now_ms=now_ms) else Phase.HALF_OPEN

    def rest_ms(self, policy: Policy, *, now_ms: float) -> int:
        """How much of the cooldown is left."""
        if self.open_until_ms is None:
            return 0
        return _left(
            self.open_until_ms, now_ms=now_ms, at_most=policy.cooldown_ms + _CLOCK_SLACK_MS
        )

    def is_probed(self, *, now_ms: float) -> bool:
        """Whether a probe is under way."""
        return self.probe != "" and (
            _left(self.probe_until_ms, now_ms=now_ms, at_most=_LONGEST_PROBE_MS) > 0
        )


@dataclass(frozen=True, slots=True)
class Permit:
    """Whether an attempt may be made, and what its ending will belong to.

    `probe` is its name when it is the one call that a half-open breaker lets through.
    """

    is_granted: bool
    generation: int = 0
    probe: str = ""
    retry_after_ms: int | None = None


def ask(
    breaker: Breaker, *, token: str, lasting_ms: int, policy: Policy, now_ms: float
) -> tuple[Breaker, Permit]:
    """May an attempt of at most `lasting_ms` be made? `token` names it, if it becomes the probe.

    Who asks again under the name of the probe is the probe.
    """
    if breaker.open_until_ms is None:
        return breaker, Permit(is_granted=True, generation=breaker.generation)
    rest_ms = breaker.rest_ms(policy, now_ms=now_ms)
    if rest_ms:
        return breaker, Permit(is_granted=False, retry_after_ms=rest_ms)
    granted = Permit(is_granted=True, generation=breaker.generation, probe=token)
    if breaker.probe == token:
        return breaker, granted
    if breaker.is_probed(now_ms=now_ms):
        return breaker, Permit(is_granted=False, retry_after_ms=RETRY_PROBED_MS)
    until_ms = now_ms + lasting_ms + PROBE_MARGIN_MS
    return replace(breaker, probe=token, probe_until_ms=until_ms), granted


def end(
    breaker: Breaker, permit: Permit, ending: Ending, *, policy: Policy, now_ms: float
) -> Breaker:
    """The breaker after an attempt that was permitted has ended."""
    if permit.generation != breaker.generation or permit.probe != breaker.probe:
        return breaker
    if ending is Ending.NOTHING:
        return replace(breaker, probe="") if breaker.probe else breaker
    if ending is Ending.ANSWERED:
        return _answered(breaker)
    failures = breaker.failures + 1
    if breaker.probe or failures >= policy.failures:
        return Breaker(
            generation=breaker.generation + 1,
            failures=failures,
            open_until_ms=now_ms + policy.cooldown_ms,
        )
    return replace(breaker, failures=failures)


def reset(breaker: Breaker) -> Breaker:
    """Closed by hand: calls go out again, and what began before says nothing about them."""
    if breaker.open_until_ms is None and not breaker.failures:
        return breaker
    return Breaker(generation=breaker.generation + 1)


def later(ours: Breaker, theirs: Breaker) -> Breaker:
    """Which of two counts, when they were kept apart: more generations know more, then theirs."""
    return ours if ours.generation > theirs.generation else theirs


def ending_of(error_code: ErrorCode | None) -> Ending:
    """What an attempt with this error code (None: a result) says about the partner."""
    return _ENDINGS.get(error_code, Ending.ANSWERED)


_ENDINGS: dict[ErrorCode | None, Ending] = {
    ErrorCode.TRIGGER_UNAVAILABLE: Ending.FAILED,
    ErrorCode.TRIGGER_TIMEOUT: Ending.FAILED,
    ErrorCode.ENDPOINT_FORBIDDEN: Ending.NOTHING,
}


def _answered(breaker: Breaker) -> Breaker:
    if breaker.open_until_ms is not None:
        return Breaker(generation=breaker.generation + 1)
    return replace(breaker, failures=0) if breaker.failures else breaker


def _left(until_ms: float, *, now_ms: float, at_most: float) -> int:
    left = until_ms - now_ms
    return ceil(left) if 0 < left <= at_most else 0
