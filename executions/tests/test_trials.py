"""Trying a draft: what is sent and what is said of the answer, and that nothing else comes of it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse

from config.jsonvalues import JsonObject, JsonValue
from executions.enums import AttemptOutcome, OperatorOutcome
from executions.errors import InputInvalid
from executions.models import TriggerTrial
from executions.surroundings import ConnectionCaps, get_surroundings
from executions.tests.evidence import nothing_happens
from executions.tests.phone import MONEY_TRANSFER, flow, form, server_step
from executions.trial_pages import picked_paths
from executions.trying import (
    PlannedTrial,
    Trial,
    TrialRefused,
    TrialSubject,
    plan_trial,
    try_trigger,
)
from sandbox.testing import FakePartner
from workflows import drafts
from workflows.connections import forget_connections, set_connection
from workflows.documents import parse_document
from workflows.enums import AuthKind, TriggerTiming
from workflows.errors import EndpointForbidden, MappingIncomplete
from workflows.models import Workflow, WorkflowStep
from workflows.tests.test_admin import staff

pytestmark = pytest.mark.django_db

AFTER, BEFORE = TriggerTiming.AFTER_STEP, TriggerTiming.BEFORE_STEP
PATH = "/api/anything/x"
SECRET = "the-partner-s-secret"
SCRIPT = "<script>alert('answered')</script>"


@pytest.fixture
def sandbox() -> Iterator[FakePartner]:
    """A second partner, registered as the sandbox."""
    with FakePartner() as fake:
        set_connection(name="sandbox", base_url=fake.url, allow_private=True)
        yield fake
    forget_connections()


def api(endpoint: str = PATH, **config: Any) -> JsonObject:
    """An API_CALL with this config."""
    return server_step(0, triggerEndpoint=endpoint, config=config)


def planned(
    step: JsonObject, *, context: JsonObject | None = None, value: JsonValue = None,
    connection: str | None = None, timing: TriggerTiming = AFTER, **config: JsonValue,
) -> PlannedTrial:  # fmt: skip
    document = parse_document({"name": "Flow", "steps": [step], "config": config})
    subject = TrialSubject(document, 0, step_id="s0", timing=timing)
    return plan_trial(
        subject, context=context or {}, value=value, connection=connection, world=get_surroundings()
    )


def tried(step: JsonObject, **arguments: Any) -> Trial:
    return try_trigger(planned(step, **arguments), world=get_surroundings())


# --- the request ----------------------------------------------------------------------------------


def test_the_request_is_production_s_and_marked(partner: FakePartner) -> None:
    step = api(
        requestMapping={"a": "card.number", "who": "execution.userId", "in": "input.x"},
        headers={"X-Own": "${card.number}"},
    )
    with nothing_happens():
        trial = tried(step, context={"card": {"number": 2**70}, "userId": "u1"}, value={"x": 1})
    (call,) = partner.calls()
    assert call.json == {"a": 2**70, "who": "u1", "in": 1}
    assert call.headers["x-handrail-trial"] == "true"
    assert call.headers["x-own"] == str(2**70)
    assert call.headers["x-workflow-step-id"] == "s0"
    assert "x-callback-url" not in call.headers
    assert call.headers["idempotency-key"] == trial.plan.shown.idempotency_key
    shown = {name.lower(): value for name, value in trial.plan.headers}
    assert shown.keys() == call.headers.keys() - {"host", "content-length", "accept-encoding"}


def test_each_trial_has_a_key_of_its_own(partner: FakePartner) -> None:
    step = api()
    assert planned(step).call.idempotency_key != planned(step).call.idempotency_key


def test_planning_sends_and_stores_nothing(partner: FakePartner) -> None:
    with nothing_happens(partner):
        planned(api())


def test_what_is_broken_elsewhere_stands_in_nobody_s_way(partner: FakePartner) -> None:
    plan = planned(api(), apiMapping={"a": "b.("})
    assert plan.shown.method == "POST"


def test_credentials_are_hidden_and_sensitive_values_masked(partner: FakePartner) -> None:
    set_connection(
        name="bank",
        base_url=partner.url,
        allow_private=True,
        auth_kind=AuthKind.BEARER,
        secret=SECRET,
    )
    step = api(PATH + "?pin=${pin}", connection="bank",
        requestMapping={"pin": "pin", "note": "note"}, headers={"X-Pin": "${pin}"},
    )  # fmt: skip
    partner.answer(PATH, {"echo": "it was 98765", "pin": "98765"})
    context: JsonObject = {"pin": "98765", "note": "said 98765 twice"}
    trial = tried(step, context=context, sensitive=["pin"])
    (call,) = partner.calls()
    assert call.headers["authorization"] == f"Bearer {SECRET}"
    headers = dict(trial.plan.headers)
    assert (headers["Authorization"], headers["X-Pin"]) == ("[hidden]", "[redacted]")
    assert trial.plan.shown.payload == {"pin": "[redacted]", "note": "said [redacted] twice"}
    assert trial.plan.shown.query == {"pin": "[redacted]"}
    assert trial.answer == {"echo": "it was [redacted]", "pin": "[redacted]"}
    for text in (repr(trial), repr(trial.plan)):
        assert SECRET not in text
        assert "98765" not in text


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("https://real.example/v1/pay?x=${n}", "/v1/pay"),
        ("/v1/pay?x=${n}", "/v1/pay"),
        ("https://real.example", "/"),
    ],
)
def test_the_sandbox_gets_the_same_path(sandbox: FakePartner, endpoint: str, path: str) -> None:
    plan = planned(api(endpoint, connection="nowhere"), context={"n": 7}, connection="sandbox")
    assert plan.shown.url.rstrip("/") == f"{sandbox.url}{path}".rstrip("/")
    assert plan.connection == "sandbox"


def test_egress_holds_for_trials(partner: FakePartner) -> None:
    for endpoint in ("https://elsewhere.example/x", "//evil", "/../../x\\y"):
        with pytest.raises(EndpointForbidden):
            planned(api(endpoint))
    set_connection(name="inside", base_url=partner.url, allow_private=False)
    trial = tried(api(connection="inside"))
    assert (trial.attempt, trial.outcome) == (AttemptOutcome.FORBIDDEN, OperatorOutcome.NOT_SENT)
    assert partner.calls() == []


def test_what_an_execution_would_refuse_is_refused(partner: FakePartner) -> None:
    with nothing_happens(partner):
        with pytest.raises(MappingIncomplete):
            planned(api(requestMapping={"a": "b"}))
        schema: JsonObject = {"type": "object", "required": ["x"]}
        with pytest.raises(InputInvalid):
            planned(api(inputSchema=schema), value={})
        with pytest.raises(TrialRefused):
            planned(form(0))
        with pytest.raises(TrialRefused):
            planned(api(), timing=BEFORE)


def test_a_condition_that_would_skip_the_step_is_told(partner: FakePartner) -> None:
    step = api(when="wanted")
    assert planned(step).is_skipped is True
    assert planned(step, context={"wanted": True}).is_skipped is False


# --- the answer -----------------------------------------------------------------------------------


def test_an_answer_lands_under_its_key(partner: FakePartner) -> None:
    partner.answer(PATH, {"token": "t"})
    trial = tried(api(dataKey="pay"))
    assert (trial.outcome, trial.http_status) == (OperatorOutcome.SUCCEEDED, 200)
    assert (trial.should_proceed, trial.stored) == (True, {"pay": {"token": "t"}})


def test_what_the_step_keeps_of_its_input_lands_too(partner: FakePartner) -> None:
    partner.answer(PATH, {"ok": True, "pin": "1234"}, times=2)
    step = {**api(dataKey="pay"), "type": "FORM"}
    entered: JsonObject = {"amount": 5, "pin": "1234"}
    trial = tried(step, value=entered, sensitive=["pay.pin"])
    masked: JsonObject = {"amount": 5, "pin": "[redacted]"}
    assert trial.stored == {"pay": masked, "payResult": {"ok": True, "pin": "[redacted]"}}
    assert tried({**step, "triggerTiming": "BEFORE_STEP"}, timing=BEFORE).stored.keys() == {
        "payResult"
    }
    partner.answer(PATH, {"taken": True}, status=202, times=1)
    later = {**step, "executionMode": "SERVER_ASYNC"}
    assert tried(later, value=entered).stored == {"pay": entered}
    partner.answer(PATH, {"message": "No"}, status=422)
    assert tried(step, value=entered).stored == {}


def validation(**config: Any) -> JsonObject:
    return {
        **api(dataKey="check", **config),
        "type": "VALIDATION",
        "executionMode": "SERVER_VALIDATION",
    }


def test_a_validation_s_no_is_told(partner: FakePartner) -> None:
    partner.answer(PATH, {"valid": False, "message": "No such account."}, times=1)
    trial = tried(validation())
    assert (trial.outcome, trial.success, trial.should_proceed) == (
        OperatorOutcome.SUCCEEDED,
        True,
        False,
    )
    assert (trial.error_code, trial.error) == ("VALIDATION_REJECTED", "No such account.")
    assert trial.stored == {}
    partner.answer(PATH, {"message": "Unknown."}, status=422)
    refused = tried(validation())
    assert (refused.outcome, refused.success, refused.error) == (
        OperatorOutcome.REJECTED,
        True,
        "Unknown.",
    )


def test_proceed_when_decides_with_context_and_input(partner: FakePartner) -> None:
    partner.answer(PATH, {"limit": 10})
    step = validation(proceedWhen="result.limit >= input.amount && context.open")
    assert tried(step, context={"open": True}, value={"amount": 10}).should_proceed is True
    assert tried(step, context={"open": True}, value={"amount": 11}).should_proceed is False


@pytest.mark.parametrize(
    ("status", "outcome", "code"),
    [
        (403, OperatorOutcome.REJECTED, "TRIGGER_REJECTED"),
        (429, OperatorOutcome.NOT_SENT, "TRIGGER_UNAVAILABLE"),
        (503, OperatorOutcome.UNKNOWN, "TRIGGER_UNAVAILABLE"),
    ],
)
def test_failures_are_told_and_never_retried(
    partner: FakePartner, status: int, outcome: OperatorOutcome, code: str
) -> None:
    partner.answer(PATH, {}, status=status)
    step: JsonObject = {**api(), "retryConfig": {"maxRetries": 3}}
    trial = tried(step)
    assert (trial.outcome, trial.error_code, trial.http_status) == (outcome, code, status)
    assert (trial.success, trial.should_proceed, trial.stored) == (False, False, {})
    assert len(partner.calls()) == 1


def test_a_timeout_is_unknown(partner: FakePartner) -> None:
    partner.fault(PATH, "latency", ms=2000)
    trial = tried({**api(), "timeoutMs": 100})
    assert (trial.attempt, trial.outcome) == (AttemptOutcome.TIMED_OUT, OperatorOutcome.UNKNOWN)
    assert (trial.error_code, trial.has_answer) == ("TRIGGER_TIMEOUT", False)


def test_where_there_is_no_room_nobody_is_called(partner: FakePartner) -> None:
    full = replace(get_surroundings(), caps=ConnectionCaps(0))
    trial = try_trigger(planned(api()), world=full)
    assert (trial.attempt, trial.outcome) == (None, OperatorOutcome.NOT_SENT)
    assert (trial.error_code, partner.calls()) == ("TRIGGER_UNAVAILABLE", [])


def test_an_accepted_async_step_would_wait(partner: FakePartner) -> None:
    partner.answer(PATH, {"taken": True}, status=202)
    step = {**api(), "executionMode": "SERVER_ASYNC"}
    trial = tried(step)
    assert (trial.waits, trial.stored) == (True, {})


def test_both_timings_can_be_tried(partner: FakePartner) -> None:
    step = {**validation(), "type": "FORM", "triggerTiming": "BOTH"}
    assert tried(step, timing=BEFORE).result_key == "checkResult"
    assert tried(step, timing=AFTER, value={"a": 1}).http_status == 200


def test_the_final_request_can_be_tried(partner: FakePartner) -> None:
    config: JsonObject = {"apiMapping": {"a": "x"}, "finalApi": {"endpoint": PATH}}
    document = parse_document({"name": "Flow", "steps": [form(0)], "config": config})
    plan = plan_trial(
        TrialSubject(document, None), context={"x": "y"}, value=None, connection=None,
        world=get_surroundings(),
    )  # fmt: skip
    trial = try_trigger(plan, world=get_surroundings())
    assert (trial.outcome, trial.success, trial.stored) == (OperatorOutcome.SUCCEEDED, True, {})
    assert partner.calls()[0].json == {"a": "y"}


def test_paths_are_picked_from_an_answer() -> None:
    answer: JsonValue = {"a": {"b-c": [1, {"d e": "x"}]}, "n": None}
    assert [
        (one.value, one.in_mapping, one.in_condition) for one in picked_paths(answer, "pay")
    ] == [
        ("1", 'pay.a."b-c"[0]', 'result.a."b-c"[0]'),
        ('"x"', 'pay.a."b-c"[1]."d e"', 'result.a."b-c"[1]."d e"'),
        ("null", "pay.n", "result.n"),
    ]
    assert len(list(picked_paths([*range(1000)], "pay"))) == 200


# --- the page -------------------------------------------------------------------------------------

EDITOR = ("view_workflow", "change_workflow", "view_workflowstep", "change_workflowstep")
PUBLISHER = (*EDITOR, "test_connection")


@pytest.fixture
def transfer(partner: FakePartner) -> WorkflowStep:
    """The last step of the seed's money transfer, whose partner is the default connection."""
    row: Workflow = drafts.import_document(MONEY_TRANSFER)[0]
    return row.steps.get(label="Process Transfer")


def address(row: Any) -> str:
    return reverse(f"admin:workflows_{row._meta.model_name}_try", args=[row.pk])


def send(client: Client, row: Any, do: str, **fields: str) -> Any:
    data = {"context": '{"userId": "u"}', "input": "{}", "trial": str(uuid4()), "do": do, **fields}
    return client.post(address(row), data)


def test_the_page_opens_with_a_sample(transfer: WorkflowStep) -> None:
    page = staff(*EDITOR).get(address(transfer))
    assert page.status_code == 200
    assert "transferDetails" in json.loads(page.context["entered"].context)
    assert "add_connection sandbox" in page.content.decode()


def test_the_sandbox_is_called_by_editors_and_recorded(
    transfer: WorkflowStep, sandbox: FakePartner, partner: FakePartner
) -> None:
    client = staff(*EDITOR)
    page = send(client, transfer, "sandbox")
    assert page.status_code == 200
    assert (len(sandbox.calls()), partner.calls()) == (1, [])
    (record,) = TriggerTrial.objects.all()
    assert (record.connection, record.is_sandbox, record.by) == (
        "sandbox",
        True,
        page.context["user"].username,
    )
    assert (record.what, record.step_id) == ("Money Transfer: Process Transfer", transfer.pk)
    assert record.outcome == page.context["trial"].outcome


def test_without_a_sandbox_nothing_is_sent(transfer: WorkflowStep, partner: FakePartner) -> None:
    with nothing_happens(partner):
        page = send(staff(*PUBLISHER), transfer, "sandbox")
    assert page.status_code == 409
    assert "there is no connection sandbox" in page.content.decode()
    assert TriggerTrial.objects.count() == 0


def test_the_real_partner_needs_the_right_and_the_confirmation(
    transfer: WorkflowStep, partner: FakePartner
) -> None:
    named = f"default at {partner.url}"
    with nothing_happens(partner):
        assert send(staff(*EDITOR), transfer, "real", confirmed=named).status_code == 403
        publisher = staff(*PUBLISHER)
        assert send(publisher, transfer, "real").status_code == 409
        assert (
            send(publisher, transfer, "real", confirmed="default at http://other").status_code
            == 409
        )
        shown = send(publisher, transfer, "show")
    assert f'name="confirmed" value="{named}"' in shown.content.decode()
    assert TriggerTrial.objects.count() == 0
    page = send(publisher, transfer, "real", confirmed=named)
    assert (page.status_code, len(partner.calls())) == (200, 1)
    (record,) = TriggerTrial.objects.all()
    assert (record.connection, record.origin, record.is_sandbox) == ("default", partner.url, False)
    assert record.http_status == page.context["trial"].http_status


def test_a_form_that_is_sent_twice_is_one_request(
    transfer: WorkflowStep, partner: FakePartner
) -> None:
    named, publisher = f"default at {partner.url}", staff(*PUBLISHER)
    shown = send(publisher, transfer, "show").context
    once = {"confirmed": named, "trial": str(shown["trial_id"])}
    assert send(publisher, transfer, "real", **once).status_code == 200
    again = send(publisher, transfer, "real", **once)
    assert again.status_code == 409
    assert "was not sent a second time" in again.content.decode()
    assert (len(partner.calls()), TriggerTrial.objects.count()) == (1, 1)
    assert send(publisher, transfer, "real", confirmed=named, trial="x").status_code == 400
    afresh = str(again.context["trial_id"])
    assert send(publisher, transfer, "real", confirmed=named, trial=afresh).status_code == 200
    assert len(partner.calls()) == 2


def test_editors_see_the_real_request_and_cannot_send_it(transfer: WorkflowStep) -> None:
    page = send(staff(*EDITOR), transfer, "show").content.decode()
    assert "needs the right to test connections" in page
    assert 'value="real"' not in page


def test_viewers_may_not_try(transfer: WorkflowStep) -> None:
    viewer = staff("view_workflow", "view_workflowstep")
    assert viewer.get(address(transfer)).status_code == 403
    assert send(viewer, transfer, "show").status_code == 403
    assert viewer.get(address(transfer.workflow)).status_code == 403


@pytest.mark.parametrize(
    "fields", [{"context": "[1]"}, {"context": "{"}, {"input": "{"}, {"context": ""}]
)
def test_what_cannot_be_read_is_told(
    transfer: WorkflowStep, partner: FakePartner, fields: dict[str, str]
) -> None:
    with nothing_happens(partner):
        page = send(staff(*PUBLISHER), transfer, "real", **fields)
    entered = page.context["entered"]
    assert page.status_code == 400
    assert bool(entered.context_error) is ("context" in fields)
    assert bool(entered.value_error) is ("input" in fields)


def test_what_comes_back_stays_text(partner: FakePartner, sandbox: FakePartner) -> None:
    sandbox.answer(PATH, {SCRIPT: SCRIPT, "message": SCRIPT, "valid": False})
    document = flow({**validation(), "triggerEndpoint": PATH, "label": SCRIPT})
    row = drafts.import_document(document)[0]
    client = staff(superuser=True)
    page = send(client, row.steps.get(), "sandbox", context=json.dumps({"x": SCRIPT}))
    text = page.content.decode()
    assert page.status_code == 200
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert") > 4


def test_the_final_request_has_its_page(partner: FakePartner, sandbox: FakePartner) -> None:
    document: JsonObject = {
        **flow(form(0)),
        "config": {"apiMapping": {"a": "x"}, "finalApi": {"endpoint": PATH}},
    }
    row = drafts.import_document(document)[0]
    page = send(staff(*EDITOR), row, "sandbox", context='{"x": 1}')
    assert page.status_code == 200
    assert sandbox.calls()[0].json == {"a": 1}
    (record,) = TriggerTrial.objects.all()
    assert (record.what, record.step_id) == ("Flow: final request", None)


def test_steps_without_a_partner_say_so(partner: FakePartner) -> None:
    row = drafts.import_document(flow(form(0)))[0]
    client = staff(superuser=True)
    page = client.get(address(row.steps.get()))
    assert "Nothing to try" in page.content.decode()
    assert send(client, row.steps.get(), "show").status_code == 409
    assert send(client, row, "show").status_code == 409
