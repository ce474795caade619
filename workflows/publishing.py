"""Publishing: a draft that passes the check becomes the workflow's next version, in one transaction.

The workflow's row is locked while its draft is read and its version written, so concurrent publishes
get distinct numbers and each snapshot is a draft that existed. A version that was published before can
be published again: it becomes the next version, and the draft stays as it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from config.jsonvalues import JsonRefused, check_storable, dump_canonical
from workflows.changes import describe_changes
from workflows.compiled import compile_workflow
from workflows.connections import connection_facts
from workflows.documents import (
    WorkflowDocument,
    WorkflowSettings,
    dump_document,
    parse_document,
)
from workflows.draft_check import DraftReport, check_draft
from workflows.errors import DefinitionNotFound, DraftChanged, DraftNotPublishable, Problem
from workflows.models import Workflow, WorkflowVersion

MAX_NOTE: Final = 2_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a version keeps: the document and the ids of its steps."""

    document: WorkflowDocument
    step_ids: tuple[str, ...]


def check_publishable(workflow: Workflow) -> DraftReport:
    """What would stop the workflow's draft from being published now, and its warnings."""
    return check_draft(workflow.document(), connections=connection_facts())


def publish(
    workflow_id: UUID, *, by: str, note: str = "", revision: int | None = None
) -> WorkflowVersion:
    """Publish the draft as the next version, which new executions run.

    Raises DraftNotPublishable with every problem, DraftChanged when the draft is no longer at
    `revision`, and DefinitionNotFound.
    """
    with transaction.atomic():
        workflow = _locked(workflow_id)
        if revision is not None and workflow.revision != revision:
            raise DraftChanged
        steps = sorted(workflow.steps.all(), key=lambda step: step.order)
        snapshot = Snapshot(workflow.document(), tuple(str(step.id) for step in steps))
        return _write_version(workflow, snapshot, by=by, note=note, words=())


def republish(workflow_id: UUID, number: int, *, by: str, note: str = "") -> WorkflowVersion:
    """Publish an older version again as the next one; the draft is left alone. Raises as `publish`."""
    with transaction.atomic():
        workflow = _locked(workflow_id)
        older = WorkflowVersion.objects.filter(workflow=workflow, number=number).first()
        if older is None:
            raise DefinitionNotFound(f"There is no version {number} of this workflow.")
        words = (f"version {number} published again",)
        return _write_version(workflow, snapshot_of(older), by=by, note=note, words=words)


def snapshot_of(version: WorkflowVersion) -> Snapshot:
    """The version's document and step ids, read back."""
    return Snapshot(parse_document(version.document), tuple(version.step_ids))


def content_hash(document: WorkflowDocument) -> str:
    """SHA-256 of the document's canonical JSON: equal documents have equal hashes."""
    return hashlib.sha256(dump_canonical(dump_document(document))).hexdigest()


def _locked(workflow_id: UUID) -> Workflow:
    # NO KEY: executions that refer to the workflow may be inserted meanwhile.
    workflow = Workflow.objects.select_for_update(no_key=True).filter(pk=workflow_id).first()
    if workflow is None:
        raise DefinitionNotFound("There is no such workflow.")
    return workflow


def _write_version(
    workflow: Workflow, snapshot: Snapshot, *, by: str, note: str, words: tuple[str, ...]
) -> WorkflowVersion:
    _refuse_unpublishable(workflow, snapshot.document, note)
    newest = WorkflowVersion.objects.filter(workflow=workflow).order_by("-number").first()
    now = timezone.now()
    version = WorkflowVersion(
        workflow=workflow,
        number=newest.number + 1 if newest else 1,
        name=snapshot.document.name,
        required_scopes=list(WorkflowSettings.of(snapshot.document).required_scopes),
        document=dump_document(snapshot.document),
        step_ids=list(snapshot.step_ids),
        content_hash=content_hash(snapshot.document),
        published_at=now,
        published_by=by,
        note=note,
        changes=[*words, *_changes_since(newest, snapshot)],
    )
    _prove_it_compiles(version, snapshot)
    version.save(force_insert=True)
    workflow.live_version = version
    workflow.updated_at = now
    workflow.save(update_fields=["live_version", "updated_at"])
    return version


def _refuse_unpublishable(workflow: Workflow, document: WorkflowDocument, note: str) -> None:
    if workflow.is_archived:
        raise DraftNotPublishable([Problem("", "the workflow is archived; restore it first")])
    if len(note) > MAX_NOTE or not _is_storable(note):
        message = f"must have at most {MAX_NOTE} characters that can be stored"
        raise DraftNotPublishable([Problem("note", message)])
    problems = check_draft(document, connections=connection_facts()).problems
    if problems:
        raise DraftNotPublishable(problems)


def _is_storable(text: str) -> bool:
    try:
        check_storable(text)
    except JsonRefused:
        return False
    return True


def _changes_since(newest: WorkflowVersion | None, snapshot: Snapshot) -> list[str]:
    if newest is None:
        return ["first version"]
    before = snapshot_of(newest)
    return describe_changes(before.document, before.step_ids, snapshot.document, snapshot.step_ids)


def _prove_it_compiles(version: WorkflowVersion, snapshot: Snapshot) -> None:
    """A version that could not be loaded would stop every one of its executions."""
    compile_workflow(
        version_id=str(version.id),
        workflow_id=str(version.workflow_id),
        number=version.number,
        document=snapshot.document,
        step_ids=snapshot.step_ids,
    )
