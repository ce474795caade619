"""A partner on loopback whose every byte a test decides, for answers that no server would give."""

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole answer with a Content-Length."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class RawPartner:
    """Reads requests and lets `talk` answer each; closes the connection when `talk` says so.

    `talk(line, number)` gets the connection and the request's number (from 1) and returns whether
    to read another request on this connection. `ended` is set when the test is over: wait for it
    to hang.
    """

    def __init__(
        self,
        talk: Callable[[socket.socket, int], bool],
        *,
        tls: ssl.SSLContext | None = None,
        is_reading: bool = True,
    ) -> None:
        self._talk = talk
        self._tls = tls
        self._is_reading = is_reading
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._lines: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = threading.Event()

    def url(self, path: str = "/call", *, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ended.set()
        # A thread that waits in accept() or recv() is woken by shutdown, not by close.
        for line in [self._listener, *self._lines]:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()
        for thread in self._threads:
            thread.join(timeout=10)

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.ended.is_set():
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._lines.append(line)
            self._start(self._serve, line)

    def _serve(self, line: socket.socket) -> None:
        try:
            if self._tls is not None:
                line = self._tls.wrap_socket(line, server_side=True)
                self._lines.append(line)
            while (number := self._read_request(line)) and self._talk(line, number):
                pass
        except OSError:
            pass
        finally:
            line.close()

    def _read_request(self, line: socket.socket) -> int:
        """The number of the request that came, 0 for a closed line."""
        data = b""
        while self._is_reading and not _is_whole(data):
            piece = line.recv(65_536)
            if not piece:
                return 0
            data += piece
        with self._lock:
            self.requests.append(data)
            return len(self.requests)


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    for field in head.split(b"\r\n"):
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    return bool(end)


def says(*answers: bytes, keeps_open: bool = True) -> Callable[[socket.socket, int], bool]:
    """Gives these answers in turn, the last one again and again."""

    def talk(line: socket.socket, number: int) -> bool:
        line.sendall(answers[min(number, len(answers)) - 1])
        return keeps_open

    return talk
