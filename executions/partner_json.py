"""What a partner's bytes say: JSON in UTF-8, exact, storable, bounded when unpacked too.

The Content-Type is not asked: many partners get it wrong, and what parses as JSON is JSON. Pure.
"""

import json
import zlib
from typing import NoReturn, cast

from config.jsonvalues import JsonRefused, JsonValue, check_storable
from executions.enums import AttemptOutcome
from executions.outcomes import ExchangeFailed

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


def read_json(body: bytes, *, coding: str, max_bytes: int) -> JsonValue:
    """The value in a body, None for an empty one. Raises ExchangeFailed: NOT_JSON or TOO_LARGE."""
    text = _unpack(body, coding=coding.strip().lower(), max_bytes=max_bytes)
    if not text.strip():
        return None
    try:
        # Not json.loads(bytes): it would guess UTF-16 and UTF-32 too.
        value = cast(
            JsonValue, json.loads(text.decode("utf-8-sig"), parse_constant=_refuse_constant)
        )
        check_storable(value)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, JsonRefused) else "the answer is not JSON"
        raise ExchangeFailed(AttemptOutcome.NOT_JSON, reason) from error
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise JsonRefused(f"{name} is not JSON")


def _unpack(body: bytes, *, coding: str, max_bytes: int) -> bytes:
    if coding == "identity" or not body:
        return body
    if coding not in {"gzip", "x-gzip", "deflate"}:
        raise ExchangeFailed(AttemptOutcome.NOT_JSON, "the answer's coding is not known")
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        text = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise ExchangeFailed(AttemptOutcome.NOT_JSON, "the answer cannot be unpacked") from error
    if len(text) > max_bytes:
        raise ExchangeFailed(AttemptOutcome.TOO_LARGE, "the answer is too large unpacked")
    if not unpacker.eof:
        raise ExchangeFailed(AttemptOutcome.NOT_JSON, "the answer cannot be unpacked")
    return text
