"""Which settings of a step its type and mode have a use for. Pure.

An import keeps what has none (publishing says so); an edit by hand that would bring one in is refused.
"""

from __future__ import annotations

from typing import Final

from config.jsonvalues import JsonValue
from workflows.documents import StepDocument, dump_step
from workflows.enums import StepExecutionMode, TriggerTiming
from workflows.errors import Problem

CALL_PATHS: Final = (
    "triggerEndpoint",
    "timeoutMs",
    "retryConfig",
    "config.connection",
    "config.method",
    "config.headers",
    "config.requestMapping",
    "config.status",
    "config.compensation",
)
"""What only a step that calls a partner has a use for."""

_CALLS_NOBODY: Final = (
    "has no use: a CLIENT_ONLY step calls nobody; clear it or choose a server mode"
)
_NOTHING_BEFORE: Final = "must be AFTER_STEP: a CLIENT_ONLY step has nothing to do before it"


def useless_settings(step: StepDocument) -> list[Problem]:
    """The settings that are written in the step and have no use there, each with its path."""
    if step.mode is not StepExecutionMode.CLIENT_ONLY:
        return []
    found = [Problem(path, _CALLS_NOBODY) for path in CALL_PATHS if _is_written(step, path)]
    if step.timing is not TriggerTiming.AFTER_STEP:
        found.append(Problem("triggerTiming", _NOTHING_BEFORE))
    return found


def _is_written(step: StepDocument, path: str) -> bool:
    value: JsonValue = dump_step(step)
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value is not None
