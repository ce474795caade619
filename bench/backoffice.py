"""The back office among many executions: what its pages ask, how long they take, by which plans."""

import http.client
import json
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from bench import documents, past
from bench.house import House, Server
from bench.report import Figure, Result
from bench.scenarios import Options

WORKFLOWS = 10
VERSIONS = 3
VIEWS = 9
MOST_QUERIES = 12
MOST_MS = 500
CSRF = "t" * 32
WHOLE_TABLE = "Seq Scan on"


@dataclass(frozen=True, slots=True)
class Viewed:
    """One page: of a process that has just begun, then again and again by a server's."""

    name: str
    status: int
    first: int
    warm: int
    first_ms: float
    median_ms: float
    worst_ms: float
    kilobytes: float
    nodes: tuple[str, ...]

    @property
    def is_over(self) -> bool:
        """Whether it asks too much, takes too long, or does not open at all."""
        slowest = max(self.first_ms, self.worst_ms)
        asks_too_much = max(self.first, self.warm) > MOST_QUERIES
        return self.status != 200 or asks_too_much or slowest > MOST_MS


def backoffice(house: House, options: Options) -> Result:
    """Every page over 90 days of executions with five runs each, and what the heaviest ones ask."""
    for number in range(WORKFLOWS):
        house.publish({**documents.money_transfer(), "name": f"Transfer {number}"})
    past.add_versions(house.database, VERSIONS)
    seconds = past.fill(house.database, options.scale, now=datetime.now(UTC), say=options.say)
    options.say("backoffice: rolling up, then asking")
    told = json.loads(house.ask("bench.office_queries"))
    viewed = _viewed(house, options)
    figures = [
        Figure("executions", options.scale),
        Figure("making them, their runs and attempts", seconds, "s"),
        Figure(f"first roll-up, {told['rollUp']['days']:.0f} days", told["rollUp"]["seconds"], "s"),
        Figure(
            f"the next one, {told['rollUp']['daysAgain']:.0f} days",
            told["rollUp"]["secondsAgain"],
            "s",
        ),
        *_of_questions(told["questions"]),
        *_of_pages(viewed),
    ]
    notes = [*_notes(told["questions"]), "", *_page_notes(viewed)]
    return Result("backoffice", figures, notes=notes)


# --- whole pages ----------------------------------------------------------------------------------


def _viewed(house: House, options: Options) -> list[Viewed]:
    nobody = {"TRIGGER_BASE_URL": "http://127.0.0.1:1"}
    house.manage("collectstatic", "--noinput", "--verbosity", "0")
    options.say("backoffice: giving every page something to show")
    told = json.loads(house.ask("bench.office_world", **nobody))
    house.database.execute("VACUUM ANALYZE")
    file = house.folder / "pages.json"
    file.write_text(json.dumps(told))
    options.say(f"backoffice: first views of {len(told['pages'])} pages")
    firsts = json.loads(house.ask("bench.office_first_views", BENCH_PAGES=str(file), **nobody))
    options.say(f"backoffice: {VIEWS} views of each, by the server")
    with house.web(None, workers=1, threads=4, **nobody) as web:
        return list(_timed(web, told, firsts))


def _timed(
    web: Server, told: Mapping[str, Any], firsts: Sequence[Mapping[str, Any]]
) -> Iterator[Viewed]:
    """Over one connection; what nobody may open is left out."""
    line = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
    for page, first in zip(told["pages"], firsts, strict=True):
        if first["status"] == 403:
            continue
        views = [_view(line, page, told["sessions"][page["who"]]) for _ in range(1 + VIEWS)]
        times = [ms for _, ms, _ in views[1:]]
        yield Viewed(
            name=page["name"],
            status=max(first["status"], *(status for status, _, _ in views)),
            first=first["first"],
            warm=first["warm"],
            first_ms=first["firstMs"],
            median_ms=statistics.median(times),
            worst_ms=max(times),
            kilobytes=views[-1][2] / 1000,
            nodes=tuple(first["nodes"]),
        )


def _view(
    line: http.client.HTTPConnection, page: Mapping[str, Any], session: str
) -> tuple[int, float, int]:
    """Status, milliseconds and bytes."""
    headers = {"Cookie": f"sessionid={session}; csrftoken={CSRF}"}
    method, body = "GET", None
    if page["posted"]:
        method, body = "POST", urlencode(page["posted"], doseq=True)
        headers |= {
            "X-CSRFToken": CSRF,
            "Content-Type": "application/x-www-form-urlencoded",
        }
    begun = time.perf_counter()
    line.request(method, page["address"], body, headers)
    answer = line.getresponse()
    size = len(answer.read())
    return answer.status, (time.perf_counter() - begun) * 1000, size


def _of_pages(viewed: Sequence[Viewed]) -> list[Figure]:
    return [
        Figure("pages", len(viewed)),
        Figure("queries of a first view, at most", max(one.first for one in viewed), "", 12, 10),
        Figure("slowest first view", max(one.first_ms for one in viewed), "ms", MOST_MS, 250),
        Figure("slowest page, median", max(one.median_ms for one in viewed), "ms", MOST_MS, 100),
        Figure("slowest view of all", max(one.worst_ms for one in viewed), "ms", MOST_MS, 250),
        Figure(
            "pages that read a whole table",
            sum(any(node.startswith(WHOLE_TABLE) for node in one.nodes) for one in viewed),
            "",
            0,
            0,
        ),
        Figure("pages over 12 queries or 500 ms", sum(one.is_over for one in viewed), "", 0, 0),
        Figure("pages that did not open", sum(one.status != 200 for one in viewed), "", 0, 0),
    ]


def _page_notes(viewed: Sequence[Viewed]) -> list[str]:
    return [
        f"load average {os.getloadavg()[0]:.1f}",
        "",
        "| page | queries first | then | first ms | median ms | worst ms | kB | | plan |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {one.name} | {one.first} | {one.warm} | {one.first_ms:.0f} | {one.median_ms:.0f} "
            f"| {one.worst_ms:.0f} | {one.kilobytes:.0f} | {_flag(one)} "
            f"| {', '.join(one.nodes)} |"
            for one in viewed
        ),
    ]


def _flag(one: Viewed) -> str:
    if one.status != 200:
        return f"{one.status}"
    return "OVER" if one.is_over else ""


# --- single questions -----------------------------------------------------------------------------


def _of_questions(questions: list[dict[str, Any]]) -> list[Figure]:
    dashboard = [each for each in questions if each["page"] == "dashboard"]
    lists = [each for each in questions if each["page"] == "list"]
    counts = [each for each in questions if each["page"] == "count"]
    return [
        Figure("dashboard, together", sum(each["ms"] for each in dashboard), "ms", 500, 250),
        Figure("its queries", sum(each["queries"] for each in dashboard), "", 12, 9),
        Figure("slowest page of the list", max(each["ms"] for each in lists), "ms", 500, 50),
        Figure("slowest count", max(each["ms"] for each in counts), "ms", 500, 50),
        Figure("questions that read a whole table", _whole(questions), "", 0, 0),
    ]


def _whole(questions: list[dict[str, Any]]) -> int:
    return sum(bool(each["wholeTables"]) for each in questions)


def _notes(questions: list[dict[str, Any]]) -> list[str]:
    return [
        "| question | ms | rows | queries | plan |",
        "|---|---|---|---|---|",
        *(
            f"| {each['name']} | {each['ms']:.1f} | {each['rows']} | {each['queries']} "
            f"| {', '.join(each['nodes'])} |"
            for each in questions
        ),
    ]
