"""Every page of the back office for every group, and stored text that stays text on each of them."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from config import rights
from config.admin_site import SECTIONS
from config.back_office import BackOfficeAdmin
from config.display import TONES
from executions.enums import (
    AttemptOutcome,
    OperatorActionKind,
    OperatorOutcome,
    RunKind,
    RunStatus,
    WorkflowExecutionStatus,
)
from executions.models import (
    OperatorAction,
    SessionField,
    SessionRecord,
    StepAttempt,
    StepRun,
    TriggerTrial,
    WorkflowExecution,
)
from workflows import drafts, publishing
from workflows.connections import set_connection
from workflows.enums import StepExecutionMode, StepState, WorkflowAvailability
from workflows.models import Connection, Workflow, WorkflowStep, WorkflowVersion
from workflows.tests.samples import form, workflow

pytestmark = pytest.mark.django_db

SCRIPT = "<script>alert('stored')</script>"
SUPERUSER = "superuser"
ROLES = (SUPERUSER, *rights.GROUPS)

DEFINITIONS = ("workflows.workflow", "workflows.workflowstep")
CONNECTION = "workflows.connection"
STAFF = ("auth.user", "auth.group")
RECORDS = (
    "workflows.workflowversion",
    "executions.workflowexecution",
    "executions.steprun",
    "executions.stepattempt",
    "executions.operatoraction",
    "executions.triggertrial",
    "executions.sessionrecord",
    "executions.sessionfield",
)
EVERYBODY = frozenset(ROLES)
EDITORS = frozenset({SUPERUSER, rights.EDITOR, rights.PUBLISHER})
PUBLISHERS = frozenset({SUPERUSER, rights.PUBLISHER})
NOBODY: frozenset[str] = frozenset()
ONLY_SUPERUSERS = frozenset({SUPERUSER})

# model -> who may see its pages, add one, save one, delete one
MAY: dict[str, tuple[frozenset[str], frozenset[str], frozenset[str], frozenset[str]]] = {
    "workflows.workflow": (EVERYBODY, EDITORS, EDITORS, NOBODY),
    "workflows.workflowstep": (EVERYBODY, EDITORS, EDITORS, EDITORS),
    CONNECTION: (EVERYBODY, PUBLISHERS, PUBLISHERS, ONLY_SUPERUSERS),
    **dict.fromkeys(RECORDS, (EVERYBODY, NOBODY, NOBODY, NOBODY)),
    **dict.fromkeys(STAFF, (ONLY_SUPERUSERS,) * 4),
}


def signed_in(role: str) -> Client:
    user = User.objects.create_user(role.lower(), is_staff=True, is_superuser=role == SUPERUSER)
    if role != SUPERUSER:
        user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


def address(model: str, action: str, *args: Any) -> str:
    return reverse(f"admin:{model.replace('.', '_')}_{action}", args=args)


@pytest.fixture
def rows() -> dict[str, Model]:
    """One row of every model that has pages, hostile text wherever text is kept."""
    now = timezone.now()
    hostile = form(label=SCRIPT, title=SCRIPT, message=SCRIPT)
    document = workflow(hostile, name=SCRIPT, sensitive=["pin"]) | {"description": SCRIPT}
    row = drafts.import_document(document)[0]
    version = publishing.publish(row.pk, by=SCRIPT, note=SCRIPT)
    bank, _ = set_connection(name="bank", base_url="https://bank.example/%3Cscript%3E")
    execution = WorkflowExecution.objects.create(
        workflow=row, version=version, user_id=SCRIPT, page_id=SCRIPT, started_at=now,
        status=WorkflowExecutionStatus.FAILED, completed_at=now, expires_at=now,
        error_code="SUBMISSION_FAILED", error=SCRIPT, cancel_reason=SCRIPT,
        result={SCRIPT: SCRIPT}, submitted_payload=[SCRIPT],
    )  # fmt: skip
    run = StepRun.objects.create(
        execution=execution, kind=RunKind.STEP, step_id=uuid4(), step_index=0, sequence=1,
        mode=StepExecutionMode.SERVER_SYNC, status=RunStatus.FAILED, started_at=now,
        finished_at=now, duration_ms=5, error=SCRIPT, result={"a": SCRIPT},
    )  # fmt: skip
    attempt = StepAttempt.objects.create(
        run=run, number=1, outcome=AttemptOutcome.TIMED_OUT, started_at=now, duration_ms=5
    )
    done = OperatorAction.objects.create(
        execution_id=execution.pk, action=OperatorActionKind.REPLAY_STEP, by=SCRIPT,
        reason=SCRIPT, at=now,
    )  # fmt: skip
    trial = TriggerTrial(
        at=now, by=SCRIPT, workflow_id=row.pk, what=SCRIPT, connection=SCRIPT, origin=SCRIPT,
        is_sandbox=False,
    )  # fmt: skip
    trial.save(force_insert=True)
    session = SessionRecord.objects.create(
        session_id="ws_1", sequence=1, expires_at=now + timedelta(hours=1)
    )
    field = SessionField.objects.create(session=session, name=SCRIPT, sealed=b"x")
    user = User.objects.create_user("somebody", first_name=SCRIPT)
    group = Group.objects.create(name=SCRIPT)
    found: list[Model] = [row, row.steps.get(), version, bank, execution, run, attempt]
    found += [done, trial, session, field, user, group]
    return {one._meta.label_lower: one for one in found}


def test_every_model_with_pages_is_in_these_tests(rows: dict[str, Model]) -> None:
    registered = {model._meta.label_lower for model in admin.site._registry}
    assert set(MAY) == registered
    assert set(rows) == registered
    assert [
        label
        for label in registered
        if not isinstance(admin.site.get_model_admin(type(rows[label])), BackOfficeAdmin)
    ] == []


@pytest.mark.parametrize("role", ROLES)
def test_pages_open_for_who_may_see_them(role: str, rows: dict[str, Model]) -> None:
    client = signed_in(role)
    assert client.get(reverse("admin:index")).status_code == 200
    for model, row in rows.items():
        sees, adds, _saves, deletes = MAY[model]
        expected = {
            "changelist": role in sees,
            "add": role in adds,
            "change": role in sees,
            "history": role in sees,
            "delete": role in deletes,
        }
        for action, may in expected.items():
            args = () if action in ("changelist", "add") else (row.pk,)
            status = client.get(address(model, action, *args)).status_code
            assert (model, action, status) == (model, action, 200 if may else 403)


@pytest.mark.parametrize("role", ROLES)
def test_saving_and_deleting_ask_again(role: str, rows: dict[str, Model]) -> None:
    client = signed_in(role)
    for model, row in rows.items():
        _sees, adds, saves, deletes = MAY[model]
        for action, may in (("add", adds), ("change", saves), ("delete", deletes)):
            if role in may:
                continue
            args = () if action == "add" else (row.pk,)
            before = type(row)._default_manager.values().get(pk=row.pk)
            answer = client.post(address(model, action, *args), {"post": "yes", "name": "taken"})
            assert (model, action, answer.status_code) == (model, action, 403)
            assert type(row)._default_manager.values().get(pk=row.pk) == before
    assert (Workflow.objects.count(), WorkflowStep.objects.count()) == (1, 1)
    assert Connection.objects.count() == 1


@pytest.mark.parametrize("role", rights.GROUPS)
def test_nobody_but_a_superuser_makes_anybody_more(role: str, rows: dict[str, Model]) -> None:
    """Whatever rights over users a group of one's own was given."""
    client = signed_in(role)
    user = User.objects.get(username=role.lower())
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="auth"))
    more = {"username": user.username, "is_superuser": "on", "is_staff": "on", "is_active": "on",
            "groups": list(Group.objects.values_list("pk", flat=True))}  # fmt: skip
    password = {"password1": "another-4711", "password2": "another-4711", "usable_password": "true"}
    group = user.groups.get()
    for address_, sent in (
        (address("auth.user", "change", user.pk), more),
        (address("auth.user", "add"), more | password),
        (reverse("admin:auth_user_password_change", args=[rows["auth.user"].pk]), password),
        (address("auth.group", "change", group.pk), {"name": group.name, "permissions": []}),
    ):
        assert (address_, client.post(address_, sent).status_code) == (address_, 403)
    user.refresh_from_db()
    assert (user.is_superuser, user.groups.count(), User.objects.count()) == (False, 1, 2)
    assert group.permissions.exists()


def admin_of(row: Model) -> BackOfficeAdmin:
    found = admin.site.get_model_admin(type(row))
    assert isinstance(found, BackOfficeAdmin)
    return found


def test_every_form_needs_its_token(rows: dict[str, Model]) -> None:
    signed_in(SUPERUSER)
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username=SUPERUSER))
    pages = [
        address(model, action, row.pk)
        for model, row in rows.items()
        for action in ("change", "delete", *admin_of(row).pages)
    ]
    pages += [address(model, "add") for model in rows]
    pages += [reverse("admin:executions_workflowexecution_bulk"), reverse("admin:password_change")]
    pages += [reverse("admin:logout"), reverse("admin:login")]
    assert [page for page in pages if client.post(page).status_code != 403] == []


def offered(client: Client, model: str) -> set[str]:
    """The actions in the list's menu."""
    form = client.get(address(model, "changelist")).context["action_form"]
    return set() if form is None else {name for name, _ in form.fields["action"].choices if name}


@pytest.mark.parametrize("role", ROLES)
def test_actions_are_offered_and_taken_by_right(role: str, rows: dict[str, Model]) -> None:
    client = signed_in(role)
    row = rows["workflows.workflow"]
    publishes = role in PUBLISHERS
    assert offered(client, "workflows.workflow") == (
        {"publish", "archive", "restore"} if publishes else set()
    )
    assert offered(client, "workflows.workflowversion") == ({"republish"} if publishes else set())
    drafts.update_workflow(row.pk, {"description": "changed"})
    for action in ("publish", "archive"):
        client.post(
            address("workflows.workflow", "changelist"),
            {"action": action, "_selected_action": [row.pk]},
        )
    assert WorkflowVersion.objects.count() == (2 if publishes else 1)
    assert Workflow.objects.get().is_archived is publishes


def test_archiving_is_a_right_of_its_own(rows: dict[str, Model]) -> None:
    client = signed_in(rights.EDITOR)
    editor = User.objects.get(username="editor")
    editor.user_permissions.add(Permission.objects.get(codename="publish_workflow"))
    assert offered(client, "workflows.workflow") == {"publish"}
    client.post(
        address("workflows.workflow", "changelist"),
        {"action": "archive", "_selected_action": [rows["workflows.workflow"].pk]},
    )
    assert Workflow.objects.get().is_archived is False


@pytest.mark.parametrize("role", ROLES)
def test_sidebar_offers_what_opens(role: str, rows: dict[str, Model]) -> None:
    client = signed_in(role)
    groups = client.get(reverse("admin:index")).context["sidebar_navigation"]
    links = [item["link"] for group in groups for item in group["items"]]
    everything = [reverse(entry.url) for section in SECTIONS for entry in section.entries]
    expected = everything if role == SUPERUSER else everything[:-2]  # users and groups
    assert links == [reverse("admin:index"), *expected]
    assert [client.get(link).status_code for link in links] == [200] * len(links)


def test_who_is_no_staff_is_sent_to_sign_in(rows: dict[str, Model]) -> None:
    user = User.objects.create_user("person")
    user.groups.add(Group.objects.get(name=rights.PUBLISHER))
    client = Client()
    client.force_login(user)
    for model in rows:
        answer = client.get(address(model, "changelist"))
        assert (answer.status_code, answer["Location"].partition("?")[0]) == (302, "/admin/login/")


def test_stored_text_is_shown_as_text(rows: dict[str, Model]) -> None:
    client = signed_in(SUPERUSER)
    shown = 0
    for model, row in rows.items():
        for action, args in (("changelist", ()), ("change", (row.pk,)), ("history", (row.pk,))):
            page = client.get(address(model, action, *args)).content.decode()
            assert "<script>alert" not in page, (model, action)
            shown += "&lt;script&gt;alert" in page
    delete = client.get(address("workflows.workflowstep", "delete", rows[DEFINITIONS[1]].pk))
    assert "<script>alert" not in delete.content.decode()
    assert shown > 15  # the text was there to be shown


def test_pages_run_only_our_own_scripts(rows: dict[str, Model]) -> None:
    answer = signed_in(SUPERUSER).get(address("workflows.workflow", "changelist"))
    policy = dict(
        directive.strip().split(" ", 1)
        for directive in answer["Content-Security-Policy"].split(";")
    )
    assert policy["script-src"] == "'self' 'unsafe-eval'"
    assert policy["default-src"] == "'self'"
    page = answer.content.decode()
    assert [
        one for one in page.split("<script")[1:] if not one.lstrip().startswith(("src=", "id="))
    ] == []


def listed(client: Client, model: str, **query: Any) -> list[Any]:
    shown = client.get(address(model, "changelist"), query).context["cl"].result_list
    return [row.pk for row in shown]


def test_calls_are_found_by_whole_ids(rows: dict[str, Model]) -> None:
    client = signed_in(rights.VIEWER)
    run, attempt = rows["executions.steprun"], rows["executions.stepattempt"]
    StepRun.objects.create(
        execution_id=rows["executions.workflowexecution"].pk, kind=RunKind.STEP, sequence=2,
        mode=StepExecutionMode.SERVER_SYNC, status=RunStatus.FAILED, started_at=timezone.now(),
        finished_at=timezone.now(),
    )  # fmt: skip
    assert listed(client, "executions.steprun", q=run.pk) == [run.pk]
    assert len(listed(client, "executions.steprun", q=rows["executions.workflowexecution"].pk)) == 2
    assert listed(client, "executions.stepattempt", q=str(run.pk).upper()) == [attempt.pk]
    for nothing in ("FAILED", str(run.pk)[:8], uuid4()):
        assert listed(client, "executions.steprun", q=nothing) == []


def test_only_the_newest_calls_are_listed_and_filtered(
    rows: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executions.admin.COUNTED_ROWS", 2)
    client, old = signed_in(rights.VIEWER), rows["executions.steprun"]
    newer = [
        StepRun.objects.create(
            execution_id=rows["executions.workflowexecution"].pk, kind=RunKind.STEP, sequence=number,
            mode=StepExecutionMode.SERVER_SYNC, status=status, started_at=timezone.now(),
            finished_at=timezone.now(),
        ).pk
        for number, status in ((2, RunStatus.FAILED), (3, RunStatus.UNKNOWN))
    ]  # fmt: skip
    assert listed(client, "executions.steprun") == newer[::-1]
    assert listed(client, "executions.steprun", status__exact="FAILED") == newer[:1]
    assert listed(client, "executions.steprun", q=old.pk) == [old.pk]


def test_no_filter_counts_a_whole_table_of_records(rows: dict[str, Model]) -> None:
    client = signed_in(rights.VIEWER)
    for model in ("steprun", "stepattempt", "operatoraction"):
        answer = client.get(address(f"executions.{model}", "changelist"), {"_facets": "True"})
        assert answer.context["cl"].add_facets is False


def test_search_over_every_page_is_not_offered() -> None:
    assert signed_in(SUPERUSER).get("/admin/search/?s=work").status_code == 404


def test_every_status_has_a_colour_of_its_choice() -> None:
    enums = (WorkflowExecutionStatus, RunStatus, OperatorOutcome, StepState, WorkflowAvailability)
    assert {value for one in enums for value in one.values} - set(TONES) == set()


# --- the groups -----------------------------------------------------------------------------------


def names(group: str) -> set[str]:
    found = Group.objects.get(name=group).permissions.select_related("content_type")
    return {f"{one.content_type.app_label}.{one.codename}" for one in found}


def test_groups_have_their_permissions() -> None:
    viewing = names(rights.VIEWER)
    assert {name.split(".")[1].split("_")[0] for name in viewing} == {"view"}
    assert {
        f"{label.split('.')[0]}.view_{label.split('.')[1]}" for label in MAY if label not in STAFF
    } <= viewing
    for group, extra in rights.GROUPS.items():
        assert names(group) == viewing | extra


def test_every_named_permission_exists() -> None:
    known = {
        f"{one.content_type.app_label}.{one.codename}"
        for one in Permission.objects.select_related("content_type")
    }
    assert {name for extra in rights.GROUPS.values() for name in extra} - known == set()


def test_migrate_sets_the_groups_anew_and_leaves_others_alone() -> None:
    Group.objects.get(name=rights.OPERATOR).delete()
    viewer = Group.objects.get(name=rights.VIEWER)
    publish = Permission.objects.get(codename="publish_workflow")
    viewer.permissions.add(publish)
    theirs = Group.objects.create(name="Night shift")
    theirs.permissions.add(publish)
    Permission.objects.get(codename="reveal_value").delete()  # as before an upgrade that brings it
    call_command("migrate", verbosity=0)
    assert "workflows.publish_workflow" not in names(rights.VIEWER)
    assert "executions.reveal_value" in names(rights.OPERATOR)
    assert names("Night shift") == {"workflows.publish_workflow"}


def test_making_groups_again_writes_nothing() -> None:
    rights.make_groups()
    before = {group: names(group) for group in rights.GROUPS}
    with CaptureQueriesContext(connection) as captured:
        rights.make_groups()
    assert [
        one["sql"] for one in captured if one["sql"].split()[0] in ("INSERT", "UPDATE", "DELETE")
    ] == []
    assert {group: names(group) for group in rights.GROUPS} == before
