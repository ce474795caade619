"""A person's data leaves executions and sessions; what happened stays countable, without the person.

One execution at a time: a live one is cancelled first, then its session is cleared, then, in one
transaction, everything personal leaves its rows and the person's id with it. The id goes last
because it is how the rest is found: whatever this is interrupted by, the next call finds what is
left. Nothing here logs who was erased.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from django.db import transaction
from django.db.models import Case, F, Value, When
from django.utils import timezone

from executions import executor
from executions.errors import (
    ExecutionBusy,
    ExecutionEnded,
    ExecutionNotFound,
    SessionExpired,
    SessionUnavailable,
)
from executions.models import OperatorAction, StepRun, WorkflowExecution, session_id_of
from executions.session_store import get_session_store
from workflows.errors import WorkflowError

MARKER_PREFIX = "erased:"
CANCEL_REASON = "The person's data was erased."
TRIES = 10
PAUSE_SECONDS = 0.5


class ErasureOutcome(StrEnum):
    """What came of one execution. FAILED: its data is still there; run the erasure again."""

    ERASED = "ERASED"
    WOULD_BE_ERASED = "WOULD_BE_ERASED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Erased:
    """One execution: how it stood when it was found (`was_live`), and what came of it."""

    execution_id: UUID
    was_live: bool
    outcome: ErasureOutcome
    error: str = ""


def new_marker() -> str:
    """What stands in an erased person's place: random, so that it leads back to nobody."""
    return MARKER_PREFIX + secrets.token_hex(8)


def erase_executions(
    user_id: str,
    *,
    dry_run: bool = False,
    marker: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Erased]:
    """Erase the person's executions, one per `next`, until none is left but those that failed.

    Executions started meanwhile are erased too. One whose partner is being called is tried for some
    seconds.
    """
    theirs = WorkflowExecution.objects.owned_by(user_id).order_by("id")
    if dry_run:
        for found in theirs.only("id", "status").iterator():
            yield Erased(found.id, found.is_live, ErasureOutcome.WOULD_BE_ERASED)
        return
    marker = marker or new_marker()
    failed: list[UUID] = []
    while (row := theirs.exclude(pk__in=failed).only("id", "status").first()) is not None:
        error = _erased(row.id, user_id=user_id, marker=marker, sleep=sleep)
        if error:
            failed.append(row.id)
        outcome = ErasureOutcome.FAILED if error else ErasureOutcome.ERASED
        yield Erased(row.id, row.is_live, outcome, error)


def _erased(
    execution_id: UUID, *, user_id: str, marker: str, sleep: Callable[[float], None]
) -> str:
    """Why it could not be erased; "" when nothing of the person is left in it."""
    error: WorkflowError = ExecutionBusy()
    for attempt in range(TRIES):
        if attempt:
            sleep(PAUSE_SECONDS)
        try:
            _end(execution_id, user_id=user_id)
            get_session_store().clear_session(session_id_of(execution_id))
        except ExecutionNotFound:
            return ""  # somebody else has just erased it
        except SessionUnavailable as unavailable:
            return unavailable.message
        except ExecutionBusy as busy:
            error = busy
            continue
        if _erase_rows(execution_id, user_id=user_id, marker=marker):
            return ""
    return error.message


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


def _erase_rows(execution_id: UUID, *, user_id: str, marker: str) -> bool:
    """Take everything personal out of its rows. False when it came back to life or is not theirs.

    The sequence moves on, so that a replay that has read the request before cannot send it any more.
    """
    ended = WorkflowExecution.objects.filter(
        pk=execution_id, user_id=user_id, completed_at__isnull=False, lease_holder=None
    )
    own_reason = When(cancel_reason=CANCEL_REASON, then=F("cancel_reason"))
    with transaction.atomic():
        erased = ended.update(
            user_id=marker,
            sequence=F("sequence") + 1,
            page_id="",
            result=None,
            submitted_payload=None,
            error="",
            cancel_reason=Case(own_reason, default=Value("")),
            idempotency_key=None,
            arguments_hash=None,
        )
        if not erased:
            return not WorkflowExecution.objects.filter(pk=execution_id, user_id=user_id).exists()
        StepRun.objects.filter(execution_id=execution_id).update(
            input_hash=None,
            sealed_request=None,
            client_key=None,
            arguments_hash=None,
            sealed_answer=None,
            result=None,
            error="",
        )
        OperatorAction.objects.filter(execution_id=execution_id).update(reason="", about="")
    return True
