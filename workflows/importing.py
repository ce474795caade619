"""Documents in: several at once, all or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction

from config.jsonvalues import JsonValue
from workflows.drafts import import_document
from workflows.errors import DefinitionError, Problem
from workflows.models import Workflow, WorkflowStep
from workflows.publishing import check_publishable, publish


@dataclass(frozen=True, slots=True)
class Imported:
    """One imported document: the workflow, whether it is new, and how it stands now."""

    workflow: Workflow
    is_new: bool
    version: int | None
    steps: tuple[WorkflowStep, ...]
    warnings: tuple[Problem, ...]


class ImportRefused(Exception):
    """A document of the batch was refused, and none imported; `index` says which, `cause` why."""

    def __init__(self, index: int, cause: DefinitionError) -> None:
        super().__init__(str(cause))
        self.index = index
        self.cause = cause


def import_documents(
    documents: Sequence[JsonValue], *, as_new: bool, publishes: bool, by: str
) -> list[Imported]:
    """Import every document, and publish each if asked to. Raises ImportRefused, having kept none."""
    imported = []
    with transaction.atomic():
        for index, data in enumerate(documents):
            try:
                imported.append(_import_one(data, as_new=as_new, publishes=publishes, by=by))
            except DefinitionError as error:
                raise ImportRefused(index, error) from error
    return imported


def _import_one(data: JsonValue, *, as_new: bool, publishes: bool, by: str) -> Imported:
    workflow, is_new = import_document(data, as_new=as_new)
    live = publish(workflow.pk, by=by) if publishes else workflow.live_version
    steps = tuple(workflow.steps.order_by("order"))
    warnings = check_publishable(workflow).warnings
    return Imported(workflow, is_new, live.number if live else None, steps, warnings)
