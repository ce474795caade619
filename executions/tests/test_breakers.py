"""The breakers of several processes in step: through a store in memory, and through Redis.

A "process" is a Breakers of its own, with a clock of its own that is hours away from the others'.
"""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any, Protocol

import pytest
import redis
from django.conf import settings as django_settings
from prometheus_client import REGISTRY

from config.testing.servers import Valkey, private_servers
from executions import breakers as breakers_module
from executions.breakers import AWAY_MS, FRESH_MS, Breakers, Seen, never_opening
from executions.breakers_redis import (
    EXCHANGE,
    KEPT_MS,
    KEY_PREFIX,
    Held,
    RedisBreakers,
    SharedBreakers,
)
from executions.breaking import (
    PROBE_MARGIN_MS,
    RETRY_PROBED_MS,
    Breaker,
    Ending,
    Permit,
    Phase,
    Policy,
)
from executions.redis_client import RedisClient
from executions.tests.fakes import MemorySharedBreakers

ANSWERED, FAILED, NOTHING = Ending.ANSWERED, Ending.FAILED, Ending.NOTHING
CLOSED = Seen(Phase.CLOSED, 0)
LASTING_MS = 1_000
NEEDS_REDIS = pytest.mark.skipif(
    not django_settings.REDIS_URL,
    reason="REDIS_URL is not set: script/test tests Redis in its second pass",
)


class Stage(Protocol):
    """Several processes around one store, and the time."""

    @property
    def store(self) -> SharedBreakers: ...
    @property
    def cooldown_ms(self) -> int: ...

    def process(self) -> Breakers: ...
    def wait(self, milliseconds: float) -> None: ...


@dataclass
class MemoryStage:
    """Time passes when the test says so."""

    cooldown_ms: int = 30_000
    time_ms: float = 0.0
    processes: int = 0
    store: MemorySharedBreakers = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemorySharedBreakers(lambda: 5e12 + self.time_ms)

    def process(self) -> Breakers:
        self.processes += 1
        ahead_ms = self.processes * 7_200_000
        return Breakers(
            clock_ms=lambda: self.time_ms + ahead_ms,
            policy=lambda: Policy(3, self.cooldown_ms),
            shared=lambda: self.store,
        )

    def wait(self, milliseconds: float) -> None:
        self.time_ms += milliseconds


@dataclass
class RedisStage:
    """A real server, and real time."""

    store: SharedBreakers
    cooldown_ms: int = 2_500  # longer than a process takes to hear of the others
    processes: int = 0

    def process(self) -> Breakers:
        self.processes += 1
        ahead_ms = self.processes * 7_200_000
        return Breakers(
            clock_ms=lambda: time.monotonic() * 1000 + ahead_ms,
            policy=lambda: Policy(3, self.cooldown_ms),
            shared=lambda: self.store,
        )

    def wait(self, milliseconds: float) -> None:
        time.sleep(milliseconds / 1000 + 0.02)


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with private_servers(postgresql=False) as (_, server):
        assert server is not None
        yield server


@pytest.fixture
def client(valkey: Valkey) -> Iterator[RedisClient]:
    with redis.Redis(port=valkey.port) as server:
        server.flushall()
    client = RedisClient(valkey.url)
    yield client
    client.close()


@pytest.fixture(params=["memory", pytest.param("redis", marks=NEEDS_REDIS)])
def stage(request: pytest.FixtureRequest) -> Stage:
    if request.param == "memory":
        return MemoryStage()
    return RedisStage(RedisBreakers(request.getfixturevalue("client")))


def attempt(process: Breakers, ending: Ending, connection: str = "bank") -> Permit:
    """One attempt that ends so, if it is granted."""
    permit = process.ask(connection, lasting_ms=LASTING_MS)
    if permit.is_granted:
        process.end(connection, permit, ending)
    return permit


def open_breaker(process: Breakers) -> None:
    for _ in range(3):
        assert attempt(process, FAILED).is_granted
    assert process.look("bank").phase is Phase.OPEN


# --- one process ----------------------------------------------------------------------------------


def test_without_a_store_a_process_is_on_its_own() -> None:
    time_ms = 0.0
    process = Breakers(clock_ms=lambda: time_ms, policy=lambda: Policy(3, 30_000))
    open_breaker(process)
    assert process.look("bank") == Seen(Phase.OPEN, 30_000)
    time_ms = 10_000
    assert attempt(process, ANSWERED) == Permit(is_granted=False, retry_after_ms=20_000)
    time_ms = 30_000
    assert process.look("bank") == Seen(Phase.HALF_OPEN, 0)
    probe = process.ask("bank", lasting_ms=LASTING_MS)
    assert (probe.is_granted, probe.probe != "") == (True, True)
    assert attempt(process, ANSWERED) == Permit(is_granted=False, retry_after_ms=RETRY_PROBED_MS)
    process.end("bank", probe, ANSWERED)
    assert process.look("bank") == CLOSED


def test_each_connection_has_its_own() -> None:
    process = MemoryStage().process()
    open_breaker(process)
    assert attempt(process, ANSWERED, "another").is_granted
    assert process.look("another") == CLOSED


def test_never_opening_never_opens() -> None:
    process = never_opening()
    for _ in range(1_000):
        assert attempt(process, FAILED).is_granted


def test_happy_path_asks_the_store_once_a_second_and_no_more() -> None:
    stage = MemoryStage()
    process = stage.process()
    for _ in range(1_000):
        assert attempt(process, ANSWERED).is_granted
    assert stage.store.exchanges == 1
    stage.wait(FRESH_MS - 1)
    attempt(process, ANSWERED)
    assert stage.store.exchanges == 1
    stage.wait(1)
    for _ in range(1_000):
        attempt(process, ANSWERED)
    assert stage.store.exchanges == 2
    assert stage.store.held == {}


def test_open_breaker_refuses_without_asking_the_store() -> None:
    stage = MemoryStage()
    process = stage.process()
    open_breaker(process)
    asked = stage.store.exchanges
    for _ in range(1_000):
        assert not attempt(process, ANSWERED).is_granted
    assert stage.store.exchanges == asked


def test_each_failure_is_told_once() -> None:
    stage = MemoryStage()
    process = stage.process()
    attempt(process, ANSWERED)
    for failures in (1, 2, 3):
        attempt(process, FAILED)
        assert stage.store.exchanges == 1 + failures
        assert stage.store.held["bank"][1].failures == failures


def test_who_comes_while_the_store_is_asked_goes_by_what_is_known() -> None:
    stage = MemoryStage()
    heard: list[Permit] = []

    class SlowStore(MemorySharedBreakers):
        def exchange(self, *arguments: Any, **named: Any) -> Held:
            heard.append(process.ask("bank", lasting_ms=LASTING_MS))
            return super().exchange(*arguments, **named)

    stage.store = SlowStore(stage.store.clock_ms)
    process = stage.process()
    assert attempt(process, ANSWERED).is_granted
    assert heard == [Permit(is_granted=True)]


# --- several processes ----------------------------------------------------------------------------


def test_other_process_hears_of_an_opening_within_a_second(stage: Stage) -> None:
    one, other = stage.process(), stage.process()
    attempt(other, ANSWERED)
    open_breaker(one)
    stage.wait(FRESH_MS)
    permit = attempt(other, ANSWERED)
    assert not permit.is_granted
    assert permit.retry_after_ms is not None
    assert 0 < permit.retry_after_ms <= stage.cooldown_ms - FRESH_MS


def test_new_process_hears_of_it_at_once(stage: Stage) -> None:
    open_breaker(stage.process())
    assert not attempt(stage.process(), ANSWERED).is_granted


def test_failures_of_two_processes_add_up(stage: Stage) -> None:
    one, other = stage.process(), stage.process()
    attempt(other, ANSWERED)
    attempt(one, FAILED)
    attempt(one, FAILED)
    attempt(other, FAILED)
    assert other.look("bank").phase is Phase.OPEN
    stage.wait(FRESH_MS)
    assert one.look("bank").phase is Phase.OPEN


def test_answer_clears_the_count_for_all(stage: Stage) -> None:
    one, other = stage.process(), stage.process()
    attempt(one, FAILED)
    attempt(one, FAILED)
    attempt(other, ANSWERED)  # its first question told it of the two
    attempt(one, FAILED)
    assert one.look("bank") == CLOSED


def test_one_process_gets_the_probe_and_its_answer_closes_for_all(stage: Stage) -> None:
    one, other = stage.process(), stage.process()
    open_breaker(one)
    attempt(other, ANSWERED)
    stage.wait(stage.cooldown_ms)
    probe = one.ask("bank", lasting_ms=LASTING_MS)
    assert probe.is_granted
    assert attempt(other, ANSWERED) == Permit(is_granted=False, retry_after_ms=RETRY_PROBED_MS)
    one.end("bank", probe, ANSWERED)
    stage.wait(FRESH_MS)
    assert attempt(other, ANSWERED).is_granted
    assert one.look("bank") == other.look("bank") == CLOSED


def test_failed_probe_opens_again_for_all(stage: Stage) -> None:
    one, other = stage.process(), stage.process()
    open_breaker(one)
    attempt(other, ANSWERED)
    stage.wait(stage.cooldown_ms)
    assert attempt(other, FAILED).is_granted
    assert other.look("bank").phase is Phase.OPEN
    stage.wait(FRESH_MS)
    assert not attempt(one, ANSWERED).is_granted


def test_probe_that_came_to_nothing_is_free_again(stage: Stage) -> None:
    one, other = stage.process(), stage.process()
    open_breaker(one)
    stage.wait(stage.cooldown_ms)
    assert attempt(one, NOTHING).is_granted
    assert attempt(other, ANSWERED).is_granted
    assert other.look("bank") == CLOSED


def test_probe_of_a_process_that_died_is_given_up() -> None:
    stage = MemoryStage()
    dead, other = stage.process(), stage.process()
    open_breaker(dead)
    stage.wait(stage.cooldown_ms)
    assert dead.ask("bank", lasting_ms=LASTING_MS).is_granted
    stage.wait(LASTING_MS + PROBE_MARGIN_MS - 1)
    assert not attempt(other, ANSWERED).is_granted
    stage.wait(1)
    assert attempt(other, ANSWERED).is_granted
    assert other.look("bank") == CLOSED


def test_fifty_threads_of_two_processes_give_one_probe(stage: Stage) -> None:
    processes = [stage.process(), stage.process()]
    open_breaker(processes[0])
    attempt(processes[1], ANSWERED)
    stage.wait(stage.cooldown_ms)
    barrier = Barrier(50)

    def ask(number: int) -> Permit:
        barrier.wait(20)
        process: Breakers = processes[number % 2]
        return process.ask("bank", lasting_ms=LASTING_MS)

    with ThreadPoolExecutor(50) as pool:
        permits = list(pool.map(ask, range(50)))
    assert Counter(permit.is_granted for permit in permits) == {True: 1, False: 49}
    assert {permit.retry_after_ms for permit in permits if not permit.is_granted} == {
        RETRY_PROBED_MS
    }


def test_fifty_failures_at_once_open_it_once(stage: Stage) -> None:
    processes = [stage.process(), stage.process()]
    barrier = Barrier(50)

    def fail(number: int) -> None:
        process = processes[number % 2]
        permit = process.ask("bank", lasting_ms=LASTING_MS)
        barrier.wait(20)
        process.end("bank", permit, FAILED)

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(fail, range(50)))
    stage.wait(FRESH_MS)
    for process in processes:
        assert process.look("bank").phase is Phase.OPEN
        assert process._entries["bank"].breaker.generation == 1
        assert process._entries["bank"].breaker.failures == 3


# --- the store away, and back ---------------------------------------------------------------------


def test_away_store_is_asked_once_in_two_seconds_and_each_goes_by_itself() -> None:
    stage = MemoryStage()
    one, other = stage.process(), stage.process()
    stage.store.is_down = True
    open_breaker(one)
    assert stage.store.exchanges == 1
    assert attempt(other, ANSWERED).is_granted
    assert stage.store.exchanges == 2
    stage.wait(AWAY_MS)
    assert not attempt(one, ANSWERED).is_granted
    assert stage.store.exchanges == 3


def test_what_happened_meanwhile_is_told_when_the_store_is_back() -> None:
    stage = MemoryStage()
    one, other = stage.process(), stage.process()
    attempt(other, ANSWERED)
    stage.store.is_down = True
    open_breaker(one)
    stage.store.is_down = False
    stage.wait(AWAY_MS)
    assert not attempt(one, ANSWERED).is_granted
    assert not attempt(other, ANSWERED).is_granted


def test_lost_store_is_told_again_by_who_knows(stage: Stage) -> None:
    one = stage.process()
    open_breaker(one)
    stage.store.forget("bank")
    stage.wait(FRESH_MS)
    assert not attempt(one, ANSWERED).is_granted
    assert not attempt(stage.process(), ANSWERED).is_granted


def test_process_that_is_always_overtaken_decides_alone_in_the_end() -> None:
    stage = MemoryStage()

    class BusyStore(MemorySharedBreakers):
        def exchange(self, *_arguments: Any, **_named: Any) -> Held:
            self.exchanges += 1
            return Held(is_written=False, revision=f"r{self.exchanges}", breaker=Breaker())

    stage.store = BusyStore(stage.store.clock_ms)
    process = stage.process()
    attempt(process, ANSWERED)
    attempt(process, FAILED)
    assert stage.store.exchanges == 9
    assert process._entries["bank"].breaker == Breaker(failures=1)


@NEEDS_REDIS
def test_redis_that_dies_in_between_costs_little_and_loses_nothing(
    valkey: Valkey, client: RedisClient
) -> None:
    stage = RedisStage(RedisBreakers(client), cooldown_ms=20_000)
    one, other = stage.process(), stage.process()
    attempt(one, ANSWERED)
    attempt(other, ANSWERED)
    valkey.stop()
    try:
        began = time.monotonic()
        open_breaker(one)
        for _ in range(1_000):
            assert not attempt(one, ANSWERED).is_granted
        assert time.monotonic() - began < 2
    finally:
        valkey.start()
    stage.wait(AWAY_MS)
    assert not attempt(one, ANSWERED).is_granted
    assert not attempt(other, ANSWERED).is_granted


# --- Redis ----------------------------------------------------------------------------------------


@NEEDS_REDIS
def test_script_that_is_sent_twice_writes_once(client: RedisClient) -> None:
    arguments = ("", "first", 1, 3, 30_000, "probe", 500, KEPT_MS)
    for _ in range(2):
        assert client.run(EXCHANGE, f"{KEY_PREFIX}bank", arguments) == [1]
    answer = client.run(EXCHANGE, f"{KEY_PREFIX}bank", ("", "second", 9, 9, "", "", 0, KEPT_MS))
    assert answer[:4] == [0, b"first", 1, 3]
    assert 29_000 < answer[4] <= 30_000
    assert answer[5] == b"probe"
    assert 0 < answer[6] <= 500
    assert 0 < client.call("PTTL", f"{KEY_PREFIX}bank") <= KEPT_MS


@NEEDS_REDIS
@pytest.mark.parametrize("command", [("SET", "text"), ("HSET", "revision", "half a breaker")])
def test_garbage_in_redis_leaves_each_on_its_own(
    client: RedisClient, command: tuple[str, ...]
) -> None:
    name, *arguments = command
    client.call(name, f"{KEY_PREFIX}bank", *arguments)
    process = RedisStage(RedisBreakers(client)).process()
    open_breaker(process)
    assert not attempt(process, ANSWERED).is_granted


@NEEDS_REDIS
def test_forgetting_closes_it_for_new_processes(client: RedisClient) -> None:
    stage = RedisStage(RedisBreakers(client))
    process = stage.process()
    open_breaker(process)
    process.forget()
    assert process.look("bank") == stage.process().look("bank") == CLOSED


# --- what operators see ---------------------------------------------------------------------------


class Lines:
    """Takes the log's place."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    lines = Lines()
    monkeypatch.setattr(breakers_module, "_log", lines)
    return lines


def gauge() -> float | None:
    return REGISTRY.get_sample_value("handrail_breaker_state", {"connection": "bank"})


def test_each_change_is_one_line_by_who_made_it(lines: Lines) -> None:
    stage = MemoryStage()
    one, other = stage.process(), stage.process()
    open_breaker(one)
    stage.wait(stage.cooldown_ms)
    assert attempt(other, FAILED).is_granted
    stage.wait(stage.cooldown_ms)
    assert attempt(one, ANSWERED).is_granted
    assert attempt(other, ANSWERED).is_granted
    bank = {"connection": "bank"}
    assert lines.lines == [
        ("warning", "breaker opened", {**bank, "failures": 3}),
        ("info", "breaker lets a probe through", bank),
        ("warning", "breaker opened", {**bank, "failures": 4}),
        ("info", "breaker lets a probe through", bank),
        ("info", "breaker closed", bank),
    ]


def test_gauge_follows() -> None:
    stage = MemoryStage()
    process = stage.process()
    attempt(process, ANSWERED)
    assert gauge() == 0
    open_breaker(process)
    assert gauge() == 2
    stage.wait(stage.cooldown_ms)
    probe = process.ask("bank", lasting_ms=LASTING_MS)
    assert gauge() == 1
    process.end("bank", probe, ANSWERED)
    assert gauge() == 0


def test_gauge_follows_other_processes_too() -> None:
    stage = MemoryStage()
    one, other = stage.process(), stage.process()
    open_breaker(one)
    assert attempt(other, ANSWERED).is_granted is False
    stage.wait(stage.cooldown_ms)
    attempt(one, ANSWERED)
    stage.wait(FRESH_MS)
    attempt(other, ANSWERED)
    assert other._entries["bank"].shown is Phase.CLOSED


def test_away_store_is_one_line_in_two_seconds(lines: Lines) -> None:
    stage = MemoryStage()
    process = stage.process()
    stage.store.is_down = True
    for _ in range(10):
        attempt(process, ANSWERED)
    assert lines.lines == [("warning", "breakers are not shared", {"connection": "bank"})]
