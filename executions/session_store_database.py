"""Sessions in the database: the store that needs no other server.

The record's row is the lock: every change begins with a statement that takes it, so two changes of
one session follow each other and a cleared session stays cleared. Time is the database's where
several machines share one (PostgreSQL), and this machine's on SQLite.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from functools import wraps
from math import ceil
from typing import Any, ParamSpec, TypeVar

from django.db import Error, connection, transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, QuerySet, Value
from django.db.models.functions import Now
from django.utils import timezone

from config.jsonvalues import JsonObject, JsonValue
from config.logs import get_logger
from executions.errors import SessionStoreAway
from executions.session_models import SessionField, SessionRecord
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

_log = get_logger("handrail.session_store")

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


def _or_unavailable(verb: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
    """The verb, with the database's failures as SessionStoreAway."""

    @wraps(verb)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        try:
            return verb(*args, **kwargs)
        except Error as error:
            # The first line: what PostgreSQL says after it is about the row.
            reason = str(error).partition("\n")[0]
            _log.warning("session store unavailable", error=type(error).__name__, reason=reason)
            raise SessionStoreAway from error

    return guarded


class DatabaseSessionStore:
    """The six verbs of `SessionStore` on two tables."""

    @_or_unavailable
    def set_context(
        self,
        session_id: str,
        *,
        context: Mapping[str, JsonValue],
        state: JsonObject,
        sequence: int,
        ttl_seconds: int,
    ) -> None:
        """Begin a session in one transaction of three statements."""
        check_ttl(ttl_seconds)
        fields = seal_context(session_id, context)
        fields[STATE_FIELD] = seal_state(session_id, state, sequence=sequence)
        record = SessionRecord(
            session_id=session_id, sequence=sequence, expires_at=_moment(ttl_seconds)
        )
        with transaction.atomic():
            SessionRecord.objects.bulk_create(
                [record],
                update_conflicts=True,
                unique_fields=["session_id"],
                update_fields=["sequence", "expires_at"],
            )
            SessionField.objects.filter(session_id=session_id).delete()
            _put(session_id, fields)

    @_or_unavailable
    def get_context(self, session_id: str) -> SessionSnapshot | None:
        """The session by one statement, so that record and fields belong together."""
        rows = list(_living(session_id).values_list("sequence", "fields__name", "fields__sealed"))
        if not rows:
            return None
        fields = {name: bytes(sealed) for _, name, sealed in rows if name is not None}
        return open_snapshot(session_id, sequence=rows[0][0], fields=fields)

    @_or_unavailable
    def get_contexts(self, session_ids: Collection[str]) -> Mapping[str, Found]:
        """All of them by one statement."""
        living = SessionRecord.objects.filter(session_id__in=session_ids, expires_at__gt=_moment())
        sequences: dict[str, int] = {}
        fields: dict[str, dict[str, bytes]] = {}
        for each, sequence, name, sealed in living.values_list(
            "session_id", "sequence", "fields__name", "fields__sealed"
        ):
            sequences[each] = sequence
            stored = fields.setdefault(each, {})
            if name is not None:
                stored[name] = bytes(sealed)
        return {
            each: found_snapshot(each, sequence=sequences[each], fields=stored)
            for each, stored in fields.items()
        }

    @_or_unavailable
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
        """Compare, merge and renew in one transaction: the record first, then the fields."""
        fields = seal_update(session_id, sequence=sequence, state=state, updates=updates)
        removed = removed_fields(updates, remove)
        # Writing the sequence back, where there is no other, takes the lock just as well.
        changes: dict[str, Any] = {"sequence": F("sequence") if sequence is None else sequence}
        if ttl_seconds is not None:
            check_ttl(ttl_seconds)
            changes["expires_at"] = _moment(ttl_seconds)
        record = _living(session_id)
        if expected_sequence is not None:
            record = record.filter(sequence=expected_sequence)
        with transaction.atomic():
            if not record.update(**changes):
                return False
            _put(session_id, fields)
            if removed:
                SessionField.objects.filter(session_id=session_id, name__in=removed).delete()
        return True

    @_or_unavailable
    def clear_session(self, session_id: str) -> None:
        """End a session, and take its rows away."""
        with transaction.atomic():
            _delete(SessionRecord.objects.select_for_update().filter(session_id=session_id))

    @_or_unavailable
    def extend_session(self, session_id: str, *, ttl_seconds: int) -> bool:
        """Renew a session by one statement."""
        check_ttl(ttl_seconds)
        return bool(_living(session_id).update(expires_at=_moment(ttl_seconds)))

    @_or_unavailable
    def get_session_ttl(self, session_id: str) -> int | None:
        """Seconds left, by one statement."""
        clock = ExpressionWrapper(_moment(), output_field=DateTimeField())
        left = _living(session_id).annotate(clock=clock).values_list("expires_at", "clock")
        for expires_at, now in left:
            seconds: float = (expires_at - now).total_seconds()
            return ceil(seconds)
        return None

    @_or_unavailable
    def delete_expired(self, limit: int) -> int:
        """Remove at most `limit` expired sessions, the longest dead first, and say how many.

        Several may do this at once: none waits for another's.
        """
        skip = connection.features.has_select_for_update_skip_locked
        dead = SessionRecord.objects.select_for_update(skip_locked=skip)
        with transaction.atomic():
            return _delete(dead.filter(expires_at__lte=_moment()).order_by("expires_at")[:limit])

    @_or_unavailable
    def count_expired(self) -> int:
        """How many sessions `delete_expired` would find."""
        return SessionRecord.objects.filter(expires_at__lte=_moment()).count()

    @_or_unavailable
    def ping(self) -> None:
        """Return when the tables can be read."""
        SessionRecord.objects.filter(session_id="").exists()


def _moment(seconds: int = 0) -> Any:
    """The time so many seconds from now, by the clock of all who share the database.

    An expression or a value; a column takes either.
    """
    if connection.vendor == "postgresql":
        return Now() + timedelta(seconds=seconds)
    return Value(timezone.now() + timedelta(seconds=seconds))


def _living(session_id: str) -> QuerySet[SessionRecord]:
    return SessionRecord.objects.filter(session_id=session_id, expires_at__gt=_moment())


def _put(session_id: str, fields: Mapping[str, bytes]) -> None:
    SessionField.objects.bulk_create(
        [
            SessionField(session_id=session_id, name=name, sealed=sealed)
            for name, sealed in fields.items()
        ],
        update_conflicts=True,
        unique_fields=["session", "name"],
        update_fields=["sealed"],
    )


def _delete(locked: QuerySet[SessionRecord]) -> int:
    """Delete records with their fields. The lock keeps a waiting update from adding fields."""
    ids = list(locked.values_list("session_id", flat=True))
    if ids:
        SessionRecord.objects.filter(session_id__in=ids).delete()
    return len(ids)
