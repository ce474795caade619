"""Reading HTTP/1.1 requests from a kept connection, strictly and within bounds."""

import re
import socket
from dataclasses import dataclass

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 4 * 1024 * 1024
_CHUNK = 64 * 1024
_REQUEST_LINE = re.compile(r"([A-Z]{1,20}) (/[\x21-\x7e]*) HTTP/1\.([01])")
_CONTENT_LENGTH = re.compile(r"[0-9]{1,12}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;.*)?")


class BadRequest(Exception):
    """A request that cannot be read; the connection ends with this status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class LineClosed(Exception):
    """The caller has gone, or stopped in the middle of a request."""


@dataclass(frozen=True, slots=True)
class Head:
    """The request line and the headers, their names in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    keeps_alive: bool


class RequestReader:
    """Takes one request after the other from a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def read_head(self) -> Head:
        """The next request's head; LineClosed when there is none, BadRequest when it is no HTTP."""
        end = self._buffer.find(b"\r\n\r\n")
        while end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BadRequest(431, "The head of the request is too large.")
            self._receive()
            end = self._buffer.find(b"\r\n\r\n")
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        return parse_head(head.decode("latin-1"))

    def read_body(self, head: Head) -> bytes:
        """The whole body of the request whose head was just read."""
        if head.headers.get("expect", "").lower() == "100-continue":
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "transfer-encoding" in head.headers:
            return self._read_chunks(head.headers["transfer-encoding"])
        length_text = head.headers.get("content-length", "0")
        if not _CONTENT_LENGTH.fullmatch(length_text):
            raise BadRequest(400, "Content-Length is not a number.")
        return self._take(_bounded(int(length_text)))

    def _read_chunks(self, coding: str) -> bytes:
        if coding.lower() != "chunked":
            raise BadRequest(501, "Only the transfer coding chunked is known.")
        body = bytearray()
        while True:
            match = _CHUNK_SIZE.fullmatch(self._take_line())
            if match is None:
                raise BadRequest(400, "A chunk has no size.")
            size = int(match[1], 16)
            _bounded(len(body) + size)
            body += self._take(size)
            if self._take_line() != b"":  # the end of a chunk, or of the last one with no trailers
                raise BadRequest(400, "A chunk does not end where it should.")
            if size == 0:
                return bytes(body)

    def _take(self, size: int) -> bytes:
        missing = size - len(self._buffer)
        if missing <= 0:
            body, self._buffer = self._buffer[:size], self._buffer[size:]
            return body
        pieces = [self._buffer]
        self._buffer = b""
        while missing > 0:
            self._receive()
            piece, self._buffer = self._buffer[:missing], self._buffer[missing:]
            missing -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _take_line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BadRequest(400, "A line of the body is too long.")
            self._receive()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _receive(self) -> None:
        piece = self._connection.recv(_CHUNK)
        if not piece:
            raise LineClosed
        self._buffer = self._buffer + piece if self._buffer else piece


def parse_head(text: str) -> Head:
    """Read a head without its empty line; BadRequest for what is no HTTP/1.1 request."""
    request_line, *lines = text.split("\r\n")
    match = _REQUEST_LINE.fullmatch(request_line)
    if match is None:
        raise BadRequest(400, "The request line is not HTTP/1.1.")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip():
            raise BadRequest(400, "A header line is malformed.")
        value = value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "transfer-encoding" in headers and "content-length" in headers:
        raise BadRequest(400, "Both Content-Length and Transfer-Encoding are given.")
    path, _, query = match[2].partition("?")
    connection = headers.get("connection", "").lower()
    keeps_alive = connection != "close" if match[3] == "1" else connection == "keep-alive"
    return Head(match[1], path, query, headers, keeps_alive)


def _bounded(size: int) -> int:
    if size > MAX_BODY_BYTES:
        raise BadRequest(413, f"The body may have {MAX_BODY_BYTES} bytes.")
    return size
