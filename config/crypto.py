"""Sealing: AES-256-GCM under the keys of `FIELD_ENCRYPTION_KEYS`.

The first key writes and all keys read, so a key is rotated by putting the new one in front. A
sealed value is bound to where it lives (`binding`: a session and its field, a row and its column):
moved elsewhere it does not open. Layout: 4 bytes key id, 12 bytes nonce, ciphertext, 16 bytes tag.
"""

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

_KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_TAG_BYTES = 16
_FINGERPRINT_BYTES = 32
_HEADER_BYTES = _KEY_ID_BYTES + _NONCE_BYTES
_KEY_TEXT = re.compile(r"[A-Za-z0-9_-]{43}=?")

UnsealableReason = Literal["unknown key", "tampered"]


class Unsealable(Exception):
    """A sealed value that cannot be opened: its key is gone, or its bytes were changed."""

    def __init__(self, reason: UnsealableReason) -> None:
        super().__init__(reason)
        self.reason: UnsealableReason = reason


@dataclass(frozen=True, slots=True)
class _Keys:
    writing_id: bytes
    writing: AESGCM
    by_id: Mapping[bytes, AESGCM]
    fingerprinting: Mapping[bytes, bytes]


def seal(plaintext: bytes, *, binding: bytes) -> bytes:
    """The plaintext, encrypted and authenticated; only `unseal` with the same binding opens it."""
    keys = _keys()
    nonce = os.urandom(_NONCE_BYTES)
    return keys.writing_id + nonce + keys.writing.encrypt(nonce, plaintext, binding)


def unseal(sealed: bytes, *, binding: bytes) -> bytes:
    """The plaintext that was sealed under this binding. Raises Unsealable."""
    if len(sealed) < _HEADER_BYTES + _TAG_BYTES:
        raise Unsealable("tampered")
    key = _keys().by_id.get(sealed[:_KEY_ID_BYTES])
    if key is None:
        raise Unsealable("unknown key")
    try:
        return key.decrypt(sealed[_KEY_ID_BYTES:_HEADER_BYTES], sealed[_HEADER_BYTES:], binding)
    except InvalidTag:
        raise Unsealable("tampered") from None


def fingerprint(content: bytes) -> bytes:
    """32 bytes that tell equal contents from others, and nobody without the keys what they were.

    A plain hash of a PIN is found by trying ten thousand PINs.
    """
    keys = _keys()
    return _fingerprint(keys.writing_id, keys.fingerprinting[keys.writing_id], content)


def is_fingerprint_of(stored: bytes | memoryview | None, content: bytes) -> bool:
    """Whether `fingerprint` made this of the content, under any of the keys."""
    stored = bytes(stored or b"")
    key = _keys().fingerprinting.get(stored[:_KEY_ID_BYTES])
    if key is None:
        return False
    return hmac.compare_digest(stored, _fingerprint(stored[:_KEY_ID_BYTES], key, content))


def _fingerprint(key_id: bytes, key: bytes, content: bytes) -> bytes:
    digest = hmac.digest(key, content, "sha256")
    return key_id + digest[: _FINGERPRINT_BYTES - _KEY_ID_BYTES]


def parse_key(text: str) -> bytes:
    """The 32 bytes of a key in URL-safe base64. Raises ValueError, which does not tell the key."""
    text = text.strip()
    if not _KEY_TEXT.fullmatch(text):
        raise ValueError("a key is 32 bytes in URL-safe base64 (44 characters)")
    return base64.urlsafe_b64decode(text.rstrip("=") + "=")


def _keys() -> _Keys:
    return _load(tuple(settings.FIELD_ENCRYPTION_KEYS))


@lru_cache(maxsize=8)  # one entry in a server; more only where tests change the setting
def _load(texts: Sequence[str]) -> _Keys:
    if not texts:
        raise ImproperlyConfigured("FIELD_ENCRYPTION_KEYS holds no key.")
    try:
        keys = [parse_key(text) for text in texts]
    except ValueError as error:
        raise ImproperlyConfigured(f"FIELD_ENCRYPTION_KEYS: {error}.") from None
    by_id: dict[bytes, AESGCM] = {}
    for key in keys:
        by_id.setdefault(_key_id(key), AESGCM(key))
    writing_id = _key_id(keys[0])
    return _Keys(
        writing_id=writing_id,
        writing=by_id[writing_id],
        by_id=by_id,
        # A key of its own for each purpose.
        fingerprinting={
            _key_id(key): hmac.digest(key, b"handrail:fingerprint", "sha256") for key in keys
        },
    )


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:_KEY_ID_BYTES]
