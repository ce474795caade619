"""The real `cleanup_executions`, with a look at each statement: which lock rows, and for how long.

Runs in a process of its own with Handrail's settings and prints JSON. Times are what the command
waits for an answer, so each is at least what PostgreSQL needed.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from django.core.management import execute_from_command_line
from django.db import connection

RETENTION_DAYS = 30

_LOCKS = ("DELETE ", "UPDATE ", "INSERT ")


class Watch:
    """What the connection's statements lock: rows from the first one that does until the commit."""

    def __init__(self) -> None:
        self.batches = 0
        self.lasted_ms: list[float] = []
        self.longest: tuple[float, str] = (0.0, "")
        self.held_ms = 0.0
        self.began = self.ended = 0.0
        self._locked_at: float | None = None

    def statement(self, execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        """Django's wrapper around each statement."""
        begun = time.perf_counter()
        try:
            return execute(sql, *rest)
        finally:
            self._note(sql, begun)

    def commit(self, commit: Callable[[], None]) -> None:
        """The commit, which ends what is locked; the checks that were put off are made in it."""
        begun = time.perf_counter()
        commit()
        if self._locked_at is not None:
            self._lasted(begun, "COMMIT")
            self.held_ms = max(self.held_ms, (time.perf_counter() - self._locked_at) * 1000)
            self._locked_at = None

    def _note(self, sql: str, begun: float) -> None:
        if "executions_" not in sql or "figure" in sql or "rollup" in sql:
            return
        is_search = sql.endswith("FOR UPDATE SKIP LOCKED")
        if not (is_search or sql.startswith(_LOCKS)):
            return
        self.batches += is_search
        self.began = self.began or begun
        self.ended = time.perf_counter()
        self._lasted(begun, sql)
        if connection.in_atomic_block:
            self._locked_at = self._locked_at or begun

    def _lasted(self, begun: float, sql: str) -> None:
        took = (time.perf_counter() - begun) * 1000
        self.lasted_ms.append(took)
        self.longest = max(self.longest, (took, sql[:70]))


def main() -> None:
    """Clean up once and say what it took."""
    watch, out = Watch(), StringIO()
    connection.ensure_connection()
    commit = connection.commit
    connection.commit = lambda: watch.commit(commit)  # type: ignore[method-assign]  # to watch it
    words = ["cleanup_executions", "--retention-days", str(RETENTION_DAYS), "--json"]
    with redirect_stdout(out), connection.execute_wrapper(watch.statement):
        execute_from_command_line(["manage.py", *words])
    told = {
        "report": json.loads(out.getvalue()),
        "lastedMs": watch.lasted_ms,
        "batches": watch.batches,
        "longest": {"ms": watch.longest[0], "sql": watch.longest[1]},
        "heldMs": watch.held_ms,
        "seconds": watch.ended - watch.began,
    }
    sys.stdout.write(json.dumps(told))
