"""The queue that wakes workers: a wake-up names a run and says nothing about it.

The StepRun row is the truth of an async run. So a wake-up may come twice, late or not at all: who is
woken claims the run by its row, and the worker's own look at due runs finds what nobody was woken
for. With the database backend wake-ups are rows beside ours: they come and go with the transaction
that brought the run about, and the worker takes them off. Any other backend has workers of its own,
which run `work_off_run`.
"""

from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Field, QuerySet
from django.utils import timezone
from django_tasks_db import DatabaseBackend
from django_tasks_db.models import DBTaskResult, get_date_max

from config import task_api
from config.ids import new_id
from config.logs import get_logger
from config.postgresql import execute_prepared, query_prepared

QUEUE: str = settings.TASK_QUEUE
READY = "READY"
TABLE = DBTaskResult._meta.db_table
NOBODY = UUID(int=0)

_log = get_logger("handrail.tasks")


@task_api.task(queue_name=QUEUE, backend=task_api.usable_alias())
def work_off_run(run_id: str) -> None:
    """Work one attempt of a run off: what another backend's worker runs.

    It never fails: the run's row says what came of it, and a queue would keep the traceback.
    """
    from executions.worker import work_off  # noqa: PLC0415 - the worker wakes others: it imports us

    try:
        work_off(UUID(run_id))
    except Exception as error:  # noqa: BLE001 - a door: the sweeper finds the run
        _log.error("woken worker failed", run=run_id, error=type(error).__name__)


def uses_database() -> bool:
    """Whether wake-ups are rows of the database, for `take_woken`."""
    return isinstance(work_off_run.get_backend(), DatabaseBackend)


def wake(run_id: UUID) -> None:
    """Wake a worker for a run, once the surrounding transaction has committed.

    In the database the wake-up is part of the transaction. Elsewhere it is sent after the commit;
    that it could not be sent is logged and no error, because the run will be found.
    """
    if uses_database():
        _leave(run_id)
    else:
        transaction.on_commit(lambda: _send(run_id))


def _leave(run_id: UUID) -> None:
    """The row that `enqueue` of the database backend inserts, for a third of what that costs.

    `enqueue` looks the task up twice to describe what it inserted, to receivers that we do not have.
    """
    own = (new_id(), timezone.now(), {"args": [str(run_id)], "kwargs": {}})
    sql, fields, common = _insertion()
    values = [
        field.get_db_prep_save(value, connection) for field, value in zip(fields, own, strict=True)
    ]
    if connection.vendor == "postgresql":
        execute_prepared(sql, values + common)
    else:
        with connection.cursor() as cursor:
            cursor.execute(sql, values + common)


@lru_cache(maxsize=1)
def _insertion() -> "tuple[str, list[Field[Any, Any]], list[Any]]":
    """The statement, the fields whose values come first, and the values that are always the same."""
    alike: DBTaskResult[Any, Any] = DBTaskResult(
        priority=work_off_run.priority,
        task_path=work_off_run.module_path,
        queue_name=QUEUE,
        run_after=get_date_max(),
        backend_name=work_off_run.backend,
    )
    fields = {field.attname: field for field in DBTaskResult._meta.concrete_fields}
    own = [fields.pop(name) for name in ("id", "enqueued_at", "args_kwargs")]
    common = list(fields.values())
    columns = ", ".join(str(field.column) for field in own + common)
    parameters = ", ".join(["%s"] * len(own + common))
    return (
        f"INSERT INTO {TABLE} ({columns}) VALUES ({parameters})",  # noqa: S608 - columns of a model
        own,
        [field.get_db_prep_save(getattr(alike, field.attname), connection) for field in common],
    )


def _send(run_id: UUID) -> None:
    try:
        work_off_run.enqueue(str(run_id))
    except Exception as error:  # noqa: BLE001 - a door: every backend has errors of its own
        _log.warning("wake-up not sent", run=str(run_id), error=type(error).__name__)


def take_woken(limit: int) -> list[UUID]:
    """Up to `limit` runs to work off, those woken longest ago, each told to one caller only.

    The wake-ups are gone when this returns, in one short transaction. Empty with another backend
    than the database's, whose workers run `work_off_run`.
    """
    if not uses_database():
        return []
    take = _take_in_one_statement if connection.vendor == "postgresql" else _take_in_transaction
    return [run_id for given in take(limit) if (run_id := _run_id(given))]


def woken_among(run_ids: Collection[UUID]) -> set[UUID]:
    """Those whose wake-up waits in the database's queue; what is in another queue nobody can see."""
    if not uses_database():
        return set()
    names = [str(run_id) for run_id in run_ids]
    rows = _waiting().filter(args_kwargs__args__0__in=names)
    return {UUID(str(name)) for name in rows.values_list("args_kwargs__args__0", flat=True)}


def ping() -> None:
    """Raise when the backend cannot be reached: it is asked for a result that it does not have."""
    backend = work_off_run.get_backend()
    if backend.supports_get_result:
        with suppress(task_api.TaskResultDoesNotExist):
            backend.get_result(str(NOBODY))


def _take_in_one_statement(limit: int) -> list[Any]:
    return [given for (given,) in query_prepared(_take_sql(limit), ())]


@lru_cache(maxsize=64)
def _take_sql(limit: int) -> str:
    """The statement for PostgreSQL; nothing in it comes from outside.

    Its conditions are text, because a plan for parameters sees neither the partial index nor how
    few of the rows are ours. The array keeps it from choosing, and locking, anew for each row.
    """
    return f"""
        DELETE FROM {TABLE} WHERE id = ANY(ARRAY(
            SELECT id FROM {TABLE}
            WHERE status = '{READY}' AND queue_name = '{QUEUE}'
                AND task_path = '{work_off_run.module_path}'
            ORDER BY priority DESC, run_after, enqueued_at
            LIMIT {limit:d} FOR UPDATE SKIP LOCKED
        ))
        RETURNING args_kwargs -> 'args' ->> 0
    """  # noqa: S608 - names and constants of ours


def _take_in_transaction(limit: int) -> list[Any]:
    with connection.cursor() as cursor:  # looks without the lock that every writer waits for
        cursor.execute(_look_sql())
        if cursor.fetchone() is None:
            return []
    with transaction.atomic():
        taken = dict(_waiting().values_list("id", "args_kwargs__args__0")[:limit])
        DBTaskResult.objects.filter(id__in=taken).delete()
    return list(taken.values())


@lru_cache(maxsize=1)
def _look_sql() -> str:
    """The plus keeps SQLite from the index on READY, in which everybody's tasks are."""
    return f"""
        SELECT 1 FROM {TABLE}
        WHERE queue_name = '{QUEUE}' AND +status = '{READY}'
            AND task_path = '{work_off_run.module_path}'
        LIMIT 1
    """  # noqa: S608 - names and constants of ours


def _waiting() -> QuerySet[DBTaskResult[Any, Any]]:
    return DBTaskResult.objects.filter(
        status=READY, queue_name=QUEUE, task_path=work_off_run.module_path
    ).order_by("enqueued_at")  # theirs would walk through everybody's


def _run_id(given: object) -> UUID | None:
    try:
        return UUID(str(given))
    except ValueError:
        _log.warning("wake-up for no run")
        return None
