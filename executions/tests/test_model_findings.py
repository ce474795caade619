"""What the model test found, each as the few calls that show it."""

from config.jsonvalues import JsonObject
from executions.enums import ErrorCode
from executions.tests.phone import AFTER, BEFORE, Phone, flow, form, published, server_step
from sandbox.testing import FakePartner

PATH = "/api/transactions/transfer"
TRANSFER: JsonObject = {"amount": 1, "recipientAccount": "9876543210", "accepted": True}


def test_a_failing_call_does_not_lift_a_no(db: None, partner: FakePartner) -> None:
    check = server_step(0, executionMode="SERVER_VALIDATION", config={"optional": True})
    phone = Phone(published(flow({**check, "type": "VALIDATION"}, form(1))))
    partner.answer(PATH, {"valid": False}, times=1)
    assert phone.step(0).error_code == ErrorCode.VALIDATION_REJECTED
    partner.fault(PATH, "status", status=503)
    assert phone.step(0).error_code == ErrorCode.TRIGGER_UNAVAILABLE
    assert phone.step(1, {}).error_code == ErrorCode.STEP_OUT_OF_ORDER
    partner.fault(PATH, "status", status=403)
    assert phone.step(0).error_code == ErrorCode.TRIGGER_REJECTED
    assert phone.step(1, {}).error_code == ErrorCode.STEP_OUT_OF_ORDER


def test_declining_does_not_release_a_payment_in_doubt(db: None, partner: FakePartner) -> None:
    pay = {**server_step(0, config={"reversible": False}), "type": "CONFIRMATION"}
    phone = Phone(published(flow(pay)))
    partner.fault(PATH, "cut_after")
    assert phone.step(0, TRANSFER).retryable
    assert phone.step(0, {"accepted": False}).error_code == ErrorCode.STEP_LOCKED
    assert phone.step(0, TRANSFER).should_proceed
    assert len(partner.effects(PATH)) == 1


def test_a_form_filled_in_later_outdates_what_a_later_step_was_told(
    db: None, partner: FakePartner
) -> None:
    check = server_step(1, triggerTiming="BOTH")
    check["type"] = "VALIDATION"
    partner.answer(PATH, {"valid": True})
    phone = Phone(published(flow(form(0, optional=True), check)))
    assert phone.step(1, timing=BEFORE).should_proceed
    assert phone.step(0, {"amount": 9}).should_proceed
    assert "call1" not in phone.context
    assert phone.step(1, timing=AFTER).error_code == ErrorCode.STEP_OUT_OF_ORDER


def test_before_step_again_drops_the_unanswered_request_of_after_step(
    db: None, partner: FakePartner
) -> None:
    both = {**server_step(0, triggerTiming="BOTH"), "type": "VALIDATION"}
    phone = Phone(published(flow(both)))
    partner.answer(PATH, {"round": 1}, times=1)
    assert phone.step(0, timing=BEFORE).should_proceed
    partner.fault(PATH, "cut_before")
    assert phone.step(0).retryable
    partner.answer(PATH, {"round": 2}, times=None)
    assert phone.step(0, timing=BEFORE).should_proceed
    assert phone.step(0).should_proceed
    keys = [call.key for call in partner.calls(PATH)]
    assert len(set(keys)) == 4
    body = partner.calls(PATH)[-1].json
    assert isinstance(body, dict)
    assert body["context"] == {"userId": "alice", "call0": {"round": 2}}


def test_a_session_does_not_answer_for_a_failed_execution(db: None, partner: FakePartner) -> None:
    phone = Phone(published(flow(form(0), form(1, optional=True), finalApi={"endpoint": PATH})))
    assert phone.step(0, {}).should_proceed
    partner.fault(PATH, "status", status=422)
    assert phone.complete().error_code == ErrorCode.SUBMISSION_FAILED
    answer = phone.step(0, timing=BEFORE)
    assert (answer.error_code, answer.standing) == (ErrorCode.EXECUTION_ENDED, None)
    answer = phone.step(1, {})
    assert (answer.error_code, answer.standing) == (ErrorCode.EXECUTION_ENDED, None)


def test_a_conflict_tells_the_next_step(db: None) -> None:
    phone = Phone(published(flow(form(0), form(1))))
    assert phone.step(0, {}, key="k").should_proceed
    answer = phone.step(1, {}, key="k")
    assert answer.error_code == ErrorCode.IDEMPOTENCY_CONFLICT
    assert answer.standing is not None
    assert answer.standing.next_step is phone.compiled.steps[1]
