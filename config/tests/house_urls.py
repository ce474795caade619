"""The house's own addresses, with views to look at what the middleware hand on."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from config import health, metrics
from config.addresses import client_address


def look(request: HttpRequest, **_captured: str) -> HttpResponse:
    return JsonResponse(
        {
            "user": hasattr(request, "user"),
            "session": hasattr(request, "session"),
            "secure": request.is_secure(),
            "address": client_address(request),
        }
    )


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError(f"on purpose, at {request.path}")


urlpatterns = [
    path("graphql", look),
    path("callbacks/<token>/", look),
    path("page", look),
    path("people/<str:name>", look),
    path("fail", fail),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", metrics.metrics_view),
]
