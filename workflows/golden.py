"""Golden runs: kept by editors, checked against a draft before it is published.

A run's context stands in the database as it was typed, so it has to be made up. Every edit locks the
workflow's row first, which keeps their number bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from config.jsonvalues import JsonObject, JsonRefused, JsonValue, check_storable, dump_compact
from workflows.document_shape import LIMITS
from workflows.documents import WorkflowDocument
from workflows.errors import (
    DefinitionError,
    DefinitionNotFound,
    DraftChanged,
    GoldenRunChanged,
    Problem,
)
from workflows.golden_check import GoldenResult, payloads_of
from workflows.models import GoldenRun, Workflow

MAX_RUNS: Final = 50
MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """A golden run and what its context gives now."""

    run: GoldenRun
    result: GoldenResult

    @property
    def passes(self) -> bool:
        return self.result.passes(self.run.expected)


def checked_runs(workflow_id: UUID, document: WorkflowDocument) -> tuple[CheckedRun, ...]:
    """The workflow's golden runs by name, each checked against the document. One query."""
    runs = list(GoldenRun.objects.filter(workflow_id=workflow_id))
    results = payloads_of(document, (run.context for run in runs))
    return tuple(map(CheckedRun, runs, results))


def failing_runs(workflow_id: UUID, document: WorkflowDocument) -> list[Problem]:
    """Those that fail: the path is the run's name. One query."""
    checked = checked_runs(workflow_id, document)
    return [Problem(one.run.name, one.result.why_not()) for one in checked if not one.passes]


def find_golden_run(workflow_id: UUID, run_id: UUID) -> GoldenRun:
    """The workflow's golden run. Raises DefinitionNotFound."""
    run = GoldenRun.objects.filter(workflow_id=workflow_id, pk=run_id).first()
    if run is None:
        raise DefinitionNotFound("There is no such golden run.")
    return run


def state_of(run: GoldenRun) -> str:
    """What an edit of the run as it stands names as `seen`: every edit changes it."""
    return run.updated_at.isoformat()


def save_golden_run(
    workflow_id: UUID,
    *,
    name: str,
    context: JsonValue,
    expected: JsonValue = None,
    by: str,
    run_id: UUID | None = None,
    seen: str | None = None,
) -> GoldenRun:
    """Add a golden run, or change the one there is; without an expected payload the present one is taken.

    Raises DefinitionError with every problem, DefinitionNotFound, and GoldenRunChanged when the run is no
    longer the one whose `state_of` is `seen`.
    """
    with transaction.atomic():
        workflow = _locked(workflow_id)
        run = GoldenRun(workflow=workflow, created_by=by)
        if run_id is not None:
            run = find_golden_run(workflow_id, run_id)
            if seen is not None and seen != state_of(run):
                raise GoldenRunChanged
        problems = _problems(workflow, run, name.strip(), context, expected)
        if problems or not isinstance(context, dict):
            raise DefinitionError(problems)
        run.name, run.context = name.strip(), context
        run.expected = _present(workflow, context) if expected is None else expected
        run.updated_by, run.updated_at = by, timezone.now()
        run.save()
    return run


def take_result(
    workflow_id: UUID, run_id: UUID, *, by: str, revision: int | None = None
) -> GoldenRun:
    """Expect from now on what the draft gives. Raises DraftChanged when it is no longer at `revision`."""
    with transaction.atomic():
        workflow = _locked(workflow_id)
        if revision is not None and workflow.revision != revision:
            raise DraftChanged
        run = find_golden_run(workflow_id, run_id)
        run.expected = _present(workflow, run.context)
        run.updated_by, run.updated_at = by, timezone.now()
        run.save(update_fields=["expected", "updated_by", "updated_at"])
    return run


def delete_golden_run(workflow_id: UUID, run_id: UUID) -> None:
    """Delete it; deleting twice changes nothing."""
    GoldenRun.objects.filter(workflow_id=workflow_id, pk=run_id).delete()


def _locked(workflow_id: UUID) -> Workflow:
    workflow = Workflow.objects.select_for_update(no_key=True).filter(pk=workflow_id).first()
    if workflow is None:
        raise DefinitionNotFound("There is no such workflow.")
    return workflow


def _present(workflow: Workflow, context: JsonObject) -> JsonValue:
    (result,) = payloads_of(workflow.document(), (context,))
    if not result.has_payload:
        message = f"the draft gives no payload for this context ({result.why_not()})"
        raise DefinitionError([Problem("expected", message)])
    return result.payload


def _problems(
    workflow: Workflow, run: GoldenRun, name: str, context: JsonValue, expected: JsonValue
) -> list[Problem]:
    problems = [*_name_problems(workflow, run, name)]
    if not isinstance(context, dict):
        problems.append(Problem("context", "must be an object"))
    for path, value in (("context", context), ("expected", expected)):
        problems += _value_problems(path, value)
    runs = GoldenRun.objects.filter(workflow=workflow)
    if run._state.adding and runs.count() >= MAX_RUNS:  # noqa: SLF001 - Django's documented attribute
        problems.append(Problem("", f"a workflow has at most {MAX_RUNS} golden runs"))
    return problems


def _name_problems(workflow: Workflow, run: GoldenRun, name: str) -> list[Problem]:
    if not name or len(name) > LIMITS.name:
        return [Problem("name", f"must have 1 to {LIMITS.name} characters")]
    if problems := _value_problems("name", name):
        return problems
    if GoldenRun.objects.filter(workflow=workflow, name=name).exclude(pk=run.pk).exists():
        return [Problem("name", "is taken by another golden run")]
    return []


def _value_problems(path: str, value: JsonValue) -> list[Problem]:
    try:
        check_storable(value)
    except JsonRefused as error:
        return [Problem(path, str(error))]
    if len(dump_compact(value)) > MAX_BYTES:
        return [Problem(path, f"must have at most {MAX_BYTES} bytes")]
    return []
