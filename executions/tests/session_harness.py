"""What tests may do to a session behind its store's back: read and change fields, let time pass."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import redis
from django.utils import timezone

from executions.session_models import SessionField, SessionRecord
from executions.session_sealing import CONTEXT_PREFIX
from executions.session_store import SessionStore
from executions.session_store_database import DatabaseSessionStore
from executions.session_store_redis import KEY_PREFIX, RedisSessionStore
from executions.tests.fakes import MemorySessionStore


class SessionHarness(Protocol):
    """A store, and what lies in it. Fields have their stored names: `s`, `c:<key>`."""

    @property
    def store(self) -> SessionStore: ...
    def read(self, session_id: str, name: str) -> bytes: ...
    def write(self, session_id: str, name: str, sealed: bytes) -> None: ...
    def remove(self, session_id: str, name: str) -> None: ...
    def set_sequence(self, session_id: str, sequence: int) -> None: ...
    def expire(self, session_id: str) -> None: ...


@dataclass(slots=True)
class MemoryHarness:
    """The dict of the in-memory store."""

    store: MemorySessionStore

    def read(self, session_id: str, name: str) -> bytes:
        return self.store.sessions[session_id].fields[name]

    def write(self, session_id: str, name: str, sealed: bytes) -> None:
        self.store.sessions[session_id].fields[name] = sealed

    def remove(self, session_id: str, name: str) -> None:
        del self.store.sessions[session_id].fields[name]

    def set_sequence(self, session_id: str, sequence: int) -> None:
        self.store.sessions[session_id].sequence = sequence

    def expire(self, session_id: str) -> None:
        self.store.now = self.store.sessions[session_id].expires_at


@dataclass(slots=True)
class DatabaseHarness:
    """The rows of the database store."""

    store: DatabaseSessionStore

    def read(self, session_id: str, name: str) -> bytes:
        return bytes(SessionField.objects.get(session_id=session_id, name=name).sealed)

    def write(self, session_id: str, name: str, sealed: bytes) -> None:
        SessionField.objects.update_or_create({"sealed": sealed}, session_id=session_id, name=name)

    def remove(self, session_id: str, name: str) -> None:
        SessionField.objects.get(session_id=session_id, name=name).delete()

    def set_sequence(self, session_id: str, sequence: int) -> None:
        SessionRecord.objects.filter(session_id=session_id).update(sequence=sequence)

    def expire(self, session_id: str) -> None:
        past = timezone.now() - timedelta(milliseconds=1)
        SessionRecord.objects.filter(session_id=session_id).update(expires_at=past)


@dataclass(slots=True)
class RedisHarness:
    """The hashes of the Redis store."""

    store: RedisSessionStore
    server: "redis.Redis"

    def read(self, session_id: str, name: str) -> bytes:
        sealed = self.server.hget(KEY_PREFIX + session_id, name)
        assert isinstance(sealed, bytes)
        return sealed

    def write(self, session_id: str, name: str, sealed: bytes) -> None:
        self.server.hset(KEY_PREFIX + session_id, mapping={name: sealed})

    def remove(self, session_id: str, name: str) -> None:
        assert self.server.hdel(KEY_PREFIX + session_id, name) == 1

    def set_sequence(self, session_id: str, sequence: int) -> None:
        self.server.hset(KEY_PREFIX + session_id, "n", str(sequence))

    def expire(self, session_id: str) -> None:
        # A time to live of nothing ends a key at once.
        self.server.expire(KEY_PREFIX + session_id, 0)


def context_field(key: str) -> str:
    """The stored name of a context key."""
    return CONTEXT_PREFIX + key
