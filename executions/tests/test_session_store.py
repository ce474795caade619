"""One suite for every session store: memory, database, and Redis where REDIS_URL names one."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import uuid4

import pytest
import redis
from django.conf import settings
from django.db import connection
from pytest_django import DjangoAssertNumQueries, Settings
from structlog.testing import capture_logs
from structlog.typing import EventDict

from config.jsonvalues import JsonObject, JsonValue
from executions.errors import InputRefused, SessionUnavailable
from executions.session_models import SessionField, SessionRecord
from executions.session_store import (
    MAX_KEY_LENGTH,
    SessionSnapshot,
    get_session_store,
    session_tag,
)
from executions.session_store_database import DatabaseSessionStore
from executions.session_store_redis import RedisSessionStore
from executions.tests.fakes import MemorySessionStore
from executions.tests.session_harness import (
    DatabaseHarness,
    MemoryHarness,
    RedisHarness,
    SessionHarness,
    context_field,
)

NEEDS_REDIS = pytest.mark.skipif(
    not settings.REDIS_URL,
    reason="REDIS_URL is not set: script/test tests Redis in its second pass",
)
STORES = [
    "memory",
    pytest.param("database", marks=pytest.mark.django_db),
    pytest.param("redis", marks=NEEDS_REDIS),
]
# Several threads use the database without a test's transaction.
SHARED_STORES = [
    "memory",
    pytest.param("database", marks=pytest.mark.django_db(transaction=True)),
    pytest.param("redis", marks=NEEDS_REDIS),
]
STATE: JsonObject = {"position": 0, "marks": {}}
CONTEXT: JsonObject = {"userId": "alice", "amount": 5000}
THREADS = 8


def build_harness(kind: str, request: pytest.FixtureRequest) -> SessionHarness:
    if kind == "memory":
        return MemoryHarness(MemorySessionStore())
    if kind == "database":
        return DatabaseHarness(DatabaseSessionStore())
    store = RedisSessionStore(settings.REDIS_URL)
    request.addfinalizer(store.close)
    server = redis.Redis.from_url(settings.REDIS_URL)
    request.addfinalizer(server.close)
    return RedisHarness(store, server)


@pytest.fixture(params=STORES)
def harness(request: pytest.FixtureRequest) -> SessionHarness:
    return build_harness(request.param, request)


@pytest.fixture(params=SHARED_STORES)
def shared_harness(request: pytest.FixtureRequest) -> SessionHarness:
    return build_harness(request.param, request)


@pytest.fixture
def log() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


def unreadable(session_id: str, field: str, reason: str) -> EventDict:
    """The log line for it: which session, which field, and why."""
    return {
        "component": "handrail.session_store",
        "log_level": "error",
        "event": "session is unreadable",
        "session": session_tag(session_id),
        "field": field,
        "reason": reason,
    }


def start(harness: SessionHarness, **context: JsonValue) -> str:
    session_id = f"ws_{uuid4().hex}"
    harness.store.set_context(
        session_id, context=context or CONTEXT, state=STATE, sequence=1, ttl_seconds=60
    )
    return session_id


def read(harness: SessionHarness, session_id: str) -> SessionSnapshot:
    snapshot = harness.store.get_context(session_id)
    assert snapshot is not None
    return snapshot


def merge(harness: SessionHarness, session_id: str, **updates: JsonValue) -> bool:
    return harness.store.update_context(
        session_id, expected_sequence=None, sequence=None, updates=updates
    )


def test_session_reads_as_it_was_set(harness: SessionHarness) -> None:
    snapshot = read(harness, start(harness))
    assert snapshot.sequence == 1
    assert snapshot.state == STATE
    assert dict(snapshot.context) == CONTEXT


def test_values_keep_their_types(harness: SessionHarness) -> None:
    values: JsonObject = {
        "integer": 10**4_299,
        "beyond 64 bits": 2**64 + 1,
        "fraction": 0.1,
        "whole fraction": 1.0,
        "text": "0012",
        "empty": "",
        "null": None,
        "false": False,
        "list": [1, "a", None, {}],
        "nested": {"späße": {"żółć": "😀"}},
        "ключ.with-dots and ${signs}": 1,
        "": "a key may be empty",
    }
    context = dict(read(harness, start(harness, **values)).context)
    assert context == values
    assert isinstance(context["whole fraction"], float)


def test_empty_context_is_a_session(harness: SessionHarness) -> None:
    session_id = f"ws_{uuid4().hex}"
    harness.store.set_context(session_id, context={}, state={}, sequence=0, ttl_seconds=60)
    snapshot = read(harness, session_id)
    assert (snapshot.sequence, snapshot.state, dict(snapshot.context)) == (0, {}, {})


def test_many_keys_go_in_at_once_and_out_again(harness: SessionHarness) -> None:
    many: JsonObject = {f"key{number}": number for number in range(2_500)}
    session_id = start(harness, **many)
    assert dict(read(harness, session_id).context) == many
    done = harness.store.update_context(
        session_id,
        expected_sequence=1,
        sequence=None,
        updates={f"more{number}": number for number in range(2_500)},
        remove=list(many),
    )
    assert done
    assert set(read(harness, session_id).context) == {f"more{number}" for number in range(2_500)}


def test_set_replaces_the_session_whole(harness: SessionHarness) -> None:
    session_id = start(harness)
    harness.store.set_context(
        session_id, context={"other": 1}, state={"position": 2}, sequence=9, ttl_seconds=60
    )
    snapshot = read(harness, session_id)
    assert (snapshot.sequence, snapshot.state) == (9, {"position": 2})
    assert dict(snapshot.context) == {"other": 1}


def test_unknown_session_is_none(harness: SessionHarness) -> None:
    assert harness.store.get_context("ws_unknown") is None
    assert harness.store.get_session_ttl("ws_unknown") is None
    assert harness.store.extend_session("ws_unknown", ttl_seconds=60) is False
    harness.store.clear_session("ws_unknown")


def test_sessions_do_not_mix(harness: SessionHarness) -> None:
    alice, bob = start(harness, userId="alice"), start(harness, userId="bob")
    merge(harness, alice, amount=1)
    harness.store.clear_session(alice)
    assert dict(read(harness, bob).context) == {"userId": "bob"}


def test_several_are_read_together(harness: SessionHarness, log: list[EventDict]) -> None:
    first, second, broken = start(harness), start(harness, only=1), start(harness)
    harness.write(broken, "s", tampered(harness.read(broken, "s")))
    found = dict(harness.store.get_contexts([first, second, broken, "ws_unknown"]))
    assert isinstance(found.pop(broken), SessionUnavailable)
    assert {each: dict(one.context) for each, one in found.items()} == {  # type: ignore[union-attr]  # sessions
        first: CONTEXT,
        second: {"only": 1},
    }
    assert log == [unreadable(broken, "s", "tampered")]


def test_gone_sessions_are_not_among_several(harness: SessionHarness) -> None:
    expired, cleared = start(harness), start(harness)
    harness.store.set_context(
        "ws_living", context=CONTEXT, state=STATE, sequence=1, ttl_seconds=600
    )
    harness.store.clear_session(cleared)
    harness.expire(expired)
    assert list(harness.store.get_contexts([expired, cleared, "ws_living"])) == ["ws_living"]
    harness.store.clear_session("ws_living")


def test_size_counts_the_sealed_context(harness: SessionHarness) -> None:
    small = read(harness, start(harness, text="x")).size
    large = read(harness, start(harness, text="x" * 1_001)).size
    assert large - small == 1_000


def test_update_merges_and_moves_on(harness: SessionHarness) -> None:
    session_id = start(harness)
    done = harness.store.update_context(
        session_id,
        expected_sequence=1,
        sequence=2,
        updates={"amount": 7, "step1": {"to": "bob"}},
        state={"position": 1},
    )
    assert done is True
    snapshot = read(harness, session_id)
    assert (snapshot.sequence, snapshot.state) == (2, {"position": 1})
    assert dict(snapshot.context) == {"userId": "alice", "amount": 7, "step1": {"to": "bob"}}


def test_update_removes_keys(harness: SessionHarness) -> None:
    session_id = start(harness, a=1, b=2, c=3)
    done = harness.store.update_context(
        session_id,
        expected_sequence=1,
        sequence=None,
        updates={"b": 20},
        remove=["a", "b", "never there"],
    )
    assert done is True
    assert dict(read(harness, session_id).context) == {"b": 20, "c": 3}


def test_update_at_another_sequence_writes_nothing(harness: SessionHarness) -> None:
    session_id = start(harness)
    done = harness.store.update_context(
        session_id,
        expected_sequence=2,
        sequence=3,
        updates={"amount": 7},
        remove=["userId"],
        state={"position": 1},
        ttl_seconds=600,
    )
    assert done is False
    snapshot = read(harness, session_id)
    assert (snapshot.sequence, snapshot.state, dict(snapshot.context)) == (1, STATE, CONTEXT)
    assert harness.store.get_session_ttl(session_id) in (59, 60)


def test_merge_without_looking_leaves_sequence_and_state(harness: SessionHarness) -> None:
    session_id = start(harness)
    assert merge(harness, session_id, step4={"id": "T1"}) is True
    snapshot = read(harness, session_id)
    assert (snapshot.sequence, snapshot.state) == (1, STATE)
    assert dict(snapshot.context) == CONTEXT | {"step4": {"id": "T1"}}


def test_empty_update_is_done(harness: SessionHarness) -> None:
    session_id = start(harness)
    assert merge(harness, session_id) is True
    assert dict(read(harness, session_id).context) == CONTEXT


def test_late_write_does_not_revive_a_cleared_session(harness: SessionHarness) -> None:
    session_id = start(harness)
    harness.store.clear_session(session_id)
    assert merge(harness, session_id, amount=7) is False
    assert harness.store.extend_session(session_id, ttl_seconds=60) is False
    assert harness.store.get_context(session_id) is None


def test_late_write_does_not_revive_an_expired_session(harness: SessionHarness) -> None:
    session_id = start(harness)
    harness.expire(session_id)
    done = harness.store.update_context(
        session_id,
        expected_sequence=1,
        sequence=2,
        updates={"amount": 7},
        state=STATE,
        ttl_seconds=60,
    )
    assert done is False
    assert harness.store.extend_session(session_id, ttl_seconds=60) is False
    assert harness.store.get_session_ttl(session_id) is None
    assert harness.store.get_context(session_id) is None


def test_cleared_id_can_begin_anew(harness: SessionHarness) -> None:
    session_id = start(harness)
    harness.store.clear_session(session_id)
    harness.store.set_context(session_id, context={}, state={}, sequence=5, ttl_seconds=60)
    snapshot = read(harness, session_id)
    assert (snapshot.sequence, dict(snapshot.context)) == (5, {})


def test_time_to_live_counts_down_from_what_was_set(harness: SessionHarness) -> None:
    assert harness.store.get_session_ttl(start(harness)) in (59, 60)


def test_update_renews_only_when_told_to(harness: SessionHarness) -> None:
    session_id = start(harness)
    harness.store.extend_session(session_id, ttl_seconds=30)
    merge(harness, session_id, amount=7)
    assert harness.store.get_session_ttl(session_id) in (29, 30)
    harness.store.update_context(
        session_id, expected_sequence=1, sequence=None, updates={}, ttl_seconds=90
    )
    assert harness.store.get_session_ttl(session_id) in (89, 90)


def test_extend_slides_the_end(harness: SessionHarness) -> None:
    session_id = start(harness)
    assert harness.store.extend_session(session_id, ttl_seconds=600) is True
    assert harness.store.get_session_ttl(session_id) in (599, 600)
    assert dict(read(harness, session_id).context) == CONTEXT


@pytest.mark.parametrize("seconds", [0, -1])
def test_time_to_live_of_nothing_is_refused(harness: SessionHarness, seconds: int) -> None:
    session_id = start(harness)
    verbs: list[Callable[[], object]] = [
        lambda: harness.store.set_context(
            session_id, context={}, state={}, sequence=0, ttl_seconds=seconds
        ),
        lambda: harness.store.update_context(
            session_id, expected_sequence=1, sequence=None, updates={}, ttl_seconds=seconds
        ),
        lambda: harness.store.extend_session(session_id, ttl_seconds=seconds),
    ]
    for verb in verbs:
        with pytest.raises(ValueError, match="at least one second"):
            verb()
    assert dict(read(harness, session_id).context) == CONTEXT


def test_sequence_without_state_is_refused(harness: SessionHarness) -> None:
    session_id = start(harness)
    for sequence, state in ((2, None), (None, STATE)):
        with pytest.raises(ValueError, match="needs its state"):
            harness.store.update_context(
                session_id, expected_sequence=1, sequence=sequence, updates={}, state=state
            )
    assert read(harness, session_id).sequence == 1


def test_longest_key_fits_and_a_longer_one_is_refused(harness: SessionHarness) -> None:
    longest = "😀" * MAX_KEY_LENGTH
    session_id = start(harness, **{longest: 1})
    with pytest.raises(InputRefused):
        merge(harness, session_id, **{longest + "a": 1})
    assert dict(read(harness, session_id).context) == {longest: 1}


def test_values_are_not_readable_in_the_store(harness: SessionHarness) -> None:
    session_id = start(harness, pin="very-secret-pin")
    assert b"very-secret-pin" not in harness.read(session_id, context_field("pin"))
    assert b"position" not in harness.read(session_id, "s")


def tampered(sealed: bytes) -> bytes:
    return sealed[:-1] + bytes([sealed[-1] ^ 1])


def test_tampered_state_is_unavailable(harness: SessionHarness, log: list[EventDict]) -> None:
    session_id = start(harness)
    harness.write(session_id, "s", tampered(harness.read(session_id, "s")))
    with pytest.raises(SessionUnavailable):
        harness.store.get_context(session_id)
    assert log == [unreadable(session_id, "s", "tampered")]


def test_missing_state_is_unavailable(harness: SessionHarness) -> None:
    session_id = start(harness)
    harness.remove(session_id, "s")
    with pytest.raises(SessionUnavailable):
        harness.store.get_context(session_id)


def test_session_without_any_field_is_unavailable(harness: SessionHarness) -> None:
    session_id = start(harness, only=1)
    harness.remove(session_id, "s")
    harness.remove(session_id, context_field("only"))
    with pytest.raises(SessionUnavailable):
        harness.store.get_context(session_id)


def test_tampered_sequence_is_unavailable(harness: SessionHarness, log: list[EventDict]) -> None:
    session_id = start(harness)
    harness.set_sequence(session_id, 0)
    with pytest.raises(SessionUnavailable):
        harness.store.get_context(session_id)
    assert log == [unreadable(session_id, "n", "tampered")]


def test_tampered_value_is_unavailable_when_asked_for(
    harness: SessionHarness, log: list[EventDict]
) -> None:
    session_id = start(harness)
    name = context_field("amount")
    harness.write(session_id, name, tampered(harness.read(session_id, name)))
    context = read(harness, session_id).context
    assert context["userId"] == "alice"
    for _ in range(2):
        with pytest.raises(SessionUnavailable):
            context.get("amount")
    assert log == 2 * [unreadable(session_id, "c:amount", "tampered")]


def test_value_of_another_session_is_unavailable(harness: SessionHarness) -> None:
    alice, bob = start(harness, amount=1), start(harness, amount=2)
    name = context_field("amount")
    harness.write(alice, name, harness.read(bob, name))
    with pytest.raises(SessionUnavailable):
        _ = read(harness, alice).context["amount"]


def test_value_of_another_key_is_unavailable(harness: SessionHarness) -> None:
    session_id = start(harness, mine=1, yours=2)
    harness.write(
        session_id, context_field("mine"), harness.read(session_id, context_field("yours"))
    )
    with pytest.raises(SessionUnavailable):
        _ = read(harness, session_id).context["mine"]


def test_removed_encryption_key_is_unavailable_and_logged(
    harness: SessionHarness, log: list[EventDict], settings: Settings
) -> None:
    session_id = start(harness)
    settings.FIELD_ENCRYPTION_KEYS = ["QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="]
    with pytest.raises(SessionUnavailable):
        harness.store.get_context(session_id)
    assert log == [unreadable(session_id, "s", "unknown key")]


def test_context_tells_its_keys_without_opening_values(harness: SessionHarness) -> None:
    session_id = start(harness)
    harness.write(session_id, context_field("amount"), b"garbage")
    context = read(harness, session_id).context
    assert sorted(context) == ["amount", "userId"]
    assert len(context) == 2
    assert "amount" in context
    assert "nothing" not in context
    assert context.get("nothing") is None
    assert repr(context) == "SealedContext(2 keys)"


def test_value_is_opened_once(harness: SessionHarness) -> None:
    context = read(harness, start(harness, step1={"a": 1})).context
    assert context["step1"] is context["step1"]


def test_store_answers_the_probe(harness: SessionHarness) -> None:
    harness.store.ping()


def in_threads(work: Callable[[int], bool]) -> list[bool]:
    """The answers of THREADS calls that begin together; an unavailable store is asked again."""
    barrier = Barrier(THREADS)

    def run(number: int) -> bool:
        barrier.wait()
        try:
            for _ in range(5):
                try:
                    return work(number)
                except SessionUnavailable:  # SQLite waits only so long for its one writer
                    continue
            raise AssertionError("The store stayed unavailable.")
        finally:
            connection.close()

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def test_merges_of_different_keys_lose_nothing(shared_harness: SessionHarness) -> None:
    session_id = start(shared_harness)

    def work(number: int) -> bool:
        return all(
            merge(shared_harness, session_id, **{f"key{number}_{count}": count})
            for count in range(10)
        )

    assert in_threads(work) == [True] * THREADS
    expected = CONTEXT | {f"key{n}_{count}": count for n in range(THREADS) for count in range(10)}
    assert dict(read(shared_harness, session_id).context) == expected


def test_exactly_one_wins_a_sequence(shared_harness: SessionHarness) -> None:
    session_id = start(shared_harness)

    def work(number: int) -> bool:
        return shared_harness.store.update_context(
            session_id,
            expected_sequence=1,
            sequence=2,
            updates={"winner": number},
            state={"winner": number},
        )

    answers = in_threads(work)
    snapshot = read(shared_harness, session_id)
    assert answers.count(True) == 1
    assert snapshot.sequence == 2
    assert snapshot.context["winner"] == answers.index(True)
    assert snapshot.state == {"winner": answers.index(True)}


def test_clear_against_merges_leaves_nothing(shared_harness: SessionHarness) -> None:
    session_id = start(shared_harness)

    def work(number: int) -> bool:
        if number == 0:
            shared_harness.store.clear_session(session_id)
            return True
        return merge(shared_harness, session_id, **{f"key{number}": number})

    in_threads(work)
    assert shared_harness.store.get_context(session_id) is None
    assert merge(shared_harness, session_id, late=1) is False


@pytest.fixture
def database() -> DatabaseHarness:
    return DatabaseHarness(DatabaseSessionStore())


@pytest.mark.django_db
def test_database_is_asked_once_for_several(
    database: DatabaseHarness, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    sessions = [start(database) for _ in range(3)]
    with django_assert_num_queries(1):
        assert set(database.store.get_contexts(sessions)) == set(sessions)


@pytest.mark.django_db
def test_expired_rows_are_deleted_the_longest_dead_first(database: DatabaseHarness) -> None:
    first, second, third, alive = (start(database) for _ in range(4))
    for session_id in (first, second, third):
        database.expire(session_id)
    assert database.store.delete_expired(2) == 2
    assert database.read(third, "s")
    assert database.store.delete_expired(10) == 1
    assert database.store.delete_expired(10) == 0
    assert dict(read(database, alive).context) == CONTEXT


@pytest.mark.django_db
def test_clear_takes_the_rows_away(database: DatabaseHarness) -> None:
    session_id = start(database)
    database.store.clear_session(session_id)
    assert SessionRecord.objects.count() == 0
    assert SessionField.objects.count() == 0


def test_settings_choose_the_store(settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert isinstance(get_session_store(), RedisSessionStore)
    assert get_session_store() is get_session_store()
    settings.REDIS_URL = ""
    assert isinstance(get_session_store(), DatabaseSessionStore)
