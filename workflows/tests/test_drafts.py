"""Edits of drafts: each checked as a document, each bumping the revision, none half done."""

from uuid import UUID

import pytest

from config.ids import new_id
from config.jsonvalues import JsonObject
from workflows import drafts
from workflows.documents import dump_document, parse_document
from workflows.errors import DefinitionError, DefinitionNotFound, DocumentInvalid, DraftChanged
from workflows.history import workflow_history
from workflows.models import Workflow, WorkflowStep
from workflows.tests.samples import form, server, workflow

pytestmark = pytest.mark.django_db


def imported(data: JsonObject) -> Workflow:
    return drafts.import_document(data)[0]


def reread(row: Workflow) -> Workflow:
    return Workflow.objects.get(pk=row.pk)


def ids_by_label(row: Workflow) -> dict[str, UUID]:
    return {step.label: step.pk for step in row.steps.all()}


def test_seed_document_is_kept_unchanged(money_transfer: JsonObject) -> None:
    row = imported(money_transfer)
    assert dump_document(reread(row).document()) == money_transfer


def test_numbers_and_key_order_survive_the_database() -> None:
    app: JsonObject = {"z": 1e23, "a": 10**40, "m": 1.0}
    row = imported(workflow(form(app=app)))
    config = reread(row).document().steps[0].config
    assert config is not None
    kept = config["app"]
    assert isinstance(kept, dict)
    assert list(kept.items()) == [("z", 1e23), ("a", 10**40), ("m", 1.0)]
    assert [type(value) for value in kept.values()] == [float, int, float]


def test_document_of_a_known_name_changes_that_draft(money_transfer: JsonObject) -> None:
    first, is_first_new = drafts.import_document(money_transfer)
    second, is_second_new = drafts.import_document({**money_transfer, "description": "Other"})
    assert (is_first_new, is_second_new) == (True, False)
    assert second.pk == first.pk
    assert (reread(first).description, reread(first).revision) == ("Other", 2)
    assert Workflow.objects.count() == 1


def test_import_as_new_makes_another_of_the_name(money_transfer: JsonObject) -> None:
    imported(money_transfer)
    drafts.import_document(money_transfer, as_new=True)
    assert Workflow.objects.filter(name="Money Transfer").count() == 2
    with pytest.raises(DocumentInvalid, match="several workflows are named 'Money Transfer'"):
        drafts.import_document(money_transfer)


def test_archived_workflow_is_passed_over_by_an_import(money_transfer: JsonObject) -> None:
    drafts.archive_workflow(imported(money_transfer).pk)
    assert drafts.import_document(money_transfer)[1] is True


def test_reimport_keeps_step_ids_by_label_then_data_key() -> None:
    before = imported(
        workflow(
            form(0, label="A", dataKey="a"), form(1, label="B", dataKey="b"), form(2, label="C")
        )
    )
    ids = ids_by_label(before)
    # A is renamed and keeps its data key, C moves to the front, B goes, D comes.
    after = imported(
        workflow(form(0, label="C"), form(1, label="A2", dataKey="a"), form(2, label="D"))
    )
    kept = ids_by_label(after)
    assert (kept["C"], kept["A2"]) == (ids["C"], ids["A"])
    assert kept["D"] not in ids.values()
    assert WorkflowStep.objects.count() == 3


def test_label_wins_over_data_key() -> None:
    ids = ids_by_label(imported(workflow(form(0, label="A", dataKey="x"), form(1, label="B"))))
    after = imported(workflow(form(0, label="B", dataKey="x"), form(1, label="A")))
    assert ids_by_label(after) == ids


def test_steps_may_change_places() -> None:
    ids = ids_by_label(imported(workflow(form(0, label="A"), form(1, label="B"))))
    after = imported(workflow(form(0, label="B"), form(1, label="A")))
    assert ids_by_label(after) == ids
    assert [step.label for step in after.document().steps] == ["B", "A"]


def test_steps_are_created_changed_and_deleted() -> None:
    row = drafts.create_workflow({"name": "Flow"})
    first = drafts.create_step(row.pk, {"type": "FORM", "label": "A"})
    second = drafts.create_step(row.pk, {"type": "INFO", "label": "B", "order": None})
    assert (first.order, second.order) == (0, 1)
    changed = drafts.update_step(second.pk, {"label": "B2", "order": 7, "config": {"title": "T"}})
    assert (changed.label, changed.order, changed.config) == ("B2", 7, {"title": "T"})
    drafts.update_step(second.pk, {"config": None})
    drafts.delete_step(first.pk)
    assert dump_document(reread(row).document()) == {
        "name": "Flow",
        "steps": [{"type": "INFO", "label": "B2", "order": 7}],
    }
    assert reread(row).revision == 6


def test_refused_edit_stores_nothing() -> None:
    row = imported(workflow(form(0, label="A"), server(1)))
    call = row.steps.get(order=1)
    with pytest.raises(DocumentInvalid) as refused:
        drafts.update_step(call.pk, {"timeoutMs": 5, "colour": "red", "label": ""})
    assert [problem.path for problem in refused.value.problems] == [
        "steps[1].label",
        "steps[1].timeoutMs",
        "steps[1].colour",
    ]
    with pytest.raises(DocumentInvalid, match=r"steps\[1\].order: is taken"):
        drafts.update_step(call.pk, {"order": 0})
    with pytest.raises(DocumentInvalid, match="name: must be text"):
        drafts.update_workflow(row.pk, {"name": 5})
    assert reread(row).revision == 1
    assert reread(row).document() == parse_document(workflow(form(0, label="A"), server(1)))


def test_stale_edit_is_refused() -> None:
    row = imported(workflow(form()))
    step = row.steps.get()
    drafts.update_workflow(row.pk, {"description": "new"}, revision=1)
    for edit in (
        lambda: drafts.update_workflow(row.pk, {"description": "old"}, revision=1),
        lambda: drafts.create_step(row.pk, {"type": "FORM", "label": "X"}, revision=1),
        lambda: drafts.update_step(step.pk, {"label": "X"}, revision=1),
        lambda: drafts.delete_step(step.pk, revision=1),
    ):
        with pytest.raises(DraftChanged):
            edit()
    assert (reread(row).description, reread(row).revision) == ("new", 2)
    assert reread(row).steps.get().label == "Form"


def test_step_limit_is_the_settings(settings: pytest.FixtureRequest) -> None:
    settings.MAX_STEPS = 2  # type: ignore[attr-defined]  # pytest-django's settings
    row = imported(workflow(form(0, label="A"), form(1, label="B")))
    with pytest.raises(DocumentInvalid, match="steps: must have at most 2 steps, not 3"):
        drafts.create_step(row.pk, {"type": "FORM", "label": "C"})
    assert row.steps.count() == 2


def test_unknown_ids_are_not_found() -> None:
    with pytest.raises(DefinitionNotFound):
        drafts.update_workflow(new_id(), {})
    with pytest.raises(DefinitionNotFound):
        drafts.delete_step(new_id())
    with pytest.raises(DefinitionNotFound):
        drafts.archive_workflow(new_id())


def test_archiving_twice_keeps_the_first_time() -> None:
    row = imported(workflow(form()))
    first = drafts.archive_workflow(row.pk).archived_at
    assert first is not None
    assert drafts.archive_workflow(row.pk).archived_at == first
    assert drafts.restore_workflow(row.pk).archived_at is None


def test_true_for_one_is_an_edit() -> None:
    row = imported(workflow(form(app=1)))
    config = drafts.update_step(row.steps.get().pk, {"config": {"app": True}}).config
    assert config["app"] is True


def test_edit_of_one_step_writes_one_step(django_assert_num_queries: pytest.FixtureRequest) -> None:
    row = imported(workflow(form(0, label="A"), form(1, label="B"), form(2, label="C")))
    step = row.steps.get(order=1)
    # find, savepoint, lock, steps, revision, workflow, rows, step, release, read back; two histories
    with django_assert_num_queries(13):  # type: ignore[operator]  # pytest-django's fixture
        drafts.update_step(step.pk, {"label": "B2"})


def standing(row: Workflow) -> list[tuple[int, str, str]]:
    return [(one.order, one.label, one.data_key) for one in reread(row).document().steps]


def step_of(row: Workflow, label: str) -> UUID:
    return ids_by_label(row)[label]


def test_step_is_moved_and_the_orders_stay() -> None:
    row = imported(
        workflow(form(1, label="A"), form(5, label="B", dataKey="b"), form(9, label="C"))
    )
    ids = ids_by_label(row)
    moved = drafts.move_step(ids["C"], to=0, revision=1)
    assert moved.revision == 2
    assert standing(row) == [(1, "C", "step1"), (5, "A", "step5"), (9, "B", "b")]
    assert ids_by_label(row) == ids


def test_moved_steps_keep_data_keys_that_are_read() -> None:
    row = imported(
        workflow(form(0, label="A"), form(1, label="B", title="${step0.x}"), form(2, label="C"))
    )
    drafts.move_step(step_of(row, "A"), to=1)
    assert standing(row) == [(0, "B", "step1"), (1, "A", "step0"), (2, "C", "step2")]


def test_nothing_is_written_when_a_step_stays_where_it_is() -> None:
    row = imported(workflow(form(3, label="A"), form(7, label="B", title="${step3}")))
    before = dump_document(reread(row).document())
    drafts.move_step(step_of(row, "B"), to=1)
    assert dump_document(reread(row).document()) == before


@pytest.mark.parametrize("place", [-1, 2])
def test_place_that_is_not_there_is_refused(place: int) -> None:
    row = imported(workflow(form(0, label="A"), form(1, label="B")))
    with pytest.raises(DefinitionError, match="must be a place between 0 and 1"):
        drafts.move_step(step_of(row, "A"), to=place)
    assert reread(row).revision == 1


def test_copy_stands_behind_its_step_and_later_ones_make_room() -> None:
    row = imported(
        workflow(
            server(1, columns={"label": "A"}, dataKey="a"), form(2, label="B"), form(9, label="C")
        )
    )
    copy = drafts.duplicate_step(step_of(row, "A"), revision=1)
    assert standing(row) == [
        (1, "A", "a"),
        (2, "A (copy)", "aCopy"),
        (3, "B", "step3"),
        (9, "C", "step9"),
    ]
    assert (copy.label, copy.trigger_endpoint, copy.workflow.revision) == ("A (copy)", "/pay", 2)
    drafts.duplicate_step(step_of(row, "A"))
    assert [label for _, label, _ in standing(row)] == ["A", "A (copy2)", "A (copy)", "B", "C"]


def test_copy_of_a_long_label_fits() -> None:
    row = imported(workflow(form(label="x" * 200)))
    copy = drafts.duplicate_step(row.steps.get().pk)
    assert copy.label == "x" * 193 + " (copy)"


def test_moves_and_copies_are_one_edit_each_in_the_history() -> None:
    row = imported(workflow(form(0, label="A"), form(1, label="B")))
    drafts.move_step(step_of(row, "B"), to=0)
    drafts.duplicate_step(step_of(row, "A"))
    assert [one.changes for one in workflow_history(row.pk)] == [
        ("step 'A (copy)' added",),
        ("step 'B': order changed from 1 to 0", "step 'A': order changed from 0 to 1"),
        ("created", "step 'A' added", "step 'B' added"),
    ]


def test_moves_and_copies_of_a_changed_draft_are_refused() -> None:
    row = imported(workflow(form(0, label="A"), form(1, label="B")))
    drafts.update_workflow(row.pk, {"description": "theirs"})
    with pytest.raises(DraftChanged):
        drafts.move_step(step_of(row, "A"), to=1, revision=1)
    with pytest.raises(DraftChanged):
        drafts.duplicate_step(step_of(row, "A"), revision=1)
    assert [label for _, label, _ in standing(row)] == ["A", "B"]
