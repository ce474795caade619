"""One exchange with partners that behave, and with partners that do not. No luck, no long waits."""

import gzip
import http.client
import json
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.jsonvalues import JsonValue
from executions import http_client
from executions.dialing import Address, Dialer
from executions.enums import AttemptOutcome
from executions.http_client import MAX_BODY_BYTES, HttpClient
from executions.outcomes import ExchangeFailed, TriggerRequest, TriggerResponse
from executions.tests.certificates import make_certificate, server_context
from executions.tests.raw_partner import JSON_HEAD, RawPartner, answer, says

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
# What a timeout of 300 ms may take on a busy machine; a missing deadline takes longer by far.
PATIENCE_SECONDS = 8


@pytest.fixture
def client() -> Iterator[HttpClient]:
    client = HttpClient(pool_size=4, now=lambda: NOW)
    yield client
    client.close()


def ask(
    url: str,
    *,
    body: bytes | None = b"{}",
    timeout_ms: int = 10_000,
    allow_private: bool = True,
    headers: tuple[tuple[str, str], ...] = (),
    method: str = "POST",
) -> TriggerRequest:
    return TriggerRequest(
        method=method,
        url=url,
        headers=headers,
        body=body,
        timeout_ms=timeout_ms,
        allow_private=allow_private,
        connection="bank",
    )


def failure_of(client: HttpClient, request: TriggerRequest) -> ExchangeFailed:
    with pytest.raises(ExchangeFailed) as caught:
        client.send(request)
    return caught.value


def resolving_to(*addresses: str, port: int) -> Callable[[str, int], list[Address]]:
    def look_up(_host: str, _port: int) -> list[Address]:
        return [(socket.AF_INET, (address, port)) for address in addresses]

    return look_up


# What is sent


def test_request_carries_exactly_what_it_was_given(client: HttpClient) -> None:
    with RawPartner(says(answer(b'{"ok": true}'))) as partner:
        response = client.send(
            ask(
                partner.url("/v1/pay?a=1"),
                body=b'{"amount":5000}',
                headers=(("Content-Type", "application/json"), ("Idempotency-Key", "k-1")),
            )
        )
    assert response == TriggerResponse(200, {"ok": True}, None)
    assert partner.requests == [
        b"POST /v1/pay?a=1 HTTP/1.1\r\n"
        b"Host: 127.0.0.1:%d\r\n"
        b"Accept-Encoding: identity\r\n"
        b"Content-Length: 15\r\n"
        b"Content-Type: application/json\r\n"
        b"Idempotency-Key: k-1\r\n\r\n"
        b'{"amount":5000}' % partner.port
    ]


def test_get_has_no_body(client: HttpClient) -> None:
    with RawPartner(says(answer(b"1"))) as partner:
        client.send(ask(partner.url("?q=1"), method="GET", body=None))
    assert partner.requests[0].startswith(b"GET /?q=1 HTTP/1.1\r\n")
    assert b"content-length" not in partner.requests[0].lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@127.0.0.1/",  # credentials would be sent to whoever it is
        "http://127.0.0.1:99999/",
        "http:///path",
        "ftp://127.0.0.1/",
        "http://127.0.0.1/a\nb",
        "http://127.0.0.1/a b",  # a second word in the request line
        "http://127.0.0.1/\N{SNOWMAN}",
    ],
)
def test_url_that_cannot_be_called_is_forbidden(url: str) -> None:
    client = HttpClient(pool_size=1, dialer=_never_connects())
    assert failure_of(client, ask(url)).outcome is AttemptOutcome.FORBIDDEN


def _never_connects() -> Dialer:
    def look_up(_host: str, _port: int) -> list[Address]:
        return [(socket.AF_INET, ("10.0.0.1", 1))]

    return Dialer(lookup=look_up)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "\N{SNOWMAN}"])
def test_header_that_would_become_two_is_never_sent(client: HttpClient, value: str) -> None:
    with RawPartner(says(answer(b"1"))) as partner:
        failure = failure_of(client, ask(partner.url(), headers=(("X-Name", value),)))
    assert failure.outcome is AttemptOutcome.FORBIDDEN
    assert partner.requests == []


# What is answered


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"id": 123456789012345678901234567890}', {"id": 123456789012345678901234567890}),
        (b"1" * 4300, int("1" * 4300)),
        (b'"0012"', "0012"),
        (b"0.1", 0.1),
        (b"null", None),
        (b"", None),
        (b" \r\n", None),
        (b"\xef\xbb\xbf[1]", [1]),  # some partners begin with a byte order mark
        (b"[" * 64 + b"]" * 64, json.loads("[" * 64 + "]" * 64)),
        ('{"name": "Jörg 😀"}'.encode(), {"name": "Jörg 😀"}),
    ],
)
def test_json_arrives_exactly(client: HttpClient, body: bytes, value: JsonValue) -> None:
    with RawPartner(says(answer(body))) as partner:
        response = client.send(ask(partner.url()))
    assert response == TriggerResponse(200, value, None)


def test_content_type_is_not_asked(client: HttpClient) -> None:
    with RawPartner(says(answer(b"[1]", b"Content-Type: text/html"))) as partner:
        assert client.send(ask(partner.url())).body == [1]


def test_204_has_no_body(client: HttpClient) -> None:
    with RawPartner(says(b"HTTP/1.1 204 No Content\r\n\r\n")) as partner:
        assert client.send(ask(partner.url())) == TriggerResponse(204, None, None)


@pytest.mark.parametrize(
    "whole",
    [
        JSON_HEAD
        + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2;x=y\r\n2]\r\n0\r\nT: 1\r\n\r\n",
        JSON_HEAD + b"Connection: close\r\n\r\n[1,2]",
        answer(gzip.compress(b"[1,2]"), b"Content-Encoding: gzip"),
        answer(zlib.compress(b"[1,2]"), b"Content-Encoding: deflate"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"[1,2]"),
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + answer(b"[1,2]"),
        b"HTTP/1.0 200 OK\r\n\r\n[1,2]",
    ],
    ids=["chunked", "until close", "gzip", "deflate", "100", "103", "HTTP/1.0"],
)
def test_answer_is_read_however_it_is_framed(client: HttpClient, whole: bytes) -> None:
    with RawPartner(says(whole, keeps_open=False)) as partner:
        assert client.send(ask(partner.url())) == TriggerResponse(200, [1, 2], None)


@pytest.mark.parametrize("status", [b"201 Created", b"302 Found", b"404 Gone", b"503 No"])
def test_every_status_is_handed_on(client: HttpClient, status: bytes) -> None:
    with RawPartner(says(answer(b'{"message": "m"}', status=status))) as partner:
        response = client.send(ask(partner.url()))
    assert response == TriggerResponse(int(status[:3]), {"message": "m"}, None)


@pytest.mark.parametrize(
    ("header", "milliseconds"),
    [
        (b"Retry-After: 7", 7_000),
        (b"RETRY-AFTER:7 ", 7_000),
        (b"no colon\r\nretry-after: 7\r\nRetry-After: 9\r\n folded: 1", 7_000),
        (b"Retry-After: Sun, 01 Mar 2026 12:00:30 GMT", 30_000),
        (b"Retry-After: soon", None),
    ],
)
def test_retry_after_is_read(client: HttpClient, header: bytes, milliseconds: int | None) -> None:
    with RawPartner(says(answer(b"", header, status=b"429 Slow Down"))) as partner:
        assert client.send(ask(partner.url())) == TriggerResponse(429, None, milliseconds)


@pytest.mark.parametrize(
    "whole",
    [
        answer(b"<html>", status=b"409 Conflict"),
        answer(b'"' + b"x" * MAX_BODY_BYTES + b'"', status=b"409 Conflict"),
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 10\r\n\r\n{",
    ],
    ids=["not JSON", "too large", "cut"],
)
def test_refusal_counts_whatever_its_text_is(client: HttpClient, whole: bytes) -> None:
    with RawPartner(says(whole, keeps_open=False)) as partner:
        assert client.send(ask(partner.url())) == TriggerResponse(409, None, None)


def test_refusal_before_the_whole_request_was_read_counts(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partner answers and hangs up while we still send: the answer is there to be read."""
    send = http_client._Line.request

    def send_into_a_closed_pipe(line: http.client.HTTPConnection, *args: object) -> None:
        send(line, *args)  # type: ignore[arg-type]
        raise BrokenPipeError

    monkeypatch.setattr(http_client._Line, "request", send_into_a_closed_pipe)
    with RawPartner(says(answer(b"", status=b"413 Too Large"))) as partner:
        assert client.send(ask(partner.url())).status == 413


# Bad answers, told apart

NOT_JSON_BODIES = {
    "HTML": b"<html>",
    "cut JSON": b'{"a": ',
    "NaN": b'{"a": NaN}',
    "Infinity": b"[-Infinity]",
    "beyond doubles": b"[1e999]",
    "4301 digits": b"1" * 4301,
    "Latin-1": b'"J\xf6rg"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "NUL": b'"a\\u0000"',
    "lone surrogate": b'"\\ud800"',
    "65 levels": b"[" * 65 + b"]" * 65,
    "bottomless": b"[" * 500_000,
    "two values": b"{} {}",
}


@pytest.mark.parametrize("body", NOT_JSON_BODIES.values(), ids=NOT_JSON_BODIES.keys())
def test_answer_that_is_no_json(client: HttpClient, body: bytes) -> None:
    with RawPartner(says(answer(body))) as partner:
        failure = failure_of(client, ask(partner.url()))
    assert (failure.outcome, failure.status) == (AttemptOutcome.NOT_JSON, 200)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"[1]", b"gzip"),
        (gzip.compress(b"[1]")[:-4], b"gzip"),
        (b"[1]", b"br"),
    ],
    ids=["not packed", "cut", "unknown coding"],
)
def test_answer_that_cannot_be_unpacked(client: HttpClient, body: bytes, coding: bytes) -> None:
    with RawPartner(says(answer(body, b"Content-Encoding: " + coding))) as partner:
        failure = failure_of(client, ask(partner.url()))
    assert (failure.outcome, failure.status) == (AttemptOutcome.NOT_JSON, 200)


@pytest.mark.parametrize(
    "whole",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"[1, 2]\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 200,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    ],
    ids=["another protocol", "no head", "no status", "HTTP/2", "many headers", "a long header"],
)
def test_answer_that_is_no_http(client: HttpClient, whole: bytes) -> None:
    with RawPartner(says(whole, keeps_open=False)) as partner:
        failure = failure_of(client, ask(partner.url()))
    assert (failure.outcome, failure.status) == (AttemptOutcome.NOT_JSON, None)


def test_answer_of_exactly_the_limit_is_read(client: HttpClient) -> None:
    text = "x" * (MAX_BODY_BYTES - 2)
    with RawPartner(says(answer(f'"{text}"'.encode()))) as partner:
        assert client.send(ask(partner.url())).body == text


_LARGE = b'"' + b"x" * (MAX_BODY_BYTES - 1) + b'"'


@pytest.mark.parametrize(
    "whole",
    [
        answer(_LARGE),
        JSON_HEAD + b"Content-Length: 99999999999\r\n\r\n[",
        JSON_HEAD + b"Connection: close\r\n\r\n" + _LARGE,
        JSON_HEAD
        + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(_LARGE), _LARGE),
        JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + b"x" * 4 * MAX_BODY_BYTES,
        answer(gzip.compress(b" " * 100 * MAX_BODY_BYTES), b"Content-Encoding: gzip"),
        answer(zlib.compress(_LARGE), b"Content-Encoding: deflate"),
    ],
    ids=["length", "said", "until close", "chunked", "negative chunk", "gzip bomb", "deflate"],
)
def test_answer_that_is_too_large(client: HttpClient, whole: bytes) -> None:
    with RawPartner(says(whole, keeps_open=False)) as partner:
        failure = failure_of(client, ask(partner.url()))
    assert (failure.outcome, failure.status) == (AttemptOutcome.TOO_LARGE, 200)


def test_endless_forerunners_are_too_large(client: HttpClient) -> None:
    def talk(line: socket.socket, _number: int) -> bool:
        while True:
            line.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1000)

    with RawPartner(talk) as partner:
        failure = failure_of(client, ask(partner.url()))
    assert failure.outcome is AttemptOutcome.TOO_LARGE


def _reset(line: socket.socket, _number: int) -> bool:
    linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return False


@pytest.mark.parametrize(
    ("talk", "status"),
    [
        (lambda _line, _number: False, None),
        (_reset, None),
        (says(b"HTTP/1.1 200 OK\r\nContent-Le", keeps_open=False), None),
        (says(b"HTTP/1.1 200 OK\r\nX: 1\r\n", keeps_open=False), None),
        (says(JSON_HEAD + b"Content-Length: 10\r\n\r\n[1]", keeps_open=False), 200),
        (
            says(JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n", keeps_open=False),
            200,
        ),
    ],
    ids=["unanswered", "reset", "in a header", "after a header", "in the body", "in the chunks"],
)
def test_line_that_is_cut(
    client: HttpClient, talk: Callable[[socket.socket, int], bool], status: int | None
) -> None:
    with RawPartner(talk) as partner:
        failure = failure_of(client, ask(partner.url()))
    assert failure.outcome is AttemptOutcome.LINE_CUT
    assert failure.status == status
    assert len(partner.requests) == 1


# Time

DRIPS = {
    "silence": (b"", b""),
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n"),
    "one header": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "forerunners": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "body": (JSON_HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    "chunks": (JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "trailers": (JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: 1\r\n"),
    "until close": (JSON_HEAD + b"Connection: close\r\n\r\n", b" "),
}


class Drip:
    """Sends a start, and then a drop every 20 ms: no single read ever times out."""

    def __init__(self, start: bytes, drop: bytes) -> None:
        self.start, self.drop = start, drop
        self.is_over = threading.Event()

    def __call__(self, line: socket.socket, _number: int) -> bool:
        line.sendall(self.start)
        # Fewer drops than a head may have headers.
        for _ in range(95 if self.drop.endswith(b"\r\n") else 500):
            if self.is_over.wait(0.02):
                return False
            line.sendall(self.drop)
        self.is_over.wait(20)
        return False


@pytest.mark.parametrize(("start", "drop"), DRIPS.values(), ids=DRIPS.keys())
def test_timeout_is_for_the_whole_answer(client: HttpClient, start: bytes, drop: bytes) -> None:
    drip = Drip(start, drop)
    with RawPartner(drip) as partner:
        began = time.monotonic()
        failure = failure_of(client, ask(partner.url(), timeout_ms=300))
        took = time.monotonic() - began
        drip.is_over.set()
    assert failure.outcome is AttemptOutcome.TIMED_OUT
    assert 0.29 <= took < PATIENCE_SECONDS


def test_timeout_holds_while_the_partner_does_not_read(client: HttpClient) -> None:
    def talk(_line: socket.socket, _number: int) -> bool:
        partner.ended.wait(20)
        return False

    with RawPartner(talk, is_reading=False) as partner:
        began = time.monotonic()
        failure = failure_of(client, ask(partner.url(), body=b"x" * 50_000_000, timeout_ms=300))
        took = time.monotonic() - began
    assert failure.outcome is AttemptOutcome.TIMED_OUT
    assert took < PATIENCE_SECONDS


def test_timeout_starts_anew_on_a_kept_connection(client: HttpClient) -> None:
    with RawPartner(says(answer(b"1"))) as partner:
        client.send(ask(partner.url(), timeout_ms=100))
        partner.ended.wait(0.15)
        assert client.send(ask(partner.url(), timeout_ms=5_000)).body == 1
    assert partner.connections == 1


def test_slow_name_lookup_is_bounded_and_nothing_is_sent() -> None:
    release = threading.Event()

    def look_up(_host: str, _port: int) -> list[Address]:
        release.wait(20)
        return []

    client = HttpClient(pool_size=1, dialer=Dialer(lookup=look_up))
    began = time.monotonic()
    failure = failure_of(client, ask("http://bank.test/", timeout_ms=200))
    took = time.monotonic() - began
    release.set()
    assert failure.outcome is AttemptOutcome.CONNECT_FAILED
    assert took < PATIENCE_SECONDS


def test_callers_of_one_slow_name_share_its_lookup() -> None:
    lookups: list[str] = []
    release = threading.Event()

    def look_up(host: str, _port: int) -> list[Address]:
        lookups.append(host)
        release.wait(20)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    client = HttpClient(pool_size=1, dialer=Dialer(lookup=look_up))
    with ThreadPoolExecutor(4) as threads:
        failures = list(
            threads.map(
                lambda _: failure_of(client, ask("http://bank.test/", timeout_ms=300)), range(4)
            )
        )
    release.set()
    assert [failure.outcome for failure in failures] == [AttemptOutcome.CONNECT_FAILED] * 4
    assert lookups == ["bank.test"]


# No connection


def test_closed_port_is_a_failed_connection(client: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failure = failure_of(client, ask(f"http://127.0.0.1:{port}/"))
    assert failure.outcome is AttemptOutcome.CONNECT_FAILED


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "no such name"), UnicodeError("label too long")]
)
def test_unknown_name_is_a_failed_connection(error: Exception) -> None:
    def look_up(_host: str, _port: int) -> list[Address]:
        raise error

    client = HttpClient(pool_size=1, dialer=Dialer(lookup=look_up))
    failure = failure_of(client, ask("http://bank.test/"))
    assert failure.outcome is AttemptOutcome.CONNECT_FAILED


def test_next_address_is_tried_when_one_does_not_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    with RawPartner(says(answer(b"1"))) as partner:

        def look_up(_host: str, _port: int) -> list[Address]:
            return [(socket.AF_INET, ("127.0.0.1", port)) for port in (closed, partner.port)]

        client = HttpClient(pool_size=1, dialer=Dialer(lookup=look_up))
        assert client.send(ask("http://bank.test/")).body == 1
        client.close()


# Egress


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "[::1]"])
def test_private_address_is_refused_unless_allowed(client: HttpClient, host: str) -> None:
    with RawPartner(says(answer(b"1"))) as partner:
        failure = failure_of(client, ask(partner.url(host=host), allow_private=False))
    assert failure.outcome is AttemptOutcome.FORBIDDEN
    assert partner.connections == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.5", "169.254.169.254", "0.0.0.0"])
def test_name_of_a_private_address_is_refused(address: str) -> None:
    with RawPartner(says(answer(b"1"))) as partner:
        dialer = Dialer(lookup=resolving_to(address, port=partner.port))
        client = HttpClient(pool_size=1, dialer=dialer)
        failure = failure_of(client, ask("http://bank.test/", allow_private=False))
    assert failure.outcome is AttemptOutcome.FORBIDDEN
    assert partner.connections == 0


def test_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers differently the second time is never asked a second time."""
    checked: list[str] = []

    def allow(address: str, *, allow_private: bool) -> bool:
        checked.append(address)
        return not allow_private

    monkeypatch.setattr("executions.dialing.is_address_allowed", allow)
    lookups: list[str] = []
    with RawPartner(says(answer(b"1"))) as partner:

        def look_up(host: str, _port: int) -> list[Address]:
            lookups.append(host)
            return [(socket.AF_INET, ("127.0.0.1", partner.port))]

        client = HttpClient(pool_size=1, dialer=Dialer(lookup=look_up))
        client.send(ask("http://bank.test/", allow_private=False))
        client.send(ask("http://bank.test/", allow_private=False))
        client.close()
    assert (lookups, checked, partner.connections) == (["bank.test"], ["127.0.0.1"], 1)


def test_connection_opened_with_permission_is_not_used_without(client: HttpClient) -> None:
    with RawPartner(says(answer(b"1"))) as partner:
        client.send(ask(partner.url(), allow_private=True))
        failure = failure_of(client, ask(partner.url(), allow_private=False))
    assert failure.outcome is AttemptOutcome.FORBIDDEN
    assert len(partner.requests) == 1


def test_environment_proxies_and_netrc_are_not_used(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with RawPartner(says(answer(b'"proxy"'))) as proxy, RawPartner(says(answer(b"1"))) as partner:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url(""))
        assert client.send(ask(partner.url())).body == 1
    assert proxy.connections == 0
    assert b"authorization" not in partner.requests[0].lower()


def test_redirects_are_not_followed(client: HttpClient) -> None:
    with RawPartner(says(answer(b"1"))) as elsewhere:
        location = b"Location: " + elsewhere.url().encode()
        with RawPartner(says(answer(b"", location, status=b"307 Elsewhere"))) as partner:
            assert client.send(ask(partner.url())) == TriggerResponse(307, None, None)
    assert elsewhere.connections == 0


def test_cookies_are_not_kept(client: HttpClient) -> None:
    with RawPartner(says(answer(b"1", b"Set-Cookie: session=alice; Path=/"))) as partner:
        client.send(ask(partner.url()))
        client.send(ask(partner.url()))
    assert b"cookie" not in partner.requests[1].lower()


# Kept connections


def test_connection_is_kept(client: HttpClient) -> None:
    with RawPartner(says(answer(b"1"))) as partner:
        for _ in range(5):
            client.send(ask(partner.url()))
    assert (partner.connections, len(partner.requests)) == (1, 5)


def test_connection_that_the_partner_closed_meanwhile_is_replaced(client: HttpClient) -> None:
    closed = threading.Event()

    def talk(line: socket.socket, _number: int) -> bool:
        line.sendall(answer(b"1"))
        line.shutdown(socket.SHUT_RDWR)
        closed.set()
        return False

    with RawPartner(talk) as partner:
        for _ in range(3):
            assert client.send(ask(partner.url())).body == 1
            assert closed.wait(10)
            closed.clear()
    assert (partner.connections, len(partner.requests)) == (3, 3)


def test_connection_cut_under_a_request_is_an_attempt_of_its_own(client: HttpClient) -> None:
    """It may have been acted on: sending it again is for the retry policy, not for the client."""

    def talk(line: socket.socket, number: int) -> bool:
        if number == 2:
            return False
        line.sendall(answer(b"1"))
        return True

    with RawPartner(talk) as partner:
        client.send(ask(partner.url()))
        failure = failure_of(client, ask(partner.url()))
    assert failure.outcome is AttemptOutcome.LINE_CUT
    assert (partner.connections, len(partner.requests)) == (1, 2)


def test_connection_that_was_idle_for_long_is_replaced(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "MAX_IDLE_SECONDS", -1.0)
    with RawPartner(says(answer(b"1"))) as partner:
        client.send(ask(partner.url()))
        client.send(ask(partner.url()))
    assert partner.connections == 2


@pytest.mark.parametrize(
    "first",
    [
        answer(b"1", b"Connection: close"),
        answer(b"1") + answer(b"2") * 500,  # nobody asked for more
        answer(b"<html>"),
    ],
    ids=["close", "more than asked", "failed"],
)
def test_connection_is_not_kept_after(client: HttpClient, first: bytes) -> None:
    with RawPartner(says(first, answer(b"2"))) as partner:
        with suppress(ExchangeFailed):
            client.send(ask(partner.url()))
        assert client.send(ask(partner.url())).body == 2
    assert partner.connections == 2


def test_idle_connections_are_bounded() -> None:
    client = HttpClient(pool_size=2)
    barrier = threading.Barrier(5)

    def talk(line: socket.socket, _number: int) -> bool:
        barrier.wait(20)
        line.sendall(answer(b"1"))
        return True

    with RawPartner(talk) as partner:
        with ThreadPoolExecutor(5) as threads:
            list(threads.map(lambda _: client.send(ask(partner.url())), range(5)))
        (pool,) = client._pools.values()
        assert len(pool.lines) == 2
        client.close()
    assert partner.connections == 5


def test_threads_get_their_own_answers(client: HttpClient) -> None:
    def echo(line: socket.socket, number: int) -> bool:
        line.sendall(answer(partner.requests[number - 1].partition(b"\r\n\r\n")[2]))
        return True

    with RawPartner(echo) as partner, ThreadPoolExecutor(8) as threads:
        answers = threads.map(
            lambda number: client.send(ask(partner.url(), body=str(number).encode())).body,
            range(200),
        )
        assert list(answers) == list(range(200))
    assert len(partner.requests) == 200


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path, "bank.test")


def _client_for(partner: RawPartner, *, trusts: Path | None) -> HttpClient:
    dialer = Dialer(
        lookup=resolving_to("127.0.0.1", port=partner.port),
        make_tls_context=lambda: ssl.create_default_context(cafile=trusts),
    )
    return HttpClient(pool_size=2, dialer=dialer)


def test_https_to_a_trusted_partner(certificate: Path) -> None:
    context = server_context(certificate)
    with RawPartner(says(answer(b"[1]")), tls=context) as partner:
        client = _client_for(partner, trusts=certificate)
        assert [client.send(ask("https://bank.test/pay")).body for _ in range(3)] == [[1]] * 3
        client.close()
    assert partner.connections == 1
    assert b"\r\nHost: bank.test\r\n" in partner.requests[0]


@pytest.mark.parametrize(
    ("url", "is_trusted"),
    [
        ("https://bank.test/", False),  # nobody vouches for the certificate
        ("https://other.test/", True),  # it is somebody else's
        ("https://127.0.0.1/", True),
    ],
)
def test_certificates_are_always_verified(certificate: Path, url: str, is_trusted: bool) -> None:
    context = server_context(certificate)
    with RawPartner(says(answer(b"1")), tls=context) as partner:
        client = _client_for(partner, trusts=certificate if is_trusted else None)
        failure = failure_of(client, ask(url))
    assert failure.outcome is AttemptOutcome.TLS_FAILED
    assert partner.requests == []


def test_https_to_a_partner_without_tls_fails(certificate: Path) -> None:
    with RawPartner(says(b"HTTP/1.1 400 Bad\r\n\r\n"), is_reading=False) as partner:
        failure = failure_of(_client_for(partner, trusts=certificate), ask("https://bank.test/"))
    assert failure.outcome is AttemptOutcome.TLS_FAILED


def test_handshake_is_within_the_timeout_and_nothing_is_sent(certificate: Path) -> None:
    def talk(_line: socket.socket, _number: int) -> bool:
        partner.ended.wait(20)
        return False

    with RawPartner(talk, is_reading=False) as partner:
        client = _client_for(partner, trusts=certificate)
        began = time.monotonic()
        failure = failure_of(client, ask("https://bank.test/", timeout_ms=300))
        took = time.monotonic() - began
    assert failure.outcome is AttemptOutcome.CONNECT_FAILED
    assert took < PATIENCE_SECONDS


@pytest.mark.parametrize("name", ["silence", "headers", "body"])
def test_timeout_over_tls_is_for_the_whole_answer(certificate: Path, name: str) -> None:
    drip = Drip(*DRIPS[name])
    with RawPartner(drip, tls=server_context(certificate)) as partner:
        client = _client_for(partner, trusts=certificate)
        began = time.monotonic()
        failure = failure_of(client, ask("https://bank.test/", timeout_ms=500))
        took = time.monotonic() - began
        drip.is_over.set()
    assert failure.outcome is AttemptOutcome.TIMED_OUT
    assert took < PATIENCE_SECONDS


# Points of death


def test_points_of_death_are_passed_in_order(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[str] = []
    monkeypatch.setattr(http_client, "reached", passed.append)
    with RawPartner(says(answer(b"1"))) as partner:
        client.send(ask(partner.url()))
    assert passed == ["after-send", "after-answer"]
