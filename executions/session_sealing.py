"""How a session lies in a store: named fields, each sealed and bound to its session and its name.

`c:<key>` holds one key of the context, `s` the state with the sequence it belongs to. A store moves
these bytes and compares the plain sequence; it never sees a value. What cannot be unsealed is
`SessionUnavailable` with a log line that says which field and why, and never an empty context.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias, cast

from config.crypto import Unsealable, seal, unseal
from config.jsonvalues import JsonObject, JsonValue, dump_compact, load_kept
from config.logs import get_logger
from executions.errors import InputRefused, SessionUnavailable

_log = get_logger("handrail.session_store")

STATE_FIELD = "s"
CONTEXT_PREFIX = "c:"
# What a database's index takes as one entry, four bytes a character.
MAX_KEY_LENGTH = 250


class SealedContext(Mapping[str, JsonValue]):
    """A context whose values are unsealed when they are first asked for, and then kept.

    Asking for a value that cannot be unsealed raises SessionUnavailable; asking which keys there
    are unseals nothing. Values are shared with whoever asked before: change none in place.
    """

    __slots__ = ("_opened", "_sealed", "_session_id")

    def __init__(self, session_id: str, sealed: dict[str, bytes]) -> None:
        self._session_id = session_id
        self._sealed = sealed
        self._opened: dict[str, JsonValue] = {}

    def __getitem__(self, key: str) -> JsonValue:
        opened = self._opened
        if key in opened:
            return opened[key]
        value = _unseal(self._session_id, CONTEXT_PREFIX + key, self._sealed[key])
        opened[key] = value
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._sealed

    def __iter__(self) -> Iterator[str]:
        return iter(self._sealed)

    def __len__(self) -> int:
        return len(self._sealed)

    def __repr__(self) -> str:
        return f"SealedContext({len(self)} keys)"

    @property
    def size(self) -> int:
        """Bytes of the sealed values together."""
        return sum(map(len, self._sealed.values()))


@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """A session as it stood at one moment."""

    sequence: int
    state: JsonObject
    context: SealedContext

    @property
    def size(self) -> int:
        """Bytes of the sealed context."""
        return self.context.size


Found: TypeAlias = SessionSnapshot | SessionUnavailable
"""One session of several that were read together."""


def session_tag(session_id: str) -> str:
    """What logs call a session: stable, and of no use to whoever reads it there."""
    return sha256(session_id.encode()).hexdigest()[:12]


def seal_context(session_id: str, values: Mapping[str, JsonValue]) -> dict[str, bytes]:
    """One sealed field per key. Raises InputRefused for a key longer than MAX_KEY_LENGTH."""
    check_keys(values)
    return {
        CONTEXT_PREFIX + key: _seal(session_id, CONTEXT_PREFIX + key, value)
        for key, value in values.items()
    }


def seal_state(session_id: str, state: JsonObject, *, sequence: int) -> bytes:
    """The state with its sequence inside: nobody changes the plain sequence unnoticed."""
    return _seal(session_id, STATE_FIELD, [sequence, state])


def seal_update(
    session_id: str,
    *,
    sequence: int | None,
    state: JsonObject | None,
    updates: Mapping[str, JsonValue],
) -> dict[str, bytes]:
    """The fields that an update writes. A sequence and a state come together or not at all."""
    fields = seal_context(session_id, updates)
    if state is not None and sequence is not None:
        fields[STATE_FIELD] = seal_state(session_id, state, sequence=sequence)
    elif state is not None or sequence is not None:
        raise ValueError("A new sequence needs its state, and a state its sequence.")
    return fields


def removed_fields(updates: Mapping[str, JsonValue], remove: Collection[str]) -> list[str]:
    """The fields that an update deletes: what is written in the same update stays."""
    return [CONTEXT_PREFIX + key for key in remove if key not in updates]


def check_keys(keys: Collection[str]) -> None:
    """Raise InputRefused when a context key is too long for a store."""
    for key in keys:
        if len(key) > MAX_KEY_LENGTH:
            raise InputRefused(f"A key of the context may have {MAX_KEY_LENGTH} characters.")


def check_ttl(ttl_seconds: int) -> None:
    """Raise ValueError for a time to live that would end a session at once."""
    if ttl_seconds < 1:
        raise ValueError("A session lives for at least one second.")


def open_snapshot(
    session_id: str, *, sequence: int | None, fields: Mapping[str, bytes]
) -> SessionSnapshot:
    """The session that these fields make. Raises SessionUnavailable when they make none."""
    if sequence is None:
        raise unreadable(session_id, "n", "missing or no number")
    if STATE_FIELD not in fields:
        raise unreadable(session_id, STATE_FIELD, "missing")
    content = _unseal(session_id, STATE_FIELD, fields[STATE_FIELD])
    sealed_sequence, state = cast("tuple[int, JsonObject]", content)
    if sealed_sequence != sequence:
        raise unreadable(session_id, "n", "tampered")
    prefix = len(CONTEXT_PREFIX)
    context = {
        name[prefix:]: sealed for name, sealed in fields.items() if name.startswith(CONTEXT_PREFIX)
    }
    return SessionSnapshot(sequence, state, SealedContext(session_id, context))


def found_snapshot(session_id: str, *, sequence: int | None, fields: Mapping[str, bytes]) -> Found:
    """The session that these fields make, or why they make none."""
    try:
        return open_snapshot(session_id, sequence=sequence, fields=fields)
    except SessionUnavailable as error:
        return error


def unreadable(session_id: str, name: str, reason: str) -> SessionUnavailable:
    """The error for a field that cannot be read; the log says which."""
    _log.error(
        "session is unreadable", session=session_tag(session_id), field=name[:80], reason=reason
    )
    return SessionUnavailable()


def _binding(session_id: str, name: str) -> bytes:
    # No id holds a NUL, so no two pairs of id and name give the same bytes.
    return f"handrail:session:{session_id}\0{name}".encode()


def _seal(session_id: str, name: str, value: JsonValue) -> bytes:
    return seal(dump_compact(value), binding=_binding(session_id, name))


def _unseal(session_id: str, name: str, sealed: bytes) -> JsonValue:
    try:
        plaintext = unseal(sealed, binding=_binding(session_id, name))
    except Unsealable as error:
        raise unreadable(session_id, name, error.reason) from error
    return load_kept(plaintext)
