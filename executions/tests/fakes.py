"""Stand-ins that tests use before mocks: they keep the promises of what they stand for."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock

from config.jsonvalues import JsonObject, JsonValue
from executions.breakers_redis import Held
from executions.breaking import Breaker
from executions.errors import SessionUnavailable
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
)


@dataclass(slots=True)
class _Session:
    sequence: int
    expires_at: float
    fields: dict[str, bytes]


@dataclass(slots=True)
class MemorySessionStore:
    """A session store in a dict, on a clock that tests move (`now += 60`).

    `is_down` makes every verb raise SessionUnavailable, as a store that cannot be reached.
    """

    now: float = 0.0
    is_down: bool = False
    sessions: dict[str, _Session] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def set_context(
        self,
        session_id: str,
        *,
        context: Mapping[str, JsonValue],
        state: JsonObject,
        sequence: int,
        ttl_seconds: int,
    ) -> None:
        """Begin a session."""
        check_ttl(ttl_seconds)
        fields = seal_context(session_id, context)
        fields[STATE_FIELD] = seal_state(session_id, state, sequence=sequence)
        with self._lock:
            self.ping()
            self.sessions[session_id] = _Session(sequence, self.now + ttl_seconds, fields)

    def get_context(self, session_id: str) -> SessionSnapshot | None:
        """The session as it stands."""
        with self._lock:
            session = self._living(session_id)
            if session is None:
                return None
            fields = dict(session.fields)
        return open_snapshot(session_id, sequence=session.sequence, fields=fields)

    def get_contexts(self, session_ids: Collection[str]) -> Mapping[str, Found]:
        """Those there are, as they stand."""
        with self._lock:
            living = {each: self._living(each) for each in session_ids}
        return {
            each: found_snapshot(each, sequence=session.sequence, fields=dict(session.fields))
            for each, session in living.items()
            if session is not None
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
        """Compare, merge and renew under the lock."""
        fields = seal_update(session_id, sequence=sequence, state=state, updates=updates)
        if ttl_seconds is not None:
            check_ttl(ttl_seconds)
        with self._lock:
            session = self._living(session_id)
            if session is None or expected_sequence not in (None, session.sequence):
                return False
            session.fields.update(fields)
            for name in removed_fields(updates, remove):
                session.fields.pop(name, None)
            if sequence is not None:
                session.sequence = sequence
            if ttl_seconds is not None:
                session.expires_at = self.now + ttl_seconds
            return True

    def clear_session(self, session_id: str) -> None:
        """End a session."""
        with self._lock:
            self.ping()
            self.sessions.pop(session_id, None)

    def extend_session(self, session_id: str, *, ttl_seconds: int) -> bool:
        """Renew a session."""
        check_ttl(ttl_seconds)
        with self._lock:
            session = self._living(session_id)
            if session is not None:
                session.expires_at = self.now + ttl_seconds
            return session is not None

    def get_session_ttl(self, session_id: str) -> int | None:
        """Seconds left."""
        with self._lock:
            session = self._living(session_id)
            return None if session is None else math.ceil(session.expires_at - self.now)

    def ping(self) -> None:
        """Return unless the store is down."""
        if self.is_down:
            raise SessionUnavailable

    def _living(self, session_id: str) -> _Session | None:
        self.ping()
        session = self.sessions.get(session_id)
        return None if session is None or session.expires_at <= self.now else session


@dataclass(slots=True)
class MemorySharedBreakers:
    """Where the breakers of several "processes" meet, on a clock of its own.

    `is_down` makes every exchange raise SessionUnavailable; `exchanges` counts them all.
    """

    clock_ms: Callable[[], float]
    is_down: bool = False
    exchanges: int = 0
    held: dict[str, tuple[str, Breaker]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def exchange(
        self, connection: str, *, expected: str, wanted: Breaker | None, now_ms: float
    ) -> Held:
        """Compare and write under the lock; times are kept on the clock of this store."""
        ahead_ms = self.clock_ms() - now_ms
        with self._lock:
            self.exchanges += 1
            if self.is_down:
                raise SessionUnavailable
            revision, breaker = self.held.get(connection, ("", None))
            if wanted is not None and revision == expected:
                revision = f"r{self.exchanges}"
                self.held[connection] = (revision, _moved(wanted, ahead_ms))
                return Held(is_written=True, revision=revision, breaker=wanted)
            if breaker is None:
                return Held(is_written=False)
            return Held(is_written=False, revision=revision, breaker=_moved(breaker, -ahead_ms))

    def forget(self, connection: str) -> None:
        """Remove what is there."""
        with self._lock:
            self.held.pop(connection, None)


def _moved(breaker: Breaker, by_ms: float) -> Breaker:
    return replace(
        breaker,
        open_until_ms=None if breaker.open_until_ms is None else breaker.open_until_ms + by_ms,
        probe_until_ms=breaker.probe_until_ms + by_ms if breaker.probe else 0.0,
    )
