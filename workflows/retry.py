"""Retries: is there a next attempt, and after which delay.

The wait before retry n is `initial_delay_ms * backoff_multiplier ** (n - 1)`, capped by
`max_delay_ms`, with equal jitter: uniform between half of it and all of it. A partner's Retry-After
is the least wait; one above `max_delay_ms` ends the attempts. The caller passes the jitter.
"""

from dataclasses import dataclass


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

    def _growth(self, attempt: int) -> float:
        try:
            return float(self.backoff_multiplier ** (attempt - 1))
        except OverflowError:
            return float("inf") if self.initial_delay_ms else 0.0
