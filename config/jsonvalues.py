"""What a JSON value is to Handrail, and which values it takes in.

Integers of any size up to 4,300 digits stay exact and fractions are IEEE doubles. What no JSON store
can keep is refused at the door: NaN and infinities, NUL characters, lone surrogates, and nesting
deeper than the limit. Pure: no Django, no clock, no I/O.
"""

import json
import math
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, "JsonValue"]

MAX_DEPTH = 64
MAX_INTEGER_DIGITS = 4_300
_LARGEST_INTEGER: int = 10**MAX_INTEGER_DIGITS


class JsonRefused(ValueError):
    """A value that no JSON store can keep; the message says where and why, without the value."""


def check_storable(value: JsonValue, *, max_depth: int = MAX_DEPTH) -> None:
    """Raise JsonRefused, naming the path, when `value` could not be stored and read back unchanged."""
    pending: list[tuple[JsonValue, str, int]] = [(value, "", 1)]
    while pending:
        current, path, depth = pending.pop()
        if isinstance(current, str):
            _check_text(current, path)
        elif isinstance(current, float):
            if not math.isfinite(current):
                raise JsonRefused(f"{path or '/'}: NaN and infinite numbers are not JSON")
        elif isinstance(current, int):
            if abs(current) >= _LARGEST_INTEGER:
                raise JsonRefused(f"{path or '/'}: an integer may have {MAX_INTEGER_DIGITS} digits")
        elif isinstance(current, dict | list):
            if depth > max_depth:
                raise JsonRefused(f"nested deeper than {max_depth} levels")
            pending.extend(_children(current, path, depth))


def _children(
    value: "dict[str, JsonValue] | list[JsonValue]", path: str, depth: int
) -> "list[tuple[JsonValue, str, int]]":
    if isinstance(value, list):
        return [(item, f"{path}/{index}", depth + 1) for index, item in enumerate(value)]
    for key in value:
        _check_text(key, path)
    return [(item, f"{path}/{key}", depth + 1) for key, item in value.items()]


def _check_text(text: str, path: str) -> None:
    if "\x00" in text:
        raise JsonRefused(f"{path or '/'}: NUL characters cannot be stored")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise JsonRefused(f"{path or '/'}: lone surrogates cannot be stored") from None


_decoder = json.JSONDecoder()
# Made once: json.dumps makes an encoder a call, for a third of the price of a small value.
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_canonical = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, sort_keys=True
)


def dump_compact(value: JsonValue) -> bytes:
    """The value as UTF-8 JSON without spaces, keys in their order."""
    return _compact.encode(value).encode()


def load_kept(kept: bytes) -> JsonValue:
    """The value that `dump_compact` or `dump_canonical` wrote."""
    # Not json.loads: it looks at the bytes for UTF-16 first.
    value: JsonValue = _decoder.decode(kept.decode())
    return value


def dump_canonical(value: JsonValue) -> bytes:
    """The value as UTF-8 JSON without spaces and with sorted keys: equal values give equal bytes."""
    return _canonical.encode(value).encode()
