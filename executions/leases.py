"""Leases held during a call to a partner, renewed in the background as long as the call takes.

One thread a process renews every lease the process holds, in one statement a table, three times in a
lease's life. A process that dies renews nothing, and its leases end by themselves. A lease that has
run out stays so, even if its holder wakes up again: whoever saw it run out may take it over. So a
holder that stood still (a stopped process, a machine that swaps) asks before it sends.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeAlias
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


IsOurs: TypeAlias = Callable[[], bool]
"""Whether a lease that is held lives for sure; asked just before anything is sent under it."""


class LeaseKeeper:
    """Keeps the leases of this process; `lease_keeper` is the one to use.

    Its thread begins with the first lease and ends when there was none for a while, so that a burst
    of short calls does not start one thread each.
    """

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    @contextmanager
    def holding(
        self, execution_id: UUID, holder: UUID, *, since: float | None = None
    ) -> Iterator[IsOurs]:
        """Renew a lease that was just taken until the block is left, which gives nothing back.

        `since` is the monotonic time, in seconds, just before it was taken; now, when not given. The
        block is told a function that says whether the lease lives for sure.
        """
        with self._holding(Held(WorkflowExecution, execution_id, holder), since) as is_ours:
            yield is_ours

    @contextmanager
    def holding_run(
        self, run_id: UUID, holder: UUID, *, since: float | None = None
    ) -> Iterator[IsOurs]:
        """The same for a worker's lease of one run."""
        with self._holding(Held(StepRun, run_id, holder), since) as is_ours:
            yield is_ours

    def is_running(self) -> bool:
        """Whether the renewing thread lives."""
        with self._lock:
            return self._thread is not None and self._thread.is_alive()

    def _forget(self) -> None:
        # A forked process has neither the thread nor the calls of its parent.
        self._lock = threading.Lock()
        # Until when each lives for sure, on the monotonic clock.
        self._held: dict[Held, float] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def _holding(self, held: "Held", since: float | None) -> Iterator[IsOurs]:
        self._hold(held, time.monotonic() if since is None else since)
        try:
            yield lambda: time.monotonic() < self._held.get(held, 0.0)
        finally:
            with self._lock:
                self._held.pop(held, None)  # a fork has forgotten it

    def _hold(self, held: "Held", since: float) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="leases", daemon=True)
                thread.start()
                self._thread = thread
            self._held[held] = since + settings.LEASE_SECONDS

    def _run(self) -> None:
        pause = settings.LEASE_SECONDS / RENEWALS_PER_LEASE
        while True:
            time.sleep(pause)
            with self._lock:
                held = frozenset(self._held)
                if not held:
                    self._thread = None
                    return
            begun = time.monotonic()
            renewed = _try_to_renew(held)
            self._note(renewed, until=begun + settings.LEASE_SECONDS)
            parts = RENEWALS_PER_LEASE if renewed == held else TRIES_PER_LEASE
            pause = settings.LEASE_SECONDS / parts

    def _note(self, renewed: "frozenset[Held]", *, until: float) -> None:
        with self._lock:
            self._held |= {held: until for held in renewed if held in self._held}


def _try_to_renew(held: frozenset[Held]) -> frozenset[Held]:
    try:
        return _renew(held)
    except Exception as error:  # noqa: BLE001 - without this thread every lease would end
        _log.error("leases were not renewed", leases=len(held), error=type(error).__name__)
        return frozenset()
    finally:
        # Back to the pool: between two renewals others have use for it.
        connection.close()


def _renew(held: frozenset[Held]) -> frozenset[Held]:
    """Renew the leases that still live, by the clock they are judged by: one update a table.

    A row that somebody else has locked is left for the next time: waiting for it would let every
    other lease of the process end. The answer is those that were renewed.
    """
    now = Now() if connection.vendor == "postgresql" else timezone.now()
    skips = connection.features.has_select_for_update_skip_locked
    renewed: set[Held] = set()
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
            # Of one row a thread may hold a lease that is over, and another the one that lives.
            found = dict(free.values_list("id", "lease_holder"))
            table.objects.filter(id__in=found).update(lease_until=until)
        renewed |= {each for each in ours if found.get(each.row_id) == each.holder}
    return frozenset(renewed)


lease_keeper = LeaseKeeper()
