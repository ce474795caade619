"""What is measured: each scenario starts what it needs, lets phones walk, and gives a Result.

CPU and latencies are compared inside a run only, with the empty view walked in turns with the
flows: on a busy or throttled machine both change alike.
"""

import http.client
import re
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

from bench import documents, usage
from bench.crowd import Plan, Walked, send_out
from bench.database import Work
from bench.house import BenchFailed, House, Published, Server
from bench.report import Figure, Result

ROUNDS = 4
MEMORY_MARKS = 5
SLOW_PHONES = 256
SLOW_MS = 300
PERSON = "somebody"


@dataclass(frozen=True, slots=True)
class Options:
    """How large and how long; every walk ends at `flows` or after `seconds`."""

    phones: int
    flows: int
    seconds: float
    workers: int
    threads: int
    scale: int
    memory_flows: int
    say: Callable[[str], None]


def flows(house: House, options: Options) -> Result:
    """CPU of everything per flow of the money transfer, against the empty view."""
    with ExitStack() as stack:
        partner = stack.enter_context(house.partner())
        web = stack.enter_context(_web(house, partner, options))
        floor = stack.enter_context(house.floor(workers=options.workers, threads=options.threads))
        plan = _plan("transfer", house.publish(documents.money_transfer()), options)
        share = replace(
            plan, flows=max(1, options.flows // ROUNDS), seconds=options.seconds / ROUNDS
        )
        empty = replace(_empty(options), flows=share.flows, seconds=share.seconds)
        checkpointed = house.database.checkpoint()
        first = house.database.work(settle=False)
        warm = send_out(house, web, share, partner=partner)
        send_out(house, floor, empty)
        begun = house.database.work()
        walked: list[Walked] = []
        floors: list[Walked] = []
        for number in range(ROUNDS):
            options.say(f"flows: round {number + 1} of {ROUNDS}")
            floors.append(send_out(house, floor, empty))
            walked.append(send_out(house, web, share, partner=partner))
        work = house.database.work().since(begun)
        figures = _flow_figures(walked, floors)
        count = sum(each.flows for each in walked)
        figures += _database_figures(work, count)
        if checkpointed:
            wal = begun.since(first).wal_bytes / warm.flows / 1000
            figures.append(Figure("WAL right after a checkpoint", wal, "kB/flow"))
        figures.append(Figure("server memory", usage.largest_resident_mb(web.pid), "MB"))
    return Result("flows", figures, walked[-1].latencies, _told(walked))


def _flow_figures(walked: Sequence[Walked], floors: Sequence[Walked]) -> list[Figure]:
    count = sum(each.flows for each in walked)
    pairs = zip(walked, floors, strict=True)
    ratios = [each.server_cpu_per_flow / floor.server_cpu_per_flow for each, floor in pairs]
    per_flow = {
        name: sum(getattr(each, name) for each in walked) / count
        for name in ("server_cpu_ms", "partner_cpu_ms", "client_cpu_ms")
    }
    figures = [
        Figure("flows a second", count / sum(each.seconds for each in walked)),
        Figure("server CPU in empty flows", statistics.median(ratios), goal=10, stretch=7),
        Figure("server CPU", per_flow["server_cpu_ms"], "ms/flow"),
        Figure(
            "server CPU, empty flow",
            statistics.median(floor.server_cpu_per_flow for floor in floors),
            "ms/flow",
        ),
    ]
    for name, goal, stretch in (("postgresql", 2, 1.2), ("redis", None, None)):
        used = [getattr(each, f"{name}_cpu_ms") for each in walked]
        if None not in used:  # the processes of a server that was given are not ours to see
            title = {"postgresql": "PostgreSQL", "redis": "Redis"}[name]
            figures.append(Figure(f"{title} CPU", sum(used) / count, "ms/flow", goal, stretch))
    figures.append(Figure("partner CPU", per_flow["partner_cpu_ms"], "ms/flow"))
    figures.append(Figure("client CPU", per_flow["client_cpu_ms"], "ms/flow"))
    return figures


def _database_figures(work: Work, count: int) -> list[Figure]:
    return [
        Figure("commits that write", work.writes / count, "a flow", 9, 8),
        Figure("transactions, reads included", work.transactions / count, "a flow"),
        Figure("rows inserted", work.rows_inserted / count, "a flow", 10, 9),
        Figure("rows updated", work.rows_updated / count, "a flow"),
        Figure("of them without an index's change", work.hot_updates / count, "a flow"),
        Figure("WAL", work.wal_bytes / count / 1000, "kB/flow", 14, 12),
        Figure("whole pages in it", work.full_pages / count, "a flow"),
    ]


def form(house: House, options: Options) -> Result:
    """One phone: a form step against the empty view."""
    with ExitStack() as stack:
        web = stack.enter_context(_web(house, None, options))
        floor = stack.enter_context(house.floor(workers=options.workers, threads=options.threads))
        plan = _alone(_plan("forms", house.publish(documents.forms(10)), options), options)
        empty = _alone(_empty(options), options)
        send_out(house, web, replace(plan, flows=20))
        ratios, floors, commits = [], [], []
        for number in range(ROUNDS):
            options.say(f"form: round {number + 1} of {ROUNDS}")
            floors.append(send_out(house, floor, empty).latencies["empty"]["p50"])
            commits.append(house.database.commit_ms())
            walked = send_out(house, web, plan)
            ratios.append(walked.latencies["form"]["p50"] / floors[-1])
    figures = [
        Figure("form step, p50, in empty views", statistics.median(ratios), "times", 4, 3),
        Figure("empty view, p50", statistics.median(floors), "ms"),
        Figure("one row and its commit, p50", statistics.median(commits), "ms"),
    ]
    return Result("form", figures, walked.latencies)


def length(house: House, options: Options) -> Result:
    """One phone: a step of a flow of 200 steps against one of a flow of 4."""
    with _web(house, None, options) as web:
        short = _alone(_plan("forms", house.publish(documents.forms(4)), options), options)
        long = _alone(_plan("forms", house.publish(documents.forms(200)), options), options)
        options.say("length")
        found = _compared(house, web, short, replace(long, flows=6))
    figures = [Figure("step of 200 against step of 4, p50", found, "times", 1.5, 1.1)]
    return Result("length", figures)


def context(house: House, options: Options) -> Result:
    """One phone: a step with 250 KiB of context against one with 1 KiB."""
    with _web(house, None, options) as web:
        published = house.publish(documents.forms(20))
        small = _alone(_plan("forms", published, options), options)
        large = replace(small, context_bytes=250 * 1024, flows=20)
        small = replace(small, context_bytes=1024, flows=20)
        options.say("context")
        found = _compared(house, web, small, large)
    figures = [Figure("step with 250 KiB against 1 KiB, p50", found, "times", 4, 2)]
    return Result("context", figures)


def _compared(house: House, web: Server, usual: Plan, other: Plan) -> float:
    """How much slower a form of the other plan is."""
    for plan in (usual, other):
        send_out(house, web, replace(plan, flows=2))
    ratios = []
    for _ in range(ROUNDS):
        below = send_out(house, web, usual).latencies["form"]["p50"]
        ratios.append(send_out(house, web, other).latencies["form"]["p50"] / below)
    return statistics.median(ratios)


def lists(house: House, options: Options) -> Result:
    """`userWorkflowExecutions` and the back office's list among many executions and few."""
    password = secrets.token_urlsafe(24)
    house.manage("collectstatic", "--noinput", "--verbosity", "0")
    house.manage(
        *("createsuperuser", "--noinput", "--username", "bench", "--email", "bench@example.org"),
        DJANGO_SUPERUSER_PASSWORD=password,
    )
    published = house.publish(documents.forms(4))
    with _web(house, None, options) as web:
        token = house.token("operator", scope="workflows:admin")
        list_plan = replace(
            _alone(_plan("list", published, options), options),
            person=PERSON,
            headers=[f"Authorization: Bearer {token}"],
            flows=200,
        )
        page_plan = replace(
            list_plan,
            walk="page",
            method="GET",
            path="/admin/executions/workflowexecution/",
            headers=[f"Cookie: sessionid={_signed_in(web, password)}"],
            flows=40,
        )
        times: list[tuple[float, float]] = []
        for size in (1_000, options.scale):
            options.say(f"lists: filling up to {size:,} executions")
            house.database.fill(size, workflow=published.id, person=PERSON, persons_share=100)
            send_out(house, web, replace(list_plan, flows=10))
            send_out(house, web, replace(page_plan, flows=5))
            asked = send_out(house, web, list_plan).latencies["list"]["p50"]
            times.append((asked, send_out(house, web, page_plan).latencies["page"]["p50"]))
    figures = []
    for title, few, many in zip(
        ("userWorkflowExecutions", "back office's list"), *times, strict=True
    ):
        name = f"{title}, {options.scale:,} against 1,000"
        figures.append(Figure(name, many / few, "times", 1.5, 1.1))
        figures.append(Figure(f"{title}, p50", many, "ms"))
    return Result("lists", figures)


def _signed_in(web: Server, password: str) -> str:
    """The session of the superuser, by the sign-in form."""
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=10)
    try:
        connection.request("GET", "/admin/login/")
        answer = connection.getresponse()
        page = answer.read().decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        cookies = SimpleCookie(answer.headers["Set-Cookie"] or "")
        if token is None:
            raise BenchFailed("the back office shows no sign-in form")
        content = {"username": "bench", "password": password, "csrfmiddlewaretoken": token[1]}
        headers = {
            "Cookie": f"csrftoken={cookies['csrftoken'].value}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        connection.request("POST", "/admin/login/", urlencode(content), headers)
        answer = connection.getresponse()
        for line in answer.headers.get_all("Set-Cookie") or []:
            if "sessionid" in (given := SimpleCookie(line)):
                return given["sessionid"].value
    finally:
        connection.close()
    raise BenchFailed("the back office does not let the superuser in")


def slow(house: House, options: Options) -> Result:
    """256 phones and a partner that takes 300 ms, on one process."""
    with ExitStack() as stack:
        partner = stack.enter_context(house.partner(latency_ms=SLOW_MS))
        web = stack.enter_context(
            house.web(partner, workers=1, threads=SLOW_PHONES, CONNECTION_MAX_CALLS="256")
        )
        published = house.publish(documents.money_transfer())
        plan = replace(
            _plan("transfer", published, options), phones=SLOW_PHONES, seconds=options.seconds / 2
        )
        send_out(house, web, replace(plan, seconds=3), partner=partner)
        options.say("slow: as many flows as 256 phones can walk")
        most = send_out(house, web, plan, partner=partner)
        options.say("slow: 100 flows a second")
        paced = send_out(house, web, replace(plan, rate=101), partner=partner)
        memory = usage.largest_resident_mb(web.pid)
    quick = max(paced.latencies[name]["p95"] for name in ("form", "confirmation"))
    figures = [
        Figure("flows a second, at most", most.flows_per_second, "", 100, 120, at_least=True),
        Figure("flows a second, at a pace of 101", _steady(paced), ""),
        Figure("a step without a partner meanwhile, p95", quick, "ms", 150, 80),
        Figure(
            "the same at most flows, p95",
            max(most.latencies[name]["p95"] for name in ("form", "confirmation")),
            "ms",
        ),
        Figure("server CPU", most.server_cpu_per_flow, "ms/flow"),
        Figure("server memory", memory, "MB"),
    ]
    return Result("slow", figures, paced.latencies, _told([most, paced]))


def _steady(walked: Walked) -> float:
    """Flows a second without the last flow's own length, in which none begins."""
    return walked.flows / max(0.1, walked.seconds - 3 * SLOW_MS / 1000)


def memory(house: House, options: Options) -> Result:
    """Memory of one web process over many flows."""
    with ExitStack() as stack:
        partner = stack.enter_context(house.partner())
        web = stack.enter_context(house.web(partner, workers=1, threads=options.threads))
        published = house.publish(documents.money_transfer())
        share = options.memory_flows // MEMORY_MARKS
        plan = replace(_plan("transfer", published, options), flows=share, seconds=600)
        figures = [Figure("at the start", usage.largest_resident_mb(web.pid), "MB")]
        for number in range(1, MEMORY_MARKS + 1):
            options.say(f"memory: part {number} of {MEMORY_MARKS}")
            send_out(house, web, plan, partner=partner)
            resident = usage.largest_resident_mb(web.pid)
            bounds = (150, 120) if number == MEMORY_MARKS else (None, None)
            figures.append(Figure(f"after {number * share:,} flows", resident, "MB", *bounds))
        growth = figures[-1].value - figures[-2].value
        figures.append(Figure("growth over the last part", growth, "MB", 3, 1))
    return Result("memory", figures)


def start(house: House, options: Options) -> Result:
    """From nothing to ready, and the checks that `script/server` makes before."""
    seconds = []
    checks = []
    for number in range(ROUNDS):
        options.say(f"start: round {number + 1} of {ROUNDS}")
        with _web(house, None, options) as web:
            seconds.append(web.start_seconds)
        begun = time.monotonic()
        house.manage("check", "--fail-level", "ERROR")
        checks.append(time.monotonic() - begun)
    figures = [
        Figure("server to ready", statistics.median(seconds), "s", 3, 2),
        Figure("manage.py check", statistics.median(checks), "s", 3, 2),
    ]
    return Result("start", figures)


SCENARIOS: dict[str, Callable[[House, Options], Result]] = {
    "flows": flows,
    "form": form,
    "length": length,
    "context": context,
    "slow": slow,
    "memory": memory,
    "start": start,
    "lists": lists,
}


def _web(house: House, partner: Server | None, options: Options) -> Any:
    return house.web(partner, workers=options.workers, threads=options.threads)


def _plan(walk: str, published: Published, options: Options) -> Plan:
    operations = documents.operations()
    if walk == "forms":
        operations["start"] = operations["start-with"]
    return Plan(
        walk=walk,
        phones=options.phones,
        flows=options.flows,
        seconds=options.seconds,
        operations=operations,
        workflow=published.id,
        steps=published.steps,
    )


def _empty(options: Options) -> Plan:
    return _plan("empty", Published("", ()), options)


def _alone(plan: Plan, options: Options) -> Plan:
    return replace(plan, phones=1, flows=100, seconds=options.seconds / ROUNDS)


def _told(walked: Sequence[Walked]) -> list[str]:
    failed = sum(each.failures for each in walked)
    return [f"{failed} flows failed."] if failed else []
