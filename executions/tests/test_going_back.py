"""Going back: what it takes away, what it keeps, and what it cannot get past."""

from typing import Any

import pytest

from config.jsonvalues import JsonObject
from executions.enums import RunStatus
from executions.tests.evidence import nothing_happens
from executions.tests.phone import AFTER, BEFORE, Phone, flow, form, published, server_step
from sandbox.testing import FakePartner

pytestmark = pytest.mark.django_db

ASK = "/api/ask"
SEND = "/api/transactions/transfer"
YES: JsonObject = {"valid": True}
TRANSFER: JsonObject = {"amount": 10, "recipientAccount": "9876543210"}


def asking(order: int, **changes: Any) -> JsonObject:
    return server_step(order, **{"type": "VALIDATION", "triggerEndpoint": ASK, **changes})


@pytest.fixture
def walked(partner: FakePartner) -> Phone:
    """Past five steps, of which three asked a partner; the sixth is open."""
    partner.answer(ASK, YES)
    steps = (
        form(0),
        asking(1),
        asking(2, type="FORM"),
        form(3),
        asking(4, triggerTiming="BOTH", config={"private": True}),
        form(5),
    )
    phone = Phone(published(flow(*steps)))
    phone.step(0, {"a": 0})
    phone.step(1)
    phone.step(2, {"a": 2})
    phone.step(3, {"a": 3})
    phone.step(4, timing=BEFORE)
    phone.step(4)
    assert phone.row.position == 5
    return phone


ALL_KEYS = {"userId", "form0", "call1", "call2", "call2Result", "form3", "call4"}


@pytest.mark.parametrize(
    ("index", "timing", "position", "dropped"),
    [
        # every later answer is worth nothing; what was entered stays for prefilling
        (0, AFTER, 1, {"call1", "call2Result", "call4"}),
        # the step's own answer is replaced
        (1, AFTER, 2, {"call2Result", "call4"}),
        (2, AFTER, 3, {"call4"}),
        (3, AFTER, 4, {"call4"}),
        # at BEFORE_STEP the step is open again, with its new answer
        (4, BEFORE, 4, set()),
        # where the person stands there is nothing to go back from
        (5, AFTER, 6, set()),
    ],
)
def test_later_answers_leave_and_inputs_stay(
    walked: Phone, index: int, timing: Any, position: int, dropped: set[str]
) -> None:
    assert walked.step(index, {"a": "new"}, timing).success
    assert walked.row.position == position
    expected = ALL_KEYS - dropped | ({"form5"} if index == 5 else set())
    assert walked.context.keys() == expected
    if index in (0, 2, 3, 5):
        assert walked.context[walked.compiled.steps[index].data_key] == {"a": "new"}
    if position < 6:
        assert walked.complete().error_code == "STEPS_INCOMPLETE"


def test_what_was_confirmed_has_to_be_confirmed_again(walked: Phone) -> None:
    walked.step(0, {"a": "new"})
    for index in (2, 3, 4, 5):
        with nothing_happens():
            assert walked.step(index, {"a": 1}, BEFORE if index == 4 else AFTER).error_code == (
                "STEP_OUT_OF_ORDER"
            )
    assert walked.step(1).success
    assert walked.step(2, {"a": 2}).success
    assert walked.step(3, {"a": 3}).success
    assert walked.step(4, timing=BEFORE).success
    assert walked.step(4).success


def test_after_step_alone_does_not_go_back(walked: Phone) -> None:
    with nothing_happens():
        assert walked.step(4, timing=AFTER).error_code == "STEP_OUT_OF_ORDER"


def test_a_refused_call_does_not_go_back(partner: FakePartner) -> None:
    partner.answer(ASK, YES)
    strict = form(0, inputSchema={"required": ["a"]})
    phone = Phone(published(flow(strict, asking(1), form(2))))
    phone.step(0, {"a": 1})
    phone.step(1)
    with nothing_happens(partner):
        assert phone.step(0, {}).error_code == "INPUT_INVALID"
    assert phone.step(2, {}).success


def test_no_request_says_what_was_worth_something_before(
    walked: Phone, partner: FakePartner
) -> None:
    walked.step(1)
    body = partner.calls()[-1].json
    assert isinstance(body, dict)
    assert body["context"] == {
        "userId": "alice",
        "form0": {"a": 0},
        "call2": {"a": 2},
        "form3": {"a": 3},
    }


def test_a_form_sends_what_was_entered_now(partner: FakePartner) -> None:
    partner.answer(ASK, YES)
    step = asking(0, type="FORM", config={"requestMapping": {"amount": "call0.amount"}})
    phone = Phone(published(flow(step, form(1))))
    for amount in (1, 2):
        assert phone.step(0, {"amount": amount}).success
    assert [call.json for call in partner.calls()] == [{"amount": 1}, {"amount": 2}]


def test_every_visit_has_a_key_of_its_own(walked: Phone, partner: FakePartner) -> None:
    walked.step(1)
    walked.step(1)
    walked.step(2, {"a": 2})
    keys = [call.key for call in partner.calls()]
    assert len(set(keys)) == len(keys) == 7


@pytest.mark.parametrize(
    ("reversible", "fault", "is_locked"),
    [
        # it succeeded and cannot be undone
        (False, None, True),
        # it may have
        (False, "cut_after", True),
        (False, "cut_before", True),
        (False, 503, True),
        (False, "garbage", True),
        # it was refused, or nothing was done
        (False, 403, False),
        (False, 422, False),
        (False, 429, False),
        # it may be run again
        (True, None, False),
        (True, "cut_after", False),
        (True, 503, False),
    ],
)
def test_what_cannot_be_undone_locks_the_steps_before_it(
    partner: FakePartner, reversible: bool, fault: str | int | None, is_locked: bool
) -> None:
    if isinstance(fault, int):
        partner.fault(SEND, "status", status=fault)
    elif fault is not None:
        partner.fault(SEND, fault)
    sending = server_step(2, config={"reversible": reversible})
    phone = Phone(published(flow(form(0), form(1), sending, form(3))))
    phone.step(0, TRANSFER)
    phone.step(1, {})
    assert phone.step(2).success is (fault is None)
    for index in (0, 1):
        if not is_locked:
            assert phone.step(index, TRANSFER).success
            continue
        with nothing_happens(partner):
            assert phone.step(index, TRANSFER).error_code == "STEP_LOCKED"
    assert phone.row.position == (2 if fault or not is_locked else 3)


def test_an_api_call_is_irreversible_unless_it_says_so(partner: FakePartner) -> None:
    phone = Phone(published(flow(form(0), server_step(1), form(2))))
    assert [step.reversible for step in phone.compiled.steps] == [True, False, True]


def test_a_lock_outlives_further_steps(partner: FakePartner) -> None:
    phone = Phone(published(flow(form(0), server_step(1), form(2), form(3))))
    phone.step(0, TRANSFER)
    phone.step(1)
    phone.step(2, {"a": 1})
    phone.step(3, {"a": 1})
    assert phone.step(0, TRANSFER).error_code == "STEP_LOCKED"
    # behind it a person may still go back
    assert phone.step(2, {"a": 2}).success
    assert phone.step(3, {"a": 2}).success
    assert phone.step(0, TRANSFER).error_code == "STEP_LOCKED"
    assert len(partner.effects(SEND)) == 1


def test_an_irreversible_form_cannot_be_entered_twice(partner: FakePartner) -> None:
    phone = Phone(published(flow(form(0), form(1, reversible=False), form(2))))
    phone.step(0, {"a": 1})
    phone.step(1, {"a": 1})
    with nothing_happens():
        assert phone.step(0, {"a": 2}).error_code == "STEP_LOCKED"
        assert phone.step(1, {"a": 2}).success  # the answer that was recorded
    assert phone.context["form1"] == {"a": 1}


def test_going_back_into_a_partners_failure_stays_there(
    walked: Phone, partner: FakePartner
) -> None:
    partner.reset()
    partner.fault(ASK, "cut_after", times=1)
    assert walked.step(1).error_code == "TRIGGER_UNAVAILABLE"
    assert walked.row.position == 1
    assert walked.context.keys() == {"userId", "form0", "call2", "form3"}
    assert walked.step(2, {"a": 1}).error_code == "STEP_OUT_OF_ORDER"


def test_a_new_condition_shows_another_step(partner: FakePartner) -> None:
    steps = (form(0), form(1, when="form0.amount > `100`"), form(2))
    phone = Phone(published(flow(*steps)))
    phone.step(0, {"amount": 1})
    phone.step(2, {"a": 1})
    phone.step(0, {"amount": 101})
    assert phone.step(2, {"a": 1}).error_code == "STEP_OUT_OF_ORDER"
    assert phone.step(1, {"b": 1}).success
    assert phone.step(2, {"a": 1}).success
    # and back: the step is skipped again, its input stays in the context
    phone.step(0, {"amount": 1})
    assert phone.step(2, {"a": 1}).success
    assert phone.context["form1"] == {"b": 1}
    assert phone.complete().success


def test_the_record_tells_every_visit(walked: Phone) -> None:
    walked.step(1)
    runs = [(run.step_index, run.visit, run.status) for run in walked.runs if run.step_index == 1]
    assert runs == [(1, 0, RunStatus.SUCCEEDED), (1, 1, RunStatus.SUCCEEDED)]
