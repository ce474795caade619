"""An app that lost an answer asks again: with the key, and without one where that is promised."""

from typing import Any

import pytest

from config.jsonvalues import JsonObject, JsonValue
from executions import executor, idempotency
from executions.enums import WorkflowExecutionStatus
from executions.errors import ExecutionNotFound, IdempotencyConflict, InputRefused
from executions.models import StepRun
from executions.tests.evidence import nothing_happens
from executions.tests.phone import AFTER, BEFORE, Phone, flow, form, published, server_step
from executions.tests.test_execute_step import told
from sandbox.testing import FakePartner

pytestmark = pytest.mark.django_db

ASK = "/api/ask"
SEND = "/api/transactions/transfer"
TRANSFER: JsonObject = {"amount": 10, "recipientAccount": "9876543210"}


@pytest.fixture
def phone(partner: FakePartner) -> Phone:
    """At the first of four steps: a form, a question, a payment, a form."""
    partner.answer(ASK, {"valid": True, "token": "t"})
    ask = server_step(1, type="VALIDATION", triggerEndpoint=ASK, triggerTiming="BOTH")
    return Phone(published(flow(form(0), ask, server_step(2, config={"private": True}), form(3))))


@pytest.fixture
def paid(phone: Phone) -> Phone:
    """Past the payment."""
    phone.step(0, TRANSFER, key="form")
    phone.step(1, {"n": 1}, BEFORE, key="before")
    phone.step(1, {"n": 1}, AFTER, key="after")
    assert phone.step(2, TRANSFER, key="pay").success
    return phone


@pytest.mark.parametrize(
    ("index", "value", "timing", "key"),
    [
        (0, TRANSFER, AFTER, "form"),
        # the order of members does not matter
        (0, {"recipientAccount": "9876543210", "amount": 10}, AFTER, "form"),
        (1, {"n": 1}, BEFORE, "before"),
        (1, {"n": 1}, AFTER, "after"),
        # private still
        (2, TRANSFER, AFTER, "pay"),
    ],
)
def test_the_same_call_again_is_answered_from_the_record(
    paid: Phone, partner: FakePartner, index: int, value: JsonValue, timing: Any, key: str
) -> None:
    with nothing_happens(partner):
        answer = paid.step(index, value, timing, key=key)
    result = {"result": {"valid": True, "token": "t"}} if index == 1 else {}
    assert told(answer) == {"success": True, "should_proceed": True, **result}
    # what comes next is told as of now
    assert answer.standing is not None
    assert answer.standing.next_step is not None
    assert answer.standing.next_step.index == 3


@pytest.mark.parametrize(
    ("index", "value", "timing", "key"),
    [
        # another input, if only by its type
        (0, {**TRANSFER, "amount": 11}, AFTER, "form"),
        (0, {**TRANSFER, "amount": 10.0}, AFTER, "form"),
        (0, {**TRANSFER, "amount": "10"}, AFTER, "form"),
        (0, None, AFTER, "form"),
        # another timing, another step
        (1, {"n": 1}, AFTER, "before"),
        (3, TRANSFER, AFTER, "form"),
        (0, TRANSFER, AFTER, "pay"),
    ],
)
def test_the_same_key_for_another_call_is_a_conflict(
    paid: Phone, partner: FakePartner, index: int, value: JsonValue, timing: Any, key: str
) -> None:
    with nothing_happens(partner):
        answer = paid.step(index, value, timing, key=key)
    assert told(answer) == {
        "success": False,
        "should_proceed": False,
        "error_code": "IDEMPOTENCY_CONFLICT",
        "error": "This idempotencyKey was used before with other arguments.",
    }


def test_a_key_is_the_executions_whatever_the_operation(paid: Phone, partner: FakePartner) -> None:
    with nothing_happens(partner):
        assert paid.complete(key="pay").error_code == "IDEMPOTENCY_CONFLICT"
        with pytest.raises(IdempotencyConflict):
            paid.cancel(key="pay")
    other = Phone(paid.compiled)
    assert other.step(0, {"other": 1}, key="pay").success


def test_a_stranger_learns_nothing_of_a_key(paid: Phone, partner: FakePartner) -> None:
    for value in (TRANSFER, {}):
        with nothing_happens(partner), pytest.raises(ExecutionNotFound):
            paid.step(0, value, key="form", user_id="bob")


@pytest.mark.parametrize("key", ["", "k" * 256, "a\nb", "\x00", "\ud800", "a\u2028b"])
def test_keys_are_short_and_printable(phone: Phone, key: str) -> None:
    with nothing_happens():
        with pytest.raises(InputRefused, match="has 1 to 255 printable characters"):
            phone.step(0, {}, key=key)
        with pytest.raises(InputRefused, match="has 1 to 255 printable characters"):
            phone.complete(key)
        with pytest.raises(InputRefused, match="has 1 to 255 printable characters"):
            phone.cancel(None, key)


@pytest.mark.parametrize("key", ["k" * 255, " ", "ключ", "🚀", "'; DROP TABLE"])
def test_other_keys_are_fine(phone: Phone, key: str) -> None:
    assert phone.step(0, TRANSFER, key=key).success
    with nothing_happens():
        assert phone.step(0, TRANSFER, key=key).success


# --- which answers are kept -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"valid": False, "message": "No."}),
        (422, {"message": "No."}),
        (403, {"message": "No."}),
    ],
)
def test_a_definite_no_is_kept_under_its_key(
    partner: FakePartner, status: int, body: JsonObject
) -> None:
    partner.answer(ASK, body, status=status, times=1)
    partner.answer(ASK, {"valid": True})
    step = server_step(0, executionMode="SERVER_VALIDATION", triggerEndpoint=ASK)
    phone = Phone(published(flow(step)))
    first = phone.step(0, {"n": 1}, key="k")
    with nothing_happens(partner):
        assert told(phone.step(0, {"n": 1}, key="k")) == told(first)
    assert not first.should_proceed
    # another key asks anew
    assert phone.step(0, {"n": 1}, key="l").should_proceed


@pytest.mark.parametrize("fault", ["cut_before", "cut_after", 503, 429, "garbage"])
def test_try_again_gives_the_key_back(partner: FakePartner, fault: str | int) -> None:
    if isinstance(fault, int):
        partner.fault(SEND, "status", status=fault)
    else:
        partner.fault(SEND, fault)
    phone = Phone(published(flow(server_step(0))))
    assert phone.step(0, TRANSFER, key="k").retryable
    assert phone.step(0, TRANSFER, key="k").success
    with nothing_happens(partner):
        assert phone.step(0, TRANSFER, key="k").success
    assert len(partner.effects(SEND)) == 1


@pytest.mark.parametrize(
    ("index", "value", "timing", "code"),
    [
        (0, {}, BEFORE, "TIMING_NOT_CONFIGURED"),
        (3, {}, AFTER, "STEP_OUT_OF_ORDER"),
        (0, None, AFTER, "INPUT_INVALID"),
    ],
)
def test_a_refusal_uses_no_key_up(
    phone: Phone, index: int, value: JsonValue, timing: Any, code: str
) -> None:
    with nothing_happens():
        assert phone.step(index, value, timing, key="k").error_code == code
    assert phone.step(0, TRANSFER, key="k").success


def test_a_request_that_was_not_sent_gives_the_key_back(partner: FakePartner) -> None:
    step = server_step(1, triggerEndpoint="/api/anything/${form0.id}")
    phone = Phone(published(flow(form(0), step)))
    phone.step(0, {})
    assert phone.step(1, key="k").error_code == "MAPPING_INCOMPLETE"
    phone.step(0, {"id": "7"})
    assert phone.step(1, key="k").success


# --- without a key --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [TRANSFER, None, {"amount": 99}])
def test_a_passed_irreversible_step_is_answered_from_the_record(
    partner: FakePartner, value: JsonValue
) -> None:
    phone = Phone(published(flow(server_step(0), form(1))))
    first = phone.step(0, TRANSFER)
    phone.step(1, {})
    with nothing_happens(partner):
        assert told(phone.step(0, value)) == told(first)
        assert told(phone.step(0, value, key="new")) == told(first)


def test_a_finished_completion_and_cancellation_too(phone: Phone, partner: FakePartner) -> None:
    cancelled = phone.cancel("why")
    with nothing_happens(partner):
        again = phone.cancel("another reason")
    assert (again.pk, again.status, again.cancel_reason) == (cancelled.pk, "CANCELLED", "why")
    other = Phone(published(flow(form(0), apiMapping={"a": "form0.a"})))
    other.step(0, {"a": 1})
    first = other.complete()
    with nothing_happens(partner):
        assert told(other.complete()) == told(first)
        assert told(other.complete(key="k")) == told(first)
    assert first.result == {"a": 1}


# --- after the end --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["complete", "cancel"])
def test_recorded_answers_outlive_the_execution(
    paid: Phone, partner: FakePartner, end: str
) -> None:
    paid.step(3, {}, key="last")
    ended = WorkflowExecutionStatus.COMPLETED if end == "complete" else "CANCELLED"
    paid.complete(key="end") if end == "complete" else paid.cancel("why", key="end")
    with nothing_happens(partner):
        assert paid.step(0, TRANSFER, key="form").success
        assert paid.step(2, TRANSFER, key="pay").success
        assert paid.step(0, {}, key="form").error_code == "IDEMPOTENCY_CONFLICT"
        assert paid.step(0, TRANSFER, key="new").error_code == "EXECUTION_ENDED"
        if end == "complete":
            assert paid.complete(key="end").success
        else:
            assert paid.cancel("why", key="end").status == "CANCELLED"
            with pytest.raises(IdempotencyConflict):
                paid.cancel("another", key="end")
    assert paid.row.status == ended


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", ["CLIENT_ONLY", "SERVER_ASYNC"])
def test_the_same_call_recorded_since_it_was_looked_for_is_answered(
    partner: FakePartner, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    steps = {"CLIENT_ONLY": form(0), "SERVER_ASYNC": server_step(0, executionMode="SERVER_ASYNC")}
    phone = Phone(published(flow(steps[mode], form(1))))
    first = phone.step(0, {"a": 1}, key="k")
    looks = iter([None])
    find = idempotency.find_recorded

    def find_too_early(*arguments: Any, **options: Any) -> StepRun | None:
        return next(looks, find(*arguments, **options))

    monkeypatch.setattr(executor, "find_recorded", find_too_early)
    second = phone.step(0, {"a": 1}, key="k")
    assert (second.success, second.result) == (first.success, first.result)
    assert len(phone.runs) == 1
