"""The sandbox partner's own paths: its ledger to read, and faults to ask for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from demo.errors import DemoFailed

_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PartnerCalls:
    """What one path of the partner was asked and what it did."""

    calls: tuple[dict[str, Any], ...]
    effects: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Bank:
    """The partner as the demo looks into it. Handrail itself knows none of these paths."""

    url: str
    _session: requests.Session = field(default_factory=requests.Session, init=False, repr=False)

    def __post_init__(self) -> None:
        self._session.trust_env = False

    def fail_next(self, path: str, **fault: Any) -> None:
        """Let the next call to the path go wrong; docs/sandbox.md has the kinds."""
        self._ask("POST", "/_sandbox/faults", json={"path": path, "fault": fault})

    def seen_at(self, path: str, *, execution: str | None = None) -> PartnerCalls:
        """The calls to a path, of one execution or of all, and their effects, the oldest first."""
        ledger = self._ask("GET", "/_sandbox/ledger", params={"path": path})
        calls = [one for one in ledger["calls"] if execution in (None, _execution_of(one))]
        keys = {call["key"] for call in calls}
        effects = [one for one in ledger["effects"] if execution is None or one["key"] in keys]
        return PartnerCalls(tuple(calls), tuple(effects))

    def call_back_after(self, path: str, milliseconds: int) -> None:
        """Let the next call to the path be answered for good so much later."""
        self._ask(
            "POST",
            "/_sandbox/callback-faults",
            json={"path": path, "fault": {"delayMs": milliseconds}},
        )

    def callbacks_under(self, key: str) -> tuple[dict[str, Any], ...]:
        """The late answers that were posted for the calls of an Idempotency-Key."""
        return tuple(self._ask("GET", "/_sandbox/callbacks", params={"key": key})["callbacks"])

    def count_of_effects(self) -> int:
        """How many effects there are at all."""
        return len(self._ask("GET", "/_sandbox/effects")["effects"])

    def _ask(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        try:
            answer = self._session.request(method, self.url + path, timeout=_SECONDS, **how)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
        except requests.RequestException as error:
            raise DemoFailed(f"The sandbox partner does not answer ({error}).") from error
        return found


def _execution_of(call: Mapping[str, Any]) -> str | None:
    headers = {name.lower(): value for name, value in call["headers"].items()}
    return headers.get("x-workflow-execution-id")
