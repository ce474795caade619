"""The addresses Handrail answers at."""

from django.contrib import admin
from django.urls import path

from config import health, metrics

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", metrics.metrics_view),
    path("admin/", admin.site.urls),
]
