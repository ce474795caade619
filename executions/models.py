"""The records: one row per execution, per run, per HTTP attempt. PostgreSQL decides by them.

Reading is the ORM's; the step path writes through `ledger.py`, one statement per change.
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Now

from config.ids import new_id
from config.jsonfields import ExactJSONField
from executions.enums import (
    AttemptOutcome,
    ErrorCode,
    OperatorActionKind,
    OperatorOutcome,
    RunKind,
    RunStatus,
    WorkflowExecutionStatus,
)
from executions.figure_models import ExecutionFigures, FigureDay, RollUp, RunFigures
from executions.session_models import SessionField, SessionRecord
from executions.trial_models import TriggerTrial
from workflows.enums import StepExecutionMode, TriggerTiming

__all__ = [
    "ExecutionFigures",
    "FigureDay",
    "OperatorAction",
    "RollUp",
    "RunFigures",
    "SessionField",
    "SessionRecord",
    "StepAttempt",
    "StepRun",
    "TriggerTrial",
    "WorkflowExecution",
]

LIVE_STATUSES = (WorkflowExecutionStatus.PENDING, WorkflowExecutionStatus.IN_PROGRESS)
UNFINISHED_STATUSES = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)
DONE_STATUSES = (RunStatus.SUCCEEDED, RunStatus.SETTLED)
"""Of a compensation: the one before it may be undone."""


class WorkflowExecutionQuerySet(models.QuerySet["WorkflowExecution"]):
    """Selections of executions that more than one door needs."""

    def owned_by(self, user_id: str) -> WorkflowExecutionQuerySet:
        """One person's executions."""
        return self.filter(user_id=user_id)

    def live(self) -> WorkflowExecutionQuerySet:
        """Executions that have not ended; the second condition, which follows, names the index."""
        return self.filter(status__in=LIVE_STATUSES, completed_at__isnull=True)

    def expired(self) -> WorkflowExecutionQuerySet:
        """Live executions past their time, by the database's clock, that no call is working on."""
        return self.live().idle().filter(expires_at__lt=Now())

    def idle(self) -> WorkflowExecutionQuerySet:
        """Executions that no living call is working on."""
        return self.filter(Q(lease_until__isnull=True) | Q(lease_until__lt=Now()))

    def newest_first(self) -> WorkflowExecutionQuerySet:
        """In the order of starting, newest first: ids are time-ordered."""
        return self.order_by("-id")


class WorkflowExecution(models.Model):
    """One person's run of one published version.

    `sequence` counts the state changes; the session carries the same number, and a change is a
    conditional update on it. `lease_holder` is the call that is talking to a partner right now.
    `undo_at`: its submission failed, and if nobody repeats it until then, its steps are undone.
    `sealed_start` is the initial context of a durable session. `outcome` is "" while it is live,
    then COMPLETED, CANCELLED or the error code; the database keeps it, so that lists can be sorted
    by what changes at the end only: an index on `status` would make the first step's update dear.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    workflow = models.ForeignKey(
        "workflows.Workflow", models.PROTECT, related_name="executions", db_index=False
    )
    version = models.ForeignKey(
        "workflows.WorkflowVersion", models.PROTECT, related_name="executions", db_index=False
    )
    user_id = models.CharField(max_length=255)
    page_id = models.CharField(max_length=255, blank=True)
    status = models.CharField(
        max_length=16,
        choices=WorkflowExecutionStatus,
        default=WorkflowExecutionStatus.PENDING,
    )
    sequence = models.PositiveIntegerField(default=0)
    position = models.PositiveSmallIntegerField(default=0)
    lease_holder = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField()
    error_code = models.CharField(max_length=32, blank=True)
    error = models.TextField(blank=True)
    cancel_reason = models.CharField(max_length=1000, blank=True)
    undo_at = models.DateTimeField(null=True, blank=True)
    sealed_start = models.BinaryField(null=True, blank=True)
    result = ExactJSONField(null=True, blank=True)
    submitted_payload = ExactJSONField(null=True, blank=True)
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001 - unique when given
    arguments_hash = models.BinaryField(max_length=32, null=True, blank=True)
    outcome = models.GeneratedField(
        expression=Case(
            When(completed_at__isnull=True, then=Value("")),
            When(~Q(error_code=""), then=F("error_code")),
            default=F("status"),
        ),
        output_field=models.CharField(max_length=32),
        db_persist=True,
    )

    objects = WorkflowExecutionQuerySet.as_manager()

    class Meta:
        permissions: ClassVar = [
            ("replay_execution", "Can replay a failed submission"),
            ("retry_step", "Can run a failed step again"),
            ("cancel_execution", "Can cancel a person's execution"),
            ("reveal_value", "Can see a masked value, which is recorded"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["user_id", "workflow", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="execution_start_key_unique",
            ),
            models.CheckConstraint(
                condition=Q(status__in=WorkflowExecutionStatus.values),
                name="execution_status_known",
            ),
            models.CheckConstraint(
                condition=Q(status__in=LIVE_STATUSES, completed_at__isnull=True)
                | (~Q(status__in=LIVE_STATUSES) & Q(completed_at__isnull=False)),
                name="execution_ended_has_time",
            ),
            models.CheckConstraint(
                condition=Q(lease_holder__isnull=True, lease_until__isnull=True)
                | Q(lease_holder__isnull=False, lease_until__isnull=False),
                name="execution_lease_whole",
            ),
        ]
        indexes: ClassVar = [
            # userWorkflowExecutions: one person's, newest first
            models.Index(fields=["user_id", "-id"], name="execution_by_user"),
            # .expired(), .live(): few rows of many; without expires_at, which every step changes.
            # Its condition has no parameter: SQLite would not use it otherwise
            models.Index(
                fields=["started_at", "id"],
                condition=Q(completed_at__isnull=True),
                name="execution_unended",
            ),
            # retention: the longest ended first; replay --failed-since, recentlyAbandoned
            models.Index(
                fields=["completed_at", "id"],
                condition=Q(completed_at__isnull=False),
                name="execution_ended",
            ),
            # the back office's list of a workflow or version, with or without an outcome; it is
            # the foreign key's index, too
            models.Index(fields=["version", "outcome", "-id"], name="execution_by_version"),
            # the back office's list of an outcome among all workflows; live ones have `unended`
            models.Index(
                fields=["outcome", "-id"],
                condition=Q(completed_at__isnull=False),
                name="execution_by_outcome",
            ),
            # failures that are about to be final: few of many
            models.Index(
                fields=["undo_at"],
                condition=Q(undo_at__isnull=False),
                name="execution_to_undo",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} ({self.status})"

    @property
    def session_id(self) -> str:
        """The name of this execution's session in the session store."""
        return session_id_of(self.id)

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.status in LIVE_STATUSES


def session_id_of(execution_id: UUID) -> str:
    """The session's name, computed: a step call finds the session without asking the database."""
    return f"ws_{execution_id.hex}"


class StepRunQuerySet(models.QuerySet["StepRun"]):
    """Selections of runs that more than one door needs."""

    def unfinished_work(self) -> StepRunQuerySet:
        """What workers have to do or wait for; the conditions name the index."""
        return self.filter(finished_at__isnull=True, due_at__isnull=False)

    def due(self) -> StepRunQuerySet:
        """Work whose time has come, by the database's clock, that no living worker holds."""
        free = Q(lease_until__isnull=True) | Q(lease_until__lt=Now())
        return self.unfinished_work().filter(free, due_at__lte=Now())


class StepRun(models.Model):
    """The record of one accepted call: a step, the submission, the cancellation, a compensation.

    RUNNING is the intent, committed before a partner is called. `client_key` is the app's
    idempotencyKey; a run gives it back when its outcome is not definite. `sealed_request` is the
    body to send again under the same `trigger_key`; `sealed_answer` the answer to repeat.

    What a worker does has a `due_at`, when it has to be looked at next, and a lease of its own, so
    that it runs beside the person's calls. `claims` counts the workers that took it and gave no
    sign since, `in_doubt` says that the partner may have acted already, and `attempts_before` counts
    the attempts that were made before it was queued again by hand. `sealed_data` is what the run
    brought into the context: an async result until the execution ends, or any step's data when the
    session is durable. `sealed_compensation` is the request that would undo it.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    execution = models.ForeignKey(
        WorkflowExecution, models.CASCADE, related_name="runs", db_index=False
    )
    kind = models.CharField(max_length=16, choices=RunKind)
    step_id = models.UUIDField(null=True, blank=True)
    step_index = models.PositiveSmallIntegerField(null=True, blank=True)
    timing = models.CharField(max_length=16, choices=TriggerTiming, blank=True)
    mode = models.CharField(max_length=32, choices=StepExecutionMode)
    status = models.CharField(max_length=16, choices=RunStatus)
    sequence = models.PositiveIntegerField()
    visit = models.PositiveIntegerField(default=0)
    should_proceed = models.BooleanField(default=False)
    trigger_key = models.UUIDField(null=True, blank=True)
    input_hash = models.BinaryField(max_length=32, null=True, blank=True)
    sealed_request = models.BinaryField(null=True, blank=True)
    client_key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001 - unique when given
    arguments_hash = models.BinaryField(max_length=32, null=True, blank=True)
    sealed_answer = models.BinaryField(null=True, blank=True)
    result = ExactJSONField(null=True, blank=True)
    error_code = models.CharField(max_length=32, blank=True)
    error = models.TextField(blank=True)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    duration_ms = models.PositiveIntegerField(null=True, blank=True)
    sealed_data = models.BinaryField(null=True, blank=True)
    sealed_compensation = models.BinaryField(null=True, blank=True)
    # the run of the same execution that a compensation undoes
    compensates_id = models.UUIDField(null=True, blank=True)
    connection = models.CharField(max_length=100, blank=True, db_default="", default="")
    due_at = models.DateTimeField(null=True, blank=True)
    lease_holder = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    claims = models.PositiveSmallIntegerField(db_default=0, default=0)
    attempts_before = models.PositiveSmallIntegerField(db_default=0, default=0)
    in_doubt = models.BooleanField(db_default=False, default=False)
    needs_attention = models.BooleanField(db_default=False, default=False)
    callback_hash = models.BinaryField(max_length=32, null=True, blank=True)
    callback_expires_at = models.DateTimeField(null=True, blank=True)
    callback_received_at = models.DateTimeField(null=True, blank=True)
    callback_body_hash = models.BinaryField(max_length=32, null=True, blank=True)
    sealed_callback = models.BinaryField(null=True, blank=True)

    objects = StepRunQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            # one run per state change; also the index for an execution's runs in order:
            # recovery, the API's `runs`, the admin's timeline
            models.UniqueConstraint(fields=["execution", "sequence"], name="run_sequence_unique"),
            models.UniqueConstraint(
                fields=["execution", "client_key"],
                condition=Q(client_key__isnull=False),
                name="run_client_key_unique",
            ),
            # RUNNING within a request, as run_ended_has_time knows it; also how calls of dead
            # processes are found, by a condition without a parameter, because SQLite would not
            # use it otherwise
            models.UniqueConstraint(
                fields=["execution"],
                condition=Q(finished_at__isnull=True, due_at__isnull=True),
                name="run_one_at_a_time",
            ),
            # an async step's or a compensation's call is under way once, whoever asks for it
            models.UniqueConstraint(
                fields=["execution", "trigger_key"],
                condition=Q(finished_at__isnull=True, due_at__isnull=False),
                name="run_one_work_per_key",
            ),
            # also how a callback finds its run
            models.UniqueConstraint(
                fields=["callback_hash"],
                condition=Q(callback_hash__isnull=False),
                name="run_callback_unique",
            ),
            models.UniqueConstraint(
                fields=["execution", "trigger_key"],
                condition=Q(status=RunStatus.SUCCEEDED, trigger_key__isnull=False),
                name="run_one_success_per_key",
            ),
            models.UniqueConstraint(
                fields=["execution"],
                condition=Q(kind=RunKind.SUBMISSION, status=RunStatus.SUCCEEDED),
                name="run_one_submission",
            ),
            models.CheckConstraint(
                condition=Q(status__in=RunStatus.values), name="run_status_known"
            ),
            models.CheckConstraint(
                condition=Q(status__in=UNFINISHED_STATUSES, finished_at__isnull=True)
                | (~Q(status__in=UNFINISHED_STATUSES) & Q(finished_at__isnull=False)),
                name="run_ended_has_time",
            ),
            models.CheckConstraint(
                condition=Q(lease_holder__isnull=True, lease_until__isnull=True)
                | Q(lease_holder__isnull=False, lease_until__isnull=False, due_at__isnull=False),
                name="run_lease_whole",
            ),
        ]
        indexes: ClassVar = [
            # .due(): what workers take next, the longest due first
            models.Index(
                fields=["due_at", "id"],
                condition=Q(finished_at__isnull=True, due_at__isnull=False),
                name="run_due",
            ),
            # what operators have to look at: parked runs, compensations that failed for good
            models.Index(
                fields=["id"], condition=Q(needs_attention=True), name="run_needs_attention"
            ),
            # and calls that nobody knows the outcome of; the condition names a column that indexes
            # above name already, and few runs come into it
            models.Index(fields=["id"], condition=Q(status=RunStatus.UNKNOWN), name="run_unknown"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.timing} ({self.status})"


class StepAttempt(models.Model):
    """One HTTP try of a run, counted from 1."""

    run = models.ForeignKey(StepRun, models.CASCADE, related_name="attempts", db_index=False)
    number = models.PositiveSmallIntegerField()
    outcome = models.CharField(max_length=16, choices=AttemptOutcome)
    http_status = models.PositiveSmallIntegerField(null=True, blank=True)
    error_code = models.CharField(max_length=32, choices=ErrorCode, blank=True)
    started_at = models.DateTimeField()
    duration_ms = models.PositiveIntegerField()

    class Meta:
        constraints: ClassVar = [
            # also the index for a run's attempts in order
            models.UniqueConstraint(fields=["run", "number"], name="attempt_number_unique"),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number}: {self.outcome}"


class OperatorAction(models.Model):
    """What somebody of the staff did to an execution by hand, why, and what came of it.

    Committed as STARTED before anything is sent. It names the execution without a foreign key: it
    outlives a record whose retention is over, without its reason. `about` is the part of the
    execution that it was about: where a revealed value stands.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # the actions of one execution: its page in the admin, erasure
    execution_id = models.UUIDField(db_index=True)
    action = models.CharField(max_length=32, choices=OperatorActionKind)
    by = models.CharField(max_length=255)
    reason = models.CharField(max_length=1000)
    about = models.CharField(max_length=500, blank=True, db_default="", default="")
    # the run that a worker is to do; what came of it is told here once it has ended
    run_id = models.UUIDField(null=True, blank=True)
    at = models.DateTimeField()
    outcome = models.CharField(
        max_length=16, choices=OperatorOutcome, default=OperatorOutcome.STARTED
    )

    class Meta:
        indexes: ClassVar = [
            # sweeping.tell_outcomes: those whose outcome a worker will know
            models.Index(
                fields=["at"],
                condition=Q(outcome=OperatorOutcome.QUEUED),
                name="operator_action_queued",
            ),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(outcome__in=OperatorOutcome.values), name="operator_outcome_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} by {self.by} ({self.outcome})"
