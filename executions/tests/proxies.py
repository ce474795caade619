"""A TCP proxy that misbehaves on request, to stand between us and a real PostgreSQL or Redis."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Self

Address = tuple[str, int] | str
_CHUNK = 65_536
_RESET = struct.pack("ii", 1, 0)


class Mode(Enum):
    """What the proxy does with a connection, and with what passes over it."""

    PASS = "pass"
    DELAY = "delay"  # answers come late
    REFUSE = "refuse"  # nobody listens
    CUT = "cut"  # connections are accepted and reset
    BLACKHOLE = "blackhole"  # connections are accepted, and nothing ever comes back
    LOSE_ANSWER = "lose_answer"  # requests arrive, and the line is reset instead of an answer


class FaultyProxy:
    """Listens on a port of 127.0.0.1 and hands on to `upstream`: an address, or a socket's path.

    Use it as a context manager; leaving it closes every socket and ends every thread. A change of
    mode holds for open connections too.
    """

    def __init__(self, upstream: Address) -> None:
        self._upstream = upstream
        self._mode = Mode.PASS
        self._delay_seconds = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lines: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = 0
        self.connections = 0

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._stop_listening()
        self._drop_lines()
        for thread in list(self._threads):
            thread.join(timeout=5)

    def pass_through(self) -> None:
        """Behave."""
        self._change(Mode.PASS)

    def delay(self, milliseconds: int) -> None:
        """Let every piece of an answer wait so long."""
        self._delay_seconds = milliseconds / 1000
        self._change(Mode.DELAY)

    def refuse(self) -> None:
        """Reset every connection and refuse new ones, as a server that is down."""
        self._change(Mode.REFUSE)
        self._drop_lines()

    def cut(self) -> None:
        """Reset every connection, new ones as soon as they are made."""
        self._change(Mode.CUT)
        self._drop_lines()

    def drop(self) -> None:
        """Reset the connections there are, once, as a server that restarts."""
        self._drop_lines()

    def blackhole(self) -> None:
        """Swallow everything, as a firewall that drops packets."""
        self._change(Mode.BLACKHOLE)

    def lose_answer(self) -> None:
        """Hand on the next request, reset the line when its answer comes, then behave again."""
        self._change(Mode.LOSE_ANSWER)

    def _change(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.REFUSE:
            self._stop_listening()
        elif self._listener is None:
            self._listen()

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(256)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._start(self._accept, listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            # Closing alone would leave the accepting thread waiting.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            if self._mode is Mode.CUT:
                _reset(client)
            else:
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        family = socket.AF_UNIX if isinstance(self._upstream, str) else socket.AF_INET
        server = socket.socket(family)
        try:
            server.connect(self._upstream)
        except OSError:
            server.close()
            _reset(client)
            return
        with self._lock:
            self._lines |= {client, server}
        if self._stopped.is_set():
            self._drop_lines()
        self._start(self._pump, client, server, self._hand_request)
        self._start(self._pump, server, client, self._hand_answer)

    def _pump(
        self,
        source: socket.socket,
        target: socket.socket,
        hand_on: Callable[[socket.socket, bytes], bool],
    ) -> None:
        try:
            while (data := source.recv(_CHUNK)) and hand_on(target, data):
                pass
        except OSError:
            pass
        self._drop(source)
        self._drop(target)

    def _hand_request(self, server: socket.socket, data: bytes) -> bool:
        if self._mode is not Mode.BLACKHOLE:
            server.sendall(data)
        return True

    def _hand_answer(self, client: socket.socket, data: bytes) -> bool:
        if self._mode is Mode.LOSE_ANSWER:
            self._mode = Mode.PASS
            return False
        if self._mode is Mode.DELAY:
            self._stopped.wait(self._delay_seconds)
        if self._mode is not Mode.BLACKHOLE:
            client.sendall(data)
        return True

    def _drop_lines(self) -> None:
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            self._drop(line)

    def _drop(self, line: socket.socket) -> None:
        with self._lock:
            if line not in self._lines:
                return
            self._lines.discard(line)
        _reset(line)


def _reset(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with contextlib.suppress(OSError):
        # Wakes the thread that reads from it.
        line.shutdown(socket.SHUT_RD)
    line.close()
