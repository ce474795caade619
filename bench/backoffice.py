"""The back office among many executions: what its pages ask, how long it takes, by which plans."""

import json
from datetime import UTC, datetime
from typing import Any

from bench import documents, past
from bench.house import House
from bench.report import Figure, Result
from bench.scenarios import Options

WORKFLOWS = 10
VERSIONS = 3


def backoffice(house: House, options: Options) -> Result:
    """Dashboard, list and timeline over 90 days of executions with five runs each."""
    for number in range(WORKFLOWS):
        house.publish({**documents.money_transfer(), "name": f"Transfer {number}"})
    past.add_versions(house.database, VERSIONS)
    seconds = past.fill(house.database, options.scale, now=datetime.now(UTC), say=options.say)
    options.say("backoffice: rolling up, then asking")
    told = json.loads(house.ask("bench.office_queries"))
    figures = [
        Figure("executions", options.scale),
        Figure("making them and their runs", seconds, "s"),
        Figure(f"first roll-up, {told['rollUp']['days']:.0f} days", told["rollUp"]["seconds"], "s"),
        Figure(
            f"the next one, {told['rollUp']['daysAgain']:.0f} days",
            told["rollUp"]["secondsAgain"],
            "s",
        ),
        *_of_pages(told["questions"]),
    ]
    return Result("backoffice", figures, notes=_notes(told["questions"]))


def _of_pages(questions: list[dict[str, Any]]) -> list[Figure]:
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
