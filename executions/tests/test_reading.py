"""What an app and what staff are shown of an execution, and what it costs to ask."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from config.jsonvalues import JsonObject
from executions.errors import SessionStoreAway, SessionUnavailable
from executions.models import WorkflowExecution
from executions.session_store import get_session_store
from executions.tests.app import OPERATIONS, App
from executions.tests.evidence import nothing_happens
from executions.tests.phone import BEFORE, Phone, flow, form, published, server_step
from sandbox.testing import FakePartner
from workflows.drafts import import_document
from workflows.publishing import publish

pytestmark = pytest.mark.django_db

ASK = "/api/ask"
SEND = "/api/transactions/transfer"
TRANSFER: JsonObject = {"amount": 10, "recipientAccount": "9876543210"}
ONE = "query ($id: ID!) { workflowExecution(id: $id) { %s } }"
LIST = """query ($u: ID!, $s: WorkflowExecutionStatus, $n: Int) {
    userWorkflowExecutions(userId: $u, status: $s, limit: $n) { %s }
}"""


@pytest.fixture
def me() -> App:
    return App("alice")


@pytest.fixture
def boss() -> App:
    return App("boss", "workflows:admin")


def shown(app: App, phone: Phone, fields: str) -> Any:
    return app.data(ONE % fields, id=str(phone.execution_id))


# --- private and sensitive ------------------------------------------------------------------------


@pytest.fixture
def secretive(partner: FakePartner) -> Phone:
    """A form with a PIN, a private question, and a form whose message tells both."""
    partner.answer(ASK, {"valid": True, "score": "s-777", "pin": "p-999", "echo": "<4321>"})
    ask = server_step(
        1, type="VALIDATION", triggerEndpoint=ASK, config={"private": True, "headers": {"X-A": "b"}}
    )
    last = form(2, message="${form0.pin} ${form0.name} ${call1.score}")
    phone = Phone(published(flow(form(0), ask, last, sensitive=["pin", "form0.card.number"])))
    phone.step(0, {"pin": 4321, "name": "Al", "card": {"number": "4111", "type": "visa"}})
    phone.step(1)
    return phone


OWN = {"pin": 4321, "name": "Al", "card": {"number": "4111", "type": "visa"}}
MASKED = {"pin": "[redacted]", "name": "Al", "card": {"number": "[redacted]", "type": "visa"}}
MASKED_ANSWER = {"valid": True, "score": "s-777", "pin": "[redacted]", "echo": "<[redacted]>"}


def test_the_owner_sees_what_was_entered_and_nothing_private(secretive: Phone, me: App) -> None:
    assert shown(me, secretive, "context") == {"context": {"form0": OWN, "userId": "alice"}}


def test_staff_see_what_is_private_and_nothing_sensitive(secretive: Phone, boss: App) -> None:
    assert shown(boss, secretive, "context") == {
        "context": {"form0": MASKED, "call1": MASKED_ANSWER, "userId": "alice"}
    }


@pytest.mark.parametrize("field", ["currentStep { config }", "steps { config }"])
def test_texts_tell_each_what_they_may_see(
    secretive: Phone, me: App, boss: App, field: str
) -> None:
    seen = []
    for app in (me, boss):
        (value,) = shown(app, secretive, field).values()
        step = value[-1] if isinstance(value, list) else value
        seen.append(step["config"]["message"])
    assert seen == ["4321 Al ", "[redacted] Al "]


def test_records_are_masked_for_everybody(secretive: Phone, me: App, boss: App) -> None:
    for app, result in ((me, None), (boss, MASKED_ANSWER)):
        runs = shown(app, secretive, "runs { status result }")["runs"]
        assert runs == [
            {"status": "SUCCEEDED", "result": None},
            {"status": "SUCCEEDED", "result": result},
        ]


SERVER_SIDE = "triggerEndpoint timeoutMs retryConfig config"


def test_how_partners_are_called_is_for_staff(secretive: Phone, me: App, boss: App) -> None:
    for field in (f"steps {{ {SERVER_SIDE} }}", f"workflow {{ steps {{ {SERVER_SIDE} }} }}"):
        mine, theirs = (shown(app, secretive, field) for app in (me, boss))
        of_mine, of_theirs = (
            (answer.get("workflow") or answer)["steps"][1] for answer in (mine, theirs)
        )
        assert of_mine == {
            "triggerEndpoint": None,
            "timeoutMs": None,
            "retryConfig": None,
            "config": {"dataKey": "call1", "private": True},
        }
        assert of_theirs == {
            "triggerEndpoint": ASK,
            "timeoutMs": 2000,
            "retryConfig": None,
            "config": {"dataKey": "call1", "private": True, "headers": {"X-A": "b"}},
        }


# --- steps and where one stands -------------------------------------------------------------------


def states(app: App, phone: Phone) -> tuple[list[str], str | None]:
    answer = shown(app, phone, "currentStep { label state } steps { state }")
    current = answer["currentStep"]
    assert current is None or current["state"] in ("CURRENT", "UNKNOWN", "REJECTED")
    return [step["state"] for step in answer["steps"]], current and current["label"]


def test_the_states_of_steps(partner: FakePartner, me: App) -> None:
    partner.answer(ASK, {"valid": False}, times=1)
    partner.answer(ASK, {"valid": True})
    ask = server_step(
        2, type="VALIDATION", executionMode="SERVER_VALIDATION", triggerEndpoint=ASK,
        triggerTiming="BEFORE_STEP",
    )  # fmt: skip
    steps = (form(0), form(1, when="form0.more"), ask, server_step(3), form(4, optional=True))
    phone = Phone(published(flow(*steps)))
    assert states(me, phone) == (["CURRENT", "SKIPPED", "OPEN", "OPEN", "OPEN"], "Form 0")
    phone.step(0, {"more": True, **TRANSFER})
    assert states(me, phone) == (["PASSED", "CURRENT", "OPEN", "OPEN", "OPEN"], "Form 1")
    phone.step(0, TRANSFER)
    assert states(me, phone) == (["PASSED", "SKIPPED", "CURRENT", "OPEN", "OPEN"], "Call 2")
    phone.step(2, timing=BEFORE)
    assert states(me, phone) == (["PASSED", "SKIPPED", "REJECTED", "OPEN", "OPEN"], "Call 2")
    phone.step(2, timing=BEFORE)
    partner.fault(SEND, "cut_after")
    phone.step(3)
    assert states(me, phone) == (["PASSED", "SKIPPED", "PASSED", "UNKNOWN", "OPEN"], "Call 3")
    phone.step(3)
    assert states(me, phone) == (["PASSED", "SKIPPED", "PASSED", "PASSED", "CURRENT"], "Form 4")
    assert phone.complete().success
    assert states(me, phone)[1] is None


def test_the_record_of_a_call(partner: FakePartner, me: App) -> None:
    partner.fault(SEND, "status", status=503)
    retry = {"maxRetries": 1, "initialDelayMs": 0}
    phone = Phone(published(flow(form(0), server_step(1, retryConfig=retry))))
    phone.step(0, TRANSFER)
    phone.step(1)
    fields = """runs { id kind stepId timing mode status shouldProceed result error errorCode
        startedAt finishedAt durationMs
        attempts { number outcome httpStatus errorCode startedAt durationMs } }"""
    entered, sent = shown(me, phone, fields)["runs"]
    (effect,) = partner.effects(SEND)
    for run in (entered, sent):
        assert run.pop("id")
        assert run.pop("startedAt") <= run.pop("finishedAt")
        assert run.pop("durationMs") >= 0
    attempts = sent.pop("attempts")
    assert all(one.pop("durationMs") >= 0 and one.pop("startedAt") for one in attempts)
    usual = {"kind": "STEP", "timing": "AFTER_STEP", "status": "SUCCEEDED", "shouldProceed": True}
    ids = [step.id for step in phone.compiled.steps]
    no_error = {"error": None, "errorCode": None}
    assert entered == {
        **usual, **no_error, "stepId": ids[0], "mode": "CLIENT_ONLY", "result": None, "attempts": [],
    }  # fmt: skip
    assert sent == {
        **usual, **no_error, "stepId": ids[1], "mode": "SERVER_SYNC", "result": effect.result,
    }  # fmt: skip
    assert attempts == [
        {
            "number": 1,
            "outcome": "SERVER_ERROR",
            "httpStatus": 503,
            "errorCode": "TRIGGER_UNAVAILABLE",
        },
        {"number": 2, "outcome": "ANSWERED", "httpStatus": 200, "errorCode": None},
    ]


def test_an_execution_shows_its_pinned_version(partner: FakePartner, me: App) -> None:
    document: JsonObject = {**flow(form(0)), "name": "Pinned"}
    phone = Phone(published(document))
    workflow, _ = import_document({**document, "steps": [form(0), form(1)]})
    publish(workflow.pk, by="operator")
    fields = "version workflow { version steps { label } } steps { label }"
    assert shown(me, phone, fields) == {
        "version": 1,
        "workflow": {"version": 1, "steps": [{"label": "Form 0"}]},
        "steps": [{"label": "Form 0"}],
    }


def test_after_the_end(partner: FakePartner, me: App) -> None:
    phone = Phone(published(flow(form(0), form(1), apiMapping={"a": "form0.a"})))
    phone.step(0, {"a": 2**70})
    fields = "status context currentStep { id } steps { state } result cancelReason pageId userId"
    phone.cancel("Over.")
    assert shown(me, phone, fields) == {
        "status": "CANCELLED",
        "context": None,
        "currentStep": None,
        "steps": [{"state": "PASSED"}, {"state": "OPEN"}],
        "result": None,
        "cancelReason": "Over.",
        "pageId": "home",
        "userId": "alice",
    }


def test_big_integers_come_out_exactly(partner: FakePartner, me: App) -> None:
    phone = Phone(published(flow(form(0), apiMapping={"a": "form0.a"})))
    phone.step(0, {"a": 2**70, "f": 1.0})
    assert shown(me, phone, "context")["context"]["form0"] == {"a": 2**70, "f": 1.0}
    phone.complete()
    assert shown(me, phone, "result")["result"] == {"a": 2**70}


def unreachable(monkeypatch: pytest.MonkeyPatch, error: type[SessionUnavailable]) -> list[str]:
    """Let the session store fail; the verbs that it is asked for."""
    asked: list[str] = []

    def failing(verb: str) -> Any:
        def fail(*_args: Any, **_kwargs: Any) -> None:
            asked.append(verb)
            raise error

        return fail

    for verb in ("get_context", "get_session_ttl"):
        monkeypatch.setattr(type(get_session_store()), verb, failing(verb))
    return asked


@pytest.mark.parametrize(
    ("error", "asked_for"),
    [
        # it did not answer: nobody asks again
        (SessionStoreAway, ["get_session_ttl"]),
        # this one cannot be read, whichever part of it is asked for
        (SessionUnavailable, ["get_session_ttl", "get_context"]),
    ],
)
def test_a_session_out_of_reach_hides_only_itself(
    secretive: Phone,
    me: App,
    monkeypatch: pytest.MonkeyPatch,
    error: type[SessionUnavailable],
    asked_for: list[str],
) -> None:
    asked = unreachable(monkeypatch, error)
    fields = """status runs { status } result context currentStep { id }
        steps { id label order state config }"""
    body = me.send(ONE % fields, id=str(secretive.execution_id))
    assert body["data"]["workflowExecution"] == {
        "status": "IN_PROGRESS",
        "runs": [{"status": "SUCCEEDED"}] * 2,
        "result": None,
        "context": None,
        "currentStep": None,
        "steps": [
            {
                "id": step.id,
                "label": step.label,
                "order": step.order,
                "state": None,
                "config": None,
            }
            for step in secretive.compiled.steps
        ],
    }
    told = {tuple(one["path"][1:]) for one in body["errors"]}
    of_steps = {("steps", index, name) for index in range(3) for name in ("state", "config")}
    assert told == {("context",), ("currentStep",)} | of_steps
    for one in body["errors"]:
        assert one["extensions"] == {"code": "SESSION_UNAVAILABLE", "retryable": True}
    assert asked == asked_for


def test_the_seeds_query_shows_the_record_without_the_session(
    secretive: Phone, me: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable(monkeypatch, SessionStoreAway)
    body = me.send(OPERATIONS["execution"], id=str(secretive.execution_id))
    shown = body["data"]["workflowExecution"]
    assert (shown["id"], shown["status"]) == (str(secretive.execution_id), "IN_PROGRESS")
    assert (shown["context"], shown["currentStep"]) == (None, None)


def test_a_list_asks_a_store_that_is_away_once(
    partner: FakePartner, me: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = published(flow(form(0)))
    for _ in range(3):
        Phone(compiled)
    overdue = [Phone(compiled) for _ in range(2)]
    WorkflowExecution.objects.filter(pk__in=[phone.execution_id for phone in overdue]).update(
        expires_at=overdue[0].row.started_at
    )
    asked = unreachable(monkeypatch, SessionStoreAway)
    body = me.send(LIST % "status context steps { label state }", u="alice")
    shown = body["data"]["userWorkflowExecutions"]
    assert (
        shown
        == [{"status": "PENDING", "context": None, "steps": [{"label": "Form 0", "state": None}]}]
        * 5
    )
    assert asked == ["get_context"]


# --- lists ----------------------------------------------------------------------------------------


def test_lists_are_newest_first_and_filtered(partner: FakePartner, me: App, boss: App) -> None:
    compiled = published(flow(form(0)))
    phones = [Phone(compiled) for _ in range(4)]
    Phone(compiled, user_id="bob")
    phones[1].cancel()
    ids = [str(phone.execution_id) for phone in reversed(phones)]
    for app in (me, boss):
        listed = app.data(LIST % "id", u="alice")
        assert [one["id"] for one in listed] == ids
    assert me.data(LIST % "id", u="alice", n=2) == [{"id": one} for one in ids[:2]]
    cancelled = me.data(LIST % "id status", u="alice", s="CANCELLED")
    assert cancelled == [{"id": ids[2], "status": "CANCELLED"}]
    assert me.data(LIST % "id", u="alice", s="COMPLETED") == []


@pytest.mark.parametrize("limit", [0, -1, 101, 2**31 - 1])
def test_a_page_has_its_bounds(db: None, me: App, limit: int) -> None:
    assert me.code(LIST % "id", u="alice", n=limit) == "BAD_USER_INPUT"


@pytest.mark.parametrize("user", ["bob", "nobody", "", "x" * 5000, "🚀"])
def test_another_persons_list_is_forbidden_whether_they_exist_or_not(
    partner: FakePartner, me: App, user: str
) -> None:
    Phone(published(flow(form(0))), user_id="bob")
    assert me.code(LIST % "id", u=user) == "FORBIDDEN"


@pytest.mark.parametrize(
    ("fields", "queries_each"),
    [
        # the records of any number of executions: four queries
        ("id status version workflow { name steps { label } }", 0),
        ("id runs { id result attempts { number } } workflow { name }", 0),
        # what a session says is one round trip each, however much of it is asked for
        ("context currentStep { config } steps { state config }", 1),
    ],
)
def test_a_list_costs_the_same_however_long_it_is(
    partner: FakePartner, me: App, settings: Any, fields: str, queries_each: int
) -> None:
    compiled = published(flow(form(0), form(1)))

    def cost() -> int:
        me.data(LIST % fields, u="alice")
        with CaptureQueriesContext(connection) as queries:
            assert len(me.data(LIST % fields, u="alice")) == WorkflowExecution.objects.count()
        return len(queries)

    costs = []
    for _ in range(2):
        for _ in range(3):
            Phone(compiled).step(0, {"a": 1})
        costs.append(cost())
    more = 0 if settings.REDIS_URL else 3 * queries_each
    assert costs[1] - costs[0] == more


# --- staff ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("permissions", [[], ["view_workflowexecution"]])
def test_a_staff_session_needs_the_permission(
    partner: FakePartner, django_user_model: Any, permissions: list[str]
) -> None:
    phone = Phone(published(flow(form(0))))
    user = django_user_model.objects.create_user("operator", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)
    browser.get("/admin/")  # its pages set the cookie
    csrf = browser.cookies["csrftoken"].value if "csrftoken" in browser.cookies else ""

    def ask(query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables})
        answer = browser.post(
            "/graphql", body, content_type="application/json", headers={"X-CSRFToken": csrf}
        )
        return answer.json()

    one = ask(ONE % "id", id=str(phone.execution_id))
    many = ask(LIST % "id", u="alice")
    if permissions:
        assert one["data"]["workflowExecution"]["id"] == str(phone.execution_id)
        assert many["data"]["userWorkflowExecutions"] == [{"id": str(phone.execution_id)}]
    else:
        assert one["errors"][0]["extensions"] == {"code": "NOT_FOUND"}
        assert many["errors"][0]["extensions"] == {"code": "FORBIDDEN"}


def test_staff_look_and_do_not_drive(partner: FakePartner, boss: App) -> None:
    phone = Phone(published(flow(form(0))))
    execution_id = str(phone.execution_id)
    step = {"stepId": phone.compiled.steps[0].id, "timing": "AFTER_STEP", "input": {}}
    with nothing_happens():
        for name, more in (("execute-step", step), ("complete", {}), ("cancel", {})):
            assert boss.code(OPERATIONS[name], executionId=execution_id, **more) == "NOT_FOUND"
