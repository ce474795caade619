import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.jsonvalues import JsonValue, dump_compact
from workflows.errors import ExpressionFailed, ExpressionInvalid, MappingIncomplete, Problem
from workflows.mapping import compile_mapping

BIG = 12345678901234567890123
SCOPE: dict[str, JsonValue] = {
    "userAccount": "0012",
    "transferDetails": {"amount": BIG, "fee": 0.1, "recipientName": "John Doe", "note": None},
    "validation": {"token": "t-1", "valid": False, "zero": 0, "empty": ""},
    "items": [{"id": 7}, {"id": 8}],
}


@pytest.mark.parametrize(
    ("mapping", "payload"),
    [
        ({"amount": "transferDetails.amount"}, {"amount": BIG}),
        ({"account": "context.userAccount"}, {"account": "0012"}),
        ({"fee": "transferDetails.fee"}, {"fee": 0.1}),
        # values that are false are values
        (["validation.valid", "validation.zero", "validation.empty"], [False, 0, ""]),
        ({"currency": "'USD'", "version": 2, "test": False, "none": None, "n": []},
         {"currency": "USD", "version": 2, "test": False, "none": None, "n": []}),
        ({"recipient": {"name": "transferDetails.recipientName", "ids": ["items[1].id"]}},
         {"recipient": {"name": "John Doe", "ids": [8]}}),
        ({"a.b": "userAccount"}, {"a.b": "0012"}),
        ("items", [{"id": 7}, {"id": 8}]),
        ({"note": {"$from": "transferDetails.note", "$default": "none"}}, {"note": "none"}),
        ({"x": {"$from": "absent", "$default": {"deep": ["userAccount"]}}},
         {"x": {"deep": ["userAccount"]}}),
        ({"x": {"$from": "absent.deeper", "$default": None}}, {"x": None}),
        ({"x": {"$from": "validation.zero", "$default": 5}}, {"x": 0}),
        ({"x": {"$from": "userAccount"}}, {"x": "0012"}),
        ({}, {}),
    ],
)  # fmt: skip
def test_payload(mapping: JsonValue, payload: JsonValue) -> None:
    result = compile_mapping(mapping).apply(SCOPE)

    assert dump_compact(result) == dump_compact(payload)


@pytest.mark.parametrize(
    ("mapping", "fields"),
    [
        ({"amount": "absent"}, ("amount",)),
        ({"note": "transferDetails.note"}, ("note",)),  # null is no value either
        ({"recipient": {"name": "a.b", "id": "userAccount"}}, ("recipient.name",)),
        ({"items": [{"id": "a"}, {"id": "items[0].id"}, {"id": "b"}]},
         ("items[0].id", "items[2].id")),
        ({"a.b": "absent", "a": {"b": "absent"}}, ("a.b", "a.b")),
        ([["absent"]], ("[0][0]",)),
        ("absent", ("$",)),
        ({"x": {"$from": "absent"}}, ("x",)),
        ({"total": "sum(absent)", "b": "absent"}, ("total", "b")),
        # a default is for what is missing, not for what cannot be added up
        ({"total": {"$from": "sum(items)", "$default": 0}}, ("total",)),
    ],
)  # fmt: skip
def test_every_missing_field_is_named(mapping: JsonValue, fields: tuple[str, ...]) -> None:
    compiled = compile_mapping(mapping)

    with pytest.raises(MappingIncomplete) as caught:
        compiled.apply(SCOPE)

    assert caught.value.fields == fields


def test_every_problem_is_named() -> None:
    with pytest.raises(ExpressionInvalid) as caught:
        compile_mapping(
            {
                "amount": "a b",
                "recipient": {"name": "", "ids": ["ok", "nope(a)"]},
                "x": {"$from": "a..b", "$default": 1, "$else": 2},
                "y": {"$from": 5},
                "z": {"$default": 5},
            }
        )

    assert caught.value.problems == (
        Problem("amount", "does not parse at position 3: unexpected b"),
        Problem("recipient.name", "an expression cannot be empty"),
        Problem("recipient.ids[1]", "does not parse at position 1: there is no function nope()"),
        Problem("x.$else", "an object with $from may only have $default besides"),
        Problem("x", "does not parse at position 3: unexpected ."),
        Problem("y.$from", "must be an expression"),
        Problem("z.$from", "must be an expression"),
    )


def test_sources_and_roots() -> None:
    mapping = compile_mapping(
        {"a": "x.y", "b": [{"$from": "context.z", "$default": 1}], "c": 5, "d": "'text'"}
    )

    assert [(s.path, s.expression.text, s.has_default) for s in mapping.sources] == [
        ("a", "x.y", False),
        ("b[0]", "context.z", True),
        ("d", "'text'", False),
    ]
    assert mapping.roots == frozenset({"x", "z"})


@pytest.mark.parametrize("source", ["context", "@"])
def test_a_whole_context_source_can_be_told(source: str) -> None:
    mapping = compile_mapping({"everything": source, "a": "a"})

    assert [item.path for item in mapping.sources if item.expression.is_whole_context] == [
        "everything"
    ]
    assert mapping.roots is None


def test_a_payload_that_repeats_itself_too_often_is_refused() -> None:
    mapping = compile_mapping({f"copy{number}": "long" for number in range(11)})

    with pytest.raises(ExpressionFailed) as caught:
        mapping.apply({"long": "x" * 100_000})

    assert caught.value.message == "The mapping failed: it gives more than 1048576 bytes."


def test_the_money_transfer_gives_the_payload_of_the_seed() -> None:
    document: JsonValue = {
        "amount": "transferDetails.amount",
        "senderAccount": "context.userAccount",
        "recipientAccount": "transferDetails.recipientAccount",
        "recipientName": "transferDetails.recipientName",
        "validationToken": "validation.token",
    }
    scope: dict[str, JsonValue] = {
        "userAccount": "ACC-1",
        "transferDetails": {
            "amount": 5000,
            "recipientAccount": "ACC-2",
            "recipientName": "John Doe",
        },
        "validation": {"valid": True, "token": "tok-9"},
    }

    assert compile_mapping(document).apply(scope) == {
        "amount": 5000,
        "senderAccount": "ACC-1",
        "recipientAccount": "ACC-2",
        "recipientName": "John Doe",
        "validationToken": "tok-9",
    }


FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_types_survive(value: JsonValue) -> None:
    mapping = compile_mapping({"plain": "a.b", "search": "not_null(a.b)", "list": ["a | b"]})

    payload = mapping.apply({"a": {"b": value}})

    assert json.loads(dump_compact(payload)) == {"plain": value, "search": value, "list": [value]}
    assert repr(payload) == repr({"plain": value, "search": value, "list": [value]})
