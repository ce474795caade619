"""The fast path to the database: one change of an execution is one statement and one commit.

A change is a conditional UPDATE of the execution together with what it brings about: a new run, the
end of a run, the attempts made. On PostgreSQL it is a single statement (a CTE) in autocommit: a
commit costs 100 µs of PostgreSQL's CPU instead of 264 for the same rows through the ORM in a
transaction. Where a database has no such statements (SQLite) the parts run in one transaction.
The condition makes the database decide between callers; the caller only learns whether it won.

Times are the database's: machines with wrong clocks neither expire nor take over anything early.
Everything that is not the step path reads and writes through the ORM.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeAlias
from uuid import UUID

from django.db import connection, models, transaction
from django.utils import timezone

from executions.models import StepAttempt, StepRun, WorkflowExecution
from workflows.models import Workflow

LONGEST_SECONDS = 24 * 3600
"""No execution lives longer than this after its start, however often it is renewed."""

Sql: TypeAlias = "tuple[str, list[Any]]"
"""A statement, or a part of one, with its parameters."""

Row: TypeAlias = Mapping[str, object]
"""Column values by field name. FromNow and Renewed stand for times by the database's clock."""


@dataclass(frozen=True, slots=True)
class FromNow:
    """So many seconds from now."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Renewed:
    """The new end of a sliding time to live, never past LONGEST_SECONDS after the start."""

    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one execution.

    `when` are the column values that must hold (None: is null; a tuple: is one of), `to` the new
    ones. `new_run` is inserted, `run_id` is updated with `run_end`, `attempts` belong to that run.
    """

    execution_id: UUID
    when: Row
    to: Row
    new_run: Row = field(default_factory=dict)
    run_id: UUID | None = None
    run_end: Row = field(default_factory=dict)
    attempts: Sequence[Row] = ()


def apply(change: Change) -> bool:
    """Write the change and commit it. False, and nothing written, when its condition did not hold.

    Raises IntegrityError when a unique constraint decides against it.
    """
    if connection.vendor == "postgresql":
        return _apply_in_one_statement(change)
    return _apply_in_transaction(change)


def insert_execution(row: Row, *, live_version_id: UUID) -> bool:
    """Insert an execution if this version is the workflow's live one and it is not archived.

    False when it is not (any more). Raises IntegrityError for a start key that was used before.
    """
    sql, values = _insert(WorkflowExecution, row)
    workflow = connection.ops.quote_name(Workflow._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"{sql} FROM {workflow} WHERE {workflow}.id = %s"
            f" AND {workflow}.live_version_id = %s AND {workflow}.archived_at IS NULL",
            [*values, *_adapted_ids(row["workflow_id"], live_version_id)],
        )
        return bool(cursor.rowcount == 1)


def _apply_in_one_statement(change: Change) -> bool:
    update, values = _update(change)
    parts = [f"moved AS ({update} RETURNING id)"]
    source = "moved"
    if change.new_run:
        insert, more = _insert(StepRun, change.new_run)
        parts.append(f"run AS ({insert} FROM moved RETURNING id)")
        values += more
        source = "run"
    elif change.run_id is not None:
        end, more = _end_run(change.run_id, change.run_end)
        parts.append(f"run AS ({end} AND EXISTS (SELECT 1 FROM moved) RETURNING id)")  # noqa: S608
        values += more
        source = "run"
    for number, attempt in enumerate(change.attempts):
        insert, more = _insert(StepAttempt, attempt)
        parts.append(f"attempt_{number} AS ({insert} FROM {source})")
        values += more
    with connection.cursor() as cursor:
        cursor.execute(f"WITH {', '.join(parts)} SELECT count(*) FROM moved", values)  # noqa: S608
        return bool(cursor.fetchone()[0])


def _apply_in_transaction(change: Change) -> bool:
    statements: list[Sql] = []
    if change.new_run:
        statements.append(_insert(StepRun, change.new_run))
    elif change.run_id is not None:
        statements.append(_end_run(change.run_id, change.run_end))
    statements += [_insert(StepAttempt, attempt) for attempt in change.attempts]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(*_update(change))
        if cursor.rowcount != 1:
            return False
        for sql, values in statements:
            cursor.execute(sql, values)
    return True


def note_attempt(attempt: Row) -> None:
    """Write down a failed attempt before the wait for the next one, in a commit of its own."""
    with connection.cursor() as cursor:
        cursor.execute(*_insert(StepAttempt, attempt))


def release_connection() -> None:
    """Give the connection back to the pool: nobody holds one while a partner is talking.

    In a transaction (which only tests have open here) it is kept.
    """
    if not connection.in_atomic_block:
        connection.close()


def _update(change: Change) -> Sql:
    table = _table(WorkflowExecution)
    to, to_values = _assignments(table, change.to)
    when, when_values = _conditions(table, {"id": change.execution_id, **change.when})
    return f"UPDATE {table.name} SET {to} WHERE {when}", to_values + when_values  # noqa: S608


def _end_run(run_id: UUID, row: Row) -> Sql:
    table = _table(StepRun)
    to, values = _assignments(table, row)
    return (
        f"UPDATE {table.name} SET {to} WHERE {table.name}.id = %s",  # noqa: S608
        [*values, *_adapted_ids(run_id)],
    )


def _insert(model: type[models.Model], row: Row) -> Sql:
    """INSERT … SELECT without its FROM: as it stands it inserts, with a FROM only what that finds."""
    table = _table(model)
    expressions, values = _expressions(table, row)
    columns = ", ".join(table.columns[name] for name in row)
    return f"INSERT INTO {table.name} ({columns}) SELECT {', '.join(expressions)}", values


def _assignments(table: "_Table", row: Row) -> Sql:
    expressions, values = _expressions(table, row)
    names = (table.columns[name] for name in row)
    return ", ".join(
        f"{name} = {value}" for name, value in zip(names, expressions, strict=True)
    ), values


def _expressions(table: "_Table", row: Row) -> tuple[list[str], list[Any]]:
    expressions: list[str] = []
    values: list[Any] = []
    for name, value in row.items():
        expression, parameters = _expression(table, name, value)
        expressions.append(expression)
        values += parameters
    return expressions, values


def _expression(table: "_Table", name: str, value: object) -> Sql:
    if isinstance(value, FromNow):
        return table.from_now(value.seconds)
    if isinstance(value, Renewed):
        return table.renewed(value.ttl_seconds)
    return "%s", [table.adapt(name, value)]


def _conditions(table: "_Table", row: Row) -> Sql:
    parts: list[str] = []
    values: list[Any] = []
    for name, value in row.items():
        column = f"{table.name}.{table.columns[name]}"
        if value is None:
            parts.append(f"{column} IS NULL")
        elif isinstance(value, tuple):
            parts.append(f"{column} IN ({', '.join(['%s'] * len(value))})")
            values += value
        else:
            parts.append(f"{column} = %s")
            values.append(table.adapt(name, value))
    return " AND ".join(parts), values


def _adapted_ids(*ids: object) -> list[Any]:
    table = _table(WorkflowExecution)
    return [table.adapt("id", each) for each in ids]


def _table(model: type[models.Model]) -> "_Table":
    return _tables(connection.vendor)[model]


@lru_cache(maxsize=4)
def _tables(vendor: str) -> "Mapping[type[models.Model], _Table]":
    kind = _PostgresTable if vendor == "postgresql" else _Table
    return {model: kind(model) for model in (WorkflowExecution, StepRun, StepAttempt)}


class _Table:
    """How one model's values and times are written in SQL; as Django's fields do it anywhere."""

    def __init__(self, model: type[models.Model]) -> None:
        quote = connection.ops.quote_name
        self.name = quote(model._meta.db_table)
        fields = model._meta.concrete_fields
        self.columns = {each.attname: quote(str(each.column)) for each in fields}
        self._fields: dict[str, Any] = {each.attname: each for each in fields}

    def adapt(self, name: str, value: object) -> object:
        """The value as the driver takes it."""
        return self._fields[name].get_db_prep_save(value, connection)

    def from_now(self, seconds: float) -> Sql:
        """A time so many seconds from now: the machine's clock is the database's here."""
        when = timezone.now() + timedelta(seconds=seconds)
        return "%s", [self._adapted_time(when)]

    def renewed(self, ttl_seconds: int) -> Sql:
        """The sliding end; text comparison is right for SQLite's times, which have one format."""
        until = self._adapted_time(timezone.now() + timedelta(seconds=ttl_seconds))
        last = f"STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', started_at, '+{LONGEST_SECONDS} seconds')"
        return f"MIN(%s, {last})", [until]

    def _adapted_time(self, when: object) -> object:
        return connection.ops.adapt_datetimefield_value(when)  # type: ignore[arg-type]


class _PostgresTable(_Table):
    """The same for PostgreSQL: its own clock, and psycopg adapts everything but JSON by itself."""

    def __init__(self, model: type[models.Model]) -> None:
        super().__init__(model)
        self._json: dict[str, Callable[..., object]] = {
            name: each.get_db_prep_save
            for name, each in self._fields.items()
            if isinstance(each, models.JSONField)
        }

    def adapt(self, name: str, value: object) -> object:
        adapt_json = self._json.get(name)
        return value if adapt_json is None else adapt_json(value, connection)

    def from_now(self, seconds: float) -> Sql:
        if not seconds:
            return "clock_timestamp()", []
        return "clock_timestamp() + make_interval(secs => %s)", [float(seconds)]

    def renewed(self, ttl_seconds: int) -> Sql:
        until = "clock_timestamp() + make_interval(secs => %s)"
        last = f"started_at + make_interval(secs => {LONGEST_SECONDS})"
        return f"LEAST({until}, {last})", [float(ttl_seconds)]
