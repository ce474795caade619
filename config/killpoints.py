"""Places where a test lets the process die, to prove what a crash there leaves behind. Leaf.

HANDRAIL_KILL_POINT names one of POINTS, or `name:n` for its n-th time; the process then kills
itself with SIGKILL, which nothing can catch or tidy up after. Only tests set it: a system check
warns about it.
"""

import os
import signal
import threading

VARIABLE = "HANDRAIL_KILL_POINT"
POINTS = (
    "before-intent",  # decided, nothing recorded yet
    "after-intent",  # the StepRun is RUNNING, nothing sent
    "after-send",  # the partner has the request, its answer has not been read
    "after-answer",  # the answer is read, nothing written
    "after-context-write",  # the session has the result, the outcome is not recorded
    "after-record",  # an input that needs no partner is recorded, the session does not have it
    "before-submission",  # the payload is mapped, its intent not recorded
    "after-submission",  # the partner has answered the submission, the end is not recorded
    "after-rebuild",  # a lost session is about to be written again, the row has moved on
    "after-claim",  # a worker has taken a run, nothing sent
    "after-worker-answer",  # a worker has the partner's answer, nothing written
    "after-callback-record",  # a callback is kept, nothing of it applied
    "before-session-clear",  # COMPLETED is recorded, the session still stands
)


class _Countdown:
    """Counts the visits of one point and kills the process at the wanted one."""

    def __init__(self, wanted: str) -> None:
        self._name, _, nth = wanted.partition(":")
        self._left = int(nth or 1)
        self._lock = threading.Lock()
        if self._name not in POINTS:
            raise ValueError(f"{VARIABLE}: there is no point {self._name!r}")

    def visit(self, name: str) -> None:
        if name != self._name:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _pass(_name: str) -> None:
    """Where nobody wants the process to die, a point does nothing."""


_wanted = os.environ.get(VARIABLE, "")
reached = _Countdown(_wanted).visit if _wanted else _pass
