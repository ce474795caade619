import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.jsonvalues import JsonObject, JsonValue
from workflows.errors import SchemaInvalid
from workflows.schemas import MAX_LISTED_VALUES, MAX_VIOLATIONS, compile_schema

BIG = 10**40
TRANSFER: JsonObject = {
    "type": "object",
    "required": ["amount", "recipientAccount"],
    "properties": {
        "amount": {"type": "number", "exclusiveMinimum": 0, "maximum": BIG},
        "recipientAccount": {"type": "string", "pattern": "^[0-9]{4,12}$"},
        "tags": {"type": "array", "items": {"enum": ["a", 2]}, "maxItems": 1},
    },
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "value",
    [
        {"amount": 0.01, "recipientAccount": "0012"},
        {"amount": BIG, "recipientAccount": "0012", "tags": [2]},
    ],
)
def test_value_that_fits(value: JsonValue) -> None:
    assert compile_schema(TRANSFER).violations(value) == []


@pytest.mark.parametrize(
    ("value", "violations"),
    [
        ({}, [("/amount", "is required"), ("/recipientAccount", "is required")]),
        (None, [("", "must be of type object")]),
        ({"amount": "4111", "recipientAccount": "x4111"},
         [("/amount", "must be of type number"),
          ("/recipientAccount", "must match the pattern ^[0-9]{4,12}$")]),
        ({"amount": 0, "recipientAccount": "0012\n"},
         [("/amount", "must be more than 0"),
          ("/recipientAccount", "must match the pattern ^[0-9]{4,12}$")]),
        ({"amount": BIG + 1, "recipientAccount": "0012"}, [("/amount", f"must be at most {BIG}")]),
        ({"amount": 1, "recipientAccount": "0012", "a/b~c": 1, "pin": 4111},
         [("/a~1b~0c", "is not allowed"), ("/pin", "is not allowed")]),
        ({"amount": 1, "recipientAccount": "0012", "tags": ["a", 4111]},
         [("/tags", "must have at most 1 item"), ("/tags/1", 'must be one of "a", 2')]),
    ],
)  # fmt: skip
def test_violations_are_named_by_path(value: JsonValue, violations: list[tuple[str, str]]) -> None:
    found = compile_schema(TRANSFER).violations(value)

    assert sorted(found) == sorted(violations)


@pytest.mark.parametrize(
    ("schema", "value", "path", "message"),
    [
        ({"type": ["string", "null"]}, 4111, "", "must be of type null or string"),
        ({"const": "é"}, "4111", "", 'must be "é"'),
        ({"enum": ["x" * 300]}, "4111", "", "must be one of the allowed values"),
        ({"minimum": 5}, 4.5, "", "must be at least 5"),
        ({"exclusiveMaximum": 1.5}, 4111, "", "must be less than 1.5"),
        ({"multipleOf": 10}, BIG + 1, "", "must be a multiple of 10"),
        ({"multipleOf": 0.01}, 1.001, "", "must be a multiple of 0.01"),
        ({"minLength": 1}, "", "", "must have at least 1 character"),
        ({"maxLength": 3}, "4111", "", "must have at most 3 characters"),
        ({"minItems": 1}, [], "", "must have at least 1 item"),
        ({"minProperties": 1}, {}, "", "must have at least 1 property"),
        ({"maxProperties": 0}, {"4111": 1}, "", "must have at most 0 properties"),
        ({"uniqueItems": True}, [4111, 4111], "", "must not have the same item twice"),
        ({"contains": {"const": 1}}, [4111], "", "does not have the items that it must have"),
        ({"format": "email"}, "4111", "", "is not a valid email"),
        ({"format": "date"}, "31.12.4111", "", "is not a valid date"),
        ({"anyOf": [{"type": "null"}, {"maxLength": 2}]}, "4111", "",
         "fits none of the allowed forms"),
        ({"oneOf": [{"minLength": 1}, {"minLength": 2}]}, "4111", "",
         "must fit exactly one of the allowed forms"),
        ({"not": {"type": "string"}}, "4111", "", "has a form that is not allowed"),
        ({"properties": {"a": False}}, {"a": 4111}, "/a", "is not allowed"),
        ({"propertyNames": {"maxLength": 2}}, {"abc": 4111}, "/abc", "is not an allowed name"),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 4111}, "/b", "is required"),
        ({"unevaluatedProperties": False}, {"a": 4111}, "/a", "is not allowed"),
        ({"additionalProperties": False}, {"a": 4111}, "/a", "is not allowed"),
        ({"properties": {"o": {"additionalProperties": False}}}, {"o": {"a": {"b": 4111}}},
         "/o/a", "is not allowed"),
        ({"properties": {"o": False}}, {"o": {"a": 4111}}, "/o", "is not allowed"),
        ({"unevaluatedItems": False}, [4111], "", "has items that are not allowed"),
        ({"items": {"properties": {"a": {"type": "null"}}}}, [{}, {"a": 4111}], "/1/a",
         "must be of type null"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}, 4111, "",
         "must be of type null"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [True],
          "additionalItems": False}, [1, 4111], "", "may have at most 1 item"),
        (False, 4111, "", "is not allowed"),
    ],
)  # fmt: skip
def test_message_says_what_is_asked_for(
    schema: JsonValue, value: JsonValue, path: str, message: str
) -> None:
    found = compile_schema(schema).violations(value)

    assert found == [(path, message)]
    assert "4111" not in message


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"type": "integer"}, 10**4299, True),
        ({"maximum": 2**53}, 2**53 + 1, False),  # one float, two integers
        ({"maximum": 2**53 + 1}, 2**53 + 1, True),
        ({"minimum": 2**64 + 1}, 2**64, False),
        ({"const": BIG}, BIG + 1, False),
        ({"enum": [BIG]}, BIG, True),
        ({"multipleOf": 10}, BIG, True),
        ({"multipleOf": 0.01}, 19.99, True),
        ({"multipleOf": 0.01}, 4.35, True),
        ({"type": "integer"}, 1.0, True),
        ({"type": "integer"}, True, False),
        ({"type": "number"}, "5", False),
    ],
)
def test_numbers_are_compared_exactly(schema: JsonValue, value: JsonValue, *, fits: bool) -> None:
    assert (compile_schema(schema).violations(value) == []) is fits


@given(st.integers(), st.integers())
def test_any_two_integers(limit: int, value: int) -> None:
    assert (compile_schema({"maximum": limit}).violations(value) == []) == (value <= limit)


def test_violations_are_bounded() -> None:
    schema = compile_schema({"items": {"type": "string"}, "maxItems": 1})

    found = schema.violations(list(range(MAX_LISTED_VALUES - 1)))

    assert len(found) == MAX_VIOLATIONS


def test_surplus_properties_are_bounded() -> None:
    schema = compile_schema({"additionalProperties": False})

    found = schema.violations({str(number): 1 for number in range(MAX_LISTED_VALUES - 1)})

    assert len(found) == MAX_VIOLATIONS


def test_large_value_is_refused_for_its_first_violation() -> None:
    schema = compile_schema({"items": {"anyOf": [{"type": "string"}, {"type": "null"}]}})
    started = time.process_time()

    found = schema.violations(["a", *range(130_000)])

    assert found == [("/1", "fits none of the allowed forms")]
    assert time.process_time() - started < 1


ONLY_INSIDE = "only references inside the schema (#/...) are followed"
LINEAR = "must be a regular expression without look-around and back-references"


@pytest.mark.parametrize(
    ("schema", "problems"),
    [
        ({"$ref": "http://127.0.0.1:1/x"}, [("$ref", ONLY_INSIDE)]),
        ({"$ref": "https://partner.example/x#/a"}, [("$ref", ONLY_INSIDE)]),
        ({"allOf": [{"$ref": "file:///etc/passwd"}]}, [("allOf[0].$ref", ONLY_INSIDE)]),
        ({"$ref": "other.json"}, [("$ref", ONLY_INSIDE)]),
        ({"$id": "http://a.example/b", "$ref": "c"}, [("$ref", ONLY_INSIDE)]),
        ({"$dynamicRef": "http://a.example/#b"}, [("$dynamicRef", ONLY_INSIDE)]),
        ({"$ref": "#/$defs/no"}, [("", "cannot be resolved: Pointer '/$defs/no' does not exist")]),
        ({"type": "objekt", "properties": {"a": {"minLength": -1, "pattern": "(?=a)b"}}},
         [("properties.a.minLength", "must be at least 0"), ("properties.a.pattern", LINEAR),
          ("type", "fits none of the allowed forms")]),
        ({"pattern": "(a"}, [("pattern", LINEAR)]),
        ({"pattern": "(a)\\1"}, [("pattern", LINEAR)]),
        ({"pattern": "a{1000}{1000}{1000}"}, [("pattern", LINEAR)]),
        ({"patternProperties": {"(?!a)": True}}, [("patternProperties.(?!a)", LINEAR)]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "objekt"},
         [("type", "fits none of the allowed forms")]),
        ("{}", [("", "a JSON Schema is an object or a boolean")]),
        ([], [("", "a JSON Schema is an object or a boolean")]),
        (None, [("", "a JSON Schema is an object or a boolean")]),
    ],
)  # fmt: skip
def test_schema_that_cannot_be_used(schema: JsonValue, problems: list[tuple[str, str]]) -> None:
    with pytest.raises(SchemaInvalid) as caught:
        compile_schema(schema)

    assert sorted((item.path, item.message) for item in caught.value.problems) == sorted(problems)


def test_unknown_draft_is_not_fetched() -> None:
    with pytest.raises(SchemaInvalid, match="Unknown meta-schema"):
        compile_schema({"$schema": "http://127.0.0.1:1/schema"})


def test_reference_into_the_schema_by_its_own_id_is_followed() -> None:
    schema = compile_schema(
        {"$id": "http://a.example/b", "$ref": "b#/$defs/c", "$defs": {"c": {"type": "null"}}}
    )

    assert schema.violations(1) == [("", "must be of type null")]


def test_pattern_takes_linear_time() -> None:
    schema = compile_schema({"pattern": "^(a+)+$"})
    started = time.process_time()

    assert len(schema.violations("a" * 100_000 + "!")) == 1
    assert time.process_time() - started < 1
