"""Edits of drafts: the one way in which admin, API and commands change a definition.

Every edit reads the whole draft under a lock, changes it as a document, checks the document and writes
what differs, so a draft is always a document that parses. Each bumps the draft's revision; an edit that
names the revision it started from is refused with DraftChanged when the draft has moved on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from config.ids import new_id
from config.jsonvalues import JsonObject, JsonValue, dump_compact
from workflows.document_shape import LIMITS
from workflows.documents import (
    StepDocument,
    WorkflowDocument,
    dump_document,
    dump_step,
    parse_document,
    with_changes,
)
from workflows.errors import (
    DefinitionError,
    DefinitionNotFound,
    DocumentInvalid,
    DraftChanged,
    Problem,
)
from workflows.models import Workflow, WorkflowStep

# Where steps wait while they change places: no document's order reaches it.
_PARKED: Final = LIMITS.order + 1


@dataclass(slots=True)
class _Draft:
    """A draft being edited, each step with the id of its row.

    `before` is what it was; `top` and `steps` are the document's JSON, for an edit to change.
    """

    before: Sequence[tuple[UUID, StepDocument]]
    top: JsonObject
    steps: list[tuple[UUID, JsonObject]]

    @classmethod
    def of(cls, workflow: Workflow) -> _Draft:
        rows = workflow.steps_in_order()
        before = [(row.pk, row.document()) for row in rows]
        document = workflow.document()
        top = {key: value for key, value in dump_document(document).items() if key != "steps"}
        return cls(before, top, [(step_id, dump_step(step)) for step_id, step in before])

    def document(self) -> WorkflowDocument:
        """The document, its steps in their order. Raises DocumentInvalid with every problem."""
        self.steps.sort(key=lambda pair: _sort_key(pair[1]))
        data: JsonObject = {**self.top, "steps": [step for _, step in self.steps]}
        return parse_document(data, max_steps=settings.MAX_STEPS)

    def renumber(self, orders: Sequence[int]) -> None:
        """Give the steps, as they stand, these orders. Data keys that were made of orders stay.

        They are written down only when the draft reads one of them: else nobody misses them.
        """
        moved = [
            (place, step, order)
            for place, ((_, step), order) in enumerate(zip(self.steps, orders, strict=True))
            if step["order"] != order
        ]
        text = dump_compact({**self.top, "steps": [step for _, step in self.steps]}).decode()
        keys = {place: f"step{step['order']}" for place, step, _ in moved if not _data_key(step)}
        is_read = any(re.search(rf"\b{key}(?:Result)?\b", text) for key in keys.values())
        for place, step, order in moved:
            kept: JsonObject = {"dataKey": keys[place]} if is_read and place in keys else {}
            config = step.get("config")
            own = {**kept, **(config if isinstance(config, dict) else {})}
            changed = {**step, "order": order} | ({"config": own} if kept else {})
            self.steps[place] = (self.steps[place][0], changed)

    def position(self, step_id: UUID) -> int:
        """Where the step stands. Raises DefinitionNotFound when it was deleted meanwhile."""
        for at, (one, _) in enumerate(self.steps):
            if one == step_id:
                return at
        raise _no_step()


def create_workflow(fields: JsonObject) -> Workflow:
    """A workflow with this draft (a document; without steps it has none). Raises DocumentInvalid."""
    data = with_changes({"steps": []}, fields)
    document = parse_document(data, max_steps=settings.MAX_STEPS)
    with transaction.atomic():
        workflow = Workflow()
        _take(workflow, document)
        workflow.save(force_insert=True)
        _write_steps(workflow, [(new_id(), step) for step in document.steps])
    return workflow


def update_workflow(
    workflow_id: UUID, changes: JsonObject, *, revision: int | None = None
) -> Workflow:
    """Change name, description or config; a change to null leaves the key out."""

    def change(draft: _Draft) -> None:
        draft.top = with_changes(draft.top, changes)

    return _edit(workflow_id, change, revision=revision)


def create_step(
    workflow_id: UUID, fields: JsonObject, *, revision: int | None = None
) -> WorkflowStep:
    """Add a step; without an order it is the last one."""
    step_id = new_id()

    def change(draft: _Draft) -> None:
        orders = (order for _, step in draft.steps if isinstance(order := step["order"], int))
        last: JsonObject = {"order": max(orders, default=-1) + 1}
        draft.steps.append((step_id, last | with_changes({}, fields)))

    _edit(workflow_id, change, revision=revision)
    return WorkflowStep.objects.select_related("workflow").get(pk=step_id)


def update_step(step_id: UUID, changes: JsonObject, *, revision: int | None = None) -> WorkflowStep:
    """Change a step; a change to null leaves the key out, so that its default holds."""

    def change(draft: _Draft) -> None:
        at = draft.position(step_id)
        draft.steps[at] = (step_id, with_changes(draft.steps[at][1], changes))

    _edit(_workflow_of(step_id), change, revision=revision)
    return WorkflowStep.objects.select_related("workflow").get(pk=step_id)


def delete_step(step_id: UUID, *, revision: int | None = None) -> Workflow:
    """Remove a step from the draft; published versions keep theirs."""

    def change(draft: _Draft) -> None:
        del draft.steps[draft.position(step_id)]

    return _edit(_workflow_of(step_id), change, revision=revision)


def move_step(step_id: UUID, *, to: int, revision: int | None = None) -> Workflow:
    """Put the step at this place among the draft's steps, counted from 0; the orders stay those there are.

    Whose data key comes from its order keeps it, when something of the draft reads one of those keys.
    Raises DefinitionError for a place that is not there.
    """

    def change(draft: _Draft) -> None:
        at = draft.position(step_id)
        if not 0 <= to < len(draft.steps):
            message = f"must be a place between 0 and {len(draft.steps) - 1}"
            raise DefinitionError([Problem("to", message)])
        draft.steps.insert(to, draft.steps.pop(at))
        draft.renumber(sorted(_sort_key(step) for _, step in draft.steps))

    return _edit(_workflow_of(step_id), change, revision=revision)


def duplicate_step(step_id: UUID, *, revision: int | None = None) -> WorkflowStep:
    """Put a copy behind the step, with a label and a data key of its own; later steps make room."""
    copy_id = new_id()

    def change(draft: _Draft) -> None:
        at = draft.position(step_id)
        draft.steps.insert(at + 1, (copy_id, _copy_of(draft.steps[at][1], draft.document())))
        orders = [_sort_key(step) for _, step in draft.steps]
        for place in range(at + 1, len(orders)):
            orders[place] = max(orders[place], orders[place - 1] + 1)
        draft.renumber(orders)

    _edit(_workflow_of(step_id), change, revision=revision)
    return WorkflowStep.objects.select_related("workflow").get(pk=copy_id)


def archive_workflow(workflow_id: UUID) -> Workflow:
    """No new executions; running ones finish. Archiving twice changes nothing."""
    return _set_archived(workflow_id, is_archived=True)


def restore_workflow(workflow_id: UUID) -> Workflow:
    """Take the workflow out of the archive."""
    return _set_archived(workflow_id, is_archived=False)


def import_document(data: JsonValue, *, as_new: bool = False) -> tuple[Workflow, bool]:
    """Make the document the draft of the workflow of its name, or of a new one; says if it is new.

    A step keeps its id when its label, or else its data key, is there before and after. Archived
    workflows are passed over. Raises DocumentInvalid, also when several workflows have the name.
    """
    document = parse_document(data, max_steps=settings.MAX_STEPS)
    with transaction.atomic():
        target = import_target(document, as_new=as_new)
        if target is None:
            return create_workflow(dump_document(document)), True
        return replace_draft(target.pk, document), False


def import_target(document: WorkflowDocument, *, as_new: bool = False) -> Workflow | None:
    """The workflow whose draft an import of the document changes; None when it makes a new one.

    Raises DocumentInvalid when several workflows have the name.
    """
    namesakes = [] if as_new else list(Workflow.objects.active().filter(name=document.name)[:2])
    if len(namesakes) > 1:
        message = f"several workflows are named {document.name!r}; import it as a new one"
        raise DocumentInvalid([Problem("name", message)])
    return namesakes[0] if namesakes else None


def replace_draft(
    workflow_id: UUID,
    document: WorkflowDocument,
    *,
    revision: int | None = None,
    step_ids: Sequence[UUID] | None = None,
) -> Workflow:
    """Make the document the workflow's draft. Its steps have these ids, or those of the steps they were."""

    def change(draft: _Draft) -> None:
        ids = kept_ids(draft.before, document.steps) if step_ids is None else step_ids
        draft.top = {key: value for key, value in dump_document(document).items() if key != "steps"}
        draft.steps = list(zip(ids, map(dump_step, document.steps), strict=True))

    return _edit(workflow_id, change, revision=revision)


def _edit(workflow_id: UUID, change: Callable[[_Draft], None], *, revision: int | None) -> Workflow:
    with transaction.atomic():
        workflow = Workflow.objects.select_for_update(no_key=True).filter(pk=workflow_id).first()
        if workflow is None:
            raise _no_workflow()
        if revision is not None and workflow.revision != revision:
            raise DraftChanged
        draft = _Draft.of(workflow)
        change(draft)
        document = draft.document()
        _bump_revision(workflow)
        _take(workflow, document)
        workflow.save(update_fields=["name", "description", "config", "updated_at"])
        ids = (step_id for step_id, _ in draft.steps)
        _write_steps(workflow, list(zip(ids, document.steps, strict=True)))
    return workflow


def _bump_revision(workflow: Workflow) -> None:
    """Conditional, so that two edits of one revision cannot both succeed where no lock was taken."""
    unchanged = Workflow.objects.filter(pk=workflow.pk, revision=workflow.revision)
    if not unchanged.update(revision=F("revision") + 1):
        raise DraftChanged
    workflow.revision += 1


def _take(workflow: Workflow, document: WorkflowDocument) -> None:
    workflow.name = document.name
    workflow.description = document.description
    workflow.config = document.config
    workflow.updated_at = timezone.now()


def _write_steps(workflow: Workflow, steps: Sequence[tuple[UUID, StepDocument]]) -> None:
    """Write the steps that differ from their rows, in few statements however many there are."""
    rows = {row.pk: row for row in workflow.steps.all()}
    wanted = dict(steps)
    gone = rows.keys() - wanted.keys()
    if gone:
        workflow.steps.filter(pk__in=gone).delete()
    kept = {pk: row for pk, row in rows.items() if pk in wanted}
    moved = [pk for pk, row in kept.items() if row.order != wanted[pk].order]
    if moved:  # an order may be taken until its owner has moved too
        workflow.steps.filter(pk__in=moved).update(order=F("order") + _PARKED)
    for pk, step in steps:
        row = kept.get(pk)
        if row is None:
            row = WorkflowStep(pk=pk, workflow=workflow)
            row.take(step)
            row.save(force_insert=True)
        elif _as_text(row.document()) != _as_text(step):
            row.take(step)
            row.save(force_update=True)


def _as_text(step: StepDocument) -> bytes:
    """For comparing: to Python, true is 1 and 1.0 as well, and the order of keys is nothing."""
    return dump_compact(dump_step(step))


def kept_ids(
    before: Sequence[tuple[UUID, StepDocument]], after: Sequence[StepDocument]
) -> list[UUID]:
    """An id for each new step: that of the old one with its label, or its data key, or a new id."""
    free = dict(before)
    kept: dict[int, UUID] = {}
    for is_same in (_has_same_label, _has_same_data_key):
        for at, step in enumerate(after):
            match = next((pk for pk, old in free.items() if is_same(old, step)), None)
            if at not in kept and match is not None:
                kept[at] = match
                del free[match]
    return [kept.get(at) or new_id() for at in range(len(after))]


def _has_same_label(old: StepDocument, new: StepDocument) -> bool:
    return old.label == new.label


def _has_same_data_key(old: StepDocument, new: StepDocument) -> bool:
    return old.own_data_key is not None and old.own_data_key == new.own_data_key


def _set_archived(workflow_id: UUID, *, is_archived: bool) -> Workflow:
    with transaction.atomic():
        workflow = Workflow.objects.select_for_update(no_key=True).filter(pk=workflow_id).first()
        if workflow is None:
            raise _no_workflow()
        if workflow.is_archived is not is_archived:
            now = timezone.now()
            workflow.archived_at = now if is_archived else None
            workflow.updated_at = now
            workflow.save(update_fields=["archived_at", "updated_at"])
    return workflow


def _workflow_of(step_id: UUID) -> UUID:
    found = WorkflowStep.objects.filter(pk=step_id).values_list("workflow_id", flat=True).first()
    if found is None:
        raise _no_step()
    return found


def _data_key(step: JsonObject) -> JsonValue:
    config = step.get("config")
    return config.get("dataKey") if isinstance(config, dict) else None


def _copy_of(step: JsonObject, document: WorkflowDocument) -> JsonObject:
    """The step under a label and a data key that no other step of the document has."""
    label = _unused(
        str(step["label"]), " (copy{})", {one.label for one in document.steps}, LIMITS.label
    )
    copied: JsonObject = {**step, "label": label}
    key, config = _data_key(step), step.get("config")
    if isinstance(key, str) and isinstance(config, dict):
        keys = {name for one in document.steps for name in (one.data_key, f"{one.data_key}Result")}
        copied["config"] = {**config, "dataKey": _unused(key, "Copy{}", keys, LIMITS.data_key)}
    return copied


def _unused(text: str, ending: str, taken: set[str], limit: int) -> str:
    """The text with the first ending that makes it one that is not taken."""
    for number in count(1):
        tail = ending.format("" if number == 1 else number)
        made = text[: limit - len(tail)] + tail
        if made not in taken:
            return made
    raise AssertionError


def _sort_key(step: JsonObject) -> int:
    """Where the order is no number the document is refused anyway."""
    order = step.get("order")
    return order if isinstance(order, int) else 0


def _no_workflow() -> DefinitionNotFound:
    return DefinitionNotFound("There is no such workflow.")


def _no_step() -> DefinitionNotFound:
    return DefinitionNotFound("There is no such step.")
