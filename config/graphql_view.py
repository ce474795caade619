"""The endpoint: `POST /graphql`, one operation a request, answered as JSON.

Each stage refuses by raising RequestRefused: method, address rate, content type and size, token,
user rate, body, document, variables. What was executed is 200, whatever came of it; what the client
got wrong is a 4xx; only a fault of ours is a 500, masked, with the error id that is in the log.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import graphene
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.module_loading import import_string
from graphql import GraphQLError, GraphQLSchema

from config import graphiql, rate_limits
from config.actors import acting_as
from config.addresses import client_address
from config.callers import identify, identify_staff, unauthenticated
from config.graphql import BadUserInput, RateLimited, RequestContext, format_error, mask
from config.graphql_documents import DocumentCache, DocumentRefused, PreparedOperation
from config.graphql_execution import execute_operation
from config.graphql_limits import Limits
from config.graphql_request import (
    GraphQLRequest,
    RequestRefused,
    check_content,
    read_request,
)
from config.identity import Identity
from config.jsonvalues import dump_compact

_JSON = "application/json"
_RESPONSE_JSON = "application/graphql-response+json"


class GraphQLEndpoint:
    """The view of one schema, given as such or by its dotted name (loaded at the first request)."""

    csrf_exempt = True  # `callers.identify` asks for the token, where a session is used

    def __init__(self, schema: graphene.Schema | str) -> None:
        self._given = schema

    @cached_property
    def schema(self) -> GraphQLSchema:
        """The schema that is served."""
        given = import_string(self._given) if isinstance(self._given, str) else self._given
        schema: GraphQLSchema = given.graphql_schema
        return schema

    @cached_property
    def _documents(self) -> DocumentCache:
        return DocumentCache(self.schema, configured_limits())

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """The answer, never an exception."""
        try:
            if request.method == "GET" and _wants_page(request):
                return graphiql.page(request)
            return self._answer(request)
        except RequestRefused as refused:
            return _respond(request, refused.status, [refused.error], headers=refused.headers)
        except DocumentRefused as refused:
            return _respond(request, 400, refused.errors)
        except BadUserInput as error:
            return _respond(request, 400, [error])
        except Exception as error:  # noqa: BLE001  # a door: logged and masked
            return _failure(request, error)

    def _answer(self, request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            message = "Send operations by POST."
            raise RequestRefused(405, BadUserInput(message), {"Allow": "POST"})
        _check_rate(rate_limits.address_wait(client_address(request)))
        check_content(request)
        identity = identify(request)
        if identity is not None:
            _check_rate(rate_limits.user_wait(identity.user_id))
        elif not settings.DEBUG:
            raise unauthenticated()
        return self._execute(request, identity, read_request(request))

    def _execute(
        self, request: HttpRequest, identity: Identity | None, asked: GraphQLRequest
    ) -> HttpResponse:
        privileged = settings.DEBUG or (identity is not None and identity.is_staff)
        prepared = self._documents.prepare(asked.query, privileged=privileged)
        operation = prepared.operation(asked.operation_name)
        if identity is None and not operation.is_introspection:
            raise unauthenticated()
        data, errors = self._run(operation, asked.variables, request, identity, privileged)
        return _respond(request, 200, errors, data=data, executed=True)

    def _run(
        self,
        operation: PreparedOperation,
        variables: Mapping[str, Any],
        request: HttpRequest,
        identity: Identity | None,
        privileged: bool,  # noqa: FBT001  # handed on
    ) -> tuple[dict[str, Any] | None, Sequence[GraphQLError]]:
        with acting_as(identity.user_id if identity else ""):
            return execute_operation(
                self.schema,
                operation,
                variables=variables,
                context=RequestContext(identity=identity, request=request, now=timezone.now()),
                privileged=privileged,
            )


def configured_limits() -> Limits:
    """The limits of the settings."""
    return Limits(
        depth=settings.MAX_QUERY_DEPTH,
        aliases=settings.MAX_QUERY_ALIASES,
        root_fields=settings.MAX_QUERY_ROOT_FIELDS,
        fields=settings.MAX_QUERY_FIELDS,
        tokens=settings.MAX_QUERY_TOKENS,
    )


def _wants_page(request: HttpRequest) -> bool:
    if "text/html" not in request.META.get("HTTP_ACCEPT", ""):
        return False
    return settings.DEBUG or identify_staff(request) is not None


def _check_rate(wait_seconds: float | None) -> None:
    if wait_seconds is not None:
        error = RateLimited(retry_after_ms=max(1, math.ceil(wait_seconds * 1000)))
        headers = {"Retry-After": str(max(1, math.ceil(wait_seconds)))}
        raise RequestRefused(429, error, headers)


def _failure(request: HttpRequest, error: Exception) -> HttpResponse:
    message, extensions = mask(error)
    is_away = isinstance(error, OperationalError | InterfaceError)
    body = {"errors": [{"message": message, "extensions": extensions}]}
    headers = {"Retry-After": "1"} if is_away else {}
    return _response(request, 503 if is_away else 500, body, headers)


def _respond(
    request: HttpRequest,
    status: int,
    errors: Sequence[GraphQLError],
    *,
    data: dict[str, Any] | None = None,
    executed: bool = False,
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    body: dict[str, Any] = {}
    if errors:
        body["errors"] = [format_error(error) for error in errors]
    if executed:
        body["data"] = data
    return _response(request, status, body, headers or {})


def _response(
    request: HttpRequest, status: int, body: Any, headers: Mapping[str, str]
) -> HttpResponse:
    accepts = request.META.get("HTTP_ACCEPT", "")
    content = dump_compact(body)
    return HttpResponse(
        content,
        status=status,
        content_type=_RESPONSE_JSON if _RESPONSE_JSON in accepts else _JSON,
        headers={"Cache-Control": "no-store", "Content-Length": str(len(content)), **headers},
    )
