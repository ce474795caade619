"""The planned execution answers as graphql-core's own does, at the first time and at later ones."""

from typing import Any

import graphene
import pytest
from django.utils import timezone
from graphql import execute, parse

from config.graphql import RequestContext, Unauthenticated
from config.graphql_documents import DocumentCache, DocumentRefused
from config.graphql_execution import execute_operation
from config.graphql_limits import Limits
from config.tests.small_schema import schema

QUERIES = [
    "{ whoami number }",
    "{ node { id label colour count data needed } }",
    "{ node { children { id label child { id needed label } } } }",
    "{ node { id broken label } }",
    "{ node { child { child { id child { needed } } } } }",  # null where none may be
    "{ node { child { child { child { id needed } children { needed } } } } }",
    (
        "{ a: node { x: id y: id } node { id ...F } } fragment F on Node { child { id ...G } } "
        "fragment G on Node { label child { count } }"
    ),
    "{ node { ...A ...B } } fragment A on Node { child { id } } fragment B on Node { child { label } }",
    "{ node { __typename id } __typename }",
    "query ($s: Boolean!) { node { id @skip(if: $s) label @include(if: $s) child { id } } }",
    (
        "query ($s: Boolean!) { node { ... @skip(if: $s) { id } child { ...F @include(if: $s) id } } } "
        "fragment F on Node { label }"
    ),
    "query ($n: Int = 3) { number(value: $n) other: number(value: 4) }",
    "mutation { a: store(input: 1) b: store(input: {x: [2]}) }",
    "{ paint(colour: BLUE) refuse }",
]


def planned(cache: DocumentCache, query: str, variables: dict[str, Any]) -> Any:
    operation = cache.prepare(query, privileged=True).operation(None)
    return execute_operation(
        schema.graphql_schema, operation, variables=variables, context=None, privileged=True
    )


@pytest.mark.parametrize("query", QUERIES)
def test_answers_are_graphql_cores(query: str) -> None:
    cache = DocumentCache(schema.graphql_schema, Limits())
    for is_skipped in (True, False, True):
        variables = {"s": is_skipped}
        expected: Any = execute(schema.graphql_schema, parse(query), variable_values=variables)
        data, errors = planned(cache, query, variables)
        assert data == expected.data
        assert list(data or ()) == list(expected.data or ())
        told = sorted(((error.path or [], error.message) for error in errors), key=str)
        wanted = sorted(((e.path or [], e.message) for e in expected.errors or ()), key=str)
        assert told == wanted


NUMBER = "query ($n: Int!) { number(value: $n) }"
OPTIONAL = "query ($n: Int) { number(value: $n) }"
DEFAULTED = "query ($n: Int = 3) { number(value: $n) }"
FREE = "mutation ($j: JSON) { store(input: $j) }"


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        (NUMBER, {"n": 5}),
        (NUMBER, {"n": 5, "unknown": 1}),
        (NUMBER, {}),
        (NUMBER, {"n": None}),
        (NUMBER, {"n": "five"}),
        (NUMBER, {"n": 2**40}),
        (NUMBER, {"n": True}),
        (OPTIONAL, {}),
        (OPTIONAL, {"n": None}),
        (DEFAULTED, {}),
        (DEFAULTED, {"n": 5}),
        (FREE, {}),
        (FREE, {"j": None}),
        (FREE, {"j": {"a": [1.5, None, 10**30]}}),
        (FREE, {"j": "\x00"}),
        ("query ($c: Colour!) { paint(colour: $c) }", {"c": "BLUE"}),
        ("query ($c: Colour!) { paint(colour: $c) }", {"c": "GREY"}),
        ("query ($c: Colour!) { paint(colour: $c) }", {"c": 3}),
    ],
)
def test_variables_are_read_as_graphql_core_reads_them(
    query: str, variables: dict[str, Any]
) -> None:
    cache = DocumentCache(schema.graphql_schema, Limits())
    expected: Any = execute(schema.graphql_schema, parse(query), variable_values=variables)
    for _ in range(2):
        try:
            data, errors = planned(cache, query, variables)
        except DocumentRefused as refused:
            data, errors = None, refused.errors
        assert data == expected.data
        assert [e.message for e in errors] == [e.message for e in expected.errors or ()]


class Odd:
    """A parent whose attributes are not what the schema says."""

    label = RuntimeError("a secret")
    count = "not a number"

    @property
    def id(self) -> str:
        raise KeyError("a secret")


class OddNode(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    id = graphene.ID()
    label = graphene.String()
    count = graphene.Int()
    absent = graphene.String(default_value="default")


class OddQuery(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    odd = graphene.Field(OddNode)

    @staticmethod
    def resolve_odd(_root: Any, _info: Any) -> Odd:
        return Odd()


def test_odd_values_are_errors_of_their_fields() -> None:
    odd_schema = graphene.Schema(query=OddQuery)
    operation = (
        DocumentCache(odd_schema.graphql_schema, Limits())
        .prepare("{ odd { absent id label count } }", privileged=False)
        .operation(None)
    )
    data, errors = execute_operation(
        odd_schema.graphql_schema, operation, variables={}, context=None, privileged=False
    )
    assert data == {"odd": {"absent": "default", "id": None, "label": None, "count": None}}
    assert sorted(str(error.path) for error in errors) == [
        "['odd', 'count']",
        "['odd', 'id']",
        "['odd', 'label']",
    ]


def test_a_text_is_prepared_once_for_each_kind_of_caller() -> None:
    cache = DocumentCache(schema.graphql_schema, Limits())
    first = cache.prepare("{ whoami }", privileged=False)
    assert cache.prepare("{ whoami }", privileged=False) is first
    assert cache.prepare("{ whoami }", privileged=True) is not first


def test_staffs_introspection_is_not_kept_for_others() -> None:
    cache = DocumentCache(schema.graphql_schema, Limits())
    cache.prepare("{ __schema { types { name } } }", privileged=True)
    with pytest.raises(DocumentRefused):
        cache.prepare("{ __schema { types { name } } }", privileged=False)


def test_what_is_kept_is_bounded() -> None:
    cache = DocumentCache(schema.graphql_schema, Limits())
    oft_used = cache.prepare("{ whoami }", privileged=False)
    for number in range(600):
        cache.prepare(f"{{ number(value: {number}) }} # {'x' * 1_500}", privileged=False)
        assert cache.prepare("{ whoami }", privileged=False) is oft_used
    assert len(cache._kept) <= 256
    assert cache._characters == sum(len(text) for text, _ in cache._kept) <= 262_144


def test_long_texts_are_not_kept() -> None:
    cache = DocumentCache(schema.graphql_schema, Limits())
    cache.prepare("{ whoami } #" + "x" * 20_000, privileged=False)
    assert len(cache._kept) == 0


def test_the_context_asks_for_who_is_needed(rf: Any) -> None:
    context = RequestContext(identity=None, request=rf.post("/graphql"), now=timezone.now())
    with pytest.raises(Unauthenticated):
        context.require_permission("workflows.change_workflow")
