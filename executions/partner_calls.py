"""What is sent to a partner. A PartnerCall holds what every attempt of a call has in common.

The Idempotency-Key, the body and the trace are the call's and stay the same over its attempts; the
span, the signature and the timeout are the attempt's. Handrail's own headers win over an operator's
of the same name. Pure: time and randomness are handed in.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from urllib.parse import urlencode

from config.jsonvalues import JsonObject, JsonValue
from executions.enums import AttemptOutcome
from executions.http_auth import Credentials, credential_headers
from executions.outcomes import ExchangeFailed, TriggerRequest

USER_AGENT = "handrail"

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110: visible ASCII, obs-text, spaces and tabs; a line end would start a header of its own.
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Caller(Credentials, Protocol):
    """What is needed of a connection; `workflows.connections.ConnectionValue` is one."""

    @property
    def name(self) -> str: ...
    @property
    def allow_private(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerCall:
    """One call to one partner. `url` is absolute and was checked to belong to the connection.

    A GET carries no body: its values belong into the URL (`with_query`). `step_id` is "" for the
    submission.
    """

    connection: Caller
    method: str
    url: str = field(repr=False)
    body: bytes | None = field(repr=False)
    timeout_ms: int
    idempotency_key: str
    execution_id: str
    step_id: str = ""
    trace_id: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    callback_url: str = field(default="", repr=False)

    def request(self, *, timeout_ms: int, span_id: str, now: datetime) -> TriggerRequest:
        """One attempt's request. Raises ExchangeFailed when a header cannot be sent."""
        credentials = credential_headers(
            self.connection, body=self.body or b"", unix_seconds=int(now.timestamp())
        )
        return TriggerRequest(
            method=self.method,
            url=self.url,
            headers=_merge(self._defaults(), self.headers, self._own(span_id), credentials),
            body=self.body,
            timeout_ms=timeout_ms,
            allow_private=self.connection.allow_private,
            connection=self.connection.name,
        )

    def _defaults(self) -> Iterable[tuple[str, str]]:
        yield "Accept", "application/json"
        yield "User-Agent", USER_AGENT
        if self.body is not None:
            yield "Content-Type", "application/json"

    def _own(self, span_id: str) -> Iterable[tuple[str, str]]:
        yield "Idempotency-Key", self.idempotency_key
        yield "X-Workflow-Execution-Id", self.execution_id
        if self.step_id:
            yield "X-Workflow-Step-Id", self.step_id
        if self.callback_url:
            yield "X-Callback-Url", self.callback_url
        yield "traceparent", f"00-{self.trace_id}-{span_id}-01"


def _merge(*layers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    merged: dict[str, tuple[str, str]] = {}
    for layer in layers:
        for name, value in layer:
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ExchangeFailed(AttemptOutcome.FORBIDDEN, "a header cannot be sent")
            merged[name.lower()] = (name, value)
    return tuple(merged.values())


def with_query(url: str, values: JsonObject) -> str:
    """The URL with these in its query: lists repeat a name, null is left out, objects are JSON."""
    pairs = [
        (name, _query_text(item))
        for name, value in values.items()
        for item in (value if isinstance(value, list) else [value])
        if item is not None
    ]
    if not pairs:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(pairs)}"


def _query_text(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
