"""A compiled trigger and the context become the PartnerCall to make.

What a repeat under the same Idempotency-Key must send again is the *sealed request*: the rendered
endpoint and the body, exactly as they were first composed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid5

from config.crypto import seal, unseal
from config.jsonvalues import JsonObject, JsonValue, dump_compact
from executions.partner_calls import PartnerCall, with_query
from executions.standing import Standing, UpdatedContext
from workflows.compiled import CompiledStep, CompiledTrigger
from workflows.connections import connection_for
from workflows.enums import TriggerTiming
from workflows.errors import MappingIncomplete

_KEYS = UUID("7b0f3b0e-0d5c-4b0e-9a38-5f1f6d5a8c11")


def trigger_key(execution_id: UUID, *, step_id: str, timing: str, visit: int) -> UUID:
    """The Idempotency-Key of a call: fixed by execution, step, timing and visit.

    It survives crashes and repeats because nothing of it is stored or drawn.
    """
    return uuid5(_KEYS, f"{execution_id}:{step_id}:{timing}:{visit}")


@dataclass(frozen=True, slots=True)
class Composed:
    """One request, rendered: where it goes and what it says. Its content is personal.

    `secrets` are the sensitive values that records about the call must not repeat; `value` is the
    input that a step was called with, for who calls it again. A worker, which sees no session, also
    gets what of the context it will have to read, how many bytes the result may have, and where to
    ask in doubt.
    """

    endpoint: str = field(repr=False)
    body: bytes | None = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    value: JsonValue = field(default=None, repr=False)
    callback_url: str = field(default="", repr=False)
    reads: JsonObject = field(default_factory=dict, repr=False)
    room_bytes: int = 0
    status_endpoint: str = field(default="", repr=False)

    def with_secrets(self, secrets: frozenset[str]) -> "Composed":
        """The same request, and what records about it must not repeat."""
        return replace(self, secrets=secrets)

    def sealed(self, run_id: UUID) -> bytes:
        """The request as the run's row keeps it until its outcome is definite."""
        body = None if self.body is None else self.body.decode()
        content: JsonObject = {
            "endpoint": self.endpoint,
            "body": body,
            "headers": [list(header) for header in self.headers],
            "secrets": [*sorted(self.secrets)],
            "value": self.value,
        }
        if self.callback_url:
            content |= {
                "callbackUrl": self.callback_url,
                "reads": self.reads,
                "roomBytes": self.room_bytes,
                "statusEndpoint": self.status_endpoint,
            }
        return seal(dump_compact(content), binding=_binding(run_id))

    @classmethod
    def unsealed(cls, sealed: bytes | memoryview, *, run_id: UUID) -> "Composed":
        """The request that `sealed` kept. Raises Unsealable."""
        content = json.loads(unseal(bytes(sealed), binding=_binding(run_id)))
        body = content["body"]
        return cls(
            endpoint=content["endpoint"],
            body=None if body is None else body.encode(),
            headers=tuple((name, value) for name, value in content["headers"]),
            secrets=frozenset(content["secrets"]),
            value=content.get("value"),
            callback_url=content.get("callbackUrl", ""),
            reads=content.get("reads", {}),
            room_bytes=content.get("roomBytes", 0),
            status_endpoint=content.get("statusEndpoint", ""),
        )


def _binding(run_id: UUID) -> bytes:
    return b"handrail:request:" + run_id.bytes


def compose_step(
    standing: Standing,
    step: CompiledStep,
    trigger: CompiledTrigger,
    *,
    value: JsonValue,
    key: UUID,
    callback_url: str = "",
) -> Composed:
    """The request of a step's trigger. `value` is the call's input.

    `callback_url` is where the partner may answer later; the default body tells it. Raises
    MappingIncomplete, or ExpressionFailed for a mapping that cannot be worked out.
    """
    scope = step_scope(standing, step, value=value, key=key, callback_url=callback_url)
    if trigger.body is not None:
        payload = trigger.body.apply(scope)
    elif trigger.method == "GET":
        payload = None
    else:
        payload = {
            "input": value,
            "context": dict(standing.context),
            "execution": _execution_names(standing, step),
            **({"callbackUrl": callback_url} if callback_url else {}),
        }
    headers = tuple((name, template.render(scope)) for name, template in trigger.headers)
    composed = _carrying(trigger, trigger.endpoint.render(scope), payload, headers)
    return replace(composed, callback_url=callback_url)


def step_scope(
    standing: Standing,
    step: CompiledStep,
    *,
    value: JsonValue,
    key: UUID,
    callback_url: str = "",
) -> Mapping[str, JsonValue]:
    """The names that a trigger's expressions may use: the context's, `input` and `execution`."""
    execution = {**_execution_names(standing, step), "idempotencyKey": str(key)}
    if callback_url:
        execution["callbackUrl"] = callback_url
    return UpdatedContext(standing.context, updates={"input": value, "execution": execution})


def reads_later(standing: Standing, step: CompiledStep) -> JsonObject:
    """What of the context judging the step's answer and undoing the step will read."""
    undo = frozenset[str]() if step.compensation is None else step.compensation.roots
    if step.proceed_roots is None or undo is None:
        return dict(standing.context)
    wanted = step.proceed_roots | undo
    return {key: standing.context[key] for key in sorted(wanted) if key in standing.context}


def compose_compensation(
    step: CompiledStep,
    *,
    execution_id: UUID,
    workflow: str,
    user_id: str,
    context: Mapping[str, JsonValue],
    value: JsonValue,
    result: JsonValue,
    key: UUID,
) -> Composed | None:
    """The request that undoes what the step did under `key`; None when the step has none.

    Composed when the step succeeds, because nothing of the context may be left when it is needed.
    Raises MappingIncomplete or ExpressionFailed.
    """
    undo = step.compensation
    if undo is None:
        return None
    execution: JsonObject = {
        "id": str(execution_id),
        "workflow": workflow,
        "step": step.label,
        "userId": user_id,
        "idempotencyKey": str(key),
    }
    own: JsonObject = {"input": value, "result": result, "execution": execution}
    scope = UpdatedContext(context, updates=own)
    payload = None if undo.body is None else undo.body.apply(scope)
    headers = tuple((name, template.render(scope)) for name, template in undo.headers)
    return _carrying(undo, undo.endpoint.render(scope), payload, headers)


def compose_submission(
    standing: Standing, trigger: CompiledTrigger, payload: JsonValue
) -> Composed:
    """The final request, with the mapped payload. Raises MappingIncomplete for its endpoint."""
    names: JsonObject = {"execution": _execution_names(standing, None)}
    scope = UpdatedContext(standing.context, updates=names)
    headers = tuple((name, template.render(scope)) for name, template in trigger.headers)
    return _carrying(trigger, trigger.endpoint.render(scope), payload, headers)


def _execution_names(standing: Standing, step: CompiledStep | None) -> JsonObject:
    return {
        "id": str(standing.execution_id),
        "workflow": standing.compiled.name,
        "step": None if step is None else step.label,
        "userId": standing.user_id,
    }


def _carrying(
    trigger: CompiledTrigger,
    endpoint: str,
    payload: JsonValue,
    headers: tuple[tuple[str, str], ...],
) -> Composed:
    if trigger.method != "GET":
        return Composed(endpoint, dump_compact(payload), headers)
    if payload is None:
        return Composed(endpoint, None, headers)
    if not isinstance(payload, dict):
        raise MappingIncomplete(["the query of a GET, which needs an object"])
    return Composed(with_query(endpoint, payload), None, headers)


def addressed(
    composed: Composed,
    trigger: CompiledTrigger,
    *,
    execution_id: UUID,
    step_id: str,
    key: UUID,
    method: str | None = None,
) -> PartnerCall:
    """The call to make: connection chosen, endpoint checked to be its own. Raises EndpointForbidden."""
    connection, url = connection_for(trigger.connection, composed.endpoint)
    return PartnerCall(
        connection=connection,
        method=method or trigger.method,
        url=url,
        body=composed.body,
        timeout_ms=trigger.timeout_ms,
        idempotency_key=str(key),
        execution_id=str(execution_id),
        step_id=step_id,
        trace_id=execution_id.hex,
        headers=composed.headers,
        callback_url=composed.callback_url,
    )


def key_of_step(standing: Standing, step: CompiledStep, timing: TriggerTiming, visit: int) -> UUID:
    """The Idempotency-Key of this step's call."""
    return trigger_key(standing.execution_id, step_id=step.id, timing=timing.value, visit=visit)
