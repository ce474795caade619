"""Where a partner posts its answer later, and how that answer is kept until it is applied.

The address holds a token of 32 random bytes; its hash alone is stored, and finds the run. Below the
worker, which reads kept answers; `callbacks.py`, above it, receives them.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from django.conf import settings

from config.crypto import Unsealable, seal, unseal
from config.jsonvalues import JsonValue, dump_compact, load_kept
from executions.errors import SessionUnavailable
from executions.models import StepRun

TOKEN_BYTES: Final = 32
PATH: Final = "/callbacks/"


@dataclass(frozen=True, slots=True)
class CallbackToken:
    """Where one partner answers one run, and what is stored of it."""

    token: str = field(repr=False)
    hash: bytes
    url: str = field(repr=False)


def new_token() -> CallbackToken:
    """A token that nobody can guess. Only its hash may be kept unsealed."""
    raw = secrets.token_bytes(TOKEN_BYTES)
    token = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    return CallbackToken(token, hash_of(raw), f"{settings.PUBLIC_BASE_URL}{PATH}{token}")


def token_in(url: str) -> str:
    """The secret part of a callback's address."""
    return url.rpartition("/")[2]


def seal_callback(body: JsonValue, run_id: UUID) -> bytes:
    """A partner's late answer as the run's row keeps it, bound to the run."""
    return seal(dump_compact(body), binding=_binding(run_id))


def open_callback(run: StepRun) -> JsonValue:
    """The late answer that the run keeps. Raises SessionUnavailable when it cannot be unsealed."""
    try:
        return load_kept(unseal(bytes(run.sealed_callback or b""), binding=_binding(run.id)))
    except Unsealable as error:
        raise SessionUnavailable from error


def _binding(run_id: UUID) -> bytes:
    return b"handrail:callback:" + run_id.bytes


def hash_of(raw: bytes) -> bytes:
    """What is stored of a token's bytes."""
    # No key: what is hashed is random, so there is nothing to try.
    return hashlib.sha256(raw).digest()
