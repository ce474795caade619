"""Marked values are put everywhere; then everything that is kept or shown is searched for them."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.test import Client
from django.urls import reverse
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from config.jsonvalues import JsonObject
from executions.tests.app import OPERATIONS, App
from executions.tests.phone import BEFORE, Phone, flow, form, published, server_step
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow
from workflows.connections import set_connection
from workflows.enums import AuthKind

pytestmark = pytest.mark.django_db

ASK = "/api/ask"
SEND = "/api/anything/send"
SUBMIT = "/api/payments/submit"

# Called sensitive by the workflow: nobody but the owner and the partner sees these.
PIN = "SENTINEL-pin-1"
CARD = "SENTINEL-card-2"
OTP = 918273645546372819
BROUGHT = "SENTINEL-brought-3"
TOKEN_OF_PARTNER = "SENTINEL-token-4"
ONLY_SENT = "SENTINEL-only-sent-5"
SENSITIVE = (PIN, CARD, str(OTP), BROUGHT, TOKEN_OF_PARTNER, ONLY_SENT)
# The house's own: nobody at all sees this.
CREDENTIALS = "SENTINEL-credentials-6"
# Just personal: kept for staff, but nothing for logs, metrics and lists.
NAME = "Sentinella Personal-7"
ANSWERED = "SENTINEL-answered-8"

CONFIG: JsonObject = {
    "sensitive": ["pin", "card.number", "otp", "brought", "ask.token", "onlySent"],
    "apiMapping": {"who": "form0.name", "code": "form0.pin", "all": "form0", "t": "ask.token"},
    "finalApi": {"endpoint": SUBMIT, "connection": "bank", "timeoutMs": 300},
}
ENTERED: JsonObject = {
    "name": NAME,
    "pin": PIN,
    "card": {"number": CARD, "type": "visa"},
    "cards": [{"card": {"number": CARD}}],
    "otp": OTP,
}


@pytest.fixture
def bank() -> Iterator[FakePartner]:
    with FakePartner(require=f"bearer:{CREDENTIALS}") as partner:
        yield partner


@pytest.fixture
def secretive(db: None, bank: FakePartner) -> CompiledWorkflow:
    """A form, a question and a call, each of which hands secrets on in every way there is."""
    set_connection(
        name="bank",
        base_url=bank.url,
        allow_private=True,
        auth_kind=AuthKind.BEARER,
        secret=CREDENTIALS,
    )
    ask = server_step(
        1,
        type="VALIDATION",
        executionMode="SERVER_VALIDATION",
        triggerTiming="BOTH",
        triggerEndpoint=f"{ASK}?pin=${{form0.pin}}",
        config={"dataKey": "ask", "connection": "bank"},
    )
    send = server_step(
        2,
        triggerEndpoint=f"{SEND}/${{form0.card.number}}",
        timeoutMs=300,
        config={
            "connection": "bank",
            "headers": {"X-Pin": "${form0.pin}"},
            "status": {"endpoint": "/api/effects/${form0.card.number}"},
        },
    )
    shown = form(3, message="${form0.pin} ${form0.card.number} ${ask.token} ${brought}")
    return published(flow(form(0), ask, send, shown, **CONFIG))


def echo(bank: FakePartner) -> None:
    """A partner that says everything again, under names of its own."""
    everything: JsonObject = {
        "valid": True,
        "token": TOKEN_OF_PARTNER,
        "echo": [PIN, {"a": f"card {CARD}, otp {OTP}", CARD: 1}, OTP, BROUGHT, ONLY_SENT],
        "answered": ANSWERED,
        "name": NAME,
    }
    # Nothing knows any more what was sent with a step and kept nowhere.
    later: JsonObject = {**everything, "echo": [PIN, f"card {CARD}, otp {OTP}", OTP, BROUGHT]}
    refusal: JsonObject = {"message": f"{PIN} {CARD} {OTP} {BROUGHT} is wrong", "token": "x"}
    bank.answer(ASK, refusal, status=422, times=1)
    bank.answer(ASK, everything)
    for fault in ("cut_after", "garbage", "redirect", "hang"):
        bank.fault(f"{SEND}*", fault)
    bank.answer(f"{SEND}*", refusal, status=403, times=1)
    bank.answer(f"{SEND}*", everything)
    bank.answer(SUBMIT, refusal, status=422, times=1)
    bank.fault(SUBMIT, "cut_before")
    bank.answer(SUBMIT, later)


def walk(compiled: CompiledWorkflow, bank: FakePartner) -> Phone:
    """Everything that can happen, most of it going wrong first."""
    echo(bank)
    phone = Phone(compiled, initial={"brought": BROUGHT, "who": NAME})
    phone.step(0, ENTERED, key="k-1")
    assert phone.step(0, None).error_code == "INPUT_INVALID"
    assert phone.step(1, {"onlySent": ONLY_SENT}, BEFORE).error_code == "VALIDATION_REJECTED"
    assert phone.step(1, {"onlySent": ONLY_SENT}, BEFORE, key="k-2").success
    assert phone.step(1, {"onlySent": ONLY_SENT}).success
    for _ in range(12):
        if phone.step(2, {"onlySent": ONLY_SENT}).success:
            break
    assert phone.step(3, {"pin": PIN}).success
    for _ in range(3):
        if phone.complete(key="k-3").success:
            break
    assert phone.row.status == "COMPLETED"
    return phone


def rows() -> str:
    """Every row of every table, as text; sealed columns too, because nobody reads them so."""
    texts = []
    for model in apps.get_models():
        for row in model._default_manager.values():
            for value in row.values():
                is_bytes = isinstance(value, bytes | memoryview)
                texts.append(bytes(value).decode("latin-1") if is_bytes else repr(value))
    return "\n".join(texts)


def found(text: str, sentinels: tuple[str, ...]) -> list[str]:
    return [sentinel for sentinel in sentinels if sentinel in text]


def test_rows_hold_no_secret(secretive: CompiledWorkflow, bank: FakePartner) -> None:
    walk(secretive, bank)
    cancelled = Phone(secretive, initial={"brought": BROUGHT})
    cancelled.step(0, ENTERED)
    cancelled.cancel("changed my mind")
    text = rows()
    assert found(text, (*SENSITIVE, CREDENTIALS)) == []
    # the search does find what is kept in the open
    assert found(text, (NAME, ANSWERED, "[redacted]")) == [NAME, ANSWERED, "[redacted]"]


def test_a_live_session_is_sealed(secretive: CompiledWorkflow, bank: FakePartner) -> None:
    echo(bank)
    phone = Phone(secretive, initial={"brought": BROUGHT, "who": NAME})
    phone.step(0, ENTERED)
    assert found(rows(), (*SENSITIVE, NAME)) == []


def test_logs_and_metrics_hold_nothing_personal(
    secretive: CompiledWorkflow,
    bank: FakePartner,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as lines:
        do_everything(secretive, bank)
    assert {line["event"] for line in lines} >= {"request"}
    text = f"{caplog.text}\n{lines}"
    header = App("alice").headers["Authorization"].split(".")[0]
    nothing = (*SENSITIVE, CREDENTIALS, NAME, ANSWERED, "alice", header, "k-1")
    assert found(text, nothing) == []
    assert found(generate_latest().decode(), nothing) == []


def do_everything(secretive: CompiledWorkflow, bank: FakePartner) -> None:
    walk(secretive, bank)
    app = App("alice")
    started = app.data(OPERATIONS["start"], workflowId=secretive.workflow_id, pageId=PIN)
    app.send(
        OPERATIONS["execute-step"],
        executionId=started["id"],
        stepId=secretive.steps[0].id,
        timing="AFTER_STEP",
        input=ENTERED,
    )
    app.send(OPERATIONS["execute-step"] + f"# {PIN}", executionId=PIN, stepId=PIN, timing="BOTH")
    app.send(OPERATIONS["cancel"], executionId=started["id"], reason=NAME)


def test_staff_see_no_secret_over_graphql(secretive: CompiledWorkflow, bank: FakePartner) -> None:
    ended = walk(secretive, bank)
    live = Phone(secretive, initial={"brought": BROUGHT})
    live.step(0, ENTERED)
    live.step(1, {"onlySent": ONLY_SENT})
    query = """query ($id: ID!) { workflowExecution(id: $id) {
        context currentStep { config } steps { config state } result error cancelReason
        workflow { config steps { config triggerEndpoint } }
        runs { result error errorCode attempts { outcome errorCode } } } }"""
    for phone in (ended, live):
        body = App("boss", "workflows:admin").send(query, id=str(phone.execution_id))
        assert "errors" not in body
        assert found(repr(body), (*SENSITIVE, CREDENTIALS)) == []


def test_the_owner_sees_their_own(secretive: CompiledWorkflow, bank: FakePartner) -> None:
    bank.answer(ASK, {"valid": True, "token": TOKEN_OF_PARTNER})
    phone = Phone(secretive, initial={"brought": BROUGHT})
    answer = phone.step(0, ENTERED)
    assert answer.standing is not None
    shown = App("alice").data(OPERATIONS["execution"], id=str(phone.execution_id))
    assert shown["context"]["form0"] == ENTERED


# --- the stock admin ------------------------------------------------------------------------------


@pytest.fixture
def browser(admin_user: Any) -> Client:
    client = Client()
    client.force_login(admin_user)
    return client


RECORDS = (
    "executions.workflowexecution",
    "executions.steprun",
    "executions.stepattempt",
    "executions.sessionrecord",
    "executions.sessionfield",
    "workflows.workflowversion",
)


def address(model: Any, page: str, *arguments: Any) -> str:
    names = model._meta
    return reverse(f"admin:{names.app_label}_{names.model_name}_{page}", args=arguments)


def test_every_admin_page_loads_and_tells_no_secret(
    secretive: CompiledWorkflow, bank: FakePartner, browser: Client
) -> None:
    walk(secretive, bank)
    live = Phone(secretive, initial={"brought": BROUGHT})
    live.step(0, ENTERED)
    labels = set()
    for model in admin.site._registry:
        label = model._meta.label_lower
        labels.add(label)
        lists = browser.get(address(model, "changelist"))
        assert lists.status_code == 200, label
        searched = browser.get(address(model, "changelist"), {"q": str(live.execution_id)})
        assert searched.status_code in (200, 302), label
        listed = lists.content.decode() + searched.content.decode()
        assert found(listed, (*SENSITIVE, CREDENTIALS, NAME, ANSWERED)) == []
        added = browser.get(address(model, "add"))
        is_record = label.startswith("executions.") or label in RECORDS
        assert added.status_code == (403 if is_record else 200), label
        for row in model._default_manager.all()[:25]:
            page = browser.get(address(model, "change", row.pk))
            assert page.status_code == 200, label
            assert found(page.content.decode(), (*SENSITIVE, CREDENTIALS)) == [], label
    assert labels.issuperset(RECORDS)
    assert labels.issuperset(
        {"workflows.workflow", "workflows.workflowstep", "workflows.connection"}
    )


@pytest.mark.parametrize("label", RECORDS)
def test_records_are_nobodys_to_change(
    secretive: CompiledWorkflow, bank: FakePartner, browser: Client, label: str
) -> None:
    walk(secretive, bank)
    Phone(secretive)
    model = apps.get_model(label)
    row = model._default_manager.first()
    if row is None:  # sessions may live in Redis
        assert label.startswith("executions.session")
        return
    count = model._default_manager.count()
    before = list(model._default_manager.values())
    assert browser.post(address(model, "add"), {}).status_code == 403
    assert browser.post(address(model, "change", row.pk), {"status": "FAILED"}).status_code == 403
    assert browser.post(address(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"}
    browser.post(address(model, "changelist"), chosen)
    assert (model._default_manager.count(), list(model._default_manager.values())) == (
        count,
        before,
    )
