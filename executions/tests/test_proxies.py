"""The proxy that other tests blame for their faults has to make exactly these."""

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from executions.tests.proxies import Address, FaultyProxy


@contextmanager
def echo_server(listener: socket.socket) -> Iterator[None]:
    def serve() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(line,), daemon=True).start()

    def echo(line: socket.socket) -> None:
        with line:
            try:
                while data := line.recv(1024):
                    line.sendall(data)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.fixture(params=["address", "path"])
def upstream(request: pytest.FixtureRequest) -> Iterator[Address]:
    # A socket's path may have 107 bytes, which pytest's own folders can exceed.
    with tempfile.TemporaryDirectory() as folder:
        if request.param == "path":
            path = str(Path(folder) / "s")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen()
            address: Address = path
        else:
            listener = socket.create_server(("127.0.0.1", 0))
            address = listener.getsockname()
        with echo_server(listener):
            yield address


@pytest.fixture
def proxy(upstream: Address) -> Iterator[FaultyProxy]:
    threads = threading.active_count()
    with FaultyProxy(upstream) as proxy:
        yield proxy
        # The echo's own threads end when their lines do.
    deadline = time.monotonic() + 5
    while threading.active_count() > threads:
        assert time.monotonic() < deadline, "threads were left behind"
        time.sleep(0.01)


@pytest.fixture
def line(proxy: FaultyProxy) -> Iterator[socket.socket]:
    """A connection that has worked."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3) as line:
        assert ask(line) == b"hello"
        yield line


def ask(line: socket.socket) -> bytes:
    line.sendall(b"hello")
    return line.recv(1024)


def connect_and_ask(proxy: FaultyProxy) -> bytes:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3) as line:
        return ask(line)


def test_delay_holds_answers_back(proxy: FaultyProxy, line: socket.socket) -> None:
    proxy.delay(150)
    started = time.monotonic()
    assert ask(line) == b"hello"
    assert time.monotonic() - started >= 0.15


def test_blackhole_swallows_everything(proxy: FaultyProxy, line: socket.socket) -> None:
    proxy.blackhole()
    with pytest.raises(TimeoutError):
        ask(line)
    with pytest.raises(TimeoutError):
        connect_and_ask(proxy)


def test_cut_resets_open_and_new_lines(proxy: FaultyProxy, line: socket.socket) -> None:
    proxy.cut()
    with pytest.raises(ConnectionError):
        ask(line)
    with pytest.raises(ConnectionError):
        connect_and_ask(proxy)
    proxy.pass_through()
    assert connect_and_ask(proxy) == b"hello"


def test_refuse_closes_the_door_until_it_opens_again(
    proxy: FaultyProxy, line: socket.socket
) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionError):
        ask(line)
    with pytest.raises(ConnectionRefusedError):
        connect_and_ask(proxy)
    proxy.pass_through()
    assert connect_and_ask(proxy) == b"hello"


def test_drop_resets_open_lines_only(proxy: FaultyProxy, line: socket.socket) -> None:
    proxy.drop()
    with pytest.raises(ConnectionError):
        ask(line)
    assert connect_and_ask(proxy) == b"hello"
    assert proxy.connections == 2


def test_lost_answer_is_lost_once(proxy: FaultyProxy, line: socket.socket) -> None:
    proxy.lose_answer()
    with pytest.raises(ConnectionError):
        ask(line)
    assert connect_and_ask(proxy) == b"hello"
