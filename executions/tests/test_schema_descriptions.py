"""The schema is the API's reference: everything in it says what it is, in a sentence."""

from collections.abc import Iterator

from django.conf import settings
from django.utils.module_loading import import_string
from graphql import (
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    specified_scalar_types,
)


def test_every_type_field_and_argument_has_a_sentence() -> None:
    schema = import_string(settings.GRAPHENE["SCHEMA"]).graphql_schema
    told = dict(_descriptions(schema))
    assert [name for name, text in told.items() if not (text or "").endswith(".")] == []


def _descriptions(schema: GraphQLSchema) -> Iterator[tuple[str, str | None]]:
    """Of all that is not GraphQL's own, by name."""
    for type_name, kind in schema.type_map.items():
        if type_name.startswith("__") or type_name in specified_scalar_types:
            continue
        yield type_name, kind.description
        if isinstance(kind, GraphQLInputObjectType):
            for name, value in kind.fields.items():
                yield f"{type_name}.{name}", value.description
        elif isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in kind.fields.items():
                yield f"{type_name}.{name}", field.description
                for argument, value in field.args.items():
                    yield f"{type_name}.{name}({argument})", value.description
