"""A person's data leaves executions and sessions; what happened stays countable, without the person.

One execution at a time: a live one is cancelled first, then its session is cleared, then, in one
transaction, everything personal leaves its rows and the person's id with it. The id goes last
because it is how the rest is found: whatever this is interrupted by, the next call finds what is
left. Nothing here logs who was erased.

What workers still have to undo is needed until it is undone, because it is about money: such an
execution keeps those requests and the person's id, everything else of it is erased at once, and the
erasure has to be run again. What failed to be undone goes only by force.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Now
from django.utils import timezone

from executions import executor, submission
from executions.enums import RunKind, RunStatus
from executions.errors import (
    ExecutionBusy,
    ExecutionEnded,
    ExecutionNotFound,
    SessionExpired,
    SessionUnavailable,
)
from executions.models import (
    DONE_STATUSES,
    OperatorAction,
    StepRun,
    StepRunQuerySet,
    WorkflowExecution,
    session_id_of,
)
from executions.session_store import get_session_store

MARKER_PREFIX = "erased:"
CANCEL_REASON = "The person's data was erased."
TRIES = 10
PAUSE_SECONDS = 0.5
STILL_UNDOING = "Steps of it are still being worked off or undone: run it again when they are."
NEEDS_FORCE = (
    "Something of it was not undone, and could not be any more: replay or settle it first, or use"
    " --force."
)

_EMPTY: dict[str, object] = {
    "input_hash": None,
    "client_key": None,
    "arguments_hash": None,
    "sealed_answer": None,
    "sealed_data": None,
    "result": None,
}
"""What nobody needs of a run once its execution has ended."""

_ALL_EMPTY: dict[str, object] = {
    **_EMPTY,
    "sealed_request": None,
    "sealed_compensation": None,
    "sealed_callback": None,
    "callback_hash": None,
    "callback_body_hash": None,
    "error": "",
}


class ErasureOutcome(StrEnum):
    """What came of one execution. FAILED: its data is still there; run the erasure again."""

    ERASED = "ERASED"
    WOULD_BE_ERASED = "WOULD_BE_ERASED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Erased:
    """One execution: how it stood when it was found (`was_live`), and what came of it.

    `lost`: so many runs that need attention can be neither sent nor undone any more.
    """

    execution_id: UUID
    was_live: bool
    outcome: ErasureOutcome
    error: str = ""
    lost: int = 0


def new_marker() -> str:
    """What stands in an erased person's place: random, so that it leads back to nobody."""
    return MARKER_PREFIX + secrets.token_hex(8)


def erase_executions(
    user_id: str,
    *,
    dry_run: bool = False,
    force: bool = False,
    wait_seconds: float = 0.0,
    marker: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Erased]:
    """Erase the person's executions, one per `next`, until none is left but those that failed.

    Executions started meanwhile are erased too. One whose partner is being called is tried for some
    seconds; those with steps to be undone come last, and are waited for `wait_seconds` in all. `force`
    also erases what failed to be undone.
    """
    theirs = WorkflowExecution.objects.owned_by(user_id).order_by("id")
    if dry_run:
        for found in theirs.only("id", "status").iterator():
            yield _would_be_erased(found, force=force)
        return
    erasure = _Erasure(user_id, marker or new_marker(), force=force, sleep=sleep)
    seen: list[UUID] = []
    undoing: list[Erased] = []
    while (row := theirs.exclude(pk__in=seen).only("id", "status").first()) is not None:
        erased = erasure.of(row.id, was_live=row.is_live)
        if erased.outcome is ErasureOutcome.FAILED:
            seen.append(row.id)
        if erased.error == STILL_UNDOING:
            undoing.append(erased)
        else:
            yield erased
    deadline = clock() + wait_seconds
    for before in undoing:
        now = before
        while now.error == STILL_UNDOING and clock() < deadline:
            sleep(PAUSE_SECONDS)
            now = erasure.of(before.execution_id, was_live=before.was_live)
        yield now


def _would_be_erased(row: WorkflowExecution, *, force: bool) -> Erased:
    """As far as it can be known before: what ending it would bring about is not."""
    lost = 0 if row.is_live else _count_lost(row.id)
    if lost and not force:
        return Erased(row.id, row.is_live, ErasureOutcome.FAILED, NEEDS_FORCE, lost)
    return Erased(row.id, row.is_live, ErasureOutcome.WOULD_BE_ERASED, lost=lost)


@dataclass(frozen=True, slots=True)
class _Erasure:
    """One person's erasure, an execution at a time."""

    user_id: str
    marker: str
    force: bool
    sleep: Callable[[float], None]

    def of(self, execution_id: UUID, *, was_live: bool) -> Erased:
        """End it and erase it, or say why not."""
        error: str = ExecutionBusy().message
        for attempt in range(TRIES):
            if attempt:
                self.sleep(PAUSE_SECONDS)
            try:
                _end(execution_id, user_id=self.user_id)
                get_session_store().clear_session(session_id_of(execution_id))
            except ExecutionNotFound:
                # somebody else has just erased it
                return Erased(execution_id, was_live, ErasureOutcome.ERASED)
            except SessionUnavailable as unavailable:
                error = unavailable.message
                break
            except ExecutionBusy as busy:
                error = busy.message
                continue
            left = _erase_rows(execution_id, self)
            if left is not None:
                error, lost = left
                outcome = ErasureOutcome.FAILED if error else ErasureOutcome.ERASED
                return Erased(execution_id, was_live, outcome, error, lost)
        return Erased(execution_id, was_live, ErasureOutcome.FAILED, error)


def _end(execution_id: UUID, *, user_id: str) -> None:
    """Let it be over, by the door that the person would use."""
    with suppress(ExecutionEnded, SessionExpired):
        executor.cancel_execution(
            execution_id,
            user_id=user_id,
            reason=CANCEL_REASON,
            idempotency_key=None,
            now=timezone.now(),
        )
    # Nobody will repeat a submission that failed: its time is over now.
    submission.give_up(execution_id, at_once=True)


def _erase_rows(execution_id: UUID, erasure: _Erasure) -> tuple[str, int] | None:
    """Take everything personal out of its rows that is not needed any more, the person's id last.

    Why something is left ("" when nothing is), and how many runs are, or would be, beyond help. None
    when it came back to life. The sequence moves on, so that a replay that has read the request
    before cannot send it any more.
    """
    theirs = WorkflowExecution.objects.filter(pk=execution_id, user_id=erasure.user_id)
    runs = StepRun.objects.filter(execution_id=execution_id)
    with transaction.atomic():
        ended = theirs.filter(completed_at__isnull=False, lease_holder=None)
        if not ended.update(**_ERASED_COLUMNS):
            return None if theirs.exists() else ("", 0)
        OperatorAction.objects.filter(execution_id=execution_id).update(reason="", about="")
        if erasure.force:
            _call_off_blocked(runs)
        lost = _count_lost(execution_id)
        needed = Q(finished_at__isnull=True)
        if lost and not erasure.force:
            needed |= _LOST | Q(sealed_compensation__isnull=False)
        runs.filter(needed).update(**_EMPTY)
        runs.exclude(needed).update(**_ALL_EMPTY)
        # Looked at after the runs are locked: what was queued again meanwhile is needed, too.
        error = STILL_UNDOING if runs.filter(finished_at__isnull=True).exists() else ""
        if not error and lost and not erasure.force:
            error = NEEDS_FORCE
        if not error:
            theirs.update(user_id=erasure.marker)
    return error, lost


_ERASED_COLUMNS: dict[str, object] = {
    "sequence": F("sequence") + 1,
    "page_id": "",
    "result": None,
    "submitted_payload": None,
    "error": "",
    "cancel_reason": Case(
        When(cancel_reason=CANCEL_REASON, then=F("cancel_reason")), default=Value("")
    ),
    "idempotency_key": None,
    "arguments_hash": None,
    "sealed_start": None,
}

_LOST = Q(needs_attention=True) | Q(kind=RunKind.SUBMISSION, status=RunStatus.UNKNOWN)


def _count_lost(execution_id: UUID) -> int:
    """How many runs would be beyond help: those that need attention, and what is done and could not
    be undone any more because nobody knows whether it was paid for."""
    runs = StepRun.objects.filter(execution_id=execution_id)
    held = runs.filter(needs_attention=True).count()
    in_doubt = runs.filter(kind=RunKind.SUBMISSION, status=RunStatus.UNKNOWN)
    undoable = runs.filter(sealed_compensation__isnull=False)
    return held + (undoable.count() if in_doubt.exists() else 0)


def _call_off_blocked(runs: StepRunQuerySet) -> None:
    """Compensations that wait for one that failed will never be sent."""
    undoings = runs.filter(kind=RunKind.COMPENSATION)
    failed = undoings.filter(needs_attention=True).exclude(status__in=DONE_STATUSES)
    first = failed.order_by("sequence").values_list("sequence", flat=True).first()
    if first is not None:
        undoings.filter(
            status=RunStatus.QUEUED, lease_holder__isnull=True, sequence__gt=first
        ).update(status=RunStatus.CANCELLED, finished_at=Now(), needs_attention=True)
