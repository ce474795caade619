"""JSON values come through the API exactly, inline and as variables, or are refused in words."""

import json
from typing import Any

import pytest

from config.tests.conftest import Api

BIG = 2**200 + 1
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**31,
    2**53 + 1,
    BIG,
    -BIG,
    10**4_299,
    1.5,
    -0.25,
    1e300,
    "",
    "0012",
    "ü €",
]
VALUES += [[], {}, [1, [None, {"a": []}]], {"a": {"b": BIG}, "c": "x"}, {"ü": 1, "": 2, "a b": 3}]
LITERALS = {
    "null": None,
    "true": True,
    "12345678901234567890": 12345678901234567890,
    "-5": -5,
    "1.5e3": 1500.0,
    '"text"': "text",
    '"""block"""': "block",
    "[1, [2], {a: null}]": [1, [2], {"a": None}],
    '{a: {b: "c"}, d: 9007199254740993}': {"a": {"b": "c"}, "d": 9007199254740993},
    "RED": "RED",
}


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_a_variable_comes_back_exactly(api: Api, value: Any) -> None:
    answer = api.ask("query ($v: JSON) { echo(value: $v) }", v=value)
    assert answer == {"data": {"echo": value}}
    assert type(answer["data"]["echo"]) is type(value)


@pytest.mark.parametrize(("literal", "value"), LITERALS.items())
def test_an_inline_value_comes_back_exactly(api: Api, literal: str, value: Any) -> None:
    assert api.ask(f"{{ echo(value: {literal}) }}") == {"data": {"echo": value}}


def test_variables_inside_inline_values_are_kept(api: Api) -> None:
    query = "query ($a: JSON, $b: String, $c: Int) { echo(value: {a: $a, l: [$b, {c: $c}]}) }"
    answer = api.ask(query, a={"deep": [BIG]}, b="text", c=3)
    assert answer == {"data": {"echo": {"a": {"deep": [BIG]}, "l": ["text", {"c": 3}]}}}


def test_a_variable_that_is_not_given_leaves_its_key_out(api: Api) -> None:
    query = "query ($a: JSON, $b: JSON) { echo(value: {a: $a, b: $b, l: [$a]}) }"
    assert api.ask(query, b=None) == {"data": {"echo": {"b": None, "l": [None]}}}


def nested(depth: int) -> Any:
    value: Any = "leaf"
    for _ in range(depth):
        value = [value]
    return value


def test_64_levels_are_the_most(api: Api) -> None:
    query = "query ($v: JSON) { echo(value: $v) }"
    assert api.ask(query, v=nested(64)) == {"data": {"echo": nested(64)}}
    error = api.ask(query, v=nested(65))["errors"][0]
    assert error["extensions"] == {"code": "BAD_USER_INPUT"}
    assert error["message"] == "JSON cannot represent this value: nested deeper than 64 levels"


REFUSED_LITERALS = {
    "NUL": '"a\\u0000"',
    "NUL within": '{a: ["\\u0000"]}',
    "an infinite number": "1e999",
    "4301 digits": "9" * 4_301,
    "4301 digits within": "[-" + "9" * 4_301 + "]",
    "a lone surrogate": '"\\ud800"',
    "65 levels": "[" * 65 + "]" * 65,
    "180 levels": "[" * 180 + "]" * 180,
    "1000 levels": "[" * 900 + "]" * 900,
}


@pytest.mark.parametrize("literal", REFUSED_LITERALS.values(), ids=REFUSED_LITERALS.keys())
def test_an_unstorable_literal_is_refused(api: Api, literal: str) -> None:
    response = api.post({"query": f"{{ echo(value: {literal}) }}"})
    assert response.status_code == 400
    error = json.loads(response.content)["errors"][0]
    assert error["extensions"]["code"] in {"BAD_USER_INPUT", "QUERY_TOO_COMPLEX"}
    assert "sys." not in error["message"]


REFUSED_VARIABLES = {
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "an infinite number": "1e999",
    "NUL": '"a\\u0000b"',
    "NUL in a key": '{"\\u0000": 1}',
    "a lone surrogate": '["\\udfff"]',
    "4301 digits": "9" * 4_301,
    "100,000 levels": "[" * 100_000 + "]" * 100_000,
}


@pytest.mark.parametrize("text", REFUSED_VARIABLES.values(), ids=REFUSED_VARIABLES.keys())
def test_an_unstorable_variable_is_refused(api: Api, text: str) -> None:
    head = '{"query": "query ($v: JSON) { echo(value: $v) }", "variables": {"v": '
    response = api.post(f"{head}{text}}}}}".encode())
    assert response.status_code == 400
    assert json.loads(response.content)["errors"][0]["extensions"] == {"code": "BAD_USER_INPUT"}


def test_default_values_of_variables(api: Api) -> None:
    query = "query ($v: JSON = {a: 12345678901234567890}) { echo(value: $v) }"
    assert api.ask(query) == {"data": {"echo": {"a": 12345678901234567890}}}
