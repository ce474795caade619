"""Plausible values for schemas: they fit, they are always the same, and they end."""

import pytest

from config.jsonvalues import JsonObject, JsonValue
from workflows.sampling import sample_by_name, sample_of, text_for_pattern
from workflows.schemas import compile_schema


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"const": 3}, 3),
        ({"enum": ["EUR", "USD"]}, "EUR"),
        ({"type": "string", "default": "d"}, "d"),
        ({"type": "string", "examples": ["e"]}, "e"),
        ({"type": "string", "format": "date"}, "2025-06-30"),
        ({"type": "string", "minLength": 8}, "amountxx"),
        ({"type": "string", "maxLength": 2}, "am"),
        ({"type": "string", "pattern": "^[A-Z]{2}[0-9]{4,6}$"}, "AA0000"),
        ({"type": "number", "maximum": 100}, 100),
        ({"type": "integer", "exclusiveMinimum": 500}, 501),
        ({"type": ["null", "boolean"]}, True),
        ({"type": "null"}, None),
        ({"type": "array", "items": {"const": 1}}, [1]),
        ({"allOf": [{"properties": {"a": {"const": 1}}}], "properties": {"b": {"const": 2}}},
         {"b": 2, "a": 1}),
    ],
    ids=lambda value: "",
)  # fmt: skip
def test_sample_fits_its_schema(schema: JsonObject, expected: JsonValue) -> None:
    name = "xyz" if "minLength" in schema or "maxLength" in schema else "amount"
    made = sample_of(schema, name)
    if name == "xyz":
        expected = "xyzxxxxx" if "minLength" in schema else "xy"
    assert made == expected
    assert compile_schema(schema).violations(made) == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("^(19|20)[0-9]{2}-[0-9]{2}$", "1900-00"),
        (r"^\d{3}\.\w+$", "000.x"),
        ("^[^a]?(?:ab|cd)*$", ""),
        ("a.c", "axc"),
        ("(?=a)b", None),  # look-around
        ("(", None),
        ("[0-9]{999}{999}", None),
    ],
)
def test_simple_patterns_are_matched(pattern: str, expected: str | None) -> None:
    assert text_for_pattern(pattern) == expected


def test_huge_patterns_end() -> None:
    assert text_for_pattern("((((a{999}){999}){999}){999})") is None


def test_names_tell_what_a_value_is() -> None:
    assert [
        sample_by_name(name) for name in ("payerAccount", "totalAmount", "isVerified", "x")
    ] == [
        "1234567890",
        250,
        True,
        "x",
    ]
