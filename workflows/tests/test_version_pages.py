"""Versions compared, restored, published again and downloaded, and documents imported after a look."""

from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Group, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from config import rights
from config.jsonvalues import JsonObject
from workflows import drafts, publishing
from workflows.document_text import write_json
from workflows.documents import dump_document
from workflows.models import Workflow, WorkflowVersion
from workflows.tests.samples import form, seed_document, workflow
from workflows.version_pages import PAGE
from workflows.version_use import VersionUse

pytestmark = pytest.mark.django_db
SCRIPT = "<script>alert('stored')</script>"


def member(group: str) -> Client:
    user, _ = User.objects.get_or_create(username=group.lower(), is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def publisher() -> Client:
    return member(rights.PUBLISHER)


@pytest.fixture
def row() -> Workflow:
    """Two versions: A, then B, which is live and the draft."""
    made = drafts.import_document(workflow(form(label="A", dataKey="form")))[0]
    publishing.publish(made.pk, by="ann", note="the first")
    drafts.update_step(made.steps.get().pk, {"label": "B"})
    publishing.publish(made.pk, by="ben")
    return made


def version(row: Workflow, number: int) -> WorkflowVersion:
    return publishing.find_version(row.pk, number)


def address(row: Workflow, page: str) -> str:
    return reverse(f"admin:workflows_workflow_{page}", args=[row.pk])


def compare(row: Workflow, number: int, page: str = "compare") -> str:
    return reverse(f"admin:workflows_workflowversion_{page}", args=[version(row, number).pk])


def shown(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200
    return answer.content.decode()


def said(answer: Any) -> list[str]:
    return [str(one) for one in answer.context["messages"]]


# --- the list and one version ---------------------------------------------------------------------


def test_versions_are_listed_with_what_changed(publisher: Client, row: Workflow) -> None:
    answer = publisher.get(address(row, "versions"))
    listed = answer.context["versions"]
    assert [one.number for one, _ in listed] == [2, 1]
    page = answer.content.decode()
    assert page.count(">Live<") == 1
    assert page.index("Version 2") < page.index(">Live<") < page.index("Version 1")
    for told in ("the first", "ann", "ben", "step &#x27;A&#x27; renamed &#x27;B&#x27;"):
        assert told in page


def test_list_goes_on_to_older_ones(publisher: Client, row: Workflow) -> None:
    for at in range(PAGE):
        drafts.update_step(row.steps.get().pk, {"label": f"{at}"})
        publishing.publish(row.pk, by="ann")
    answer = publisher.get(address(row, "versions"))
    assert [one.number for one, _ in answer.context["versions"]] == list(range(PAGE + 2, 2, -1))
    older = publisher.get(f"{address(row, 'versions')}?before={answer.context['older']}")
    assert [one.number for one, _ in older.context["versions"]] == [2, 1]
    assert older.context["older"] is None
    assert "No older versions" in shown(publisher, f"{address(row, 'versions')}?before=1")


def test_versions_are_compared_with_any_other_and_the_draft(
    publisher: Client, row: Workflow
) -> None:
    drafts.update_step(row.steps.get().pk, {"label": "C"})
    for against, renamed in (("1", ("A", "B")), ("draft", ("C", "B"))):
        answer = publisher.get(f"{compare(row, 2)}?against={against}")
        assert answer.context["changes"] == [f"step '{renamed[0]}' renamed '{renamed[1]}'"]
        assert (answer.context["difference"].added, answer.context["difference"].removed) == (1, 1)
    assert publisher.get(compare(row, 2)).context["against"] == "1"
    assert publisher.get(compare(row, 1)).context["against"] == "draft"
    for odd in ("9", "x", "-1", "٣", "1" * 30):
        assert publisher.get(f"{compare(row, 2)}?against={odd}").status_code == 404


def test_restoring_makes_the_draft_and_publishes_nothing(publisher: Client, row: Workflow) -> None:
    answer = publisher.post(compare(row, 1), {"act": "restore", "seen_revision": 2}, follow=True)
    assert said(answer) == ["Restored version 1 into the draft."]
    step = row.steps.get()
    assert (step.label, str(step.pk)) == ("A", version(row, 1).step_ids[0])
    assert WorkflowVersion.objects.count() == 2


def test_restoring_over_an_edit_that_was_not_seen_is_refused(
    publisher: Client, row: Workflow
) -> None:
    drafts.update_step(row.steps.get().pk, {"label": "theirs"})
    for seen in (2, "", "x"):
        answer = publisher.post(
            compare(row, 1), {"act": "restore", "seen_revision": seen}, follow=True
        )
        assert said(answer)[0].startswith("The draft has been changed by someone else")
    assert row.steps.get().label == "theirs"


def test_publishing_again_makes_one_version_however_often_it_is_sent(
    publisher: Client, row: Workflow
) -> None:
    data = {"act": "republish", "seen_version": 2, "note": "back"}
    assert said(publisher.post(compare(row, 1), data, follow=True)) == ["Published as version 3."]
    assert said(publisher.post(compare(row, 1), data, follow=True)) == [
        "Nothing to publish: version 3, which is live, is the same."
    ]
    newest = version(row, 3)
    assert (newest.note, newest.published_by, newest.document) == (
        "back",
        "publisher",
        version(row, 1).document,
    )
    assert row.steps.get().label == "B"
    assert WorkflowVersion.objects.count() == 3


def test_publishing_again_after_another_publish_is_refused(
    publisher: Client, row: Workflow
) -> None:
    data = {"act": "republish", "seen_version": 1}
    answer = publisher.post(compare(row, 1), data, follow=True)
    assert said(answer) == [
        "Another version has been published since you looked; look at the difference again."
    ]
    assert publisher.post(compare(row, 1), {"act": "explode"}).status_code == 404
    assert WorkflowVersion.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_two_publishers_at_once_make_one_version() -> None:
    made = drafts.import_document(workflow(form(label="A")))[0]
    clients = [member(rights.PUBLISHER) for _ in range(4)]
    barrier = Barrier(4)

    def press(client: Client) -> int:
        barrier.wait()
        try:
            seen = {"seen_revision": 1, "seen_version": 0}
            return client.post(address(made, "publish"), seen).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(press, clients))
    assert statuses == [302] * 4
    assert WorkflowVersion.objects.get().number == 1


# --- documents out and in -------------------------------------------------------------------------


def test_download_is_what_the_command_writes(publisher: Client) -> None:
    made = drafts.import_document(seed_document())[0]
    publishing.publish(made.pk, by="ann")
    drafts.update_workflow(made.pk, {"description": "später"})
    for url, words, name in (
        (address(made, "download"), (), "money-transfer.json"),
        (compare(made, 1, "download"), ("--version", "1"), "money-transfer-v1.json"),
    ):
        out = StringIO()
        call_command("export_workflow", str(made.pk), *words, stdout=out)
        answer = publisher.get(url)
        assert answer.content == out.getvalue().encode()
        assert answer["Content-Disposition"] == f'attachment; filename="{name}"'
        assert answer["Content-Type"] == "application/json"


IMPORT = "/admin/workflows/workflow/import/"


def look(client: Client, document: Any, **changes: Any) -> Any:
    text = document if isinstance(document, str) else write_json(document)
    answer = client.post(IMPORT, {"act": "check", "document": text, **changes})
    assert answer.status_code == 200
    return answer


def confirm(client: Client, looked: Any, **changes: Any) -> Any:
    data = {
        "act": "import",
        "document": looked.context["text"],
        "seen": looked.context["plan"].seen,
    }
    return client.post(IMPORT, {**data, **changes})


def test_new_document_is_looked_at_then_imported(publisher: Client) -> None:
    looked = look(publisher, seed_document())
    assert looked.context["plan"].target is None
    assert Workflow.objects.count() == 0
    assert confirm(publisher, looked).status_code == 302
    made = Workflow.objects.get()
    assert write_json(dump_document(made.document())) == write_json(seed_document())
    assert WorkflowVersion.objects.count() == 0


def test_file_is_taken_as_the_text_is(publisher: Client) -> None:
    file = SimpleUploadedFile("flow.json", write_json(seed_document()).encode())
    looked = publisher.post(IMPORT, {"act": "check", "document": "{", "file": file})
    assert confirm(publisher, looked).status_code == 302
    assert Workflow.objects.get().name == "Money Transfer"


def test_document_of_a_known_name_shows_what_it_changes(publisher: Client, row: Workflow) -> None:
    changed = workflow(form(label="C", dataKey="form"), form(1, label="D"))
    looked = look(publisher, changed)
    assert looked.context["plan"].changes == ("step 'B' renamed 'C'", "step 'D' added")
    page = looked.content.decode()
    assert "The draft of" in page
    assert "Replace the draft" in page
    assert row.steps.get().label == "B"
    confirm(publisher, looked)
    assert [step.label for step in row.steps.order_by("order")] == ["C", "D"]
    assert Workflow.objects.count() == 1


def test_other_workflow_of_the_name_is_a_choice(publisher: Client, row: Workflow) -> None:
    looked = look(publisher, workflow(form(label="C")), as_new="1")
    assert looked.context["plan"].target is None
    confirm(publisher, looked, as_new="1")
    assert Workflow.objects.filter(name="Flow").count() == 2
    assert row.steps.get().label == "B"
    page = look(publisher, workflow(form())).content.decode()
    assert "several workflows are named &#x27;Flow&#x27;; import it as a new one" in page


@pytest.mark.parametrize("edit", ["draft", "choice"])
def test_what_was_not_looked_at_is_not_imported(
    publisher: Client, row: Workflow, edit: str
) -> None:
    looked = look(publisher, workflow(form(label="C")))
    changes = {}
    if edit == "draft":
        drafts.update_step(row.steps.get().pk, {"label": "theirs"})
    else:
        changes = {"as_new": "1"}
    answer = confirm(publisher, looked, **changes)
    assert "The draft has been changed by someone else" in answer.content.decode()
    assert row.steps.get().label == ("theirs" if edit == "draft" else "B")
    assert Workflow.objects.count() == 1
    again = confirm(publisher, answer, **changes)  # the page shows the change as it is now
    assert again.status_code == 302


def test_every_problem_of_a_document_is_told(publisher: Client) -> None:
    bad = {"name": "Flow", "colour": 1, "steps": [{"type": "FORM", "label": "A", "order": "x"}]}
    page = look(publisher, bad).content.decode()
    for path in ("colour", "steps[0].order"):
        assert f"<code>{path}</code>" in page
    for text, message in (
        ("", "there is no document"),
        ("{", "it is not JSON"),
        ("[]", "must be an object"),
    ):
        assert message in look(publisher, text).content.decode()
    assert publisher.post(IMPORT, {"act": "import", "document": "{"}).status_code == 200
    assert Workflow.objects.count() == 0


def test_problems_of_publishing_stop_no_import(publisher: Client) -> None:
    looked = look(publisher, workflow(form(when="(")))
    page = looked.content.decode()
    assert "Before it can be published" in page
    assert "<code>steps[0].config.when</code>" in page
    assert confirm(publisher, looked).status_code == 302


def test_document_that_is_too_large_is_refused(publisher: Client, settings: Any) -> None:
    settings.MAX_BODY_BYTES = 100
    file = SimpleUploadedFile("flow.json", b" " * 200)
    answer = publisher.post(IMPORT, {"act": "check", "file": file})
    assert "it has more than 100 bytes" in answer.content.decode()


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
    shown(client, address(row, "versions"))
    page = shown(client, compare(row, 1))
    assert ("Replace the draft by" in page) is edits
    assert ("Publish version 1 again" in page) is publishes
    assert client.get(compare(row, 1, "download")).status_code == 200
    assert client.get(IMPORT).status_code == (200 if edits else 403)
    answer = client.post(IMPORT, {"act": "check", "document": "{}"})
    assert answer.status_code == (200 if edits else 403)
    answer = client.post(compare(row, 1), {"act": "restore", "seen_revision": 2})
    assert answer.status_code == (302 if edits else 403)
    assert row.steps.get().label == ("A" if edits else "B")
    answer = client.post(compare(row, 1), {"act": "republish", "seen_version": 2})
    assert answer.status_code == (302 if publishes else 403)
    assert WorkflowVersion.objects.count() == (3 if publishes else 2)


def test_pages_of_nothing_are_not_found(publisher: Client, row: Workflow) -> None:
    for url in (address(row, "versions"), compare(row, 1), address(row, "download")):
        assert publisher.get(url.replace(url.split("/")[4], str(UUID(int=1)))).status_code == 404
    assert Client().get(address(row, "versions")).status_code == 302


def test_import_is_offered_to_who_may(publisher: Client, row: Workflow) -> None:
    url = reverse("admin:workflows_workflow_changelist")
    assert f'href="{IMPORT}"' in shown(publisher, url)
    assert f'href="{IMPORT}"' not in shown(member(rights.VIEWER), url)


def test_stored_text_is_shown_as_text(publisher: Client) -> None:
    document: JsonObject = workflow(form(label=SCRIPT, title=SCRIPT), name=SCRIPT)
    made = drafts.import_document(document)[0]
    publishing.publish(made.pk, by=SCRIPT, note=SCRIPT)
    drafts.update_workflow(made.pk, {"description": SCRIPT})
    publishing.publish(made.pk, by=SCRIPT, note=SCRIPT)
    pages = [shown(publisher, url) for url in (address(made, "versions"), compare(made, 2))]
    pages.append(
        look(publisher, {**document, "description": "</textarea>" + SCRIPT}).content.decode()
    )
    pages.append(look(publisher, {**document, SCRIPT: SCRIPT}).content.decode())
    for page in pages:
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


def test_queries_do_not_grow_with_versions(publisher: Client, row: Workflow) -> None:
    counts = []
    for _ in range(2):
        pages = []
        for url in (address(row, "versions"), compare(row, 2)):
            with CaptureQueriesContext(connection) as captured:
                shown(publisher, url)
            pages.append(len(captured))
        counts.append(pages)
        for at in range(10):
            drafts.update_step(row.steps.get().pk, {"label": f"{at}"})
            publishing.publish(row.pk, by="ann")
    assert counts[0] == counts[1]
    assert max(counts[0]) <= 12


def test_use_of_a_version_is_said_in_words() -> None:
    assert VersionUse().words == "none"
    assert VersionUse(is_used=True).words == "ended ones only"
    assert VersionUse(is_used=True, is_running=True).words == "executions under way"
