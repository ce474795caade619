"""Redis down, slow, flushed, restarted and read-only, as the app sees it over the network."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.forms.models import model_to_dict
from pytest_django import Settings

from config.testing.servers import Valkey, private_servers
from executions.enums import ErrorCode, RunStatus, WorkflowExecutionStatus
from executions.models import WorkflowExecution
from executions.tests.proxies import FaultyProxy
from executions.tests.servers import (
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
    payment,
    send,
    start,
)
from sandbox.testing import FakePartner

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("server_output"),
    pytest.mark.skipif(
        not django_settings.REDIS_URL,
        reason="REDIS_URL is not set: script/test tests Redis in its second pass",
    ),
]

SUCCEEDED, UNKNOWN, FAILED = RunStatus.SUCCEEDED, RunStatus.UNKNOWN, RunStatus.FAILED
BOUND_SECONDS = 2.0

Fault = Callable[[FaultyProxy], None]


def slow(proxy: FaultyProxy) -> None:
    """Every answer takes a second."""
    proxy.delay(1000)


AWAY = [FaultyProxy.refuse, FaultyProxy.cut, FaultyProxy.blackhole, slow]
away = pytest.mark.parametrize("fault", AWAY, ids=["refuse", "cut", "blackhole", "slow"])


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with private_servers(postgresql=False) as (_, server):
        assert server is not None
        yield server


@pytest.fixture(scope="module")
def line(valkey: Valkey) -> Iterator[FaultyProxy]:
    with FaultyProxy(("127.0.0.1", valkey.port)) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def server(
    django_db_setup: None, bank_server: FakePartner, line: FaultyProxy
) -> Iterator[WebServer]:
    url = f"redis://127.0.0.1:{line.port}/0"
    with WebServer(partner_url=bank_server.url, redis=url) as server:
        yield server


@pytest.fixture
def proxy(line: FaultyProxy) -> Iterator[FaultyProxy]:
    """What stands between the server and its sessions; behaves again after the test."""
    yield line
    line.pass_through()


@pytest.fixture
def web(server: WebServer, proxy: FaultyProxy, valkey: Valkey, settings: Settings) -> WebServer:
    """The server; the test itself looks at the sessions past the proxy."""
    settings.REDIS_URL = valkey.url
    return server


@pytest.fixture
def sessions(valkey: Valkey) -> Iterator["redis.Redis"]:
    with redis.Redis(port=valkey.port) as client:
        yield client


def assert_refused(reply: Reply, code: str) -> None:
    """The promised refusal, in time, and the app is told to try again."""
    assert reply.code == code
    assert reply.is_retryable
    assert reply.seconds < BOUND_SECONDS


def kept(alice: RemotePhone) -> dict[str, Any]:
    """Everything that the execution's row says."""
    return model_to_dict(alice.row)


# --- away -----------------------------------------------------------------------------------------


@away
def test_nothing_changes_while_it_is_away(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy, fault: Fault
) -> None:
    compiled = payment()
    alice, bob = RemotePhone.started(web, compiled), alice_at_completion(web)
    before = kept(alice), kept(bob), bob.statuses
    calls = len(bank.calls())
    fault(proxy)

    calls_while_away: list[Callable[[], Reply]] = [partial(start, web, compiled.workflow_id)]
    for key in (None, "k-1"):
        calls_while_away += [
            partial(alice.step, 0, PAYMENT, key=key),
            partial(alice.step, 1, PAYMENT, key=key),
            partial(bob.complete, key),
            partial(alice.cancel, key=key),
        ]
    not_started, *refused = at_once(calls_while_away)
    assert_refused(not_started, "SERVICE_UNAVAILABLE")
    for reply in refused:
        assert_refused(reply, "SESSION_UNAVAILABLE")

    assert WorkflowExecution.objects.count() == 2
    assert (kept(alice), kept(bob), bob.statuses) == before
    assert alice.runs == []
    assert len(bank.calls()) == calls
    proxy.pass_through()
    assert alice.step(0, PAYMENT, key="k-1").data["success"] is True
    assert bob.complete("k-1").data["success"] is True
    assert start(web, compiled.workflow_id).data["status"] == "PENDING"


@away
def test_record_can_be_read_while_it_is_away(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy, fault: Fault
) -> None:
    alice = alice_at_transfer(web)
    fault(proxy)
    query = "query Q($id: ID!) { workflowExecution(id: $id) { status runs { status } } }"
    reply = send(web, query, id=str(alice.execution_id))
    assert reply.data == {"status": "IN_PROGRESS", "runs": [{"status": "SUCCEEDED"}]}
    assert reply.seconds < BOUND_SECONDS


@away
@pytest.mark.parametrize("key", [None, "k-1"], ids=["no-key", "key"])
def test_answer_that_cannot_be_kept_is_asked_for_again(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy, fault: Fault, key: str | None
) -> None:
    """It goes away while the partner works: the partner has acted, the app is not told so."""
    alice = alice_at_transfer(web)
    with bank.hold(TRANSFER) as gate, InBackground(alice.step, 1, PAYMENT, key=key) as call:
        bank.wait_for_calls(1, TRANSFER)
        fault(proxy)
        gate.set()
        reply = call.reply()

    assert (reply.code, reply.is_retryable) == ("SESSION_UNAVAILABLE", True)
    assert reply.seconds < BOUND_SECONDS + 1  # the partner's time included
    assert alice.statuses == [SUCCEEDED, UNKNOWN]
    assert (alice.row.position, alice.row.status) == (1, WorkflowExecutionStatus.IN_PROGRESS)
    alice.assert_at_rest()
    proxy.pass_through()
    answer = alice.step(1, PAYMENT, key=key).data
    (effect,) = bank.effects(TRANSFER)
    assert (answer["success"], answer["result"]) == (True, effect.result)
    assert {call.key for call in bank.calls(TRANSFER)} == {effect.key}
    assert alice.statuses == [SUCCEEDED, UNKNOWN, SUCCEEDED]
    assert alice.complete().data["success"] is True


@away
def test_submission_needs_no_session_to_be_recorded(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy, fault: Fault
) -> None:
    """It goes away while the partner works: the end is recorded, a repeat clears the session."""
    alice = alice_at_completion(web)
    with bank.hold(SUBMIT) as gate, InBackground(alice.complete, "k-1") as call:
        bank.wait_for_calls(1, SUBMIT)
        fault(proxy)
        gate.set()
        reply = call.reply()

    (effect,) = bank.effects(SUBMIT)
    assert reply.data["result"] == effect.result
    assert reply.seconds < BOUND_SECONDS + 1
    assert alice.row.status == WorkflowExecutionStatus.COMPLETED
    alice.assert_at_rest()
    proxy.pass_through()
    assert alice.complete("k-1").data["result"] == effect.result
    assert not alice.has_session
    assert len(bank.calls(SUBMIT)) == 1


def test_lost_answer_of_a_write_is_no_failure(
    web: WebServer, bank: FakePartner, proxy: FaultyProxy
) -> None:
    alice = alice_at_transfer(web)
    with bank.hold(TRANSFER) as gate, InBackground(alice.step, 1, PAYMENT) as call:
        bank.wait_for_calls(1, TRANSFER)
        proxy.lose_answer()
        gate.set()
        assert call.reply().data["success"] is True
    assert alice.statuses == [SUCCEEDED, SUCCEEDED]
    assert len(bank.calls(TRANSFER)) == 1
    assert alice.complete().data["success"] is True


# --- empty ----------------------------------------------------------------------------------------


def flush(sessions: "redis.Redis", _valkey: Valkey) -> None:
    sessions.flushall()


def restart(_sessions: "redis.Redis", valkey: Valkey) -> None:
    """It keeps nothing on disk here."""
    valkey.stop()
    valkey.start()


Loss = Callable[["redis.Redis", Valkey], None]
lost = pytest.mark.parametrize("lose", [flush, restart])
Call = Callable[[RemotePhone], Reply]
FIRST_CALLS: dict[str, Call] = {
    "step": lambda alice: alice.step(1, PAYMENT),
    "complete": lambda alice: alice.complete(),
    "cancel": lambda alice: alice.cancel(),
}


@lost
@pytest.mark.parametrize("call", FIRST_CALLS.values(), ids=FIRST_CALLS)
def test_lost_session_ends_the_execution(
    web: WebServer,
    bank: FakePartner,
    sessions: "redis.Redis",
    valkey: Valkey,
    lose: Loss,
    call: Call,
) -> None:
    alice = alice_at_transfer(web)
    lose(sessions, valkey)

    for repeat in (call, *FIRST_CALLS.values()):
        reply = repeat(alice)
        ended = "EXECUTION_ENDED" if repeat is FIRST_CALLS["cancel"] else "SESSION_EXPIRED"
        assert reply.code == ended
        assert not reply.is_retryable

    row = alice.row
    assert (row.status, row.error_code) == (
        WorkflowExecutionStatus.FAILED,
        ErrorCode.SESSION_EXPIRED,
    )
    assert alice.statuses == [SUCCEEDED]
    assert bank.calls() == []
    alice.assert_at_rest()
    assert alice_at_completion(web).complete().data["success"] is True


@lost
def test_session_lost_during_a_call_ends_the_execution_with_its_outcome(
    web: WebServer, bank: FakePartner, sessions: "redis.Redis", valkey: Valkey, lose: Loss
) -> None:
    """The money was sent: the record says so, although the flow cannot go on."""
    alice = alice_at_transfer(web)
    with bank.hold(TRANSFER) as gate, InBackground(alice.step, 1, PAYMENT) as call:
        bank.wait_for_calls(1, TRANSFER)
        lose(sessions, valkey)
        gate.set()
        assert call.reply().code == "SESSION_EXPIRED"

    assert alice.step(1, PAYMENT).code == "SESSION_EXPIRED"
    assert alice.row.error_code == ErrorCode.SESSION_EXPIRED
    assert alice.statuses == [SUCCEEDED, SUCCEEDED]
    assert alice.runs[1].result == bank.effects(TRANSFER)[0].result
    assert len(bank.calls(TRANSFER)) == 1
    alice.assert_at_rest()


@lost
def test_session_lost_during_the_submission_does_not_matter(
    web: WebServer, bank: FakePartner, sessions: "redis.Redis", valkey: Valkey, lose: Loss
) -> None:
    alice = alice_at_completion(web)
    with bank.hold(SUBMIT) as gate, InBackground(alice.complete) as call:
        bank.wait_for_calls(1, SUBMIT)
        lose(sessions, valkey)
        gate.set()
        reply = call.reply()

    (effect,) = bank.effects(SUBMIT)
    assert reply.data["result"] == effect.result
    assert alice.complete().data["result"] == effect.result
    assert alice.row.status == WorkflowExecutionStatus.COMPLETED
    alice.assert_at_rest()


# --- read-only ------------------------------------------------------------------------------------


@pytest.fixture
def make_read_only(sessions: "redis.Redis") -> Iterator[Callable[[], None]]:
    """Make it the replica of nobody; writable again after the test."""

    def make() -> None:
        sessions.replicaof("127.0.0.1", "1")

    yield make
    sessions.replicaof("NO", "ONE")


def test_nothing_is_accepted_while_it_is_read_only(
    web: WebServer,
    bank: FakePartner,
    sessions: "redis.Redis",
    make_read_only: Callable[[], None],
) -> None:
    compiled = payment()
    alice, bob = RemotePhone.started(web, compiled), alice_at_transfer(web)
    make_read_only()

    assert_refused(start(web, compiled.workflow_id), "SERVICE_UNAVAILABLE")
    assert_refused(alice.step(0, PAYMENT, key="k-1"), "SESSION_UNAVAILABLE")
    assert_refused(bob.step(1, PAYMENT, key="k-1"), "SESSION_UNAVAILABLE")

    assert WorkflowExecution.objects.count() == 2
    assert (alice.row.position, bob.row.position) == (0, 1)
    assert alice.statuses == [FAILED]
    assert bank.calls() == []
    for phone in (alice, bob):
        phone.assert_at_rest()
    sessions.replicaof("NO", "ONE")
    assert alice.step(0, PAYMENT, key="k-1").data["success"] is True
    assert alice.statuses == [FAILED, SUCCEEDED]
    assert bob.step(1, PAYMENT, key="k-1").data["success"] is True
    assert bob.statuses == [SUCCEEDED, SUCCEEDED]
    assert len(bank.calls(TRANSFER)) == 1


def test_read_only_during_a_call_is_asked_for_again(
    web: WebServer,
    bank: FakePartner,
    sessions: "redis.Redis",
    make_read_only: Callable[[], None],
) -> None:
    alice = alice_at_transfer(web)
    with bank.hold(TRANSFER) as gate, InBackground(alice.step, 1, PAYMENT) as call:
        bank.wait_for_calls(1, TRANSFER)
        make_read_only()
        gate.set()
        assert call.reply().code == "SESSION_UNAVAILABLE"
    assert alice.statuses == [SUCCEEDED, UNKNOWN]
    sessions.replicaof("NO", "ONE")

    answer = alice.step(1, PAYMENT).data

    (effect,) = bank.effects(TRANSFER)
    assert (answer["success"], answer["result"]) == (True, effect.result)
    assert alice.statuses == [SUCCEEDED, UNKNOWN, SUCCEEDED]
    alice.assert_at_rest()


def test_end_is_recorded_while_it_is_read_only(
    web: WebServer, bank: FakePartner, make_read_only: Callable[[], None]
) -> None:
    alice, bob = alice_at_completion(web), alice_at_transfer(web)
    make_read_only()
    assert alice.complete().data["success"] is True
    assert bob.cancel().data["status"] == "CANCELLED"
    assert len(bank.effects(SUBMIT)) == 1
    assert alice.row.status == WorkflowExecutionStatus.COMPLETED
    assert alice.step(0, PAYMENT).code == "EXECUTION_ENDED"
    assert bob.step(1, PAYMENT).code == "EXECUTION_ENDED"
