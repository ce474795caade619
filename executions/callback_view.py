"""The address that partners post late answers to: `POST /callbacks/<token>`.

It translates and decides nothing: what a callback comes to is `callbacks.receive`'s. No session, no
cookie, and the token in no log and no metric.
"""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from config import metrics, rate_limits
from config.addresses import client_address
from config.bodies import BodyRefused, check_length, has_length, read_body
from config.graphql import mask
from config.jsonvalues import JsonObject, dump_compact
from executions.callbacks import (
    MAX_CALLBACK_BYTES,
    CallbackConflict,
    CallbackExpired,
    CallbackRefused,
    CallbackTooLarge,
    CallbackUncheckable,
    CallbackUnknown,
    CallbackUnreadable,
    CallbackUnsigned,
    hash_in,
    receive,
)

STATUSES: Final[Mapping[type[CallbackRefused], HTTPStatus]] = {
    CallbackUnknown: HTTPStatus.NOT_FOUND,
    CallbackUnsigned: HTTPStatus.UNAUTHORIZED,
    CallbackUncheckable: HTTPStatus.SERVICE_UNAVAILABLE,
    CallbackUnreadable: HTTPStatus.BAD_REQUEST,
    CallbackTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    CallbackConflict: HTTPStatus.CONFLICT,
    CallbackExpired: HTTPStatus.GONE,
}


@csrf_exempt
def receive_callback(request: HttpRequest, token: str) -> HttpResponse:
    """200 when the answer is kept; else the status and a sentence that say why not."""
    if request.method != "POST":
        return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Post callbacks.", {"Allow": "POST"})
    wait_seconds = rate_limits.address_wait(client_address(request))
    if wait_seconds is not None:
        headers = {"Retry-After": str(max(1, math.ceil(wait_seconds)))}
        return _refusal(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests; wait.", headers)
    try:
        outcome = _receive(request, token)
    except CallbackRefused as refused:
        outcome = refused.outcome
        response = _refusal(STATUSES[type(refused)], refused.message, _headers(refused))
    except BodyRefused as refused:
        outcome = "TOO_LARGE" if refused.status == 413 else "UNREADABLE"
        response = _refusal(refused.status, refused.message)
    except Exception as error:  # noqa: BLE001 - a door: logged and masked
        outcome = "FAILED"
        response = _failure(error)
    else:
        response = _respond(HTTPStatus.OK, {"status": "accepted"})
    metrics.callback_answered(outcome=outcome)
    return response


def _receive(request: HttpRequest, token: str) -> str:
    hash_in(token)  # what is no token of ours is not worth reading a body for
    if request.META.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise BodyRefused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body as it is, not packed.")
    check_length(request, max_bytes=MAX_CALLBACK_BYTES)
    body = read_body(request, max_bytes=MAX_CALLBACK_BYTES)
    if not (has_length(request) or _ends_by_itself(body)):
        raise BodyRefused(HTTPStatus.BAD_REQUEST, "Send such a body with its length.")
    receipt = receive(
        token,
        body=body,
        signature=request.META.get("HTTP_X_HANDRAIL_SIGNATURE"),
        now=timezone.now(),
    )
    return "REPEATED" if receipt.is_repeat else "ACCEPTED"


def _ends_by_itself(body: bytes) -> bool:
    """Whether no part of a longer JSON text reads like this: nothing does, and a number may."""
    return bool(body.strip()) and not body[-1:].isdigit()


def _headers(refused: CallbackRefused) -> dict[str, str]:
    return {"Retry-After": "60"} if refused.retryable else {}


def _failure(error: Exception) -> HttpResponse:
    message, extensions = mask(error)
    if extensions["code"] == "SERVICE_UNAVAILABLE":
        return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, message, {"Retry-After": "1"})
    return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, message)


def _refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
    return _respond(status, {"error": message}, headers)


def _respond(
    status: int, body: JsonObject, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    content = dump_compact(body)
    return HttpResponse(
        content,
        status=status,
        content_type="application/json",
        headers={
            "Cache-Control": "no-store",
            "Content-Length": str(len(content)),
            **(headers or {}),
        },
    )
