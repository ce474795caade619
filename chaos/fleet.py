"""Processes of one kind that are killed and replaced, as a supervisor would replace them."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from chaos.evidence import Disturbance
from executions.tests.servers import WebServer, WorkerProcess


@dataclass(slots=True)
class Diary:
    """What was broken, and when; safe to write from many threads."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _entries: list[Disturbance] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Something is broken from now on."""
        with self._lock:
            self._entries.append(Disturbance(time.time(), what))

    @property
    def entries(self) -> list[Disturbance]:
        """Everything so far, in its order."""
        with self._lock:
            return list(self._entries)

    def count(self, what: str) -> int:
        """How often this was broken."""
        return sum(each.what == what for each in self.entries)


class Fleet:
    """`size` processes of one kind; `with Fleet(…):` gives one of them ready."""

    def __init__(
        self, make: Callable[[], WebServer | WorkerProcess], *, size: int, diary: Diary
    ) -> None:
        self._make = make
        self._size = size
        self._diary = diary
        self._members: list[WebServer | WorkerProcess] = []

    def __enter__(self) -> Self:
        try:
            for _ in range(self._size):
                self._add()
            self.wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    def wait_until_ready(self, *, seconds: float = 60) -> None:
        """Return when every member is at work."""
        deadline = time.monotonic() + seconds
        while not all(member.is_ready() for member in self._members):
            self._replace_dead()
            assert time.monotonic() < deadline, "the fleet does not come up"
            time.sleep(0.05)

    def kill_one(self, chance: random.Random) -> bool:
        """Kill a member that is at work, and start another.

        False when it is the last at work: without load there is nothing to break.
        """
        self._replace_dead()
        at_work = [member for member in self._members if member.is_alive and member.is_ready()]
        if len(at_work) < min(2, self._size):
            return False
        victim = chance.choice(at_work)
        self._diary.note(victim.name)
        victim.kill()
        self._replace_dead()
        return True

    def _add(self) -> None:
        member = self._make()
        self._members.append(member)
        member.launch()

    def _replace_dead(self) -> None:
        for member in [each for each in self._members if not each.is_alive]:
            member.end()
            self._members.remove(member)
            self._add()

    def _end(self) -> None:
        for member in self._members:
            member.end()
        self._members.clear()


def kill_at_random(
    fleets: Sequence[Fleet],
    *,
    times: int,
    every_seconds: tuple[float, float],
    chance: random.Random,
    is_over: Callable[[], bool],
) -> int:
    """Kill one of each fleet so often, at random moments; how often before it was over."""
    for number in range(times):
        time.sleep(chance.uniform(*every_seconds))
        for fleet in fleets:
            while not fleet.kill_one(chance):
                if is_over():
                    return number
                time.sleep(0.05)
            time.sleep(chance.uniform(0, every_seconds[0]))
        if is_over():
            return number + 1
    return times


@contextlib.contextmanager
def in_background(work: Callable[[threading.Event], None]) -> Iterator[threading.Event]:
    """Do this beside the block, which ends it by the event; what it raises, the block's end raises."""
    stopping = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work(stopping)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run, name="chaos", daemon=True)
    thread.start()
    try:
        yield stopping
    finally:
        stopping.set()
        thread.join()
    if errors:
        raise errors[0]
