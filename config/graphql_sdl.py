"""The schema as text, the same for the same schema in whichever order its types were declared."""

from graphql import GraphQLSchema, lexicographic_sort_schema, print_schema


def sdl_of(schema: GraphQLSchema) -> str:
    """The SDL with its types sorted, ending in a newline."""
    return print_schema(lexicographic_sort_schema(schema)) + "\n"
