"""The back office without a mouse: every control is reached in its order, and steps move by keys."""

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Page, expect

from browser.tests.conftest import Screen
from executions.tests.phone import MONEY_TRANSFER, Phone, published
from sandbox.testing import FakePartner
from workflows.drafts import import_document
from workflows.models import Workflow

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# Numbers the controls that a person can see and use, and notes which of them get the focus.
NOTE_FOCUS = """
() => {
  const isReachable = (one) =>
    one.checkVisibility({visibilityProperty: true}) && !one.disabled && one.tabIndex >= 0 &&
    !(one.type === "radio" && !one.checked);
  const found = [...document.querySelectorAll(
    "#step :is(a[href], button, input:not([type=hidden]), select, textarea, summary)"
  )].filter(isReachable);
  window.reached = [];
  document.addEventListener("focusin", (event) => {
    const at = found.indexOf(event.target);
    if (at >= 0 && !window.reached.includes(at)) window.reached.push(at);
  });
  return found.length;
}
"""


@pytest.fixture
def draft(transactional_db: None) -> Workflow:
    """The seed's money transfer, not published."""
    return import_document(MONEY_TRANSFER)[0]


def test_tab_reaches_every_control_of_a_step_in_order(
    screen: Screen, mara: User, draft: Workflow
) -> None:
    page = screen.page
    screen.sign_in("mara")
    step = draft.steps.latest("order")
    page.goto(reverse("admin:workflows_workflowstep_change", args=[step.pk]))
    page.wait_for_load_state("networkidle")
    count = page.evaluate(NOTE_FOCUS)
    assert count > 40
    for _ in range(count + 60):  # the sidebar and the top come before
        page.keyboard.press("Tab")
    assert page.evaluate("window.reached") == list(range(count))


FOCUSED_NAME = """
(document.activeElement.ariaLabel || document.activeElement.labels?.[0]?.innerText || "").trim()
"""


def tab_to(page: Page, name: str) -> None:
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate(FOCUSED_NAME) == name:
            return
    raise AssertionError(f"no Tab leads to {name}")


def test_steps_are_moved_by_keys(screen: Screen, mara: User, draft: Workflow) -> None:
    page = screen.page
    screen.sign_in("mara")
    page.goto(reverse("admin:workflows_workflow_change", args=[draft.pk]))
    tab_to(page, "Move Enter Transfer Details down")
    page.keyboard.press("Enter")
    expect(page.locator(".hr-step-label").first).to_have_text("Validate Account")
    labels = [step.label for step in draft.steps.order_by("order")]
    assert labels[:2] == ["Validate Account", "Enter Transfer Details"]


def test_steps_are_moved_by_dragging(screen: Screen, mara: User, draft: Workflow) -> None:
    page = screen.page
    screen.sign_in("mara")
    page.goto(reverse("admin:workflows_workflow_change", args=[draft.pk]))
    handles, steps = page.locator("[data-handle]"), page.locator(".hr-step")
    expect(handles.first).to_be_visible()
    steps.last.scroll_into_view_if_needed()
    handle, last = handles.first.bounding_box(), steps.last.bounding_box()
    assert handle is not None
    assert last is not None
    page.mouse.move(handle["x"] + 5, handle["y"] + 5)
    page.mouse.down()
    page.mouse.move(handle["x"] + 5, last["y"] + last["height"] - 5, steps=8)
    page.mouse.up()
    expect(page.locator(".hr-step-label").last).to_have_text("Enter Transfer Details")
    labels = [step.label for step in draft.steps.order_by("order")]
    assert labels[-1] == "Enter Transfer Details"


def test_many_are_selected_and_looked_at_by_keys(
    screen: Screen, mara: User, partner: FakePartner
) -> None:
    compiled = published(MONEY_TRANSFER)
    people = [Phone(compiled, user_id=name, initial={"userAccount": "1"}) for name in "abc"]
    page = screen.page
    screen.sign_in("mara")
    page.goto(reverse("admin:executions_workflowexecution_changelist"))
    tab_to(page, "All on this page")
    page.keyboard.press("Space")
    expect(page.locator("tbody input:checked")).to_have_count(len(people))
    page.get_by_label("With the selected").select_option("CANCEL")
    page.get_by_role("button", name="Look first").press("Enter")
    page.wait_for_url("**/bulk/")
    assert screen.violations() == []
    assert [phone.row.status for phone in people] == ["PENDING"] * 3
    page.get_by_label("Reason").fill("<script>alert('a reason')</script>")
    page.get_by_role("button", name="Do it to 3").press("Enter")
    expect(page.get_by_role("heading", name="Done: 3 of 3")).to_be_visible()
    assert screen.violations() == []
    assert [phone.row.status for phone in people] == ["CANCELLED"] * 3
    page.locator("tbody a").first.press("Enter")
    expect(page.get_by_text("alert('a reason')").first).to_be_visible()
