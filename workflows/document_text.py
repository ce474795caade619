"""The text of a workflow document to JSON, refusing what would be read differently elsewhere. Pure."""

import json
from typing import NoReturn

from config.jsonvalues import JsonObject, JsonRefused, JsonValue, check_storable
from workflows.errors import DocumentInvalid, Problem

_BOM = b"\xef\xbb\xbf"


def read_json(raw: bytes) -> JsonValue:
    """The JSON value of the bytes. Raises DocumentInvalid with one clear sentence."""
    try:
        value: JsonValue = json.loads(
            _decode(raw), object_pairs_hook=_distinct, parse_constant=_refuse_constant
        )
        check_storable(value)
    except JsonRefused as error:
        refuse(str(error))
    except RecursionError:
        refuse("it is nested too deeply")
    except json.JSONDecodeError as error:
        refuse(f"it is not JSON: {error.msg} (line {error.lineno}, column {error.colno})")
    except ValueError:  # Python's own limit on digits
        refuse("it holds a number with too many digits")
    return value


def write_json(value: JsonValue) -> str:
    """The value as text for people: indented, keys in their order, a line break at the end."""
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def refuse(reason: str) -> NoReturn:
    """Raise DocumentInvalid for the document as a whole."""
    raise DocumentInvalid([Problem("", reason)])


def _decode(raw: bytes) -> str:
    if raw.startswith(_BOM):
        refuse("it begins with a byte order mark; save it as UTF-8 without one")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        refuse(f"it is not UTF-8 (byte {error.start + 1})")


def _distinct(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        refuse(f"it has the key {json.dumps(twice)} twice in one object")
    return members


def _refuse_constant(name: str) -> NoReturn:
    refuse(f"{name} is not JSON")
