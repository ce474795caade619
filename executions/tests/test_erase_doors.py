"""erase_user after a person's values came in by every door: the API, partners, staff and commands."""

import json
import logging
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from config import rate_limits, rights
from config.ids import new_id
from executions.models import OperatorAction, TriggerTrial
from executions.rollups import roll_up
from executions.tests.app import App
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.test_erase_user import PERSON, SENTINEL, dump_of_database, dump_of_redis
from executions.tests.test_execution_pages import LIST, act, page, revealed, staff
from executions.tests.test_trials import send
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow
from workflows.connections import set_connection
from workflows.models import WorkflowStep

pytestmark = pytest.mark.django_db

ASK, FINAL = "/api/anything/ask", "/api/anything/final"
START = """mutation ($workflow: ID!, $page: ID!, $context: JSON, $key: String) {
    startWorkflowExecution(workflowId: $workflow, pageId: $page, initialContext: $context,
        idempotencyKey: $key) { id } }"""
STEP = """mutation ($execution: ID!, $step: ID!, $input: JSON, $key: String) {
    executeWorkflowStep(executionId: $execution, stepId: $step, input: $input, timing: AFTER_STEP,
        idempotencyKey: $key) { success error } }"""
COMPLETE = """mutation ($execution: ID!, $key: String) {
    completeWorkflowExecution(executionId: $execution, idempotencyKey: $key) { success error } }"""
CANCEL = """mutation ($execution: ID!, $reason: String, $key: String) {
    cancelWorkflowExecution(executionId: $execution, reason: $reason, idempotencyKey: $key) {
        status } }"""
THEIRS = "query ($user: ID!) { userWorkflowExecutions(userId: $user) { id userId } }"


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    """The partner refuses the question once, and every submission, in the person's own words."""
    said: dict[str, Any] = {"status": 422, "body": {"message": f"{SENTINEL}-refused"}}
    partner.fault(ASK, "status", **said)
    partner.answer(ASK, {"echo": f"{SENTINEL}-answer", f"{SENTINEL}-name-in-answer": 1})
    partner.fault(FINAL, "status", **said, times=None)
    set_connection(name="sandbox", base_url=partner.url, allow_private=True)
    mapping = {"name": "form0.name", "pin": "form0.pin", "who": "userId", "all": "call1"}
    return published(
        flow(
            form(0),
            server_step(1, triggerEndpoint=f"{ASK}?name=${{form0.name}}"),
            form(2),
            finalApi={"endpoint": FINAL},
            apiMapping=mapping,
            sensitive=["pin"],
        )
    )


class Walk(Phone):
    """The person's way over HTTP."""

    def __post_init__(self) -> None:
        self.app = App(self.user_id)
        context = {"account": f"{SENTINEL}-account", f"{SENTINEL}-root": {"pin": f"{SENTINEL}-pin"}}
        started = self.app.data(
            START,
            workflow=self.compiled.workflow_id,
            page=f"{SENTINEL}-page",
            context=context,
            key=f"{SENTINEL}-{self.initial['key']}",
        )
        self.execution_id = UUID(started["id"])

    def say(self, index: int, value: Any) -> dict[str, Any]:
        told: dict[str, Any] = self.app.data(
            STEP,
            execution=str(self.execution_id),
            step=self.compiled.steps[index].id,
            input=value,
            key=f"{SENTINEL}-{new_id()}",
        )
        return told

    def fill_in(self) -> "Walk":
        entered = {"name": f"{SENTINEL}-name", "pin": f"{SENTINEL}-pin", f"{SENTINEL}-field": 1}
        assert self.say(0, entered)["success"]
        return self

    def submit(self) -> "Walk":
        """As far as the partner's refusal."""
        if not self.say(1, {"note": f"{SENTINEL}-note"})["success"]:
            assert self.say(1, {"note": f"{SENTINEL}-note"})["success"]
        assert self.say(2, {"b": f"{SENTINEL}-b"})["success"]
        sent = {"execution": str(self.execution_id), "key": f"{SENTINEL}-complete"}
        assert self.app.data(COMPLETE, **sent) == {"success": False, "error": f"{SENTINEL}-refused"}
        return self


def tables_with(text: str) -> set[str]:
    return {line.split(" ", 1)[0] for line in dump_of_database().splitlines() if text in line}


def came_by_every_door(compiled: CompiledWorkflow) -> list[Walk]:
    failed = Walk(compiled, PERSON, {"key": "a"}).fill_in().submit()
    cancelled, live = (Walk(compiled, PERSON, {"key": key}).fill_in() for key in "bc")
    told = {"reason": f"{SENTINEL}-reason", "key": f"{SENTINEL}-cancel"}
    cancelled.app.data(CANCEL, execution=str(cancelled.execution_id), **told)
    by_staff = Walk(compiled, PERSON, {"key": "d"}).fill_in()
    said = {"reason": f"{SENTINEL} called us"}
    operator = staff(rights.OPERATOR)
    for place in ("/form0/pin", f"/{SENTINEL}-root/pin"):
        assert revealed(operator, live, place=place, **said).status_code == 200
    assert act(operator, failed, "REPLAY_SUBMISSION", **said).status_code == 302
    assert act(operator, by_staff, "CANCEL", **said).status_code == 302
    for address in (LIST, f"{LIST}?q={PERSON}", page(failed), page(live, "context")):
        assert operator.get(address, follow=True).status_code == 200
    assert App("boss", "workflows:admin").data(THEIRS, user=PERSON)
    words = (str(failed.execution_id), "--reason", f"{SENTINEL}", "--json")
    with pytest.raises(CommandError):
        call_command("replay_execution", *words, stdout=StringIO())
    tried = {"context": json.dumps({"userId": PERSON, "form0": {"name": f"{SENTINEL}-name"}})}
    step = WorkflowStep.objects.get(label="Call 1")
    assert send(staff(rights.PUBLISHER), step, "sandbox", **tried).status_code == 200
    for _ in roll_up():
        pass
    return [failed, cancelled, live, by_staff]


def test_nothing_is_left_of_what_came_by_any_door(
    compiled: CompiledWorkflow,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    settings.RATE_LIMIT_USER = "39/minute"  # so low that every call is counted in Redis
    rate_limits.forget()
    caplog.set_level(logging.DEBUG)
    walks = came_by_every_door(compiled)
    assert (OperatorAction.objects.count(), TriggerTrial.objects.count()) == (5, 1)
    # What the erasure has to know: a new place has to be erased, too.
    assert tables_with(SENTINEL) == {
        "executions_workflowexecution",
        "executions_steprun",
        "executions_operatoraction",
    } | (set() if settings.REDIS_URL else {"executions_sessionfield"})
    out = StringIO()
    call_command("erase_user", PERSON, stdout=out)
    assert out.getvalue().splitlines()[-1] == "4 executions erased, with their sessions."
    assert tables_with(SENTINEL) == set()
    written = capfd.readouterr()
    for text in (dump_of_redis(), caplog.text, *written, out.getvalue()):
        assert SENTINEL not in text
    assert set(OperatorAction.objects.values_list("reason", "about")) == {("", "")}
    for walk in walks:
        assert not walk.has_session
