"""Probes: is the process alive, and can it do its work. Leaf: apps register what they need.

Every probe runs in a thread of its own and has two seconds; one that hangs is reported as such and
not started a second time, so that a dead database does not collect threads.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import connection, connections
from django.http import HttpRequest, HttpResponse, JsonResponse

from config.logs import get_logger

PROBE_SECONDS = 2.0

Probe = Callable[[], object]
_probes: dict[str, Probe] = {}
_hanging: dict[str, "_Run"] = {}
_lock = threading.Lock()
_log = get_logger("handrail.health")


def register_probe(name: str, probe: Probe) -> None:
    """Make readiness depend on `probe`, which raises when its part does not work."""
    _probes[name] = probe


def healthz(_request: HttpRequest) -> HttpResponse:
    """200 while the process answers at all."""
    return HttpResponse("ok\n", content_type="text/plain")


def readyz(_request: HttpRequest) -> HttpResponse:
    """200 when every part works, else 503; the body names the parts, the log has the reasons."""
    parts = run_probes()
    ready = all(answer == "ok" for answer in parts.values())
    return JsonResponse({"ready": ready, "parts": parts}, status=200 if ready else 503)


def run_probes() -> dict[str, str]:
    """Each part's answer (`ok`, `failed` or `timeout`), within PROBE_SECONDS altogether."""
    deadline = time.monotonic() + PROBE_SECONDS
    runs = {name: _started(name, probe) for name, probe in _probes.items()}
    return {name: run.answer(deadline) for name, run in runs.items()}


@dataclass(eq=False)
class _Run:
    """One probe at work in a daemon thread."""

    name: str
    probe: Probe
    done: threading.Event = field(default_factory=threading.Event)
    failed: bool = False

    def work(self) -> None:
        try:
            self.probe()
        except Exception as error:  # noqa: BLE001 - whatever a part raises means that it does not work
            self.failed = True
            _log.warning("probe failed", part=self.name, error=type(error).__name__)
        finally:
            connections.close_all()  # the thread's own, if the probe opened one
            with _lock:
                _hanging.pop(self.name, None)
            self.done.set()

    def answer(self, deadline: float) -> str:
        if not self.done.wait(max(0.0, deadline - time.monotonic())):
            return "timeout"
        return "failed" if self.failed else "ok"


def _started(name: str, probe: Probe) -> _Run:
    with _lock:
        if running := _hanging.get(name):
            return running
        run = _hanging[name] = _Run(name, probe)
    threading.Thread(target=run.work, name=f"probe-{name}", daemon=True).start()
    return run


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()


register_probe("database", _database)
