"""A partner that listens, and a client that shows all there is to an answer."""

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

import pytest

from config.jsonvalues import JsonObject, JsonValue
from sandbox.testing import FakePartner

TRANSFER = "/api/transactions/transfer"
VALIDATE = "/api/accounts/validate"
ORDER: JsonObject = {"amount": 5000, "recipientAccount": "9876543210"}


@dataclass(frozen=True, slots=True)
class Got:
    """An answer: status, parsed body (None when empty), headers with lower-case names."""

    status: int
    json: JsonValue
    headers: dict[str, str]


Body: TypeAlias = "JsonValue | bytes"
Ask: TypeAlias = Callable[..., Got]


@pytest.fixture
def partner() -> Iterator[FakePartner]:
    with FakePartner() as running:
        yield running


@pytest.fixture
def ask(partner: FakePartner) -> Ask:
    def send(method: str, path: str, body: JsonValue = None, **headers: str) -> Got:
        return request(partner.url, method, path, body, **headers)

    return send


def request(url: str, method: str, path: str, body: Body = None, **headers: str) -> Got:
    """One call on a connection of its own; `idempotency_key="k"` is the header Idempotency-Key."""
    address = urlsplit(url)
    client = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        client.request(method, path, None if body is None else data, sent)
        answer = client.getresponse()
        text = answer.read()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Got(answer.status, json.loads(text) if text else None, names)
    finally:
        client.close()


def connect(partner: FakePartner) -> socket.socket:
    address = urlsplit(partner.url)
    return socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10)


def raw_request(path: str, body: JsonValue, *, key: str = "k", close: bool = True) -> bytes:
    data = json.dumps(body).encode()
    connection = "Connection: close\r\n" if close else ""
    head = f"POST {path} HTTP/1.1\r\nHost: bank\r\nIdempotency-Key: {key}\r\n{connection}"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def read_all(line: socket.socket) -> bytes:
    """Everything until the other side ends the connection."""
    pieces = []
    while piece := line.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


def exchange(partner: FakePartner, data: bytes) -> bytes:
    with connect(partner) as line:
        line.sendall(data)
        return read_all(line)
