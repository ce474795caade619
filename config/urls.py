"""The addresses Handrail answers at."""

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from config import health, metrics
from config.graphql_view import GraphQLEndpoint
from executions.callback_view import receive_callback

# By name: the schema is joined above the leaves, and loaded at the first request.
graphql = GraphQLEndpoint("config.schema.schema")

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("graphql", graphql),
    path("graphql/", graphql),
    path("callbacks/<token>", receive_callback),
    path("callbacks/<token>/", receive_callback),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", metrics.metrics_view),
    path("admin/", admin.site.urls),
]
