"""Which values of a JSON were masked, and a single one of them by its place. Pure.

A place is a JSON Pointer (RFC 6901): `/form0/pin`. Where a part of a text was replaced, the whole
text is one masked value; where the name of a member was, the whole object is: no place tells a name.
"""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from config.jsonvalues import JsonValue

Json: TypeAlias = "JsonValue | Mapping[str, JsonValue]"


def masked_places(value: Json, shown: Json) -> tuple[str, ...]:
    """The places where `shown`, the value after redaction, says something else than the value."""
    return tuple(_differences(value, shown, ""))


def value_at(value: Json, place: str) -> JsonValue:
    """What stands there. Raises LookupError."""
    current = value
    for part in place.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(current, list):
            if not (name.isascii() and name.isdecimal()):
                raise LookupError(place)
            current = current[int(name)]
        elif isinstance(current, Mapping):
            current = current[name]
        else:
            raise LookupError(place)  # noqa: TRY004 - the place is wrong, not the value
    return dict(current) if isinstance(current, Mapping) else current


def _differences(value: Json, shown: Json, place: str) -> Iterator[str]:
    if isinstance(value, Mapping) and isinstance(shown, Mapping) and value.keys() == shown.keys():
        for name, member in value.items():
            step = name.replace("~", "~0").replace("/", "~1")
            yield from _differences(member, shown[name], f"{place}/{step}")
    elif isinstance(value, list) and isinstance(shown, list):
        for index, (item, other) in enumerate(zip(value, shown, strict=True)):
            yield from _differences(item, other, f"{place}/{index}")
    elif type(value) is not type(shown) or value != shown:
        yield place
