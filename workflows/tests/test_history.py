"""Who changed what: every door's edits are in the history, and no secret is."""

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.test import Client

from config.actors import acting_as
from workflows import drafts, publishing
from workflows.connections import set_connection
from workflows.documents import parse_document
from workflows.enums import AuthKind
from workflows.history import SHOWN_EDITS, connection_history, step_history, workflow_history
from workflows.models import Connection, Workflow, WorkflowStep
from workflows.tests.samples import form, workflow
from workflows.tests.test_admin import page, staff, text

pytestmark = pytest.mark.django_db
SECRET = "never shown anywhere"


def imported(**changes: Any) -> Workflow:
    with acting_as("importer"):
        steps = (form(0, label="A"), form(1, label="B"))
        return drafts.import_document(workflow(*steps, **changes))[0]


def told(row: Workflow) -> list[tuple[str, tuple[str, ...]]]:
    return [(edit.by, edit.changes) for edit in workflow_history(row.pk)]


def test_edits_are_told_newest_first_with_their_steps() -> None:
    row = imported()
    step = row.steps.get(order=0)
    with acting_as("pat"):
        drafts.update_workflow(row.pk, {"description": "now with one"})
        drafts.update_step(step.pk, {"label": "A2", "timeoutMs": 500})
        drafts.create_step(row.pk, {"type": "INFO", "label": "C"})
        drafts.delete_step(step.pk)
    assert told(row) == [
        ("pat", ("step 'A2' removed",)),
        ("pat", ("step 'C' added",)),
        ("pat", ("step 'A' renamed 'A2'", "step 'A2': timeoutMs added")),
        ("pat", ("description added",)),
        ("importer", ("created", "step 'A' added", "step 'B' added")),
    ]
    assert [edit.revision for edit in workflow_history(row.pk)] == [5, 4, 3, 2, 1]
    assert [(edit.by, edit.changes) for edit in step_history(step.pk)] == [
        ("pat", ("step 'A2' removed",)),
        ("pat", ("step 'A' renamed 'A2'", "step 'A2': timeoutMs added")),
        ("importer", ("step 'A' added",)),
    ]


def test_publishing_and_archiving_are_told() -> None:
    row = imported()
    with acting_as("pat"):
        publishing.publish(row.pk, by="pat")
        drafts.archive_workflow(row.pk)
        drafts.archive_workflow(row.pk)  # changes nothing, so it is no edit
        drafts.restore_workflow(row.pk)
    assert told(row)[:3] == [
        ("pat", ("restored from the archive",)),
        ("pat", ("archived",)),
        ("pat", ("published as version 1",)),
    ]
    assert len(told(row)) == 4


def test_steps_that_change_places_are_told_once() -> None:
    row = imported()
    with acting_as("pat"):
        drafts.replace_draft(
            row.pk,
            parse_document(workflow(form(0, label="B"), form(1, label="A"))),
        )
    changes = told(row)[0][1]
    assert sorted(changes) == [
        "step 'A': order changed from 0 to 1",
        "step 'B': order changed from 1 to 0",
    ]


def test_the_last_edits_are_told_with_the_state_before_them(
    django_assert_num_queries: Any,
) -> None:
    row = imported()
    step = row.steps.get(order=1)
    for number in range(SHOWN_EDITS + 3):
        drafts.update_step(step.pk, {"timeoutMs": 1000 + number})
    with django_assert_num_queries(3):  # workflow, steps since, steps before
        edits = workflow_history(row.pk)
    assert len(edits) == SHOWN_EDITS
    assert edits[-1].changes == ("step 'B': timeoutMs changed from 1002 to 1003",)


def test_connection_tells_that_credentials_changed_and_nothing_of_them() -> None:
    with acting_as("pat"):
        row, _ = set_connection(
            name="bank", base_url="https://a.example", auth_kind=AuthKind.BEARER, secret=SECRET
        )
        set_connection(name="bank", base_url="https://a.example/v2", auth_kind=AuthKind.BEARER)
        set_connection(
            name="bank", base_url="https://a.example/v2", auth_kind=AuthKind.BEARER, secret="other"
        )
    assert [edit.changes for edit in connection_history(row.pk)] == [
        ("credentials changed",),
        ("base URL changed from https://a.example to https://a.example/v2",),
        ("created",),
    ]
    columns = {field.name for field in Connection.history.model._meta.get_fields()}
    assert columns & {"secret", "callback_secret"} == set()
    shown = text(staff("view_connection"), page("connection", "history", row.pk))
    assert "credentials changed" in shown
    assert SECRET not in shown


def test_admin_names_who_is_signed_in() -> None:
    client = staff("add_workflow", "change_workflow", "view_workflow")
    client.post(page("workflow", "add"), {"name": "Flow"})
    row = Workflow.objects.get()
    assert told(row) == [("user0", ("created",))]
    shown = text(client, page("workflow", "history", row.pk))
    assert "user0" in shown
    assert "created" in shown


def test_command_names_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    call_command("import_workflow", "contract/workflows/money-transfer.json")
    assert {edit.by for edit in workflow_history(Workflow.objects.get().pk)} == {
        "command line (root)"
    }


def test_history_is_for_who_may_see_the_row() -> None:
    row = imported()
    step = row.steps.get(order=0)
    for address in (page("workflow", "history", row.pk), page("workflowstep", "history", step.pk)):
        assert staff("view_workflowversion").get(address).status_code == 403
        assert Client().get(address).status_code == 302
    viewer = staff("view_workflow", "view_workflowstep")
    assert viewer.get(page("workflow", "history", row.pk)).status_code == 200
    assert viewer.get(page("workflowstep", "history", step.pk)).status_code == 200


def test_definitions_from_before_histories_begin_now() -> None:
    row = imported()
    Workflow.history.all().delete()
    WorkflowStep.history.all().delete()
    assert workflow_history(row.pk) == []
    migration = import_module("workflows.migrations.0004_histories_begin")
    migration.begin(apps, SimpleNamespace(connection=connection))
    assert told(row) == [("not recorded", ("as it stood when histories began",))]
    with acting_as("pat"):
        drafts.update_step(row.steps.get(order=0).pk, {"label": "A2"})
    assert told(row)[0] == ("pat", ("step 'A' renamed 'A2'",))
