"""What documents may ask for, and that the worst of them are refused before they cost anything."""

import json
import time

import pytest
from graphql import parse
from graphql.language import FragmentDefinitionNode, OperationDefinitionNode

from config.graphql_limits import Limits, Measure, measure_operation
from config.tests.conftest import Api


def measure(text: str) -> Measure:
    definitions = parse(text).definitions
    fragments = {
        node.name.value: node for node in definitions if isinstance(node, FragmentDefinitionNode)
    }
    operation = definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    return measure_operation(operation, fragments)


@pytest.mark.parametrize(
    ("text", "depth", "fields", "aliases", "root_fields"),
    [
        ("{ a }", 1, 1, 0, 1),
        ("{ a b: c }", 1, 2, 1, 2),
        ("{ a { b { c } } d }", 3, 4, 0, 2),
        ("{ ... { a { ... { b } } } }", 2, 2, 0, 1),  # inline fragments add no depth
        ("{ a { ...F } } fragment F on T { x y: z { w } }", 3, 4, 1, 1),
        ("{ ...F a } fragment F on T { b c }", 1, 3, 0, 3),
        ("{ ...F ...F } fragment F on T { b: c }", 1, 2, 2, 2),  # counted as expanded
        ("{ ...F } fragment F on T { a { ...F } }", 1, 1, 0, 1),  # a cycle adds nothing
        ("{ ...F } fragment F on T { ...G } fragment G on T { ...F a }", 1, 1, 0, 1),
        ("{ ...Missing }", 0, 0, 0, 0),
    ],
)
def test_measures(text: str, depth: int, fields: int, aliases: int, root_fields: int) -> None:
    found = measure(text)
    assert (found.depth, found.fields, found.aliases, found.root_fields) == (
        depth,
        fields,
        aliases,
        root_fields,
    )


@pytest.mark.parametrize(
    ("text", "is_introspection", "has_conditions"),
    [
        ("{ __schema { types { name } } __typename }", True, False),
        ('{ ...F } fragment F on Q { __type(name: "A") { name } }', True, False),
        ("{ __schema { types { name } } whoami }", False, False),
        ("query ($a: Boolean!) { a @skip(if: $a) }", False, True),
        ("{ a { ...F } } fragment F on Q { ... @include(if: true) { b } }", False, True),
    ],
)
def test_marks(text: str, is_introspection: bool, has_conditions: bool) -> None:
    found = measure(text)
    assert (found.is_introspection, found.has_conditions) == (is_introspection, has_conditions)


def chain(depth: int) -> str:
    """A query of so many nested fields."""
    return "{ node " + "{ child " * (depth - 2) + "{ id }" + " }" * (depth - 2) + " }"


def fields(count: int) -> str:
    """A query of so many fields after expansion, ten root fields with fragments in them."""
    spread = (count - 10) // 10
    rest = count - 10 - spread * 10
    roots = " ".join(
        f"a{number}: node {{ ...F {'id ' * (rest if number == 0 else 0)} }}" for number in range(10)
    )
    return f"{{ {roots} }} fragment F on Node {{ {'id ' * spread} }}"


def tokens(count: int) -> str:
    """A query of so many tokens: those of an argument's list."""
    return "{ echo(value: [" + "1 " * (count - 9) + "]) }"


AT_AND_BEYOND = {
    "depth": (chain(15), chain(16), "15 levels deep"),
    "aliases": (
        "{ node { " + " ".join(f"a{i}: id" for i in range(30)) + " } }",
        "{ node { " + " ".join(f"a{i}: id" for i in range(31)) + " } }",
        "30 aliases",
    ),
    "root fields": (
        "{ " + " ".join(f"a{i}: whoami" for i in range(20)) + " }",
        "{ " + " ".join(f"a{i}: whoami" for i in range(21)) + " }",
        "20 root fields",
    ),
    "fields": (fields(1000), fields(1001), "1000 fields"),
    "tokens": (tokens(2000), tokens(2001), "2000 tokens"),
    "repeats": (
        "{ node { " + "child { id } " * 99 + "child { label } } }",
        "{ node { " + "child { id } " * 100 + "child { label } } }",
        "100 times",
    ),
}


@pytest.mark.parametrize(("at", "beyond", "told"), AT_AND_BEYOND.values(), ids=AT_AND_BEYOND.keys())
def test_limits(api: Api, at: str, beyond: str, told: str) -> None:
    assert "errors" not in api.ask(at)
    response = api.post({"query": beyond})
    assert response.status_code == 400
    (error,) = json.loads(response.content)["errors"]
    assert error["extensions"] == {"code": "QUERY_TOO_COMPLEX"}
    assert told in error["message"]


def doubling(levels: int, body: str) -> str:
    spreads = " ".join(
        f"fragment F{i} on Node {{ {body.format(next=i + 1)} }}" for i in range(levels)
    )
    return f"{{ node {{ ...F0 }} }} {spreads} fragment F{levels} on Node {{ id }}"


ATTACKS = {
    "doubling fragments": doubling(24, "...F{next} ...F{next}"),
    "doubling fragments below fields": doubling(
        24, "child {{ ...F{next} }} c2: child {{ ...F{next} }}"
    ),
    "a long chain of fragments": doubling(180, "...F{next}"),
    "a fragment cycle": "{ node { ...A } } fragment A on Node { child { ...B } } "
    "fragment B on Node { child { ...A } }",
    "a fragment that spreads itself": "{ node { ...A } } fragment A on Node { ...A }",
    "10,000 aliases": "{ " + " ".join(f"a{i}: whoami" for i in range(10_000)) + " }",
    "10,000 levels": "{ node " + "{ child " * 10_000,
    "150 levels of inline fragments": "{ " + "... { " * 150 + "whoami" + " }" * 151,
    "199 levels of inline fragments": "{ " + "... { " * 198 + "x" + " }" * 199,
    "500 fields that have to be compared": "{ node { " + "child { id } " * 390 + " } }",
    "1000 equal leaves": "{ node { " + "id " * 995 + " } }",
    "1500 unknown fields": "{ " + "x " * 18 + "node { " + "y " * 900 + " } }",
    "many variables": "query (" + " ".join(f"$v{i}: JSON" for i in range(490)) + ") { whoami }",
    "many directives": "{ whoami " + "@skip(if: false) " * 320 + " }",
    "a megabyte of comments": "{ whoami } #" + "x" * 1_000_000,
    "100,000 comments": "{ whoami }" + "#\n" * 100_000,
    "a megabyte of text": '{ echo(value: "' + "x" * 1_000_000 + '") }',
}


@pytest.mark.parametrize("query", ATTACKS.values(), ids=ATTACKS.keys())
def test_attacks_cost_little(api: Api, query: str) -> None:
    began = time.thread_time()
    response = api.post({"query": query})
    spent = time.thread_time() - began
    assert response.status_code in {200, 400}
    assert b"INTERNAL" not in response.content
    assert spent < 0.5


def test_limits_are_settings() -> None:
    assert Limits() == Limits(depth=15, aliases=30, root_fields=20, fields=1_000, tokens=2_000)
