"""How Handrail holds its connections to PostgreSQL: a bounded pool that survives its restarts.

Threads outnumber connections, because no connection is held during a partner call. Leaf: imports
nothing of ours.
"""

import select
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.pq import TransactionStatus

# How long a request waits for a connection before it answers that the database is away.
POOL_TIMEOUT_SECONDS = 3.0
CONNECT_TIMEOUT_SECONDS = 3
# So much later than PostgreSQL ends a statement we hang up on one that does not even do that.
HANG_UP_SECONDS = 5.0


class PooledConnection(psycopg.Connection[Any]):
    """A connection whose health check looks at its socket instead of asking the server.

    The pool's check runs the empty statement each time a connection is handed out, a round trip per
    request. A server that went away has closed the socket, and an idle connection has nothing else
    to read: so a readable socket means a dead connection, for a hundredth of the price.

    Where `longest_seconds` is set (`bound_statements`), no statement takes longer.
    """

    longest_seconds: ClassVar[int] = 0

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        if cls.longest_seconds:
            limit = f"{cls.longest_seconds}s"
            ours = f"-c statement_timeout={limit} -c idle_in_transaction_session_timeout={limit}"
            # The last one counts: what DATABASE_URL asks for wins.
            kwargs["options"] = f"{ours} {kwargs.get('options') or ''}".strip()
        return super().connect(conninfo, **kwargs)

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        if self.longest_seconds:
            kwargs.setdefault("timeout", self.longest_seconds + HANG_UP_SECONDS)
        try:
            return super().wait(gen, *args, **kwargs)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()  # its answer may come yet, and would be taken for the next one's
            raise

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        if query != "":
            return super().execute(query, *args, **kwargs)
        poller = select.poll()
        poller.register(self.pgconn.socket, select.POLLIN)
        if poller.poll(0):
            self.close()
            self._renew_pool()
            raise psycopg.OperationalError("the server closed the connection")
        return None

    def _renew_pool(self) -> None:
        """Let the pool renew every connection it keeps: one that died seldom died alone.

        By itself it would find the dead ones one by one, and pause for one, two, four seconds after
        each but the first: so many requests would fail after a restart.
        """
        pool: Any = self._pool
        is_news = pool is not None and self._created_at > pool._drained_at  # noqa: SLF001 - the pool's marks
        if is_news:
            pool.drain()


def connection_options(*, pool_size: int) -> dict[str, Any]:
    """Django's OPTIONS for a pool of at most `pool_size` connections, opened as they are needed."""
    return {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        # A peer that vanished without closing the line is noticed in seconds, not in the kernel's
        # two hours.
        "keepalives_idle": 30,
        "tcp_user_timeout": 10_000,
        # For `execute_prepared` only: Django's cursors prepare nothing.
        "prepare_threshold": 0,
        "pool": {
            "connection_class": PooledConnection,
            "min_size": 0,
            "max_size": pool_size,
            "timeout": POOL_TIMEOUT_SECONDS,
            # The pool doubles its pause after each failed try and lets nobody else try meanwhile:
            # an outage of a minute would last two. Giving up at once makes the next request the
            # next try.
            "reconnect_timeout": 1.0,
        },
    }


def bound_statements(seconds: int) -> None:
    """Let no statement of this process take longer, on connections that are opened from now on.

    For what people or partners wait for; commands take their time. PostgreSQL ends the statement,
    or a transaction that was left idle for as long, which may hold locks. One that stands still ends
    nothing: the line is then cut from our side. 0 bounds nothing.
    """
    PooledConnection.longest_seconds = seconds


def give_back_connection(**_signal: object) -> None:
    """At the end of a request: the connection that it opened, if it did."""
    wrapper = connections[DEFAULT_DB_ALIAS]
    if wrapper.connection is not None:
        wrapper.close_if_unusable_or_obsolete()


def execute_prepared(sql: str, parameters: Sequence[object]) -> int:
    """Run one statement and commit it; the number of rows it found or changed.

    PostgreSQL reads and plans the text once a connection. The connection is borrowed for the
    statement alone, past Django's wrapper, whose opening and closing cost more than the statement;
    what the thread holds already (it is in a transaction, or has read something) is used. Raises
    Django's database errors.
    """
    return _run_prepared(sql, parameters).rowcount


def query_prepared(sql: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
    """The rows that one statement answers, run and committed in the same way."""
    return _run_prepared(sql, parameters).fetchall()


def _run_prepared(sql: str, parameters: Sequence[object]) -> psycopg.Cursor[Any]:
    wrapper: Any = connections[DEFAULT_DB_ALIAS]
    pool = wrapper.pool
    with wrapper.wrap_database_errors:
        if pool is None or wrapper.connection is not None:
            wrapper.ensure_connection()
            return _execute_prepared(wrapper.connection, sql, parameters)
        if pool.closed:
            pool.open()
        borrowed = pool.getconn()
        try:
            return _execute_prepared(borrowed, sql, parameters)
        finally:
            pool.putconn(borrowed)


def _execute_prepared(
    borrowed: psycopg.Connection[Any], sql: str, parameters: Sequence[object]
) -> psycopg.Cursor[Any]:
    # Django's own cursors put the parameters into the text, which then is never the same twice.
    cursor = psycopg.Cursor(borrowed)
    return cursor.execute(sql, parameters)
