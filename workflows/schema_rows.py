"""An input schema and the app's `fields` as rows that people edit, and back.

Understood is an object schema whose properties are texts, numbers, truths and choices with the usual
limits, and a list of entries with a `name`. What a row does not show (other keys of an entry, other
keywords, nested schemas) stays as it is; a schema that says more than its properties do is refused, and
edited as JSON. Rows that come back unchanged give back exactly what was read. Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from config.jsonvalues import JsonObject, JsonValue
from workflows.errors import DefinitionError, Problem

ANY: Final = ""
TEXT: Final = "text"
DATE: Final = "date"
EMAIL: Final = "email"
INTEGER: Final = "integer"
NUMBER: Final = "number"
BOOLEAN: Final = "boolean"
CHOICE: Final = "choice"
KEPT: Final = "kept"

TYPES: Final = {
    TEXT: "Text",
    INTEGER: "Whole number",
    NUMBER: "Number",
    BOOLEAN: "Yes or no",
    CHOICE: "One of a list",
    DATE: "Date",
    EMAIL: "E-mail address",
    ANY: "Anything (not checked)",
    KEPT: "As in the JSON view",
}
"""What a row may be, with its words."""

_FORMATS: Final = {DATE: "date", EMAIL: "email"}
_TEXTS: Final = (TEXT, DATE, EMAIL)
_NUMBERS: Final = (INTEGER, NUMBER)
_LIMITS: Final = {
    **dict.fromkeys(_TEXTS, ("minLength", "maxLength")),
    **dict.fromkeys(_NUMBERS, ("minimum", "maximum")),
}
_JSON_TYPES: Final = {
    **dict.fromkeys(_TEXTS, "string"),
    INTEGER: "integer",
    NUMBER: "number",
    BOOLEAN: "boolean",
}
_NOTES: Final = frozenset({"title", "description"})
_ROW_KEYWORDS: Final = frozenset(
    {"type", "minLength", "maxLength", "minimum", "maximum", "pattern", "format", "enum"}
)
_TOP_KEYWORDS: Final = frozenset(
    {"type", "properties", "required", "additionalProperties", "$schema", "$defs"} | _NOTES
)
_ENTRY_TEXTS: Final = ("label", "kind", "help")
MAX_NAME: Final = 100


class RowsRefused(DefinitionError):
    """This schema says more than rows can show: edit it as JSON."""


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One field. `was` is the name that it was read with, "" for a new one; limits are as typed."""

    was: str = ""
    name: str = ""
    label: str = ""
    kind: str = ""
    help: str = ""
    type: str = TEXT
    required: bool = False
    least: str = ""
    most: str = ""
    pattern: str = ""
    choices: str = ""

    @property
    def is_blank(self) -> bool:
        """Whether nothing was entered into a new row."""
        return replace(self, type=TEXT, required=False) == FieldRow()


@dataclass(frozen=True, slots=True)
class Rows:
    """The fields in their order, and whether input may have other names too."""

    rows: tuple[FieldRow, ...] = ()
    is_open: bool = True


def read_rows(schema: JsonValue, fields: JsonValue) -> Rows:
    """The rows of a schema and of `fields`, None where there is none. Raises RowsRefused."""
    properties, required, is_open = _read_schema(schema)
    entries = _read_entries(fields)
    names = dict.fromkeys((*entries, *properties))
    rows = [_read_row(name, entries.get(name), properties.get(name), required) for name in names]
    return Rows(tuple(rows), is_open)


def write_rows(after: Rows, schema: JsonValue, fields: JsonValue) -> tuple[JsonValue, JsonValue]:
    """The schema and `fields` that the rows say, None for none.

    Raises DefinitionError with the problems' paths as `rows[2].least`, and RowsRefused.
    """
    before = read_rows(schema, fields)
    after = replace(after, rows=tuple(row for row in after.rows if not row.is_blank))
    if after == before:
        return schema, fields
    _refuse_names(after.rows)
    if not after.rows and after.is_open:
        return None, None
    was = {row.name: row for row in before.rows}
    return (
        _write_schema(after, was, schema if isinstance(schema, dict) else None),
        _write_entries(after.rows, _read_entries(fields), has_list=fields is not None),
    )


def _read_schema(schema: JsonValue) -> tuple[dict[str, JsonValue], list[str], bool]:
    if schema is None:
        return {}, [], True
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise RowsRefused
    if not schema.keys() <= _TOP_KEYWORDS or not isinstance(
        schema.get("additionalProperties", True), bool
    ):
        raise RowsRefused
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        raise RowsRefused
    names = [name for name in required if isinstance(name, str)]
    if len(names) < len(required) or not set(names) <= properties.keys():
        raise RowsRefused
    return properties, names, schema.get("additionalProperties", True) is True


def _read_entries(fields: JsonValue) -> dict[str, JsonObject]:
    if fields is None:
        return {}
    found: dict[str, JsonObject] = {}
    for entry in fields if isinstance(fields, list) else [None]:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(name, str) or not name or name in found:
            raise RowsRefused
        if not all(isinstance(entry.get(key, ""), str) for key in _ENTRY_TEXTS):
            raise RowsRefused
        found[name] = entry
    return found


def _read_row(
    name: str, entry: JsonObject | None, schema: JsonValue, required: Sequence[str]
) -> FieldRow:
    texts = {key: str((entry or {}).get(key, "")) for key in _ENTRY_TEXTS}
    row = FieldRow(was=name, name=name, type=ANY, required=name in required, **texts)
    if schema is None:
        return row
    understood = _read_property(row, schema) if isinstance(schema, dict) else None
    return understood or replace(row, type=KEPT)


def _read_property(row: FieldRow, schema: JsonObject) -> FieldRow | None:
    """The row with what the property says, None for a property that rows do not show."""
    said = {key: value for key, value in schema.items() if key not in _NOTES}
    if not said:
        return row
    if "enum" in said:
        choices = _read_choices(said)
        return None if choices is None else replace(row, type=CHOICE, choices=choices)
    kind = _read_type(said)
    if kind is None:
        return None
    low, high = _LIMITS.get(kind, ("", ""))
    allowed = {"type", low, high} | ({"pattern", "format"} if kind in _TEXTS else set())
    pattern = said.get("pattern", "")
    limits = [said.get(key) for key in (low, high)]
    if not said.keys() <= allowed or not isinstance(pattern, str) or pattern != _one_line(pattern):
        return None
    if any(isinstance(one, bool) or not isinstance(one, int | float | None) for one in limits):
        return None
    least, most = ("" if one is None else json.dumps(one) for one in limits)
    return replace(row, type=kind, least=least, most=most, pattern=pattern)


def _read_type(said: JsonObject) -> str | None:
    if "format" in said:
        return next(
            (
                kind
                for kind, name in _FORMATS.items()
                if said["format"] == name and said.get("type") == "string"
            ),
            None,
        )
    written = {"string": TEXT, "integer": INTEGER, "number": NUMBER, "boolean": BOOLEAN}
    kind = said.get("type")
    return written.get(kind) if isinstance(kind, str) else None


def _read_choices(said: JsonObject) -> str | None:
    choices = said["enum"]
    if not said.keys() <= {"enum", "type"} or said.get("type", "string") != "string":
        return None
    if not isinstance(choices, list) or not choices:
        return None
    lines = [one for one in choices if isinstance(one, str) and one and one == _one_line(one)]
    return "\n".join(lines) if len(lines) == len(choices) else None


def _one_line(text: str) -> str:
    return " ".join(text.splitlines()).strip()


def _refuse_names(rows: Sequence[FieldRow]) -> None:
    problems = []
    names: set[str] = set()
    for at, row in enumerate(rows):
        if not row.name.strip():
            problems.append(Problem(f"rows[{at}].name", "is required"))
        elif row.name in names:
            problems.append(Problem(f"rows[{at}].name", f"{row.name} is there twice"))
        elif len(row.name) > MAX_NAME:
            problems.append(Problem(f"rows[{at}].name", f"must have at most {MAX_NAME} characters"))
        names.add(row.name)
    if problems:
        raise DefinitionError(problems)


def _write_schema(after: Rows, was: Mapping[str, FieldRow], schema: JsonObject | None) -> JsonValue:
    old_properties, old_required, was_open = _read_schema(schema)
    properties: JsonObject = {}
    problems: list[Problem] = []
    for at, row in enumerate(after.rows):
        old = old_properties.get(row.was) if row.was else None
        if row.was in was and _constraint(was[row.was]) == _constraint(row):
            made = old
        else:
            made = _write_property(row, old, f"rows[{at}]", problems)
        if made is not None or row.required:
            properties[row.name] = {} if made is None else made
    if problems:
        raise DefinitionError(problems)
    if not properties and schema is None and after.is_open:
        return None
    names = {row.was or row.name: row.name for row in after.rows if row.required}
    required: list[JsonValue] = [names.pop(name) for name in old_required if name in names]
    required += names.values()
    written: JsonObject = {**({"type": "object"} if schema is None else schema)}
    written["properties"] = properties
    written["required"] = required
    if not required:
        del written["required"]
    if after.is_open is not was_open:
        written["additionalProperties"] = after.is_open
        if after.is_open:
            del written["additionalProperties"]
    return written


def _constraint(row: FieldRow) -> tuple[str, ...]:
    return row.type, row.least, row.most, row.pattern, row.choices


def _write_property(row: FieldRow, old: JsonValue, path: str, problems: list[Problem]) -> JsonValue:
    notes: JsonObject = {}
    if isinstance(old, dict):
        notes = {key: value for key, value in old.items() if key in _NOTES}
    if row.type == KEPT:
        if old is None:
            problems.append(Problem(f"{path}.type", "there is nothing in the JSON view to keep"))
        return old
    if row.type == ANY:
        return notes or None
    if row.type == CHOICE:
        return {"enum": _written_choices(row, path, problems), **notes}
    if row.type not in _JSON_TYPES:
        problems.append(Problem(f"{path}.type", "is not a type"))
        return None
    return {**_written_limits(row, path, problems), **notes}


def _written_choices(row: FieldRow, path: str, problems: list[Problem]) -> list[JsonValue]:
    choices: list[JsonValue] = [line for one in row.choices.splitlines() if (line := one.strip())]
    if not choices:
        problems.append(Problem(f"{path}.choices", "needs at least one choice, one a line"))
    return choices


def _written_limits(row: FieldRow, path: str, problems: list[Problem]) -> JsonObject:
    written: JsonObject = {"type": _JSON_TYPES[row.type]}
    if row.type in _FORMATS:
        written["format"] = _FORMATS[row.type]
    low, high = _LIMITS.get(row.type, ("", ""))
    for key, name, text in ((low, "least", row.least), (high, "most", row.most)):
        if key and text.strip():
            written[key] = _limit(text, row.type, f"{path}.{name}", problems)
    if row.type in _TEXTS and row.pattern:
        written["pattern"] = row.pattern
    return written


def _limit(text: str, kind: str, path: str, problems: list[Problem]) -> JsonValue:
    """What was typed as a number; lengths are whole ones and not below zero."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and kind not in _TEXTS:
        return value
    problems.append(
        Problem(path, "must be a whole number" if kind in _TEXTS else "must be a number")
    )
    return None


def _write_entries(
    rows: Sequence[FieldRow], entries: Mapping[str, JsonObject], *, has_list: bool
) -> JsonValue:
    written: list[JsonValue] = []
    for row in rows:
        old = entries.get(row.was) if row.was else None
        texts = {key: getattr(row, key) for key in _ENTRY_TEXTS}
        if old is None and not any(texts.values()) and not (has_list and not row.was):
            continue
        entry: JsonObject = {**(old or {}), "name": row.name}
        for key, text in texts.items():
            if text:
                entry[key] = text
            elif old is None or str(old.get(key, "")):
                entry.pop(key, None)
        written.append(entry)
    return written or ([] if has_list else None)
