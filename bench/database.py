"""What PostgreSQL says it did, and rows by the million."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import psycopg

# A backend that fell idle reports its figures after ten seconds at the latest.
SETTLE_SECONDS = 10.5


@dataclass(frozen=True, slots=True)
class Work:
    """Figures that only grow; the difference of two is what happened between."""

    transactions: int
    """Of any kind, reads included."""

    writes: int
    """Transactions that wrote: what has to reach the disk."""

    rows_inserted: int
    rows_updated: int
    hot_updates: int
    """Of them, those that touched no index."""

    wal_bytes: int
    full_pages: int
    """Whole pages in the log: each page, the first time after a checkpoint."""

    def since(self, earlier: "Work") -> "Work":
        """What happened after `earlier`."""
        return Work(
            *(getattr(self, each.name) - getattr(earlier, each.name) for each in fields(self))
        )


class Database:
    """A connection of the benchmark's own; as a superuser where the server is a private one."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def execute(self, sql: str, values: Sequence[Any] | Mapping[str, Any] | None = None) -> None:
        """Run one statement and commit it."""
        self._connection.execute(sql.encode(), values)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Everything that a question finds."""
        return self._connection.execute(sql.encode()).fetchall()

    def work(self, *, settle: bool = True) -> Work:
        """The figures now. `settle` waits until every idle backend has reported."""
        if settle:
            time.sleep(SETTLE_SECONDS)
        row = self._connection.execute("""
            SELECT d.xact_commit,
                   pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
                   t.inserted, t.updated, t.hot,
                   (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint,
                   w.wal_fpi
            FROM pg_stat_database d, pg_stat_wal w,
                 (SELECT sum(n_tup_ins)::bigint inserted, sum(n_tup_upd)::bigint updated,
                         sum(n_tup_hot_upd)::bigint hot FROM pg_stat_user_tables) t
            WHERE d.datname = current_database()
            """).fetchone()
        assert row is not None
        return Work(*row)

    def checkpoint(self) -> bool:
        """Write everything to its place; False when this role may not ask for it."""
        try:
            self._connection.execute("CHECKPOINT")
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True

    def commit_ms(self) -> float:
        """What one commit of one row takes here, median: the disk's part in every recorded step."""
        self._connection.execute("CREATE TABLE bench_commits (n int)")
        times = []
        for number in range(200):
            begun = time.perf_counter()
            self._connection.execute("INSERT INTO bench_commits VALUES (%s)", [number])
            times.append((time.perf_counter() - begun) * 1000)
        self._connection.execute("DROP TABLE bench_commits")
        return statistics.median(times)

    def count_executions(self) -> int:
        row = self._connection.execute("SELECT count(*) FROM executions_workflowexecution")
        count: int = next(iter(row))[0]
        return count

    def count_unfinished_runs(self) -> int:
        """Runs that wait for a worker, or are at one."""
        row = self._connection.execute(
            "SELECT count(*) FROM executions_steprun"
            " WHERE status IN ('QUEUED', 'RUNNING', 'WAITING') AND finished_at IS NULL"
        )
        count: int = next(iter(row))[0]
        return count

    def run_seconds(self, last: int) -> list[float]:
        """From acceptance to the end, of the last so many succeeded async runs."""
        rows = self._connection.execute(
            "SELECT extract(epoch FROM finished_at - started_at)::float FROM executions_steprun"
            " WHERE mode = 'SERVER_ASYNC' AND status = 'SUCCEEDED'"
            " ORDER BY finished_at DESC LIMIT %s",
            [last],
        )
        return [seconds for (seconds,) in rows]

    def fill(self, count: int, *, workflow: str, person: str, persons_share: int) -> None:
        """Add executions until there are `count`, all ended, over the past; a few are `person`'s."""
        self._connection.execute(
            """
            INSERT INTO executions_workflowexecution (
                id, workflow_id, version_id, user_id, page_id, status, sequence, position,
                started_at, completed_at, expires_at, error_code, error, cancel_reason)
            SELECT (lpad(to_hex(1600000000000 + n * 1000), 12, '0') || '7000' || '8000'
                       || lpad(to_hex(n), 12, '0'))::uuid,
                   w.id, w.live_version_id,
                   CASE WHEN n %% %(every)s = 0 THEN %(person)s ELSE 'user' || n / 50 END,
                   'home', 'COMPLETED', 9, 4,
                   to_timestamp(1600000000 + n), to_timestamp(1600000060 + n),
                   to_timestamp(1600003600 + n), '', '', ''
            FROM generate_series(%(first)s::bigint, %(last)s::bigint) n, workflows_workflow w
            WHERE w.id = %(workflow)s
            """,
            {
                "every": max(1, (count - (first := self.count_executions())) // persons_share),
                "first": first + 1,
                "last": count,
                "person": person,
                "workflow": workflow,
            },
        )
        self._connection.execute("VACUUM ANALYZE executions_workflowexecution")
