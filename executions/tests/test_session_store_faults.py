"""Redis down, slow, cut, restarted, flushed, full, read-only or lying, and the session store."""

import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
import redis
from django.conf import settings

from config.jsonvalues import JsonObject
from config.testing.servers import Valkey, private_servers
from executions.errors import SessionUnavailable
from executions.session_store_redis import KEY_PREFIX, RedisSessionStore
from executions.tests.proxies import FaultyProxy

pytestmark = pytest.mark.skipif(
    not settings.REDIS_URL,
    reason="REDIS_URL is not set: script/test tests Redis in its second pass",
)

STATE: JsonObject = {"position": 0}
CONTEXT: JsonObject = {"userId": "alice", "amount": 5000}
Verb = Callable[[RedisSessionStore, str], object]

WRITES: dict[str, Verb] = {
    "set_context": lambda store, session_id: store.set_context(
        session_id, context={"new": 1}, state={}, sequence=7, ttl_seconds=600
    ),
    "update_context": lambda store, session_id: store.update_context(
        session_id,
        expected_sequence=1,
        sequence=2,
        updates={"new": 1},
        state={},
        ttl_seconds=600,
    ),
    "merge": lambda store, session_id: store.update_context(
        session_id, expected_sequence=None, sequence=None, updates={"new": 1}
    ),
    "clear_session": lambda store, session_id: store.clear_session(session_id),
    "extend_session": lambda store, session_id: store.extend_session(session_id, ttl_seconds=600),
}
VERBS: dict[str, Verb] = WRITES | {
    "get_context": lambda store, session_id: store.get_context(session_id),
    "get_session_ttl": lambda store, session_id: store.get_session_ttl(session_id),
    "ping": lambda store, _: store.ping(),
}
write = pytest.mark.parametrize("verb", WRITES.values(), ids=WRITES)
every_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with private_servers(postgresql=False) as (_, server):
        assert server is not None
        yield server


@pytest.fixture
def server(valkey: Valkey) -> Iterator["redis.Redis"]:
    """The server itself, past proxy and store."""
    with redis.Redis(port=valkey.port) as client:
        client.flushall()
        yield client


@pytest.fixture
def proxy(valkey: Valkey) -> Iterator[FaultyProxy]:
    with FaultyProxy(("127.0.0.1", valkey.port)) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultyProxy, server: "redis.Redis") -> Iterator[RedisSessionStore]:
    store = RedisSessionStore(f"redis://127.0.0.1:{proxy.port}/0")
    yield store
    store.close()


@pytest.fixture
def session_id(store: RedisSessionStore) -> str:
    session_id = f"ws_{uuid4().hex}"
    store.set_context(session_id, context=CONTEXT, state=STATE, sequence=1, ttl_seconds=60)
    return session_id


def assert_unavailable(verb: Verb, store: RedisSessionStore, session_id: str) -> None:
    started = time.monotonic()
    with pytest.raises(SessionUnavailable):
        verb(store, session_id)
    assert time.monotonic() - started < 2


def assert_unchanged(store: RedisSessionStore, session_id: str) -> None:
    snapshot = store.get_context(session_id)
    assert snapshot is not None
    assert (snapshot.sequence, snapshot.state) == (1, STATE)
    assert dict(snapshot.context) == CONTEXT
    assert store.get_session_ttl(session_id) in range(50, 61)


@every_verb
@pytest.mark.parametrize("fault", [FaultyProxy.refuse, FaultyProxy.cut, FaultyProxy.blackhole])
def test_down_is_unavailable_and_then_over(
    proxy: FaultyProxy,
    store: RedisSessionStore,
    session_id: str,
    fault: Callable[[FaultyProxy], None],
    verb: Verb,
) -> None:
    fault(proxy)
    assert_unavailable(verb, store, session_id)
    proxy.pass_through()
    assert_unchanged(store, session_id)


@every_verb
def test_slow_is_unavailable_in_time(
    proxy: FaultyProxy, store: RedisSessionStore, session_id: str, verb: Verb
) -> None:
    proxy.delay(1000)
    assert_unavailable(verb, store, session_id)


def test_slow_connection_is_unavailable_in_time(proxy: FaultyProxy, session_id: str) -> None:
    # Just under the time limit of one answer, for every answer that a connection begins with.
    proxy.delay(450)
    store = RedisSessionStore(f"redis://127.0.0.1:{proxy.port}/1")
    started = time.monotonic()
    assert store.get_context(session_id) is None
    assert time.monotonic() - started < 2
    store.close()


def test_late_answer_is_not_taken_for_the_next(
    proxy: FaultyProxy, store: RedisSessionStore, session_id: str
) -> None:
    proxy.delay(700)
    assert_unavailable(VERBS["get_context"], store, session_id)
    proxy.pass_through()
    time.sleep(0.3)
    assert store.get_context("ws_other") is None
    assert_unchanged(store, session_id)


@every_verb
def test_connection_closed_while_idle_is_not_noticed(
    proxy: FaultyProxy, store: RedisSessionStore, session_id: str, verb: Verb
) -> None:
    proxy.drop()
    time.sleep(0.05)
    verb(store, session_id)


def test_update_with_a_lost_answer_is_done_once(
    proxy: FaultyProxy, store: RedisSessionStore, session_id: str
) -> None:
    proxy.lose_answer()
    assert WRITES["update_context"](store, session_id) is True
    snapshot = store.get_context(session_id)
    assert snapshot is not None
    assert snapshot.sequence == 2
    assert dict(snapshot.context) == CONTEXT | {"new": 1}
    assert WRITES["update_context"](store, session_id) is False


def test_merge_with_a_lost_answer_is_done(
    proxy: FaultyProxy, store: RedisSessionStore, session_id: str
) -> None:
    proxy.lose_answer()
    assert WRITES["merge"](store, session_id) is True
    snapshot = store.get_context(session_id)
    assert snapshot is not None
    assert dict(snapshot.context) == CONTEXT | {"new": 1}


def test_thread_keeps_one_connection(
    proxy: FaultyProxy, store: RedisSessionStore, session_id: str
) -> None:
    for verb in VERBS.values():
        verb(store, session_id)
    assert proxy.connections == 1
    thread = threading.Thread(target=store.ping)
    thread.start()
    thread.join()
    assert proxy.connections == 2


def test_forked_process_opens_its_own_connection(
    proxy: FaultyProxy, store: RedisSessionStore, session_id: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        os._exit(0 if store.get_context(session_id) is not None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert proxy.connections == 2
    assert_unchanged(store, session_id)
    assert proxy.connections == 2


def test_flushed_session_is_gone(
    server: "redis.Redis", store: RedisSessionStore, session_id: str
) -> None:
    server.flushall()
    assert store.get_context(session_id) is None
    assert WRITES["update_context"](store, session_id) is False
    assert WRITES["merge"](store, session_id) is False
    assert WRITES["extend_session"](store, session_id) is False
    assert server.dbsize() == 0


@write
def test_forgotten_scripts_are_sent_again(
    server: "redis.Redis", store: RedisSessionStore, session_id: str, verb: Verb
) -> None:
    server.script_flush()
    verb(store, session_id)


def test_restarted_server_is_used_again(
    valkey: Valkey, store: RedisSessionStore, session_id: str
) -> None:
    valkey.stop()
    assert_unavailable(VERBS["get_context"], store, session_id)
    valkey.start()
    assert store.get_context(session_id) is None
    WRITES["set_context"](store, session_id)
    snapshot = store.get_context(session_id)
    assert snapshot is not None
    assert snapshot.sequence == 7


@write
def test_read_only_replica_is_unavailable(
    server: "redis.Redis", store: RedisSessionStore, session_id: str, verb: Verb
) -> None:
    server.replicaof("127.0.0.1", "1")
    try:
        assert_unavailable(verb, store, session_id)
    finally:
        server.replicaof("NO", "ONE")
    assert_unchanged(store, session_id)


@pytest.mark.parametrize("name", ["set_context", "update_context", "merge"])
def test_full_server_is_unavailable(
    server: "redis.Redis", store: RedisSessionStore, session_id: str, name: str
) -> None:
    server.config_set("maxmemory", 1)
    try:
        assert_unavailable(WRITES[name], store, session_id)
    finally:
        server.config_set("maxmemory", 0)
    assert_unchanged(store, session_id)


@pytest.mark.parametrize("name", ["get_context", "update_context", "merge"])
def test_key_of_another_type_is_unavailable(
    server: "redis.Redis", store: RedisSessionStore, name: str
) -> None:
    server.set(f"{KEY_PREFIX}ws_x", "no hash")
    assert_unavailable(VERBS[name], store, "ws_x")
    assert server.get(f"{KEY_PREFIX}ws_x") == b"no hash"


def test_hash_without_sequence_is_unavailable_and_not_written(
    server: "redis.Redis", store: RedisSessionStore, session_id: str
) -> None:
    server.hdel(KEY_PREFIX + session_id, "n")
    assert_unavailable(VERBS["get_context"], store, session_id)
    assert WRITES["merge"](store, session_id) is False


def test_garbled_sequence_is_unavailable(
    server: "redis.Redis", store: RedisSessionStore, session_id: str
) -> None:
    server.hset(KEY_PREFIX + session_id, "n", "one")
    assert_unavailable(VERBS["get_context"], store, session_id)


def test_session_without_an_end_is_unavailable(
    server: "redis.Redis", store: RedisSessionStore, session_id: str
) -> None:
    server.persist(KEY_PREFIX + session_id)
    assert_unavailable(VERBS["get_session_ttl"], store, session_id)


@contextmanager
def server_that_says(answer: bytes) -> Iterator[int]:
    """The port of a server with one answer to everything; an empty one hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                while answer and line.recv(65_536):
                    line.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@every_verb
@pytest.mark.parametrize(
    "answer",
    [
        b"-LOADING server is loading the dataset in memory\r\n",
        b"-MOVED 3999 127.0.0.1:6381\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
        b"-MISCONF cannot persist\r\n",
        b"-BUSY a script is running\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-NOPERM this user has no permissions\r\n",
        b"-NOSCRIPT No matching script.\r\n",
        b"-ERR max number of clients reached\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ],
    ids=lambda answer: answer.split()[0].decode() if answer else "hangs up",
)
def test_whatever_a_server_says_is_unavailable(answer: bytes, verb: Verb) -> None:
    with server_that_says(answer) as port:
        store = RedisSessionStore(f"redis://127.0.0.1:{port}/0")
        assert_unavailable(verb, store, "ws_x")
        assert_unavailable(verb, store, "ws_x")
        store.close()
