"""Real server processes for tests, and a phone that calls them over the network.

A server is granian as `script/server` starts it, on a free port of the loopback, over the database
of the running test. Whatever happens to the test or its process, the server is ended.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Barrier
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.utils import timezone

from config.identity import issue_token
from config.jsonvalues import JsonObject, JsonValue
from config.killpoints import VARIABLE
from executions.enums import RunStatus
from executions.models import StepRun, WorkflowExecution
from executions.session_store import get_session_store
from executions.tests.phone import ROOT, flow, form, published, server_step
from sandbox.ledger import Call
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow

LEASE_SECONDS = 1
READY_SECONDS = 30.0
CALL_SECONDS = 60.0
THREADS = 32
_LONGEST_OUTPUT = 1 << 26
TRANSFER, SUBMIT = "/api/transactions/transfer", "/api/payments/submit"
PAYMENT: JsonObject = {"amount": 50, "recipientAccount": "9876543210"}

# Ends the group of the server when the test's process is gone: then nobody holds its input open.
_WATCHDOG = 'read -r _; kill -KILL "-$1"'

Answer = TypeVar("Answer")


class LineLost(Exception):
    """The server went away before it answered."""


def database_url() -> str:
    """The running test's database, as another process is told it."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


class Doorstep(Protocol):
    """Where a phone calls: a port of the loopback."""

    @property
    def port(self) -> int: ...


class _HandrailProcess(ABC):
    """A process of Handrail; `with …:` gives it ready, and ends it with all its children.

    `kill_point` lets it die there. `kill()` ends it as a power cut would, `frozen()` stops its
    clock. Without `lease_seconds` the default holds; `settings_changed` come last.
    """

    name = "process"

    def __init__(
        self,
        *,
        partner_url: str,
        kill_point: str = "",
        database: str | None = None,
        redis: str | None = None,
        lease_seconds: int | None = LEASE_SECONDS,
        **settings_changed: str,
    ) -> None:
        self._environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "ENV_FILE": "",
            "DEBUG": "1",
            "DATABASE_URL": database_url() if database is None else database,
            "REDIS_URL": settings.REDIS_URL if redis is None else redis,
            "TRIGGER_BASE_URL": partner_url,
            "BREAKER_FAILURES": "1000000",
            "RATE_LIMIT_USER": "1000000/minute",
            "RATE_LIMIT_ADDRESS": "1000000/minute",
            "PYTHONUNBUFFERED": "1",
            VARIABLE: kill_point,
        }
        if lease_seconds is not None:
            self._environment["LEASE_SECONDS"] = str(lease_seconds)
        self._environment |= settings_changed
        self._held = contextlib.ExitStack()
        self._told = 0

    def __enter__(self) -> Self:
        self.launch()
        try:
            self._wait_until_ready()
        except BaseException:
            print(self.output)  # noqa: T201 - pytest shows it beside the failure
            self.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.tell_output()
        self.end()

    @property
    def output(self) -> str:
        """Everything that the process has written so far."""
        # Read in place: the process writes where our common offset stands.
        return os.pread(self._log.fileno(), _LONGEST_OUTPUT, 0).decode(errors="replace")

    def tell_output(self) -> None:
        """Print what is new of the output; pytest shows it when the test has failed."""
        output = self.output
        print(output[self._told :])  # noqa: T201
        self._told = len(output)

    def kill(self) -> None:
        """End every process of it, at once and without a chance to tidy up."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def terminate(self) -> None:
        """Ask it to end, as a supervisor does."""
        self._process.send_signal(signal.SIGTERM)

    def exit_code(self, *, seconds: float = 10) -> int:
        """How it ended by itself; AssertionError when it does not in time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the {self.name} lives on") from None

    def wait_until_dead(self) -> None:
        """Return when it has ended by itself, as at a kill point; AssertionError if it does not."""
        self.exit_code()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it stand still for the block, as a machine that swaps does."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    def launch(self) -> None:
        """Start it and do not wait; whoever does this calls `end`."""
        self._log = self._held.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with it
        self._process = subprocess.Popen(
            [sys.executable, *self._command()],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "watchdog", str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        _running.append(self)

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it has come to its work."""

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self.is_ready():
            if not self.is_alive:
                raise AssertionError(f"the {self.name} ended while it started")
            if time.monotonic() > deadline:
                raise AssertionError(f"the {self.name} was not ready in time")
            time.sleep(0.02)

    def end(self) -> None:
        """Kill it, and let go of everything that was held for it."""
        if self in _running:
            _running.remove(self)
        if hasattr(self, "_process"):
            self.kill()
        if hasattr(self, "_watchdog"):
            self._watchdog.kill()
            self._watchdog.communicate()
        self._held.close()


class WebServer(_HandrailProcess):
    """A server process; `with WebServer(…) as server:` gives it ready, and ends it.

    Several may share a `port`: the kernel shares the lines among them.
    """

    name = "server"

    def __init__(self, *, port: int = 0, threads: int = THREADS, **given: Any) -> None:
        super().__init__(**given)
        self._threads = threads
        self.port = port or self._held.enter_context(reserved_port())

    def _command(self) -> list[str]:
        return [
            *("-m", "granian", "--interface", "wsgi"),
            *("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
            *("--blocking-threads", str(self._threads)),
            *("--backpressure", str(self._threads * 4)),
            *("--backlog", "1024", "config.wsgi:application"),
        ]

    def is_ready(self) -> bool:
        # The first, because on a port that several share anyone may answer.
        return "Started worker" in self.output and self._answers()

    def _answers(self) -> bool:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            line.request("GET", "/readyz")
            return line.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            line.close()


class WorkerProcess(_HandrailProcess):
    """A process of `manage.py run_worker`; `with WorkerProcess(…) as worker:` gives it at work."""

    name = "worker"

    def __init__(self, *, threads: int = 8, arguments: Sequence[str] = (), **given: Any) -> None:
        super().__init__(**given)
        self._arguments = ["--threads", str(threads), *arguments]

    def _command(self) -> list[str]:
        return ["manage.py", "run_worker", *self._arguments]

    def is_ready(self) -> bool:
        return "Working with" in self.output


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that nobody else is given in the block; servers share it with us."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        yield port


_running: list[_HandrailProcess] = []


def tell_outputs() -> None:
    """Print what every running process has written since it was asked last."""
    for process in _running:
        process.tell_output()


# --- the phone ------------------------------------------------------------------------------------

_EXECUTION = "execution { id status currentStep { order } }"
_ANSWER = f"success result error errorCode retryable retryAfterMs {_EXECUTION}"
START = """
mutation Start($workflowId: ID!, $pageId: ID!, $initialContext: JSON, $key: String) {
  startWorkflowExecution(
    workflowId: $workflowId, pageId: $pageId, initialContext: $initialContext, idempotencyKey: $key
  ) { id status }
}"""
STEP = f"""
mutation Step($id: ID!, $stepId: ID!, $input: JSON, $timing: TriggerTiming!, $key: String) {{
  executeWorkflowStep(
    executionId: $id, stepId: $stepId, input: $input, timing: $timing, idempotencyKey: $key
  ) {{ shouldProceed {_ANSWER} }}
}}"""
COMPLETE = f"""
mutation Complete($id: ID!, $key: String) {{
  completeWorkflowExecution(executionId: $id, idempotencyKey: $key) {{ {_ANSWER} }}
}}"""
CANCEL = """
mutation Cancel($id: ID!, $reason: String, $key: String) {
  cancelWorkflowExecution(executionId: $id, reason: $reason, idempotencyKey: $key) { id status }
}"""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back over the line, and after how long."""

    status: int
    body: dict[str, Any]
    seconds: float

    @property
    def data(self) -> dict[str, Any]:
        """The answer of the one operation that was asked; it must have been executed."""
        assert self.status == 200, self
        assert "errors" not in self.body, self
        (value,) = self.body["data"].values()
        answer: dict[str, Any] = value
        return answer

    @property
    def code(self) -> str | None:
        """The `extensions.code` of the error that came instead of an answer, or its `errorCode`."""
        if any((self.body.get("data") or {}).values()):
            return self.data.get("errorCode")
        (error,) = self.body["errors"]
        code: str = error["extensions"]["code"]
        return code

    @property
    def is_retryable(self) -> bool:
        """Whether it tells the app to send the same again."""
        for error in self.body.get("errors", []):
            return error["extensions"].get("retryable") is True
        return self.data.get("retryable") is True


def send(server: Doorstep, query: str, *, user_id: str = "alice", **variables: Any) -> Reply:
    """One operation over a line of its own. Raises LineLost."""
    started = time.monotonic()
    with asked(server, query, user_id=user_id, **variables) as line:
        try:
            answer = line.getresponse()
            content = answer.read()
        except (ConnectionError, http.client.HTTPException) as error:
            raise LineLost from error
    return Reply(answer.status, json.loads(content), time.monotonic() - started)


@contextlib.contextmanager
def asked(
    server: Doorstep, query: str, *, user_id: str = "alice", **variables: Any
) -> Iterator[http.client.HTTPConnection]:
    """The line on which an operation was asked; left, it is closed, answered or not."""
    token = issue_token(user_id, scopes=(), ttl_seconds=600, now=timezone.now())
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"query": query, "variables": variables})
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=CALL_SECONDS)
    try:
        line.request("POST", "/graphql", body, headers)
        yield line
    finally:
        line.close()


@dataclass(frozen=True, slots=True)
class RemotePhone:
    """A person who walks one execution over the network; `via` another server is the same person."""

    server: Doorstep
    execution_id: UUID
    step_ids: tuple[str, ...]
    user_id: str = "alice"

    @classmethod
    def started(
        cls,
        server: Doorstep,
        compiled: CompiledWorkflow,
        *,
        initial: JsonObject | None = None,
    ) -> Self:
        execution = start(server, compiled.workflow_id, initial=initial).data
        return cls(server, UUID(execution["id"]), tuple(step.id for step in compiled.steps))

    def via(self, server: Doorstep) -> Self:
        return replace(self, server=server)

    def step(
        self,
        index: int,
        value: JsonValue = None,
        *,
        timing: str = "AFTER_STEP",
        key: str | None = None,
    ) -> Reply:
        step_id = self.step_ids[index]
        return self._send(STEP, stepId=step_id, input=value, timing=timing, key=key)

    @contextlib.contextmanager
    def hanging_up(self, query: str, **variables: Any) -> Iterator[None]:
        """Ask, and be gone at the end of the block without having heard the answer."""
        with asked(
            self.server, query, user_id=self.user_id, id=str(self.execution_id), **variables
        ):
            yield

    def complete(self, key: str | None = None) -> Reply:
        return self._send(COMPLETE, key=key)

    def cancel(self, reason: str | None = None, key: str | None = None) -> Reply:
        return self._send(CANCEL, reason=reason, key=key)

    def _send(self, query: str, **variables: Any) -> Reply:
        return send(
            self.server, query, user_id=self.user_id, id=str(self.execution_id), **variables
        )

    @property
    def row(self) -> WorkflowExecution:
        return WorkflowExecution.objects.get(pk=self.execution_id)

    @property
    def runs(self) -> list[StepRun]:
        return list(StepRun.objects.filter(execution_id=self.execution_id).order_by("sequence"))

    @property
    def statuses(self) -> list[str]:
        """How the runs ended, the oldest first."""
        return [run.status for run in self.runs]

    @property
    def has_session(self) -> bool:
        return get_session_store().get_session_ttl(self.row.session_id) is not None

    def assert_at_rest(self) -> None:
        """Nothing is left as if somebody were still at work."""
        row = self.row
        assert (row.lease_holder, row.lease_until) == (None, None)
        assert RunStatus.RUNNING not in self.statuses


def start(
    server: Doorstep,
    workflow_id: str,
    *,
    initial: JsonObject | None = None,
    key: str | None = None,
) -> Reply:
    """Ask for an execution."""
    return send(
        server,
        START,
        workflowId=workflow_id,
        pageId="home",
        initialContext=initial or {},
        key=key,
    )


def payment(**changes: Any) -> CompiledWorkflow:
    """A form, a transfer (with `changes` to its step), a submission."""
    transfer = server_step(1, **{"timeoutMs": 30_000, **changes})
    return published(flow(form(0), transfer, finalApi={"endpoint": SUBMIT, "timeoutMs": 30_000}))


def alice_at_transfer(server: Doorstep, compiled: CompiledWorkflow | None = None) -> RemotePhone:
    """Alice, who has filled in the form of a payment."""
    alice = RemotePhone.started(server, compiled or payment())
    assert alice.step(0, PAYMENT).data["success"]
    return alice


def alice_at_completion(server: Doorstep, compiled: CompiledWorkflow | None = None) -> RemotePhone:
    """Alice, who has made the transfer, too."""
    alice = alice_at_transfer(server, compiled)
    assert alice.step(1, PAYMENT).data["success"]
    return alice


def calls_of(bank: FakePartner, path: str, alice: RemotePhone) -> list[Call]:
    """What the partner was asked for one execution, the oldest first."""
    execution_id = str(alice.execution_id)
    return [
        call for call in bank.calls(path) if call.headers["x-workflow-execution-id"] == execution_id
    ]


def until_free(call: Callable[[], Reply], *, seconds: float = 10) -> Reply:
    """Repeat a call as an app does, as long as the answer is EXECUTION_BUSY, which is retryable."""
    deadline = time.monotonic() + seconds
    while (reply := call()).code == "EXECUTION_BUSY":
        assert reply.is_retryable, reply
        assert time.monotonic() < deadline, "busy for ever"
        time.sleep(0.05)
    return reply


def wait_until(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    """Return when the condition holds; AssertionError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def at_once(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """What the calls gave, each made by a thread of its own, all let off together."""
    barrier = Barrier(len(calls))

    def let_off(call: Callable[[], Answer]) -> Answer:
        barrier.wait(30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(let_off, calls))


class InBackground:
    """A call that goes on while the test does something else; `reply()` waits for what it gives."""

    def __init__(self, call: Callable[..., Reply], *args: Any, **kwargs: Any) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._reply = self._pool.submit(call, *args, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=kind is None)

    def reply(self, *, seconds: float = 30) -> Reply:
        """Raises what the call raised."""
        return self._reply.result(seconds)
