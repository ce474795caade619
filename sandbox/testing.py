"""The sandbox partner inside a test: a real HTTP server on a free loopback port."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from config.jsonvalues import JsonObject, JsonValue, dump_compact

from .callback_sender import PAUSES_SECONDS, USUAL_DELAY_MS
from .callbacks import (
    CallbackAnswer,
    CallbackDelivery,
    CallbackSignature,
    CallbackTiming,
    make_callback_fault,
)
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
        callback_secret: str | None = None,
        callback_delay_ms: int = USUAL_DELAY_MS,
        callback_pauses: Sequence[float] = PAUSES_SECONDS,
    ) -> None:
        """Listen at once; `require` is what `sandbox_partner --require` takes.

        `callback_secret` signs callbacks; a callback that is not taken is posted again after each
        of `callback_pauses`, in seconds, and then given up.
        """
        requirement = None if require is None else parse_requirement(require)
        self._partner = Partner(
            requirement=requirement,
            latency_ms=latency_ms,
            callback_secret=callback_secret,
            callback_delay_ms=callback_delay_ms,
            callback_pauses=callback_pauses,
        )
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

    def answer_later(
        self,
        path: str,
        body: JsonValue = None,
        *,
        delay_ms: int | None = None,
        ack: JsonValue = None,
        status: int = 202,
        times: int | None = None,
    ) -> None:
        """Answer calls to the path with a 202 and post the result to their callback URL.

        The body is the result; without one the bank does its work, and its answer is the result
        (what it refuses it refuses at once). Calls without a callback URL get the result at once.
        A repeat under the same key gets the same `ack` and another callback with the same body.
        """
        fault = make_fault(FaultKind.ANSWER_LATER, status=status, body=body, ms=delay_ms, ack=ack)
        self._partner.faults.add(path, fault, times=times)

    def callback_fault(
        self,
        path: str,
        *,
        times: int | None = 1,
        timing: CallbackTiming | str = CallbackTiming.USUAL,
        delay_ms: int | None = None,
        copies: int = 1,
        bodies: Sequence[JsonValue] = (),
        changes: JsonObject | None = None,
        wrong_token: bool = False,
        signature: CallbackSignature | str = CallbackSignature.GOOD,
    ) -> None:
        """Let the callbacks of the next `times` calls to the path be odd, in all these ways at once.

        "early" posts before the call is answered, "never" not at all. `bodies` are posted one after
        the other in place of the result (two make a conflict), `changes` are laid over the result,
        and each body goes out `copies` times. ValueError when this makes no sense.
        """
        fault = make_callback_fault(
            timing=timing,
            delay_ms=delay_ms,
            copies=copies,
            bodies=tuple(bodies),
            changes=changes,
            wrong_token=wrong_token,
            signature=signature,
        )
        self._partner.callback_faults.add(path, fault, times=times)

    def send_callback(
        self,
        url: str,
        body: "JsonValue | bytes",
        *,
        signature: CallbackSignature | str = CallbackSignature.GOOD,
        secret: str | None = None,
    ) -> CallbackAnswer:
        """Post a callback by hand, once, and return what it was answered; bytes go as they are.

        OSError or http.client.HTTPException when nobody answers. `callbacks` does not list it.
        """
        data = body if isinstance(body, bytes) else dump_compact(body)
        return self._partner.callbacks.post(
            url, data, signature=CallbackSignature(signature), secret=secret
        )

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

    def callbacks(self, path: str | None = None) -> list[CallbackDelivery]:
        """The callbacks of calls to the path, also those still to come; the latest 50,000."""
        return self._partner.callbacks.deliveries(path)

    def wait_for_callbacks(
        self, count: int, path: str | None = None, *, timeout: float = 10.0
    ) -> None:
        """Return when that many callbacks have ended, taken or given up; else AssertionError."""
        if not self._partner.callbacks.wait_for_ended(count, path, timeout):
            ended = self._partner.callbacks.count_ended(path)
            raise AssertionError(f"{ended} of {count} callbacks ended within {timeout} s")

    def reset(self) -> None:
        """Forget calls, effects, balances, callbacks (those to come too) and faults."""
        self._partner.reset()
