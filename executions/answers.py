"""What the engine answers to a call: values that every door shows in its own way."""

from dataclasses import dataclass, replace
from uuid import UUID

from config.jsonvalues import JsonObject, JsonValue
from executions.errors import FieldError, InputInvalid, TriggerError
from executions.standing import Standing
from workflows.errors import MappingIncomplete, WorkflowError


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """The answer to a step call or a completion.

    `success` says that the call did what it should, `should_proceed` that the flow goes on. With an
    `error_code` the execution may be as it was; `retryable` says whether the same call may succeed
    later. `standing` is the picture after the call, where there is one.
    """

    execution_id: UUID
    success: bool
    should_proceed: bool
    result: JsonValue = None
    error: str | None = None
    error_code: str | None = None
    retryable: bool = False
    retry_after_ms: int | None = None
    field_errors: tuple[FieldError, ...] = ()
    standing: Standing | None = None

    def to_json(self) -> JsonObject:
        """What is recorded of the answer, for a repeat under the same idempotencyKey."""
        return {
            "success": self.success,
            "shouldProceed": self.should_proceed,
            "result": self.result,
            "error": self.error,
            "errorCode": self.error_code,
        }

    @classmethod
    def from_json(
        cls, recorded: JsonObject, *, execution_id: UUID, standing: Standing | None = None
    ) -> "StepAnswer":
        """The answer that `to_json` wrote; only definite answers are recorded."""
        return cls(
            execution_id=execution_id,
            success=recorded["success"] is True,
            should_proceed=recorded["shouldProceed"] is True,
            result=recorded["result"],
            error=_text(recorded["error"]),
            error_code=_text(recorded["errorCode"]),
            standing=standing,
        )

    def with_standing(self, standing: Standing) -> "StepAnswer":
        """The same answer with the picture after the call."""
        return replace(self, standing=standing)


def _text(value: JsonValue) -> str | None:
    return None if value is None else str(value)


def refusal(
    error: WorkflowError, *, execution_id: UUID, standing: Standing | None = None
) -> StepAnswer:
    """The answer that says why a call was refused."""
    return StepAnswer(
        execution_id=execution_id,
        success=False,
        should_proceed=False,
        error=error.message,
        error_code=error.code,
        retryable=error.retryable,
        retry_after_ms=error.retry_after_ms if isinstance(error, TriggerError) else None,
        field_errors=_field_errors(error),
        standing=standing,
    )


def _field_errors(error: WorkflowError) -> tuple[FieldError, ...]:
    if isinstance(error, InputInvalid):
        return error.field_errors
    if isinstance(error, MappingIncomplete):
        return tuple(FieldError(name, "has no value") for name in error.fields)
    return ()
