"""One step: every mode at every timing, every refusal with its exact answer, every input kept exactly."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone
from pytest_django import Settings

from config.jsonvalues import JsonObject, JsonValue
from executions import executor
from executions.answers import StepAnswer
from executions.enums import RunStatus, WorkflowExecutionStatus
from executions.errors import ExecutionNotFound, FieldError, InputRefused, SessionUnavailable
from executions.models import WorkflowExecution
from executions.session_store import get_session_store
from executions.tests.evidence import nothing_happens
from executions.tests.phone import AFTER, BEFORE, Phone, flow, form, published, server_step
from sandbox.testing import FakePartner
from workflows.enums import TriggerTiming

pytestmark = pytest.mark.django_db

BOTH = TriggerTiming.BOTH
ASK = "/api/ask"
YES: JsonObject = {"valid": True, "token": "t-1"}
ACCEPT: JsonObject = {"accepted": True}
TRANSFER: JsonObject = {"amount": 10, "recipientAccount": "9876543210"}


def told(answer: StepAnswer) -> dict[str, Any]:
    """What the app is told, without what is as it usually is."""
    usual = StepAnswer(answer.execution_id, success=False, should_proceed=False)
    names = ("result", "error", "error_code", "retryable", "retry_after_ms", "field_errors")
    given = {name: getattr(answer, name) for name in names}
    unusual = {name: value for name, value in given.items() if value != getattr(usual, name)}
    return {"success": answer.success, "should_proceed": answer.should_proceed, **unusual}


PROCEED = {"success": True, "should_proceed": True}


def refused(code: str, error: str, **more: Any) -> dict[str, Any]:
    return {"success": False, "should_proceed": False, "error_code": code, "error": error, **more}


def stopped(code: str, error: str, **more: Any) -> dict[str, Any]:
    return {**refused(code, error, **more), "success": True}


def asking(order: int = 0, **changes: Any) -> JsonObject:
    """A step that asks the partner at ASK, which answers what the test says."""
    return server_step(order, **{"triggerEndpoint": ASK, **changes})


@pytest.fixture
def agreeing(partner: FakePartner) -> FakePartner:
    partner.answer(ASK, YES)
    return partner


# --- modes and timings ----------------------------------------------------------------------------

# What happens at each timing that the step has: the partner is called, or not.
CALLED, ALONE = True, False


@pytest.mark.parametrize(
    ("mode", "timing", "collecting", "other"),
    [
        # nobody is called
        ("CLIENT_ONLY", "AFTER_STEP", {AFTER: ALONE}, {AFTER: ALONE}),
        # what collects input is passed by AFTER_STEP, whenever its partner is called
        ("SERVER_SYNC", "BEFORE_STEP", {BEFORE: CALLED, AFTER: ALONE}, {BEFORE: CALLED}),
        ("SERVER_SYNC", "AFTER_STEP", {AFTER: CALLED}, {AFTER: CALLED}),
        ("SERVER_SYNC", "BOTH", {BEFORE: CALLED, AFTER: CALLED}, {BEFORE: CALLED, AFTER: CALLED}),
        ("SERVER_VALIDATION", "BEFORE_STEP", {BEFORE: CALLED, AFTER: ALONE}, {BEFORE: CALLED}),
        ("SERVER_VALIDATION", "AFTER_STEP", {AFTER: CALLED}, {AFTER: CALLED}),
        (
            "SERVER_VALIDATION",
            "BOTH",
            {BEFORE: CALLED, AFTER: CALLED},
            {BEFORE: CALLED, AFTER: CALLED},
        ),
    ],
)
@pytest.mark.parametrize(
    ("kind", "is_collecting"),
    [
        ("FORM", True),
        ("CONFIRMATION", True),
        ("VALIDATION", False),
        ("API_CALL", False),
        ("INFO", False),
    ],
)
def test_every_kind_in_every_mode_at_every_timing(
    agreeing: FakePartner,
    mode: str,
    timing: str,
    collecting: dict[TriggerTiming, bool],
    other: dict[TriggerTiming, bool],
    kind: str,
    is_collecting: bool,
) -> None:
    step: JsonObject = {"type": kind, "label": "It", "order": 0, "executionMode": mode}
    is_server = mode != "CLIENT_ONLY"
    if is_server:
        step |= {"triggerTiming": timing, "triggerEndpoint": ASK}
    phone = Phone(published(flow({**step, "config": {"dataKey": "it"}}, form(1))))
    timings = collecting if is_collecting else other
    for unused in {BEFORE, AFTER, BOTH} - timings.keys():
        with nothing_happens(agreeing):
            assert phone.step(0, ACCEPT, unused).error_code == "TIMING_NOT_CONFIGURED"
    if len(timings) == 2:
        with nothing_happens(agreeing):
            assert phone.step(0, ACCEPT, AFTER).error_code == "STEP_OUT_OF_ORDER"
    for at, is_called in timings.items():
        assert phone.row.position == 0
        answer = phone.step(0, ACCEPT if at is AFTER else {"early": 1}, at)
        assert told(answer) == (PROCEED | {"result": YES} if is_called else PROCEED)
    assert phone.row.position == 1
    assert phone.row.status == WorkflowExecutionStatus.IN_PROGRESS
    assert len(agreeing.calls()) == sum(timings.values())
    data = {"it": ACCEPT} if is_collecting or not is_server else {"it": YES}
    if is_collecting and is_server:
        data["itResult"] = YES
    assert phone.context == {"userId": "alice", **data}
    assert [(run.timing, run.status, run.should_proceed) for run in phone.runs] == [
        (at.value, RunStatus.SUCCEEDED, True) for at in timings
    ]


def test_the_next_step_comes_with_its_texts(agreeing: FakePartner) -> None:
    texts = {
        "title": "For ${form0.name}",
        "message": "$${x} ${call1.token}|${none}|${form0.list}",
        "app": {"deep": [{"text": "${form0.n}"}], "n": 1, "${form0.name}": True},
        "fields": [{"label": "${form0.name}"}],
    }
    phone = Phone(published(flow(form(0), asking(1), form(2, **texts))))
    phone.step(0, {"name": "Zoë ${form0.n}", "list": [1, {"a": "b"}], "n": 12345678901234567890})
    standing = phone.step(1).standing
    assert standing is not None
    assert standing.next_step is not None
    config = standing.next_step.view_config(standing.context, staff=False)
    assert config == {
        "dataKey": "form2",
        "title": "For Zoë ${form0.n}",
        "message": '${x} t-1||[1,{"a":"b"}]',
        "app": {"deep": [{"text": "12345678901234567890"}], "n": 1, "${form0.name}": True},
        "fields": [{"label": "Zoë ${form0.n}"}],
    }


# --- refusals: nothing is stored, nothing is sent ---------------------------------------------------

LOCKED = "A step that cannot be undone has been sent; the steps before it are closed."
OUT_OF_ORDER = "An earlier step, or this step's BEFORE_STEP, has to be passed first."
NO_TIMING = "The step has nothing to do at this timing."


@pytest.mark.parametrize(
    ("index", "value", "timing", "answer"),
    [
        # a step beyond
        (1, {}, AFTER, refused("STEP_OUT_OF_ORDER", OUT_OF_ORDER)),
        (2, None, AFTER, refused("STEP_OUT_OF_ORDER", OUT_OF_ORDER)),
        # AFTER_STEP before BEFORE_STEP
        (0, {"n": 1}, AFTER, refused("STEP_OUT_OF_ORDER", OUT_OF_ORDER)),
        # a timing that the step has not, and one that is no timing of a call
        (1, {}, BEFORE, refused("TIMING_NOT_CONFIGURED", NO_TIMING)),
        (0, {"n": 1}, BOTH, refused("TIMING_NOT_CONFIGURED", NO_TIMING)),
    ],
)
def test_refusals_of_the_order(
    agreeing: FakePartner,
    index: int,
    value: JsonValue,
    timing: TriggerTiming,
    answer: dict[str, Any],
) -> None:
    both = asking(0, type="FORM", triggerTiming="BOTH")
    phone = Phone(published(flow(both, form(1), asking(2))))
    with nothing_happens(agreeing):
        assert told(phone.step(index, value, timing)) == answer


@pytest.mark.parametrize(
    "step_id", ["0195d3a0-0000-7000-8000-000000000000", "", "0", "x" * 5000, "\x00", "🚀"]
)
def test_an_unknown_step(alice: Phone, partner: FakePartner, step_id: str) -> None:
    with nothing_happens(partner):
        answer = executor.execute_step(
            alice.execution_id,
            step_id=step_id,
            timing=AFTER,
            value={},
            user_id="alice",
            idempotency_key=None,
            now=timezone.now(),
        )
    assert told(answer) == refused("STEP_UNKNOWN", "The execution's workflow has no such step.")


def test_another_workflows_step_is_unknown(alice: Phone) -> None:
    alice.compiled = published(flow(form(0)))
    assert alice.step(0, {}).error_code == "STEP_UNKNOWN"


def test_strangers_and_nobodies_are_told_the_same(alice: Phone, partner: FakePartner) -> None:
    with nothing_happens(partner):
        with pytest.raises(ExecutionNotFound):
            alice.step(0, {}, user_id="bob")
        alice.execution_id = uuid4()
        with pytest.raises(ExecutionNotFound):
            alice.step(0, {})


def test_going_back_past_what_cannot_be_undone(partner: FakePartner) -> None:
    phone = Phone(published(flow(form(0), server_step(1), form(2))))
    phone.step(0, TRANSFER)
    assert phone.step(1).success
    with nothing_happens(partner):
        assert told(phone.step(0, TRANSFER)) == refused("STEP_LOCKED", LOCKED)


def test_a_busy_execution(agreeing: FakePartner) -> None:
    phone = Phone(published(flow(asking(0, type="INFO"), form(1))))
    WorkflowExecution.objects.update(
        lease_holder=uuid4(), lease_until=timezone.now() + timedelta(seconds=60)
    )
    busy = "Another call on this execution is being worked off; try again shortly."
    with nothing_happens(agreeing):
        for index in (0, 1):
            assert told(phone.step(index, {})) == refused("EXECUTION_BUSY", busy, retryable=True)


@pytest.mark.parametrize("end", ["complete", "cancel"])
def test_an_ended_execution(agreeing: FakePartner, end: str) -> None:
    phone = Phone(published(flow(form(0), asking(1, type="INFO"))))
    phone.step(0, {})
    phone.complete() if end == "complete" else phone.cancel()
    with nothing_happens(agreeing):
        for index in (0, 1):
            assert told(phone.step(index, {})) == refused(
                "EXECUTION_ENDED", "The execution has ended."
            )


def test_a_session_that_cannot_be_reached(
    agreeing: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = Phone(published(flow(form(0), asking(1, type="INFO"))))
    store = get_session_store()

    def away(*args: Any, **kwargs: Any) -> None:
        raise SessionUnavailable

    answer = refused(
        "SESSION_UNAVAILABLE",
        "What was entered cannot be reached at the moment; the same call may be sent again.",
        retryable=True,
    )
    with nothing_happens(agreeing), monkeypatch.context() as patched:
        patched.setattr(type(store), "get_context", away)
        assert told(phone.step(0, {})) == answer
        assert told(phone.step(1)) == answer
        assert told(phone.complete()) == answer


# --- the input ------------------------------------------------------------------------------------

PERSON: JsonObject = {
    "type": "object",
    "properties": {
        "amount": {"type": "integer", "minimum": 1},
        "who": {"type": "object", "properties": {"a/b": {"type": "string"}}},
        "tags": {"type": "array", "items": {"type": "string"}},
        "kind": {"enum": ["a", "b"]},
    },
    "required": ["amount"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "errors"),
    [
        # what is missing is named where it should stand
        ({}, [("/amount", "is required")]),
        # everything at once, by JSON pointers
        (
            {"amount": 0, "who": {"a/b": 1}, "tags": ["x", 2], "kind": "c"},
            [
                ("/amount", "must be at least 1"),
                ("/kind", 'must be one of "a", "b"'),
                ("/tags/1", "must be of type string"),
                ("/who/a~1b", "must be of type string"),
            ],
        ),
        # what nobody asked for
        ({"amount": 1, "more": 2}, [("/more", "is not allowed")]),
        # text that looks like a number is no number, and 1.5 no integer
        ({"amount": "1"}, [("/amount", "must be of type integer")]),
        ({"amount": 1.5}, [("/amount", "must be of type integer")]),
        # another kind of value altogether
        ([], [("", "must be of type object")]),
        # nothing
        (None, [("", "an input is required")]),
    ],
)
def test_violations_come_per_field(
    partner: FakePartner, value: JsonValue, errors: list[tuple[str, str]]
) -> None:
    steps = (form(0, inputSchema=PERSON), asking(1, type="FORM", config={"inputSchema": PERSON}))
    phone = Phone(published(flow(*steps)))
    for index in (0, 1):
        with nothing_happens(partner):
            answer = phone.step(index, value)
        listed = sorted((error.path, error.message) for error in answer.field_errors)
        assert listed == errors
        assert told(replace(answer, field_errors=())) == refused(
            "INPUT_INVALID", "The input does not fit what the step asks for."
        )
        phone.step(index, {"amount": 1})


def test_an_input_is_checked_when_it_is_kept(agreeing: FakePartner) -> None:
    step = asking(0, type="FORM", triggerTiming="BOTH", config={"inputSchema": PERSON})
    phone = Phone(published(flow(step)))
    assert phone.step(0, None, BEFORE).success
    assert phone.step(0, None, AFTER).error_code == "INPUT_INVALID"
    assert phone.step(0, {"amount": 1}, AFTER).success


@pytest.mark.parametrize(
    "value",
    [
        # beyond 64 bits, beyond doubles, up to the last digit
        2**63,
        {"n": -(2**64), "m": 10**4299},
        # fractions as IEEE doubles
        {"a": 0.1, "b": 1e308, "c": -0.0, "d": 5e-324},
        # a whole fraction stays one
        {"a": 1.0},
        # text that looks like a number
        {"code": "0012", "n": "1e5"},
        # scripts, emoji, what a text may hold
        {"Zoë 🚀": '中文\u2028\t\n"\\ \u0001 ${userId} {{x}} <b>'},
        # any JSON at all where no schema forbids it
        [],
        "text",
        "",
        False,
        0,
        [None, {"a": [None]}],
        # what is empty
        {"": {"": []}},
        # names that look like ours stay inside the step's own key
        {"userId": "bob", "context": {"userId": "bob"}, "form1": 1, "__proto__": {}},
    ],
)
def test_an_input_is_kept_exactly(partner: FakePartner, value: JsonValue) -> None:
    phone = Phone(published(flow(form(0), asking(1, triggerEndpoint="/api/anything/x"))))
    assert told(phone.step(0, value)) == PROCEED
    assert phone.context == {"form0": value, "userId": "alice"}
    assert repr(phone.context["form0"]) == repr(value)
    assert phone.step(1, value).success
    sent = partner.calls()[0].json
    assert isinstance(sent, dict)
    assert repr(sent["input"]) == repr(value)
    assert repr(sent["context"]["form0"]) == repr(value)  # type: ignore[index,call-overload]


def nested(levels: int) -> JsonValue:
    value: JsonValue = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("\x00", "/: NUL characters cannot be stored"),
        ({"a": ["\x00"]}, "/a/0: NUL characters cannot be stored"),
        ({"a\x00": 1}, "/: NUL characters cannot be stored"),
        ({"a": "\udfff"}, "/a: lone surrogates cannot be stored"),
        (float("inf"), "/: NaN and infinite numbers are not JSON"),
        ({"a": float("nan")}, "/a: NaN and infinite numbers are not JSON"),
        ({"n": 10**4300}, "/n: an integer may have 4300 digits"),
        (nested(65), "nested deeper than 64 levels"),
    ],
)
def test_what_no_store_can_keep_is_no_call_at_all(
    alice: Phone, partner: FakePartner, value: JsonValue, reason: str
) -> None:
    with nothing_happens(partner), pytest.raises(InputRefused) as refusal:
        alice.step(0, value)
    assert refusal.value.message == f"The input cannot be stored: {reason}"
    assert alice.step(0, nested(64)).success


def test_an_input_replaces_the_one_before(partner: FakePartner) -> None:
    phone = Phone(published(flow(form(0), form(1))))
    phone.step(0, {"a": 1, "b": 2})
    phone.step(0, {"a": 3})
    assert phone.context == {"form0": {"a": 3}, "userId": "alice"}


# --- confirmations --------------------------------------------------------------------------------

NOT_ACCEPTED = stopped("NOT_ACCEPTED", "The confirmation was not accepted.")


@pytest.mark.parametrize("mode", ["CLIENT_ONLY", "SERVER_SYNC"])
@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ({"accepted": True}, PROCEED),
        ({"accepted": True, "at": "noon"}, PROCEED),
        # exactly true
        ({"accepted": False}, NOT_ACCEPTED),
        ({"accepted": "true"}, NOT_ACCEPTED),
        ({"accepted": 1}, NOT_ACCEPTED),
        ({"accepted": None}, NOT_ACCEPTED),
        ({"accepted": [True]}, NOT_ACCEPTED),
        ({"Accepted": True}, NOT_ACCEPTED),
        ({}, NOT_ACCEPTED),
        (None, NOT_ACCEPTED),
        (True, NOT_ACCEPTED),
        ([{"accepted": True}], NOT_ACCEPTED),
    ],
)
def test_a_confirmation_needs_acceptance(
    agreeing: FakePartner, mode: str, value: JsonValue, answer: dict[str, Any]
) -> None:
    step: JsonObject = {"type": "CONFIRMATION", "label": "Sure?", "order": 0}
    if mode == "SERVER_SYNC":
        step |= {"executionMode": mode, "triggerEndpoint": ASK}
    phone = Phone(published(flow(step, form(1))))
    is_accepted = answer is PROCEED
    is_asked = is_accepted and mode == "SERVER_SYNC"
    assert told(phone.step(0, value)) == (PROCEED | {"result": YES} if is_asked else answer)
    assert phone.row.position == int(is_accepted)
    assert len(agreeing.calls()) == int(is_asked)
    assert phone.step(1, {}).success is is_accepted


# --- what a validation says -----------------------------------------------------------------------

REJECTED = "The check was not passed."


@pytest.mark.parametrize(
    ("body", "error"),
    [
        # absent or exactly true
        ({"valid": True}, None),
        ({}, None),
        ({"token": 1}, None),
        # an answer that has no members has no `valid`
        ([], None),
        ("no", None),
        (False, None),
        # anything else stops
        ({"valid": False}, REJECTED),
        ({"valid": "true"}, REJECTED),
        ({"valid": "false"}, REJECTED),
        ({"valid": None}, REJECTED),
        ({"valid": 0}, REJECTED),
        ({"valid": 1}, REJECTED),
        ({"valid": []}, REJECTED),
        ({"valid": {"valid": True}}, REJECTED),
        # with the partner's words
        ({"valid": False, "message": "Closed."}, "Closed."),
        ({"valid": False, "error": {"message": "  a\nb\x07 "}}, "a b"),
    ],
)
def test_a_validations_answer_decides(
    partner: FakePartner, body: JsonValue, error: str | None
) -> None:
    partner.answer(ASK, body)
    phone = Phone(published(flow(asking(0, executionMode="SERVER_VALIDATION"), form(1))))
    answer = told(phone.step(0))
    if error is None:
        assert answer == PROCEED | {"result": body}
        assert phone.context == {"call0": body, "userId": "alice"}
        return
    assert answer == stopped("VALIDATION_REJECTED", error, result=body)
    assert phone.context == {"userId": "alice"}
    assert (phone.row.position, phone.runs[0].status) == (0, RunStatus.REJECTED)
    assert phone.step(1, {}).error_code == "STEP_OUT_OF_ORDER"
    assert phone.complete().error_code == "STEPS_INCOMPLETE"


@pytest.mark.parametrize("optional", [False, True])
def test_nothing_skips_a_validation_that_said_no(partner: FakePartner, optional: bool) -> None:
    partner.answer(ASK, {"valid": False}, times=1)
    partner.answer(ASK, {"valid": True})
    step = asking(0, type="INFO", executionMode="SERVER_VALIDATION", config={"optional": optional})
    phone = Phone(published(flow(step, form(1, optional=True))))
    assert not phone.step(0).should_proceed
    assert phone.step(1, {}).error_code == "STEP_OUT_OF_ORDER"
    assert phone.complete().error_code == "STEPS_INCOMPLETE"
    assert phone.step(0).should_proceed
    assert phone.step(1, {}).success


@pytest.mark.parametrize(
    ("status", "is_no"),
    [(400, True), (404, True), (409, True), (422, True), (401, False), (403, False), (410, False)],
)
def test_some_refusals_are_a_validations_no(partner: FakePartner, status: int, is_no: bool) -> None:
    partner.answer(ASK, {"message": "Not this one."}, status=status)
    phone = Phone(published(flow(asking(0, executionMode="SERVER_VALIDATION"))))
    answer = told(phone.step(0))
    if is_no:
        assert answer == stopped("VALIDATION_REJECTED", "Not this one.")
    else:
        assert answer == refused("TRIGGER_REJECTED", "Not this one.")
    assert phone.runs[0].status == RunStatus.REJECTED
    assert phone.context == {"userId": "alice"}


@pytest.mark.parametrize(
    ("expression", "body", "proceeds"),
    [
        ("result.ok", {"ok": True}, True),
        # exactly true, whatever JMESPath counts as true
        ("result.ok", {"ok": "yes"}, False),
        ("result.ok", {"ok": 1}, False),
        ("result.ok", {"ok": {}}, False),
        ("result.ok", {}, False),
        ("result.ok", [], False),
        # over the three names
        ("result.limit >= input.amount", {"limit": 5}, True),
        ("result.limit >= input.amount", {"limit": 4}, False),
        ("context.form0.amount == input.amount", {}, True),
        ("context.userId == 'alice'", {}, True),
        # what cannot be worked out is no yes
        ("sum(result) == `1`", {"a": 1}, False),
        # and it replaces the default of a validation
        ("result.status == 'OK'", {"status": "OK", "valid": False}, True),
    ],
)
@pytest.mark.parametrize("mode", ["SERVER_SYNC", "SERVER_VALIDATION"])
def test_proceed_when(
    partner: FakePartner, mode: str, expression: str, body: JsonValue, proceeds: bool
) -> None:
    partner.answer(ASK, body)
    step = asking(1, executionMode=mode, config={"proceedWhen": expression})
    phone = Phone(published(flow(form(0), step)))
    phone.step(0, {"amount": 5})
    answer = phone.step(1, {"amount": 5})
    assert (answer.success, answer.should_proceed, answer.result) == (True, proceeds, body)
    assert answer.error_code == (None if proceeds else "VALIDATION_REJECTED")


def test_proceed_when_sees_what_the_partner_said_before(partner: FakePartner) -> None:
    partner.answer(ASK, {"max": 5})
    step = asking(
        0, type="FORM", triggerTiming="BEFORE_STEP", config={"proceedWhen": "result.max >= `5`"}
    )
    phone = Phone(published(flow(step)))
    assert phone.step(0, timing=BEFORE).should_proceed
    assert told(phone.step(0, {"a": 1})) == PROCEED


@pytest.mark.parametrize(
    ("expression", "value", "proceeds"),
    [
        ("input.age >= `18`", {"age": 18}, True),
        ("input.age >= `18`", {"age": 17}, False),
        ("context.form0.age >= `18`", {"age": 18}, True),
        ("result", {"age": 18}, False),
    ],
)
def test_proceed_when_of_a_form(
    partner: FakePartner, expression: str, value: JsonValue, proceeds: bool
) -> None:
    phone = Phone(published(flow(form(0, proceedWhen=expression), form(1))))
    answer = told(phone.step(0, value))
    assert answer == (PROCEED if proceeds else stopped("VALIDATION_REJECTED", REJECTED))
    assert phone.row.position == int(proceeds)
    # what was entered stays for prefilling
    assert phone.context == {"form0": value, "userId": "alice"}


# --- when, optional, INFO -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "amount", "is_skipped"),
    [
        ("form0.amount > `100`", 100, True),
        ("form0.amount > `100`", 101, False),
        # false as JMESPath counts it: null, empty texts, lists and objects; zero is not
        ("form0.nothing", 0, True),
        ("form0.amount", 0, False),
        ("''", 0, True),
        ("`[]`", 0, True),
        ("`{}`", 0, True),
        ("context.form0.amount == `5`", 5, False),
        # what cannot be worked out skips nothing
        ("sum(form0) > `1`", 5, False),
    ],
)
def test_when(partner: FakePartner, expression: str, amount: int, is_skipped: bool) -> None:
    phone = Phone(published(flow(form(0), form(1, when=expression), form(2))))
    first = phone.step(0, {"amount": amount})
    assert first.standing is not None
    assert first.standing.next_step is not None
    assert first.standing.next_step.index == (2 if is_skipped else 1)
    called, open_one = (1, 2) if is_skipped else (2, 1)
    with nothing_happens():
        assert phone.step(called, {}).error_code == "STEP_OUT_OF_ORDER"
    assert phone.step(open_one, {}).success


def test_optional_and_info_may_be_gone_past(agreeing: FakePartner) -> None:
    steps: tuple[JsonObject, ...] = (
        {"type": "INFO", "label": "Read", "order": 0},
        form(1, optional=True),
        asking(2, config={"optional": True}),
        asking(3, type="INFO"),
        form(4),
    )
    phone = Phone(published(flow(*steps)))
    assert phone.step(4, {"a": 1}).success
    assert agreeing.calls() == []
    assert phone.complete().success


def test_an_info_may_be_called_all_the_same(agreeing: FakePartner) -> None:
    phone = Phone(published(flow(asking(0, type="INFO"), form(1))))
    assert told(phone.step(0)) == PROCEED | {"result": YES}
    assert phone.context == {"call0": YES, "userId": "alice"}


# --- what a partner does --------------------------------------------------------------------------

UNAVAILABLE = "The partner is not available at the moment."
LATE = "The partner did not answer in time."
UNREADABLE = "The partner's answer could not be read."
NO = "The partner refused the request."


@pytest.mark.parametrize(
    ("fault", "answer", "run", "attempt"),
    [
        # a definite no, in the partner's words or ours
        (
            {"kind": "status", "status": 403, "body": {"message": "Blocked."}},
            refused("TRIGGER_REJECTED", "Blocked."),
            "REJECTED",
            ("REFUSED", 403),
        ),
        (
            {"kind": "status", "status": 400, "body": {"code": 17}},
            refused("TRIGGER_REJECTED", NO),
            "REJECTED",
            ("REFUSED", 400),
        ),
        (
            {"kind": "status", "status": 422, "body": ["no object"]},
            refused("TRIGGER_REJECTED", NO),
            "REJECTED",
            ("REFUSED", 422),
        ),
        # the partner has not worked on it
        (
            {"kind": "status", "status": 429, "retry_after": 7},
            refused("TRIGGER_UNAVAILABLE", UNAVAILABLE, retryable=True, retry_after_ms=7000),
            "FAILED",
            ("REFUSED", 429),
        ),
        (
            {"kind": "status", "status": 408, "body": {}},
            refused("TRIGGER_REJECTED", NO, retryable=True),
            "FAILED",
            ("REFUSED", 408),
        ),
        (
            {"kind": "status", "status": 425, "body": {}},
            refused("TRIGGER_REJECTED", NO, retryable=True),
            "FAILED",
            ("REFUSED", 425),
        ),
        # nobody knows
        (
            {"kind": "status", "status": 500, "body": {"message": "stack trace"}},
            refused("TRIGGER_UNAVAILABLE", UNAVAILABLE, retryable=True),
            "UNKNOWN",
            ("SERVER_ERROR", 500),
        ),
        (
            {"kind": "status", "status": 503, "retry_after": 2},
            refused("TRIGGER_UNAVAILABLE", UNAVAILABLE, retryable=True, retry_after_ms=2000),
            "UNKNOWN",
            ("SERVER_ERROR", 503),
        ),
        (
            {"kind": "status", "status": 501},
            refused("TRIGGER_UNAVAILABLE", UNAVAILABLE, retryable=True),
            "UNKNOWN",
            ("SERVER_ERROR", 501),
        ),
        (
            {"kind": "cut_before"},
            refused("TRIGGER_UNAVAILABLE", UNAVAILABLE, retryable=True),
            "UNKNOWN",
            ("LINE_CUT", None),
        ),
        (
            {"kind": "cut_after"},
            refused("TRIGGER_UNAVAILABLE", UNAVAILABLE, retryable=True),
            "UNKNOWN",
            ("LINE_CUT", None),
        ),
        (
            {"kind": "cut_middle"},
            refused("TRIGGER_UNAVAILABLE", UNAVAILABLE, retryable=True),
            "UNKNOWN",
            ("LINE_CUT", 200),
        ),
        (
            {"kind": "hang"},
            refused("TRIGGER_TIMEOUT", LATE, retryable=True),
            "UNKNOWN",
            ("TIMED_OUT", None),
        ),
        (
            {"kind": "drip", "ms": 30},
            refused("TRIGGER_TIMEOUT", LATE, retryable=True),
            "UNKNOWN",
            ("TIMED_OUT", 200),
        ),
        # what cannot be read
        (
            {"kind": "garbage"},
            refused("TRIGGER_BAD_RESPONSE", UNREADABLE, retryable=True),
            "UNKNOWN",
            ("NOT_JSON", 200),
        ),
        (
            {"kind": "html"},
            refused("TRIGGER_BAD_RESPONSE", UNREADABLE, retryable=True),
            "UNKNOWN",
            ("NOT_JSON", 200),
        ),
        (
            {"kind": "huge"},
            refused("TRIGGER_BAD_RESPONSE", UNREADABLE, retryable=True),
            "UNKNOWN",
            ("TOO_LARGE", 200),
        ),
        (
            {"kind": "redirect"},
            refused("TRIGGER_BAD_RESPONSE", UNREADABLE, retryable=True),
            "UNKNOWN",
            ("REDIRECTED", 302),
        ),
    ],
    ids=lambda value: (
        str(value.get("kind", "")) + str(value.get("status", ""))
        if isinstance(value, dict)
        else None
    ),
)
def test_what_goes_wrong_at_the_partner(
    partner: FakePartner,
    fault: dict[str, Any],
    answer: dict[str, Any],
    run: str,
    attempt: tuple[str, int | None],
) -> None:
    partner.fault("/api/transactions/transfer", fault.pop("kind"), **fault)
    phone = Phone(published(flow(form(0), server_step(1, timeoutMs=300), form(2))))
    phone.step(0, TRANSFER)
    before = phone.context
    assert told(phone.step(1)) == answer
    assert phone.context == before
    assert phone.row.position == 1
    last = phone.runs[-1]
    assert (last.status, last.should_proceed, last.result) == (run, False, None)
    assert (last.error_code, last.error) == (answer["error_code"], answer["error"])
    (row,) = last.attempts.all()
    assert (row.number, row.outcome, row.http_status) == (1, *attempt)
    assert phone.step(2, {}).error_code == "STEP_OUT_OF_ORDER"
    # and the same call again does it, once
    assert phone.step(1).success
    assert len(partner.effects("/api/transactions/transfer")) == 1


def test_a_partner_that_is_not_there(partner: FakePartner) -> None:
    phone = Phone(published(flow(asking(0))))
    partner.stop()
    assert told(phone.step(0)) == refused("TRIGGER_UNAVAILABLE", UNAVAILABLE, retryable=True)
    (run,) = phone.runs
    assert (run.status, run.error_code) == (RunStatus.FAILED, "TRIGGER_UNAVAILABLE")
    assert [row.outcome for row in run.attempts.all()] == ["CONNECT_FAILED"]


@pytest.mark.parametrize(
    ("retry", "failures", "attempts", "is_done"),
    [
        # maxRetries are the calls after the first
        ({"maxRetries": 2, "initialDelayMs": 0}, 2, 3, True),
        ({"maxRetries": 2, "initialDelayMs": 0}, 3, 3, False),
        ({}, 1, 1, False),
        # Retry-After above maxDelayMs ends it
        ({"maxRetries": 5, "initialDelayMs": 0, "maxDelayMs": 1000}, 1, 1, False),
    ],
)
def test_retries(
    partner: FakePartner, retry: JsonObject, failures: int, attempts: int, is_done: bool
) -> None:
    wait = 2 if "maxDelayMs" in retry else None
    partner.fault(
        "/api/transactions/transfer", "status", status=503, times=failures, retry_after=wait
    )
    phone = Phone(published(flow(server_step(0, retryConfig=retry))))
    answer = phone.step(0, TRANSFER)
    assert answer.success is is_done
    assert answer.retry_after_ms == (2000 if wait else None)
    (run,) = phone.runs
    assert [row.number for row in run.attempts.order_by("number")] == [*range(1, attempts + 1)]
    assert len({call.key for call in partner.calls()}) == 1
    assert len(partner.calls()) == attempts


def test_a_synchronous_step_starts_no_attempt_that_cannot_end(
    partner: FakePartner, settings: Settings
) -> None:
    settings.SYNC_BUDGET_MS = 1000
    partner.fault("/api/transactions/transfer", "status", status=503, times=None)
    step = server_step(0, timeoutMs=700, retryConfig={"maxRetries": 9, "initialDelayMs": 800})
    phone = Phone(published(flow(step)))
    assert phone.step(0, TRANSFER).error_code == "TRIGGER_UNAVAILABLE"
    assert len(partner.calls()) == 1


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        ("empty", None),
        ("content_type", {"valid": True}),
        ("early_hints", {"valid": True}),
    ],
)
def test_odd_answers_that_are_answers(partner: FakePartner, kind: str, result: JsonValue) -> None:
    partner.fault("/api/anything/x", kind)
    phone = Phone(published(flow(asking(0, triggerEndpoint="/api/anything/x"))))
    answer = phone.step(0, {"a": 1})
    assert answer.success
    assert answer.should_proceed
    assert (answer.result is None) is (result is None)


def test_a_partners_big_integers_stay_exact(partner: FakePartner) -> None:
    body: JsonObject = {"id": 2**80, "n": [10**40], "code": "0012", "rate": 0.1}
    partner.answer(ASK, body)
    phone = Phone(published(flow(asking(0))))
    assert phone.step(0).result == body
    assert phone.context["call0"] == body
    assert phone.runs[0].result == body


@pytest.mark.parametrize(
    ("fault", "is_kept"),
    [
        # what the input may not hold, an answer may not either: no store could keep it
        ({"kind": "answer", "body": {"a": "\x00"}}, False),
        ({"kind": "answer", "body": {"\x00": 1}}, False),
        ({"kind": "deep_json", "size": 65}, False),
        ({"kind": "deep_json", "size": 64}, True),
        ({"kind": "big_integers", "size": 4301}, False),
        ({"kind": "big_integers", "size": 4300}, True),
        ({"kind": "invalid_utf8"}, False),
        ({"kind": "gzip_bomb"}, False),
    ],
    ids=lambda value: (
        f"{value['kind']}{value.get('size', '')}" if isinstance(value, dict) else None
    ),
)
def test_answers_that_no_store_can_keep(
    partner: FakePartner, fault: dict[str, Any], is_kept: bool
) -> None:
    faults = dict(fault)
    partner.fault("/api/anything/x", faults.pop("kind"), **faults)
    phone = Phone(published(flow(asking(0, triggerEndpoint="/api/anything/x"))))
    answer = phone.step(0, {"a": 1})
    assert answer.success is is_kept
    assert answer.error_code == (None if is_kept else "TRIGGER_BAD_RESPONSE")
    assert phone.runs[0].result == answer.result
    assert phone.context.get("call0") == answer.result


# --- what is missing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        # absent, null, inside lists and objects: every output field at once
        (
            {"config": {"requestMapping": {"a": "form0.x", "b": ["form0.y", "form0.nil"]}}},
            ["a", "b[0]", "b[1]"],
        ),
        # an expression that cannot be worked out, even with a default
        ({"config": {"requestMapping": {"s": {"$from": "sum(form0)", "$default": 0}}}}, ["s"]),
        # an endpoint's value: missing, empty, a dot, two dots, a list
        ({"triggerEndpoint": "/api/anything/${form0.x}"}, ["form0.x"]),
        ({"triggerEndpoint": "/api/anything/${form0.nil}"}, ["form0.nil"]),
        ({"triggerEndpoint": "/api/anything/${form0.empty}"}, ["form0.empty"]),
        ({"triggerEndpoint": "/api/anything/${form0.dot}"}, ["form0.dot"]),
        ({"triggerEndpoint": "/api/anything/${form0.dots}"}, ["form0.dots"]),
        ({"triggerEndpoint": "/api/anything/${form0.list}"}, ["form0.list"]),
        ({"triggerEndpoint": "/api/anything?a=${form0.x}"}, ["form0.x"]),
    ],
)
def test_a_request_without_its_values_is_not_sent(
    partner: FakePartner, changes: dict[str, Any], fields: list[str]
) -> None:
    step = server_step(1, **{"triggerEndpoint": "/api/anything/x", **changes})
    phone = Phone(published(flow(form(0), step)))
    phone.step(0, {"nil": None, "empty": "", "dot": ".", "dots": "..", "list": ["a"]})
    answer = phone.step(1)
    assert told(answer) == refused(
        "MAPPING_INCOMPLETE",
        f"Nothing was sent: no value for {', '.join(fields)}.",
        field_errors=tuple(FieldError(name, "has no value") for name in fields),
    )
    assert partner.calls() == []
    assert (phone.runs[-1].status, phone.runs[-1].error_code) == ("FAILED", "MAPPING_INCOMPLETE")
    assert phone.row.position == 1
    assert phone.row.status == WorkflowExecutionStatus.IN_PROGRESS


# --- private --------------------------------------------------------------------------------------


def test_private_data_stays_on_the_server(agreeing: FakePartner) -> None:
    hidden = asking(1, executionMode="SERVER_VALIDATION", config={"private": True})
    send = asking(
        2, triggerEndpoint="/api/anything/x", config={"requestMapping": {"t": "call1.token"}}
    )
    phone = Phone(published(flow(form(0), hidden, send, form(3, message="<${call1.token}>"))))
    phone.step(0, {})
    assert told(phone.step(1)) == PROCEED
    assert phone.context["call1"] == YES
    last = phone.step(2)
    assert agreeing.calls()[-1].json == {"t": "t-1"}
    assert last.standing is not None
    assert last.standing.next_step is not None
    shown = last.standing.next_step.view_config(last.standing.context, staff=False)
    assert shown == {"dataKey": "form3", "message": "<>"}


def test_a_private_no_says_no_more(partner: FakePartner) -> None:
    partner.answer(ASK, {"valid": False, "score": 17})
    step = asking(0, executionMode="SERVER_VALIDATION", config={"private": True})
    phone = Phone(published(flow(step)))
    assert told(phone.step(0)) == stopped("VALIDATION_REJECTED", REJECTED)


def test_ids_of_executions_are_theirs_alone(agreeing: FakePartner) -> None:
    first = Phone(published(flow(form(0), asking(1))))
    second = Phone(first.compiled, user_id="bob")
    first.step(0, {"a": 1})
    second.step(0, {"a": 2})
    first.step(1)
    second.step(1)
    ids = [UUID(call.headers["x-workflow-execution-id"]) for call in agreeing.calls()]
    assert ids == [first.execution_id, second.execution_id]
    assert len({call.key for call in agreeing.calls()}) == 2
