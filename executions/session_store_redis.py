"""Sessions in Redis: one hash per session, one command or one script per verb.

Each thread keeps a connection of its own, because taking one from a pool and giving it back costs
more than the command. Whatever goes wrong is SessionUnavailable within two seconds: half a second
to connect, half a second to wait for an answer, and one second try in one case only, when the
server closed a connection that was kept (it was restarted; nothing tells us before we write).
That try may meet its own first write, so every verb can be sent twice.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from hashlib import sha1
from typing import Any, Protocol, cast

from redis.connection import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from config.jsonvalues import JsonObject, JsonValue
from executions.errors import SessionUnavailable
from executions.session_sealing import (
    STATE_FIELD,
    SessionSnapshot,
    check_ttl,
    open_snapshot,
    removed_fields,
    seal_context,
    seal_state,
    seal_update,
    unreadable,
)

logger = logging.getLogger(__name__)

KEY_PREFIX = "handrail:session:"
SEQUENCE_FIELD = "n"
SOCKET_TIMEOUT_SECONDS = 0.5
# No exchange begins later than this after the call, so that it ends within two seconds.
LATEST_EXCHANGE_SECONDS = 1.5

Argument = str | bytes | int


class Script:
    """A Lua script, called by its digest; sent whole to a server that has not seen it."""

    def __init__(self, source: str) -> None:
        self.source = source
        # The server names scripts so; nothing is protected by it.
        self.digest = sha1(source.encode(), usedforsecurity=False).hexdigest()


# ARGV: seconds to live; then names and values in turn. Lua takes only so many arguments at once.
SET_CONTEXT = Script("""
local key = KEYS[1]
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
        self._redis = RedisClient(url)

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
        if not answer:
            return None
        names = [name.decode(errors="replace") for name in answer[::2]]
        fields = dict(zip(names, answer[1::2], strict=True))
        sequence = fields.pop(SEQUENCE_FIELD, b"")
        return open_snapshot(
            session_id, sequence=int(sequence) if sequence.isdigit() else None, fields=fields
        )

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


class Line(Protocol):
    """What is used of redis-py's connection, which has no types of its own here."""

    pid: int

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def send_command(self, *command: Argument, check_health: bool) -> None: ...
    def read_response(self) -> Any: ...


class RedisClient:
    """Commands over one kept connection per thread, and every failure as SessionUnavailable."""

    def __init__(self, url: str) -> None:
        pool = ConnectionPool.from_url(url)
        self._open = cast("Callable[..., Line]", pool.connection_class)
        self._options: dict[str, Any] = pool.connection_kwargs | {
            "socket_timeout": SOCKET_TIMEOUT_SECONDS,
            "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
            "socket_keepalive": True,
            "decode_responses": False,
            "protocol": 2,
            # Two round trips less for a new connection.
            "driver_info": None,
        }
        if "path" in self._options:
            del self._options["socket_keepalive"]
        self._kept = threading.local()

    def call(self, *command: Argument) -> Any:
        """The answer to one command."""
        started = time.monotonic()
        try:
            return self._exchange(command, started)
        except RedisError as error:
            raise _unavailable(error) from error

    def run(self, script: Script, key: str, arguments: Collection[Argument]) -> Any:
        """The answer of a script on one key."""
        started = time.monotonic()
        try:
            try:
                return self._exchange(("EVALSHA", script.digest, 1, key, *arguments), started)
            except NoScriptError:
                return self._exchange(("EVAL", script.source, 1, key, *arguments), started)
        except RedisError as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        """Close the calling thread's connection."""
        connection = self._take_kept()
        if connection is not None:
            connection.disconnect()

    def _exchange(self, command: tuple[Argument, ...], started: float) -> Any:
        kept = self._take_kept()
        if kept is not None:
            try:
                return self._ask(kept, command)
            except RedisConnectionError:
                _refuse_late(started)
        connection = self._open(**self._options)
        connection.connect()
        _refuse_late(started)
        return self._ask(connection, command)

    def _ask(self, connection: Line, command: tuple[Argument, ...]) -> Any:
        """One exchange; the connection is kept only when it is certainly back in step."""
        try:
            connection.send_command(*command, check_health=False)
            answer = connection.read_response()
        except ResponseError:
            self._kept.connection = connection
            raise
        except BaseException:
            connection.disconnect()
            raise
        self._kept.connection = connection
        return answer

    def _take_kept(self) -> Line | None:
        connection: Line | None = getattr(self._kept, "connection", None)
        self._kept.connection = None
        # After a fork the socket is the parent's.
        return None if connection is None or connection.pid != os.getpid() else connection


def _key(session_id: str) -> str:
    return KEY_PREFIX + session_id


def _refuse_late(started: float) -> None:
    if time.monotonic() - started > LATEST_EXCHANGE_SECONDS:
        raise RedisTimeoutError("No time left for another exchange")


def _unavailable(error: RedisError) -> SessionUnavailable:
    logger.warning("session store unavailable: %s: %s", type(error).__name__, error)
    return SessionUnavailable()
