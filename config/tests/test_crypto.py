"""Sealed values open under their own binding and with their own key, or say why not."""

import base64
import hashlib
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from config.crypto import (
    Unsealable,
    fingerprint,
    is_fingerprint_of,
    parse_key,
    seal,
    unseal,
)

OLD = base64.urlsafe_b64encode(b"o" * 32).decode()
NEW = base64.urlsafe_b64encode(b"n" * 32).decode()


@pytest.fixture(autouse=True)
def keys(settings: Any) -> None:
    settings.FIELD_ENCRYPTION_KEYS = [OLD]


@pytest.mark.parametrize("plaintext", [b"", b"a", b"x" * 100_000])
def test_a_sealed_value_opens(plaintext: bytes) -> None:
    assert unseal(seal(plaintext, binding=b"session:1"), binding=b"session:1") == plaintext


def test_equal_values_are_sealed_differently() -> None:
    assert seal(b"same", binding=b"b") != seal(b"same", binding=b"b")


def test_the_first_key_writes_and_all_read(settings: Any) -> None:
    sealed_before = seal(b"value", binding=b"b")
    settings.FIELD_ENCRYPTION_KEYS = [NEW, OLD]
    sealed_after = seal(b"value", binding=b"b")
    assert unseal(sealed_before, binding=b"b") == b"value"
    settings.FIELD_ENCRYPTION_KEYS = [NEW]
    assert unseal(sealed_after, binding=b"b") == b"value"


def test_a_removed_key_is_told(settings: Any) -> None:
    sealed = seal(b"value", binding=b"b")
    settings.FIELD_ENCRYPTION_KEYS = [NEW]
    with pytest.raises(Unsealable) as raised:
        unseal(sealed, binding=b"b")
    assert raised.value.reason == "unknown key"


def test_another_binding_does_not_open() -> None:
    with pytest.raises(Unsealable) as raised:
        unseal(seal(b"value", binding=b"session:1"), binding=b"session:2")
    assert raised.value.reason == "tampered"


@pytest.mark.parametrize("position", [4, 15, 16, -1])
def test_a_changed_byte_does_not_open(position: int) -> None:
    sealed = bytearray(seal(b"value", binding=b"b"))
    sealed[position] ^= 1
    with pytest.raises(Unsealable) as raised:
        unseal(bytes(sealed), binding=b"b")
    assert raised.value.reason == "tampered"


@pytest.mark.parametrize("length", [0, 3, 16, 31])
def test_a_truncated_value_does_not_open(length: int) -> None:
    with pytest.raises(Unsealable) as raised:
        unseal(seal(b"", binding=b"b")[:length], binding=b"b")
    assert raised.value.reason == "tampered"


@pytest.mark.parametrize("text", [OLD, OLD.rstrip("="), f" {OLD}\n"])
def test_a_key_is_32_bytes_in_urlsafe_base64(text: str) -> None:
    assert parse_key(text) == b"o" * 32


@pytest.mark.parametrize(
    "text", ["", "short", OLD[:-4], OLD + "AAAA", OLD.replace("b", "+"), "ü" * 44]
)
def test_another_text_is_no_key_and_is_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="32 bytes") as raised:
        parse_key(text)
    assert not text or text not in str(raised.value)


@pytest.mark.parametrize("keys", [[], ["wrong"]])
def test_wrong_keys_stop_sealing(settings: Any, keys: list[str]) -> None:
    settings.FIELD_ENCRYPTION_KEYS = keys
    with pytest.raises(ImproperlyConfigured):
        seal(b"value", binding=b"b")


def test_a_fingerprint_knows_its_content_under_every_key(settings: Any) -> None:
    stored = fingerprint(b"1234")
    settings.FIELD_ENCRYPTION_KEYS = [NEW, OLD]
    assert is_fingerprint_of(stored, b"1234")
    assert not is_fingerprint_of(stored, b"1235")
    assert fingerprint(b"1234") != stored
    settings.FIELD_ENCRYPTION_KEYS = [NEW]
    assert not is_fingerprint_of(stored, b"1234")


def test_a_fingerprint_is_no_plain_hash() -> None:
    assert hashlib.sha256(b"1234").digest()[:28] not in fingerprint(b"1234")
    assert len(fingerprint(b"1234")) == 32
