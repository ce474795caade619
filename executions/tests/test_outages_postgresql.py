"""PostgreSQL cut off and restarted, while nobody calls and while a partner works."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.forms.models import model_to_dict

from config.jsonvalues import JsonValue
from config.postgresql import POOL_TIMEOUT_SECONDS, PooledConnection
from config.testing.servers import PostgreSQL, private_servers
from executions.enums import RunStatus, WorkflowExecutionStatus
from executions.models import WorkflowExecution
from executions.tests.phone import ROOT, Phone, flow, form, published, server_step
from executions.tests.proxies import Address, FaultyProxy
from executions.tests.servers import (
    LEASE_SECONDS,
    PAYMENT,
    SUBMIT,
    TRANSFER,
    InBackground,
    RemotePhone,
    Reply,
    WebServer,
    WorkerProcess,
    alice_at_completion,
    alice_at_transfer,
    at_once,
    calls_of,
    database_url,
    payment,
    start,
    until_free,
    wait_until,
)
from executions.tests.test_async_steps import async_step
from sandbox.testing import FakePartner

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("server_output"),
    pytest.mark.skipif(
        connection.vendor != "postgresql" or not settings.REDIS_URL,
        reason="needs PostgreSQL and Redis: script/test has them in its second pass",
    ),
]

SUCCEEDED, UNKNOWN = RunStatus.SUCCEEDED, RunStatus.UNKNOWN
# One wait for a connection, and one more by what reads the execution for the answer.
BOUND_SECONDS = 2 * POOL_TIMEOUT_SECONDS + 1
MANY = 16

Fault = Callable[[FaultyProxy], None]
away = pytest.mark.parametrize(
    "fault", [FaultyProxy.refuse, FaultyProxy.cut], ids=["refuse", "cut"]
)
KEYS = (None, "k-1")


def database_address() -> Address:
    """Where the test's PostgreSQL listens."""
    url = urlsplit(database_url())
    folder = parse_qs(url.query).get("host")
    if folder:
        return f"{folder[0]}/.s.PGSQL.{url.port or 5432}"
    return url.hostname or "localhost", url.port or 5432


def through(proxy: FaultyProxy) -> str:
    """The test's database, reached through the proxy."""
    url = urlsplit(database_url())
    user, at, _ = url.netloc.rpartition("@")
    return url._replace(netloc=f"{user}{at}127.0.0.1:{proxy.port}", query="").geturl()


@pytest.fixture(scope="module")
def line(django_db_setup: None) -> Iterator[FaultyProxy]:
    with FaultyProxy(database_address()) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def web(line: FaultyProxy, bank_server: FakePartner) -> Iterator[WebServer]:
    with WebServer(partner_url=bank_server.url, database=through(line)) as server:
        yield server


@pytest.fixture
def proxy(line: FaultyProxy) -> Iterator[FaultyProxy]:
    """What stands between the server and its database; the test itself looks past it."""
    yield line
    line.pass_through()


def assert_away(reply: Reply) -> None:
    """The promised answer, in time."""
    assert (reply.code, reply.is_retryable) == ("SERVICE_UNAVAILABLE", True)
    assert reply.status in (200, 503)
    assert reply.seconds < BOUND_SECONDS


def assert_recovers(web: WebServer, workflow_id: str) -> None:
    """Soon after it is back there is an answer, and from then on every time, at every thread."""
    wait_until(lambda: is_started(start(web, workflow_id)), seconds=5)
    replies = at_once([partial(start, web, workflow_id)] * MANY)
    assert all(is_started(reply) for reply in replies)


def is_started(reply: Reply) -> bool:
    return "errors" not in reply.body


# --- while nobody calls ---------------------------------------------------------------------------


def test_restart_between_calls_is_not_noticed(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy
) -> None:
    """Every kept connection is dead: none of them is handed to a call."""
    alice = alice_at_transfer(web)
    workflow_id = str(alice.row.workflow_id)
    at_once([partial(start, web, workflow_id)] * MANY)
    for _ in range(3):
        proxy.drop()
        replies = at_once([partial(start, web, workflow_id)] * MANY)
        assert all(is_started(reply) for reply in replies)
    assert alice.step(1, PAYMENT).data["success"] is True
    proxy.drop()
    assert alice.complete().data["success"] is True


@away
def test_nothing_changes_while_it_is_away(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy, fault: Fault
) -> None:
    compiled = payment()
    alice, bob = RemotePhone.started(web, compiled), alice_at_completion(web, compiled)
    before = kept(alice), kept(bob), bob.statuses
    calls = len(bank.calls())
    fault(proxy)

    calls_while_away: list[Callable[[], Reply]] = [
        partial(start, web, compiled.workflow_id),
        partial(alice.step, 0, PAYMENT),
        partial(alice.step, 0, PAYMENT, key="k-1"),
        bob.complete,
        partial(bob.complete, "k-1"),
        alice.cancel,
    ]
    for reply in at_once(calls_while_away):
        assert_away(reply)

    assert WorkflowExecution.objects.count() == 2
    assert (kept(alice), kept(bob), bob.statuses) == before
    assert alice.runs == []
    assert len(bank.calls()) == calls
    proxy.pass_through()
    assert_recovers(web, compiled.workflow_id)
    assert alice.step(0, PAYMENT, key="k-1").data["success"] is True
    assert bob.complete("k-1").data["success"] is True


def kept(alice: RemotePhone) -> dict[str, Any]:
    """Everything that the execution's row says."""
    return model_to_dict(alice.row)


# --- while a partner works ------------------------------------------------------------------------


def test_restart_between_intent_and_outcome_is_not_noticed(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy
) -> None:
    """No connection is held meanwhile; the lease goes on being renewed over new ones."""
    alice = alice_at_transfer(web)
    with bank.hold(TRANSFER) as gate, InBackground(alice.step, 1, PAYMENT) as call:
        bank.wait_for_calls(1, TRANSFER)
        proxy.drop()
        ends = time.monotonic() + 1.5 * LEASE_SECONDS
        while time.monotonic() < ends:
            assert alice.step(1, PAYMENT).code == "EXECUTION_BUSY"
            time.sleep(0.05)
        proxy.drop()
        gate.set()
        answer = call.reply().data

    (effect,) = bank.effects(TRANSFER)
    assert answer["result"] == effect.result
    assert len(bank.calls(TRANSFER)) == 1
    assert alice.statuses == [SUCCEEDED, SUCCEEDED]
    alice.assert_at_rest()


@away
def test_outcome_that_could_not_be_recorded_is_asked_for_again(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy, fault: Fault
) -> None:
    compiled = payment()
    phones = [alice_at_transfer(web, compiled) for _ in KEYS]
    calls = [
        partial(alice.step, 1, PAYMENT, key=key) for alice, key in zip(phones, KEYS, strict=True)
    ]
    make_while_it_goes_away(calls, bank, proxy, fault, path=TRANSFER)

    for alice in phones:
        assert alice.statuses == [SUCCEEDED, RunStatus.RUNNING]
    proxy.pass_through()
    for alice, call in zip(phones, calls, strict=True):
        answer = until_answered(call).data
        assert (answer["success"], answer["result"]) == (True, asked_twice(alice, bank, TRANSFER))
        assert alice.statuses == [SUCCEEDED, UNKNOWN, SUCCEEDED]
        assert (alice.row.position, alice.row.status) == (2, WorkflowExecutionStatus.IN_PROGRESS)
        alice.assert_at_rest()
        assert alice.complete().data["success"] is True
    assert len(bank.effects(TRANSFER)) == len(phones)


def make_while_it_goes_away(
    calls: Sequence[Callable[[], Reply]],
    bank: FakePartner,
    proxy: FaultyProxy,
    fault: Fault,
    *,
    path: str,
) -> None:
    """The partner gets every call, the database is away before it answers, and the app is told."""
    with bank.hold(path, times=len(calls)) as gate, ExitStack() as stack:
        made = [stack.enter_context(InBackground(call)) for call in calls]
        bank.wait_for_calls(len(calls), path)
        fault(proxy)
        gate.set()
        for call in made:
            assert_away(call.reply())


def until_answered(call: Callable[[], Reply]) -> Reply:
    """Repeat as an app does: while the service is away, and while the execution is busy."""
    deadline = time.monotonic() + 10
    while (reply := until_free(call)).code == "SERVICE_UNAVAILABLE":
        assert time.monotonic() < deadline, "away for ever"
        time.sleep(0.05)
    return reply


def asked_twice(alice: RemotePhone, bank: FakePartner, path: str) -> JsonValue:
    """What the partner answered to the two calls that asked for the very same."""
    first, second = calls_of(bank, path, alice)
    assert (first.key, first.body) == (second.key, second.body)
    (effect,) = [effect for effect in bank.effects(path) if effect.key == first.key]
    return effect.result


@away
def test_end_that_could_not_be_recorded_is_submitted_once(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy, fault: Fault
) -> None:
    compiled = payment()
    phones = [alice_at_completion(web, compiled) for _ in KEYS]
    calls = [partial(alice.complete, key) for alice, key in zip(phones, KEYS, strict=True)]
    make_while_it_goes_away(calls, bank, proxy, fault, path=SUBMIT)

    for alice in phones:
        assert alice.row.status == WorkflowExecutionStatus.IN_PROGRESS
        assert alice.statuses == [SUCCEEDED, SUCCEEDED, RunStatus.RUNNING]
    proxy.pass_through()
    for alice, call in zip(phones, calls, strict=True):
        answer = until_answered(call).data
        result = asked_twice(alice, bank, SUBMIT)
        assert (answer["success"], answer["result"]) == (True, result)
        assert alice.statuses == [SUCCEEDED, SUCCEEDED, UNKNOWN, SUCCEEDED]
        assert (alice.row.status, alice.row.result) == (WorkflowExecutionStatus.COMPLETED, result)
        assert not alice.has_session
        alice.assert_at_rest()
    assert len(bank.effects(SUBMIT)) == len(phones)


def test_attempt_that_could_not_be_recorded_ends_the_call(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy
) -> None:
    """It goes away during the first of two attempts: there is no second one without a record."""
    retries = {"maxRetries": 1, "initialDelayMs": 0}
    alice = alice_at_transfer(web, payment(timeoutMs=500, retryConfig=retries))
    with bank.hold(TRANSFER), InBackground(alice.step, 1, PAYMENT) as call:
        bank.wait_for_calls(1, TRANSFER)
        proxy.refuse()
        assert_away(call.reply())

    assert len(bank.calls(TRANSFER)) == 1
    assert alice.statuses == [SUCCEEDED, RunStatus.RUNNING]
    proxy.pass_through()
    answer = until_answered(lambda: alice.step(1, PAYMENT)).data
    assert (answer["success"], answer["result"]) == (True, asked_twice(alice, bank, TRANSFER))
    assert alice.statuses == [SUCCEEDED, UNKNOWN, SUCCEEDED]
    alice.assert_at_rest()


# --- while it stands still ------------------------------------------------------------------------


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements have a second, and half a second more."""
    monkeypatch.setattr(PooledConnection, "longest_seconds", 1)
    monkeypatch.setattr("config.postgresql.HANG_UP_SECONDS", 0.5)


def opened(**changed: Any) -> PooledConnection:
    parameters = connection.get_connection_params() | changed
    return PooledConnection.connect(**parameters)


@pytest.mark.usefixtures("bounded")
def test_no_statement_takes_longer_than_it_may() -> None:
    with opened(autocommit=True) as line:
        began = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled):
            line.execute("SELECT pg_sleep(20)")
        assert 0.9 < time.monotonic() - began < 1.4
        assert line.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.usefixtures("bounded")
def test_what_the_url_asks_for_wins() -> None:
    with opened(options="-c statement_timeout=7s") as line:
        assert line.execute("SHOW statement_timeout").fetchone() == ("7s",)
        shown = line.execute("SHOW idle_in_transaction_session_timeout").fetchone()
        assert shown == ("1s",)


@pytest.mark.usefixtures("bounded")
def test_a_server_that_stands_still_is_hung_up_on(proxy: FaultyProxy) -> None:
    """The line is not used again: a late answer would be taken for the next one's."""
    line = opened(host="127.0.0.1", port=proxy.port, autocommit=True)
    proxy.blackhole()
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError):
        line.execute("SELECT 1")
    assert 1.4 < time.monotonic() - began < 3
    assert line.closed


@contextmanager
def locked(execution_id: UUID) -> Iterator[None]:
    """Somebody keeps the execution's row locked for the block."""
    other = connection.copy()
    other.set_autocommit(False)
    try:
        with other.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM executions_workflowexecution WHERE id = %s FOR UPDATE",
                [execution_id],
            )
        yield
    finally:
        other.rollback()
        other.close()


def test_a_row_that_stays_locked_holds_nobody_for_ever(bank: FakePartner) -> None:
    bound: dict[str, Any] = {"DATABASE_STATEMENT_SECONDS": "1"}
    with WebServer(partner_url=bank.url, database=database_url(), **bound) as server:
        compiled = payment()
        alice, bob = RemotePhone.started(server, compiled), RemotePhone.started(server, compiled)
        with locked(alice.execution_id):
            reply = alice.step(0, PAYMENT)
            assert (reply.code, reply.is_retryable) == ("SERVICE_UNAVAILABLE", True)
            assert reply.seconds < BOUND_SECONDS
            assert bob.step(0, PAYMENT).data["success"] is True
        assert alice.step(0, PAYMENT).data["success"] is True
        assert alice.statuses == [SUCCEEDED]


# --- a worker -------------------------------------------------------------------------------------


def check_of_a_worker() -> Phone:
    phone = Phone(published(flow(async_step(0, triggerEndpoint=TRANSFER, timeoutMs=30_000))))
    assert phone.step(0, PAYMENT).success
    return phone


@pytest.mark.parametrize("what", ["away", "locked"])
def test_what_a_worker_was_answered_is_recorded_later(
    bank: FakePartner, proxy: FaultyProxy, what: str
) -> None:
    """The call is not made again: the lease lives longer than the trouble."""
    phone = check_of_a_worker()
    bound: dict[str, Any] = {"DATABASE_STATEMENT_SECONDS": "1", "database": through(proxy)}
    with (
        bank.hold(TRANSFER) as gate,
        WorkerProcess(partner_url=bank.url, lease_seconds=None, **bound) as worker,
    ):
        bank.wait_for_calls(1, TRANSFER, timeout=30)
        with ExitStack() as trouble:
            if what == "away":
                proxy.refuse()
                trouble.callback(proxy.pass_through)
            else:
                trouble.enter_context(locked(phone.execution_id))
            gate.set()
            wait_until(lambda: "not recorded yet" in worker.output)
        wait_until(lambda: phone.runs[0].status == SUCCEEDED, seconds=10)
    run = phone.runs[0]
    assert (run.in_doubt, run.lease_holder, run.attempts.count()) == (False, None, 1)
    assert len(bank.calls(TRANSFER)) == 1


# --- a real restart -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    """A server of our own, which keeps what it has committed."""
    with private_servers(valkey=False, durable=True) as (server, _):
        assert server is not None
        yield server


def manage(url: str, *command: str) -> str:
    """What a management command prints, on that database."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": url,
        "DEBUG": "1",
        "ENV_FILE": "",
        "TRIGGER_BASE_URL": "http://127.0.0.1:1",
    }
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(postgresql: PostgreSQL, execution_id: UUID) -> tuple[str, bool, list[str]]:
    """The execution's status, whether it has a lease, and how its runs stand, past Django."""
    where = psycopg.connect(host=str(postgresql.folder), user="handrail", dbname="handrail")
    with where as line:
        execution = line.execute(
            "SELECT status, lease_holder FROM executions_workflowexecution WHERE id = %s",
            [execution_id],
        ).fetchone()
        runs = line.execute(
            "SELECT status FROM executions_steprun WHERE execution_id = %s ORDER BY sequence",
            [execution_id],
        ).fetchall()
    assert execution is not None
    return execution[0], execution[1] is not None, [status for (status,) in runs]


def test_real_restart_loses_nothing(
    postgresql: PostgreSQL, bank: FakePartner, tmp_path: Path
) -> None:
    """Restarted between two calls and during a submission, killed as by a power cut in between."""
    manage(postgresql.url, "migrate", "--verbosity", "0")
    workflow_id, step_ids = imported_payment(postgresql, tmp_path)
    with WebServer(partner_url=bank.url, database=postgresql.url) as web:
        execution_id = UUID(start(web, workflow_id).data["id"])
        alice = RemotePhone(web, execution_id, step_ids)
        shut_down(postgresql)
        postgresql.start()
        assert alice.step(0, PAYMENT).data["success"] is True

        with bank.hold(TRANSFER) as gate, InBackground(alice.step, 1, PAYMENT) as call:
            bank.wait_for_calls(1, TRANSFER)
            postgresql.stop()
            gate.set()
            assert_away(call.reply())
        postgresql.start()
        answer = until_answered(lambda: alice.step(1, PAYMENT)).data
        assert (answer["success"], answer["result"]) == (True, asked_twice(alice, bank, TRANSFER))

        with bank.hold(SUBMIT) as gate, InBackground(alice.complete) as call:
            bank.wait_for_calls(1, SUBMIT)
            shut_down(postgresql)
            postgresql.start()
            gate.set()
            completion = call.reply().data
        (submitted,) = bank.effects(SUBMIT)
        assert (completion["success"], completion["result"]) == (True, submitted.result)

        assert rows(postgresql, execution_id) == (
            WorkflowExecutionStatus.COMPLETED,
            False,
            [SUCCEEDED, UNKNOWN, SUCCEEDED, SUCCEEDED],
        )
        assert_recovers(web, workflow_id)
    assert len(bank.effects(TRANSFER)) == len(bank.effects(SUBMIT)) == 1


def imported_payment(postgresql: PostgreSQL, folder: Path) -> tuple[str, tuple[str, ...]]:
    """The ids of a payment's workflow and its steps, imported and published there."""
    document = folder / "flow.json"
    steps = [form(0), server_step(1, timeoutMs=30_000)]
    document.write_text(json.dumps(flow(*steps, finalApi={"endpoint": SUBMIT})))
    told = manage(postgresql.url, "import_workflow", str(document), "--publish", "--json")
    (imported,) = json.loads(told)
    return imported["id"], tuple(step["id"] for step in imported["steps"])


def shut_down(postgresql: PostgreSQL) -> None:
    """End it in order, as an administrator's restart does: the connections are cut."""
    os.kill(postgresql.pid, signal.SIGINT)
    assert postgresql._process is not None
    postgresql._process.wait(20)
    postgresql.stop()
