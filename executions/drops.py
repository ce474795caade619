"""Why a person did not get past a step. Pure.

What the last call said comes first: who was refused by a partner and went away was lost to the
partner's refusal. Without such a word it is how the execution ended, or that nobody calls any more.
"""

from typing import Final

from executions.enums import DropCause, ErrorCode, WorkflowExecutionStatus

LIVE: Final = ""
COMPLETED: Final = WorkflowExecutionStatus.COMPLETED.value
CANCELLED: Final = WorkflowExecutionStatus.CANCELLED.value

_OF_CODE: Final = {
    ErrorCode.VALIDATION_REJECTED.value: DropCause.BOUNCED,
    ErrorCode.NOT_ACCEPTED.value: DropCause.BOUNCED,
    ErrorCode.TRIGGER_REJECTED.value: DropCause.PARTNER_ERROR,
    ErrorCode.TRIGGER_UNAVAILABLE.value: DropCause.PARTNER_ERROR,
    ErrorCode.TRIGGER_BAD_RESPONSE.value: DropCause.PARTNER_ERROR,
    ErrorCode.TRIGGER_TIMEOUT.value: DropCause.PARTNER_TIMEOUT,
}


def cause_of(*, outcome: str, last_code: str, is_idle: bool) -> DropCause | None:
    """The cause; None for who completed. `outcome` as WorkflowExecution.outcome has it."""
    if outcome == COMPLETED:
        return None
    if outcome == CANCELLED:
        return DropCause.CANCELLED
    if outcome == LIVE and not is_idle:
        return DropCause.UNDER_WAY
    if last_code:
        return _OF_CODE.get(last_code, DropCause.OTHER)
    if outcome == LIVE:
        return DropCause.LEFT
    return DropCause.EXPIRED if outcome == ErrorCode.SESSION_EXPIRED else DropCause.OTHER
