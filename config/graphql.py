"""What every part of the API shares: the JSON scalar, the request context, and how errors are told.

A client sees an error's text only when we wrote it: our own errors, refusals of the engine (`code`,
`message`, `retryable`), and what GraphQL says about a document. Everything else is masked as
INTERNAL with an error id; the log has the id and the traceback.
"""

import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

import graphene
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest
from graphql import GraphQLError, GraphQLFormattedError
from graphql.language import (
    BooleanValueNode,
    EnumValueNode,
    FieldNode,
    FloatValueNode,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    ObjectValueNode,
    StringValueNode,
    ValueNode,
    VariableNode,
)
from graphql.pyutils import Undefined

from config.identity import Identity
from config.jsonvalues import MAX_INTEGER_DIGITS, JsonRefused, JsonValue, check_storable

logger = logging.getLogger("handrail.graphql")

_CODE = re.compile(r"[A-Z][A-Z_]{1,63}")


# --- errors ---------------------------------------------------------------------------------------


class ApiError(GraphQLError):
    """The request was refused."""

    code: ClassVar[str] = "BAD_USER_INPUT"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, **extensions: Any) -> None:
        told = {"code": self.code, **({"retryable": True} if self.retryable else {}), **extensions}
        super().__init__(
            message or (type(self).__doc__ or "").strip().splitlines()[0], extensions=told
        )


class Unauthenticated(ApiError):
    """A valid bearer token is needed."""

    code = "UNAUTHENTICATED"


class Forbidden(ApiError):
    """You may not do this."""

    code = "FORBIDDEN"


class BadUserInput(ApiError):
    """The request is not one that can be answered."""

    code = "BAD_USER_INPUT"


class QueryTooComplex(ApiError):
    """The query asks for too much at once."""

    code = "QUERY_TOO_COMPLEX"


class RateLimited(ApiError):
    """Too many requests; try again later."""

    code = "RATE_LIMITED"
    retryable = True

    def __init__(self, *, retry_after_ms: int) -> None:
        super().__init__(retryAfterMs=retry_after_ms)


class ServiceUnavailable(ApiError):
    """The service cannot answer at the moment; the same call may be sent again shortly."""

    code = "SERVICE_UNAVAILABLE"
    retryable = True


def format_error(error: GraphQLError) -> GraphQLFormattedError:
    """The error as a client may see it; the unexpected is logged and masked here."""
    message, extensions = _told(error)
    formatted: GraphQLFormattedError = {"message": message}
    if error.locations:
        formatted["locations"] = [location.formatted for location in error.locations]
    if error.path is not None:
        formatted["path"] = error.path
    formatted["extensions"] = extensions
    return formatted


def _told(error: GraphQLError) -> tuple[str, dict[str, Any]]:
    cause = _cause(error)
    if isinstance(cause, ApiError):
        return cause.message, dict(cause.extensions or {})
    if isinstance(cause, GraphQLError):
        if _is_about_the_request(error):
            return error.message, {"code": "BAD_USER_INPUT"}
    elif _is_refusal(cause):
        return cause.message, _refusal_extensions(cause)  # type: ignore[attr-defined]  # duck-typed
    return mask(cause)


def _cause(error: GraphQLError) -> Exception:
    """What was raised in the first place, below the layers GraphQL wraps around it."""
    cause: Exception = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    return cause


def _is_about_the_request(error: GraphQLError) -> bool:
    """What is wrong with a document or argument; else a value of ours does not fit its field."""
    return error.path is None or not any(isinstance(node, FieldNode) for node in error.nodes or ())


def _is_refusal(cause: Exception) -> bool:
    """Errors of the engine, by their shape: `config` stands below them and cannot name them."""
    code = getattr(cause, "code", None)
    return (
        isinstance(code, str)
        and code != "INTERNAL"
        and _CODE.fullmatch(code) is not None
        and isinstance(getattr(cause, "message", None), str)
        and isinstance(getattr(cause, "retryable", None), bool)
    )


def _refusal_extensions(cause: Exception) -> dict[str, Any]:
    extensions: dict[str, Any] = {"code": cause.code}  # type: ignore[attr-defined]  # see _is_refusal
    if cause.retryable:  # type: ignore[attr-defined]  # see _is_refusal
        extensions["retryable"] = True
    if isinstance(retry_after_ms := getattr(cause, "retry_after_ms", None), int):
        extensions["retryAfterMs"] = retry_after_ms
    for name, told in (("problems", "problems"), ("field_errors", "fieldErrors")):
        if found := getattr(cause, name, ()):
            extensions[told] = [{"path": one.path, "message": one.message} for one in found]
    if fields := getattr(cause, "fields", ()):
        extensions["fields"] = list(fields)
    return extensions


def mask(cause: Exception) -> tuple[str, dict[str, Any]]:
    """The message and extensions that stand for an unexpected error; the log has its id."""
    error_id = secrets.token_hex(8)
    logger.error("Unexpected error %s", error_id, exc_info=cause, extra={"error_id": error_id})
    if isinstance(cause, OperationalError | InterfaceError):  # the database is away, not broken
        unavailable = ServiceUnavailable(errorId=error_id)
        return unavailable.message, dict(unavailable.extensions or {})
    message = f"Something went wrong on our side. The error id is {error_id}."
    return message, {"code": "INTERNAL", "errorId": error_id}


# --- what resolvers get ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestContext:
    """`info.context` of every resolver: who asks, when (taken once), and a cache for loaders."""

    identity: Identity | None
    request: HttpRequest
    now: datetime
    cache: dict[Any, Any] = field(default_factory=dict)

    def require_identity(self) -> Identity:
        """The caller. Raises Unauthenticated."""
        if self.identity is None:
            raise Unauthenticated
        return self.identity

    def require_permission(self, name: str) -> Identity:
        """The caller, who has the permission `name`. Raises Unauthenticated or Forbidden."""
        identity = self.require_identity()
        if not identity.has_permission(name):
            raise Forbidden
        return identity


# --- the JSON scalar ------------------------------------------------------------------------------


class JSON(graphene.Scalar):  # type: ignore[misc]  # graphene has no types
    """Any JSON value: as a variable, or written inline, with variables inside it."""

    @staticmethod
    def serialize(value: Any) -> Any:
        """The value as it is: what we keep went through `parse_value` or `parse_literal`."""
        return value

    @staticmethod
    def parse_value(value: Any) -> JsonValue:
        """The value of a variable, integers exact. Raises BadUserInput for the unstorable."""
        return _storable(value)

    @staticmethod
    def parse_literal(
        node: ValueNode, variable_values: Mapping[str, Any] | None = None
    ) -> JsonValue:
        """The value written in the document; a variable that was not given leaves its key out."""
        value = _from_literal(node, variable_values or {})
        return None if value is Undefined else _storable(value)


def _storable(value: JsonValue) -> JsonValue:
    try:
        check_storable(value)
    except JsonRefused as error:
        raise BadUserInput(f"JSON cannot represent this value: {error}") from None
    return value


def _from_literal(node: ValueNode, variables: Mapping[str, Any]) -> Any:  # noqa: PLR0911  # a case each
    """graphql-core's `value_from_ast_untyped`, but with big integers refused in words and absent
    variables kept out of objects (it leaves its `Undefined` marker in them)."""
    match node:
        case ObjectValueNode():
            pairs = ((one.name.value, _from_literal(one.value, variables)) for one in node.fields)
            return {name: value for name, value in pairs if value is not Undefined}
        case ListValueNode():
            items = (_from_literal(item, variables) for item in node.values)
            return [None if item is Undefined else item for item in items]
        case VariableNode():
            return variables.get(node.name.value, Undefined)
        case IntValueNode():
            return _integer(node.value)
        case FloatValueNode():
            return float(node.value)
        case NullValueNode():
            return None
        case StringValueNode() | BooleanValueNode() | EnumValueNode():
            return node.value
    raise BadUserInput("JSON cannot represent this value.")


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise BadUserInput(f"an integer may have {MAX_INTEGER_DIGITS} digits")
    return int(digits)
