"""A mapping as rows and back: nothing is lost, and every mistake has its row."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from config.jsonvalues import JsonValue, dump_compact
from workflows.expressions import compile_expression
from workflows.mapping_rows import (
    MappingRow,
    RowKind,
    RowProblem,
    mapping_of,
    nested,
    restored,
    rows_of,
    text_expression,
)

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "contract" / "workflows" / "money-transfer.json",
    *sorted((ROOT / "examples").glob("*.json")),
]

NONE, SOURCE, TEXT = RowKind.NONE, RowKind.SOURCE, RowKind.TEXT
LITERAL, OBJECT, LIST = RowKind.LITERAL, RowKind.OBJECT, RowKind.LIST


def same(left: JsonValue, right: JsonValue) -> bool:
    return dump_compact(left) == dump_compact(right)


def there_and_back(mapping: JsonValue) -> JsonValue:
    rows = rows_of(mapping)
    built = mapping_of(restored(rows, rows))
    assert built.problems == ()
    return built.mapping


def mappings_in(document: JsonValue) -> list[JsonValue]:
    found: list[JsonValue] = []
    for key, value in document.items() if isinstance(document, dict) else ():
        found += [value] if key in ("apiMapping", "requestMapping") else mappings_in(value)
    for item in document if isinstance(document, list) else ():
        found += mappings_in(item)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_mappings_of_documents_stay_as_they_are(path: Path) -> None:
    for mapping in mappings_in(json.loads(path.read_text())):
        assert same(there_and_back(mapping), mapping)


def test_the_documents_have_mappings() -> None:
    found = [one for path in DOCUMENTS for one in mappings_in(json.loads(path.read_text()))]
    assert len(found) >= 4


@pytest.mark.parametrize(
    "mapping",
    [
        None,
        "a.b",
        "'USD'",
        r"'it\'s'",
        r"'back\\slash'",
        '`"USD"`',
        '`"a\\\\b"`',
        "`1`",
        "'",
        "`",
        "",
        " ",
        1,
        1.0,
        1e23,
        -0.0,
        2**70,
        True,
        False,
        {},
        [],
        [[], {}],
        {"": ""},
        {"a.b": "c", "a": {"b": "c"}},
        {"$from": "a"},
        {"$from": "'a'", "$default": "x"},
        {"$default": None, "$from": "a"},
        {"$from": "a", "$default": {"deep": [1, "a"]}},
        {"$from": 3},
        {"$default": 1},
        {"$from": "a", "other": "b"},
        {"x": [None, {"y": {"$from": "a\r\n  || b", "$default": 1.50}}]},
        {"line\nbreak": "a ||\n b"},
        "<script>alert(1)</script>",
    ],
)
def test_every_way_to_write_it_stays(mapping: JsonValue) -> None:
    assert same(there_and_back(mapping), mapping)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
leaves = (
    texts
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts.map(text_expression)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts | st.sampled_from(["$from", "$default"]), inner, max_size=4)
        | st.fixed_dictionaries({"$from": texts}, optional={"$default": inner})
        | st.fixed_dictionaries({"$default": inner, "$from": texts})
    ),
    max_leaves=12,
)


@given(values)
def test_any_mapping_stays_as_it_is(mapping: JsonValue) -> None:
    assert same(there_and_back(mapping), mapping)


@given(values)
def test_fields_without_line_breaks_change_nothing(mapping: JsonValue) -> None:
    """As a browser sends it: one-line fields lose their line breaks."""
    rows = rows_of(mapping)

    def flat(text: str) -> str:
        return text.replace("\r", "").replace("\n", "")

    sent = [
        replace(row, name=flat(row.name), text=flat(row.text), default=flat(row.default))
        for row in rows
    ]
    # A name of line breaks alone comes back as none at all, which is one that was taken out.
    assume(not any(row.name and not flat(row.name) for row in rows))
    built = mapping_of(restored(sent, rows))
    assert built.problems == ()
    assert same(built.mapping, mapping)


@given(texts)
def test_texts_are_what_they_say(text: str) -> None:
    assert compile_expression(text_expression(text)).evaluate({}) == text


def test_rows_say_where_and_what() -> None:
    mapping: JsonValue = {
        "amount": "transfer.amount",
        "currency": "'USD'",
        "to": {"iban": {"$from": "transfer.iban", "$default": None}},
        "items": ["a", 1],
        "none": {},
    }
    assert [(row.depth, row.kind, row.name, row.text, row.default) for row in rows_of(mapping)] == [
        (0, OBJECT, "", "", ""),
        (1, SOURCE, "amount", "transfer.amount", ""),
        (1, TEXT, "currency", "USD", ""),
        (1, OBJECT, "to", "", ""),
        (2, SOURCE, "iban", "transfer.iban", "null"),
        (1, LIST, "items", "", ""),
        (2, SOURCE, "", "a", ""),
        (2, LITERAL, "", "1", ""),
        (1, OBJECT, "none", "", ""),
    ]


def test_leaves_have_their_rows() -> None:
    built = mapping_of(rows_of({"a": "x", "b": {"c": "y"}, "d": [1]}))
    assert [(leaf.index, leaf.mapping) for leaf in built.leaves] == [(1, "x"), (3, "y"), (5, 1)]


def test_blank_rows_are_passed_over() -> None:
    rows = [*rows_of({"a": "x"}), MappingRow(1, SOURCE), MappingRow(0, SOURCE)]
    built = mapping_of(rows[:2] + rows[2:3])
    assert (built.mapping, built.problems) == ({"a": "x"}, ())


def test_a_row_is_taken_out_by_emptying_it() -> None:
    opened = rows_of({"a": "x", "b": "y"})
    emptied = replace(opened[1], name="", text="")
    assert mapping_of(restored([opened[0], emptied, opened[2]], opened)).mapping == {"b": "y"}


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        # a name twice
        ([MappingRow(0, OBJECT), MappingRow(1, SOURCE, "a", "x"), MappingRow(1, SOURCE, "a", "y")],
         RowProblem(2, "a is there twice in this object")),
        # no name
        ([MappingRow(0, OBJECT), MappingRow(1, SOURCE, "", "x")], RowProblem(1, "needs a name")),
        # no source
        ([MappingRow(0, OBJECT), MappingRow(1, SOURCE, "a", " ")],
         RowProblem(1, "needs a source: a path, or an expression")),
        # inside a value
        ([MappingRow(0, OBJECT), MappingRow(1, SOURCE, "a", "x"), MappingRow(2, SOURCE, "b", "y")],
         RowProblem(2, "stands inside something that is no object and no list")),
        # too deep
        ([MappingRow(0, OBJECT), MappingRow(2, SOURCE, "a", "x")],
         RowProblem(1, "is set too deep: nothing above it holds it")),
        ([MappingRow(0, OBJECT), MappingRow(1, OBJECT, "o"), MappingRow(3, SOURCE, "a", "x")],
         RowProblem(2, "is set too deep: nothing above it holds it")),
        # beside the payload
        ([MappingRow(0, OBJECT), MappingRow(0, SOURCE, "a", "x")],
         RowProblem(1, "stands outside the payload: set it deeper")),
        # literals
        ([MappingRow(0, OBJECT), MappingRow(1, LITERAL, "a", "USD")],
         RowProblem(1, 'the literal is no JSON: write a text as "text"')),
        ([MappingRow(0, OBJECT), MappingRow(1, LITERAL, "a", '"USD"')],
         RowProblem(1, "a literal is a number, true, false or null: choose another kind")),
        ([MappingRow(0, OBJECT), MappingRow(1, LITERAL, "a", "NaN")],
         RowProblem(1, 'the literal is no JSON: write a text as "text"')),
        # defaults
        ([MappingRow(0, OBJECT), MappingRow(1, SOURCE, "a", "x", "none")],
         RowProblem(1, 'the default is no JSON: write a text as "text"')),
        # no mapping at all, and something in it
        ([MappingRow(0, NONE), MappingRow(1, SOURCE, "a", "x")],
         RowProblem(1, "stands inside something that is no object and no list")),
        ([MappingRow(0, OBJECT), MappingRow(1, NONE, "a", "x")], RowProblem(1, "needs a kind")),
    ],
)  # fmt: skip
def test_mistakes_have_their_row(rows: list[MappingRow], problem: RowProblem) -> None:
    built = mapping_of(rows)
    assert (built.mapping, built.problems) == (None, (problem,))


def test_no_rows_are_no_mapping() -> None:
    built = mapping_of([])
    assert built.problems == (RowProblem(0, "the payload's own row is missing"),)


def test_a_dot_is_part_of_the_name_until_it_is_nested() -> None:
    rows = rows_of({"to.address.city": "x", "b": "y"})
    assert mapping_of(rows).mapping == {"to.address.city": "x", "b": "y"}
    assert mapping_of(nested(rows, 1)).mapping == {"to": {"address": {"city": "x"}}, "b": "y"}


def test_nesting_goes_into_the_object_that_is_there() -> None:
    rows = rows_of({"to": {"name": "n"}, "b": "y", "to.address": {"city": "x"}})
    index = [row.name for row in rows].index("to.address")
    made = mapping_of(nested(rows, index)).mapping
    assert same(made, {"to": {"name": "n", "address": {"city": "x"}}, "b": "y"})


@pytest.mark.parametrize("name", ["plain", ".a", "a.", "a..b", ""])
def test_names_without_parts_are_not_nested(name: str) -> None:
    rows = (MappingRow(0, OBJECT), MappingRow(1, SOURCE, name, "x", origin=1))
    assert nested(rows, 1) == rows


def test_unknown_origins_are_new_rows() -> None:
    opened = rows_of({"a": "x"})
    assert restored([replace(opened[1], origin=99)], opened)[0].origin is None
