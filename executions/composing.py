"""A compiled trigger and the context become the PartnerCall to make.

What a repeat under the same Idempotency-Key must send again is the *sealed request*: the rendered
endpoint and the body, exactly as they were first composed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    input that a step was called with, for who calls it again.
    """

    endpoint: str = field(repr=False)
    body: bytes | None = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    value: JsonValue = field(default=None, repr=False)

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
        )


def _binding(run_id: UUID) -> bytes:
    return b"handrail:request:" + run_id.bytes


def compose_step(
    standing: Standing, step: CompiledStep, trigger: CompiledTrigger, *, value: JsonValue, key: UUID
) -> Composed:
    """The request of a step's trigger. `value` is the call's input.

    Raises MappingIncomplete, or ExpressionFailed for a mapping that cannot be worked out.
    """
    scope = step_scope(standing, step, value=value, key=key)
    if trigger.body is not None:
        payload = trigger.body.apply(scope)
    elif trigger.method == "GET":
        payload = None
    else:
        payload = {
            "input": value,
            "context": dict(standing.context),
            "execution": _execution_names(standing, step),
        }
    headers = tuple((name, template.render(scope)) for name, template in trigger.headers)
    return _carrying(trigger, trigger.endpoint.render(scope), payload, headers)


def step_scope(
    standing: Standing, step: CompiledStep, *, value: JsonValue, key: UUID
) -> Mapping[str, JsonValue]:
    """The names that a trigger's expressions may use: the context's, `input` and `execution`."""
    execution = {**_execution_names(standing, step), "idempotencyKey": str(key)}
    return UpdatedContext(standing.context, updates={"input": value, "execution": execution})


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
    )


def key_of_step(standing: Standing, step: CompiledStep, timing: TriggerTiming, visit: int) -> UUID:
    """The Idempotency-Key of this step's call."""
    return trigger_key(standing.execution_id, step_id=step.id, timing=timing.value, visit=visit)
