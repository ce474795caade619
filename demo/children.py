"""The demo's child processes: each with a log, watched, and stopped whatever happens.

Every child leads a session of its own, so a Ctrl-C is ours to handle, and ending its group ends
whatever it started itself. A signal that asks us to stop becomes a SystemExit, but never between the
start of a child and the note that it runs. Against SIGKILL, which nobody can handle, there is a
watchdog that ends the noted groups when the pipe from us breaks.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from demo.errors import DemoFailed

STOP_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOWN_LOG_LINES = 5
_WATCHDOG = """
while read -r pid; do
  if [ "$pid" = done ]; then exit; fi
  groups="$groups -$pid"
done
for group in $groups; do kill -TERM "$group"; done
"""


@dataclass(frozen=True, slots=True)
class Child:
    """One running child."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def check(self) -> None:
        """Raise DemoFailed when the child has ended."""
        code = self.process.poll()
        if code is not None:
            raise DemoFailed(
                f"The {self.name} ended by itself ({_ending(code)}).{self._last_words()}"
            )

    def output(self) -> str:
        """What a short command printed. Raises DemoFailed when it failed."""
        printed, _ = self.process.communicate()
        if self.process.returncode != 0:
            code = _ending(self.process.returncode)
            raise DemoFailed(f"The {self.name} failed ({code}).{self._last_words()}")
        return printed.decode()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_SHOWN_LOG_LINES:]
        return "\n".join([f" Its last words ({self.log}):", *lines]) if lines else ""


class Children:
    """`with Children(…) as children:` leaves none of them behind, nor after a signal."""

    def __init__(self, *, root: Path, logs: Path, environment: Mapping[str, str]) -> None:
        self._root = root
        self._logs = logs
        self._environment = dict(environment)
        self._running: list[Child] = []
        self._handlers: dict[int, Any] = {}
        self._is_starting = False
        self._asked_to_stop: int | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._watchdog = subprocess.Popen(  # noqa: S603 - a script of our own
            ["/bin/sh", "-c", _WATCHDOG],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for number in (*_SIGNALS, signal.SIGALRM):
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:  # as under nohup
                self._handlers[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)  # we are stopping already
        signal.setitimer(signal.ITIMER_REAL, 0)
        for child in self._running:
            _signal_group(child, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for child in reversed(self._running):
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            _signal_group(child, signal.SIGKILL)  # and what it may have left behind
            child.process.wait()
            if child.process.stdout is not None:
                child.process.stdout.close()
        if self._watchdog is not None:
            self._watchdog.communicate(b"done\n")
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        speaks_to_us: bool,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a child. It writes to its log; `speaks_to_us`: but its standard output is a pipe.

        For what prints little only: a pipe that nobody reads blocks its writer when it is full.
        """
        path = self._logs / f"{name.replace(' ', '-')}.log"
        with path.open("wb") as log, self._signals_wait():
            process = subprocess.Popen(  # noqa: S603 - commands of our own
                command,
                cwd=self._root,
                env={**self._environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if speaks_to_us else log,
                stderr=log,
                start_new_session=True,
            )
            child = Child(name, process, path)
            self._running.append(child)
            if self._watchdog is not None and self._watchdog.stdin is not None:
                self._watchdog.stdin.write(b"%d\n" % process.pid)
                self._watchdog.stdin.flush()
        return child

    @contextmanager
    def _signals_wait(self) -> Iterator[None]:
        self._is_starting = True
        try:
            yield
        finally:
            self._is_starting = False
            if self._asked_to_stop is not None:
                raise SystemExit(128 + self._asked_to_stop)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self._asked_to_stop is None:
            self._asked_to_stop = number
            # What is raised while Python runs a finalizer is lost: then the alarm asks again.
            signal.setitimer(signal.ITIMER_REAL, _ASK_AGAIN_SECONDS, _ASK_AGAIN_SECONDS)
        if not self._is_starting:
            raise SystemExit(128 + self._asked_to_stop)


def _signal_group(child: Child, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, number)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
