"""The request's body: read within its bounds, and taken apart exactly.

Integers stay exact; NaN, bad UTF-8, NUL characters, lone surrogates and bottomless nesting are
refused in words. Nothing a client sends raises anything but RequestRefused.
"""

import json
from dataclasses import dataclass, field
from typing import Any, NoReturn

from django.conf import settings
from django.http import HttpRequest

from config.bodies import BodyRefused, check_length, read_body
from config.graphql import ApiError, BadUserInput
from config.jsonvalues import JsonRefused, check_storable

# Deeper than any input may be: that limit is the JSON scalar's, and counts inside the value.
_MAX_BODY_DEPTH = 256


class RequestRefused(Exception):
    """The request cannot be executed: the HTTP status, and the error that says why."""

    def __init__(self, status: int, error: ApiError, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.error = error
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    """What is to be executed."""

    query: str
    variables: dict[str, Any] = field(default_factory=dict)
    operation_name: str | None = None


def check_content(request: HttpRequest) -> None:
    """Raise RequestRefused unless the body is announced as JSON in UTF-8, and not as too large."""
    charset = (request.content_params or {}).get("charset", "utf-8")
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "identity")
    if (
        request.content_type != "application/json"
        or charset.lower() not in ("utf-8", "utf8")
        or encoding.lower() != "identity"
    ):
        raise RequestRefused(415, BadUserInput("Send the request as application/json."))
    try:
        check_length(request, max_bytes=settings.MAX_BODY_BYTES)
    except BodyRefused as refused:
        raise _refused(refused) from None


def read_request(request: HttpRequest) -> GraphQLRequest:
    """The request of a body that passed `check_content`. Raises RequestRefused."""
    try:
        body = read_body(request, max_bytes=settings.MAX_BODY_BYTES)
    except BodyRefused as refused:
        raise _refused(refused) from None
    return parse_request(body)


def parse_request(body: bytes) -> GraphQLRequest:
    """The request in a body. Raises RequestRefused."""
    payload = _json(body)
    if isinstance(payload, list):
        raise _bad("Batches are not taken: send one operation a request.")
    if not isinstance(payload, dict):
        raise _bad("The body must be a JSON object.")
    query = payload.get("query")
    variables = payload.get("variables")
    operation_name = payload.get("operationName")
    if not isinstance(query, str) or not query:
        raise _bad("query must be a text.")
    if variables is not None and not isinstance(variables, dict):
        raise _bad("variables must be an object.")
    if operation_name is not None and not isinstance(operation_name, str):
        raise _bad("operationName must be a text.")
    return GraphQLRequest(query, variables or {}, operation_name or None)


def _json(body: bytes) -> Any:
    try:
        value = _decoder.decode(body.decode())
        # Other bodies hold neither NUL nor lone surrogates: both can only come as escapes.
        if b"\\u" in body:
            check_storable(value, max_depth=_MAX_BODY_DEPTH)
    except JsonRefused as error:
        raise _bad(f"The body is refused: {error}.") from None
    except UnicodeDecodeError:
        raise _bad("The body is not UTF-8.") from None
    except (ValueError, RecursionError):
        raise _bad("The body is not JSON that can be read.") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def _bad(message: str) -> RequestRefused:
    return RequestRefused(400, BadUserInput(message))


def _refused(refused: BodyRefused) -> RequestRefused:
    return RequestRefused(refused.status, BadUserInput(refused.message))
