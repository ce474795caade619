"""Runs that ended without success, taken up again by hand: queued anew, or settled outside.

A requeue goes on in the run's own row. It keeps its Idempotency-Key, so that a partner who has acted
already does not act twice; only a compensation that was definitely refused gets the key of its next
visit. Settling sends nothing: somebody of the staff says that the matter was put right elsewhere, and
the row says so. Both are conditional updates: of two who try, one does it.
"""

from collections.abc import Iterable
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Now

from executions import ending, tasks
from executions.enums import RunKind, RunStatus
from executions.models import DONE_STATUSES, StepRun, WorkflowExecution

UNSUCCESSFUL = (RunStatus.REJECTED, RunStatus.FAILED, RunStatus.UNKNOWN, RunStatus.PARKED)
"""How a compensation may have ended for good without having undone anything, as far as we know."""

DOUBTFUL = (RunStatus.UNKNOWN, RunStatus.PARKED)
"""How a call may have ended of which nobody knows whether the partner acted."""

SETTLED_OUTSIDE = "Settled outside by the staff."


def first_undone(runs: Iterable[StepRun]) -> StepRun | None:
    """The compensation that is next in its execution's order, whether it waits, runs or has failed.

    `runs` are all of the execution's, in their order.
    """
    undoing = (run for run in runs if run.kind == RunKind.COMPENSATION)
    return next((run for run in undoing if run.status not in DONE_STATUSES), None)


def has_failed_undo(runs: Iterable[StepRun]) -> bool:
    """Whether a compensation among the runs has ended without success."""
    return any(run.kind == RunKind.COMPENSATION and run.status in UNSUCCESSFUL for run in runs)


def next_key(run: StepRun, *, undone: StepRun | None = None) -> tuple[UUID | None, int]:
    """The key and visit under which the run is sent again.

    A refused compensation's follows from the run that it undoes: one query, unless that is given.
    """
    if run.compensates_id is None or run.status != RunStatus.REJECTED:
        return run.trigger_key, run.visit
    undone = undone or StepRun.objects.get(pk=run.compensates_id)
    visit = run.visit + 1
    return ending.key_of_compensation(undone, visit=visit), visit


def requeue(run: StepRun, *, connection: str) -> bool:
    """Queue a run that was read as ended without success for the workers, with all its retries anew.

    False, and nothing changed, when it stands otherwise now, when its request is gone, or when the
    same call is under way as another run.
    """
    key, visit = next_key(run)
    as_read = StepRun.objects.filter(
        pk=run.pk,
        status=run.status,
        status__in=UNSUCCESSFUL,
        trigger_key=run.trigger_key,
        finished_at__isnull=False,
        due_at__isnull=False,
        sealed_request__isnull=False,
    )
    try:
        with transaction.atomic():
            queued = as_read.update(
                status=RunStatus.QUEUED,
                trigger_key=key,
                visit=visit,
                connection=connection,
                finished_at=None,
                due_at=Now(),
                claims=0,
                attempts_before=run.attempts.count(),
                needs_attention=False,
                should_proceed=False,
                error_code="",
                error="",
                duration_ms=None,
                callback_expires_at=None,
            )
            if queued:
                tasks.wake(run.pk)
    except IntegrityError:
        return False
    return bool(queued)


def settle(run: StepRun) -> bool:
    """Say that the matter of a run was put right outside; the next compensation in the order goes on.

    What was kept to send it again is deleted; earlier calls under its key need no attention any more
    either. False when it stands otherwise now. A submission's
    execution moves on, so that a repeat that has read the request before cannot send it any more.
    """
    as_read = StepRun.objects.filter(
        pk=run.pk, status=run.status, status__in=UNSUCCESSFUL, finished_at__isnull=False
    )
    with transaction.atomic():
        execution = WorkflowExecution.objects.filter(pk=run.execution_id, lease_holder=None)
        if not execution.update(sequence=F("sequence") + 1):
            return False
        settled = as_read.update(
            status=RunStatus.SETTLED,
            error=SETTLED_OUTSIDE,
            needs_attention=False,
            in_doubt=False,
            sealed_request=None,
            sealed_callback=None,
        )
        if not settled:
            transaction.set_rollback(True)
            return False
        StepRun.objects.filter(
            execution_id=run.execution_id,
            trigger_key=run.trigger_key,
            sequence__lt=run.sequence,
            needs_attention=True,
        ).update(needs_attention=False)
        if run.kind == RunKind.COMPENSATION:
            ending.wake_next_undo(run.execution_id, after=run.sequence)
    return True
