"""Calls that meet at several server processes: one effect, one winner, and nobody is told a lie."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle

import pytest
from django.db import connection
from django.utils import timezone

from config.jsonvalues import JsonObject
from executions import executor
from executions.enums import RunKind, RunStatus, WorkflowExecutionStatus
from executions.models import WorkflowExecution
from executions.tests.phone import flow, form, published
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
    start,
    until_free,
)
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("server_output")]

Servers = Sequence[WebServer]

COMPLETIONS, RUNS, RACES, RACES_AT_ONCE = 50, 20, 200, 4
# Fifty who want to write make one wait for a second; a lease that is over by then is not used.
LEASE_SECONDS = 4


@pytest.fixture(scope="module")
def servers(django_db_setup: None, bank_server: FakePartner) -> Iterator[Servers]:
    with (
        WebServer(partner_url=bank_server.url, lease_seconds=LEASE_SECONDS) as one,
        WebServer(partner_url=bank_server.url, lease_seconds=LEASE_SECONDS) as another,
    ):
        yield (one, another)


def spread(alice: RemotePhone, servers: Servers, count: int) -> list[RemotePhone]:
    """The same person so many times, at the servers in turn."""
    return [alice.via(server) for server, _ in zip(cycle(servers), range(count), strict=False)]


def assert_one_winner(replies: Sequence[Reply]) -> Reply:
    """One was answered, all others were told to try again; gives the one."""
    assert Counter(reply.code for reply in replies) == {None: 1, "EXECUTION_BUSY": len(replies) - 1}
    assert all(reply.is_retryable for reply in replies if reply.code)
    (winner,) = [reply for reply in replies if reply.code is None]
    return winner


def all_while_held(
    calls: Sequence[Callable[[], Reply]], bank: FakePartner, path: str
) -> list[Reply]:
    """The replies of calls made at once; the partner answers when all but its caller have theirs."""
    with bank.hold(path) as gate, ThreadPoolExecutor(len(calls)) as pool:
        replies = [pool.submit(call) for call in calls]
        deadline = time.monotonic() + 30
        while sum(reply.done() for reply in replies) < len(calls) - 1:
            assert time.monotonic() < deadline, "somebody waits for the partner beside its caller"
            time.sleep(0.01)
        gate.set()
        return [reply.result(30) for reply in replies]


def test_many_completions_at_once_submit_once(servers: Servers, bank: FakePartner) -> None:
    alice = alice_at_completion(servers[0])
    phones = spread(alice, servers, COMPLETIONS)

    replies = all_while_held([phone.complete for phone in phones], bank, SUBMIT)

    winner = assert_one_winner(replies)
    (effect,) = bank.effects(SUBMIT)
    assert len(bank.calls(SUBMIT)) == 1
    assert winner.data["result"] == effect.result
    assert_completed_once(alice, result=effect.result)
    repeats = at_once([phone.complete for phone in phones])
    assert [reply.data["result"] for reply in repeats] == [effect.result] * COMPLETIONS
    assert len(bank.calls(SUBMIT)) == 1


@pytest.mark.parametrize("key", [None, "k-1"], ids=["no-key", "key"])
def test_many_completions_of_a_quick_partner_submit_once(
    servers: Servers, bank: FakePartner, key: str | None
) -> None:
    """Some come while it is submitted, some when it is: all end up with the one result."""
    alice = alice_at_completion(servers[0])
    phones = spread(alice, servers, COMPLETIONS)

    replies = at_once([partial(until_free, partial(phone.complete, key)) for phone in phones])

    (effect,) = bank.effects(SUBMIT)
    assert [reply.data["result"] for reply in replies] == [effect.result] * COMPLETIONS
    assert len(bank.calls(SUBMIT)) == 1
    assert_completed_once(alice, result=effect.result)


def assert_completed_once(alice: RemotePhone, *, result: object) -> None:
    row = alice.row
    assert (row.status, row.result) == (WorkflowExecutionStatus.COMPLETED, result)
    assert [run.kind for run in alice.runs].count(RunKind.SUBMISSION) == 1
    assert set(alice.statuses) == {RunStatus.SUCCEEDED}
    assert not alice.has_session
    alice.assert_at_rest()


def test_many_runs_of_a_step_at_once_call_once(servers: Servers, bank: FakePartner) -> None:
    alice = alice_at_transfer(servers[0])
    phones = spread(alice, servers, RUNS)

    replies = all_while_held([partial(phone.step, 1, PAYMENT) for phone in phones], bank, TRANSFER)

    winner = assert_one_winner(replies)
    (effect,) = bank.effects(TRANSFER)
    assert len(bank.calls(TRANSFER)) == 1
    assert winner.data["result"] == effect.result
    assert alice.statuses == [RunStatus.SUCCEEDED] * 2
    assert alice.row.position == 2
    alice.assert_at_rest()


@pytest.mark.parametrize("key", [None, "k-1"], ids=["no-key", "key"])
def test_many_runs_of_a_step_with_a_quick_partner_call_once(
    servers: Servers, bank: FakePartner, key: str | None
) -> None:
    alice = alice_at_transfer(servers[0])
    phones = spread(alice, servers, RUNS)

    replies = at_once(
        [partial(until_free, partial(phone.step, 1, PAYMENT, key=key)) for phone in phones]
    )

    (effect,) = bank.effects(TRANSFER)
    assert [reply.data["result"] for reply in replies] == [effect.result] * RUNS
    assert len(bank.calls(TRANSFER)) == 1
    assert alice.statuses == [RunStatus.SUCCEEDED] * 2
    alice.assert_at_rest()


def test_different_inputs_at_once_leave_one(servers: Servers, bank: FakePartner) -> None:
    """The context and the record hold the input of the same call, whoever won."""
    alice = RemotePhone.started(servers[0], published(flow(form(0), apiMapping={"a": "form0.a"})))
    phones = spread(alice, servers, RUNS)

    replies = at_once([partial(phone.step, 0, {"a": each}) for each, phone in enumerate(phones)])

    assert {reply.code for reply in replies} <= {None, "EXECUTION_BUSY"}
    accepted = [each for each, reply in enumerate(replies) if reply.code is None]
    result = until_free(alice.complete).data["result"]
    assert result["a"] in accepted
    assert alice.statuses.count(RunStatus.SUCCEEDED) == len(accepted) + 1
    assert_sequences_are_whole(alice)
    alice.assert_at_rest()


def assert_sequences_are_whole(alice: RemotePhone) -> None:
    """Every accepted call has a sequence of its own, and the execution stands at the last one."""
    sequences = [run.sequence for run in alice.runs]
    assert sorted(set(sequences)) == sequences
    assert alice.row.sequence >= sequences[-1]


def test_many_starts_with_one_key_are_one_execution(servers: Servers, bank: FakePartner) -> None:
    compiled = payment()
    calls = [
        partial(start, server, compiled.workflow_id, key="k-1")
        for server, _ in zip(cycle(servers), range(RUNS), strict=False)
    ]
    assert len({reply.data["id"] for reply in at_once(calls)}) == 1
    assert WorkflowExecution.objects.count() == 1


def test_nobody_calls_while_the_lease_lives(servers: Servers, bank: FakePartner) -> None:
    """A call that takes longer than a lease renews it: the other process keeps off."""
    alice = alice_at_transfer(servers[0])
    with bank.hold(TRANSFER) as gate, InBackground(alice.step, 1, PAYMENT) as call:
        bank.wait_for_calls(1, TRANSFER)
        ends = time.monotonic() + 1.5 * LEASE_SECONDS
        while time.monotonic() < ends:
            assert alice.via(servers[1]).step(1, PAYMENT).code == "EXECUTION_BUSY"
            assert alice.via(servers[1]).cancel().code == "EXECUTION_BUSY"
        gate.set()
        assert call.reply().data["success"] is True

    assert len(bank.calls(TRANSFER)) == 1
    assert alice.statuses == [RunStatus.SUCCEEDED] * 2
    alice.assert_at_rest()


# --- cancel against complete ----------------------------------------------------------------------


@pytest.mark.parametrize("has_partner", [True, False], ids=["final-api", "alone"])
def test_cancel_against_complete_has_one_winner(
    servers: Servers, bank: FakePartner, has_partner: bool
) -> None:
    config: JsonObject = {"finalApi": {"endpoint": SUBMIT}} if has_partner else {}
    compiled = published(flow(form(0, optional=True), **config))
    races = [partial(race, servers, compiled, number) for number in range(RACES // 2)]
    with ThreadPoolExecutor(RACES_AT_ONCE) as pool:
        winners = Counter(pool.map(in_thread, races))

    # Both win some: else this was no race.
    assert set(winners) == {WorkflowExecutionStatus.CANCELLED, WorkflowExecutionStatus.COMPLETED}
    completed = winners[WorkflowExecutionStatus.COMPLETED] if has_partner else 0
    assert len(bank.effects(SUBMIT)) == len(bank.calls(SUBMIT)) == completed


def in_thread(work: Callable[[], str]) -> str:
    """What the work gives; the thread's connection to the database is given back."""
    try:
        return work()
    finally:
        connection.close()


def race(servers: Servers, compiled: CompiledWorkflow, number: int) -> str:
    """Let the two off at the two servers; who won, once both sides agree on it."""
    row = executor.start_execution(
        compiled.workflow_id,
        user_id="alice",
        scopes=frozenset(),
        page_id="home",
        initial_context={},
        idempotency_key=None,
        now=timezone.now(),
    )
    alice = RemotePhone(servers[number % 2], row.id, step_ids=())
    # A head start of up to 20 ms for either side, so that the two meet at every stage.
    head_start = (number % 41 - 20) / 1000
    completion, cancellation = at_once(
        [
            partial(after, max(0.0, -head_start), alice.complete),
            partial(after, max(0.0, head_start), alice.via(servers[1 - number % 2]).cancel),
        ]
    )
    return agreed_winner(alice, completion=completion, cancellation=cancellation)


def after(seconds: float, call: Callable[[], Reply]) -> Reply:
    time.sleep(seconds)
    return call()


def agreed_winner(alice: RemotePhone, *, completion: Reply, cancellation: Reply) -> str:
    status = alice.row.status
    alice.assert_at_rest()
    assert not alice.has_session
    (run,) = alice.runs
    if status == WorkflowExecutionStatus.CANCELLED:
        assert cancellation.data["status"] == "CANCELLED"
        assert completion.code in ("EXECUTION_ENDED", "EXECUTION_BUSY")
        assert alice.complete().code == "EXECUTION_ENDED"
        assert run.kind == RunKind.CANCELLATION
    else:
        assert completion.data["success"] is True
        assert cancellation.code in ("EXECUTION_ENDED", "EXECUTION_BUSY")
        assert alice.cancel().code == "EXECUTION_ENDED"
        assert (run.kind, run.status) == (RunKind.SUBMISSION, RunStatus.SUCCEEDED)
    return status
