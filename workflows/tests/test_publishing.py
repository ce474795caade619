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
from workflows.errors import (
    DefinitionNotFound,
    DraftChanged,
    DraftNotPublishable,
    VersionChanged,
)
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
    third = publishing.republish_version(row.pk, 1, by="operator", note="roll back").version
    assert (third.number, third.document, third.step_ids) == (3, first.document, first.step_ids)
    assert third.content_hash == first.content_hash
    assert third.changes == ["version 1 published again", "step 'B' renamed 'A'"]
    assert Workflow.objects.get(pk=row.pk).live_version_id == third.pk
    assert row.steps.get().label == "B"
    with pytest.raises(DefinitionNotFound, match="There is no version 9"):
        publishing.republish_version(row.pk, 9, by="operator")


@pytest.mark.django_db
def test_what_is_live_already_is_not_published_again() -> None:
    row = imported(workflow(form(label="A")))
    first = publishing.publish_draft(row.pk, by="operator")
    again = publishing.publish_draft(row.pk, by="somebody else", note="lost")
    back = publishing.republish_version(row.pk, 1, by="somebody else")
    assert (first.is_new, again.is_new, back.is_new) == (True, False, False)
    assert {first.version.pk, again.version.pk, back.version.pk} == {first.version.pk}
    assert WorkflowVersion.objects.get().published_by == "operator"
    drafts.update_step(row.steps.get().pk, {"label": "B"})
    publishing.publish(row.pk, by="operator")
    drafts.update_step(row.steps.get().pk, {"label": "A"})
    # Equal to version 1, and not to the live one: publishing goes on to the next number.
    assert publishing.publish_draft(row.pk, by="operator").version.number == 3


@pytest.mark.django_db
def test_draft_without_a_version_of_its_step_is_another_one() -> None:
    row = imported(workflow(form(0, label="A"), form(1, label="B")))
    publishing.publish(row.pk, by="operator")
    document = row.document()
    drafts.delete_step(row.steps.get(order=1).pk)
    drafts.replace_draft(row.pk, document)
    assert publishing.publish_draft(row.pk, by="operator").version.changes == [
        "step 'B' removed",
        "step 'B' added",
    ]


@pytest.mark.django_db
def test_other_version_than_the_one_looked_at_stops_publishing() -> None:
    row = imported(workflow(form(label="A")))
    publishing.publish(row.pk, by="operator")
    drafts.update_step(row.steps.get().pk, {"label": "B"})
    with pytest.raises(VersionChanged):
        publishing.publish_draft(row.pk, by="operator", revision=2, newest=0)
    publishing.publish(row.pk, by="operator")
    with pytest.raises(VersionChanged):
        publishing.republish_version(row.pk, 1, by="operator", newest=1)
    assert WorkflowVersion.objects.count() == 2


@pytest.mark.django_db
def test_version_is_restored_into_the_draft_with_its_steps() -> None:
    row = imported(workflow(form(0, label="A"), form(1, label="B")))
    first = publishing.publish(row.pk, by="operator")
    drafts.delete_step(row.steps.get(order=1).pk)
    with pytest.raises(DraftChanged):
        publishing.restore_draft(row.pk, 1, revision=1)
    restored = publishing.restore_draft(row.pk, 1, revision=2)
    assert restored.revision == 3
    assert [str(step.pk) for step in row.steps.order_by("order")] == first.step_ids
    assert publishing.publish_draft(row.pk, by="operator").is_new is False
    with pytest.raises(DefinitionNotFound, match="There is no version 2"):
        publishing.restore_draft(row.pk, 2)


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
def test_concurrent_publishes_of_one_draft_make_one_version() -> None:
    row = imported(workflow(form()))
    barrier = Barrier(8)

    def publish(_: int) -> bool:
        barrier.wait()
        try:
            return publishing.publish_draft(row.pk, by="operator", revision=1, newest=0).is_new
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(publish, range(8)))
    assert sorted(made) == [False] * 7 + [True]
    assert WorkflowVersion.objects.get().number == 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_publishes_of_changed_drafts_get_distinct_numbers() -> None:
    row = imported(workflow(form()))
    barrier = Barrier(8)

    def publish(at: int) -> int:
        barrier.wait()
        try:
            with transaction.atomic():  # holds the draft's lock until it is published
                drafts.update_workflow(row.pk, {"description": f"edit {at}"})
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
