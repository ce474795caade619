"""What staff may see of an execution's data: masked, and one masked value at a time on record.

Data is the context as it stands while the execution lives, and the requests that are kept with its
runs to be sent again. What rows keep of results and payloads was masked before it was written, and
cannot be revealed.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction

from config.crypto import Unsealable
from config.jsonvalues import JsonObject, JsonValue
from executions import composing, operator_actions
from executions.composing import Composed
from executions.enums import OperatorActionKind, OperatorOutcome, RunKind
from executions.errors import ExecutionError
from executions.executor import staff_reason
from executions.masking import masked_places, value_at
from executions.models import StepRun, WorkflowExecution
from executions.redaction import redactor_of
from executions.replaying import PlannedRequest, shown_request
from executions.standing import find_standing
from workflows.compiled import CompiledTrigger, CompiledWorkflow
from workflows.connections import keep_connections
from workflows.errors import WorkflowError
from workflows.versions import compiled_version

CONTEXT: Final = "context"
_NOTHING_SENSITIVE: Final = redactor_of(())


class NotRevealed(ExecutionError):
    """There is no masked value at this place any more."""

    code = "NOT_REVEALED"


@dataclass(frozen=True, slots=True)
class Masked:
    """Some data as staff may see it. `places` are the JSON Pointers of what is masked in it."""

    shown: JsonValue = field(repr=False)
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """The request that a run keeps, masked; without one, `problem` says why it cannot be shown."""

    run_id: UUID
    request: PlannedRequest | None = None
    places: tuple[str, ...] = ()
    problem: str = ""


def masked_context(row: WorkflowExecution) -> Masked | None:
    """The context as it stands; None when there is none any more. Raises SessionUnavailable."""
    context = _context(row)
    if context is None:
        return None
    shown = _shown_context(row, context)
    return Masked(shown, masked_places(context, shown))


def kept_requests(row: WorkflowExecution, runs: Iterable[StepRun]) -> dict[UUID, KeptRequest]:
    """What these runs keep to be sent again, by run. One query, for connections."""
    compiled = compiled_version(row.version_id)
    keeping = [run for run in runs if run.sealed_request is not None]
    if keeping:
        keep_connections(compiled.connections)
    return {run.id: _kept_request(run, compiled) for run in keeping}


def reveal(
    row: WorkflowExecution,
    *,
    source: str,
    place: str,
    by: str,
    reason: str,
    now: datetime,
) -> JsonValue:
    """The value that is masked at this place of the context, or of the request that a run keeps.

    The record of who asked and why is committed first. Raises InputRefused without a reason,
    NotRevealed, SessionUnavailable; then nothing is recorded.
    """
    reason = staff_reason(reason)
    value, shown = _data(row, source)
    if place not in masked_places(value, shown):
        raise NotRevealed
    with transaction.atomic(durable=True):
        operator_actions.begin(
            row.pk,
            action=OperatorActionKind.REVEAL_VALUE,
            by=by,
            reason=reason,
            at=now,
            about=f"{source} {place}",
            outcome=OperatorOutcome.SUCCEEDED,
        )
    return value_at(value, place)


def _data(row: WorkflowExecution, source: str) -> tuple[JsonValue, JsonValue]:
    """The data of this source as it is and as it is shown."""
    if source == CONTEXT:
        context = _context(row)
        if context is None:
            raise NotRevealed
        return context, _shown_context(row, context)
    run = StepRun.objects.filter(execution_id=row.pk, sealed_request__isnull=False)
    found = next((each for each in run if str(each.pk) == source), None)
    if found is None:
        raise NotRevealed
    try:
        composed = _unsealed(found)
    except Unsealable:
        raise NotRevealed from None
    request = _kept_request(found, compiled_version(row.version_id)).request
    if request is None:
        raise NotRevealed
    return _payload(composed), request.payload


# --- the context ----------------------------------------------------------------------------------


def _context(row: WorkflowExecution) -> JsonObject | None:
    standing = find_standing(row.pk) if row.is_live else None
    return None if standing is None else dict(standing.context)


def _shown_context(row: WorkflowExecution, context: Mapping[str, JsonValue]) -> JsonObject:
    redactor = redactor_of(compiled_version(row.version_id).sensitive)
    secrets = redactor.secrets(context)
    return {key: redactor.redact(value, secrets, at=key) for key, value in context.items()}


# --- requests that are kept -----------------------------------------------------------------------


def _kept_request(run: StepRun, compiled: CompiledWorkflow) -> KeptRequest:
    trigger = _trigger_of(run, compiled)
    if trigger is None:
        return KeptRequest(run.id, problem="Its workflow has no such call.")
    try:
        composed = _unsealed(run)
        call = composing.addressed(
            composed,
            trigger,
            execution_id=run.execution_id,
            step_id="" if run.step_id is None else str(run.step_id),
            key=run.trigger_key or run.id,
        )
    except Unsealable:
        return KeptRequest(run.id, problem="It cannot be unsealed: its key is gone.")
    except WorkflowError as error:
        return KeptRequest(run.id, problem=error.message)
    redactor = redactor_of(compiled.sensitive)
    request = shown_request(call, redactor, composed.secrets)
    return KeptRequest(run.id, request, masked_places(_payload(composed), request.payload))


def _trigger_of(run: StepRun, compiled: CompiledWorkflow) -> CompiledTrigger | None:
    if run.kind == RunKind.SUBMISSION:
        return compiled.final_api
    if run.step_index is None or run.step_index >= len(compiled.steps):
        return None
    step = compiled.steps[run.step_index]
    return step.compensation if run.kind == RunKind.COMPENSATION else step.trigger


def _unsealed(run: StepRun) -> Composed:
    """A compensation's request was sealed with the run that it undoes. Raises Unsealable."""
    owner = run.compensates_id or run.id
    return Composed.unsealed(run.sealed_request or b"", run_id=owner)


def _payload(composed: Composed) -> JsonValue:
    """What was sent, but for the address of its callback: whoever has that may answer for the partner."""
    payload: JsonValue = None if composed.body is None else json.loads(composed.body)
    if not composed.callback_url:
        return payload
    return _NOTHING_SENSITIVE.redact(payload, frozenset({composed.callback_url}))
