"""Executions of earlier days, as rows: started, called and ended when the test says."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from config.ids import first_id_at
from executions.enums import RunKind, RunStatus, WorkflowExecutionStatus
from executions.models import StepRun, WorkflowExecution
from workflows.compiled import CompiledWorkflow
from workflows.enums import StepExecutionMode, TriggerTiming

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
"""What the tests of figures take for now."""

COMPLETED = WorkflowExecutionStatus.COMPLETED
FAILED = WorkflowExecutionStatus.FAILED
CANCELLED = WorkflowExecutionStatus.CANCELLED
IN_PROGRESS = WorkflowExecutionStatus.IN_PROGRESS
PENDING = WorkflowExecutionStatus.PENDING


def execution(
    compiled: CompiledWorkflow,
    *,
    started: datetime = NOON - timedelta(hours=2),
    status: WorkflowExecutionStatus = COMPLETED,
    seconds: float = 60,
    position: int | None = None,
    code: str = "",
    user_id: str = "alice",
) -> WorkflowExecution:
    """One execution that took so many seconds, or that lives."""
    is_live = status in (IN_PROGRESS, PENDING)
    if position is None:
        position = len(compiled.steps) if status is COMPLETED else 0
    return WorkflowExecution.objects.create(
        id=UUID(int=first_id_at(started).int | uuid4().int & (1 << 62) - 1),
        workflow_id=UUID(compiled.workflow_id),
        version_id=UUID(compiled.version_id),
        user_id=user_id,
        status=status,
        position=position,
        error_code=code,
        started_at=started,
        completed_at=None if is_live else started + timedelta(seconds=seconds),
        expires_at=started + timedelta(hours=1),
    )


def call(
    row: WorkflowExecution,
    *,
    index: int | None = 0,
    status: RunStatus = RunStatus.SUCCEEDED,
    code: str = "",
    at: datetime | None = None,
    sequence: int | None = None,
    connection: str = "",
    calls_partner: bool = True,
    **columns: object,
) -> StepRun:
    """A run of it: of the step at the index, or of the submission (None)."""
    started = at or row.started_at
    if sequence is None:
        sequence = StepRun.objects.filter(execution=row).count() + 1
    is_open = status in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)
    run = StepRun(
        execution=row,
        kind=RunKind.SUBMISSION if index is None else RunKind.STEP,
        step_index=index,
        timing="" if index is None else TriggerTiming.AFTER_STEP,
        mode=StepExecutionMode.SERVER_SYNC,
        status=status,
        sequence=sequence,
        error_code=code,
        connection=connection,
        trigger_key=uuid4() if calls_partner else None,
        started_at=started,
        finished_at=None if is_open else started + timedelta(seconds=1),
        duration_ms=None if is_open else 1000,
    )
    for name, value in columns.items():
        setattr(run, name, value)
    run.save(force_insert=True)
    return run
