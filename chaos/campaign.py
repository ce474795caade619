"""One campaign: people walk while things are broken, then everything is quiet, then the checker.

Needs Django set up over the campaign's own database (`__main__.py` does that). Everything that is
random comes from the seed; what the machine makes of it does not.
"""

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import redis
from django.db import connection

from chaos.checker import Violation, check, unsettled
from chaos.evidence import Evidence, Story
from chaos.fleet import Diary, Fleet, in_background
from chaos.flows import document
from chaos.gathering import PartnersBook, gather
from chaos.people import Crowd, Door
from chaos.report import Report, percentile
from config.testing.servers import PostgreSQL, Valkey
from executions.tests.phone import published
from executions.tests.servers import WebServer, WorkerProcess, reserved_port
from sandbox.testing import FakePartner

AT_A_TIME = 12
WEBS, WORKERS = 3, 3
SETTLED_SECONDS = 60.0
"""So long after the last disturbance every state has to be true."""

PATIENCE_SECONDS = 300.0
DATABASE_PAUSE_SECONDS = (5.0, 40.0)
PARTNER_GIVES_UP = (0.5,) * 240
_LOOK_AGAIN_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for. The campaign ends when everybody has walked and all is broken, or in time."""

    executions: int
    kills: int
    web_kills: int
    redis_faults: int
    minutes: float
    seed: int


@dataclass(slots=True)
class Stage:
    """What the disturbances work on."""

    plan: Plan
    database: PostgreSQL
    store: Valkey
    say: Callable[[str], None]
    diary: Diary = field(default_factory=Diary)
    stories: list[Story] = field(default_factory=list)

    def chance(self, what: str) -> random.Random:
        """Draws of its own for each kind of disturbance."""
        return random.Random(f"{self.plan.seed} {what}")


def run(stage: Stage) -> Report:
    """Break, wait, check; what came of it."""
    begun = time.monotonic()
    partner = FakePartner(latency_ms=40, callback_delay_ms=150, callback_pauses=PARTNER_GIVES_UP)
    with partner, reserved_port() as port:
        given: dict[str, Any] = {
            "partner_url": partner.url,
            "database": stage.database.url,
            "redis": stage.store.url,
            "lease_seconds": None,
            "PUBLIC_BASE_URL": f"http://127.0.0.1:{port}",
        }
        crowd = _crowd(stage, port)
        book = PartnersBook(partner)
        with (
            Fleet(
                lambda: WebServer(port=port, threads=8, **given), size=WEBS, diary=stage.diary
            ) as webs,
            Fleet(
                lambda: WorkerProcess(threads=8, **given), size=WORKERS, diary=stage.diary
            ) as workers,
        ):
            stage.say("broken and walked")
            with _disturbed(stage, webs=webs, workers=workers, book=book):
                _walk(stage, crowd, begun)
            stage.say("quiet")
            disturbed_seconds = time.monotonic() - begun
            settled_seconds, left = _settle(book)
            crowd.look_at_unended(stage.stories)
        evidence = replace(
            gather(book), stories=tuple(stage.stories), disturbances=tuple(stage.diary.entries)
        )
    violations = [*check(evidence)]
    if settled_seconds > SETTLED_SECONDS:
        violations += left
    return _report(stage, evidence, violations, disturbed_seconds, settled_seconds)


def _crowd(stage: Stage, port: int) -> Crowd:
    documents = [document(is_durable=is_durable) for is_durable in (True, True, True, False)]
    return Crowd(
        door=Door(port),
        flows=[published(each) for each in documents],
        seed=stage.plan.seed,
        patience_seconds=PATIENCE_SECONDS,
    )


def _walk(stage: Stage, crowd: Crowd, begun: float) -> None:
    """Everybody, or as many as the time allows; and on until everything planned is broken."""
    ends = begun + stage.plan.minutes * 60

    def is_over() -> bool:
        return time.monotonic() > ends

    first = 0
    while not is_over() and (first < stage.plan.executions or not _all_is_broken(stage)):
        count = AT_A_TIME * 4
        stage.stories.extend(crowd.walk(count, at_a_time=AT_A_TIME, first=first))
        first += count
        broken = dict(Counter(each.what for each in stage.diary.entries))
        stage.say(f"{first} of {stage.plan.executions} people, {broken}")


def _all_is_broken(stage: Stage) -> bool:
    plan, diary = stage.plan, stage.diary
    redis_faults = sum(each.what.startswith("redis") for each in diary.entries)
    return (
        diary.count("worker") >= plan.kills
        and diary.count("server") >= plan.web_kills
        and redis_faults >= plan.redis_faults
    )


def _settle(book: PartnersBook) -> tuple[float, list[Violation]]:
    """Wait until every state is true; after how long, and what is not true yet."""
    quiet = time.monotonic()
    connection.close()  # it has not outlived the database's restarts
    while True:
        left = unsettled(gather(book))
        seconds = time.monotonic() - quiet
        if not left or seconds > SETTLED_SECONDS * 2:
            return seconds, left
        time.sleep(0.5)


# --- what is broken -------------------------------------------------------------------------------


@contextlib.contextmanager
def _disturbed(stage: Stage, *, webs: Fleet, workers: Fleet, book: PartnersBook) -> Iterator[None]:
    """Everything that is planned, spread over the time, while the block lasts."""
    plan = stage.plan
    seconds = plan.minutes * 60 * 0.9
    with contextlib.ExitStack() as stack:
        for fleet, kills, name in (
            (webs, plan.web_kills, "webs"),
            (workers, plan.kills, "workers"),
        ):
            stack.enter_context(
                in_background(_killing(fleet, kills, seconds=seconds, chance=stage.chance(name)))
            )
        stack.enter_context(in_background(lambda stopping: _restart_database(stage, stopping)))
        stack.enter_context(
            in_background(lambda stopping: _break_redis(stage, stopping, seconds=seconds))
        )
        stack.enter_context(in_background(lambda stopping: _keep_up(book, stopping)))
        yield


def _killing(
    fleet: Fleet, kills: int, *, seconds: float, chance: random.Random
) -> Callable[[threading.Event], None]:
    moments = sorted(chance.uniform(0, seconds) for _ in range(kills))

    def work(stopping: threading.Event) -> None:
        begun = time.monotonic()
        for moment in moments:
            if stopping.wait(max(0.0, begun + moment - time.monotonic())):
                return
            while not fleet.kill_one(chance):  # the last at work stays; soon there is another
                if stopping.wait(_LOOK_AGAIN_SECONDS):
                    return

    return work


def _restart_database(stage: Stage, stopping: threading.Event) -> None:
    """At once, as after a power cut; it recovers from its log."""
    chance = stage.chance("postgresql")
    while not stopping.wait(chance.uniform(*DATABASE_PAUSE_SECONDS)):
        stage.diary.note("postgresql")
        stage.database.stop()
        stopping.wait(chance.uniform(0, 2))
        stage.database.start()


def _break_redis(stage: Stage, stopping: threading.Event, *, seconds: float) -> None:
    chance = stage.chance("redis")
    pause = seconds / max(1, stage.plan.redis_faults)
    for _ in range(stage.plan.redis_faults):
        if stopping.wait(chance.uniform(0, 2 * pause)):
            return
        what = chance.choice(("restart", "away", "pause", "flush"))
        stage.diary.note(f"redis {what}")
        _REDIS_FAULTS[what](stage, chance)


def _redis_restart(stage: Stage, _chance: random.Random) -> None:
    stage.store.stop()
    stage.store.start()


def _redis_away(stage: Stage, chance: random.Random) -> None:
    """Nobody listens for a while: connections are refused."""
    stage.store.stop()
    time.sleep(chance.uniform(0.2, 4))
    stage.store.start()


def _redis_pause(stage: Stage, chance: random.Random) -> None:
    with _client(stage) as client:
        client.client_pause(int(chance.uniform(500, 5000)))


def _redis_flush(stage: Stage, _chance: random.Random) -> None:
    with _client(stage) as client:
        client.flushall()


_REDIS_FAULTS: dict[str, Callable[[Stage, random.Random], None]] = {
    "restart": _redis_restart,
    "away": _redis_away,
    "pause": _redis_pause,
    "flush": _redis_flush,
}


@contextlib.contextmanager
def _client(stage: Stage) -> "Iterator[redis.Redis]":
    client = redis.Redis(host="127.0.0.1", port=stage.store.port, socket_timeout=10)
    try:
        yield client
    finally:
        client.close()


def _keep_up(book: PartnersBook, stopping: threading.Event) -> None:
    while not stopping.wait(5):
        book.keep_up()


# --- what is told ---------------------------------------------------------------------------------


def _report(
    stage: Stage,
    evidence: Evidence,
    violations: list[Violation],
    disturbed_seconds: float,
    settled_seconds: float,
) -> Report:
    codes: Counter[str] = Counter()
    for story in evidence.stories:
        codes.update(story.codes)
    walked = [story.last_seconds for story in evidence.stories]
    return Report(
        seed=stage.plan.seed,
        minutes=round(disturbed_seconds / 60, 1),
        broken=dict(Counter(each.what for each in evidence.disturbances)),
        people=len(evidence.stories),
        told=dict(Counter(story.told or "gave up" for story in evidence.stories)),
        executions=dict(Counter(each.status for each in evidence.executions)),
        runs=dict(Counter(f"{run.kind} {run.status}" for run in evidence.runs)),
        attempts=sum(len(run.attempts) for run in evidence.runs),
        calls=len(evidence.calls),
        effects=len(evidence.effects),
        repeats=dict(codes),
        walk_seconds={"p50": percentile(walked, 0.5), "max": percentile(walked, 1.0)},
        settled_seconds=round(settled_seconds, 1),
        violations=[str(violation) for violation in violations],
    )
