"""The stock admin: the same edits and refusals as through the other doors, and no secret ever shown."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from config.jsonvalues import JsonObject
from workflows import drafts, publishing
from workflows.connections import connection_by_name, set_connection
from workflows.enums import AuthKind
from workflows.errors import DefinitionError, Problem
from workflows.models import Connection, Workflow, WorkflowStep, WorkflowVersion
from workflows.tests.samples import form, workflow

pytestmark = pytest.mark.django_db
SECRET = "never shown anywhere"


def staff(*permissions: str, superuser: bool = False) -> Client:
    """A signed-in member of staff with these permissions."""
    user = User.objects.create_user(
        f"user{User.objects.count()}", is_staff=True, is_superuser=superuser
    )
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator() -> Client:
    """Signed in, may do everything."""
    return staff(superuser=True)


def page(model: str, action: str, *args: Any) -> str:
    return reverse(f"admin:workflows_{model}_{action}", args=args)


def text(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return response.content.decode()


def errors(response: Any) -> dict[str, list[str]]:
    """The errors of the form that was shown again."""
    assert response.status_code == 200
    found: dict[str, list[str]] = response.context["adminform"].form.errors
    return found


def imported(data: JsonObject) -> Workflow:
    return drafts.import_document(data)[0]


def test_every_page_opens(operator: Client, money_transfer: JsonObject) -> None:
    row = imported(money_transfer)
    version = publishing.publish(row.pk, by="operator")
    connection, _ = set_connection(name="bank", base_url="https://bank.example")
    for model, key in (
        ("workflow", row.pk),
        ("workflowstep", row.steps.get(order=3).pk),
        ("workflowversion", version.pk),
        ("connection", connection.pk),
    ):
        assert (
            "Money Transfer" in text(operator, page(model, "changelist")) or model == "connection"
        )
        assert text(operator, page(model, "change", key))
    for model in ("workflow", "workflowstep", "connection"):
        assert text(operator, page(model, "add"))


def test_step_is_deleted_from_the_draft(operator: Client) -> None:
    row = imported(workflow(form(0, label="A"), form(1, label="B")))
    operator.post(page("workflowstep", "delete", row.steps.get(order=1).pk), {"post": "yes"})
    row.refresh_from_db()
    assert ([step.label for step in row.steps.all()], row.revision) == (["A"], 2)


def test_new_step_names_its_workflow(operator: Client) -> None:
    row = imported(workflow(form(label="A")))
    url = page("workflowstep", "add")
    answer = operator.post(url, {"workflow": row.pk, "label": "B", "type": "INFO"})
    added = WorkflowStep.objects.get(label="B")
    assert answer["Location"] == page("workflowstep", "change", added.pk)
    assert (added.order, added.type, added.config) == (1, "INFO", None)
    refused = operator.post(url, {"workflow": row.pk, "label": "", "type": "INFO"})
    assert refused.context["form"].errors == {"label": ["This field is required."]}


def test_new_workflow_needs_a_name_that_can_be_kept(operator: Client) -> None:
    refused = operator.post(page("workflow", "add"), {"name": "x" * 201})
    assert refused.context["form"].errors == {"name": ["must have at most 200 characters"]}
    operator.post(page("workflow", "add"), {"name": "Flow", "description": "For\r\ntwo"})
    row = Workflow.objects.get()
    assert (row.name, row.description, row.config) == ("Flow", "For\ntwo", None)


def test_actions_publish_and_archive(operator: Client) -> None:
    good = imported(workflow(form(), name="Good"))
    bad = imported(workflow(form(when="("), name="Bad"))
    data = {"action": "publish", "_selected_action": [good.pk, bad.pk]}
    answer = operator.post(page("workflow", "changelist"), data, follow=True)
    assert sorted(str(message) for message in answer.context["messages"]) == [
        "Bad: steps[0].config.when: does not parse: it ends too early",
        "Published: 1.",
    ]
    assert WorkflowVersion.objects.get().published_by == "user0"
    data = {"action": "archive", "_selected_action": [good.pk]}
    operator.post(page("workflow", "changelist"), data)
    assert Workflow.objects.get(pk=good.pk).is_archived is True


def test_versions_are_read_only_and_published_again(operator: Client) -> None:
    row = imported(workflow(form(), name="Flow"))
    version = publishing.publish(row.pk, by="operator")
    assert operator.get(page("workflowversion", "add")).status_code == 403
    url = page("workflowversion", "change", version.pk)
    assert operator.post(url, {"note": "x"}).status_code == 403
    assert operator.post(page("workflowversion", "delete", version.pk)).status_code == 403
    drafts.update_workflow(row.pk, {"description": "other"})
    publishing.publish(row.pk, by="operator")
    data = {"action": "republish", "_selected_action": [version.pk]}
    operator.post(page("workflowversion", "changelist"), data)
    assert list(WorkflowVersion.objects.values_list("number", flat=True)) == [3, 2, 1]


def test_publishing_needs_its_permission() -> None:
    editor = staff("view_workflow", "change_workflow", "view_workflowversion")
    row = imported(workflow(form()))
    data = {"action": "publish", "_selected_action": [row.pk]}
    editor.post(page("workflow", "changelist"), data)
    assert WorkflowVersion.objects.count() == 0


def test_workflows_are_archived_and_never_deleted(operator: Client) -> None:
    row = imported(workflow(form()))
    assert operator.post(page("workflow", "delete", row.pk), {"post": "yes"}).status_code == 403
    assert Workflow.objects.count() == 1


def connection_form(**changes: Any) -> dict[str, Any]:
    return {"name": "bank", "base_url": "https://bank.example", "auth_kind": "BEARER",
            "username": "", "header_name": "", "new_secret": "", **changes}  # fmt: skip


def test_secret_goes_in_and_is_never_shown(operator: Client) -> None:
    operator.post(page("connection", "add"), connection_form(new_secret=SECRET))
    row = Connection.objects.get()
    assert connection_by_name("bank").secret == SECRET
    url = page("connection", "change", row.pk)
    assert (
        operator.post(url, connection_form(base_url="https://bank.example/v2")).status_code == 302
    )
    assert connection_by_name("bank").secret == SECRET
    refused = operator.post(url, connection_form(base_url="ftp://x", new_secret=SECRET))
    assert errors(refused) == {"base_url": ["base_url: only http and https are called"]}
    shown = refused.content.decode()
    for address in (url, page("connection", "changelist"), page("connection", "history", row.pk)):
        shown += text(operator, address)
    row.refresh_from_db()
    assert SECRET not in shown
    assert bytes(row.secret or b"").hex() not in shown
    assert json.dumps(SECRET) not in shown


def test_connection_that_cannot_be_saved_any_more_says_why(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, _ = set_connection(name="bank", base_url="https://bank.example")
    calls: list[str] = []

    def changed_meanwhile(**given: Any) -> Any:
        calls.append(given["base_url"])
        if len(calls) == 2:  # the first was the form's check
            raise DefinitionError([Problem("secret", "is required for BEARER")])
        return set_connection(**given)

    monkeypatch.setattr("workflows.forms.set_connection", changed_meanwhile)
    url = page("connection", "change", row.pk)
    entered = connection_form(new_secret=SECRET, base_url="https://other.example")
    answer = operator.post(url, entered, follow=True)
    assert "secret: is required for BEARER" in answer.content.decode()
    assert connection_by_name("bank").base_url == "https://bank.example"


def test_callback_secret_goes_in_and_is_never_shown(operator: Client) -> None:
    entered = connection_form(new_secret="other", new_callback_secret=SECRET)
    operator.post(page("connection", "add"), entered)
    row = Connection.objects.get()
    url = page("connection", "change", row.pk)
    assert operator.post(url, connection_form()).status_code == 302
    assert connection_by_name("bank").callback_secret == SECRET
    refused = operator.post(url, connection_form(new_callback_secret=f"{SECRET}\n"))
    assert errors(refused) == {
        "new_callback_secret": ["callback_secret: must not hold line breaks or NUL"]
    }
    shown = refused.content.decode() + text(operator, url)
    assert SECRET not in shown
    assert bytes(row.callback_secret or b"").hex() not in shown


def test_secret_is_not_sent_to_another_origin_unasked(operator: Client) -> None:
    row, _ = set_connection(
        name="bank", base_url="https://bank.example", auth_kind=AuthKind.BEARER, secret=SECRET
    )
    url = page("connection", "change", row.pk)
    answer = operator.post(url, connection_form(base_url="https://evil.example"))
    assert errors(answer) == {"new_secret": ["secret: is required for BEARER"]}
    assert connection_by_name("bank").base_url == "https://bank.example"


def test_private_networks_are_the_superusers_to_allow(operator: Client) -> None:
    clerk = staff("add_connection", "change_connection", "view_connection")
    clerk.post(page("connection", "add"), connection_form(new_secret=SECRET, allow_private="on"))
    row = Connection.objects.get()
    assert row.allow_private is False
    url = page("connection", "change", row.pk)
    operator.post(url, connection_form(allow_private="on"))
    row.refresh_from_db()
    assert row.allow_private is True
    # What a superuser has allowed a clerk can no longer point elsewhere.
    assert clerk.post(url, connection_form(base_url="http://10.0.0.1")).status_code == 403
    row.refresh_from_db()
    assert (row.base_url, row.allow_private) == ("https://bank.example", True)


@pytest.mark.parametrize("allow_private", [True, False])
def test_registering_does_not_change_the_one_that_has_the_name(allow_private: bool) -> None:
    row, _ = set_connection(
        name="bank", base_url="http://10.0.0.1", allow_private=allow_private, callback_secret=SECRET
    )
    clerk = staff("add_connection", "view_connection")
    entered = connection_form(base_url="https://evil.example", new_secret="other")
    answer = clerk.post(page("connection", "add"), entered)
    assert errors(answer) == {"name": ["name: is that of another connection"]}
    before = (row.base_url, row.allow_private, row.auth_kind, row.updated_at)
    row.refresh_from_db()
    assert (row.base_url, row.allow_private, row.auth_kind, row.updated_at) == before
