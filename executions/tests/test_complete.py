"""Completing: mapped exactly or not at all, submitted once, recorded, and answered alike ever after."""

from typing import Any

import pytest
from pytest_django import Settings

from config.jsonvalues import JsonObject, JsonValue
from executions.answers import StepAnswer
from executions.enums import RunKind, RunStatus, WorkflowExecutionStatus
from executions.errors import FieldError
from executions.session_store import get_session_store
from executions.tests.evidence import nothing_happens
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.test_execute_step import refused, told
from sandbox.testing import FakePartner

pytestmark = pytest.mark.django_db

SUBMIT = "/api/payments/submit"
FINAL: JsonObject = {"endpoint": SUBMIT, "timeoutMs": 300}
DONE = {"success": True, "should_proceed": True}
UNAVAILABLE = "The partner is not available at the moment."


def filled(value: JsonValue, **config: Any) -> Phone:
    """One form, filled in."""
    phone = Phone(published(flow(form(0), **config)), initial={"account": "1234"})
    phone.step(0, value)
    return phone


# --- without a final API --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "payload"),
    [
        # the seed's two ways to name a value
        ({"a": "form0.n", "b": "context.account"}, {"a": 2**70, "b": "1234"}),
        # types survive
        (
            {"c": "form0.code", "r": "form0.rate", "w": "form0.whole"},
            {"c": "0012", "r": 0.1, "w": 1.0},
        ),
        ({"o": "form0.object", "l": ["form0.yes", 5]}, {"o": {"k": None}, "l": [False, 5]}),
        # defaults
        ({"d": {"$from": "form0.gone", "$default": [1]}}, {"d": [1]}),
        ({"d": {"$from": "form0.object.k", "$default": None}}, {"d": None}),
        # who it was, the server says
        ({"who": "userId"}, {"who": "alice"}),
        # a payload that is one value
        ("form0.code", "0012"),
        # no mapping: a record without a result
        (None, None),
    ],
)
def test_the_payload_is_the_result(
    partner: FakePartner, mapping: JsonValue, payload: JsonValue
) -> None:
    config = {} if mapping is None else {"apiMapping": mapping}
    entered: JsonObject = {
        "n": 2**70,
        "code": "0012",
        "rate": 0.1,
        "whole": 1.0,
        "object": {"k": None},
        "yes": False,
    }
    phone = filled(entered, **config)
    answer = phone.complete()
    assert told(answer) == (DONE if payload is None else DONE | {"result": payload})
    assert repr(answer.result) == repr(payload)
    row = phone.row
    assert (row.status, row.result, row.error_code) == ("COMPLETED", payload, "")
    assert row.completed_at is not None
    assert not phone.has_session
    run = phone.runs[-1]
    assert (run.kind, run.mode, run.status) == (RunKind.SUBMISSION, "CLIENT_ONLY", "SUCCEEDED")
    assert partner.calls() == []


@pytest.mark.parametrize(
    ("mapping", "fields"),
    [
        ({"amount": "form0.amount"}, ["amount"]),
        # every field at once, wherever it is; what is there does not help
        (
            {"a": "form0.nil", "b": {"c": ["form0.x", "account"]}, "d.e": "form0.y"},
            ["a", "b.c[0]", "d.e"],
        ),
        # an expression that cannot be worked out, even with a default
        ({"s": {"$from": "sum(form0)", "$default": 0}}, ["s"]),
        ("form0.gone", ["$"]),
    ],
)
@pytest.mark.parametrize("final", [False, True])
def test_a_payload_without_its_values_is_not_sent(
    partner: FakePartner, mapping: JsonValue, fields: list[str], final: bool
) -> None:
    phone = filled({"nil": None}, apiMapping=mapping, **({"finalApi": FINAL} if final else {}))
    with nothing_happens(partner):
        assert told(phone.complete()) == refused(
            "MAPPING_INCOMPLETE",
            f"Nothing was sent: no value for {', '.join(fields)}.",
            field_errors=tuple(FieldError(name, "has no value") for name in fields),
        )
    # the person can go back
    assert phone.row.status == WorkflowExecutionStatus.IN_PROGRESS
    phone.step(0, {"amount": 1, "nil": 1, "x": 1, "y": 1, "gone": {"a": 1}})
    assert phone.complete().success is ("s" not in fields)


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        # a form and a confirmation that nobody confirmed
        ((form(0),), "STEPS_INCOMPLETE"),
        (({"type": "CONFIRMATION", "label": "c", "order": 0},), "STEPS_INCOMPLETE"),
        ((server_step(0),), "STEPS_INCOMPLETE"),
        # what may be gone past
        (({"type": "INFO", "label": "i", "order": 0},), None),
        ((form(0, optional=True),), None),
        ((form(0, when="nothing"),), None),
        ((form(0, when="userId"),), "STEPS_INCOMPLETE"),
    ],
)
def test_every_step_has_to_be_passed(
    partner: FakePartner, steps: tuple[JsonObject, ...], code: str | None
) -> None:
    phone = Phone(published(flow(*steps)))
    if code is None:
        assert phone.complete().success
        return
    with nothing_happens(partner):
        assert told(phone.complete()) == refused(code, "Not every step has been passed.")


# --- with a final API -----------------------------------------------------------------------------


def submitting(value: JsonValue = None, **final: Any) -> Phone:
    return filled(
        {"amount": 5} if value is None else value,
        apiMapping={"amount": "form0.amount"},
        finalApi={**FINAL, **final},
    )


def test_the_partners_answer_is_the_result(partner: FakePartner) -> None:
    phone = submitting()
    answer = phone.complete()
    (effect,) = partner.effects(SUBMIT)
    assert told(answer) == DONE | {"result": effect.result}
    assert effect.json == {"amount": 5}
    row = phone.row
    assert (row.status, row.result, row.submitted_payload) == (
        "COMPLETED",
        effect.result,
        {"amount": 5},
    )
    assert not phone.has_session
    run = phone.runs[-1]
    assert (run.kind, run.status, run.result) == ("SUBMISSION", "SUCCEEDED", effect.result)
    assert run.sealed_request is None
    assert [row.outcome for row in run.attempts.all()] == ["ANSWERED"]
    with nothing_happens(partner):
        assert told(phone.complete()) == told(answer)


def test_without_a_mapping_the_context_is_sent(partner: FakePartner) -> None:
    phone = filled({"amount": 5}, finalApi=FINAL)
    assert phone.complete().success
    assert partner.calls()[0].json == {
        "account": "1234",
        "form0": {"amount": 5},
        "userId": "alice",
    }


def test_an_empty_answer_is_a_result_of_null(partner: FakePartner) -> None:
    partner.fault(SUBMIT, "empty")
    phone = submitting()
    assert told(phone.complete()) == DONE
    assert (phone.row.status, phone.row.result) == ("COMPLETED", None)


@pytest.mark.parametrize(
    ("fault", "error", "is_retryable", "run", "is_same_key"),
    [
        # a definite no: a repeat has a key of its own
        (
            {"kind": "status", "status": 422, "body": {"message": "Closed."}},
            "Closed.",
            False,
            "REJECTED",
            False,
        ),
        (
            {"kind": "status", "status": 409, "body": {"error": "Twice."}},
            "Twice.",
            False,
            "REJECTED",
            False,
        ),
        # nobody acted on it
        ({"kind": "status", "status": 429}, UNAVAILABLE, True, "FAILED", True),
        # nobody knows
        ({"kind": "status", "status": 503}, UNAVAILABLE, True, "UNKNOWN", True),
        ({"kind": "cut_before"}, UNAVAILABLE, True, "UNKNOWN", True),
        ({"kind": "cut_after"}, UNAVAILABLE, True, "UNKNOWN", True),
        ({"kind": "hang"}, "The partner did not answer in time.", True, "UNKNOWN", True),
        ({"kind": "html"}, "The partner's answer could not be read.", True, "UNKNOWN", True),
    ],
    ids=lambda value: (
        f"{value['kind']}{value.get('status', '')}" if isinstance(value, dict) else ""
    ),
)
def test_a_failed_submission_is_kept_and_repeated(
    partner: FakePartner,
    fault: dict[str, Any],
    error: str,
    is_retryable: bool,
    run: str,
    is_same_key: bool,
) -> None:
    faults = dict(fault)
    partner.fault(SUBMIT, faults.pop("kind"), **faults)
    phone = submitting()
    answer = phone.complete(key="k")
    expected = {"retryable": True} if is_retryable else {}
    assert told(answer) == refused("SUBMISSION_FAILED", error, **expected)
    row = phone.row
    assert (row.status, row.error_code, row.error) == ("FAILED", "SUBMISSION_FAILED", error)
    assert row.completed_at is not None
    failed = phone.runs[-1]
    assert (failed.status, failed.error) == (run, error)
    assert failed.sealed_request is not None
    # meanwhile nothing else can be done
    with nothing_happens(partner):
        assert phone.step(0, {"amount": 6}).error_code == "EXECUTION_ENDED"
    # the same call again sends the same bytes
    again = phone.complete(key="k")
    assert again.success
    first, second = partner.calls(SUBMIT)
    assert first.body in (second.body, b"")
    assert (first.key == second.key) is is_same_key
    assert len(partner.effects(SUBMIT)) == 1
    row = phone.row
    assert (row.status, row.error_code, row.error) == ("COMPLETED", "", "")
    assert row.result == again.result
    assert not phone.has_session
    with nothing_happens(partner):
        assert told(phone.complete(key="k")) == told(again)
        assert told(phone.complete()) == told(again)


def test_the_kept_request_outlives_the_session(partner: FakePartner) -> None:
    partner.fault(SUBMIT, "status", status=503)
    phone = submitting()
    phone.complete()
    get_session_store().clear_session(phone.row.session_id)
    assert phone.complete().success
    assert [call.json for call in partner.calls()] == [{"amount": 5}, {"amount": 5}]


def test_a_kept_request_that_cannot_be_opened_is_told(
    partner: FakePartner, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    partner.fault(SUBMIT, "status", status=503)
    phone = submitting()
    phone.complete()
    get_session_store().clear_session(phone.row.session_id)
    settings.FIELD_ENCRYPTION_KEYS = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]
    answer = phone.complete()
    assert answer.error_code == "SESSION_UNAVAILABLE"
    assert phone.row.status == "FAILED"
    assert len(partner.calls()) == 1
    assert "the kept request cannot be unsealed" in caplog.text


@pytest.mark.parametrize("retries", [0, 1])
def test_a_replay_of_an_unknown_submission_has_one_effect(
    partner: FakePartner, retries: int
) -> None:
    partner.fault(SUBMIT, "cut_after", times=retries + 1)
    phone = submitting(retryConfig={"maxRetries": retries, "initialDelayMs": 0})
    assert phone.complete().retryable
    assert phone.complete().success
    assert len({call.key for call in partner.calls()}) == 1
    assert len(partner.calls()) == retries + 2
    assert len(partner.effects(SUBMIT)) == 1


def test_a_conflict_after_an_unknown_submission_proves_nothing(partner: FakePartner) -> None:
    partner.fault(SUBMIT, "cut_after")
    partner.fault(SUBMIT, "status", status=409)
    phone = submitting()
    phone.complete()
    answer = phone.complete()
    assert (answer.error_code, answer.retryable) == ("SUBMISSION_FAILED", True)
    assert phone.runs[-1].status == RunStatus.UNKNOWN
    assert phone.complete().success
    assert len({call.key for call in partner.calls()}) == 1


def test_retry_after_is_told(partner: FakePartner) -> None:
    partner.fault(SUBMIT, "status", status=503, retry_after=9)
    assert submitting().complete().retry_after_ms == 9000


def test_an_endpoint_without_its_value_leaves_the_execution_open(partner: FakePartner) -> None:
    phone = submitting(endpoint="/api/payments/${form0.id}")
    with nothing_happens(partner):
        assert phone.complete().error_code == "MAPPING_INCOMPLETE"
    assert phone.row.status == "IN_PROGRESS"


def test_the_answer_tells_nothing_of_a_session_that_has_ended(partner: FakePartner) -> None:
    answer: StepAnswer = submitting().complete()
    assert answer.standing is None
