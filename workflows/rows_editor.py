"""The field editor: a schema and `fields` as rows in a form, or as JSON where rows cannot show them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from config.jsonvalues import JsonValue
from workflows.draft_parts import in_one_line
from workflows.errors import DefinitionError, Problem
from workflows.schema_rows import TYPES, FieldRow, Rows, RowsRefused, read_rows, write_rows

AS_ROWS: Final = "rows"
AS_JSON: Final = "json"
MAX_ROWS: Final = 200

_TEXTS: Final = (
    "was",
    "name",
    "label",
    "kind",
    "help",
    "type",
    "least",
    "most",
    "pattern",
    "choices",
)


@dataclass(slots=True)
class ShownRow:
    """A row of the form, with the number in its names and what is wrong with it."""

    number: str
    row: FieldRow
    errors: dict[str, list[str]] = field(default_factory=dict)


class RowsEditor:
    """The editor of one schema. `mode` says what holds when it is saved: the rows or the JSON.

    `is_posted` is false when the editor was not part of what was sent: then nothing changes.
    """

    types = TYPES

    def __init__(
        self,
        prefix: str,
        *,
        schema: JsonValue,
        fields: JsonValue = None,
        data: Mapping[str, Any] | None = None,
        has_texts: bool = True,
    ) -> None:
        self.prefix = prefix
        self.has_texts = has_texts
        self._schema, self._fields = schema, fields
        self.errors: list[str] = []
        self.refused = ""
        try:
            rows = read_rows(schema, fields)
        except RowsRefused as error:
            self.refused, rows = error.message, Rows()
        if len(rows.rows) > MAX_ROWS:
            self.refused, rows = _TOO_MANY, Rows()
        self.is_posted = data is not None and f"{prefix}-as" in data
        if data is not None and self.is_posted:
            self.mode = AS_ROWS if data[f"{prefix}-as"] == AS_ROWS else AS_JSON
            if self.mode == AS_ROWS:
                rows = _posted_rows(prefix, data, before=rows)
        else:
            self.mode = AS_JSON if self.refused else AS_ROWS
        self.is_open = rows.is_open
        self.rows = [ShownRow(str(at), row) for at, row in enumerate(rows.rows)]
        self.blank = ShownRow("new", FieldRow())

    @property
    def spare(self) -> list[ShownRow]:
        """Empty rows, for who has no script to add some."""
        return [ShownRow(str(len(self.rows) + at), FieldRow()) for at in range(2)]

    def written(self) -> tuple[JsonValue, JsonValue]:
        """The schema and `fields` that the rows say. Raises DefinitionError."""
        if self.refused or len(self.rows) > MAX_ROWS:
            raise DefinitionError(message=self.refused or _TOO_MANY)
        rows = Rows(tuple(one.row for one in self.rows), self.is_open)
        return write_rows(rows, self._schema, self._fields)

    def take(self, problems: list[Problem]) -> None:
        """Show problems at their rows: of `written`, or of the schema that it gave."""
        shown = [one for one in self.rows if not one.row.is_blank]
        for problem in problems:
            at, name = _place(problem.path, [one.row.name for one in shown])
            if at is None:
                self.errors.append(str(problem))
            else:
                shown[at].errors.setdefault(name, []).append(problem.message)


_TOO_MANY: Final = f"There are more than {MAX_ROWS} fields: edit them as JSON."
_ROW = re.compile(r"rows\[(?P<at>\d+)\]\.(?P<name>\w+)")
_KEYWORDS: Final = {
    "minLength": "least",
    "minimum": "least",
    "maxLength": "most",
    "maximum": "most",
    "pattern": "pattern",
    "enum": "choices",
}


def _place(path: str, names: list[str]) -> tuple[int | None, str]:
    """The row and its field that the path leads to, None for the whole."""
    row = _ROW.fullmatch(path)
    if row:
        return int(row["at"]), row["name"]
    _, found, inner = path.partition("properties.")
    for at, name in enumerate(names):
        if found and (inner == name or inner.startswith(f"{name}.")):
            keyword = inner[len(name) + 1 :].partition(".")[0].partition("[")[0]
            return at, _KEYWORDS.get(keyword, "type")
    return None, ""


def _posted_rows(prefix: str, data: Mapping[str, Any], *, before: Rows) -> Rows:
    """The rows in the order in which they were sent, without those that were taken out."""
    found = re.compile(rf"{re.escape(prefix)}-(\d{{1,6}})-name")
    numbers = [match[1] for key in data if (match := found.fullmatch(key))]
    was = {in_one_line(row.was): row for row in before.rows}
    rows = [
        _restored(_posted_row(f"{prefix}-{number}", data), was)
        for number in numbers
        if f"{prefix}-{number}-remove" not in data
    ]
    return Rows(tuple(rows), is_open=f"{prefix}-open" in data)


def _posted_row(prefix: str, data: Mapping[str, Any]) -> FieldRow:
    texts = {name: str(data.get(f"{prefix}-{name}", "")) for name in _TEXTS}
    texts["choices"] = texts["choices"].replace("\r\n", "\n")
    return FieldRow(required=f"{prefix}-required" in data, **texts)


def _restored(row: FieldRow, was: Mapping[str, FieldRow]) -> FieldRow:
    """The row with the line breaks that its inputs took from what nobody changed."""
    before = was.get(in_one_line(row.was))
    if before is None:
        return row
    kept = {
        name: text
        for name in ("was", "name", "label", "kind", "help")
        if in_one_line(text := getattr(before, name)) == in_one_line(getattr(row, name))
    }
    return replace(row, **kept)


def problems_of(error: DefinitionError) -> list[Problem]:
    """The error's problems; one about the whole when it names none."""
    return list(error.problems) or [Problem("", error.message)]
