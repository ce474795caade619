import socket
from collections.abc import Iterator

import pytest

from sandbox.wire import BadRequest, LineClosed, RequestReader, parse_head


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, RequestReader]]:
    caller, server = socket.socketpair()
    with caller, server:
        yield caller, RequestReader(server)


def test_requests_in_one_piece_are_told_apart(line: tuple[socket.socket, RequestReader]) -> None:
    caller, reader = line
    caller.sendall(
        b"POST /a?x=1 HTTP/1.1\r\nContent-Length: 3\r\nX-A: 1\r\nx-a: 2\r\n\r\nabc"
        b"GET /b HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    first = reader.read_head()
    assert (first.method, first.path, first.query) == ("POST", "/a", "x=1")
    assert first.headers == {"content-length": "3", "x-a": "1, 2"}
    assert first.keeps_alive is True
    assert reader.read_body(first) == b"abc"
    second = reader.read_head()
    assert (second.path, second.keeps_alive) == ("/b", False)
    assert reader.read_body(second) == b""


def test_body_in_many_pieces(line: tuple[socket.socket, RequestReader]) -> None:
    caller, reader = line
    caller.sendall(b"POST / HTTP/1.1\r\nContent-Len")
    caller.sendall(b"gth: 6\r\n\r\nab")
    head = reader.read_head()
    caller.sendall(b"cd")
    caller.sendall(b"efrest")
    assert reader.read_body(head) == b"abcdef"


def test_chunked_body_and_continue(line: tuple[socket.socket, RequestReader]) -> None:
    caller, reader = line
    caller.sendall(
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        b"3\r\nabc\r\nA;name=value\r\n0123456789\r\n0\r\n\r\n"
    )
    assert reader.read_body(reader.read_head()) == b"abc0123456789"
    assert caller.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 4194305\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n", 413),
    ],
)
def test_body_that_cannot_be_read(
    line: tuple[socket.socket, RequestReader], data: bytes, status: int
) -> None:
    caller, reader = line
    caller.sendall(data)
    head = reader.read_head()
    with pytest.raises(BadRequest) as caught:
        reader.read_body(head)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "head",
    [
        "",
        "GET /",
        "GET / HTTP/2.0",
        "get / HTTP/1.1",
        "GET http://bank/ HTTP/1.1",
        "GET / HTTP/1.1\r\nno colon",
        "GET / HTTP/1.1\r\nName : value",
        "GET / HTTP/1.1\r\n: value",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    ],
)
def test_head_that_is_no_http(head: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_head(head)
    assert caught.value.status == 400


def test_head_without_an_end_is_refused(line: tuple[socket.socket, RequestReader]) -> None:
    caller, reader = line
    caller.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000)
    with pytest.raises(BadRequest) as caught:
        reader.read_head()
    assert caught.value.status == 431


def test_caller_that_goes_away(line: tuple[socket.socket, RequestReader]) -> None:
    caller, reader = line
    caller.sendall(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab")
    caller.shutdown(socket.SHUT_WR)
    head = reader.read_head()
    with pytest.raises(LineClosed):
        reader.read_body(head)


def test_old_http_closes_unless_asked() -> None:
    assert parse_head("GET / HTTP/1.0").keeps_alive is False
    assert parse_head("GET / HTTP/1.0\r\nConnection: keep-alive").keeps_alive is True
