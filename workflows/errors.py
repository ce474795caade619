"""The root of Handrail's errors, and the errors of definitions.

`code` is the `errorCode` of the API, the docstring is the default message, `retryable` says whether
the same call may succeed later, and `details` is what a door may show besides the message.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong with a document: where (`steps[1].retryConfig.maxRetries`) and what."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class WorkflowError(Exception):
    """Something in a workflow went wrong."""

    code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])

    @property
    def message(self) -> str:
        return str(self.args[0])


class DefinitionError(WorkflowError):
    """The definition cannot be used as it is."""

    code = "BAD_USER_INPUT"

    def __init__(self, problems: Sequence[Problem] = (), message: str | None = None) -> None:
        self.problems = tuple(problems)
        super().__init__(message or "; ".join(str(problem) for problem in problems) or None)


class DocumentInvalid(DefinitionError):
    """The workflow document has problems."""


class DraftNotPublishable(DefinitionError):
    """The draft has problems that stop it from being published."""


class GoldenRunsFail(DraftNotPublishable):
    """Golden runs of the workflow fail; each problem's path is the name of one."""


class ExpressionInvalid(DefinitionError):
    """The expression does not parse."""


class SchemaInvalid(DefinitionError):
    """The JSON Schema cannot be used."""


class EndpointForbidden(DefinitionError):
    """The endpoint is not one that its connection may call."""

    code = "ENDPOINT_FORBIDDEN"


class DraftChanged(WorkflowError):
    """The draft has been changed by someone else since you read it; read it again and repeat your edit."""

    code = "BAD_USER_INPUT"


class VersionChanged(WorkflowError):
    """Another version has been published since you looked; look at the difference again."""

    code = "BAD_USER_INPUT"


class GoldenRunChanged(WorkflowError):
    """Somebody else has changed the golden run since you read it; read it again and repeat your edit."""

    code = "BAD_USER_INPUT"


class DefinitionNotFound(WorkflowError):
    """There is no such workflow, step, version or connection."""

    code = "NOT_FOUND"


class WorkflowArchived(WorkflowError):
    """The workflow is archived: it takes no new executions."""

    code = "NOT_FOUND"


class MappingIncomplete(WorkflowError):
    """Values that the request needs are missing."""

    code = "MAPPING_INCOMPLETE"

    def __init__(self, fields: Sequence[str]) -> None:
        self.fields = tuple(fields)
        super().__init__(f"Nothing was sent: no value for {', '.join(self.fields)}.")


class ExpressionFailed(WorkflowError):
    """An expression could not be worked out over this data."""

    code = "MAPPING_INCOMPLETE"
