"""The session store: what a person entered and what partners answered, for as long as it lives.

Six verbs and one promise each; `tests/test_session_store.py` holds every store to them. A session
stands at a *sequence*, the number of state changes of its execution. Stores merge atomically:
nobody reads, changes and writes back.
"""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Protocol

from django.conf import settings

from config.jsonvalues import JsonObject, JsonValue
from executions.session_sealing import (
    MAX_KEY_LENGTH,
    Found,
    SealedContext,
    SessionSnapshot,
    session_tag,
)
from executions.session_store_database import DatabaseSessionStore
from executions.session_store_redis import RedisSessionStore

__all__ = [
    "MAX_KEY_LENGTH",
    "Found",
    "SealedContext",
    "SessionSnapshot",
    "SessionStore",
    "get_session_store",
    "session_tag",
]


class SessionStore(Protocol):
    """Where sessions live. Each verb raises SessionStoreAway, a SessionUnavailable, when it cannot answer."""

    def set_context(
        self,
        session_id: str,
        *,
        context: Mapping[str, JsonValue],
        state: JsonObject,
        sequence: int,
        ttl_seconds: int,
    ) -> None:
        """Begin a session; whatever stood under this id is replaced, not merged."""

    def get_context(self, session_id: str) -> SessionSnapshot | None:
        """The session as it stands, in one round trip; None when there is none.

        What is there but cannot be read (key removed, tampered with) is SessionUnavailable: for
        the state at once, for a value of the context when it is asked for.
        """

    def get_contexts(self, session_ids: Collection[str]) -> Mapping[str, Found]:
        """Those of the sessions that there are, for who reads many: the database is asked once.

        In the place of one that cannot be read stands what `get_context` would raise for it.
        """

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
        """Merge `updates` in one atomic step, and say whether that was done.

        False, and nothing written, when the session is gone or does not stand at
        `expected_sequence` (None merges wherever it stands). A key that is both updated and removed
        stays. A new `sequence` and a new `state` come together; `ttl_seconds` renews the session.
        SessionUnavailable leaves open whether a slow store still writes: read before repeating.
        """

    def clear_session(self, session_id: str) -> None:
        """End a session. Nothing that is written later brings it back but `set_context`."""

    def extend_session(self, session_id: str, *, ttl_seconds: int) -> bool:
        """Let a session live this long from now; False when it is gone."""

    def get_session_ttl(self, session_id: str) -> int | None:
        """Seconds that a session has to live, rounded up; None when it is gone."""

    def ping(self) -> None:
        """Return when the store answers; for `/readyz`."""


def get_session_store() -> SessionStore:
    """The store that the settings name: Redis with `REDIS_URL`, the database without."""
    return _session_store(settings.REDIS_URL)


@cache
def _session_store(redis_url: str) -> SessionStore:
    return RedisSessionStore(redis_url) if redis_url else DatabaseSessionStore()
