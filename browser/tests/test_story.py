"""The main story, through the screens alone: a flow from nothing, live, failing, understood, mended."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from browser.tests.conftest import Screen
from config.identity import issue_token
from sandbox.testing import FakePartner

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

CONTRACT = Path(__file__).resolve().parents[2] / "contract"
SEED = json.loads((CONTRACT / "workflows" / "money-transfer.json").read_text())
TRANSFER = "/api/transactions/transfer"
ENTERED = {"amount": 5000, "recipientAccount": "9876543210", "recipientName": "John Doe"}
SAMPLE = {"userAccount": "1", "transferDetails": ENTERED, "validation": {"token": "v_1"}}


class Person:
    """Somebody's phone: GraphQL over HTTP with a token."""

    def __init__(self, site: str, user_id: str) -> None:
        token = issue_token(user_id, scopes=(), ttl_seconds=600, now=timezone.now())
        self._url = f"{site}/graphql"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token}"

    def send(self, operation: str, **variables: Any) -> Any:
        query = (CONTRACT / "operations" / f"{operation}.graphql").read_text()
        sent = {"query": query, "variables": variables}
        body = self._session.post(self._url, json=sent, timeout=30).json()
        assert "errors" not in body, body
        (value,) = body["data"].values()
        return value

    def hang_up(self) -> None:
        self._session.close()

    def walk(self, workflow_id: str) -> str:
        """Every step of the money transfer, the last call with whatever comes; the execution's id."""
        started = self.send("start", workflowId=workflow_id, pageId="home")
        form, validation, confirmation, call = (step["id"] for step in started["workflow"]["steps"])
        for step, timing, value in (
            (form, "AFTER_STEP", ENTERED),
            (validation, "BEFORE_STEP", None),
            (confirmation, "AFTER_STEP", {"accepted": True}),
            (call, "AFTER_STEP", None),
        ):
            self.send(
                "execute-step", executionId=started["id"], stepId=step, timing=timing, input=value
            )
        execution_id: str = started["id"]
        return execution_id


def choose(page: Page, name: str, value: str) -> None:
    """Fill in the field of the form, whatever it is made of."""
    field = page.locator(f"main [name={name}], #content [name={name}]").first
    if field.evaluate("field => field.tagName") == "SELECT":
        field.select_option(value)
    else:
        field.fill(value)


def make_workflow(page: Page) -> None:
    page.get_by_role("link", name="Workflows").click()
    page.get_by_role("link", name="Add workflow").first.click()
    choose(page, "name", SEED["name"])
    choose(page, "description", SEED["description"])
    page.get_by_role("button", name="Make the workflow").click()
    expect(page.locator("h1.hr-title")).to_have_text(SEED["name"])


def add_step(page: Page, step: dict[str, Any]) -> None:
    """On the workflow's page, what there is room for; the rest on the step's own."""
    add = page.locator("form.hr-add")
    add.locator("[name=label]").fill(step["label"])
    add.locator("[name=type]").select_option(step["type"])
    add.locator("[name=execution_mode]").select_option(step["executionMode"])
    add.locator("[name=trigger_endpoint]").fill(step.get("triggerEndpoint", ""))
    add.get_by_role("button", name="Add step").click()
    if not page.locator("form#step").count():
        page.get_by_role("link", name=step["label"], exact=True).click()
    fill_in_step(page, step)
    page.get_by_role("link", name=SEED["name"], exact=True).first.click()


def fill_in_step(page: Page, step: dict[str, Any]) -> None:
    config, retries = step["config"], step.get("retryConfig", {})
    fields = {
        "order": step["order"],
        "trigger_timing": step.get("triggerTiming"),
        "timeout_ms": step.get("timeoutMs"),
        "retry_max_retries": retries.get("maxRetries"),
        "retry_initial_delay_ms": retries.get("initialDelayMs"),
        "form_id": config.get("formId"),
        "data_key": config.get("dataKey"),
        "title": config.get("title"),
        "message": config.get("message"),
        "method": config.get("method"),
    }
    for name, value in fields.items():
        if value is not None:
            choose(page, name, str(value))
    if "message" in config:
        expect(page.locator("[data-look=texts]")).to_contain_text("As the app gets them")
    page.get_by_role("button", name="Save step").first.click()
    expect(page.get_by_role("alert")).to_have_count(0)


def fill_in_mapping(page: Page) -> None:
    page.get_by_role("link", name="Configure the payload's mapping").click()
    # No step says which fields it has, so no sample can be made up: the person writes one.
    page.get_by_label("What it is tried with (JSON)").fill(json.dumps(SAMPLE))
    for target, source in SEED["config"]["apiMapping"].items():
        page.get_by_role("button", name="Add a row", exact=True).click()
        row = page.locator("[data-row]").last
        row.locator("[name=row_name]").fill(target)
        row.locator("[name=row_text]").fill(source)
    expect(page.get_by_label("Payload", exact=True)).to_contain_text('"recipientName": "John Doe"')
    page.get_by_role("button", name="Save", exact=True).click()


def exported(page: Page) -> Any:
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").first.click()
    return json.loads(Path(download.value.path()).read_text())


@pytest.mark.timeout(300)
def test_flow_is_built_run_understood_and_mended(
    screen: Screen, mara: User, partner: FakePartner, live_server: LiveServer
) -> None:
    page = screen.page
    screen.sign_in("mara")
    make_workflow(page)
    for step in SEED["steps"]:
        add_step(page, step)
    fill_in_mapping(page)
    assert exported(page) == SEED

    page.get_by_role("link", name="publish Publish").click()
    page.get_by_label("Note").fill("The first version")
    page.get_by_role("button", name="Publish as version 1").click()
    expect(page.get_by_text("Published").first).to_be_visible()
    workflow_id = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", page.url)[0]

    alice, bob = Person(live_server.url, "alice"), Person(live_server.url, "bob")
    done = alice.walk(workflow_id)
    assert alice.send("complete", executionId=done)["success"] is True
    partner.fault(TRANSFER, "garbage")
    failed = bob.walk(workflow_id)

    find(page, done)
    expect(page.locator(".hr-facts").first).to_contain_text("Completed")
    find(page, "bob")
    expect(page.locator(".hr-facts").first).to_contain_text("Process Transfer")
    understand(page)
    replay(page)
    assert len(partner.effects(TRANSFER)) == 2
    assert bob.send("complete", executionId=failed)["success"] is True
    page.reload()
    expect(page.locator(".hr-facts").first).to_contain_text("Completed")
    for person in (alice, bob):
        person.hang_up()


def find(page: Page, text: str) -> None:
    page.get_by_role("link", name="Executions").first.click()
    page.get_by_label("Execution, session or person").fill(text)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.locator("tbody tr").get_by_role("link").click()


def understand(page: Page) -> None:
    """What failed, how often it was tried, and what can be done now."""
    entry = page.locator(".hr-timeline > li").filter(has_text="Process Transfer")
    expect(entry).to_contain_text("Trigger bad response")
    entry.locator("summary").click()
    expect(entry.locator("tbody tr")).to_have_count(1)
    expect(entry.locator("tbody tr")).to_contain_text("200")
    offers = page.locator(".hr-offers").first
    expect(offers).to_contain_text("Not now")
    expect(offers.get_by_role("link")).to_have_count(2)


def replay(page: Page) -> None:
    page.locator(".hr-offers").get_by_role("link", name="Process Transfer").first.click()
    expect(page.locator("main, #content").first).to_contain_text(TRANSFER)
    page.get_by_label("Reason").fill("The bank says its answers were broken for a minute")
    page.get_by_role("button", name="Run the step again").click()
    expect(page.locator(".hr-timeline")).to_contain_text("broken for a minute")
