"""The loop of `run_worker`: takes runs as threads get free, and sweeps every few seconds.

Wake-ups are looked for twenty times a second, because a person may be waiting. What no wake-up names
(the next attempt of a run, a callback's deadline, the run of a worker that died) is due by its row,
and looked for twice a second. Some threads are kept from each single connection, so that a partner
that hangs does not hold up the others.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from config.logs import get_logger
from executions import sweeping, tasks, worker
from executions.surroundings import Surroundings
from executions.sweeping import SweepOutcome, Swept
from executions.worker import Claim, Share

POLL_SECONDS = 0.05
DUE_POLL_SECONDS = 0.5
GRACE_SECONDS = 30.0
"""So long a stopping worker waits for the calls that it has begun."""

_log = get_logger("handrail.worker")


@dataclass(frozen=True, slots=True)
class Sweep:
    """One kind of sweeping, and how often it is done."""

    every_seconds: float
    items: Callable[[], Iterable[Swept]]


DEAD_CALLS = (
    Sweep(2.0, sweeping.take_over_stranded),
    Sweep(2.0, sweeping.park_poisonous),
)
LEFT_BEHIND = (
    Sweep(5.0, sweeping.expire_overdue),
    Sweep(5.0, sweeping.undo_final_failures),
    Sweep(5.0, sweeping.tell_outcomes),
    Sweep(60.0, sweeping.delete_expired_sessions),
)
COUNTS = (Sweep(60.0, sweeping.count_days_when_due),)

SWEEPS = (DEAD_CALLS, LEFT_BEHIND, COUNTS)
"""Each in a thread of its own: somebody waits for a dead call, while 100,000 executions that expired
together take minutes to end, and a long past as long to count."""


class WorkerLoop:
    """Works runs off in `threads` threads until `stop` is called.

    `run` returns when the calls that were begun have ended, True, or after GRACE_SECONDS, False: the
    leases of what is left run out, and another worker takes it.
    """

    def __init__(self, *, threads: int, world: Surroundings | None = None) -> None:
        self._threads = threads
        self._world = world
        self._changed = threading.Condition()
        self._busy: Counter[str] = Counter()
        self._suspects = 0
        self._is_stopping = threading.Event()
        self._next_due_poll = 0.0
        # A quarter of the threads is kept from each connection, for the others.
        most = max(1, threads - max(1, threads // 4))
        self._most = min(most, settings.CONNECTION_MAX_CALLS)

    def stop(self) -> None:
        """Begin nothing more. May be called from a signal handler."""
        self._is_stopping.set()

    def run(self, *, sweeps: bool = True) -> bool:
        """Work until stopped."""
        for kinds in SWEEPS if sweeps else ():
            threading.Thread(target=self._sweep, args=(kinds,), name="sweeper", daemon=True).start()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="worker")
        while not self._is_stopping.is_set():
            if not self._round(pool):
                with self._changed:
                    self._changed.wait(POLL_SECONDS)
        connection.close()
        return self._end(pool)

    def _end(self, pool: ThreadPoolExecutor) -> bool:
        deadline = time.monotonic() + GRACE_SECONDS
        with self._changed:
            while self._busy.total() and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            is_done = not self._busy.total()
        pool.shutdown(wait=is_done, cancel_futures=True)
        return is_done

    def _round(self, pool: ThreadPoolExecutor) -> bool:
        """Take what there is for the free threads; whether there was anything."""
        with self._changed:
            if self._busy.total() >= self._threads:
                self._changed.wait(POLL_SECONDS)
            free = self._threads - self._busy.total()
            share = Share(self._most, dict(self._busy), has_suspect=self._suspects > 0)
        if free <= 0:
            return True
        try:
            claims = self._claims(free, share)
        except Exception as error:  # noqa: BLE001 - a door: the database may be away for a while
            _log.error("runs cannot be taken", error=type(error).__name__)
            connection.close()
            self._is_stopping.wait(1.0)
            return True
        for claim in claims:
            with self._changed:
                self._busy[claim.connection] += 1
                self._suspects += claim.is_suspect
            pool.submit(self._work, claim)
        return bool(claims)

    def _claims(self, free: int, share: Share) -> list[Claim]:
        claims = worker.claim_woken(tasks.take_woken(free), share=share)
        if len(claims) < free and time.monotonic() >= self._next_due_poll:
            due = worker.claim_due(free - len(claims), share=share.less(claims))
            # More may be waiting, also behind those of a connection that is full now: look at once.
            pause = 0.0 if due else DUE_POLL_SECONDS
            self._next_due_poll = time.monotonic() + pause
            claims += due
        return claims

    def _work(self, claim: Claim) -> None:
        try:
            worker.work(claim, world=self._world)
        except Exception as error:  # noqa: BLE001 - a door: what else breaks off must not end the loop
            # The lease runs out, and the run is taken again, five times at most.
            _log.exception("run broke off", run=str(claim.run_id), error=type(error).__name__)
        finally:
            connection.close()
            with self._changed:
                if self._busy[claim.connection] >= self._most:
                    self._next_due_poll = 0.0  # runs of this connection may wait for its share
                self._busy[claim.connection] -= 1
                self._suspects -= claim.is_suspect
                self._changed.notify_all()

    # --- sweeping ---------------------------------------------------------------------------------

    def _sweep(self, kinds: tuple[Sweep, ...]) -> None:
        due = dict.fromkeys(kinds, 0.0)
        while not self._is_stopping.wait(0.25):
            for sweep in kinds:
                if time.monotonic() >= due[sweep]:
                    self._sweep_once(sweep)
                    due[sweep] = time.monotonic() + sweep.every_seconds

    def _sweep_once(self, sweep: Sweep) -> None:
        try:
            done = sum(_until(self._is_stopping, sweep.items()))
        except Exception as error:  # noqa: BLE001 - a door: the next sweep comes
            _log.error("sweep broke off", error=type(error).__name__)
        else:
            if done:
                _log.info("swept", items=done)
        finally:
            connection.close()


def _until(stopping: threading.Event, items: Iterable[Swept]) -> Iterator[int]:
    """How many were done by each item, until somebody wants to stop."""
    for item in items:
        yield item.count if item.outcome is SweepOutcome.DONE else 0
        if stopping.is_set():
            return
