"""One Redis or Valkey server, asked over one kept connection per thread.

django-redis says how to connect to a URL; its pool is passed by. A connection of the thread's own,
because taking one from a pool and giving it back costs more than the command. Whatever goes wrong
is SessionStoreAway within two seconds: half a second to connect, half a second to wait for an
answer, and a second try in one case only, when the server closed a connection that was kept (it was
restarted; nothing tells us before we write). That try may meet its own first write, so every command
given here must bear being sent twice.
"""

import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Collection
from functools import cache
from hashlib import sha1
from typing import Any, Protocol, cast

from django_redis.pool import ConnectionFactory
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from config.logs import get_logger
from executions.errors import SessionStoreAway

_log = get_logger("handrail.redis")

SOCKET_TIMEOUT_SECONDS = 0.5
# No exchange begins later than this after the call, so that it ends within two seconds.
LATEST_EXCHANGE_SECONDS = 1.5
_FACTORY_OPTIONS = {
    "SOCKET_TIMEOUT": SOCKET_TIMEOUT_SECONDS,
    "SOCKET_CONNECT_TIMEOUT": SOCKET_TIMEOUT_SECONDS,
}

Argument = str | bytes | int


class Script:
    """A Lua script, called by its digest; sent whole to a server that has not seen it."""

    def __init__(self, source: str) -> None:
        self.source = source
        # The server names scripts so; nothing is protected by it.
        self.digest = sha1(source.encode(), usedforsecurity=False).hexdigest()


class Line(Protocol):
    """What is used of redis-py's connection, which has no types of its own here."""

    pid: int

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def send_command(self, *command: Argument, check_health: bool) -> None: ...
    def read_response(self) -> Any: ...


class RedisClient:
    """Commands over one kept connection per thread, and every failure as SessionStoreAway."""

    def __init__(self, url: str) -> None:
        factory = ConnectionFactory(_FACTORY_OPTIONS)
        pool = factory.get_connection_pool(factory.make_connection_params(url))
        self._open = cast("Callable[..., Line]", pool.connection_class)
        self._options: dict[str, Any] = pool.connection_kwargs | {
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
        _let_the_kernel_wait(connection)
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
        except BaseException as error:
            connection.disconnect()
            if isinstance(error.__context__, BlockingIOError):  # the kernel's way to say so
                raise RedisTimeoutError("No answer in time") from error
            raise
        self._kept.connection = connection
        return answer

    def _take_kept(self) -> Line | None:
        connection: Line | None = getattr(self._kept, "connection", None)
        self._kept.connection = None
        # After a fork the socket is the parent's.
        return None if connection is None or connection.pid != os.getpid() else connection


@cache
def shared_client(url: str) -> RedisClient:
    """The process's client of this server: whoever uses it shares each thread's one connection."""
    return RedisClient(url)


def _let_the_kernel_wait(connection: Line) -> None:
    """Move the time-outs from Python's socket to the kernel's.

    Python's ask with a poll of their own before each send and receive, and give up the interpreter
    for it: with eight threads at work a command costs 23 µs of CPU that way, and 15 this way.
    """
    line: socket.socket = vars(connection)["_sock"]
    if isinstance(line, ssl.SSLSocket):
        return  # does not bear it
    seconds, fraction = divmod(SOCKET_TIMEOUT_SECONDS, 1)
    limit = struct.pack("ll", int(seconds), int(fraction * 1_000_000))
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    line.settimeout(None)


def _refuse_late(started: float) -> None:
    if time.monotonic() - started > LATEST_EXCHANGE_SECONDS:
        raise RedisTimeoutError("No time left for another exchange")


def _unavailable(error: RedisError) -> SessionStoreAway:
    _log.warning("session store unavailable", error=type(error).__name__, reason=str(error))
    return SessionStoreAway()
