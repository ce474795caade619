"""Publishing: a draft that passes the check becomes the workflow's next version, in one transaction.

The workflow's row is locked while its draft is read and its version written, so concurrent publishes
get distinct numbers and each snapshot is a draft that existed. A version that was published before can
be published again: it becomes the next version, and the draft stays as it is. What the live version holds
already is not written again: publishing twice by mistake makes one version. Golden runs that fail stop a
draft unless somebody accepts it, and then the version says so; a roll back does not ask them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from workflows.drafts import replace_draft
from workflows.errors import (
    DefinitionNotFound,
    DraftChanged,
    DraftNotPublishable,
    GoldenRunsFail,
    Problem,
    VersionChanged,
)
from workflows.golden import failing_runs
from workflows.models import Workflow, WorkflowVersion

MAX_NOTE: Final = 2_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a version keeps: the document and the ids of its steps."""

    document: WorkflowDocument
    step_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Publication:
    """The version that is live now; not a new one where the live version held the same already."""

    version: WorkflowVersion
    is_new: bool


def check_publishable(workflow: Workflow) -> DraftReport:
    """What would stop the workflow's draft from being published now, and its warnings."""
    return check_draft(workflow.document(), connections=connection_facts())


def publish(
    workflow_id: UUID, *, by: str, note: str = "", revision: int | None = None
) -> WorkflowVersion:
    """The live version after `publish_draft`, new or not. Raises as that does."""
    return publish_draft(workflow_id, by=by, note=note, revision=revision).version


def publish_draft(
    workflow_id: UUID,
    *,
    by: str,
    note: str = "",
    revision: int | None = None,
    newest: int | None = None,
    accepts_failing: bool = False,
) -> Publication:
    """Publish the draft as the next version, which new executions run.

    Raises DraftNotPublishable with every problem, GoldenRunsFail unless failing golden runs are accepted,
    DraftChanged when the draft is no longer at `revision`, VersionChanged when `newest` (0 for none) is no
    longer the newest version's number, and DefinitionNotFound.
    """
    with transaction.atomic():
        workflow = _locked(workflow_id)
        if revision is not None and workflow.revision != revision:
            raise DraftChanged
        snapshot = draft_snapshot(workflow)

        def words() -> tuple[str, ...]:
            return _accepted_words(workflow, snapshot.document, accepts_failing=accepts_failing)

        return _publish(workflow, snapshot, by=by, note=note, newest=newest, words=words)


def republish_version(
    workflow_id: UUID, number: int, *, by: str, note: str = "", newest: int | None = None
) -> Publication:
    """Publish an older version again as the next one; the draft is left alone.

    Golden runs are not asked: a roll back must not wait for them. Raises as `publish_draft`.
    """
    with transaction.atomic():
        workflow = _locked(workflow_id)
        snapshot = snapshot_of(find_version(workflow_id, number))

        def words() -> tuple[str, ...]:
            return (f"version {number} published again",)

        return _publish(workflow, snapshot, by=by, note=note, newest=newest, words=words)


def restore_draft(workflow_id: UUID, number: int, *, revision: int | None = None) -> Workflow:
    """Make a version's document the draft, its steps with the ids they had; nothing is published.

    Raises DraftChanged when the draft is no longer at `revision`, and DefinitionNotFound.
    """
    snapshot = snapshot_of(find_version(workflow_id, number))
    ids = [UUID(step_id) for step_id in snapshot.step_ids]
    return replace_draft(workflow_id, snapshot.document, revision=revision, step_ids=ids)


def find_version(workflow_id: UUID, number: int) -> WorkflowVersion:
    """The workflow's version of this number. Raises DefinitionNotFound."""
    version = WorkflowVersion.objects.filter(workflow_id=workflow_id, number=number).first()
    if version is None:
        raise DefinitionNotFound(f"There is no version {number} of this workflow.")
    return version


def draft_snapshot(workflow: Workflow) -> Snapshot:
    """The draft as a version of it would keep it. One query unless the steps are prefetched."""
    steps = workflow.steps_in_order()
    document = replace(workflow.document(), steps=tuple(step.document() for step in steps))
    return Snapshot(document, tuple(str(step.id) for step in steps))


def is_held_by(version: WorkflowVersion, snapshot: Snapshot) -> bool:
    """Whether publishing the snapshot after this version would make an equal one."""
    same_steps = list(version.step_ids) == list(snapshot.step_ids)
    return same_steps and version.content_hash == content_hash(snapshot.document)


def changes_between(before: Snapshot, after: Snapshot) -> list[str]:
    """What differs, one sentence each, for operators."""
    return describe_changes(before.document, before.step_ids, after.document, after.step_ids)


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


def _newest_of(workflow: Workflow) -> WorkflowVersion | None:
    return WorkflowVersion.objects.filter(workflow=workflow).order_by("-number").first()


def _publish(
    workflow: Workflow,
    snapshot: Snapshot,
    *,
    by: str,
    note: str,
    newest: int | None,
    words: Callable[[], tuple[str, ...]],
) -> Publication:
    """The snapshot as the next version; `words` are asked for when one is to be written, and may raise."""
    previous = _newest_of(workflow)
    _refuse_unpublishable(workflow, snapshot.document, note)
    if previous is not None and is_held_by(previous, snapshot):
        return Publication(previous, is_new=False)
    if newest is not None and newest != (previous.number if previous else 0):
        raise VersionChanged
    version = _write_version(workflow, snapshot, previous, by=by, note=note, words=words())
    return Publication(version, is_new=True)


def _accepted_words(
    workflow: Workflow, document: WorkflowDocument, *, accepts_failing: bool
) -> tuple[str, ...]:
    """What the version's changes say of golden runs that failed. Raises GoldenRunsFail."""
    problems = failing_runs(workflow.pk, document)
    if problems and not accepts_failing:
        raise GoldenRunsFail(problems)
    return tuple(f"published although the golden run {problem.path} failed" for problem in problems)


def _write_version(
    workflow: Workflow,
    snapshot: Snapshot,
    newest: WorkflowVersion | None,
    *,
    by: str,
    note: str,
    words: tuple[str, ...],
) -> WorkflowVersion:
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
    return changes_between(snapshot_of(newest), snapshot)


def _prove_it_compiles(version: WorkflowVersion, snapshot: Snapshot) -> None:
    """A version that could not be loaded would stop every one of its executions."""
    compile_workflow(
        version_id=str(version.id),
        workflow_id=str(version.workflow_id),
        number=version.number,
        document=snapshot.document,
        step_ids=snapshot.step_ids,
    )
