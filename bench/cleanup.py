"""Cleanup of many dead executions: how long a statement holds rows, alone and two at once."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from bench import documents, past
from bench.cleanup_process import RETENTION_DAYS
from bench.house import House
from bench.report import Figure, Result
from bench.scenarios import Options

DEAD = 100_000
LONGEST_MS = 200.0

_TABLES = ("executions_workflowexecution", "executions_steprun", "executions_stepattempt")
# What retention leaves alone: what lives, and what operators have still to look at.
_KEPT = """
SELECT count(*) FROM executions_workflowexecution e
WHERE e.completed_at IS NULL OR e.completed_at > now() - %s * interval '1 day'
   OR EXISTS (SELECT 1 FROM executions_steprun r WHERE r.execution_id = e.id AND r.needs_attention)
"""
_ORPHANS = """
SELECT (SELECT count(*) FROM executions_steprun r WHERE NOT EXISTS
            (SELECT 1 FROM executions_workflowexecution e WHERE e.id = r.execution_id))
     + (SELECT count(*) FROM executions_stepattempt a WHERE NOT EXISTS
            (SELECT 1 FROM executions_steprun r WHERE r.id = a.run_id))
"""


def cleanup(house: House, options: Options) -> Result:
    """One `cleanup_executions`, then two at once, each over as many dead executions."""
    house.publish({**documents.money_transfer(), "name": "Dead"})
    figures: list[Figure] = []
    notes: list[str] = []
    for processes in (1, 2):
        found, said = _cleaned(house, options, processes=processes)
        figures += found
        notes += said
    return Result("cleanup", figures, notes=notes)


def _cleaned(house: House, options: Options, *, processes: int) -> tuple[list[Figure], list[str]]:
    count = min(options.scale, DEAD)
    # Each filling lies in days of its own: ids tell the time that they were made at.
    until = datetime.now(UTC) - timedelta(days=RETENTION_DAYS + past.DAYS * (3 - processes))
    past.fill(house.database, count, now=until, say=options.say)
    rows = _counts(house)
    (kept,) = _row(house, _KEPT.replace("%s", str(RETENTION_DAYS)))
    load = os.getloadavg()[0]
    options.say(f"cleanup: {processes} at once over {rows[0]:,} executions")
    with ThreadPoolExecutor(processes) as pool:
        asked = [pool.submit(house.ask, "bench.cleanup_process") for _ in range(processes)]
        told: list[dict[str, Any]] = [json.loads(each.result()) for each in asked]
    deleted = sum(each["report"]["DELETE_EXECUTIONS"]["DONE"] for each in told)
    ids = [name for each in told for name in each["report"]["DELETE_EXECUTIONS"]["ids"]]
    left = _counts(house)
    (orphans,) = _row(house, _ORPHANS)
    wrong = abs(rows[0] - deleted - left[0]) + abs(left[0] - kept) + len(ids) - len(set(ids))
    title = "one" if processes == 1 else "two at once"
    longest = max((each["longest"] for each in told), key=lambda each: each["ms"])
    lasted = sorted(ms for each in told for ms in each["lastedMs"])
    seconds = max(each["seconds"] for each in told)
    figures = [
        Figure(f"{title}: executions, with their runs and attempts", rows[0]),
        Figure(f"{title}: rows", sum(rows)),
        Figure(f"{title}: deleted", deleted),
        Figure(f"{title}: deleted twice, left or deleted wrongly", wrong + orphans, goal=0),
        Figure(f"{title}: longest statement that locks", longest["ms"], "ms", LONGEST_MS, 50),
        Figure(f"{title}: the same, p99.9", lasted[-(len(lasted) // 1000 + 1)], "ms"),
        Figure(f"{title}: longer than {LONGEST_MS:.0f} ms", sum(ms > LONGEST_MS for ms in lasted)),
        Figure(
            f"{title}: longest time from lock to commit",
            max(each["heldMs"] for each in told),
            "ms",
            LONGEST_MS,
            100,
        ),
        Figure(f"{title}: batches", sum(each["batches"] for each in told)),
        Figure(f"{title}: statements that lock, and commits", len(lasted)),
        Figure(f"{title}: deleting", seconds, "s"),
        Figure(f"{title}: load when it began", load),
        Figure(f"{title}: load when it ended", os.getloadavg()[0]),
    ]
    return figures, [f"Longest, {title}: {longest['sql']}"]


def _counts(house: House) -> list[int]:
    return [_row(house, f"SELECT count(*) FROM {table}")[0] for table in _TABLES]


def _row(house: House, sql: str) -> tuple[Any, ...]:
    (row,) = house.database.rows(sql)
    return row
