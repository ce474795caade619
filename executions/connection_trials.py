"""A harmless request to a connection's base URL, and how far it came: name, address, TLS, answer.

It goes the way of every call: the same client, the same egress rules, the same credentials. It asks
no breaker and tells none, because it is there to be used while one is open. HEAD first, and GET
where the partner knows no HEAD. Nothing of the answer but its status is kept or shown.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from executions.dialing import Address, Dialer, Lookup, Origin, look_up
from executions.enums import AttemptOutcome
from executions.http_auth import credential_headers
from executions.http_client import HttpClient
from executions.outcomes import ExchangeFailed, TriggerRequest
from executions.partner_calls import USER_AGENT
from executions.timed_sockets import TimedSocket
from workflows.connections import ConnectionValue, connection_by_name
from workflows.errors import EndpointForbidden

TIMEOUT_MS: Final = 10_000
_WITHOUT_HEAD: Final = frozenset({405, 501})

# The partner has answered, if not with what a trigger could use.
_ANSWERS: Final = frozenset({
    AttemptOutcome.NOT_JSON,
    AttemptOutcome.TOO_LARGE,
    AttemptOutcome.REDIRECTED,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of the way and how long it took; `failed` where the way ended."""

    name: str
    milliseconds: float
    failed: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionTrial:
    """What came of it. `is_reached`: the partner answered, with whatever status.

    `refusal` says why not, in words that name no credential.
    """

    url: str
    method: str
    is_reached: bool
    status: int | None
    phases: tuple[Phase, ...]
    milliseconds: float
    refusal: str = ""

    @property
    def advice(self) -> str:
        """What the answer says about the connection."""
        if not self.is_reached:
            return self.refusal
        if self.status in (401, 403):
            return "The partner is there, and refuses the credentials or this address."
        if self.status is not None and self.status >= 500:
            return "The partner is there, and has a fault of its own."
        return "The partner is there. Its base URL need not be one that it knows."


def try_connection(name: str, *, now: datetime, lookup: Lookup = look_up) -> ConnectionTrial:
    """Send it now; takes ten seconds for each of two requests at most. Never raises."""
    try:
        connection = connection_by_name(name)
    except EndpointForbidden as error:
        return _never_sent(name, error.message)
    trial = _sent(connection, "HEAD", now=now, lookup=lookup)
    if trial.status in _WITHOUT_HEAD:
        return _sent(connection, "GET", now=now, lookup=lookup)
    return trial


def _never_sent(name: str, refusal: str) -> ConnectionTrial:
    return ConnectionTrial(name, "HEAD", False, None, (), 0.0, refusal)  # noqa: FBT003 - a record


def _sent(
    connection: ConnectionValue, method: str, *, now: datetime, lookup: Lookup
) -> ConnectionTrial:
    dialer = _Stopwatch(lookup=lookup)
    client = HttpClient(pool_size=0, dialer=dialer)
    headers = (
        ("Accept", "application/json"),
        ("User-Agent", USER_AGENT),
        *credential_headers(connection, body=b"", unix_seconds=int(now.timestamp())),
    )
    request = TriggerRequest(
        method=method,
        url=connection.base_url,
        headers=headers,
        body=None,
        timeout_ms=TIMEOUT_MS,
        allow_private=connection.allow_private,
        connection=connection.name,
    )
    status: int | None = None
    refusal = ""
    is_reached = True
    begun = time.monotonic()
    try:
        status = client.send(request).status
    except ExchangeFailed as failure:
        status = failure.status
        is_reached = status is not None or failure.outcome in _ANSWERS
        refusal = _words(failure)
    finally:
        client.close()
    total = _since(begun)
    return ConnectionTrial(
        url=connection.base_url,
        method=method,
        is_reached=is_reached,
        status=status,
        phases=_phases(dialer.phases, total, is_reached=is_reached),
        milliseconds=total,
        refusal=refusal,
    )


def _words(failure: ExchangeFailed) -> str:
    return failure.reason[:1].upper() + failure.reason[1:] + "."


def _phases(begun: Sequence[Phase], total: float, *, is_reached: bool) -> tuple[Phase, ...]:
    """The parts of the way in their order; what is left of the time was spent on the answer."""
    if any(phase.failed for phase in begun):
        return tuple(begun)
    rest = total - sum(phase.milliseconds for phase in begun)
    return (*begun, Phase("Request and answer", max(rest, 0.0), failed=not is_reached))


def _since(begun: float) -> float:
    return (time.monotonic() - begun) * 1000


class _Stopwatch(Dialer):
    """The dialer of every call, that takes down how long each part of the way took."""

    def __init__(self, *, lookup: Lookup) -> None:
        super().__init__(lookup=lookup)
        self.phases: list[Phase] = []

    def _connect(self, origin: Origin, *, until: float) -> TimedSocket:
        with self._timed("Connection"):
            return super()._connect(origin, until=until)

    def _resolve(self, host: str, port: int, *, until: float) -> Sequence[Address]:
        with self._timed("Name lookup"):
            return super()._resolve(host, port, until=until)

    def _wrap(self, line: TimedSocket, origin: Origin, *, until: float) -> TimedSocket:
        with self._timed("TLS handshake"):
            return super()._wrap(line, origin, until=until)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begun, known = time.monotonic(), len(self.phases)
        failed = True
        try:
            yield
            failed = False
        finally:
            # A part within this one is not counted twice, and tells itself whether it failed.
            inner = self.phases[known:]
            own = _since(begun) - sum(phase.milliseconds for phase in inner)
            if not any(phase.failed for phase in inner):
                self.phases.append(Phase(name, max(own, 0.0), failed))
