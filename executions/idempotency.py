"""Recorded answers: the same key with the same arguments gets the first answer again.

A run holds the app's `idempotencyKey` while it is worked off and after it came to a definite answer;
then a repeat is answered from the row. An answer that says "try again" gives the key back.
"""

import json
from dataclasses import dataclass, field
from uuid import UUID

from config.crypto import Unsealable, fingerprint, is_fingerprint_of, seal, unseal
from config.jsonvalues import JsonObject, JsonValue, dump_canonical
from executions.answers import StepAnswer
from executions.enums import RunStatus
from executions.errors import IdempotencyConflict, InputRefused, SessionUnavailable
from executions.models import StepRun

MAX_KEY_LENGTH = 255


@dataclass(frozen=True, slots=True)
class ClientKey:
    """An app's idempotencyKey with the arguments it was sent with."""

    key: str
    _arguments: bytes = field(repr=False)

    @property
    def arguments_hash(self) -> bytes:
        """What is stored of the arguments: a fingerprint, of no use without our keys."""
        return fingerprint(self._arguments)

    def was_sent_with(self, stored_hash: bytes | memoryview | None) -> bool:
        """Whether the stored hash is one of these arguments."""
        return is_fingerprint_of(stored_hash, self._arguments)


def client_key(key: str | None, *, operation: str, arguments: JsonValue) -> ClientKey | None:
    """The key as it is compared; None without one. Raises InputRefused for an unusable one."""
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY_LENGTH or not key.isprintable():
        raise InputRefused(f"An idempotencyKey has 1 to {MAX_KEY_LENGTH} printable characters.")
    return ClientKey(key, dump_canonical([operation, arguments]))


def hash_of_input(value: JsonValue) -> bytes:
    """What is stored of an input, to know it again: a fingerprint, of no use without our keys."""
    return fingerprint(dump_canonical(value))


def is_hash_of_input(stored_hash: bytes | memoryview | None, value: JsonValue) -> bool:
    """Whether the stored hash is one of this input."""
    return is_fingerprint_of(stored_hash, dump_canonical(value))


def find_recorded(execution_id: UUID, key: ClientKey | None, *, user_id: str) -> StepRun | None:
    """The ended, or queued, run that this key belongs to, if any. Raises IdempotencyConflict. One query."""
    if key is None:
        return None
    run = StepRun.objects.filter(
        execution_id=execution_id, execution__user_id=user_id, client_key=key.key
    ).first()
    if run is None:
        return None
    if not key.was_sent_with(run.arguments_hash):
        raise IdempotencyConflict
    is_open = run.status == RunStatus.RUNNING and run.due_at is None
    return None if is_open else run


def recorded_answer(run: StepRun) -> StepAnswer:
    """The answer that the run recorded. Raises SessionUnavailable when it cannot be unsealed."""
    if run.sealed_answer is None:
        raise SessionUnavailable
    try:
        content: JsonObject = json.loads(unseal(bytes(run.sealed_answer), binding=_binding(run.id)))
    except Unsealable as error:
        raise SessionUnavailable from error
    return StepAnswer.from_json(content, execution_id=run.execution_id)


def seal_answer(answer: StepAnswer, *, run_id: UUID) -> bytes:
    """The answer as the run's row keeps it, bound to the run."""
    return seal(dump_canonical(answer.to_json()), binding=_binding(run_id))


def _binding(run_id: UUID) -> bytes:
    return b"handrail:answer:" + run_id.bytes
