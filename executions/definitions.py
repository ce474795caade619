"""What reports and lists say of published versions: names, numbers and labels, without compiling.

A version is immutable, so its facts are read once a process: all that are missing in one query.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from workflows.egress import is_absolute, origin_of
from workflows.errors import EndpointForbidden
from workflows.models import WorkflowVersion
from workflows.routing import DEFAULT_CONNECTION

MAX_KEPT: Final = 1_024
COMPLETION: Final = "Completion"
"""The label of what comes after the last step."""


@dataclass(frozen=True, slots=True)
class StepFacts:
    """One step; `connection` is the partner's name, or its origin where only that is given."""

    label: str
    type: str
    connection: str


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """One version; the step at the index after the last one is the completion."""

    version_id: UUID
    workflow_id: UUID
    workflow: str
    number: int
    steps: tuple[StepFacts, ...]
    completion: StepFacts

    def step(self, index: int) -> StepFacts:
        """The step at this index, which also may be -1 for the completion."""
        return self.steps[index] if 0 <= index < len(self.steps) else self.completion


def facts_of(version_ids: Iterable[UUID]) -> Mapping[UUID, VersionFacts]:
    """The facts of these versions; one query when any of them is new to this process."""
    wanted = set(version_ids)
    if missing := wanted - _kept.keys():
        if len(_kept) + len(missing) > MAX_KEPT:
            _kept.clear()
            missing = wanted
        found = {one.version_id: one for one in map(_facts, _rows(missing))}
        _kept.update(found)
        return {each: one for each in wanted if (one := found.get(each) or _kept.get(each))}
    return {each: _kept[each] for each in wanted}


def forget_facts() -> None:
    """Know nothing, as a process that has just begun."""
    _kept.clear()


# Single reads and writes of a dict are atomic, and a lost entry costs one query: no lock.
_kept: dict[UUID, VersionFacts] = {}


def _rows(ids: Iterable[UUID]) -> Iterable[tuple[Any, ...]]:
    return WorkflowVersion.objects.filter(pk__in=ids).values_list(
        "id", "workflow_id", "name", "number", "document"
    )


def _facts(row: tuple[Any, ...]) -> VersionFacts:
    version_id, workflow_id, name, number, document = row
    final = (document.get("config") or {}).get("finalApi") or {}
    return VersionFacts(
        version_id=version_id,
        workflow_id=workflow_id,
        workflow=name,
        number=number,
        steps=tuple(_step(each) for each in document["steps"]),
        completion=StepFacts(
            COMPLETION, "", _partner(final.get("connection", ""), final.get("endpoint", ""))
        ),
    )


def _step(document: Mapping[str, Any]) -> StepFacts:
    config = document.get("config") or {}
    return StepFacts(
        document["label"],
        document["type"],
        _partner(config.get("connection", ""), document.get("triggerEndpoint", "")),
    )


def _partner(connection: str, endpoint: str) -> str:
    """Whom an endpoint belongs to, as far as the document tells; "" without an endpoint."""
    if connection or not endpoint:
        return connection
    if not is_absolute(endpoint):
        return DEFAULT_CONNECTION
    try:
        return origin_of(endpoint)
    except EndpointForbidden:
        return endpoint
