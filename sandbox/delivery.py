"""Sending answers, whole or the way a fault wants it.

Everything that waits or drips asks `pause`, which ends early when the server stops. A delivery
returns whether the connection can be used for another request.
"""

import gzip
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import Final, TypeAlias

from config.jsonvalues import dump_compact

from .faults import Fault, FaultKind
from .messages import Answer, Headers, json_answer, message_answer, parse_json

# Waits that many seconds; True when the server stops.
Pause: TypeAlias = Callable[[float], bool]

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_PIECE: Final = 64 * 1024
_GATE_POLL_SECONDS: Final = 0.02
_DRIPPED_BODY: Final = 600
_EARLY_HINTS: Final = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"

# The kinds that end the connection before a single byte of an answer.
CUT_KINDS: Final = frozenset({FaultKind.CUT_BEFORE, FaultKind.CUT_AFTER, FaultKind.HANG})


def encode(answer: Answer, *, keeps_alive: bool = True) -> bytes:
    """The answer as it goes over the line."""
    return _encode_head(answer, len(answer.body), keeps_alive=keeps_alive) + answer.body


def wait_for(fault: Fault, pause: Pause) -> bool:
    """Wait as long as the fault says; True when the server stops meanwhile."""
    if fault.gate is None:
        return pause(fault.ms / 1000)
    give_up_at = time.monotonic() + fault.ms / 1000
    while not fault.gate.is_set() and time.monotonic() < give_up_at:
        if pause(_GATE_POLL_SECONDS):
            return True
    return False


def spoil(answer: Answer, fault: Fault) -> Answer:
    """What the fault makes of the answer, before it is sent."""
    spoiler = _SPOILERS.get(fault.kind)
    return answer if spoiler is None else spoiler(answer, fault)


def cut(connection: socket.socket, fault: Fault) -> bool:
    """End the connection without a word; False, for it lives no longer."""
    if fault.reset:  # closing with no time to linger sends a reset instead of an orderly end
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def deliver(
    connection: socket.socket, answer: Answer, fault: Fault, *, pause: Pause, keeps_alive: bool
) -> bool:
    """Send the answer in the fault's manner; returns whether the connection lives on."""
    if fault.kind is FaultKind.CUT_MIDDLE:
        connection.sendall(encode(answer)[: -(len(answer.body) // 2 or 1)])
        return cut(connection, fault)
    if fault.kind is FaultKind.BAD_HEAD:
        connection.sendall(b"BANANA/9.9 yes\r\nno colon here\r\n\r\n{}")
        return False
    if fault.kind in (FaultKind.DRIP, FaultKind.DRIP_HEADERS):
        return _drip(connection, answer, fault, pause)
    if fault.kind is FaultKind.HUGE and fault.chunked:
        return _send_chunks(connection, answer, pause)
    hints = _EARLY_HINTS if fault.kind is FaultKind.EARLY_HINTS else b""
    connection.sendall(hints + encode(answer, keeps_alive=keeps_alive))
    return True


def answer_instead(fault: Fault) -> Answer:
    """What a call without an effect is answered, where the fault leaves the answer as it is."""
    if fault.kind is FaultKind.ANSWER:
        return json_answer(fault.body, fault.status, fault.headers)
    return message_answer(503, "The sandbox was told to fail.")


def _encode_head(answer: Answer, length: int | None, *, keeps_alive: bool) -> bytes:
    reason = _REASONS.get(answer.status, "Unknown")
    lines = [f"HTTP/1.1 {answer.status} {reason}"]
    if answer.status != 204:
        lines.append(f"Content-Type: {answer.content_type}")
        lines.append(
            "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        )
    lines.extend(f"{name}: {value}" for name, value in answer.headers)
    if not keeps_alive:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


# Slow and long ones.


def _drip(connection: socket.socket, answer: Answer, fault: Fault, pause: Pause) -> bool:
    padding = b" " * (_DRIPPED_BODY - len(answer.body))  # a drip has to outlast any timeout
    whole = replace(answer, body=answer.body + padding)
    data = encode(whole)
    dripped_from = 0 if fault.kind is FaultKind.DRIP_HEADERS else len(data) - len(whole.body)
    connection.sendall(data[:dripped_from])
    for position in range(dripped_from, len(data)):
        if pause(fault.ms / 1000):
            return False
        connection.sendall(data[position : position + 1])
    return True


def _send_chunks(connection: socket.socket, answer: Answer, pause: Pause) -> bool:
    connection.sendall(_encode_head(answer, None, keeps_alive=True))
    for piece in _pieces(answer.body):
        if pause(0):
            return False
        connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    connection.sendall(b"0\r\n\r\n")
    return True


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]


# Answers that are whole but not what they should be.


def _status(_answer: Answer, fault: Fault) -> Answer:
    if fault.body is not None:
        return json_answer(fault.body, fault.status, fault.headers)
    return message_answer(fault.status, "The sandbox was told to answer so.", fault.headers)


def _custom(answer: Answer, fault: Fault) -> Answer:
    return replace(answer, headers=(*answer.headers, *fault.headers))


def _redirect(_answer: Answer, fault: Fault) -> Answer:
    status = fault.status if 300 <= fault.status < 400 else 302
    headers: Headers = (("Location", fault.location), *fault.headers)
    return message_answer(status, "The sandbox was told to redirect.", headers)


def _garbage(_answer: Answer, _fault: Fault) -> Answer:
    return Answer(200, b'}{ "this is": not JSON')


def _html(_answer: Answer, _fault: Fault) -> Answer:
    page = b"<!doctype html><title>Maintenance</title><h1>We will be back soon</h1>"
    return Answer(200, page, content_type="text/html; charset=utf-8")


def _huge(_answer: Answer, fault: Fault) -> Answer:
    return Answer(200, _padding(fault.size))


def _gzip_bomb(_answer: Answer, fault: Fault) -> Answer:
    packed = gzip.compress(_padding(fault.size), compresslevel=9)
    return Answer(200, packed, (("Content-Encoding", "gzip"),))


def _empty(_answer: Answer, _fault: Fault) -> Answer:
    return Answer(204, b"")


def _content_type(answer: Answer, _fault: Fault) -> Answer:
    return replace(answer, content_type="text/plain")


def _invalid_utf8(_answer: Answer, _fault: Fault) -> Answer:
    return Answer(200, b'{"message": "\xff\xfe\x80"}')


def _duplicate_headers(answer: Answer, _fault: Fault) -> Answer:
    twice = (("Content-Length", str(len(answer.body))), ("Content-Type", "text/plain"))
    return replace(answer, headers=(*answer.headers, *twice))


def _deep_json(_answer: Answer, fault: Fault) -> Answer:
    return Answer(200, b"[" * fault.size + b"]" * fault.size)


def _big_integers(answer: Answer, fault: Fault) -> Answer:
    number = b"9" * max(fault.size, 1)
    value = parse_json(answer.body) if answer.body else {}
    start = dump_compact(value)[:-1] if isinstance(value, dict) and value else b'{"valid":true'
    return replace(answer, body=start + b',"bigInteger":' + number + b"}")


def _padding(size: int) -> bytes:
    return b'{"padding":"' + b"x" * size + b'"}'


_SPOILERS: Final[dict[FaultKind, Callable[[Answer, Fault], Answer]]] = {
    FaultKind.STATUS: _status,
    FaultKind.ANSWER_LATER: _custom,
    FaultKind.REDIRECT: _redirect,
    FaultKind.GARBAGE: _garbage,
    FaultKind.HTML: _html,
    FaultKind.HUGE: _huge,
    FaultKind.GZIP_BOMB: _gzip_bomb,
    FaultKind.EMPTY: _empty,
    FaultKind.CONTENT_TYPE: _content_type,
    FaultKind.INVALID_UTF8: _invalid_utf8,
    FaultKind.DUPLICATE_HEADERS: _duplicate_headers,
    FaultKind.DEEP_JSON: _deep_json,
    FaultKind.BIG_INTEGERS: _big_integers,
}
