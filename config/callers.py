"""Whose request it is: a bearer token's, a staff session's, or nobody's.

A token that is sent decides alone; a session counts only where none is, only for staff, and only
with the CSRF token that Django's own middleware checks.
"""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware

from config.graphql import Forbidden, ServiceUnavailable, Unauthenticated
from config.graphql_request import RequestRefused
from config.identity import (
    STAFF_PREFIX,
    Identity,
    KeysUnavailable,
    TokenRefused,
    identify_token,
)

_SCHEME = "bearer "


def identify(request: HttpRequest) -> Identity | None:
    """The caller; None when the request names none. Raises RequestRefused: 401, 403 or 503."""
    header: str | None = request.META.get("HTTP_AUTHORIZATION")
    if header is not None:
        return _by_token(header)
    identity = identify_staff(request)
    if identity is not None and not _has_csrf_token(request):
        raise RequestRefused(403, Forbidden("The CSRF token is missing or wrong."))
    return identity


def identify_staff(request: HttpRequest) -> Identity | None:
    """The member of staff whose session the request carries, without a look at CSRF."""
    user: Any = getattr(request, "user", None)
    if user is None or not (user.is_active and user.is_staff):
        return None
    return Identity(
        user_id=f"{STAFF_PREFIX}{user.get_username()}",
        scopes=frozenset(),
        permissions=frozenset(user.get_all_permissions()),
        by_session=True,
    )


def unauthenticated() -> RequestRefused:
    """The one answer to every caller who is not known, whatever is wrong with the token."""
    return RequestRefused(401, Unauthenticated(), {"WWW-Authenticate": "Bearer"})


def _by_token(header: str) -> Identity:
    if header[: len(_SCHEME)].lower() != _SCHEME:
        raise unauthenticated()
    try:
        return identify_token(header[len(_SCHEME) :].strip(" "))
    except TokenRefused:
        raise unauthenticated() from None
    except KeysUnavailable:
        raise RequestRefused(503, ServiceUnavailable(), {"Retry-After": "5"}) from None


def _has_csrf_token(request: HttpRequest) -> bool:
    """Asked here because the endpoint is exempt from the middleware: tokens need no CSRF."""
    check = CsrfViewMiddleware(_unexempted)
    check.process_request(request)
    return check.process_view(request, _unexempted, (), {}) is None


def _unexempted(_request: HttpRequest) -> HttpResponse:
    return HttpResponse()
