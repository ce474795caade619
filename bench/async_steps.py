"""Async steps: what a worker gets through, what each run costs it, and how long a person waits.

Throughput is measured over a backlog. The worker runs already, so that its start counts nowhere, and
is held still by a signal while phones leave the runs; then it is let go.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench import documents, usage
from bench.crowd import Plan, send_out
from bench.house import BenchFailed, House, Published, Server
from bench.phones import percentiles
from bench.report import Figure, Result
from bench.scenarios import Options

SLOW_PARTNER_MS = 500
BACKLOGS = {  # (partner's latency in ms, threads): runs
    (0, 1): 500,
    (0, 8): 500,
    (0, 64): 500,
    (SLOW_PARTNER_MS, 1): 20,
    (SLOW_PARTNER_MS, 8): 120,
    (SLOW_PARTNER_MS, 64): 800,
}
IDLE_RUNS = 60
IDLE_RUNS_A_SECOND = 5
_IDLE_SECONDS = 5.0
_PATIENCE_SECONDS = 120.0
_ROOM = {"CONNECTION_MAX_CALLS": "512"}


def async_steps(house: House, options: Options) -> Result:
    """A backlog for each number of threads and latency, and single runs for an idle worker."""
    published = house.publish(documents.async_call())
    figures = _idle(house, options, published)
    for latency_ms, threads in BACKLOGS:
        figures += _backlog(house, options, published, latency_ms=latency_ms, threads=threads)
    return Result("async", figures)


def _idle(house: House, options: Options, published: Published) -> list[Figure]:
    """One run now and then: from its acceptance to its end, as the rows say."""
    options.say("async: single runs for an idle worker")
    with ExitStack() as stack:
        partner = stack.enter_context(house.partner())
        web = stack.enter_context(house.web(partner, workers=1, threads=4))
        worker = stack.enter_context(house.worker(partner, threads=8, **_ROOM))
        send_out(house, web, _plan(published, flows=20))
        _await_end(house)
        before = usage.cpu_ms(worker)
        time.sleep(_IDLE_SECONDS)
        idle = (usage.cpu_ms(worker) - before) / (_IDLE_SECONDS * 10)
        plan = _plan(published, flows=IDLE_RUNS, phones=1, rate=IDLE_RUNS_A_SECOND)
        send_out(house, web, plan)
        _await_end(house)
        found = percentiles([seconds * 1000 for seconds in house.database.run_seconds(IDLE_RUNS)])
    return [
        Figure("idle worker, acceptance to SUCCEEDED, p50", found["p50"], "ms", 100, 50),
        Figure("the same, p95", found["p95"], "ms"),
        Figure("an idle worker's CPU", idle, "% of a core"),
    ]


def _backlog(
    house: House, options: Options, published: Published, *, latency_ms: int, threads: int
) -> list[Figure]:
    count = BACKLOGS[latency_ms, threads]
    options.say(f"async: {count} runs, {threads} threads, a partner of {latency_ms} ms")
    with ExitStack() as stack:
        partner = stack.enter_context(house.partner(latency_ms=latency_ms))
        web = stack.enter_context(house.web(partner, workers=1, threads=options.threads))
        worker = stack.enter_context(house.worker(partner, threads=threads, **_ROOM))
        watched = {"worker": worker, "PostgreSQL": house.stores.postgresql_pid}
        with _held_still(worker):
            _leave(house, web, published, count)
            before = {name: usage.cpu_ms(pid) for name, pid in watched.items() if pid}
        begun = time.monotonic()
        _await_end(house)
        seconds = time.monotonic() - begun
        used = {name: usage.cpu_ms(pid) for name, pid in watched.items() if pid}
        memory = usage.largest_resident_mb(worker)
    title = f"{latency_ms} ms partner, {threads} threads"
    return [
        Figure(f"{title}: runs a second", count / seconds),
        *(
            Figure(f"{title}: {name} CPU", (used[name] - before[name]) / count, "ms/run")
            for name in used
        ),
        Figure(f"{title}: worker memory", memory, "MB"),
    ]


def _leave(house: House, web: Server, published: Published, count: int) -> None:
    left = send_out(house, web, _plan(published, flows=count))
    waiting = house.database.count_unfinished_runs()
    if (left.flows, waiting) != (count, count):
        raise BenchFailed(f"{waiting} runs wait for the worker, not {count}")


@contextmanager
def _held_still(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _await_end(house: House) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while house.database.count_unfinished_runs():
        if time.monotonic() > deadline:
            raise BenchFailed("the worker did not work its runs off")
        time.sleep(0.02)


def _plan(published: Published, *, flows: int, phones: int = 4, rate: float = 0) -> Plan:
    return Plan(
        walk="async",
        phones=phones,
        flows=flows,
        seconds=_PATIENCE_SECONDS,
        operations=documents.operations(),
        workflow=published.id,
        steps=published.steps,
        rate=rate,
    )
