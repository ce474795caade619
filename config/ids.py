"""Identifiers: time-ordered UUIDs (RFC 9562, version 7), so that new rows land at the end of an index."""

import os
import time
import uuid
from datetime import UTC, datetime, timedelta

_EPOCH = datetime.fromtimestamp(0, tz=UTC)


def new_id() -> uuid.UUID:
    """A version 7 UUID: 48 bits of Unix milliseconds, 12 of their fraction, then 62 random bits.

    Two that one process makes one after the other sort so: "newest first" is the order of ids.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7000_0000_0000_0000_0000 | (nanoseconds * 4096 // 1_000_000) << 64
    value |= 0x8000_0000_0000_0000 | int.from_bytes(os.urandom(8), "big") >> 2
    return uuid.UUID(int=value)


def first_id_at(moment: datetime) -> uuid.UUID:
    """The least id that can be made at this moment: every id made earlier sorts before it."""
    milliseconds = (moment - _EPOCH) // timedelta(milliseconds=1)
    return uuid.UUID(int=milliseconds << 80)


def made_at(made: uuid.UUID) -> datetime:
    """When an id of `new_id` was made, to the millisecond."""
    return _EPOCH + timedelta(milliseconds=made.int >> 80)
