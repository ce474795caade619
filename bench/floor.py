"""The empty view: a Django project of one view that does nothing, as the floor to compare with."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=[],
    ROOT_URLCONF="bench.floor",
    SECRET_KEY="of no use: nothing is signed",
    USE_I18N=False,
)


def empty(_request: HttpRequest) -> HttpResponse:
    """The least that Django can answer."""
    return HttpResponse(b"{}", content_type="application/json", headers={"Content-Length": "2"})


urlpatterns = [path("graphql", empty), path("readyz", empty)]
application = get_wsgi_application()
