"""What somebody typed is not lost: not by leaving, not by a session that ended, not by a second click."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.urls import reverse
from playwright.sync_api import Dialog, Page, Route, expect

from browser.tests.conftest import PASSWORD, Screen
from executions.tests.phone import MONEY_TRANSFER
from workflows.drafts import import_document
from workflows.models import Workflow
from workflows.tests.samples import form, workflow

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def draft(transactional_db: None) -> Workflow:
    """The seed's money transfer, not published."""
    return import_document(MONEY_TRANSFER)[0]


def come_back(page: Page) -> None:
    """To the tab, from another one."""
    page.evaluate("window.dispatchEvent(new Event('focus'))")


def test_what_was_typed_outlives_the_session(screen: Screen, mara: User, draft: Workflow) -> None:
    page, step = screen.page, draft.steps.earliest("order")
    screen.sign_in("mara")
    page.goto(reverse("admin:workflows_workflowstep_change", args=[step.pk]))
    page.get_by_label("Title").fill("Send money")
    Session.objects.all().delete()
    come_back(page)
    expect(page.get_by_role("alert")).to_contain_text("You are signed out")
    page.get_by_role("button", name="Save step").click()
    expect(page.get_by_label("Title")).to_have_value("Send money")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Sign in in another tab").click()
    other = opened.value
    other.get_by_label("Username").fill("mara")
    other.get_by_label("Password").fill(PASSWORD)
    other.get_by_role("button", name="Log in").click()
    other.wait_for_url("**/admin/")
    come_back(page)
    expect(page.get_by_role("alert")).to_have_count(0)
    page.get_by_role("button", name="Save step").click()
    expect(page.get_by_text("Saved 0. Enter Transfer Details.")).to_be_visible()
    step.refresh_from_db()
    assert step.config["title"] == "Send money"


CLICK_TWICE = """
(one) => {
  one.click();
  setTimeout(() => { one.click(); console.info("twice"); }, 300);
}
"""


def test_second_click_sends_nothing(screen: Screen, mara: User, draft: Workflow) -> None:
    page, sent = screen.page, list[Route]()
    screen.sign_in("mara")
    address = reverse("admin:workflows_workflow_change", args=[draft.pk])
    page.goto(address)
    page.get_by_label("Description").fill("To another account")
    save = page.get_by_role("button", name="Save settings")

    def hold(route: Route) -> None:
        if route.request.method == "POST":
            sent.append(route)
        else:
            route.continue_()

    page.route(f"**{address}", hold)
    with page.expect_console_message(lambda told: told.text == "twice"):
        save.evaluate(CLICK_TWICE)  # the first one is still on its way
    (first,) = sent
    first.continue_()
    expect(page.get_by_text("Saved Money Transfer.")).to_be_visible()
    draft.refresh_from_db()
    assert (len(sent), draft.revision) == (1, 2)


@pytest.fixture
def asked(screen: Screen) -> list[str]:
    """The questions that the page asked; each was answered with "stay"."""
    questions: list[str] = []

    def stay(dialog: Dialog) -> None:
        questions.append(dialog.type)
        dialog.dismiss()

    screen.page.on("dialog", stay)
    return questions


def edit_settings(page: Page) -> None:
    page.get_by_label("Description").fill("To another account")


def edit_mapping(page: Page) -> None:
    page.get_by_role("button", name="Remove", exact=True).first.click()


def edit_golden_run(page: Page) -> None:
    page.get_by_label("Context (JSON)").fill("{}")


@pytest.mark.parametrize(
    ("view", "edit", "way_out"),
    [
        ("change", edit_settings, "Duplicate Validate Account"),
        ("mapping", edit_mapping, "description Workflow"),
        ("golden", edit_golden_run, "publish Publish"),
    ],
    ids=["settings", "mapping", "golden-run"],
)
def test_leaving_what_is_not_saved_asks_first(
    view: str,
    edit: Callable[[Page], None],
    way_out: str,
    screen: Screen,
    mara: User,
    draft: Workflow,
    asked: list[str],
) -> None:
    page = screen.page
    screen.sign_in("mara")
    page.goto(reverse(f"admin:workflows_workflow_{view}", args=[draft.pk]))
    edit(page)
    page.get_by_role("link", name=way_out).or_(page.get_by_role("button", name=way_out)).click()
    page.wait_for_timeout(1)  # the question comes once the click is over
    draft.refresh_from_db()
    assert (asked, page.url.endswith(f"/{view}/")) == (["beforeunload"], True)
    assert draft.revision == 1


def test_a_step_is_dragged_further_than_the_window(
    screen: Screen, mara: User, transactional_db: None
) -> None:
    labels = [f"Step {at}" for at in range(16)]
    steps = [form(at, label=label) for at, label in enumerate(labels)]
    row = import_document(workflow(*steps))[0]
    page = screen.page
    screen.sign_in("mara")
    page.goto(reverse("admin:workflows_workflow_change", args=[row.pk]))
    handle = page.locator("[data-handle]").first.bounding_box()
    assert handle is not None
    page.mouse.move(handle["x"] + 5, handle["y"] + 5)
    page.mouse.down()
    page.mouse.move(handle["x"] + 5, 795, steps=4)
    expect(page.locator(".hr-step-label").last).to_have_text("Step 0")
    page.mouse.up()
    expect(page.get_by_text("Step 0 is step 16 now.")).to_be_attached()
    moved = [step.label for step in row.steps.order_by("order")]
    assert moved == [*labels[1:], labels[0]]
