"""One bounded HTTP/1.1 exchange with a partner, over kept connections.

Whatever the other side does, an exchange ends within its timeout, counted from the name lookup to
the last byte, and reads about one answer's worth of memory. No proxy, netrc, cookie or redirect is
ever followed. It stands on http.client and not on requests: see docs/decisions/outgoing-http.md.
"""

import http.client
import io
import re
import select
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol
from urllib.parse import SplitResult, urlsplit

from config.killpoints import reached
from executions.dialing import Dialer, Origin
from executions.enums import AttemptOutcome
from executions.outcomes import ExchangeFailed, TriggerRequest, TriggerResponse, parse_retry_after
from executions.partner_json import read_json
from executions.timed_sockets import ReadLimitExceeded, TimedSocket

MAX_BODY_BYTES = 1 << 20
# Room for headers and for the framing of a chunked body.
MAX_READ_BYTES = 2 * MAX_BODY_BYTES + (256 << 10)
# Many servers close after 5 idle seconds; what is sent into that moment has an unknown outcome.
MAX_IDLE_SECONDS = 4.0
MAX_HEADERS = 100
MAX_HEADER_BYTES = 65_536

_VISIBLE = re.compile(r"[!-~]+")
_PORTS = {"http": 80, "https": 443}


class Client(Protocol):
    """Who makes an exchange; `HttpClient` is one, a fake in tests another."""

    def send(self, request: TriggerRequest) -> TriggerResponse:
        """The partner's answer of any status. Raises ExchangeFailed when there is none to read."""


class _Reader(io.BufferedReader):
    """Whole lines only: http.client takes a head that was cut off for one that ended."""

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size:
            raise http.client.IncompleteRead(line)
        return line


class _Answer(http.client.HTTPResponse):
    """An answer without its forerunners: http.client takes a 103 for the answer itself.

    The head is read here, and not as the head of an e-mail, which is half of what http.client does
    in an exchange.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = _Reader(self.fp.detach())

    def begin(self) -> None:
        is_forerunner = True
        while is_forerunner:
            version, status, reason = self._read_status()  # type: ignore[attr-defined] # not in the stubs
            head = _read_head(self.fp)
            is_forerunner = 100 <= status < 200 and status != 101
        if not version.startswith("HTTP/1."):
            raise http.client.UnknownProtocol(version)
        self.version = 10 if version == "HTTP/1.0" else 11
        self.code = self.status = status
        self.reason = reason
        self.headers = self.msg = head  # type: ignore[assignment] # all it is asked for is `get`
        self.chunked = head.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        self.length = self._announced_length(head)
        self.will_close = self._check_close() or (  # type: ignore[attr-defined] # not in the stubs
            self.length is None and not self.chunked
        )

    def getheader(self, name: str, default: Any = None) -> Any:
        return self.headers.get(name.lower(), default)

    def _announced_length(self, head: Mapping[str, str]) -> int | None:
        if self.status in (101, 204, 304) or self._method == "HEAD":  # type: ignore[attr-defined]  # the same
            return 0
        length = head.get("content-length", "")
        return int(length) if length.isdecimal() and not self.chunked else None


def _read_head(file: io.BufferedReader) -> dict[str, str]:
    """The headers by their names in lower case; of one that comes twice, the first."""
    head: dict[str, str] = {}
    for _ in range(MAX_HEADERS + 1):
        line = file.readline(MAX_HEADER_BYTES + 1)
        if len(line) > MAX_HEADER_BYTES:
            raise http.client.LineTooLong("header")
        if line in (b"\r\n", b"\n"):
            return head
        name, _, value = line.decode("latin-1").partition(":")
        head.setdefault(name.lower(), value.strip())
    raise http.client.HTTPException("too many headers")


class _Line(http.client.HTTPConnection):
    """A kept connection, whose socket somebody else opens."""

    response_class = _Answer
    auto_open = 0

    def __init__(self, origin: Origin, sock: TimedSocket) -> None:
        super().__init__(origin.host, origin.port)
        self.default_port = _PORTS[origin.scheme]
        self.sock: TimedSocket = sock
        self.idle_since = 0.0

    def is_usable(self) -> bool:
        """Whether the partner has neither closed the line nor sent what nobody asked for."""
        if time.monotonic() - self.idle_since > MAX_IDLE_SECONDS:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)


@dataclass(slots=True)
class _Pool:
    """The idle lines to one origin, the last one used on top."""

    size: int
    lines: deque[_Line] = field(default_factory=deque)

    def take(self) -> _Line | None:
        while True:
            try:
                line = self.lines.pop()
            except IndexError:
                return None
            if line.is_usable():
                return line
            line.close()

    def give_back(self, line: _Line) -> None:
        line.idle_since = time.monotonic()
        self.lines.append(line)
        if len(self.lines) > self.size:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            self.lines.popleft().close()
        except IndexError:
            return

    def close(self) -> None:
        while self.lines:
            self._drop_oldest()


class HttpClient:
    """Sends requests; one for the process, safe to share between threads.

    `pool_size` idle connections are kept per origin: as many as threads may call it at a time.
    """

    def __init__(
        self,
        *,
        pool_size: int,
        dialer: Dialer | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool_size = pool_size
        self._dialer = dialer or Dialer()
        self._now = now
        self._pools: dict[Origin, _Pool] = {}

    def send(self, request: TriggerRequest) -> TriggerResponse:
        """The partner's answer of any status. Raises ExchangeFailed when there is none to read."""
        until = time.monotonic() + request.timeout_ms / 1000
        parts = _split(request.url)
        origin = _origin(parts, allow_private=request.allow_private)
        pool = self._pools.get(origin) or self._add_pool(origin)
        line = pool.take() or _Line(origin, self._dialer.dial(origin, until=until))
        is_kept = False
        try:
            line.sock.allow(until=until, read_bytes=MAX_READ_BYTES)
            with closing(_exchange(line, request, parts)) as answer:
                response = self._read(answer)
                is_kept = answer.isclosed() and not answer.will_close
        finally:
            if is_kept:
                pool.give_back(line)
            else:
                line.close()
        return response

    def close(self) -> None:
        """Close the idle connections."""
        for pool in self._pools.values():
            pool.close()

    def _add_pool(self, origin: Origin) -> _Pool:
        # setdefault is atomic: two threads that come first share one pool.
        return self._pools.setdefault(origin, _Pool(self._pool_size))

    def _read(self, answer: http.client.HTTPResponse) -> TriggerResponse:
        asked = answer.getheader("Retry-After")
        retry_after_ms = parse_retry_after(asked, now=self._now()) if asked else None
        try:
            coding = answer.getheader("Content-Encoding") or "identity"
            body = read_json(_read_body(answer), coding=coding, max_bytes=MAX_BODY_BYTES)
        except ExchangeFailed as failure:
            if 200 <= answer.status < 300:
                failure.status = answer.status
                raise
            # The status says enough: a refusal is one whatever its text is.
            body = None
        reached("after-answer")
        return TriggerResponse(answer.status, body, retry_after_ms)


def _split(url: str) -> SplitResult:
    # urlsplit drops line ends and tabs without a word, and a space would end the request line.
    if not _VISIBLE.fullmatch(url):
        raise ExchangeFailed(AttemptOutcome.FORBIDDEN, "the URL is not one to be called")
    return urlsplit(url)


def _origin(parts: SplitResult, *, allow_private: bool) -> Origin:
    try:
        port = parts.port
    except ValueError as error:
        raise ExchangeFailed(AttemptOutcome.FORBIDDEN, "the URL has no valid port") from error
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ExchangeFailed(AttemptOutcome.FORBIDDEN, "the URL is not one to be called")
    return Origin(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], allow_private)


def _exchange(line: _Line, request: TriggerRequest, parts: SplitResult) -> http.client.HTTPResponse:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        _send(line, request, target)
        reached("after-send")
        return line.getresponse()
    except (OSError, http.client.HTTPException, ReadLimitExceeded, ValueError) as error:
        _give_up(error)


def _send(line: _Line, request: TriggerRequest, target: str) -> None:
    try:
        line.request(request.method, target, request.body, dict(request.headers))
    except (BrokenPipeError, ConnectionResetError):
        # The partner may have refused before it read everything: its answer is waiting then.
        return
    except (http.client.InvalidURL, ValueError) as error:
        raise ExchangeFailed(AttemptOutcome.FORBIDDEN, "the request cannot be sent") from error


def _read_body(answer: http.client.HTTPResponse) -> bytes:
    """The whole body as it was sent, at most MAX_BODY_BYTES."""
    length = answer.length
    if length is not None and length > MAX_BODY_BYTES:
        raise ExchangeFailed(AttemptOutcome.TOO_LARGE, "the answer is too large")
    try:
        # Only a read without a number notices that a body of known length was cut.
        body = answer.read() if length is not None else answer.read(MAX_BODY_BYTES + 1)
    except (OSError, http.client.HTTPException, ReadLimitExceeded, ValueError) as error:
        _give_up(error)
    if len(body) > MAX_BODY_BYTES:
        raise ExchangeFailed(AttemptOutcome.TOO_LARGE, "the answer is too large")
    return body


def _give_up(error: Exception) -> NoReturn:
    """Say how an exchange ended that had begun."""
    match error:
        case TimeoutError():
            outcome, reason = AttemptOutcome.TIMED_OUT, "no whole answer in time"
        case OSError() | http.client.IncompleteRead():
            outcome, reason = AttemptOutcome.LINE_CUT, "the connection was lost"
        case ReadLimitExceeded():
            outcome, reason = AttemptOutcome.TOO_LARGE, "the answer does not end"
        case _:
            outcome, reason = AttemptOutcome.NOT_JSON, "the answer is not HTTP"
    raise ExchangeFailed(outcome, reason) from error
