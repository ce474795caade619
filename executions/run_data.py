"""What a run brought into the context, kept sealed in its row.

An async run's result stays there until the execution ends: workers do not write to sessions, so no
late answer can overwrite what a person did meanwhile. Of a durable session every run keeps its data,
and the execution what it started with, so that a lost session can be built again.
"""

import json
import logging
from collections.abc import Mapping
from uuid import UUID

from config.crypto import Unsealable, seal, unseal
from config.jsonvalues import JsonObject, JsonValue, dump_compact
from executions.errors import SessionUnavailable

logger = logging.getLogger(__name__)


def seal_data(data: Mapping[str, JsonValue], *, owner_id: UUID) -> bytes:
    """Context keys and values, bound to the run or the execution whose row keeps them."""
    return seal(dump_compact(dict(data)), binding=_binding(owner_id))


def open_data(sealed: bytes | memoryview | None, *, owner_id: UUID) -> JsonObject:
    """What `seal_data` kept, nothing for None. Raises SessionUnavailable when it cannot be unsealed."""
    if sealed is None:
        return {}
    try:
        data: JsonObject = json.loads(unseal(bytes(sealed), binding=_binding(owner_id)))
    except Unsealable as error:
        logger.exception("the data kept with %s cannot be unsealed", owner_id)
        raise SessionUnavailable from error
    return data


def _binding(owner_id: UUID) -> bytes:
    return b"handrail:data:" + owner_id.bytes
