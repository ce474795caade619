"""Identifiers: time-ordered UUIDs (RFC 9562, version 7), so that new rows land at the end of an index."""

import os
import time
import uuid


def new_id() -> uuid.UUID:
    """A version 7 UUID: 48 bits of Unix milliseconds, 12 of their fraction, then 62 random bits.

    Two that one process makes one after the other sort so: "newest first" is the order of ids.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7000_0000_0000_0000_0000 | (nanoseconds * 4096 // 1_000_000) << 64
    value |= 0x8000_0000_0000_0000 | int.from_bytes(os.urandom(8), "big") >> 2
    return uuid.UUID(int=value)
