"""Asks what the back office's pages ask, and tells JSON. `House.ask` runs it in Handrail's settings."""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.db import connection, reset_queries

from bench.plans import WHOLE_TABLE, nodes_of
from executions import attention, searching, timeline
from executions import statistics as figures
from executions.abandoned import recently_abandoned
from executions.enums import WorkflowExecutionStatus as Status
from executions.models import StepRun, WorkflowExecution
from executions.rollups import roll_up
from executions.searching import ExecutionSearch as Search
from executions.statistics import Scope
from workflows.models import Workflow

ROUNDS = 5


def main() -> None:
    """Roll up, ask everything, and print what came of it."""
    told = {"rollUp": _roll_up(), "questions": [_asked(*each) for each in _questions()]}
    json.dump(told, sys.stdout)


def _roll_up() -> dict[str, float]:

    begun = time.perf_counter()
    days = list(roll_up())
    first = time.perf_counter() - begun
    begun = time.perf_counter()
    again = list(roll_up())
    return {
        "days": len(days),
        "seconds": first,
        "daysAgain": len(again),
        "secondsAgain": time.perf_counter() - begun,
    }


def _questions() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """What is asked: the page it belongs to, a name, and the call."""
    now = datetime.now(UTC)
    workflow = Workflow.objects.order_by("id").values_list("id", flat=True)[0]
    oldest = WorkflowExecution.objects.order_by("id").values_list("id", flat=True)[0]
    person = WorkflowExecution.objects.get(pk=oldest).user_id
    held = StepRun.objects.filter(needs_attention=True)[0].execution
    scope, one = Scope(days=90), Scope(days=90, workflow_id=workflow)
    yield "dashboard", "days and workflows", lambda: figures.read_figures(scope, now=now)
    yield "dashboard", "funnel", lambda: figures.read_funnels(one, now=now)
    yield "dashboard", "failing steps", lambda: figures.read_failing_steps(scope, now=now)
    yield "dashboard", "attention", attention.read_attention
    yield "dashboard", "queue", attention.read_queue
    yield "dashboard", "connections", attention.troubled_connections
    yield (
        "abandoned",
        "recently abandoned",
        lambda: recently_abandoned(hours=24, workflow_id=None, limit=5, viewer=""),
    )
    searches = {
        "everything": Search(),
        "FAILED": Search(status=Status.FAILED),
        "PENDING (none)": Search(status=Status.PENDING),
        "live": Search(status=Status.IN_PROGRESS),
        "a workflow": Search(workflow_id=workflow),
        "a workflow's COMPLETED": Search(workflow_id=workflow, status=Status.COMPLETED),
        "a code that is nowhere": Search(workflow_id=workflow, error_code="INPUT_INVALID"),
        "a code": Search(error_code="SUBMISSION_FAILED"),
        "a month ago": Search(until=now - timedelta(days=30)),
        "a workflow's FAILED, a week": Search(
            workflow_id=workflow,
            status=Status.FAILED,
            since=now - timedelta(days=60),
            until=now - timedelta(days=53),
        ),
        "needs attention": Search(needs_attention=True),
        "a person": Search(text=person),
        "an id": Search(text=str(oldest)),
        "a session": Search(text=f"ws_{oldest.hex}"),
    }
    for name, search in searches.items():
        yield "list", f"list: {name}", partial(_page, search)
        yield "count", f"count: {name}", partial(searching.count_executions, search)
    yield (
        "list",
        "list: the last page",
        lambda: searching.find_executions(Search(), now=now, newer_than=oldest).rows,
    )
    yield "page", "timeline", lambda: timeline.read_timeline(held)


def _page(search: Search) -> Any:
    return searching.find_executions(search, now=datetime.now(UTC)).rows


def _asked(page: str, name: str, ask: Callable[[], Any]) -> dict[str, Any]:
    found = ask()
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        ask()
        times.append((time.perf_counter() - begun) * 1000)
    connection.force_debug_cursor = True
    reset_queries()
    ask()
    connection.force_debug_cursor = False
    asked = [query["sql"] for query in connection.queries_log]
    nodes = sorted({node for sql in asked for node in nodes_of(sql.replace("%", "%%"), [])})
    return {
        "page": page,
        "name": name,
        "ms": statistics.median(times),
        "rows": len(found) if isinstance(found, tuple | list) else 1,
        "queries": len(asked),
        "nodes": nodes,
        "wholeTables": [each for each in nodes if each.startswith(WHOLE_TABLE)],
    }
