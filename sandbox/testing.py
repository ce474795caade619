"""The sandbox partner inside a test: a real HTTP server on a free loopback port."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from config.jsonvalues import JsonValue

from .credentials import parse_requirement
from .faults import MAX_WAIT_MS, FaultEffect, FaultKind, make_fault
from .ledger import Call, Effect
from .partner import Partner
from .server import PartnerServer


class FakePartner:
    """`with FakePartner() as partner:` starts it; leaving ends every connection and thread.

    All methods may be called from any thread. A path may end in `*` for faults, answers and holds.
    """

    def __init__(
        self,
        *,
        require: str | None = None,
        latency_ms: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Listen at once; `require` is what `sandbox_partner --require` takes."""
        requirement = None if require is None else parse_requirement(require)
        self._partner = Partner(requirement=requirement, latency_ms=latency_ms)
        self._server = PartnerServer(self._partner, host=host, port=port)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address without a slash at its end."""
        return self._server.url

    def stop(self) -> None:
        """End it before the block ends, as a partner that goes down does."""
        self._server.stop()

    def fault(
        self,
        path: str,
        kind: FaultKind | str,
        *,
        times: int | None = 1,
        effect: FaultEffect | str | None = None,
        status: int | None = None,
        ms: int | None = None,
        size: int | None = None,
        retry_after: int | str | None = None,
        headers: dict[str, str] | None = None,
        body: JsonValue = None,
        location: str | None = None,
        reset: bool = False,
        chunked: bool = False,
    ) -> None:
        """Let the next `times` calls to the path go wrong (None: all until `reset`).

        docs/sandbox.md has the kinds; ValueError when the fault makes no sense.
        """
        fault = make_fault(
            kind,
            effect=effect,
            status=status,
            ms=ms,
            size=size,
            retry_after=retry_after,
            headers=headers,
            body=body,
            location=location,
            reset=reset,
            chunked=chunked,
        )
        self._partner.faults.add(path, fault, times=times)

    def answer(
        self,
        path: str,
        body: JsonValue,
        *,
        status: int = 200,
        times: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer calls to the path with this, not as the bank would; 2xx is one effect per key."""
        self.fault(path, FaultKind.ANSWER, status=status, body=body, times=times, headers=headers)

    @contextmanager
    def hold(
        self, path: str, *, times: int | None = 1, effect: FaultEffect | str = FaultEffect.BEFORE
    ) -> Iterator[threading.Event]:
        """Keep calls to the path waiting for answers until the block ends or the event is set.

        With the effect "before" it has happened while the call waits, with "after" it happens then.
        """
        gate = threading.Event()
        fault = make_fault(FaultKind.LATENCY, effect=effect, ms=MAX_WAIT_MS)
        self._partner.faults.add(path, replace(fault, gate=gate), times=times)
        try:
            yield gate
        finally:
            gate.set()

    def effects(self, path: str | None = None) -> list[Effect]:
        """What was done, once per Idempotency-Key, the oldest first."""
        return self._partner.ledger.effects(path)

    def calls(self, path: str | None = None) -> list[Call]:
        """What was asked under `/api/`, the oldest first; the latest 10,000."""
        return self._partner.ledger.calls(path)

    def wait_for_calls(self, count: int, path: str | None = None, *, timeout: float = 5.0) -> None:
        """Return when that many calls have arrived since the reset; AssertionError if too late."""
        if not self._partner.ledger.wait_for_calls(count, path, timeout):
            arrived = len(self.calls(path))
            raise AssertionError(f"{arrived} of {count} calls arrived within {timeout} s")

    def reset(self) -> None:
        """Forget calls, effects, balances and faults."""
        self._partner.reset()
