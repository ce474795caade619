"""A plausible value for a JSON Schema or a name: what previews and first tries are made of.

The same schema always gives the same value. It fits the schema wherever the schema says what it wants
in the usual keywords; it is a start for somebody to change, not a proof. No value is a person's. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from config.jsonvalues import JsonObject, JsonValue
from workflows.errors import SchemaInvalid
from workflows.schemas import compile_schema

MAX_DEPTH: Final = 8
MAX_VALUES: Final = 1_000
MAX_TEXT: Final = 1_000

_FORMATS: Final[dict[str, str]] = {
    "date": "2025-06-30",
    "date-time": "2025-06-30T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
}
# The first word that a name holds decides; the words are those of flows about money and people.
_BY_NAME: Final[tuple[tuple[str, JsonValue], ...]] = (
    ("email", "someone@example.com"),
    ("phone", "+10000000000"),
    ("birth", "1990-01-31"),
    ("date", "2025-06-30"),
    ("currency", "EUR"),
    ("country", "XX"),
    ("city", "Sampletown"),
    ("street", "1 Sample Street"),
    ("iban", "XX00SAMPLE0000000000"),
    ("amount", 250),
    ("total", 250),
    ("fee", 5),
    ("price", 250),
    ("score", 10),
    ("account", "1234567890"),
    ("count", 1),
    ("postal", "12345"),
    ("token", "sample-token"),
    ("name", "Sample Name"),
    ("valid", True),
    ("verified", True),
    ("accepted", True),
    ("status", "OK"),
)


def sample_by_name(name: str) -> JsonValue:
    """What a value of this name may look like."""
    lowered = name.lower()
    for word, value in _BY_NAME:
        if word in lowered:
            return value
    return name or "sample"


def sample_of(schema: JsonValue, name: str = "") -> JsonValue:
    """A value that the schema asks for. `name` is what the value is called, which helps to guess."""
    return _Sampler(schema).sample(schema, name, MAX_DEPTH)


def resolve(schema: JsonValue, root: JsonValue) -> JsonObject:
    """The schema as an object, its reference into `root` followed; empty for what says nothing."""
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        schema = _at(root, reference)
    return {}


def type_of(schema: JsonObject) -> str:
    """What the schema's values are in one word; `any` when it does not say."""
    written = schema.get("type")
    if isinstance(written, list):
        written = next((one for one in written if one != "null"), None)
    if isinstance(written, str):
        return written
    if "const" in schema or isinstance(schema.get("enum"), list):
        return _word_of(_chosen(schema))
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "any"


def properties_of(schema: JsonObject, root: JsonValue) -> list[tuple[str, JsonObject, bool]]:
    """The object's members, those of its `allOf` too: name, schema, and whether it must be there."""
    found: dict[str, tuple[JsonObject, bool]] = {}
    parts = schema.get("allOf")
    for part in (schema, *(parts if isinstance(parts, list) else ())):
        one = resolve(part, root)
        properties, required = one.get("properties"), one.get("required")
        names = required if isinstance(required, list) else []
        for name, member in properties.items() if isinstance(properties, dict) else ():
            found[name] = (resolve(member, root), name in names)
    return [(name, member, is_required) for name, (member, is_required) in found.items()]


class _Sampler:
    """One sample being made, of so many values: a schema may refer to itself in many places."""

    def __init__(self, root: JsonValue) -> None:
        self._root = root
        self._left = MAX_VALUES

    def sample(self, schema: JsonValue, name: str, depth: int) -> JsonValue:
        one = resolve(schema, self._root)
        self._left -= 1
        if "const" in one or isinstance(one.get("enum"), list) or "default" in one:
            return _chosen(one)
        examples = one.get("examples")
        if isinstance(examples, list) and examples:
            return examples[0]
        kind = type_of(one)
        if kind == "object" or (kind == "any" and "allOf" in one):
            return self._object(one, depth)
        if kind == "array":
            has_room = depth and self._left > 0
            return [self.sample(one.get("items"), name, depth - 1)] if has_room else []
        make = _SCALARS.get(kind)
        return sample_by_name(name) if make is None else make(one, name)

    def _object(self, schema: JsonObject, depth: int) -> JsonValue:
        made: JsonObject = {}
        for name, member, _ in properties_of(schema, self._root) if depth else ():
            if self._left > 0:
                made[name] = self.sample(member, name, depth - 1)
        return made


def _chosen(schema: JsonObject) -> JsonValue:
    if "default" in schema:
        return schema["default"]
    if "const" in schema:
        return schema["const"]
    choices = schema.get("enum")
    return choices[0] if isinstance(choices, list) and choices else None


def _word_of(value: JsonValue) -> str:
    words = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object"}
    return words.get(type(value), "array" if isinstance(value, list) else "any")


def _text(schema: JsonObject, name: str) -> JsonValue:
    known = _FORMATS.get(str(schema.get("format")))
    if known is not None:
        return known
    text = str(sample_by_name(name))
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and not _matches(pattern, text):
        made = text_for_pattern(pattern)
        if made is not None:
            return made
    least, most = schema.get("minLength"), schema.get("maxLength")
    if isinstance(least, int) and len(text) < least <= MAX_TEXT:
        text = text.ljust(least, "x")
    return text[:most] if isinstance(most, int) and most >= 0 else text


def _number(schema: JsonObject, name: str) -> JsonValue:
    guess = sample_by_name(name)
    value: float = guess if isinstance(guess, int) and not isinstance(guess, bool) else 1
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if isinstance(above, int | float) and value <= above:
        value = above + 1
    if isinstance(least, int | float):
        value = max(value, least)
    if isinstance(below, int | float) and value >= below:
        value = below - 1
    if isinstance(most, int | float):
        value = min(value, most)
    return value


def _boolean(_schema: JsonObject, _name: str) -> JsonValue:
    return True


def _null(_schema: JsonObject, _name: str) -> JsonValue:
    return None


_SCALARS: Final[dict[str, Callable[[JsonObject, str], JsonValue]]] = {
    "string": _text,
    "number": _number,
    "integer": _number,
    "boolean": _boolean,
    "null": _null,
}


def _at(root: JsonValue, reference: str) -> JsonValue:
    """Where `#/$defs/money` leads; nothing for what leads out of the schema."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    value = root
    for step in reference[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        value = value.get(name) if isinstance(value, dict) else None
    return value


_PIECE = re.compile(
    r"(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|\\(?P<escape>.)|(?P<edge>[\^$])|(?P<dot>\.)"
    r"|(?P<open>\((?:\?:)?)|(?P<plain>[^\\\[\](){}*+?|^$.])"
)
_QUANTIFIER = re.compile(r"\{(?P<least>\d{1,3})(?:,\d*)?\}|(?P<mark>[*+?])")
_ESCAPES: Final = {"d": "0", "w": "x", "s": " ", "D": "x", "W": "-", "S": "x"}


def text_for_pattern(pattern: str) -> str | None:
    """A short text that a simple pattern matches; None for one that is not simple."""
    text, end = _made_of(pattern, 0, 4)
    return text if end == len(pattern) and _matches(pattern, text) else None


def _matches(pattern: str, text: str) -> bool:
    """As the input is checked, in linear time."""
    try:
        return not compile_schema({"pattern": pattern}).violations(text)
    except SchemaInvalid:
        return False


def _made_of(pattern: str, at: int, depth: int) -> tuple[str, int]:
    """The text of the sequence that begins at `at`, and where it ends; -1 for one not understood."""
    text, is_over = "", False
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":  # the first alternative will do; the others are passed over
            is_over, at = True, at + 1
            continue
        piece, at = _piece(pattern, at, depth)
        quantifier = _QUANTIFIER.match(pattern, at) if at >= 0 else None
        if quantifier:
            at = quantifier.end()
            piece *= _least(quantifier) if len(piece) <= MAX_TEXT else 0
        text += "" if is_over else piece
        if at < 0 or len(text) > MAX_TEXT:
            return "", -1
    return text, at


def _piece(pattern: str, at: int, depth: int) -> tuple[str, int]:
    found = _PIECE.match(pattern, at)
    if found is None or depth == 0:
        return "", -1
    if not found["open"]:
        return _character(found), found.end()
    inner, end = _made_of(pattern, found.end(), depth - 1)
    if end < 0 or pattern[end : end + 1] != ")":
        return "", -1
    return inner, end + 1


def _least(quantifier: re.Match[str]) -> int:
    if quantifier["mark"]:
        return int(quantifier["mark"] == "+")
    return int(quantifier["least"])


def _character(found: re.Match[str]) -> str:
    if found["edge"]:
        return ""
    if found["dot"]:
        return "x"
    if found["escape"]:
        return _ESCAPES.get(found["escape"], found["escape"])
    if found["plain"]:
        return found["plain"]
    inner = found["set"][1:-1]
    if inner.startswith("^"):
        return next((one for one in "x0-_ ." if one not in inner), "x")
    return _ESCAPES.get(inner[1:2], inner[1:2]) if inner.startswith("\\") else inner[:1]
