"""Counters and timers for Prometheus, and the page that shows them. Leaf: imports our log only.

Labels are words that operators and code choose (workflow and connection names, modes, outcomes):
never an id, a person, or anything a client sends, so that their number stays small.
"""

import hmac
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from config.logs import get_logger

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SLOW = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_requests = Counter("handrail_http_requests", "Requests answered.", ["route", "method", "status"])
_request_seconds = Histogram(
    "handrail_http_request_seconds", "Time to an answer.", ["route"], buckets=_FAST
)
_steps = Counter("handrail_step_runs", "Step calls worked off.", ["workflow", "mode", "outcome"])
_step_seconds = Histogram(
    "handrail_step_run_seconds", "Time of a step call.", ["workflow", "mode"], buckets=_FAST
)
_attempts = Counter(
    "handrail_trigger_attempts", "HTTP tries to partners.", ["connection", "outcome"]
)
_attempt_seconds = Histogram(
    "handrail_trigger_attempt_seconds", "Time of one try.", ["connection"], buckets=_SLOW
)
_worked_off = Counter(
    "handrail_runs_worked_off", "Runs that workers brought to an end.", ["kind", "outcome"]
)
_breakers = Gauge(
    "handrail_breaker_state",
    "A connection's breaker: 0 closed, 1 half-open, 2 open.",
    ["connection"],
    multiprocess_mode="mostrecent",
)
_callbacks = Counter("handrail_callbacks", "Callbacks that partners posted.", ["outcome"])
_started = Counter("handrail_executions_started", "Executions started.", ["workflow"])
_ended = Counter("handrail_executions_ended", "Executions ended.", ["workflow", "status"])
_expired = Counter("handrail_sessions_expired", "Sessions found past their time.", ["workflow"])

_refreshers: list[Callable[[], object]] = []
_log = get_logger("handrail.metrics")

_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


@lru_cache(maxsize=4096)  # more than there are
def _of(metric: Any, *labels: str) -> Any:
    """The metric's child for these labels; its own search takes a lock and checks each time."""
    return metric.labels(*labels)


def request_answered(*, route: str, method: str, status: int, seconds: float) -> None:
    """Count a request; `route` is the URL pattern, never the path."""
    _of(_requests, route, method if method in _METHODS else "other", str(status)).inc()
    _of(_request_seconds, route).observe(seconds)


def step_executed(*, workflow: str, mode: str, outcome: str, seconds: float) -> None:
    """Count a step call; `mode` may be SUBMISSION, `outcome` is SUCCEEDED or an error code."""
    _of(_steps, workflow, mode, outcome).inc()
    _of(_step_seconds, workflow, mode).observe(seconds)


def trigger_attempted(*, connection: str, outcome: str, seconds: float) -> None:
    """Count one HTTP try; `outcome` is an AttemptOutcome."""
    _of(_attempts, connection, outcome).inc()
    _of(_attempt_seconds, connection).observe(seconds)


def run_worked_off(*, kind: str, outcome: str) -> None:
    """Count a run that a worker ended; `kind` is a RunKind, `outcome` a status or an error code."""
    _of(_worked_off, kind, outcome).inc()


def breaker_changed(*, connection: str, state: int) -> None:
    """Show a connection's breaker as 0 (closed), 1 (half-open) or 2 (open)."""
    _breakers.labels(connection).set(state)


def callback_answered(*, outcome: str) -> None:
    """Count a callback: ACCEPTED, REPEATED, or why it was refused."""
    _of(_callbacks, outcome).inc()


def execution_started(*, workflow: str) -> None:
    _of(_started, workflow).inc()


def execution_ended(*, workflow: str, status: str) -> None:
    """Count an execution that came to COMPLETED, FAILED or CANCELLED."""
    _of(_ended, workflow, status).inc()


def session_expired(*, workflow: str) -> None:
    _of(_expired, workflow).inc()


def before_each_look(refresh: Callable[[], object]) -> None:
    """Have this called before figures are shown: for what changes without a call of ours."""
    _refreshers.append(refresh)


def metrics_view(request: HttpRequest) -> HttpResponse:
    """Every figure, for who bears METRICS_TOKEN; without a token set, in DEBUG only."""
    if not settings.METRICS_TOKEN:
        if not settings.DEBUG:
            return HttpResponse("Not found\n", status=404, content_type="text/plain")
    elif not _bears_token(request):
        answer = HttpResponse("Unauthorized\n", status=401, content_type="text/plain")
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer
    for refresh in _refreshers:
        _try(refresh)
    return HttpResponse(generate_latest(_registry()), content_type=CONTENT_TYPE_LATEST)


def _try(refresh: Callable[[], object]) -> None:
    try:
        refresh()
    except Exception as error:  # noqa: BLE001 - a door: the other figures are shown all the same
        _log.warning("figures are not fresh", error=type(error).__name__)


def _bears_token(request: HttpRequest) -> bool:
    given: str = request.META.get("HTTP_AUTHORIZATION", "")
    expected = f"Bearer {settings.METRICS_TOKEN}"
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _registry() -> CollectorRegistry:
    """This process's figures, or with PROMETHEUS_MULTIPROC_DIR those of all of the server's."""
    if not settings.PROMETHEUS_MULTIPROC_DIR:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no types
    return registry
