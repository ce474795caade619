"""What a client is told of an error, and what it is not."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import OperationalError
from graphql import GraphQLError, located_error

from config.graphql import Forbidden, RateLimited, format_error
from executions.errors import ExecutionBusy, FieldError, InputInvalid, TriggerUnavailable
from workflows.errors import (
    DefinitionNotFound,
    DocumentInvalid,
    MappingIncomplete,
    Problem,
    WorkflowError,
)


def told(error: Exception) -> Any:
    """What is told of an error that a resolver raised."""
    return format_error(located_error(error, None, ["field"]))


@pytest.mark.parametrize(
    ("error", "extensions"),
    [
        (Forbidden(), {"code": "FORBIDDEN"}),
        (DefinitionNotFound("No such step."), {"code": "NOT_FOUND"}),
        (
            RateLimited(retry_after_ms=1_500),
            {"code": "RATE_LIMITED", "retryable": True, "retryAfterMs": 1_500},
        ),
        (ExecutionBusy(), {"code": "EXECUTION_BUSY", "retryable": True}),
        (TriggerUnavailable(), {"code": "TRIGGER_UNAVAILABLE", "retryable": True}),
        (
            DocumentInvalid([Problem("steps[0].order", "must be a number")]),
            {
                "code": "BAD_USER_INPUT",
                "problems": [{"path": "steps[0].order", "message": "must be a number"}],
            },
        ),
        (
            InputInvalid([FieldError("/amount", "is required")]),
            {
                "code": "INPUT_INVALID",
                "fieldErrors": [{"path": "/amount", "message": "is required"}],
            },
        ),
        (MappingIncomplete(["a.b"]), {"code": "MAPPING_INCOMPLETE", "fields": ["a.b"]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refusals_are_told_with_their_code(error: Any, extensions: dict[str, Any]) -> None:
    answer = told(error)
    assert answer == {"message": error.message, "path": ["field"], "extensions": extensions}


class LooksAlmostLikeOurs(Exception):
    """Has a code, as exceptions of many libraries do."""

    code = "SECRET_CODE"
    message = "hunter2"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("hunter2"),
        KeyError("hunter2"),
        WorkflowError("hunter2"),  # of no kind that anybody planned to tell
        ValidationError("hunter2", code="HUNTER"),
        LooksAlmostLikeOurs(),
        GraphQLError("hunter2", original_error=RuntimeError("hunter2")),
        RecursionError("hunter2"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_unexpected_is_masked(error: Exception) -> None:
    answer = told(error)
    error_id = answer["extensions"].pop("errorId")
    assert len(error_id) == 16
    assert answer["extensions"] == {"code": "INTERNAL"}
    assert answer["message"] == f"Something went wrong on our side. The error id is {error_id}."


def test_a_database_that_is_away_may_be_asked_again() -> None:
    extensions = told(OperationalError("hunter2"))["extensions"]
    assert len(extensions.pop("errorId")) == 16
    assert extensions == {"code": "SERVICE_UNAVAILABLE", "retryable": True}
