"""The fast path to the database: one change of an execution is one statement and one commit.

A change is a conditional UPDATE of the execution together with what it brings about: a new run, the
end of a run, the attempts made. On PostgreSQL it is a single statement (a CTE) in autocommit: a
commit costs 100 µs of PostgreSQL's CPU instead of 264 for the same rows through the ORM in a
transaction. Where a database has no such statements (SQLite) the parts run in one transaction.
The condition makes the database decide between callers; the caller only learns whether it won.

A flow brings about a handful of shapes of changes: which columns, and what kind of value in each. The
text of a shape is built once, and PostgreSQL plans it once a connection: reading and planning such a
statement costs it four times what executing it does.

Times are the database's: machines with wrong clocks neither expire nor take over anything early.
Everything that is not the step path reads and writes through the ORM.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from types import NoneType
from typing import Any, TypeAlias
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connection, connections, models, transaction
from django.utils import timezone

from config.postgresql import execute_prepared
from executions.models import StepAttempt, StepRun, WorkflowExecution
from workflows.models import Workflow

LONGEST_SECONDS = 24 * 3600
"""No execution lives longer than this after its start, however often it is renewed."""

Row: TypeAlias = Mapping[str, object]
"""Column values by field name. FromNow and Renewed stand for times by the database's clock."""


Kind: TypeAlias = "type | int"
"""What the text of a statement depends on in a value: FromNow, Renewed, NoneType, or how many."""

Shape: TypeAlias = tuple[tuple[str, Kind], ...]
"""A row without its values."""


@dataclass(frozen=True, slots=True)
class FromNow:
    """So many seconds from now."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Renewed:
    """The new end of a sliding time to live, never past LONGEST_SECONDS after the start."""

    seconds: float


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
    if _is_postgresql():
        return _apply_in_one_statement(change)
    return _apply_in_transaction(change)


def insert_execution(row: Row, *, live_version_id: UUID) -> bool:
    """Insert an execution if this version is the workflow's live one and it is not archived.

    False when it is not (any more). Raises IntegrityError for a start key that was used before.
    """
    table = _table(WorkflowExecution)
    ids = [table.value("id", each) for each in (row["workflow_id"], live_version_id)]
    return _execute(_start_sql(table, _shape(row)), [*table.values(row), *ids]) == 1


def note_attempt(attempt: Row) -> None:
    """Write down a failed attempt before the wait for the next one, in a commit of its own."""
    table = _table(StepAttempt)
    _execute(_insert_sql(table, _shape(attempt)), table.values(attempt))


def release_connection() -> None:
    """Give the connection back to the pool: nobody holds one while a partner is talking.

    In a transaction (which only tests have open here) it is kept.
    """
    wrapper = connections[DEFAULT_DB_ALIAS]
    if wrapper.connection is not None and not wrapper.in_atomic_block:
        wrapper.close()


def _apply_in_one_statement(change: Change) -> bool:
    executions, runs, attempts = map(_table, (WorkflowExecution, StepRun, StepAttempt))
    sql = _change_sql(
        to=_shape(change.to),
        when=_shape_of_conditions(change.when),
        new_run=_shape(change.new_run),
        run_end=_shape(change.run_end) if change.run_id else (),
        attempts=tuple(map(_shape, change.attempts)),
    )
    values = [*executions.values(change.to), change.execution_id]
    values += executions.values_of_conditions(change.when)
    values += runs.values(change.new_run)
    if change.run_id is not None:
        values += [*runs.values(change.run_end), change.run_id]
    for attempt in change.attempts:
        values += attempts.values(attempt)
    return execute_prepared(sql, values) == 1


def _apply_in_transaction(change: Change) -> bool:
    executions, runs, attempts = map(_table, (WorkflowExecution, StepRun, StepAttempt))
    execution_id = executions.value("id", change.execution_id)
    moved = [*executions.values(change.to), execution_id]
    moved += executions.values_of_conditions(change.when)
    with transaction.atomic():
        when = _shape_of_conditions(change.when)
        if _execute(_update_sql(executions, _shape(change.to), when), moved) != 1:
            return False
        if change.new_run:
            _execute(_insert_sql(runs, _shape(change.new_run)), runs.values(change.new_run))
        if change.run_id is not None:
            end = [*runs.values(change.run_end), runs.value("id", change.run_id)]
            _execute(_update_sql(runs, _shape(change.run_end), ()), end)
        for attempt in change.attempts:
            _execute(_insert_sql(attempts, _shape(attempt)), attempts.values(attempt))
    return True


def _execute(sql: str, values: Sequence[Any]) -> int:
    """The number of rows."""
    if _is_postgresql():
        return execute_prepared(sql, values)
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return int(cursor.rowcount)


# --- the text of statements -----------------------------------------------------------------------


_TIMES = (FromNow, Renewed)
_KINDS: dict[type, Kind] = {each: each for each in _TIMES}


def _shape(row: Row) -> Shape:
    return tuple([(name, _KINDS.get(type(value), object)) for name, value in row.items()])


def _shape_of_conditions(row: Row) -> Shape:
    return tuple([(name, _kind_of_condition(value)) for name, value in row.items()])


def _kind_of_condition(value: object) -> Kind:
    return len(value) if isinstance(value, tuple) else NoneType if value is None else object


@lru_cache(maxsize=256)
def _change_sql(
    *, to: Shape, when: Shape, new_run: Shape, run_end: Shape, attempts: tuple[Shape, ...]
) -> str:
    """PostgreSQL's statement for a change; it finds a row when the condition held."""
    update = _update_sql(_table(WorkflowExecution), to, when)
    parts = [f"moved AS ({update} RETURNING id)"]
    source = "moved"
    if new_run:
        insert = _insert_sql(_table(StepRun), new_run)
        parts.append(f"run AS ({insert} FROM moved RETURNING id)")
        source = "run"
    elif run_end:
        end = _update_sql(_table(StepRun), run_end, ())
        parts.append(f"run AS ({end} AND EXISTS (SELECT 1 FROM moved) RETURNING id)")  # noqa: S608 - names are ours
        source = "run"
    for number, attempt in enumerate(attempts):
        insert = _insert_sql(_table(StepAttempt), attempt)
        parts.append(f"attempt_{number} AS ({insert} FROM {source})")
    return f"WITH {', '.join(parts)} SELECT 1 FROM moved"  # noqa: S608 - names are ours


@lru_cache(maxsize=64)
def _start_sql(table: "_Table", shape: Shape) -> str:
    workflow = connection.ops.quote_name(Workflow._meta.db_table)
    return (
        f"{_insert_sql(table, shape)} FROM {workflow} WHERE {workflow}.id = %s"
        f" AND {workflow}.live_version_id = %s AND {workflow}.archived_at IS NULL"
    )


@lru_cache(maxsize=256)
def _update_sql(table: "_Table", to: Shape, when: Shape) -> str:
    """UPDATE … of the row with an id, under a condition; the values come in this order."""
    assignments = ", ".join(f"{table.columns[name]} = {table.sql(kind)}" for name, kind in to)
    conditions = " AND ".join(
        [f"{table.name}.id = %s", *(table.condition(name, kind) for name, kind in when)]
    )
    return f"UPDATE {table.name} SET {assignments} WHERE {conditions}"  # noqa: S608 - names are ours


@lru_cache(maxsize=256)
def _insert_sql(table: "_Table", shape: Shape) -> str:
    """INSERT … SELECT without its FROM: as it stands it inserts, with a FROM only what that finds."""
    columns = ", ".join(table.columns[name] for name, _ in shape)
    expressions = ", ".join(table.sql(kind) for _, kind in shape)
    return f"INSERT INTO {table.name} ({columns}) SELECT {expressions}"


def _table(model: type[models.Model]) -> "_Table":
    return _tables()[model]


# Found out once: each look at Django's connection goes through two proxies.
@lru_cache(maxsize=1)
def _is_postgresql() -> bool:
    return connection.vendor == "postgresql"


@lru_cache(maxsize=1)
def _tables() -> "Mapping[type[models.Model], _Table]":
    kind = _PostgresTable if _is_postgresql() else _Table
    return {model: kind(model) for model in (WorkflowExecution, StepRun, StepAttempt)}


class _Table:
    """How one model's values and times are written in SQL; as Django's fields do it anywhere."""

    def __init__(self, model: type[models.Model]) -> None:
        quote = connection.ops.quote_name
        self.name = quote(model._meta.db_table)
        fields = model._meta.concrete_fields
        self.columns = {each.attname: quote(str(each.column)) for each in fields}
        self._fields: dict[str, Any] = {each.attname: each for each in fields}

    def sql(self, kind: Kind) -> str:
        """The expression for a value of this kind, which takes one parameter."""
        if kind is not Renewed:
            return "%s"
        # Comparing texts is right for SQLite's times, which have one format.
        last = f"STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', started_at, '+{LONGEST_SECONDS} seconds')"
        return f"MIN(%s, {last})"

    def condition(self, name: str, kind: Kind) -> str:
        """The condition that a column has a value of this kind."""
        column = f"{self.name}.{self.columns[name]}"
        if kind is NoneType:
            return f"{column} IS NULL"
        if isinstance(kind, int):
            return f"{column} IN ({', '.join(['%s'] * kind)})"
        return f"{column} = %s"

    def values(self, row: Row) -> list[object]:
        """The parameters of a row that is written."""
        return [self.value(name, value) for name, value in row.items()]

    def values_of_conditions(self, row: Row) -> list[object]:
        """The parameters of a condition."""
        values: list[object] = []
        for name, value in row.items():
            if isinstance(value, tuple):
                values += value
            elif value is not None:
                values.append(self.value(name, value))
        return values

    def value(self, name: str, value: object) -> object:
        """The value as the driver takes it; a time is taken by this machine's clock."""
        if isinstance(value, _TIMES):
            return self._seconds_from_now(value.seconds)
        return self._fields[name].get_db_prep_save(value, connection)

    def _seconds_from_now(self, seconds: float) -> object:
        when: Any = timezone.now() + timedelta(seconds=seconds)
        return connection.ops.adapt_datetimefield_value(when)


class _PostgresTable(_Table):
    """The same for PostgreSQL: its own clock, and psycopg adapts everything but JSON by itself."""

    def __init__(self, model: type[models.Model]) -> None:
        super().__init__(model)
        self._json: dict[str, Callable[..., object]] = {
            name: each.get_db_prep_save
            for name, each in self._fields.items()
            if isinstance(each, models.JSONField)
        }

    def sql(self, kind: Kind) -> str:
        if kind not in (FromNow, Renewed):
            return "%s"
        until = "clock_timestamp() + make_interval(secs => %s)"
        if kind is FromNow:
            return until
        return f"LEAST({until}, started_at + make_interval(secs => {LONGEST_SECONDS}))"

    def values(self, row: Row) -> list[object]:
        if not self._json.keys().isdisjoint(row):
            row = {name: self.value(name, value) for name, value in row.items()}
        return [
            float(value.seconds) if isinstance(value, _TIMES) else value for value in row.values()
        ]

    def value(self, name: str, value: object) -> object:
        return self._json[name](value, connection) if name in self._json else value
