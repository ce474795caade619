"""What every request passes through, and what only a browser's does.

The API's callers bear tokens: sessions, CSRF, messages and static files are nothing to them, and
cost them a third of an empty answer. So Django's own middleware stand here in versions that step
aside for a request to a machine's address which carries no session cookie, or carries a token.
"""

import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware import clickjacking, common, csrf
from whitenoise import middleware as whitenoise

from config import metrics
from config.actors import acting_as
from config.addresses import is_trusted_proxy
from config.logs import get_logger, request_id, usable_request_id

GetResponse = Callable[[HttpRequest], HttpResponseBase]

PROBE_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
API_PATHS = frozenset({"/graphql", "/graphql/"})
CALLBACKS = "/callbacks/"
_FORWARDED_HEADERS = ("HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PORT")
_KNOWN_HOSTS = 64


def is_machine_request(request: HttpRequest) -> bool:
    """Whether no browser session can matter.

    So it is with a probe, a partner's callback, and an API call by token or without cookie.
    """
    path = request.path_info
    if path in API_PATHS:
        return (
            "HTTP_AUTHORIZATION" in request.META
            or settings.SESSION_COOKIE_NAME not in request.COOKIES
        ) and request.method != "GET"
    return path in PROBE_PATHS or path.startswith(CALLBACKS)


class RequestLog:
    """Outermost: gives the request its id; writes one line and two metrics when it is answered."""

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response
        # Bound once: an unbound logger is put together anew for every line.
        self._log = get_logger("handrail.request").bind()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.perf_counter()
        identifier = usable_request_id(request.META.get("HTTP_X_REQUEST_ID", ""))
        token = request_id.set(identifier)
        try:
            response = self._get_response(request)
            response.headers["X-Request-Id"] = identifier
            self._record(request, response.status_code, time.perf_counter() - started)
        finally:
            request_id.reset(token)
        return response

    def _record(self, request: HttpRequest, status: int, seconds: float) -> None:
        match = request.resolver_match
        route = match.route if match else "-"
        method = request.method or "-"
        metrics.request_answered(route=route, method=method, status=status, seconds=seconds)
        if status < 400 and request.path_info in PROBE_PATHS:
            return  # asked every few seconds; only a refusal is news
        self._log.info(
            "request",
            method=method[:16],
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 1),
        )


class TrustedEdge:
    """Believes forwarding headers of TRUSTED_PROXIES only, and takes no Host that is not ours."""

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response
        self._known_hosts: set[tuple[str, str]] = set()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        meta = request.META
        if settings.TRUSTED_PROXIES and not is_trusted_proxy(meta.get("REMOTE_ADDR", "")):
            for header in _FORWARDED_HEADERS:
                meta.pop(header, None)
        # Probes come by address, from inside the house.
        if request.path_info not in PROBE_PATHS:
            self._check_host(request)
        return self._get_response(request)

    def _check_host(self, request: HttpRequest) -> None:
        host = (request.META.get("HTTP_HOST", ""), request.META.get("SERVER_NAME", ""))
        if host in self._known_hosts:
            return
        request.get_host()  # raises DisallowedHost, which Django answers with 400
        if len(self._known_hosts) < _KNOWN_HOSTS:
            self._known_hosts.add(host)


class ContentPolicy:
    """Pages load nothing from elsewhere and stand in no frame; data is no page at all."""

    PAGE = (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
    # Unfold's Alpine evaluates the expressions in its attributes, and its theme is an inline style.
    # Scripts come from our own files only: stored text that became a tag would not run.
    BACK_OFFICE = f"{PAGE}; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'"
    DATA = "default-src 'none'; frame-ancestors 'none'"

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        kind = response.headers.get("Content-Type", "")
        if not kind.startswith("text/html"):
            policy = self.DATA
        elif request.path_info.startswith("/admin/"):
            policy = self.BACK_OFFICE
        else:
            policy = self.PAGE
        response.headers.setdefault("Content-Security-Policy", policy)
        return response


class _BrowsersOnly:
    """Mixed into a middleware of Django's: a machine's request goes straight to the next one."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        if is_machine_request(request):
            return self.get_response(request)
        return super().__call__(request)  # type: ignore[misc]  # of the middleware beside it


class WhiteNoiseMiddleware(_BrowsersOnly, whitenoise.WhiteNoiseMiddleware):  # type: ignore[misc]  # untyped
    """Static files from our own site."""


class SessionMiddleware(_BrowsersOnly, sessions.SessionMiddleware):
    """`request.session`, for staff."""


class CommonMiddleware(_BrowsersOnly, common.CommonMiddleware):
    """Slashes after the admin's addresses."""


class CsrfViewMiddleware(_BrowsersOnly, csrf.CsrfViewMiddleware):
    """CSRF, for requests that a browser's cookie could have made."""

    def process_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if is_machine_request(request):
            return None
        return super().process_view(request, *args, **kwargs)


class AuthenticationMiddleware(_BrowsersOnly, auth.AuthenticationMiddleware):
    """`request.user`, for staff."""


class ActingStaff:
    """Histories name whoever is signed in; nobody is asked for before something is written."""

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if is_machine_request(request):
            return self._get_response(request)
        with acting_as(lambda: request.user.get_username()):  # noqa: PLW0108 - request.user is a query, put off
            return self._get_response(request)


class MessageMiddleware(_BrowsersOnly, messages.MessageMiddleware):
    """The admin's notices."""


class XFrameOptionsMiddleware(_BrowsersOnly, clickjacking.XFrameOptionsMiddleware):
    """For browsers that do not know `frame-ancestors`."""
