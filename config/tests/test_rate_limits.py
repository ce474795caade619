"""Windows of calls: exact in one process, shared by lots between several, and on when Redis is off."""

import contextlib
import socket
import time
from typing import Any

import pytest
import redis

from config import rate_limits
from config.rate_limits import RateLimiter, RedisCounts, SharedCountsDown
from config.testing.servers import private_servers


class Counts:
    """What the processes share, in memory; counts the round trips."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.trips = 0
        self.is_down = False
        self.left = 40.0

    def add(self, key: str, *, amount: int, period_seconds: int) -> int:
        self.trips += 1
        if self.is_down:
            raise SharedCountsDown
        self.totals[key] = self.totals.get(key, 0) + amount
        return self.totals[key]

    def seconds_left(self, key: str) -> float:
        return self.left


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


def limiter(rate: str, clock: list[float], shared: Counts | None = None) -> RateLimiter:
    return RateLimiter(rate, shared=shared, clock=lambda: clock[0])


def allowed(limit: RateLimiter, calls: int, key: str = "k") -> int:
    return sum(limit.hit(key) is None for _ in range(calls))


def test_a_window_takes_its_calls_and_says_how_long_to_wait(clock: list[float]) -> None:
    limit = limiter("5/minute", clock)
    assert allowed(limit, 5) == 5
    clock[0] += 20.5
    assert limit.hit("k") == 39.5
    clock[0] += 39.5
    assert allowed(limit, 9) == 5


def test_keys_are_counted_apart(clock: list[float]) -> None:
    limit = limiter("2/second", clock)
    assert [allowed(limit, 5, key) for key in ("a", "b")] == [2, 2]


def test_refused_calls_do_not_lengthen_the_wait(clock: list[float]) -> None:
    limit = limiter("1/minute", clock)
    assert allowed(limit, 100) == 1
    clock[0] += 60
    assert limit.hit("k") is None


def test_what_is_remembered_is_bounded(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_KEYS", 10)
    limit = limiter("1/minute", clock)
    for number in range(100):
        limit.hit(f"key{number}")
    assert list(limit._windows) == [f"key{number}" for number in range(90, 100)]


def test_small_limits_are_exact_between_processes(clock: list[float]) -> None:
    shared = Counts()
    processes = [limiter("12/minute", clock, shared) for _ in range(4)]
    assert sum(allowed(process, 12) for process in processes) == 12
    assert processes[3].hit("k") == 40.0  # until the shared count ends


def test_large_limits_are_shared_by_lots(clock: list[float]) -> None:
    shared = Counts()
    processes = [limiter("240/minute", clock, shared) for _ in range(4)]
    taken = 0
    for _ in range(240):
        taken += sum(allowed(process, 1) for process in processes)
    assert 240 <= taken <= 240 + 4 * 12
    assert shared.trips <= 4 * 240 / 12


def test_a_persons_pace_costs_no_round_trip(clock: list[float]) -> None:
    shared = Counts()
    limit = limiter("240/minute", clock, shared)
    for _ in range(100):
        assert limit.hit("k") is None
        clock[0] += 7
    assert shared.trips == 0


def test_without_the_store_each_process_counts_on(clock: list[float]) -> None:
    shared = Counts()
    shared.is_down = True
    limit = limiter("100/minute", clock, shared)
    assert allowed(limit, 150) == 100
    assert shared.trips == 1
    clock[0] += rate_limits.STORE_PAUSE_SECONDS + 60
    shared.is_down = False
    assert allowed(limit, 150) == 100
    assert shared.totals == {"k": 100}


def test_a_redis_that_is_off_costs_little() -> None:
    with contextlib.closing(socket.socket()) as unheard:
        unheard.bind(("127.0.0.1", 0))
        unheard.listen(1)  # takes the connection and never answers
        url = f"redis://127.0.0.1:{unheard.getsockname()[1]}/0"
        limit = RateLimiter("10/minute", shared=RedisCounts(url))
        began = time.monotonic()
        assert allowed(limit, 20) == 10
        assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff", True),  # one customer's network
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("not:an:address", "not:an:address", True),
    ],
)
def test_addresses(settings: Any, one: str, other: str, are_one: bool) -> None:
    settings.REDIS_URL, settings.RATE_LIMIT_ADDRESS = "", "1/minute"
    rate_limits.forget()
    assert rate_limits.address_wait(one) is None
    assert (rate_limits.address_wait(other) is not None) is are_one
    rate_limits.forget()


def test_users_and_addresses_are_counted_apart(settings: Any) -> None:
    settings.REDIS_URL = ""
    settings.RATE_LIMIT_ADDRESS = settings.RATE_LIMIT_USER = "1/minute"
    rate_limits.forget()
    assert rate_limits.address_wait("192.0.2.1") is None
    assert rate_limits.user_wait("192.0.2.1") is None
    rate_limits.forget()


def test_processes_share_a_count_in_redis() -> None:
    with private_servers(postgresql=False) as (_, valkey):
        assert valkey is not None
        processes = [RateLimiter("7/minute", shared=RedisCounts(valkey.url)) for _ in range(3)]
        assert sum(allowed(process, 7) for process in processes) == 7
        wait = processes[0].hit("k")
        assert wait is not None
        assert 55 < wait <= 60
        with contextlib.closing(redis.Redis.from_url(valkey.url)) as client:
            assert client.keys() == [b"handrail:rate:k"]
