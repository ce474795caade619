"""Sessions in Redis: one hash per session, one command or one script per verb.

Every verb can be sent twice, as `redis_client.py` asks: `UPDATE_CONTEXT` knows its own write again.
"""

from collections.abc import Collection, Mapping
from typing import TypedDict

from config.jsonvalues import JsonObject, JsonValue
from executions.redis_client import Argument, Script, shared_client
from executions.session_sealing import (
    STATE_FIELD,
    Found,
    SessionSnapshot,
    check_ttl,
    found_snapshot,
    open_snapshot,
    removed_fields,
    seal_context,
    seal_state,
    seal_update,
    unreadable,
)

KEY_PREFIX = "handrail:session:"
SEQUENCE_FIELD = "n"


# ARGV: seconds to live; then names and values in turn. Lua takes only so many arguments at once.
SET_CONTEXT = Script("""
local key = KEYS[1]
-- A server without memory refuses a script's first write, if that needs memory; DEL does not.
redis.call('HSET', key, ARGV[2], ARGV[3])
redis.call('DEL', key)
for first = 2, #ARGV, 1000 do
    redis.call('HSET', key, unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
redis.call('EXPIRE', key, ARGV[1])
return 1
""")

# ARGV: expected sequence, new sequence, new state, seconds to live (each '' for none), how many
# names to remove, those names; then names and values in turn.
UPDATE_CONTEXT = Script("""
local key = KEYS[1]
local current = redis.call('HGET', key, 'n')
if not current then
    return 0
end
if ARGV[1] ~= '' and ARGV[1] ~= current then
    -- No two seals are alike: this state is there because this very update was done before.
    if ARGV[3] ~= '' and redis.call('HGET', key, 's') == ARGV[3] then
        return 1
    end
    return 0
end
if ARGV[2] ~= '' then
    redis.call('HSET', key, 'n', ARGV[2], 's', ARGV[3])
end
local removed = tonumber(ARGV[5])
for first = 6 + removed, #ARGV, 1000 do
    redis.call('HSET', key, unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
for first = 6, 5 + removed, 1000 do
    redis.call('HDEL', key, unpack(ARGV, first, math.min(first + 999, 5 + removed)))
end
if ARGV[4] ~= '' then
    redis.call('EXPIRE', key, ARGV[4])
end
return 1
""")


class RedisSessionStore:
    """The six verbs of `SessionStore` on one Redis or Valkey server (no cluster)."""

    def __init__(self, url: str) -> None:
        self._redis = shared_client(url)

    def set_context(
        self,
        session_id: str,
        *,
        context: Mapping[str, JsonValue],
        state: JsonObject,
        sequence: int,
        ttl_seconds: int,
    ) -> None:
        """Begin a session in one script."""
        check_ttl(ttl_seconds)
        fields = seal_context(session_id, context)
        fields[STATE_FIELD] = seal_state(session_id, state, sequence=sequence)
        arguments: list[Argument] = [ttl_seconds, SEQUENCE_FIELD, sequence]
        for pair in fields.items():
            arguments += pair
        self._redis.run(SET_CONTEXT, _key(session_id), arguments)

    def get_context(self, session_id: str) -> SessionSnapshot | None:
        """The session by one HGETALL."""
        answer: list[bytes] = self._redis.call("HGETALL", _key(session_id))
        return open_snapshot(session_id, **_stored(answer)) if answer else None

    def get_contexts(self, session_ids: Collection[str]) -> Mapping[str, Found]:
        """Each by one HGETALL; a server that is away is found out by the first."""
        answers = {each: self._redis.call("HGETALL", _key(each)) for each in session_ids}
        return {
            each: found_snapshot(each, **_stored(answer))
            for each, answer in answers.items()
            if answer
        }

    def update_context(
        self,
        session_id: str,
        *,
        expected_sequence: int | None,
        sequence: int | None,
        updates: Mapping[str, JsonValue],
        remove: Collection[str] = (),
        state: JsonObject | None = None,
        ttl_seconds: int | None = None,
    ) -> bool:
        """Compare, merge and renew in one script."""
        if ttl_seconds is not None:
            check_ttl(ttl_seconds)
        fields = seal_update(session_id, sequence=sequence, state=state, updates=updates)
        removed = removed_fields(updates, remove)
        arguments: list[Argument] = [
            "" if expected_sequence is None else expected_sequence,
            "" if sequence is None else sequence,
            fields.pop(STATE_FIELD, b""),
            "" if ttl_seconds is None else ttl_seconds,
            len(removed),
            *removed,
        ]
        for pair in fields.items():
            arguments += pair
        return bool(self._redis.run(UPDATE_CONTEXT, _key(session_id), arguments))

    def clear_session(self, session_id: str) -> None:
        """End a session by one DEL."""
        self._redis.call("DEL", _key(session_id))

    def extend_session(self, session_id: str, *, ttl_seconds: int) -> bool:
        """Renew a session by one EXPIRE."""
        check_ttl(ttl_seconds)
        return bool(self._redis.call("EXPIRE", _key(session_id), ttl_seconds))

    def get_session_ttl(self, session_id: str) -> int | None:
        """Seconds left, by one PTTL."""
        milliseconds: int = self._redis.call("PTTL", _key(session_id))
        if milliseconds == -1:
            raise unreadable(session_id, "time to live", "missing")
        return None if milliseconds < 0 else -(-milliseconds // 1000)

    def ping(self) -> None:
        """Return when the server answers."""
        self._redis.call("PING")

    def close(self) -> None:
        """Close the calling thread's connection; the next call opens another."""
        self._redis.close()


class _Stored(TypedDict):
    sequence: int | None
    fields: dict[str, bytes]


def _stored(answer: list[bytes]) -> _Stored:
    """What a HGETALL brought."""
    names = [name.decode(errors="replace") for name in answer[::2]]
    fields = dict(zip(names, answer[1::2], strict=True))
    sequence = fields.pop(SEQUENCE_FIELD, b"")
    return {"sequence": int(sequence) if sequence.isdigit() else None, "fields": fields}


def _key(session_id: str) -> str:
    return KEY_PREFIX + session_id
