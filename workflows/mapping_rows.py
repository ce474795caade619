"""A mapping as rows that people edit, and back: what is opened and saved unchanged stays as it was.

A row is one place of the payload: the payload itself comes first, at depth 0, and what is inside an
object or a list follows it one deeper. A name is taken as it stands, so a dot in it is part of the
name; `nested` makes objects of such a name when that was meant. How something was written that a row
does not show (`$from` without `$default`, the order of the two) stays with the row as its `shape`.
Fields of a page lose line breaks: `restored` gives them back to what was not touched. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from config.jsonvalues import JsonObject, JsonValue
from workflows.document_text import read_json
from workflows.errors import DefinitionError
from workflows.mapping import DEFAULT, FROM

_LINE_BREAKS = re.compile(r"[\r\n]")
_FROM_ONLY = "from"
_DEFAULT_FIRST = "default-first"
SHAPES = frozenset({"", _FROM_ONLY, _DEFAULT_FIRST})


class RowKind(StrEnum):
    """What stands at a place of the payload. NONE is for the payload itself: there is no mapping."""

    NONE = "none"
    SOURCE = "source"
    TEXT = "text"
    LITERAL = "literal"
    OBJECT = "object"
    LIST = "list"


CONTAINERS = frozenset({RowKind.OBJECT, RowKind.LIST})


@dataclass(frozen=True, slots=True)
class MappingRow:
    """One place of the payload, as a person edits it.

    `text` is the expression, the text, or the literal as JSON; `default` is JSON, "" for none.
    `origin` is the row's index when the mapping was opened, None for one that was added.
    """

    depth: int
    kind: RowKind
    name: str = ""
    text: str = ""
    default: str = ""
    shape: str = ""
    origin: int | None = None

    @property
    def is_blank(self) -> bool:
        """Whether nothing was entered: such a row is passed over."""
        return self.kind not in CONTAINERS and not (self.name or self.text or self.default)


@dataclass(frozen=True, slots=True)
class RowProblem:
    """What is wrong at a row, by its index."""

    index: int
    message: str


@dataclass(frozen=True, slots=True)
class RowLeaf:
    """A row that gives a value, and the mapping of that value alone."""

    index: int
    mapping: JsonValue


@dataclass(frozen=True, slots=True)
class BuiltMapping:
    """What rows come to. With problems there is no mapping; None without any is "no mapping"."""

    mapping: JsonValue
    leaves: tuple[RowLeaf, ...]
    problems: tuple[RowProblem, ...]


def rows_of(mapping: JsonValue) -> tuple[MappingRow, ...]:
    """The rows of a mapping; None, no mapping, is one row."""
    if mapping is None:
        return (MappingRow(0, RowKind.NONE, origin=0),)
    rows = _rows(mapping, depth=0, name="")
    return tuple(replace(row, origin=index) for index, row in enumerate(rows))


def mapping_of(rows: Sequence[MappingRow]) -> BuiltMapping:
    """The mapping that the rows describe, or every problem at its row."""
    return _Building(rows).built()


def restored(rows: Sequence[MappingRow], opened: Sequence[MappingRow]) -> tuple[MappingRow, ...]:
    """The rows with the line breaks that a page's fields took from what nobody changed.

    A row whose name was taken out is no longer the one that was opened, which may have had none.
    """
    return tuple(_restored(row, opened) for row in rows)


def nested(rows: Sequence[MappingRow], index: int) -> tuple[MappingRow, ...]:
    """The rows with the dots in the name at `index` read as nesting.

    It goes into objects of those names that are there beside it, after what they hold. A name with
    an empty part stays as it is.
    """
    *outer, last = rows[index].name.split(".")
    if not outer or not all((*outer, last)):
        return tuple(rows)
    end = end_of(rows, index)
    parent = _parent(rows, index)
    block = [replace(row, depth=row.depth + len(outer)) for row in rows[index:end]]
    block[0] = replace(block[0], name=last)
    rest = [*rows[:index], *rows[end:]]
    at = index
    for depth, name in enumerate(outer, start=rows[index].depth):
        found = _child_object(rest, parent, name)
        if found is None:
            rest.insert(at, MappingRow(depth, RowKind.OBJECT, name))
            found = at
        parent, at = found, end_of(rest, found)
    return (*rest[:at], *block, *rest[at:])


def end_of(rows: Sequence[MappingRow], index: int) -> int:
    """The index after the row and all that is inside it."""
    end = index + 1
    while end < len(rows) and rows[end].depth > rows[index].depth:
        end += 1
    return end


def text_expression(text: str) -> str:
    """The expression whose value is the text."""
    if "\\" not in text:
        return "'" + text.replace("'", "\\'") + "'"
    return "`" + json.dumps(text, ensure_ascii=False).replace("`", "\\`") + "`"


# A mapping to rows.


def _rows(source: JsonValue, *, depth: int, name: str) -> Iterator[MappingRow]:
    if isinstance(source, str):
        yield _source_row(source, depth=depth, name=name)
    elif isinstance(source, list):
        yield MappingRow(depth, RowKind.LIST, name)
        for item in source:
            yield from _rows(item, depth=depth + 1, name="")
    elif isinstance(source, dict):
        yield from _rows_of_object(source, depth=depth, name=name)
    else:
        yield MappingRow(depth, RowKind.LITERAL, name, _literal(source))


def _rows_of_object(source: JsonObject, *, depth: int, name: str) -> Iterator[MappingRow]:
    text = source.get(FROM)
    if isinstance(text, str) and not source.keys() - {FROM, DEFAULT}:
        default = _literal(source[DEFAULT]) if DEFAULT in source else ""
        shape = "" if next(iter(source)) == FROM else _DEFAULT_FIRST
        shape = shape if DEFAULT in source else _FROM_ONLY
        yield replace(
            _source_row(text, depth=depth, name=name, with_texts=False),
            default=default,
            shape=shape,
        )
        return
    # One that no mapping may hold is shown by its members, whose problems then have a place.
    yield MappingRow(depth, RowKind.OBJECT, name)
    for member, item in source.items():
        yield from _rows(item, depth=depth + 1, name=member)


def _source_row(text: str, *, depth: int, name: str, with_texts: bool = True) -> MappingRow:
    plain = _text_of(text) if with_texts else None
    if plain is not None:
        return MappingRow(depth, RowKind.TEXT, name, plain)
    return MappingRow(depth, RowKind.SOURCE, name, text)


def _text_of(expression: str) -> str | None:
    """The text that the expression stands for, if it is written as we would."""
    if expression[:1] == "'" and len(expression) > 1:
        text = expression[1:-1].replace("\\'", "'")
    elif expression[:1] == "`" and len(expression) > 1:
        try:
            text = json.loads(expression[1:-1].replace("\\`", "`"))
        except ValueError:
            return None
    else:
        return None
    return text if isinstance(text, str) and text_expression(text) == expression else None


def _literal(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False)


# Rows to a mapping.


class _Building:
    """One pass over rows: what it has found at each of them."""

    def __init__(self, rows: Sequence[MappingRow]) -> None:
        self.rows = rows
        self.problems: list[RowProblem] = []
        self.leaves: list[RowLeaf] = []

    def built(self) -> BuiltMapping:
        if not self.rows:
            return BuiltMapping(None, (), (RowProblem(0, "the payload's own row is missing"),))
        mapping = self._value(0)
        for index in range(end_of(self.rows, 0), len(self.rows)):
            self._refuse(index, "stands outside the payload: set it deeper")
        problems = tuple(sorted(self.problems, key=lambda one: one.index))
        return BuiltMapping(None if problems else mapping, tuple(self.leaves), problems)

    def _value(self, index: int) -> JsonValue:
        row = self.rows[index]
        if row.kind is RowKind.OBJECT:
            return self._object(index)
        if row.kind is RowKind.LIST:
            return [self._value(child) for child in self._children(index)]
        for child in range(index + 1, end_of(self.rows, index)):
            if not self._is_passed_over(child):
                self._refuse(child, "stands inside something that is no object and no list")
        if row.kind is RowKind.NONE:
            if index:
                self._refuse(index, "needs a kind")
            return None
        leaf = self._leaf(index, row)
        self.leaves.append(RowLeaf(index, leaf))
        return leaf

    def _object(self, index: int) -> JsonObject:
        members: JsonObject = {}
        for child in self._children(index):
            row = self.rows[child]
            if not row.name and row.origin is None:
                self._refuse(child, "needs a name")
            elif row.name in members:
                self._refuse(child, f"{row.name} is there twice in this object")
            members[row.name] = self._value(child)
        return members

    def _children(self, index: int) -> list[int]:
        inside = range(index + 1, end_of(self.rows, index))
        depth = self.rows[index].depth + 1
        found: list[int] = []
        for child in inside:
            if self._is_passed_over(child):
                continue
            if self.rows[child].depth == depth:
                found.append(child)
            elif not found:
                self._refuse(child, "is set too deep: nothing above it holds it")
        return found

    def _is_passed_over(self, index: int) -> bool:
        """A row that somebody added and left empty."""
        row = self.rows[index]
        return row.is_blank and row.origin is None and end_of(self.rows, index) == index + 1

    def _leaf(self, index: int, row: MappingRow) -> JsonValue:
        if row.kind is RowKind.LITERAL:
            return self._read_literal(index, row.text)
        text = text_expression(row.text) if row.kind is RowKind.TEXT else row.text
        if row.kind is RowKind.SOURCE and not text.strip() and row.origin is None:
            self._refuse(index, "needs a source: a path, or an expression")
        if not row.default.strip():
            return {FROM: text} if row.shape == _FROM_ONLY else text
        default = self._read_json(index, row.default, "the default")
        if row.shape == _DEFAULT_FIRST:
            return {DEFAULT: default, FROM: text}
        return {FROM: text, DEFAULT: default}

    def _read_literal(self, index: int, text: str) -> JsonValue:
        value = self._read_json(index, text, "the literal")
        if isinstance(value, str | list | dict):
            self._refuse(index, "a literal is a number, true, false or null: choose another kind")
        return value

    def _read_json(self, index: int, text: str, what: str) -> JsonValue:
        try:
            return read_json(text.encode(errors="surrogatepass"))
        except DefinitionError:
            self._refuse(index, f'{what} is no JSON: write a text as "text"')
            return None

    def _refuse(self, index: int, message: str) -> None:
        self.problems.append(RowProblem(index, message))


# What was opened.


def _restored(row: MappingRow, opened: Sequence[MappingRow]) -> MappingRow:
    if row.origin is None or not 0 <= row.origin < len(opened):
        return replace(row, origin=None)
    before = opened[row.origin]
    if before.name and not row.name:
        return replace(row, origin=None)
    return replace(
        row,
        name=_untouched(row.name, before.name),
        text=_untouched(row.text, before.text),
        default=_untouched(row.default, before.default),
    )


def _untouched(text: str, before: str) -> str:
    is_same = _LINE_BREAKS.sub("", text) == _LINE_BREAKS.sub("", before)
    return before if is_same else text


# Nesting.


def _parent(rows: Sequence[MappingRow], index: int) -> int | None:
    for at in range(index - 1, -1, -1):
        if rows[at].depth < rows[index].depth:
            return at
    return None


def _child_object(rows: Sequence[MappingRow], parent: int | None, name: str) -> int | None:
    if parent is None:
        return None
    depth = rows[parent].depth + 1
    for at in range(parent + 1, end_of(rows, parent)):
        row = rows[at]
        if row.depth == depth and row.kind is RowKind.OBJECT and row.name == name:
            return at
    return None
