"""Which definitions call a connection: drafts, and the versions that new executions run."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from workflows.egress import is_absolute, origin_of
from workflows.errors import EndpointForbidden
from workflows.models import Connection, Workflow, WorkflowStep
from workflows.routing import DEFAULT_CONNECTION

FINAL: Final = "Completion"


@dataclass(frozen=True, slots=True)
class ConnectionUse:
    """One workflow that calls the connection, and the labels of the calls.

    `version` is the number of its live version, None for its draft.
    """

    workflow_id: UUID
    workflow: str
    version: int | None
    calls: tuple[str, ...]


def uses_of(row: Connection) -> tuple[ConnectionUse, ...]:
    """Every use, by the workflows' names, the live version before the draft. Two queries."""
    steps: dict[UUID, list[tuple[str, str, Any]]] = {}
    drafted = WorkflowStep.objects.exclude(trigger_endpoint="").order_by("order")
    for workflow_id, label, endpoint, config in drafted.values_list(
        "workflow_id", "label", "trigger_endpoint", "config"
    ):
        steps.setdefault(workflow_id, []).append((label, endpoint or "", config))
    workflows = Workflow.objects.order_by("name", "id").values_list(
        "id", "name", "config", "live_version__number", "live_version__document"
    )
    return tuple(_uses(row, workflows, steps))


def _uses(
    row: Connection,
    workflows: Iterable[tuple[Any, ...]],
    steps: Mapping[UUID, list[tuple[str, str, Any]]],
) -> Iterator[ConnectionUse]:
    for workflow_id, name, config, number, document in workflows:
        live = (
            () if document is None else _called(row, document.get("config") or {}, _steps(document))
        )
        if live:
            yield ConnectionUse(workflow_id, name, number, live)
        draft = _called(row, config or {}, steps.get(workflow_id, ()))
        if draft:
            yield ConnectionUse(workflow_id, name, None, draft)


def _steps(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for step in document["steps"]:
        yield step["label"], step.get("triggerEndpoint") or "", step.get("config")


def _called(
    row: Connection, config: Mapping[str, Any], steps: Iterable[tuple[str, str, Any]]
) -> tuple[str, ...]:
    final = config.get("finalApi") or {}
    calls = [*steps, (FINAL, final.get("endpoint") or "", final)]
    named = (_call_to(row, label, endpoint, options or {}) for label, endpoint, options in calls)
    return tuple(label for label in named if label)


def _call_to(row: Connection, label: str, endpoint: str, options: Mapping[str, Any]) -> str:
    """The label; with what belongs to the call where only that goes there, "" where nothing does."""
    ends = [(label, endpoint)]
    ends += [
        (f"{label} ({words})", (options.get(key) or {}).get("endpoint") or "")
        for key, words in (("status", "its status"), ("compensation", "undoing it"))
    ]
    connection = options.get("connection") or ""
    return next((name for name, end in ends if end and _is_called(row, end, connection)), "")


def _is_called(row: Connection, endpoint: str, connection: str) -> bool:
    """As `workflows.connections.connection_for` chooses, as far as the text tells."""
    if connection:
        return connection == row.name
    if not is_absolute(endpoint):
        return row.name == DEFAULT_CONNECTION
    try:
        return origin_of(endpoint) == row.origin
    except EndpointForbidden:
        return False
