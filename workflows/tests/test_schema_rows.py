"""Schemas as rows and back: what was not changed is exactly what was read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from config.jsonvalues import JsonObject, JsonValue, dump_compact
from workflows.errors import DefinitionError
from workflows.schema_rows import FieldRow, Rows, RowsRefused, read_rows, write_rows

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "amount": {"minimum": 1, "type": "number", "maximum": 1.50, "title": "Sum"},
        "iban": {"type": "string", "pattern": "^[A-Z]+$", "minLength": 5},
        "speed": {"enum": ["NOW", "LATER"]},
        "address": {"type": "object", "properties": {}},
        "due": {"type": "string", "format": "date"},
    },
    "required": ["iban", "amount"],
    "additionalProperties": False,
}
FIELDS: JsonValue = [
    {"name": "amount", "label": "Amount", "kind": "money", "colour": "red"},
    {"name": "note", "label": "Note", "help": "For you"},
]


def test_rows_say_what_is_there() -> None:
    rows = read_rows(SCHEMA, FIELDS)
    assert rows == Rows(
        (
            FieldRow("amount", "amount", "Amount", "money", "", "number", True, "1", "1.5"),
            FieldRow("note", "note", "Note", "", "For you", ""),
            FieldRow("iban", "iban", "", "", "", "text", True, "5", "", "^[A-Z]+$"),
            FieldRow("speed", "speed", type="choice", choices="NOW\nLATER"),
            FieldRow("address", "address", type="kept"),
            FieldRow("due", "due", type="date"),
        ),
        is_open=False,
    )


@pytest.mark.parametrize("schema", [None, SCHEMA, {"type": "object"}, {}], ids=repr)
@pytest.mark.parametrize("fields", [None, FIELDS, []], ids=repr)
def test_unchanged_rows_give_back_what_was_read(schema: JsonValue, fields: JsonValue) -> None:
    again = write_rows(read_rows(schema, fields), schema, fields)
    assert dump_compact(list(again)) == dump_compact([schema, fields])


def test_examples_are_understood() -> None:
    for file in sorted(EXAMPLES.glob("*.json")):
        for step in json.loads(file.read_text())["steps"]:
            schema, fields = (step.get("config", {}).get(key) for key in ("inputSchema", "fields"))
            again = write_rows(read_rows(schema, fields), schema, fields)
            assert again == (schema, fields)


def test_one_change_leaves_the_rest_alone() -> None:
    rows = read_rows(SCHEMA, FIELDS)
    changed = (replace(rows.rows[0], most="200", label="Sum"), *rows.rows[1:])
    schema, fields = write_rows(replace(rows, rows=changed), SCHEMA, FIELDS)
    assert schema == {
        **SCHEMA,
        "properties": {
            "amount": {"type": "number", "minimum": 1, "maximum": 200, "title": "Sum"},
            **{key: SCHEMA["properties"][key] for key in ("iban", "speed", "address", "due")},  # type: ignore[index,call-overload]
        },
    }
    assert fields == [
        {"name": "amount", "label": "Sum", "kind": "money", "colour": "red"},
        {"name": "note", "label": "Note", "help": "For you"},
    ]


def test_renamed_field_keeps_what_rows_do_not_show() -> None:
    rows = read_rows(SCHEMA, FIELDS)
    changed = (replace(rows.rows[0], name="sum"), *rows.rows[1:4], rows.rows[5])
    schema, fields = write_rows(Rows(changed, is_open=True), SCHEMA, FIELDS)
    assert isinstance(schema, dict)
    assert schema["required"] == ["iban", "sum"]
    assert "additionalProperties" not in schema
    assert schema["properties"] == {
        "sum": {"minimum": 1, "type": "number", "maximum": 1.5, "title": "Sum"},
        "iban": {"type": "string", "pattern": "^[A-Z]+$", "minLength": 5},
        "speed": {"enum": ["NOW", "LATER"]},
        "due": {"type": "string", "format": "date"},
    }
    assert isinstance(fields, list)
    assert fields[0] == {"name": "sum", "label": "Amount", "kind": "money", "colour": "red"}


def test_new_rows_make_schema_and_fields() -> None:
    rows = (
        FieldRow(name="amount", label="Amount", type="number", required=True, least="0.5"),
        FieldRow(),  # blank: not there
        FieldRow(name="to", type="choice", choices=" a \n\nb"),
        FieldRow(name="seen", type="", label="Seen"),
    )
    schema, fields = write_rows(Rows(rows, is_open=False), None, None)
    assert schema == {
        "type": "object",
        "properties": {"amount": {"type": "number", "minimum": 0.5}, "to": {"enum": ["a", "b"]}},
        "required": ["amount"],
        "additionalProperties": False,
    }
    assert fields == [{"name": "amount", "label": "Amount"}, {"name": "seen", "label": "Seen"}]


def test_no_rows_are_no_schema() -> None:
    assert write_rows(Rows(), SCHEMA, FIELDS) == (None, None)
    assert write_rows(Rows((FieldRow(),)), None, None) == (None, None)


def test_no_rows_and_no_other_names_refuse_every_name() -> None:
    closed: JsonObject = {"type": "object", "properties": {}, "additionalProperties": False}
    assert write_rows(Rows(is_open=False), None, None) == (closed, None)
    assert write_rows(Rows(is_open=False), closed, None) == (closed, None)
    assert write_rows(Rows(), closed, None) == (None, None)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {"type": "array"},
        {"type": "object", "allOf": []},
        {"required": ["a"]},
        {"properties": {}, "additionalProperties": {"type": "string"}},
        {"properties": []},
    ],
    ids=repr,
)
def test_schema_that_says_more_is_refused(schema: JsonValue) -> None:
    with pytest.raises(RowsRefused, match="edit it as JSON"):
        read_rows(schema, None)


@pytest.mark.parametrize(
    "fields",
    ["form", [1], [{"label": "x"}], [{"name": "a"}, {"name": "a"}], [{"name": "a", "label": 1}]],
    ids=repr,
)
def test_fields_of_another_shape_are_refused(fields: JsonValue) -> None:
    with pytest.raises(RowsRefused):
        read_rows(None, fields)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": ["string", "null"]},
        {"type": "string", "minimum": 1},
        {"type": "string", "format": "uri"},
        {"enum": [1, 2]},
        {"enum": ["a\nb"]},
        {"type": "integer", "multipleOf": 2},
        {"type": "string", "minLength": True},
        {"$ref": "#/$defs/a"},
        False,
    ],
    ids=repr,
)
def test_property_that_says_more_is_kept(schema: JsonValue) -> None:
    whole: JsonObject = {"properties": {"a": schema, "b": {}}}
    rows = read_rows(whole, None)
    assert rows.rows[0].type == "kept"
    changed = (replace(rows.rows[0], required=True), rows.rows[1])
    written, _ = write_rows(replace(rows, rows=changed), whole, None)
    assert written == {"properties": {"a": schema, "b": {}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (FieldRow(label="x"), "rows[1].name: is required"),
        (FieldRow(name="a"), "rows[1].name: a is there twice"),
        (FieldRow(name="x" * 101), "rows[1].name: must have at most 100 characters"),
        (FieldRow(name="b", least="1.5"), "rows[1].least: must be a whole number"),
        (FieldRow(name="b", type="number", most="nan"), "rows[1].most: must be a number"),
        (FieldRow(name="b", type="integer", most="x"), "rows[1].most: must be a number"),
        (
            FieldRow(name="b", type="choice"),
            "rows[1].choices: needs at least one choice, one a line",
        ),
        (
            FieldRow(name="b", type="kept"),
            "rows[1].type: there is nothing in the JSON view to keep",
        ),
        (FieldRow(name="b", type="colour"), "rows[1].type: is not a type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_rows_are_named(row: FieldRow, problem: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        write_rows(Rows((FieldRow(name="a"), row)), None, None)
    assert [str(one) for one in caught.value.problems] == [problem]
