"""The process killed at every named point: the same call again ends truthfully, with one effect.

Each story is told from three sides: what the app got, what the rows say, what the partner did.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from django.db import connection

from config.jsonvalues import JsonObject, JsonValue
from executions.enums import RunKind, RunStatus, WorkflowExecutionStatus
from executions.tests.phone import MONEY_TRANSFER, TRANSFER_INPUT, flow, form, published
from executions.tests.servers import (
    COMPLETE,
    STEP,
    SUBMIT,
    TRANSFER,
    InBackground,
    LineLost,
    RemotePhone,
    WebServer,
    calls_of,
    start,
    until_free,
    wait_until,
)
from sandbox.testing import FakePartner

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("server_output")]

SUBMITTED_TRANSFER: JsonObject = {
    **MONEY_TRANSFER,
    "config": {**MONEY_TRANSFER["config"], "finalApi": {"endpoint": SUBMIT}},  # type: ignore[dict-item]
}
SUCCEEDED, UNKNOWN, RUNNING = RunStatus.SUCCEEDED, RunStatus.UNKNOWN, RunStatus.RUNNING
BEFORE_TRANSFER = [SUCCEEDED] * 3
KEYS = (None, "k-1")
"""Every story is told twice: the app repeats without an idempotencyKey, and with one."""


@pytest.fixture(scope="module")
def web(django_db_setup: None, bank_server: FakePartner) -> Iterator[WebServer]:
    """A server that nobody kills: the other one behind the load balancer."""
    with WebServer(partner_url=bank_server.url) as server:
        yield server


def alice_at_transfer(web: WebServer) -> RemotePhone:
    """Alice, who has confirmed and has to send the money now."""
    alice = RemotePhone.started(
        web, published(SUBMITTED_TRANSFER), initial={"userAccount": "1234567890"}
    )
    assert alice.step(0, TRANSFER_INPUT).data["success"]
    assert alice.step(1, timing="BEFORE_STEP").data["shouldProceed"]
    assert alice.step(2, {"accepted": True}).data["shouldProceed"]
    return alice


def alice_at_completion(web: WebServer) -> RemotePhone:
    """Alice, who has sent the money."""
    alice = alice_at_transfer(web)
    assert alice.step(3).data["success"]
    return alice


def kill_during(
    call: str, phones: Sequence[RemotePhone], *, point: str, bank: FakePartner, **arguments: Any
) -> None:
    """Let each phone call a server that dies at the point: no answer, and no process any more."""
    for phone, key in zip(phones, KEYS, strict=False):
        with WebServer(partner_url=bank.url, kill_point=point) as dying:
            with pytest.raises(LineLost):
                getattr(phone.via(dying), call)(**arguments, key=key)
            dying.wait_until_dead()


def assert_one_effect(bank: FakePartner, path: str, alice: RemotePhone, *, calls: int) -> JsonValue:
    """The partner acted once, and every call asked for the very same. Gives what it answered."""
    wait_until(lambda: len(calls_of(bank, path, alice)) >= calls)
    asked = calls_of(bank, path, alice)
    assert len(asked) == calls
    ((key, body),) = {(call.key, call.body) for call in asked}
    (effect,) = [effect for effect in bank.effects(path) if effect.key == key]
    assert effect.body == body
    return effect.result


# --- a step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "left", "calls"),
    [
        ("before-intent", [], 1),
        ("after-intent", [RUNNING], 1),
        ("after-send", [RUNNING], 2),
        ("after-answer", [RUNNING], 2),
        ("after-context-write", [RUNNING], 2),
    ],
)
def test_transfer_that_died_is_made_once(
    web: WebServer, bank: FakePartner, point: str, left: list[str], calls: int
) -> None:
    phones = [alice_at_transfer(web) for _ in KEYS]
    kill_during("step", phones, point=point, bank=bank, index=3)
    for alice, key in zip(phones, KEYS, strict=True):
        assert alice.statuses == BEFORE_TRANSFER + left
        assert (alice.row.lease_holder is not None) == bool(left)

        answer = until_free(partial(alice.step, 3, key=key)).data

        result = assert_one_effect(bank, TRANSFER, alice, calls=calls)
        assert (answer["success"], answer["result"]) == (True, result)
        assert alice.statuses == BEFORE_TRANSFER + [UNKNOWN for _ in left] + [SUCCEEDED]
        assert [run.attempts.count() for run in alice.runs[3:]] == [0 for _ in left] + [1]
        assert (alice.row.position, alice.row.status) == (4, WorkflowExecutionStatus.IN_PROGRESS)
        alice.assert_at_rest()
        assert_goes_on_to_the_end(alice, bank, result=result, calls=calls, key=key)


def assert_goes_on_to_the_end(
    alice: RemotePhone, bank: FakePartner, *, result: JsonValue, calls: int, key: str | None
) -> None:
    """A repeat is answered from the record, and the flow can be completed with the result."""
    assert alice.step(3, key=key).data["result"] == result
    assert len(calls_of(bank, TRANSFER, alice)) == calls
    assert alice.complete().data["success"] is True
    assert alice.row.status == WorkflowExecutionStatus.COMPLETED
    assert_one_effect(bank, SUBMIT, alice, calls=1)


def test_dying_again_and_again_is_one_transfer(web: WebServer, bank: FakePartner) -> None:
    alice = alice_at_transfer(web)
    for point in ("after-context-write", "after-send", "after-answer"):
        with WebServer(partner_url=bank.url, kill_point=point) as dying:
            with pytest.raises(LineLost):
                until_free(partial(alice.via(dying).step, 3))
            dying.wait_until_dead()

    answer = until_free(lambda: alice.step(3)).data

    assert answer["result"] == assert_one_effect(bank, TRANSFER, alice, calls=4)
    assert alice.statuses == [*BEFORE_TRANSFER, UNKNOWN, UNKNOWN, UNKNOWN, SUCCEEDED]
    alice.assert_at_rest()


def test_validation_that_died_is_asked_again(web: WebServer, bank: FakePartner) -> None:
    alice = RemotePhone.started(
        web, published(SUBMITTED_TRANSFER), initial={"userAccount": "1234567890"}
    )
    alice.step(0, TRANSFER_INPUT)
    kill_during("step", [alice], point="after-answer", bank=bank, index=1, timing="BEFORE_STEP")

    answer = until_free(lambda: alice.step(1, timing="BEFORE_STEP")).data

    assert (answer["success"], answer["shouldProceed"]) == (True, True)
    assert alice.statuses == [SUCCEEDED, UNKNOWN, SUCCEEDED]
    validations = calls_of(bank, "/api/accounts/validate", alice)
    assert len({(call.key, call.body) for call in validations}) == 1
    assert len(validations) == 2
    alice.assert_at_rest()


def test_input_that_died_before_its_session_is_entered_again(
    web: WebServer, bank: FakePartner
) -> None:
    """The row was written, the session was not: nobody was told that the input is kept."""
    compiled = published(flow(form(0), form(1)))
    phones = [RemotePhone.started(web, compiled) for _ in KEYS]
    kill_during("step", phones, point="after-record", bank=bank, index=0, value={"a": 1})
    for alice, key in zip(phones, KEYS, strict=True):
        assert alice.statuses == [SUCCEEDED]
        assert alice.step(1, {"b": 2}).code == "STEP_OUT_OF_ORDER"

        answer = until_free(partial(alice.step, 0, {"a": 1}, key=key)).data

        assert answer["success"] is True
        assert alice.statuses == [RunStatus.FAILED, SUCCEEDED]
        assert alice.row.position == 1
        assert alice.step(1, {"b": 2}).data["success"] is True
        alice.assert_at_rest()


# --- the final submission -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "left", "after", "calls"),
    [
        ("before-submission", [], [SUCCEEDED], 1),
        ("after-intent", [RUNNING], [UNKNOWN, SUCCEEDED], 1),
        ("after-send", [RUNNING], [UNKNOWN, SUCCEEDED], 2),
        ("after-answer", [RUNNING], [UNKNOWN, SUCCEEDED], 2),
        ("after-submission", [RUNNING], [UNKNOWN, SUCCEEDED], 2),
        ("before-session-clear", [SUCCEEDED], [SUCCEEDED], 1),
    ],
)
def test_completion_that_died_is_submitted_once(
    web: WebServer, bank: FakePartner, point: str, left: list[str], after: list[str], calls: int
) -> None:
    phones = [alice_at_completion(web) for _ in KEYS]
    kill_during("complete", phones, point=point, bank=bank)
    for alice, key in zip(phones, KEYS, strict=True):
        assert submissions(alice) == left
        assert alice.has_session
        assert (alice.row.status == WorkflowExecutionStatus.COMPLETED) == (left == [SUCCEEDED])

        answer = until_free(partial(alice.complete, key)).data

        result = assert_one_effect(bank, SUBMIT, alice, calls=calls)
        assert (answer["success"], answer["result"]) == (True, result)
        assert answer["execution"]["status"] == "COMPLETED"
        assert answer["execution"]["currentStep"] is None
        assert_completed(alice, result=result, runs=after)
        assert alice.complete(key).data["result"] == result
        assert len(calls_of(bank, SUBMIT, alice)) == calls


def submissions(alice: RemotePhone) -> list[str]:
    return [run.status for run in alice.runs if run.kind == RunKind.SUBMISSION]


def assert_completed(alice: RemotePhone, *, result: JsonValue, runs: list[str]) -> None:
    assert submissions(alice) == runs
    assert (alice.row.status, alice.row.result) == (WorkflowExecutionStatus.COMPLETED, result)
    assert alice.row.error_code == ""
    assert not alice.has_session
    alice.assert_at_rest()


@pytest.mark.parametrize(
    ("point", "left"), [("before-submission", []), ("before-session-clear", [SUCCEEDED])]
)
def test_completion_without_a_partner_that_died_is_recorded_once(
    web: WebServer, bank: FakePartner, point: str, left: list[str]
) -> None:
    compiled = published(flow(form(0), apiMapping={"entered": "form0.a"}))
    phones = [RemotePhone.started(web, compiled) for _ in KEYS]
    for alice in phones:
        assert alice.step(0, {"a": 1}).data["success"]
    kill_during("complete", phones, point=point, bank=bank)
    for alice, key in zip(phones, KEYS, strict=True):
        assert submissions(alice) == left

        answer = alice.complete(key).data

        assert (answer["success"], answer["result"]) == (True, {"entered": 1})
        assert_completed(alice, result={"entered": 1}, runs=[SUCCEEDED])
    assert bank.calls() == []


def test_cancellation_that_died_is_one(web: WebServer, bank: FakePartner) -> None:
    phones = [alice_at_transfer(web) for _ in KEYS]
    kill_during("cancel", phones, point="before-session-clear", bank=bank)
    for alice, key in zip(phones, KEYS, strict=True):
        assert alice.row.status == WorkflowExecutionStatus.CANCELLED

        assert alice.cancel(key=key).data["status"] == "CANCELLED"

        assert not alice.has_session
        assert [run.kind for run in alice.runs].count(RunKind.CANCELLATION) == 1
        assert alice.complete().code == "EXECUTION_ENDED"
    assert bank.effects(TRANSFER) == []


@pytest.mark.parametrize("key", KEYS, ids=["no-key", "key"])
def test_answer_to_an_app_that_hung_up_is_kept(
    web: WebServer, bank: FakePartner, key: str | None
) -> None:
    """The network failed, not the server: the repeats get what the first calls came to."""
    alice = alice_at_transfer(web)
    step = {"stepId": alice.step_ids[3], "timing": "AFTER_STEP", "key": key}
    with bank.hold(TRANSFER), alice.hanging_up(STEP, **step):
        bank.wait_for_calls(1, TRANSFER)
    answer = until_free(lambda: alice.step(3, key=key)).data
    assert answer["result"] == assert_one_effect(bank, TRANSFER, alice, calls=1)

    key = key and "k-2"
    with bank.hold(SUBMIT), alice.hanging_up(COMPLETE, key=key):
        bank.wait_for_calls(1, SUBMIT)
    completion = until_free(lambda: alice.complete(key)).data
    assert completion["result"] == assert_one_effect(bank, SUBMIT, alice, calls=1)
    assert alice.statuses == [*BEFORE_TRANSFER, SUCCEEDED, SUCCEEDED]
    alice.assert_at_rest()


def test_start_whose_answer_was_lost_is_one_execution(web: WebServer, bank: FakePartner) -> None:
    compiled = published(flow(form(0)))
    first = start(web, compiled.workflow_id, key="k-1").data
    assert start(web, compiled.workflow_id, key="k-1").data == first


# --- killed from outside --------------------------------------------------------------------------


def test_transfer_that_arrives_after_its_repeat_has_no_second_effect(
    web: WebServer, bank: FakePartner
) -> None:
    """The partner was still working on the call of a process that is gone."""
    alice = alice_at_transfer(web)
    with bank.hold(TRANSFER, effect="after") as gate:
        with (
            WebServer(partner_url=bank.url) as killed,
            InBackground(alice.via(killed).step, 3) as call,
        ):
            bank.wait_for_calls(1, TRANSFER)
            killed.kill()
            with pytest.raises(LineLost):
                call.reply()
        answer = until_free(lambda: alice.step(3)).data
        gate.set()
    # What the first call comes to at last stands in the partner's book.
    wait_until(lambda: [effect.replays for effect in bank.effects(TRANSFER)] == [1])

    assert answer["result"] == assert_one_effect(bank, TRANSFER, alice, calls=2)
    assert alice.statuses == [*BEFORE_TRANSFER, UNKNOWN, SUCCEEDED]
    alice.assert_at_rest()


def test_holder_that_wakes_up_late_changes_nothing(web: WebServer, bank: FakePartner) -> None:
    """A process stood still, its lease ran out and was taken over: its own outcome is void."""
    if connection.vendor == "sqlite":
        pytest.skip("needs PostgreSQL: on SQLite a process that stands still may hold the file")
    alice = alice_at_transfer(web)
    with (
        WebServer(partner_url=bank.url) as sleeper,
        bank.hold(TRANSFER) as gate,
        InBackground(alice.via(sleeper).step, 3) as late,
    ):
        bank.wait_for_calls(1, TRANSFER)
        with sleeper.frozen():
            gate.set()
            answer = until_free(lambda: alice.step(3)).data
        assert late.reply().code == "EXECUTION_BUSY"

    assert answer["result"] == assert_one_effect(bank, TRANSFER, alice, calls=2)
    assert alice.statuses == [*BEFORE_TRANSFER, UNKNOWN, SUCCEEDED]
    alice.assert_at_rest()
    assert_goes_on_to_the_end(alice, bank, result=answer["result"], calls=2, key=None)
