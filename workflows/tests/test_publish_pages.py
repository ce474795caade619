"""The page that publishes a draft, with its golden runs: what is shown, who may, what the button does."""

import html
import re
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from config import rights
from config.jsonvalues import JsonObject
from workflows import drafts, golden, publishing
from workflows.documents import parse_document
from workflows.draft_forms import StepForm, WorkflowForm
from workflows.field_links import link_of
from workflows.models import GoldenRun, Workflow, WorkflowVersion
from workflows.tests.samples import form, seed_document, server, workflow

pytestmark = pytest.mark.django_db
SCRIPT = "<script>alert('stored')</script>"
MAPPING: JsonObject = {"amount": "form.amount", "to": "form.to"}
CONTEXT: JsonObject = {"form": {"amount": 250, "to": "Anna"}}


def member(group: str) -> Client:
    user = User.objects.create_user(f"{group.lower()}", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def publisher() -> Client:
    return member(rights.PUBLISHER)


@pytest.fixture
def editor() -> Client:
    return member(rights.EDITOR)


@pytest.fixture
def row() -> Workflow:
    return drafts.import_document(workflow(form(dataKey="form"), apiMapping=MAPPING))[0]


def address(row: Workflow, page: str = "publish") -> str:
    return reverse(f"admin:workflows_workflow_{page}", args=[row.pk])


def shown(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200
    return answer.content.decode()


def press(client: Client, row: Workflow, **changes: Any) -> Any:
    """Publish what the page shows now."""
    page = shown(client, address(row))
    seen = dict(re.findall(r'name="(seen_\w+)" value="(\d+)"', page.partition("publish-title")[2]))
    seen = seen or dict(re.findall(r'name="(seen_\w+)" value="(\d+)"', page))
    return client.post(address(row), {**seen, **changes})


def said(client: Client, row: Workflow) -> list[str]:
    answer = client.get(address(row))
    return [str(one) for one in answer.context["messages"]]


def test_button_publishes_what_was_shown_with_its_note(publisher: Client, row: Workflow) -> None:
    assert press(publisher, row, note="  first\r\nline ").status_code == 302
    version = WorkflowVersion.objects.get()
    assert (version.number, version.published_by, version.note) == (1, "publisher", "first\nline")
    assert said(publisher, row) == ["Published as version 1."]


def test_pressing_twice_publishes_once(publisher: Client, row: Workflow) -> None:
    seen = {"seen_revision": 1, "seen_version": 0}
    publisher.post(address(row), seen)
    publisher.post(address(row), seen)
    assert WorkflowVersion.objects.count() == 1
    assert said(publisher, row)[-1] == (
        "Nothing to publish: version 1, which is live, is the same."
    )
    page = shown(publisher, address(row))
    assert "Nothing to publish: version 1" in page
    assert "Publish as version" not in page


def test_draft_that_changed_is_shown_again_and_not_published(
    publisher: Client, row: Workflow
) -> None:
    drafts.update_workflow(row.pk, {"description": "theirs"})
    answer = publisher.post(
        address(row), {"seen_revision": 1, "seen_version": 0, "note": "my note"}
    )
    page = answer.content.decode()
    assert "The draft has been changed by someone else" in page
    assert "my note" in page
    assert 'name="seen_revision" value="2"' in page
    assert WorkflowVersion.objects.count() == 0


def test_other_publisher_in_between_stops_it(publisher: Client, row: Workflow) -> None:
    publishing.publish(row.pk, by="somebody")
    drafts.update_workflow(row.pk, {"description": "mine"})
    answer = publisher.post(address(row), {"seen_revision": 2, "seen_version": 0})
    assert "Another version has been published since you looked" in answer.content.decode()
    assert WorkflowVersion.objects.count() == 1


@pytest.mark.parametrize(
    "seen", [{}, {"seen_revision": "x", "seen_version": "٣"}], ids=["none", "odd"]
)
def test_without_what_was_seen_nothing_is_published(
    publisher: Client, row: Workflow, seen: dict[str, str]
) -> None:
    assert publisher.post(address(row), seen).status_code == 200
    assert WorkflowVersion.objects.count() == 0


def test_problems_stand_with_links_to_their_fields(publisher: Client, row: Workflow) -> None:
    bad = workflow(form(0, label="Enter", when="("), server(1, columns={"triggerEndpoint": None}))
    drafts.replace_draft(row.pk, parse_document(bad))
    page = shown(publisher, address(row))
    first, second = row.steps.order_by("order")
    for step, field in ((first, "when"), (second, "trigger_endpoint")):
        link = reverse("admin:workflows_workflowstep_change", args=[step.pk]) + f"#field-{field}"
        assert f'<a href="{link}">' in page
    assert "2 problems stop it from being published" in page
    assert "Publish as version" not in page
    answer = publisher.post(address(row), {"seen_revision": 2, "seen_version": 0})
    assert "The draft has problems: nothing was published." in answer.content.decode()
    assert WorkflowVersion.objects.count() == 0


def test_note_that_is_too_long_is_said(publisher: Client, row: Workflow) -> None:
    answer = press(publisher, row, note="n" * 2_001)
    assert "note: must have at most 2000 characters" in answer.content.decode()
    assert WorkflowVersion.objects.count() == 0


def test_difference_is_shown_in_words_and_in_lines(publisher: Client, row: Workflow) -> None:
    publishing.publish(row.pk, by="somebody")
    drafts.update_step(row.steps.get().pk, {"label": "Enter <it>"})
    page = shown(publisher, address(row))
    assert "step &#x27;Form&#x27; renamed &#x27;Enter &lt;it&gt;&#x27;" in page
    assert (
        '<del><span class="hr-diff-mark">-</span>      &quot;label&quot;: &quot;Form&quot;,</del>'
        in page
    )
    assert "<ins><span" in page
    assert "unchanged lines</summary>" in page


# --- golden runs ----------------------------------------------------------------------------------


def test_failing_run_is_published_only_when_accepted(publisher: Client, row: Workflow) -> None:
    golden.save_golden_run(row.pk, name="Small", context=CONTEXT, expected={"amount": 1}, by="eve")
    page = shown(publisher, address(row))
    assert "1 of 1 fails" in page
    assert "I accept that 1 golden run fails" in page
    assert "&quot;amount&quot;: 250" in page
    answer = press(publisher, row)
    assert "A golden run fails. Tick that you accept it" in answer.content.decode()
    assert WorkflowVersion.objects.count() == 0
    assert press(publisher, row, accepts_failing="on").status_code == 302
    assert WorkflowVersion.objects.get().changes[0] == (
        "published although the golden run Small failed"
    )


def test_missing_fields_are_named(publisher: Client, row: Workflow) -> None:
    golden.save_golden_run(row.pk, name="None", context={}, expected={}, by="eve")
    page = shown(publisher, address(row))
    assert "Fails: MAPPING_INCOMPLETE" in page
    assert "<code>amount</code></li><li><code>to</code>" in page
    assert 'value="take"' not in page


def golden_form(**changes: Any) -> dict[str, Any]:
    return {"act": "save", "run": "", "name": "Small", "context": '{"form": {"amount": 1, "to": "B"}}',
            "expected": "", **changes}  # fmt: skip


def test_editor_adds_changes_takes_and_deletes(editor: Client, row: Workflow) -> None:
    url = address(row, "golden")
    assert editor.post(url, golden_form()).status_code == 302
    run = GoldenRun.objects.get()
    assert (run.expected, run.created_by) == ({"amount": 1, "to": "B"}, "editor")
    assert "&quot;amount&quot;: 1" in shown(editor, f"{url}?run={run.pk}")
    changed = golden_form(
        run=str(run.pk),
        seen=golden.state_of(run),
        name="Odd",
        expected='{"amount": 12345678901234567890}',
    )
    editor.post(url, changed)
    run.refresh_from_db()
    assert (run.name, run.expected) == ("Odd", {"amount": 12345678901234567890})
    editor.post(url, {"act": "take", "run": str(run.pk), "seen_revision": 9})
    run.refresh_from_db()
    assert run.expected == {"amount": 12345678901234567890}
    editor.post(url, {"act": "take", "run": str(run.pk), "seen_revision": 1})
    run.refresh_from_db()
    assert run.expected == {"amount": 1, "to": "B"}
    editor.post(url, {"act": "delete", "run": str(run.pk)})
    assert GoldenRun.objects.count() == 0


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"context": "{"}, "context", "it is not JSON"),
        ({"context": "[1]"}, "context", "must be an object"),
        ({"context": '{"a": 1, "a": 2}'}, "context", "twice in one object"),
        ({"context": "{}"}, "expected", "MAPPING_INCOMPLETE: no value for amount, to"),
        ({"expected": "NaN"}, "expected", "NaN is not JSON"),
        ({"name": " "}, "name", "This field is required."),
    ],
    ids=["broken", "list", "twice", "incomplete", "nan", "name"],
)
def test_what_was_typed_stays_with_its_problem(
    editor: Client, row: Workflow, changes: dict[str, str], field: str, message: str
) -> None:
    answer = editor.post(address(row, "golden"), golden_form(**changes))
    assert message in str(answer.context["form"].errors[field])
    assert answer.context["form"]["context"].value() == golden_form(**changes)["context"]
    assert GoldenRun.objects.count() == 0


def test_edit_of_what_somebody_else_has_changed_is_refused(editor: Client, row: Workflow) -> None:
    run = golden.save_golden_run(row.pk, name="Small", context=CONTEXT, by="eve")
    url = f"{address(row, 'golden')}?run={run.pk}"
    found = re.search(r'name="seen" value="([^"]+)"', shown(editor, url))
    assert found is not None
    golden.save_golden_run(row.pk, name="Theirs", context=CONTEXT, by="eve", run_id=run.pk)
    for seen in (html.unescape(found[1]), ""):
        mine = golden_form(run=str(run.pk), seen=seen, name="Mine")
        answer = editor.post(url, mine)
        [why] = answer.context["form"].non_field_errors()
        assert why.startswith("Somebody else has changed the golden run")
        assert answer.context["form"]["name"].value() == "Mine"
        assert GoldenRun.objects.get().name == "Theirs"


def test_sample_is_a_context_that_the_flow_could_have(editor: Client, row: Workflow) -> None:
    answer = editor.get(address(row, "golden") + "?sample=1")
    context = answer.context["form"]["context"].value()
    assert editor.post(address(row, "golden"), golden_form(context=context)).status_code == 302
    assert list(GoldenRun.objects.get().context) == ["userId", "form"]


def test_golden_run_of_another_workflow_is_not_there(editor: Client, row: Workflow) -> None:
    run = golden.save_golden_run(row.pk, name="Small", context=CONTEXT, by="eve")
    other = drafts.import_document(workflow(form()), as_new=True)[0]
    url = address(other, "golden")
    assert editor.get(f"{url}?run={run.pk}").status_code == 404
    for odd in (str(run.pk), str(uuid4()), "x"):
        assert editor.post(url, {"act": "delete", "run": odd}).status_code == 404
    assert editor.post(url, {"act": "explode", "run": ""}).status_code == 404
    assert GoldenRun.objects.count() == 1


# --- rights, text, cost ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "edits", "publishes"),
    [
        (rights.VIEWER, False, False),
        (rights.OPERATOR, False, False),
        (rights.EDITOR, True, False),
        (rights.PUBLISHER, True, True),
    ],
    ids=["viewer", "operator", "editor", "publisher"],
)
def test_each_right_is_asked_for(row: Workflow, group: str, edits: bool, publishes: bool) -> None:
    client = member(group)
    run = golden.save_golden_run(row.pk, name="Small", context=CONTEXT, by="eve")
    page = shown(client, address(row))
    assert ("Publish as version 1" in page) is publishes
    assert ("Add a golden run" in page) is edits
    assert client.get(address(row, "golden")).status_code == (200 if edits else 403)
    for act in ("save", "take", "delete"):
        seen = {"seen": golden.state_of(run), "seen_revision": 1}
        data = golden_form(act=act, run=str(run.pk), **seen)
        answer = client.post(address(row, "golden"), data)
        assert answer.status_code == (302 if edits else 403)
    assert GoldenRun.objects.count() == (0 if edits else 1)
    answer = client.post(address(row), {"seen_revision": 1, "seen_version": 0})
    assert answer.status_code == (302 if publishes else 403)
    assert WorkflowVersion.objects.count() == int(publishes)


def test_stored_text_is_shown_as_text(publisher: Client) -> None:
    hostile = workflow(form(label=SCRIPT, title=SCRIPT, when="'x'"), name=SCRIPT)
    row = drafts.import_document({**hostile, "config": {"apiMapping": {SCRIPT: "'x'"}}})[0]
    publishing.publish(row.pk, by=SCRIPT, note=SCRIPT)
    drafts.update_workflow(
        row.pk, {"description": SCRIPT, "config": {"apiMapping": {SCRIPT: "a.b"}}}
    )
    golden.save_golden_run(row.pk, name=SCRIPT, context={}, expected={SCRIPT: SCRIPT}, by=SCRIPT)
    golden.save_golden_run(row.pk, name="b", context={"a": {"b": SCRIPT}}, expected={}, by=SCRIPT)
    for page in ("publish", "golden"):
        text = shown(publisher, address(row, page))
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text


def test_queries_do_not_grow_with_steps_problems_and_runs(publisher: Client) -> None:
    small = drafts.import_document(workflow(form(), name="Small"))[0]
    many = [form(at, label=f"S{at}", when="(" if at % 2 else "a") for at in range(30)]
    large = drafts.import_document(workflow(*many, name="Large"))[0]
    for at in range(20):
        golden.save_golden_run(large.pk, name=f"{at}", context={}, expected={"a": at}, by="eve")
    shown(publisher, address(small))
    counts = []
    for row in (small, large):
        with CaptureQueriesContext(connection) as captured:
            shown(publisher, address(row))
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 10


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", ("workflow", "change", "")),
        ("name", ("workflow", "change", "field-name")),
        ("steps", ("workflow", "change", "steps")),
        ("steps[7].label", ("workflow", "change", "steps")),
        ("config.sensitive[0]", ("workflow", "change", "field-sensitive")),
        ("config.finalApi", ("workflow", "change", "field-final_endpoint")),
        ("config.finalApi.connection", ("workflow", "change", "field-final_connection")),
        ("config.initialContextSchema.properties.a",
         ("workflow", "change", "field-initial_context_schema")),
        ("config.apiMapping.items[0].id", ("workflow", "mapping", "")),
        ("config.nothingOfThat", ("workflow", "change", "")),
        ("steps[0].triggerEndpoint", ("workflowstep", "change", "field-trigger_endpoint")),
        ("steps[0].retryConfig.maxRetries", ("workflowstep", "change", "field-retry_max_retries")),
        ("steps[0].config.when", ("workflowstep", "change", "field-when")),
        ('steps[0].config.headers["X-A"]', ("workflowstep", "change", "field-headers")),
        ("steps[0].config.status.expect", ("workflowstep", "change", "field-status_expect")),
        ("steps[0].config.compensation", ("workflowstep", "change", "field-compensation_endpoint")),
        ("steps[0].config.requestMapping.a", ("workflowstep", "mapping", "")),
        ("steps[0].config.compensation.requestMapping", ("workflowstep", "compensation-mapping", "")),
    ],
)  # fmt: skip
def test_problem_leads_to_its_field(path: str, expected: tuple[str, str, str]) -> None:
    workflow_id, step_id = uuid4(), uuid4()
    link = link_of(path, workflow_id=workflow_id, step_ids=[step_id])
    assert (link.model, link.page, link.anchor) == expected
    assert link.object_id == (step_id if link.model == "workflowstep" else workflow_id)
    assert str(link.object_id) in link.url


def anchors(forms: Any) -> set[str]:
    return {
        f"field-{name}" for name, field in forms.base_fields.items() if getattr(field, "path", ())
    }


def test_every_anchor_is_on_its_page(publisher: Client) -> None:
    row = drafts.import_document(seed_document())[0]
    step = row.steps.order_by("order").last()
    assert step is not None
    pages = {
        WorkflowForm: address(row, "change"),
        StepForm: reverse("admin:workflows_workflowstep_change", args=[step.pk]),
    }
    for form_class, url in pages.items():
        page = shown(publisher, url)
        assert {one for one in anchors(form_class) if f'id="{one}"' not in page} == set()
