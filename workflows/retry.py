"""Retries: is there a next attempt, and after which delay.

The wait before retry n is `initial_delay_ms * backoff_multiplier ** (n - 1)`, capped by
`max_delay_ms`, with equal jitter: uniform between half of it and all of it. A partner's Retry-After
is the least wait; one above `max_delay_ms` ends the attempts. The caller passes the jitter.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlannedAttempt:
    """When an attempt would begin, counted from the call's begin, after how long a wait.

    The earliest: every attempt before failed at once, after the shortest waits. The latest: every one
    took its whole timeout, after the longest waits.
    """

    number: int
    least_wait_ms: int
    most_wait_ms: int
    earliest_ms: int
    latest_ms: int


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a call is tried again, and how long to wait before."""

    max_retries: int = 0
    initial_delay_ms: int = 1000
    backoff_multiplier: float = 2.0
    max_delay_ms: int = 30_000

    @property
    def max_attempts(self) -> int:
        return self.max_retries + 1

    def next_delay_ms(
        self, *, attempt: int, jitter: float, retry_after_ms: int | None = None
    ) -> int | None:
        """The wait after the failed `attempt` (counted from 1), or None: there is no further one.

        `jitter` lies between 0 (the shortest wait) and 1 (the longest).
        """
        if attempt >= self.max_attempts:
            return None
        least_ms = retry_after_ms or 0
        if least_ms > self.max_delay_ms:
            return None
        full_ms = min(self.initial_delay_ms * self._growth(attempt), self.max_delay_ms)
        return max(round(full_ms * (0.5 + jitter / 2)), least_ms)

    def plan(self, *, timeout_ms: int) -> tuple[PlannedAttempt, ...]:
        """Every attempt of a call whose attempts all fail, without a Retry-After of the partner."""
        planned = [PlannedAttempt(1, 0, 0, 0, 0)]
        for attempt in range(1, self.max_attempts):
            least = self.next_delay_ms(attempt=attempt, jitter=0) or 0
            most = self.next_delay_ms(attempt=attempt, jitter=1) or 0
            earliest = planned[-1].earliest_ms + least
            latest = planned[-1].latest_ms + timeout_ms + most
            planned.append(PlannedAttempt(attempt + 1, least, most, earliest, latest))
        return tuple(planned)

    def _growth(self, attempt: int) -> float:
        try:
            return float(self.backoff_multiplier ** (attempt - 1))
        except OverflowError:
            return float("inf") if self.initial_delay_ms else 0.0
