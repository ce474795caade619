"""Rows as they are after events that take days, or the death of a process."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from uuid import UUID, uuid4

from django.conf import settings
from django.db import connection
from django.db.models import Model
from django.utils import timezone

from config.ids import new_id
from executions.enums import RunKind, RunStatus, WorkflowExecutionStatus
from executions.models import StepRun, WorkflowExecution
from executions.session_store import get_session_store
from executions.tests.phone import ROOT, Phone
from executions.tests.servers import database_url
from workflows.compiled import CompiledWorkflow
from workflows.enums import StepExecutionMode, TriggerTiming

MINUTE = timedelta(minutes=1)


def strand(phone: Phone, kind: RunKind = RunKind.STEP, *, ago: timedelta = MINUTE) -> UUID:
    """The process that called a partner for this execution died; its lease ended so long ago."""
    row = phone.row
    until = timezone.now() - ago
    WorkflowExecution.objects.filter(pk=row.pk).update(
        status=WorkflowExecutionStatus.IN_PROGRESS,
        sequence=row.sequence + 1,
        lease_holder=uuid4(),
        lease_until=until,
    )
    is_step = kind is RunKind.STEP
    step = phone.compiled.steps[row.position] if is_step else None
    run = StepRun.objects.create(
        execution_id=row.pk,
        kind=kind,
        step_id=None if step is None else UUID(step.id),
        step_index=None if step is None else step.index,
        timing=TriggerTiming.AFTER_STEP if is_step else "",
        mode=StepExecutionMode.SERVER_SYNC,
        status=RunStatus.RUNNING,
        sequence=row.sequence + 1,
        trigger_key=uuid4(),
        started_at=until,
    )
    return run.id


def let_expire(phone: Phone) -> None:
    """The time is over: the store has nothing any more, and the row's end has passed."""
    get_session_store().clear_session(phone.row.session_id)
    past = timezone.now() - timedelta(seconds=1)
    WorkflowExecution.objects.filter(pk=phone.execution_id).update(expires_at=past)


def end_long_ago(phone: Phone, *, days: float) -> None:
    """It has ended so many days ago."""
    ended = timezone.now() - timedelta(days=days)
    WorkflowExecution.objects.filter(pk=phone.execution_id).update(completed_at=ended)


def many_executions(
    compiled: CompiledWorkflow, count: int, *, ended: timedelta | None, overdue: bool = True
) -> None:
    """So many executions, each with a run: ended so long ago, or live, and past their time or not."""
    now = timezone.now()
    is_live = ended is None
    rows = [
        WorkflowExecution(
            id=new_id(),
            workflow_id=UUID(compiled.workflow_id),
            version_id=UUID(compiled.version_id),
            user_id=f"person-{number}",
            status=WorkflowExecutionStatus.IN_PROGRESS
            if is_live
            else WorkflowExecutionStatus.COMPLETED,
            sequence=1,
            started_at=now - timedelta(days=40),
            completed_at=None if ended is None else now - ended,
            expires_at=now - MINUTE if overdue else now + MINUTE,
        )
        for number in range(count)
    ]
    WorkflowExecution.objects.bulk_create(rows, batch_size=2_000)
    StepRun.objects.bulk_create(
        (
            StepRun(
                execution_id=row.id,
                kind=RunKind.STEP,
                step_id=UUID(compiled.steps[0].id),
                step_index=0,
                timing=TriggerTiming.AFTER_STEP,
                mode=StepExecutionMode.CLIENT_ONLY,
                status=RunStatus.SUCCEEDED,
                sequence=1,
                started_at=row.started_at,
                finished_at=row.started_at,
            )
            for row in rows
        ),
        batch_size=2_000,
    )


def multiply_ended(count: int) -> None:
    """Make so many more of the one ended execution there is, a second apart, on PostgreSQL."""
    table = WorkflowExecution._meta.db_table
    _copy_rows(
        WorkflowExecution,
        count,
        {"id": "gen_random_uuid()", "completed_at": "completed_at - n * interval '1 second'"},
        where="completed_at IS NOT NULL",
    )
    with connection.cursor() as cursor:
        # The connection's plan for looking up each run's execution may be of a time when there were
        # few: 100,000 looks through the whole table.
        cursor.execute(f"ANALYZE {table}")
    _copy_rows(
        StepRun,
        1,
        {"id": "gen_random_uuid()", "execution_id": "added.id"},
        where=f"added.completed_at IS NOT NULL AND added.id <> {StepRun._meta.db_table}.execution_id",
        joined=f", {table} AS added",
    )


def _copy_rows(
    model: type[Model], count: int, changed: dict[str, str], *, where: str, joined: str = ""
) -> None:
    table = model._meta.db_table
    columns = [str(each.column) for each in model._meta.concrete_fields if not each.generated]
    values = [changed.get(name, f"{table}.{name}") for name in columns]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)}"
            f" FROM generate_series(1, {count}) AS n, {table}{joined} WHERE {where}"
        )


class CommandProcess:
    """A management command in a process of its own, over the database of the running test."""

    def __init__(self, *words: str, partner_url: str = "") -> None:
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "ENV_FILE": "",
            "DEBUG": "1",
            "DATABASE_URL": database_url(),
            "REDIS_URL": settings.REDIS_URL,
            "TRIGGER_BASE_URL": partner_url,
        }
        connection.close()
        self._process = subprocess.Popen(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        """End it at once, without a chance to tidy up."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> tuple[int, str, str]:
        """Its exit code, output and error output."""
        out, err = self._process.communicate(timeout=60)
        return self._process.returncode, out, err
