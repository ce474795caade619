"""Publishing: the next number, an unchanging snapshot, or every problem and nothing stored."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connection, transaction
from django.db.models import ProtectedError

from config.ids import new_id
from config.jsonvalues import JsonObject
from workflows import drafts, publishing
from workflows.documents import parse_document
from workflows.errors import DefinitionNotFound, DraftChanged, DraftNotPublishable
from workflows.models import VersionIsImmutable, Workflow, WorkflowVersion
from workflows.tests.samples import form, server, workflow


def imported(data: JsonObject) -> Workflow:
    return drafts.import_document(data)[0]


@pytest.mark.django_db
def test_version_is_a_snapshot_of_the_draft(money_transfer: JsonObject) -> None:
    row = imported(money_transfer)
    version = publishing.publish(row.pk, by="operator", note="go")
    assert (version.number, version.published_by, version.note) == (1, "operator", "go")
    assert version.document == money_transfer
    assert version.step_ids == [str(step.pk) for step in row.steps.order_by("order")]
    assert version.changes == ["first version"]
    assert Workflow.objects.get(pk=row.pk).live_version_id == version.pk


@pytest.mark.django_db
def test_step_ids_are_stable_over_publishes() -> None:
    row = imported(workflow(form(0, label="A"), form(1, label="B")))
    first = publishing.publish(row.pk, by="operator")
    drafts.create_step(row.pk, {"type": "CONFIRMATION", "label": "Confirm"})
    second = publishing.publish(row.pk, by="operator")
    assert second.number == 2
    assert second.step_ids[:2] == first.step_ids
    assert second.changes == ["step 'Confirm' added"]


@pytest.mark.django_db
def test_draft_with_problems_is_refused_whole() -> None:
    row = imported(workflow(form(when="("), server(1, columns={"triggerEndpoint": None})))
    with pytest.raises(DraftNotPublishable) as refused:
        publishing.publish(row.pk, by="operator")
    assert [problem.path for problem in refused.value.problems] == [
        "steps[0].config.when",
        "steps[1].triggerEndpoint",
    ]
    assert WorkflowVersion.objects.count() == 0
    assert Workflow.objects.get(pk=row.pk).live_version_id is None


@pytest.mark.django_db
def test_what_was_looked_at_is_what_is_published() -> None:
    row = imported(workflow(form()))
    drafts.update_workflow(row.pk, {"description": "changed meanwhile"})
    with pytest.raises(DraftChanged):
        publishing.publish(row.pk, by="operator", revision=1)
    assert WorkflowVersion.objects.count() == 0


@pytest.mark.django_db
def test_archived_workflow_is_not_published() -> None:
    row = imported(workflow(form()))
    drafts.archive_workflow(row.pk)
    with pytest.raises(DraftNotPublishable, match="the workflow is archived; restore it first"):
        publishing.publish(row.pk, by="operator")


@pytest.mark.django_db
@pytest.mark.parametrize("note", ["n" * 2_001, "a\x00b", "\ud800"])
def test_note_that_cannot_be_kept_is_refused(note: str) -> None:
    row = imported(workflow(form()))
    with pytest.raises(DraftNotPublishable, match="note: must have at most 2000 characters"):
        publishing.publish(row.pk, by="operator", note=note)


@pytest.mark.django_db
def test_older_version_is_published_again_as_the_next() -> None:
    row = imported(workflow(form(label="A")))
    first = publishing.publish(row.pk, by="operator")
    drafts.update_step(row.steps.get().pk, {"label": "B"})
    publishing.publish(row.pk, by="operator")
    third = publishing.republish(row.pk, 1, by="operator", note="roll back")
    assert (third.number, third.document, third.step_ids) == (3, first.document, first.step_ids)
    assert third.content_hash == first.content_hash
    assert third.changes == ["version 1 published again", "step 'B' renamed 'A'"]
    assert Workflow.objects.get(pk=row.pk).live_version_id == third.pk
    assert row.steps.get().label == "B"
    with pytest.raises(DefinitionNotFound, match="There is no version 9"):
        publishing.republish(row.pk, 9, by="operator")


@pytest.mark.django_db
def test_version_is_never_changed() -> None:
    version = publishing.publish(imported(workflow(form())).pk, by="operator")
    stored = WorkflowVersion.objects.get()
    stored.note = "other"
    with pytest.raises(VersionIsImmutable):
        stored.save()
    with pytest.raises(VersionIsImmutable):
        version.save(update_fields=["note"])
    with pytest.raises(VersionIsImmutable):
        WorkflowVersion.objects.update(note="other")
    with pytest.raises(VersionIsImmutable), transaction.atomic():
        WorkflowVersion.objects.bulk_update([stored], ["note"])
    assert WorkflowVersion.objects.get().note == ""


@pytest.mark.django_db
def test_live_version_is_not_deleted() -> None:
    version = publishing.publish(imported(workflow(form())).pk, by="operator")
    with pytest.raises(ProtectedError):
        version.delete()
    with pytest.raises(ProtectedError):
        WorkflowVersion.objects.all().delete()
    assert WorkflowVersion.objects.count() == 1


def test_equal_documents_have_equal_hashes() -> None:
    one: JsonObject = {"name": "F", "steps": [{"type": "FORM", "label": "A", "order": 0}]}
    other: JsonObject = {"steps": [{"order": 0, "label": "A", "type": "FORM"}], "name": "F"}
    hashes = {publishing.content_hash(parse_document(data)) for data in (one, other)}
    assert hashes == {"0914d14fe45cfcf2f3e17438c3da53250e0a3014b489aef7d89d11602773f960"}


@pytest.mark.django_db
def test_unknown_workflow_is_not_found() -> None:
    with pytest.raises(DefinitionNotFound):
        publishing.publish(new_id(), by="operator")


@pytest.mark.django_db(transaction=True)
def test_concurrent_publishes_get_distinct_numbers() -> None:
    row = imported(workflow(form()))
    barrier = Barrier(8)

    def publish(_: int) -> int:
        barrier.wait()
        try:
            return publishing.publish(row.pk, by="operator").number
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(publish, range(8)))
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6, 7, 8]
    live = Workflow.objects.select_related("live_version").get(pk=row.pk).live_version
    assert live is not None
    assert live.number == 8


@pytest.mark.django_db(transaction=True)
def test_concurrent_edits_of_one_revision_have_one_winner() -> None:
    row = imported(workflow(form()))
    barrier = Barrier(6)

    def edit(at: int) -> str:
        barrier.wait()
        try:
            drafts.update_workflow(row.pk, {"description": f"edit {at}"}, revision=1)
        except DraftChanged:
            return ""
        finally:
            connection.close()
        return f"edit {at}"

    with ThreadPoolExecutor(6) as pool:
        winners = [winner for winner in pool.map(edit, range(6)) if winner]
    stored = Workflow.objects.get(pk=row.pk)
    assert winners == [stored.description]
    assert stored.revision == 2
