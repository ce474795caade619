"""PostgreSQL cut off and restarted, while nobody calls and while a partner works."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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

from config.postgresql import POOL_TIMEOUT_SECONDS
from config.testing.servers import PostgreSQL, private_servers
from executions.enums import RunStatus, WorkflowExecutionStatus
from executions.models import WorkflowExecution
from executions.tests.phone import ROOT, flow, form, server_step
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
    alice_at_completion,
    alice_at_transfer,
    at_once,
    database_url,
    payment,
    start,
    until_free,
    wait_until,
)
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
with_and_without_key = pytest.mark.parametrize("key", [None, "k-1"], ids=["no-key", "key"])


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


@with_and_without_key
def test_restart_between_intent_and_outcome_is_not_noticed(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy, key: str | None
) -> None:
    """No connection is held meanwhile; the lease goes on being renewed over new ones."""
    alice = alice_at_transfer(web)
    with bank.hold(TRANSFER) as gate, InBackground(alice.step, 1, PAYMENT, key=key) as call:
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
@with_and_without_key
def test_outcome_that_could_not_be_recorded_is_asked_for_again(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy, fault: Fault, key: str | None
) -> None:
    alice = alice_at_transfer(web)
    with bank.hold(TRANSFER) as gate, InBackground(alice.step, 1, PAYMENT, key=key) as call:
        bank.wait_for_calls(1, TRANSFER)
        fault(proxy)
        gate.set()
        assert_away(call.reply())

    assert alice.statuses == [SUCCEEDED, RunStatus.RUNNING]
    proxy.pass_through()
    answer = until_answered(lambda: alice.step(1, PAYMENT, key=key)).data
    (effect,) = bank.effects(TRANSFER)
    assert (answer["success"], answer["result"]) == (True, effect.result)
    assert [(call.key, call.body) for call in bank.calls(TRANSFER)] == [
        (effect.key, effect.body)
    ] * 2
    assert alice.statuses == [SUCCEEDED, UNKNOWN, SUCCEEDED]
    assert (alice.row.position, alice.row.status) == (2, WorkflowExecutionStatus.IN_PROGRESS)
    alice.assert_at_rest()
    assert alice.complete().data["success"] is True


def until_answered(call: Callable[[], Reply]) -> Reply:
    """Repeat as an app does: while the service is away, and while the execution is busy."""
    deadline = time.monotonic() + 10
    while (reply := until_free(call)).code == "SERVICE_UNAVAILABLE":
        assert time.monotonic() < deadline, "away for ever"
        time.sleep(0.05)
    return reply


@away
@with_and_without_key
def test_end_that_could_not_be_recorded_is_submitted_once(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy, fault: Fault, key: str | None
) -> None:
    alice = alice_at_completion(web)
    with bank.hold(SUBMIT) as gate, InBackground(alice.complete, key) as call:
        bank.wait_for_calls(1, SUBMIT)
        fault(proxy)
        gate.set()
        assert_away(call.reply())

    assert alice.row.status == WorkflowExecutionStatus.IN_PROGRESS
    assert alice.statuses == [SUCCEEDED, SUCCEEDED, RunStatus.RUNNING]
    proxy.pass_through()
    answer = until_answered(lambda: alice.complete(key)).data
    (effect,) = bank.effects(SUBMIT)
    assert (answer["success"], answer["result"]) == (True, effect.result)
    assert [(call.key, call.body) for call in bank.calls(SUBMIT)] == [(effect.key, effect.body)] * 2
    assert alice.statuses == [SUCCEEDED, SUCCEEDED, UNKNOWN, SUCCEEDED]
    assert (alice.row.status, alice.row.result) == (
        WorkflowExecutionStatus.COMPLETED,
        effect.result,
    )
    assert not alice.has_session
    alice.assert_at_rest()


@away
def test_attempt_that_could_not_be_recorded_ends_the_call(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy, fault: Fault
) -> None:
    """It goes away during the first of two attempts: there is no second one without a record."""
    retries = {"maxRetries": 1, "initialDelayMs": 0}
    alice = alice_at_transfer(web, payment(timeoutMs=500, retryConfig=retries))
    with bank.hold(TRANSFER), InBackground(alice.step, 1, PAYMENT) as call:
        bank.wait_for_calls(1, TRANSFER)
        fault(proxy)
        assert_away(call.reply())

    assert len(bank.calls(TRANSFER)) == 1
    assert alice.statuses == [SUCCEEDED, RunStatus.RUNNING]
    proxy.pass_through()
    assert until_answered(lambda: alice.step(1, PAYMENT)).data["success"] is True
    assert len(bank.effects(TRANSFER)) == 1
    assert {call.key for call in bank.calls(TRANSFER)} == {bank.effects(TRANSFER)[0].key}
    assert alice.statuses == [SUCCEEDED, UNKNOWN, SUCCEEDED]
    alice.assert_at_rest()


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
    """Killed as by a power cut and started again: between two calls, and during each partner call."""
    manage(postgresql.url, "migrate", "--verbosity", "0")
    document = tmp_path / "flow.json"
    steps = [form(0), server_step(1, timeoutMs=30_000)]
    document.write_text(json.dumps(flow(*steps, finalApi={"endpoint": SUBMIT})))
    (imported,) = json.loads(
        manage(postgresql.url, "import_workflow", str(document), "--publish", "--json")
    )
    step_ids = tuple(step["id"] for step in imported["steps"])
    with WebServer(partner_url=bank.url, database=postgresql.url) as web:
        execution_id = UUID(start(web, imported["id"]).data["id"])
        alice = RemotePhone(web, execution_id, step_ids)
        restart(postgresql)
        assert until_answered(lambda: alice.step(0, PAYMENT)).data["success"] is True

        with bank.hold(TRANSFER) as gate, InBackground(alice.step, 1, PAYMENT) as call:
            bank.wait_for_calls(1, TRANSFER)
            restart(postgresql)
            gate.set()
            first = call.reply()
        answer = until_answered(lambda: alice.step(1, PAYMENT)).data
        (effect,) = bank.effects(TRANSFER)
        assert (answer["success"], answer["result"]) == (True, effect.result)
        assert first.code in (None, "SERVICE_UNAVAILABLE", "EXECUTION_BUSY")

        with bank.hold(SUBMIT) as gate, InBackground(alice.complete) as call:
            bank.wait_for_calls(1, SUBMIT)
            postgresql.stop()
            gate.set()
            assert_away(call.reply())
            assert_away(start(web, imported["id"]))
        postgresql.start()
        completion = until_answered(alice.complete).data
        (submitted,) = bank.effects(SUBMIT)
        assert (completion["success"], completion["result"]) == (True, submitted.result)
        assert {call.key for call in bank.calls(SUBMIT)} == {submitted.key}

        status, has_lease, runs = rows(postgresql, execution_id)
        assert (status, has_lease) == (WorkflowExecutionStatus.COMPLETED, False)
        assert RunStatus.RUNNING not in runs
        assert runs[-2:] == [UNKNOWN, SUCCEEDED]
        assert_recovers(web, imported["id"])


def restart(postgresql: PostgreSQL) -> None:
    postgresql.stop()
    postgresql.start()
