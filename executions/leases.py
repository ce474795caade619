"""Leases held during a call to a partner, renewed in the background as long as the call takes.

One thread a process renews every lease the process holds, in one statement a table, three times in a
lease's life. A process that dies renews nothing, and its leases end by themselves. A lease that has
run out stays so, even if its holder wakes up again: whoever saw it run out may take it over.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from config.logs import get_logger
from executions.models import StepRun, WorkflowExecution

_log = get_logger("handrail.leases")

RENEWALS_PER_LEASE = 3
# After an error, or past a locked row, there is time for several tries before a lease ends.
TRIES_PER_LEASE = 10


class Held(NamedTuple):
    """One lease: the table and row that it stands in, and whose it is."""

    table: type[WorkflowExecution] | type[StepRun]
    row_id: UUID
    holder: UUID


class LeaseKeeper:
    """Keeps the leases of this process; `lease_keeper` is the one to use.

    Its thread begins with the first lease and ends when there was none for a while, so that a burst
    of short calls does not start one thread each.
    """

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    @contextmanager
    def holding(self, execution_id: UUID, holder: UUID) -> Iterator[None]:
        """Renew a lease that was just taken until the block is left, which gives nothing back."""
        with self._holding(Held(WorkflowExecution, execution_id, holder)):
            yield

    @contextmanager
    def holding_run(self, run_id: UUID, holder: UUID) -> Iterator[None]:
        """The same for a worker's lease of one run."""
        with self._holding(Held(StepRun, run_id, holder)):
            yield

    def is_running(self) -> bool:
        """Whether the renewing thread lives."""
        with self._lock:
            return self._thread is not None and self._thread.is_alive()

    def _forget(self) -> None:
        # A forked process has neither the thread nor the calls of its parent.
        self._lock = threading.Lock()
        self._held: set[Held] = set()
        self._thread: threading.Thread | None = None

    @contextmanager
    def _holding(self, held: "Held") -> Iterator[None]:
        self._hold(held)
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(held)

    def _hold(self, held: "Held") -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="leases", daemon=True)
                thread.start()
                self._thread = thread
            self._held.add(held)

    def _run(self) -> None:
        pause = settings.LEASE_SECONDS / RENEWALS_PER_LEASE
        while True:
            time.sleep(pause)
            with self._lock:
                held = frozenset(self._held)
                if not held:
                    self._thread = None
                    return
            renewed = _try_to_renew(held)
            parts = RENEWALS_PER_LEASE if renewed else TRIES_PER_LEASE
            pause = settings.LEASE_SECONDS / parts


def _try_to_renew(held: frozenset[Held]) -> bool:
    """Whether every lease was renewed; else it is tried again soon."""
    try:
        return _renew(held) == len(held)
    except Exception as error:  # noqa: BLE001 - without this thread every lease would end
        _log.error("leases were not renewed", leases=len(held), error=type(error).__name__)
        return False
    finally:
        # Back to the pool: between two renewals others have use for it.
        connection.close()


def _renew(held: frozenset[Held]) -> int:
    """Renew the leases that still live, by the clock they are judged by: one statement a table.

    A row that somebody else has locked is left for the next time: waiting for it would let every
    other lease of the process end. The answer is how many were renewed.
    """
    renewed = 0
    now = Now() if connection.vendor == "postgresql" else timezone.now()
    skips = connection.features.has_select_for_update_skip_locked
    for table in (WorkflowExecution, StepRun):
        ours = [each for each in held if each.table is table]
        if not ours:
            continue
        living = table.objects.filter(
            id__in=[each.row_id for each in ours],
            lease_holder__in=[each.holder for each in ours],
            lease_until__gt=now,
        )
        until = now + timedelta(seconds=settings.LEASE_SECONDS)
        with transaction.atomic():
            # As an UPDATE locks, which a run that refers to the row does not hold up.
            free = living.select_for_update(skip_locked=True, no_key=True) if skips else living
            renewed += table.objects.filter(id__in=free.values("id")).update(lease_until=until)
    return renewed


lease_keeper = LeaseKeeper()
