"""Documents in: several at once, all or none; or one that somebody looks at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from config.jsonvalues import JsonValue
from workflows.connections import connection_facts
from workflows.documents import WorkflowDocument, dump_document, parse_document
from workflows.draft_check import DraftReport, check_draft
from workflows.drafts import (
    create_workflow,
    import_document,
    import_target,
    kept_ids,
    replace_draft,
)
from workflows.errors import DefinitionError, DraftChanged, Problem
from workflows.models import Workflow, WorkflowStep
from workflows.publishing import (
    Publication,
    Snapshot,
    changes_between,
    check_publishable,
    draft_snapshot,
    publish_draft,
)


@dataclass(frozen=True, slots=True)
class Imported:
    """One imported document: the workflow, whether it is new, and how it stands now.

    `is_published`: a new version was made of it; not so where the live one held the same already.
    """

    workflow: Workflow
    is_new: bool
    version: int | None
    is_published: bool
    steps: tuple[WorkflowStep, ...]
    warnings: tuple[Problem, ...]


class ImportRefused(Exception):
    """A document of the batch was refused, and none imported; `index` says which, `cause` why."""

    def __init__(self, index: int, cause: DefinitionError) -> None:
        super().__init__(str(cause))
        self.index = index
        self.cause = cause


def import_documents(
    documents: Sequence[JsonValue],
    *,
    as_new: bool,
    publishes: bool,
    by: str,
    accepts_failing: bool = False,
) -> list[Imported]:
    """Import every document, and publish each if asked to. Raises ImportRefused, having kept none."""
    imported = []
    with transaction.atomic():
        for index, data in enumerate(documents):
            try:
                workflow, is_new = import_document(data, as_new=as_new)
                publication = (
                    publish_draft(workflow.pk, by=by, accepts_failing=accepts_failing)
                    if publishes
                    else None
                )
            except DefinitionError as error:
                raise ImportRefused(index, error) from error
            imported.append(_imported(workflow, publication, is_new=is_new))
    return imported


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What importing a document would do. `target` is the workflow whose draft it changes, None: a new one.

    `seen` names what was looked at: the target and its revision. `report` is of the publish check.
    """

    document: WorkflowDocument
    target: Workflow | None
    changes: tuple[str, ...]
    report: DraftReport

    @property
    def seen(self) -> str:
        return "new" if self.target is None else f"{self.target.pk}:{self.target.revision}"


def plan_import(data: JsonValue, *, as_new: bool) -> ImportPlan:
    """What the import would change, nothing written. Raises DocumentInvalid with every problem."""
    document = parse_document(data, max_steps=settings.MAX_STEPS)
    target = import_target(document, as_new=as_new)
    report = check_draft(document, connections=connection_facts())
    changes = () if target is None else tuple(_import_changes(target, document))
    return ImportPlan(document, target, changes, report)


def import_planned(data: JsonValue, *, as_new: bool, seen: str) -> tuple[Workflow, bool]:
    """Do what a plan with this `seen` said; says if the workflow is new.

    Raises DraftChanged when it would be something else by now, and DocumentInvalid.
    """
    with transaction.atomic():
        plan = plan_import(data, as_new=as_new)
        if plan.seen != seen:
            raise DraftChanged
        if plan.target is None:
            return create_workflow(dump_document(plan.document)), True
        workflow = replace_draft(plan.target.pk, plan.document, revision=plan.target.revision)
        return workflow, False


def _import_changes(target: Workflow, document: WorkflowDocument) -> list[str]:
    rows = target.steps_in_order()
    ids = kept_ids([(row.pk, row.document()) for row in rows], document.steps)
    after = Snapshot(document, tuple(map(str, ids)))
    return changes_between(draft_snapshot(target), after)


def _imported(workflow: Workflow, publication: Publication | None, *, is_new: bool) -> Imported:
    live = publication.version if publication else workflow.live_version
    return Imported(
        workflow,
        is_new,
        version=live.number if live else None,
        is_published=publication is not None and publication.is_new,
        steps=tuple(workflow.steps.order_by("order")),
        warnings=check_publishable(workflow).warnings,
    )
