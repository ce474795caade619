"""What happens when nobody is looking: the dead are found, ended and, past their time, deleted.

Several kinds of work, each a generator that does one item (or one bounded batch) per `next`, in a
transaction of its own, and tells what it did. Who iterates may stop after any item, be killed in
any, and run beside others: an item that another one has taken is told as SKIPPED or not seen at
all. One that cannot be done, whatever is wrong with it, is told as FAILED and keeps nobody waiting.
With `dry_run` the same selection is told and nothing is done.

What an execution comes to is decided by `recovery.mend`, as for any other caller, by the database's
clock. No statement reads more than a page or locks more than a batch.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeAlias
from uuid import UUID

from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from config.logs import get_logger
from executions import submission, tasks, worker
from executions.enums import ErrorCode, OperatorOutcome, RunStatus
from executions.errors import ExecutionError, SessionUnavailable
from executions.models import (
    OperatorAction,
    StepRun,
    TriggerTrial,
    WorkflowExecution,
    session_id_of,
)
from executions.pacing import Pace
from executions.recovery import mend
from executions.replaying import outcome_of
from executions.rollups import roll_up, roll_up_due
from executions.session_store import get_session_store
from executions.session_store_database import DatabaseSessionStore

DEFAULT_BATCH = 200
"""Rows read by one statement of a search, and deleted by one transaction at most."""

LATE_SECONDS = 10
"""After so long a run that is due has been forgotten by its queue."""

_TOLD_AGAIN_SECONDS = 3_600

_log = get_logger("handrail.sweeping")

_Place: TypeAlias = tuple[Any, UUID]
"""An execution's place in an order: the time that it is ordered by, and its id."""


class SweepKind(StrEnum):
    """What a sweep does to what it finds."""

    TAKE_OVER = "TAKE_OVER"
    PARK = "PARK"
    EXPIRE = "EXPIRE"
    UNDO = "UNDO"
    WAKE = "WAKE"
    TELL = "TELL"
    COUNT = "COUNT"
    DELETE_EXECUTIONS = "DELETE_EXECUTIONS"
    DELETE_TRIALS = "DELETE_TRIALS"
    DELETE_SESSIONS = "DELETE_SESSIONS"


class SweepOutcome(StrEnum):
    """What came of an item. SKIPPED: somebody else has it, or it came back to life; FAILED: not now."""

    DONE = "DONE"
    WOULD_BE_DONE = "WOULD_BE_DONE"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Swept:
    """One item or batch: `ids` are the executions it was about, `count` how many rows it stands for."""

    kind: SweepKind
    outcome: SweepOutcome
    count: int
    ids: tuple[UUID, ...] = ()
    error: str = ""


def take_over_stranded(*, dry_run: bool = False, page: int = DEFAULT_BATCH) -> Iterator[Swept]:
    """Close the calls of processes that died: one execution whose lease ran out per `next`.

    A step's outcome becomes UNKNOWN, a submission leaves FAILED to be replayed.
    """
    for execution_id in _stranded(page):
        outcome = SweepOutcome.WOULD_BE_DONE
        if not dry_run:
            outcome = _mended(execution_id, is_done=_has_no_lease)
        yield Swept(SweepKind.TAKE_OVER, outcome, 1, (execution_id,))


def park_poisonous(*, dry_run: bool = False, page: int = DEFAULT_BATCH) -> Iterator[Swept]:
    """Hold runs for operators that cost their workers their lives too often: one per `next`."""
    poisonous = StepRun.objects.due().filter(
        status=RunStatus.RUNNING, claims__gte=worker.MAX_CLAIMS
    )
    for found in _run_pages(poisonous, page):
        for run_id, execution_id in found:
            outcome = SweepOutcome.WOULD_BE_DONE
            if not dry_run:
                outcome = SweepOutcome.DONE if worker.park(run_id) else SweepOutcome.SKIPPED
            yield Swept(SweepKind.PARK, outcome, 1, (execution_id,))


def undo_final_failures(*, dry_run: bool = False, page: int = DEFAULT_BATCH) -> Iterator[Swept]:
    """Undo the steps of executions whose failed submission nobody repeated in time: one per `next`."""
    overdue = WorkflowExecution.objects.filter(undo_at__lt=Now(), lease_holder__isnull=True)
    for ids in _pages(overdue, page, order="undo_at"):
        for execution_id in ids:
            outcome = SweepOutcome.WOULD_BE_DONE
            if not dry_run:
                outcome = _given_up(execution_id)
            yield Swept(SweepKind.UNDO, outcome, 1, (execution_id,))


def wake_lost(*, dry_run: bool = False, page: int = DEFAULT_BATCH) -> Iterator[Swept]:
    """Wake workers again for runs that have been due for a while and that nobody took: one per `next`.

    Those are left out whose wake-up waits in the database's queue, and whose turn has not come.
    """
    late = worker.takeable().filter(due_at__lt=Now() - timedelta(seconds=LATE_SECONDS))
    for found in _run_pages(late, page):
        woken = tasks.woken_among([run_id for run_id, _ in found])
        for run_id, execution_id in found:
            if run_id in woken:
                continue
            outcome = SweepOutcome.WOULD_BE_DONE
            if not dry_run:
                tasks.wake(run_id)
                outcome = SweepOutcome.DONE
            yield Swept(SweepKind.WAKE, outcome, 1, (execution_id,))


def expire_overdue(
    *, dry_run: bool = False, asks_sessions: bool = False, page: int = DEFAULT_BATCH
) -> Iterator[Swept]:
    """End executions whose session is gone as FAILED with SESSION_EXPIRED: one per `next`.

    Looked at are those past their time. With `asks_sessions` the store is asked about every live
    one, which also finds sessions that were lost before their time. A store that cannot answer
    ends the search with one FAILED.
    """
    try:
        for execution_id in _sessionless(page, asks_all=asks_sessions):
            outcome = SweepOutcome.WOULD_BE_DONE
            if not dry_run:
                outcome = _mended(execution_id, is_done=_has_expired)
            yield Swept(SweepKind.EXPIRE, outcome, 1, (execution_id,))
    except SessionUnavailable as error:
        yield Swept(SweepKind.EXPIRE, SweepOutcome.FAILED, 0, error=error.message)


def tell_outcomes(*, dry_run: bool = False, page: int = DEFAULT_BATCH) -> Iterator[Swept]:
    """Record what came of actions by hand that were left to a worker: one per `next`."""
    ended = StepRun.objects.filter(pk=OuterRef("run_id"), finished_at__isnull=False)
    queued = OperatorAction.objects.filter(Exists(ended), outcome=OperatorOutcome.QUEUED)
    behind = queued
    while found := list(behind.order_by("at", "id")[:page]):
        runs = StepRun.objects.in_bulk([each.run_id for each in found if each.run_id])
        for action in found:
            run = runs.get(action.run_id) if action.run_id else None
            if run is None:
                continue
            outcome = SweepOutcome.WOULD_BE_DONE
            if not dry_run:
                told = queued.filter(pk=action.pk).update(outcome=outcome_of(run))
                outcome = SweepOutcome.DONE if told else SweepOutcome.SKIPPED
            yield Swept(SweepKind.TELL, outcome, 1, (action.execution_id,))
        last = found[-1]
        behind = queued.filter(at__gte=last.at).exclude(at=last.at, id__lte=last.pk)


def count_changed_days(*, dry_run: bool = False) -> Iterator[Swept]:
    """Count for the dashboard the days that may have changed: one per `next`.

    To be done before executions are deleted. A dry run says nothing: counting changes none of them.
    """
    for _ in () if dry_run else roll_up():
        yield Swept(SweepKind.COUNT, SweepOutcome.DONE, 1)


def count_days_when_due() -> Iterator[Swept]:
    """The same, at most once a minute among all who ask."""
    for _ in roll_up_due():
        yield Swept(SweepKind.COUNT, SweepOutcome.DONE, 1)


def delete_past_retention(
    *,
    days: int,
    dry_run: bool = False,
    batch: int = DEFAULT_BATCH,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Swept]:
    """Delete executions that ended so many days ago, with all their records: one batch per `next`.

    The longest ended first; live ones never, nor those of which something is still to be done, by
    workers or by operators. Batches have at most `batch` executions, fewer where one took long
    (`Pace`). On PostgreSQL several may do this at once: none waits for a row that another one holds.
    What staff did by hand stays on record, without the reasons they gave.
    """
    to_do = Q(finished_at__isnull=True, due_at__isnull=False) | Q(needs_attention=True)
    busy = StepRun.objects.filter(to_do, execution_id=OuterRef("pk"))
    ended = WorkflowExecution.objects.filter(
        ~Exists(busy), completed_at__lt=Now() - timedelta(days=days)
    )
    if dry_run:
        would = SweepOutcome.WOULD_BE_DONE
        for page in _pages(ended, batch, order="completed_at"):
            yield Swept(SweepKind.DELETE_EXECUTIONS, would, len(page), tuple(page))
        return
    pace = Pace.up_to(batch)
    last: _Place | None = None
    while True:
        begun = clock()
        found = _delete_batch(ended, pace.size, behind=last)
        pace = pace.after(clock() - begun)
        if found:
            ids = tuple(execution_id for _, execution_id in found)
            yield Swept(SweepKind.DELETE_EXECUTIONS, SweepOutcome.DONE, len(ids), ids)
        elif last is None:
            return
        # At the end once more from the start: another one may have given back what it held.
        last = found[-1] if found else None


def delete_old_trials(
    *, days: int, dry_run: bool = False, batch: int = DEFAULT_BATCH
) -> Iterator[Swept]:
    """Delete the records of trials that were made so many days ago: one batch per `next`."""
    old = TriggerTrial.objects.filter(at__lt=Now() - timedelta(days=days))
    if dry_run:
        if count := old.count():
            yield Swept(SweepKind.DELETE_TRIALS, SweepOutcome.WOULD_BE_DONE, count)
        return
    # Their ids are made in the order of their times.
    while ids := list(old.order_by("id").values_list("id", flat=True)[:batch]):
        deleted, _ = TriggerTrial.objects.filter(pk__in=ids).delete()
        yield Swept(SweepKind.DELETE_TRIALS, SweepOutcome.DONE, deleted)


def delete_expired_sessions(
    *,
    dry_run: bool = False,
    batch: int = DEFAULT_BATCH,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Swept]:
    """Delete sessions past their time from the database's store: one batch per `next`, as above.

    In Redis they end by themselves.
    """
    store = DatabaseSessionStore()
    if dry_run:
        if count := store.count_expired():
            yield Swept(SweepKind.DELETE_SESSIONS, SweepOutcome.WOULD_BE_DONE, count)
        return
    pace = Pace.up_to(batch)
    while True:
        begun = clock()
        count = store.delete_expired(pace.size)
        pace = pace.after(clock() - begun)
        if not count:
            return
        yield Swept(SweepKind.DELETE_SESSIONS, SweepOutcome.DONE, count)


# --- what is found --------------------------------------------------------------------------------


def _run_pages(runs: QuerySet[StepRun], size: int) -> Iterator[list[tuple[UUID, UUID]]]:
    """Ids of due runs and of their executions, the longest due first, a page per statement."""
    behind = runs
    while True:
        keys = ("due_at", "pk", "execution_id")
        found = list(behind.order_by("due_at", "pk").values_list(*keys)[:size])
        if found:
            yield [(run_id, execution_id) for _, run_id, execution_id in found]
        if len(found) < size:
            return
        at, last, _ = found[-1]
        behind = runs.filter(due_at__gte=at).exclude(due_at=at, pk__lte=last)


def _stranded(page: int) -> Iterator[UUID]:
    """Executions whose call nobody renews any more: a lease is held exactly while a run is RUNNING.

    So they are found by the small index of runs that have not ended, and leases need none.
    """
    after = UUID(int=0)
    while True:
        found = list(
            StepRun.objects.filter(
                finished_at__isnull=True,
                due_at__isnull=True,
                execution__lease_until__lt=Now(),
                execution_id__gt=after,
            )
            .order_by("execution_id")
            .values_list("execution_id", flat=True)[:page]
        )
        yield from found
        if len(found) < page:
            return
        after = found[-1]


def _sessionless(page: int, *, asks_all: bool) -> Iterator[UUID]:
    """Live executions without a session, among the overdue or among all. SessionUnavailable."""
    store = get_session_store()
    executions = WorkflowExecution.objects
    looked_at = executions.live().idle() if asks_all else executions.expired()
    for ids in _pages(looked_at, page, order="started_at"):
        for execution_id in ids:
            if store.get_session_ttl(session_id_of(execution_id)) is None:
                yield execution_id


def _pages(rows: QuerySet[WorkflowExecution], size: int, *, order: str) -> Iterator[list[UUID]]:
    """The ids of the rows, `order` and id rising, a page per statement.

    A page begins behind the last one, so that rows that stay do not come again.
    """
    behind = rows
    while True:
        found = list(behind.order_by(order, "id").values_list(order, "id")[:size])
        if found:
            yield [execution_id for _, execution_id in found]
        if len(found) < size:
            return
        behind = _behind(rows, found[-1], order=order)


def _behind(
    rows: QuerySet[WorkflowExecution], last: _Place, *, order: str
) -> QuerySet[WorkflowExecution]:
    at, execution_id = last
    later = rows.filter(**{f"{order}__gte": at})
    return later.exclude(**{order: at, "id__lte": execution_id})


# --- what is done ---------------------------------------------------------------------------------


def _mended(execution_id: UUID, *, is_done: Callable[[WorkflowExecution], bool]) -> SweepOutcome:
    """Mend the execution, and read in its row what came of it, whatever was raised."""
    is_failed = False
    try:
        mend(execution_id)
    except SessionUnavailable:
        is_failed = True
    except ExecutionError:
        pass  # it has ended, or somebody else is at it: the row says which
    except Exception as error:  # noqa: BLE001 - a door: the others have to have their turn
        _put_up_with(error, execution_id)
        is_failed = True
    row = WorkflowExecution.objects.filter(pk=execution_id).first()
    if row is not None and is_done(row):
        return SweepOutcome.DONE
    return SweepOutcome.FAILED if is_failed else SweepOutcome.SKIPPED


def _given_up(execution_id: UUID) -> SweepOutcome:
    try:
        return SweepOutcome.DONE if submission.give_up(execution_id) else SweepOutcome.SKIPPED
    except Exception as error:  # noqa: BLE001 - a door: the others have to have their turn
        _put_up_with(error, execution_id)
        return SweepOutcome.FAILED


def _put_up_with(error: Exception, execution_id: UUID) -> None:
    """Tell it. Raises it when the database is away: the search would fail at each."""
    if isinstance(error, OperationalError | InterfaceError) and not connection.is_usable():
        raise error
    _tell(execution_id, type(error).__name__, int(time.monotonic() // _TOLD_AGAIN_SECONDS))


@lru_cache(maxsize=1_000)
def _tell(execution_id: UUID, error: str, _hour: int) -> None:
    """A line and a traceback an hour: sweeps come back to it every few seconds."""
    _log.exception("not swept", execution=str(execution_id), error=error)


def _has_no_lease(row: WorkflowExecution) -> bool:
    return row.lease_holder is None


def _has_expired(row: WorkflowExecution) -> bool:
    return row.error_code == ErrorCode.SESSION_EXPIRED


def _delete_batch(
    ended: QuerySet[WorkflowExecution], size: int, *, behind: _Place | None
) -> list[_Place]:
    """Delete the first of them that nobody else holds: when they ended, and their ids.

    Looked at are those `behind` the last one only: the index still leads to all that were deleted.
    """
    skips = connection.features.has_select_for_update_skip_locked
    rows = ended if behind is None else _behind(ended, behind, order="completed_at")
    with transaction.atomic():
        locked = rows.order_by("completed_at", "id").select_for_update(skip_locked=skips)
        found = list(locked.values_list("completed_at", "id")[:size])
        ids = [execution_id for _, execution_id in found]
        # A reason may name the person, and without the execution an erasure would not find it.
        OperatorAction.objects.filter(execution_id__in=ids).update(reason="", about="")
        # Deleting reads what it deletes, and payloads are large.
        WorkflowExecution.objects.filter(pk__in=ids).only("pk").delete()
    return found
