"""Who changed what in a definition, read back from the histories, newest first.

An edit of a draft writes one record of the workflow and then one for each step it touched, while the
workflow is locked: so the records between two of the workflow's are one edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import Max

from config.jsonvalues import JsonObject
from workflows.changes import describe_member_changes
from workflows.documents import dump_step
from workflows.models import Connection, Workflow, WorkflowStep, WorkflowVersion

SHOWN_EDITS: Final = 100
_ADDED, _REMOVED = "+", "-"
_TOP = ("name", "description", "config")
_CONNECTION = {
    "name": "name",
    "base_url": "base URL",
    "auth_kind": "authentication",
    "username": "username",
    "header_name": "header",
    "allow_private": "private networks",
}


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit: when, by whom (a username, a token's subject, the command line), and sentences."""

    at: datetime
    by: str
    changes: tuple[str, ...]
    revision: int | None = None


def workflow_history(workflow_id: UUID) -> list[Edit]:
    """The last edits, publications and archivings of the workflow; four queries."""
    newest = list(Workflow.history.filter(id=workflow_id)[: SHOWN_EDITS + 1])
    if not newest:
        return []
    rows = newest[::-1]
    records = [*rows, *_steps_since(workflow_id, rows)]
    records.sort(key=lambda one: (one.history_date, isinstance(one, WorkflowStep.history.model)))
    numbers = _version_numbers(rows)
    before: dict[UUID, Any] = _steps_before(workflow_id, rows[0])
    edits: list[Edit] = []
    last: Any = None
    for record in records:
        if isinstance(record, Workflow.history.model):
            told = _workflow_changes(last, record, numbers)
            edits.append(Edit(record.history_date, record.history_user_id, told, record.revision))
            last = record
        elif edits:
            told = (*edits[-1].changes, *_step_changes(before.get(record.id), record))
            edits[-1] = Edit(edits[-1].at, edits[-1].by, told, edits[-1].revision)
            before[record.id] = record
    shown = edits[1:] if len(newest) > SHOWN_EDITS else edits
    return shown[::-1]


def step_history(step_id: UUID) -> list[Edit]:
    """The last edits of one step; one query."""
    rows = list(WorkflowStep.history.filter(id=step_id)[: SHOWN_EDITS + 1])
    return _each_against_the_one_before(rows, _step_changes)


def connection_history(connection_id: UUID) -> list[Edit]:
    """The last edits of the connection; that credentials changed is told, and nothing else of them."""
    rows = list(Connection.history.filter(id=connection_id)[: SHOWN_EDITS + 1])
    return _each_against_the_one_before(rows, _connection_changes)


def _each_against_the_one_before(rows: Sequence[Any], describe: Any) -> list[Edit]:
    pairs = zip(rows, [*rows[1:], None], strict=True)
    edits = [
        Edit(row.history_date, row.history_user_id, tuple(describe(before, row)))
        for row, before in pairs
    ]
    return edits[:SHOWN_EDITS]


def _steps_since(workflow_id: UUID, rows: Sequence[Any]) -> list[Any]:
    since = rows[0].history_date
    return list(WorkflowStep.history.filter(workflow_id=workflow_id, history_date__gte=since))


def _steps_before(workflow_id: UUID, oldest: Any) -> dict[UUID, Any]:
    """How the steps stood before the oldest record that is read."""
    if oldest.history_type == _ADDED:
        return {}
    earlier = WorkflowStep.history.filter(
        workflow_id=workflow_id, history_date__lt=oldest.history_date
    )
    last_ids = earlier.order_by().values("id").annotate(last=Max("history_id")).values("last")
    return {row.id: row for row in WorkflowStep.history.filter(history_id__in=last_ids)}


def _version_numbers(rows: Sequence[Any]) -> dict[UUID, int]:
    ids = {row.live_version_id for row in rows if row.live_version_id}
    return dict(WorkflowVersion.objects.filter(pk__in=ids).values_list("pk", "number"))


def _workflow_changes(before: Any, row: Any, numbers: dict[UUID, int]) -> tuple[str, ...]:
    if row.history_type == _ADDED:
        return (row.history_change_reason or "created",)
    if before is None:
        return ("what it was before is not in the history",)
    told = describe_member_changes("", _top(before), _top(row))
    if row.live_version_id != before.live_version_id:
        told.append(f"published as version {numbers.get(row.live_version_id, '?')}")
    if (row.archived_at is None) is not (before.archived_at is None):
        told.append("archived" if row.archived_at else "restored from the archive")
    return tuple(told)


def _top(row: Any) -> JsonObject:
    return {name: value for name in _TOP if (value := getattr(row, name)) is not None}


def _step_changes(before: Any, row: Any) -> list[str]:
    if row.history_type == _ADDED:
        return [] if row.history_change_reason else [f"step '{row.label}' added"]
    if row.history_type == _REMOVED:
        return [f"step '{row.label}' removed"]
    if before is None:
        return [f"step '{row.label}' changed"]
    told = []
    if before.label != row.label:
        told.append(f"step '{before.label}' renamed '{row.label}'")
    return told + describe_member_changes(
        f"step '{row.label}': ", _step_members(before), _step_members(row)
    )


def _step_members(row: Any) -> JsonObject:
    step = WorkflowStep(**{field.attname: getattr(row, field.attname) for field in _STEP_FIELDS})
    return {key: value for key, value in dump_step(step.document()).items() if key != "label"}


_STEP_FIELDS = WorkflowStep._meta.concrete_fields


def _connection_changes(before: Any, row: Any) -> list[str]:
    if row.history_type == _ADDED:
        return [row.history_change_reason or "created"]
    if row.history_type == _REMOVED:
        return ["deleted"]
    told = [
        f"{words} changed from {_words(getattr(before, name))} to {_words(getattr(row, name))}"
        for name, words in _CONNECTION.items()
        if before is not None and getattr(before, name) != getattr(row, name)
    ]
    return [*told, *([row.history_change_reason] if row.history_change_reason else [])]


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "allowed" if value else "refused"
    return str(value) or "nothing"
