from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.jsonvalues import JsonValue
from workflows.errors import ExpressionInvalid, MappingIncomplete, Problem
from workflows.interpolation import (
    EndpointTemplate,
    Template,
    TextTree,
    compile_endpoint,
    compile_text,
    compile_texts,
)

Compile: TypeAlias = Callable[[str], Template | EndpointTemplate | TextTree]

SCOPE: dict[str, JsonValue] = {
    "transferDetails": {"amount": 5000, "recipientName": "John Doe"},
    "big": 12345678901234567890123,
    "fraction": 0.1,
    "yes": True,
    "no": False,
    "zero": 0,
    "nothing": None,
    "empty": "",
    "dot": ".",
    "dots": "..",
    "list": [1, {"é": None}],
    "object": {"a": 1},
    "trick": "${transferDetails.amount} $${x}",
    "path": "a/b?c=d&e#f%2F \\é",
}


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("Send ${transferDetails.amount} to ${transferDetails.recipientName}?",
         "Send 5000 to John Doe?"),
        ("no expression, $5, {a}, $ {a}", "no expression, $5, {a}, $ {a}"),
        ("", ""),
        ("${context.big}", "12345678901234567890123"),
        ("${fraction} ${yes} ${no} ${zero}", "0.1 true false 0"),
        ("[${absent}] [${nothing}] [${a.b.c}]", "[] [] []"),
        ("${list} ${object}", '[1,{"é":null}] {"a":1}'),
        ("$${yes} ${yes}", "${yes} true"),
        ("$$${yes}", "$${yes}"),
        ("$$", "$$"),
        ("${trick}", "${transferDetails.amount} $${x}"),  # one pass
        ("${'}'} ${\"a}b\" || '{'} ${`\"}\"`}", "} { }"),
        ("${ {a: yes, b: {c: 'it\\'s }'}}.b.c }!", "it's }!"),
        ("${yes}'s", "true's"),
        ("${sum(transferDetails)}!", "!"),  # what fails is left out
        ("${'${yes}'}", "${yes}"),
    ],
)  # fmt: skip
def test_text(text: str, rendered: str) -> None:
    assert compile_text(text).render(SCOPE) == rendered


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("Send ${amount", ["${ at position 6 is not closed within 500 characters"]),
        ("${", ["${ at position 1 is not closed within 500 characters"]),
        ("${ {a: b }", ["${ at position 1 is not closed within 500 characters"]),
        ("${'}", ["${ at position 1: does not parse at position 1: unclosed ' delimiter"]),
        ("${" + "a" * 501 + "}", ["${ at position 1 is not closed within 500 characters"]),
        ("${}", ["${ at position 1: an expression cannot be empty"]),
        ("${a b} ${c} ${d..e}",
         ["${ at position 1: does not parse at position 3: unexpected b",
          "${ at position 13: does not parse at position 3: unexpected ."]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compile_any", [compile_text, compile_endpoint, compile_texts])
def test_every_problem_of_a_text_is_named(
    compile_any: Compile, text: str, messages: list[str]
) -> None:
    with pytest.raises(ExpressionInvalid) as caught:
        compile_any(text)

    assert caught.value.problems == tuple(Problem("", message) for message in messages)


def test_the_longest_expression_still_closes() -> None:
    name = "a" * 500

    assert compile_text(f"${{{name}}}!").render({name: "x"}) == "x!"


@pytest.mark.parametrize("compile_any", [compile_text, compile_endpoint, compile_texts])
def test_expressions_and_roots(compile_any: Compile) -> None:
    template = compile_any("/${a.b}/$${c}/${context.d}")

    assert [expression.text for expression in template.expressions] == ["a.b", "context.d"]
    assert template.roots == frozenset({"a", "d"})
    assert compile_any("${@}").roots is None
    assert compile_any("plain").roots == frozenset()


def test_a_text_does_not_grow_without_end() -> None:
    template = compile_text("${long}" * 20 + "!")

    rendered = template.render({"long": "x" * 100_000})

    assert rendered == "x" * 1_000_000 + "!"


@pytest.mark.parametrize(
    ("endpoint", "rendered"),
    [
        ("/accounts/${transferDetails.amount}", "/accounts/5000"),
        ("/a/${path}?q=${path}",
         "/a/a%2Fb%3Fc%3Dd%26e%23f%252F%20%5C%C3%A9?q=a%2Fb%3Fc%3Dd%26e%23f%252F%20%5C%C3%A9"),
        ("/a/${yes}/${no}/${zero}/${fraction}", "/a/true/false/0/0.1"),
        ("/plain?x=1", "/plain?x=1"),
        ("/a/$${b}", "/a/${b}"),
    ],
)  # fmt: skip
def test_endpoint(endpoint: str, rendered: str) -> None:
    assert compile_endpoint(endpoint).render(SCOPE) == rendered


def test_every_unusable_value_of_an_endpoint_is_named() -> None:
    names = ("absent", "nothing", "empty", "dot", "dots", "list", "object", "sum(yes)")
    endpoint = compile_endpoint("/${yes}/" + "/".join(f"${{{name}}}" for name in names))

    with pytest.raises(MappingIncomplete) as caught:
        endpoint.render(SCOPE)

    assert caught.value.fields == names


def test_a_sample_of_an_endpoint_has_no_expressions() -> None:
    assert compile_endpoint("/a/${b.c}/d?e=${f}").sample() == "/a/x/d?e=x"


@given(st.text(min_size=1).filter(lambda text: text not in (".", "..")))
def test_any_text_is_one_segment_and_comes_back(text: str) -> None:
    segment = compile_endpoint("${a}").render({"a": text})

    assert unquote(segment, errors="strict") == text
    assert segment.isascii()
    assert not set(segment) & set("/?#&=\\ \n")


@given(st.text())
def test_a_value_is_never_looked_into(text: str) -> None:
    assert compile_text("<${a}>").render({"a": text, "b": "secret"}) == f"<{text}>"


def test_texts_anywhere_in_json_are_rendered() -> None:
    texts = compile_texts(
        {"title": "Hi ${name}", "rows": [{"label": "${name}", "rank": 1}, "$${x}"], "${name}": None}
    )

    assert texts.render({"name": "José"}) == {
        "title": "Hi José",
        "rows": [{"label": "José", "rank": 1}, "${x}"],
        "${name}": None,
    }
    assert texts.roots == frozenset({"name"})


def test_constant_json_is_handed_out_as_it_is() -> None:
    texts = compile_texts({"a": ["b", 1, {"c": None}]})

    assert texts.render({}) == {"a": ["b", 1, {"c": None}]}
    assert texts.render({}) is texts.render({"b": 2})
    assert texts.expressions == ()


def test_problems_in_json_have_their_paths() -> None:
    with pytest.raises(ExpressionInvalid) as caught:
        compile_texts({"fields": [{"label": "${a b}"}], "title": "${"})

    assert caught.value.problems == (
        Problem("fields[0].label", "${ at position 1: does not parse at position 3: unexpected b"),
        Problem("title", "${ at position 1 is not closed within 500 characters"),
    )
