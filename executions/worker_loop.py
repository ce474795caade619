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
GRACE_SECONDS = 30
"""So long a stopping worker waits for the calls that it has begun, if nobody says otherwise."""

SAME_STOP_SECONDS = 1.0
"""What asks a second time within this is the same wish: Ctrl-C reaches the whole group, and then
whoever started us passes it on."""

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

    `run` returns when the calls that were begun have ended, True, or when `grace_seconds` are over,
    False: what is left was handed back, and is not waited for. Its threads are at it still, so who
    called it ends the process, or a second call of the partner comes while the first one is heard.
    """

    def __init__(
        self,
        *,
        threads: int,
        grace_seconds: float = GRACE_SECONDS,
        world: Surroundings | None = None,
    ) -> None:
        self._threads = threads
        self._grace_seconds = grace_seconds
        self._world = world
        self._changed = threading.Condition()
        self._held: set[Claim] = set()
        self._is_stopping = threading.Event()
        self._stopped_at = 0.0
        self._is_hurried = False
        self._next_due_poll = 0.0
        # A quarter of the threads is kept from each connection, for the others; of two or three one.
        most = max(1, threads - max(1, threads // 4))
        self._most = min(most, settings.CONNECTION_MAX_CALLS)

    def stop(self) -> None:
        """Begin nothing more; asked again, wait for nothing. May be called from a signal handler."""
        now = time.monotonic()
        if not self._is_stopping.is_set():
            self._stopped_at = now
            self._is_stopping.set()
        elif now - self._stopped_at >= SAME_STOP_SECONDS:
            self._is_hurried = True

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
        deadline = time.monotonic() + self._grace_seconds
        with self._changed:
            while self._held and not self._is_hurried and time.monotonic() < deadline:
                self._changed.wait(POLL_SECONDS)
            left = frozenset(self._held)
        pool.shutdown(wait=not left)
        if left:
            self._hand_back(left)
        return not left

    def _hand_back(self, claims: frozenset[Claim]) -> None:
        try:
            count = worker.hand_back(claims)
        except Exception as error:  # noqa: BLE001 - a door: the leases run out, too
            _log.error("runs were not handed back", error=type(error).__name__)
        else:
            _log.warning("runs handed back", runs=count)
        finally:
            connection.close()

    def _round(self, pool: ThreadPoolExecutor) -> bool:
        """Take what there is for the free threads; whether there was anything."""
        with self._changed:
            if len(self._held) >= self._threads:
                self._changed.wait(POLL_SECONDS)
            free = self._threads - len(self._held)
            busy = Counter(claim.connection for claim in self._held)
            has_suspect = any(claim.is_suspect for claim in self._held)
        if free <= 0:
            return True
        begun = 0
        try:
            for claims in self._taken(free, Share(self._most, busy, has_suspect=has_suspect)):
                begun += self._begin(claims, pool)
        except Exception as error:  # noqa: BLE001 - a door: the database may be away for a while
            _log.error("runs cannot be taken", error=type(error).__name__)
            connection.close()
            time.sleep(1.0)  # not by the event, which a signal handler of this thread may set
            return True
        return begun > 0

    def _taken(self, free: int, share: Share) -> Iterator[list[Claim]]:
        """What was woken, then what is due. Each to be begun at once: the next look may fail."""
        woken = worker.claim_woken(tasks.take_woken(free), share=share)
        yield woken
        if len(woken) < free and time.monotonic() >= self._next_due_poll:
            due = worker.claim_due(free - len(woken), share=share.less(woken))
            # More may be waiting, also behind those of a connection that is full now: look at once.
            pause = 0.0 if due else DUE_POLL_SECONDS
            self._next_due_poll = time.monotonic() + pause
            yield due

    def _begin(self, claims: list[Claim], pool: ThreadPoolExecutor) -> int:
        with self._changed:
            self._held.update(claims)
        for claim in claims:
            pool.submit(self._work, claim)
        return len(claims)

    def _work(self, claim: Claim) -> None:
        try:
            worker.work(claim, world=self._world)
        except Exception as error:  # noqa: BLE001 - a door: what else breaks off must not end the loop
            # The lease runs out, and the run is taken again, five times at most.
            _log.exception("run broke off", run=str(claim.run_id), error=type(error).__name__)
        finally:
            connection.close()
            with self._changed:
                if self._is_full(claim.connection):
                    self._next_due_poll = 0.0  # runs of this connection may wait for its share
                self._held.discard(claim)
                self._changed.notify_all()

    def _is_full(self, name: str) -> bool:
        return sum(claim.connection == name for claim in self._held) >= self._most

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
