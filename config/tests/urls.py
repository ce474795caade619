"""The endpoint on the small schema, beside the admin's sign-in."""

from django.contrib import admin
from django.urls import path

from config.graphql_view import GraphQLEndpoint
from config.tests.small_schema import schema

graphql = GraphQLEndpoint(schema)
urlpatterns = [
    path("graphql", graphql),
    path("graphql/", graphql),
    path("admin/", admin.site.urls),
]
