"""What a condition says: whether a step is skipped, and whether the flow goes on after it. Pure.

Both are asked by the engine while a flow runs, and by the back office about a sample.
"""

from __future__ import annotations

from typing import Final

from config.jsonvalues import JsonValue
from workflows.enums import StepExecutionMode
from workflows.errors import ExpressionFailed, WorkflowError
from workflows.expressions import Expression, Scope

_EMPTY: Final[tuple[JsonValue, ...]] = ("", [], {})


def is_skipped(when: Expression | None, context: Scope) -> bool:
    """Whether a step's `when` is false as JMESPath counts it: null, false and what is empty.

    A `when` that cannot be evaluated skips nothing.
    """
    if when is None:
        return False
    try:
        value = when.evaluate(context)
    except WorkflowError:
        return False
    return value is None or value is False or value in _EMPTY


def may_proceed(
    proceed_when: Expression | None, mode: StepExecutionMode, *, result: JsonValue, scope: Scope
) -> bool:
    """Exactly true lets proceed: a text "false" must not move money.

    `scope` has `result`, `input` and `context`. A condition that cannot be evaluated stops.
    """
    if proceed_when is None:
        is_validation = mode is StepExecutionMode.SERVER_VALIDATION
        return not (
            is_validation and isinstance(result, dict) and result.get("valid", True) is not True
        )
    try:
        return proceed_when.evaluate(scope) is True
    except ExpressionFailed:
        return False
