"""Opening a line to a partner: look up once, check, connect to the address that was checked.

Nothing resolves the name a second time, so a name that changes its mind in between (rebinding)
gains nothing. Lookups have no timeout of their own in any operating system: they run in threads,
one per name at a time.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

import certifi

from executions.enums import AttemptOutcome
from executions.outcomes import ExchangeFailed
from executions.timed_sockets import TimedSocket, TimedTLSSocket
from workflows.egress import is_address_allowed

Address = tuple[socket.AddressFamily, Any]
Lookup = Callable[[str, int], Sequence[Address]]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a line leads to; one opened with a permission is never used without it."""

    scheme: str
    host: str
    port: int
    allow_private: bool


def look_up(host: str, port: int) -> list[Address]:
    """The stream addresses of a host, in the order in which to try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


class Dialer:
    """Opens lines; safe to share between threads."""

    def __init__(
        self,
        *,
        lookup: Lookup = look_up,
        make_tls_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._lookup = lookup
        self._make_tls_context = make_tls_context
        self._tls_context: ssl.SSLContext | None = None
        self._lookups: dict[tuple[str, int], Future[Sequence[Address]]] = {}
        self._lock = threading.Lock()

    def dial(self, origin: Origin, *, until: float) -> TimedSocket:
        """An open line, over TLS for https. Raises ExchangeFailed; nothing was sent then."""
        line = self._connect(origin, until=until)
        if origin.scheme != "https":
            return line
        try:
            return self._wrap(line, origin, until=until)
        except BaseException:
            line.close()
            raise

    def _connect(self, origin: Origin, *, until: float) -> TimedSocket:
        addresses = self._allowed_addresses(origin, until=until)
        failure: OSError | None = None
        for index, (family, address) in enumerate(addresses):
            now = time.monotonic()
            # An address that swallows packets must not eat the time of the next one.
            share = (until - now) / (len(addresses) - index)
            try:
                return _open(family, address, until=now + share)
            except OSError as error:
                failure = error
        raise ExchangeFailed(AttemptOutcome.CONNECT_FAILED, "no connection") from failure

    def _allowed_addresses(self, origin: Origin, *, until: float) -> list[Address]:
        try:
            found = self._resolve(origin.host, origin.port, until=until)
        except (OSError, UnicodeError) as error:
            raise ExchangeFailed(
                AttemptOutcome.CONNECT_FAILED, "the host's name was not resolved"
            ) from error
        allowed = [
            (family, address)
            for family, address in found
            if is_address_allowed(address[0], allow_private=origin.allow_private)
        ]
        if found and not allowed:
            raise ExchangeFailed(
                AttemptOutcome.FORBIDDEN, "the host's address is not one that may be called"
            )
        return allowed

    def _resolve(self, host: str, port: int, *, until: float) -> Sequence[Address]:
        key = (host, port)
        with self._lock:
            pending = self._lookups.get(key)
            if pending is None:
                pending = self._lookups[key] = Future()
                threading.Thread(
                    target=self._finish_lookup, args=(key, pending), name="lookup", daemon=True
                ).start()
        return pending.result(timeout=max(0.0, until - time.monotonic()))

    def _finish_lookup(self, key: tuple[str, int], pending: "Future[Sequence[Address]]") -> None:
        try:
            addresses = self._lookup(*key)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            self._forget_lookup(key)
            pending.set_exception(error)
        else:
            self._forget_lookup(key)
            pending.set_result(addresses)

    def _forget_lookup(self, key: tuple[str, int]) -> None:
        with self._lock:
            del self._lookups[key]

    def _wrap(self, line: TimedSocket, origin: Origin, *, until: float) -> TimedSocket:
        try:
            secure = self._context().wrap_socket(
                line, server_hostname=origin.host, do_handshake_on_connect=False
            )
            return _shake_hands(cast(TimedTLSSocket, secure), until=until)
        except (ssl.SSLError, ValueError) as error:
            raise ExchangeFailed(AttemptOutcome.TLS_FAILED, "the TLS handshake failed") from error
        except OSError as error:
            raise ExchangeFailed(AttemptOutcome.CONNECT_FAILED, "no TLS handshake") from error

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls_context is None:
                self._tls_context = _prepare(self._make_tls_context())
            return self._tls_context


def _open(family: socket.AddressFamily, address: Any, *, until: float) -> TimedSocket:
    line = TimedSocket(family, socket.SOCK_STREAM)
    try:
        line.allow(until=until, read_bytes=0)
        line.arm()
        line.connect(address)
        # Head and body leave in two pieces; Nagle would hold the second one back.
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        line.close()
        raise
    return line


def _shake_hands(line: TimedTLSSocket, *, until: float) -> TimedTLSSocket:
    try:
        line.allow(until=until, read_bytes=0)
        line.arm()
        line.do_handshake()
    except BaseException:
        line.close()
        raise
    return line


def _prepare(context: ssl.SSLContext) -> ssl.SSLContext:
    context.sslsocket_class = TimedTLSSocket
    context.set_alpn_protocols(["http/1.1"])
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:
        # A Python that was built elsewhere knows no certificates of this system.
        context.load_verify_locations(certifi.where())
    return context
