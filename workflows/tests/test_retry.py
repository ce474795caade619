import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.retry import RetryPolicy

SEED = RetryPolicy(max_retries=3, initial_delay_ms=1000)


def test_defaults() -> None:
    assert RetryPolicy() == RetryPolicy(
        max_retries=0, initial_delay_ms=1000, backoff_multiplier=2.0, max_delay_ms=30_000
    )
    assert RetryPolicy().max_attempts == 1
    assert SEED.max_attempts == 4


@pytest.mark.parametrize(
    ("policy", "attempt", "jitter", "retry_after_ms", "delay_ms"),
    [
        (RetryPolicy(), 1, 1.0, None, None),  # no retries unless asked for
        (SEED, 1, 1.0, None, 1000),
        (SEED, 2, 1.0, None, 2000),
        (SEED, 3, 1.0, None, 4000),
        (SEED, 4, 1.0, None, None),  # the fourth attempt was the last
        (SEED, 5, 1.0, None, None),
        (SEED, 1, 0.0, None, 500),  # equal jitter: half of it at least
        (SEED, 1, 0.5, None, 750),
        (SEED, 3, 0.0, None, 2000),
        (SEED, 1, 0.0, 700, 700),  # Retry-After is the least wait
        (SEED, 1, 1.0, 700, 1000),
        (SEED, 1, 0.0, 30_000, 30_000),
        (SEED, 1, 0.0, 30_001, None),  # longer than we would ever wait
        (SEED, 1, 0.0, 0, 500),
        (SEED, 4, 0.0, 1, None),
        (RetryPolicy(3, 1000, 2, 1500), 2, 1.0, None, 1500),  # capped
        (RetryPolicy(3, 1000, 2, 1500), 2, 0.0, None, 750),  # jitter after the cap
        (RetryPolicy(3, 1000, 2, 500), 1, 1.0, None, 500),
        (RetryPolicy(3, 0, 2, 30_000), 3, 1.0, None, 0),
        (RetryPolicy(3, 1000, 1, 30_000), 3, 1.0, None, 1000),
        (RetryPolicy(3, 100, 1.5, 30_000), 3, 1.0, None, 225),
        (RetryPolicy(10, 60_000, 10, 600_000), 10, 1.0, None, 600_000),
        (RetryPolicy(10**6, 1, 10, 600_000), 10**5, 1.0, None, 600_000),  # no overflow
        (RetryPolicy(10**6, 0, 10.0, 600_000), 10**5, 1.0, None, 0),
    ],
)
def test_delay(
    policy: RetryPolicy,
    attempt: int,
    jitter: float,
    retry_after_ms: int | None,
    delay_ms: int | None,
) -> None:
    delay = policy.next_delay_ms(attempt=attempt, jitter=jitter, retry_after_ms=retry_after_ms)

    assert delay == delay_ms


@given(
    policy=st.builds(
        RetryPolicy,
        max_retries=st.integers(0, 10),
        initial_delay_ms=st.integers(0, 60_000),
        backoff_multiplier=st.floats(1, 10),
        max_delay_ms=st.integers(0, 600_000),
    ),
    attempt=st.integers(1, 12),
    jitter=st.floats(0, 1),
    retry_after_ms=st.none() | st.integers(0, 600_000),
)
def test_any_delay_lies_between_the_asked_and_the_longest(
    policy: RetryPolicy, attempt: int, jitter: float, retry_after_ms: int | None
) -> None:
    delay = policy.next_delay_ms(attempt=attempt, jitter=jitter, retry_after_ms=retry_after_ms)

    if attempt > policy.max_retries or (retry_after_ms or 0) > policy.max_delay_ms:
        assert delay is None
    else:
        assert delay is not None
        assert (retry_after_ms or 0) <= delay <= policy.max_delay_ms


def test_plan_says_when_attempts_would_happen() -> None:
    policy = RetryPolicy(max_retries=2, initial_delay_ms=1000)
    told = [
        (one.number, one.least_wait_ms, one.most_wait_ms, one.earliest_ms, one.latest_ms)
        for one in policy.plan(timeout_ms=10_000)
    ]
    assert told == [(1, 0, 0, 0, 0), (2, 500, 1000, 500, 11_000), (3, 1000, 2000, 1500, 23_000)]
    assert len(RetryPolicy().plan(timeout_ms=1)) == 1
