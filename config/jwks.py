"""The identity provider's public keys (`JWT_JWKS_URL`), fetched rarely and by one thread at a time.

Keys are fresh for five minutes; a stale set stays in use while one thread fetches, and when the
provider is away. An unknown key id leads to a fetch at most twice a minute, whoever sends it, so
made-up ids cannot be used to hammer the provider.
"""

import json
import logging
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

logger = logging.getLogger("handrail.identity")

FRESH_SECONDS = 300.0
UNKNOWN_KID_SECONDS = 30.0
RETRY_SECONDS = 5.0
TIMEOUT_SECONDS = 3.0
MAX_BYTES = 262_144
MAX_KEYS = 100
MIN_RSA_BITS = 2_048


class KeysUnavailable(Exception):
    """There is no key yet to check a token with: the identity provider did not answer."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key and the one algorithm it is good for."""

    key: "str | RSAPublicKey | EllipticCurvePublicKey"
    algorithm: str


class KeySet:
    """The keys at one address, by key id."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: Mapping[str | None, VerificationKey] | None = None
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching = Lock()

    def find(self, kid: str | None) -> VerificationKey | None:
        """The key with this id; without an id the only key there is. Raises KeysUnavailable."""
        self._refresh(older_than=FRESH_SECONDS)
        if self._keys is None:
            raise KeysUnavailable
        if kid not in self._keys:
            self._refresh(older_than=UNKNOWN_KID_SECONDS)
        return self._keys.get(kid)

    def _refresh(self, *, older_than: float) -> None:
        """Fetch older keys: one thread does, others go on, or wait when there are no keys yet."""
        if not self._is_due(older_than):
            return
        have_keys = self._keys is not None
        if not self._fetching.acquire(timeout=0 if have_keys else TIMEOUT_SECONDS):
            return
        try:
            if self._is_due(older_than):  # the thread we waited for may have fetched
                self._fetch()
        finally:
            self._fetching.release()

    def _is_due(self, older_than: float) -> bool:
        now = time.monotonic()
        return now - self._fetched_at > older_than and now - self._tried_at > RETRY_SECONDS

    def _fetch(self) -> None:
        try:
            keys = parse_keys(_download(self._url))
        except (OSError, ValueError, RecursionError) as error:
            logger.warning("The JWKS could not be fetched: %s", type(error).__name__)
        else:
            self._keys = keys
            self._fetched_at = time.monotonic()
        self._tried_at = time.monotonic()


def parse_keys(document: bytes) -> Mapping[str | None, VerificationKey]:
    """The usable keys of a JWKS by their id, others left out. Raises ValueError when none is."""
    data = json.loads(document)
    found = data.get("keys") if isinstance(data, dict) else None
    if not isinstance(found, list):
        raise ValueError("not a JWKS")  # noqa: TRY004  # an answer's shape, told like any other bad answer
    keys: dict[str | None, VerificationKey] = {}
    for item in found[:MAX_KEYS]:
        key = _usable(item) if isinstance(item, dict) else None
        kid = item.get("kid") if key else None
        if key and (kid is None or isinstance(kid, str)):
            keys.setdefault(kid, key)
    if not keys:
        raise ValueError("no usable key")
    if len(keys) == 1:
        keys[None] = next(iter(keys.values()))
    return keys


def _usable(item: dict[str, Any]) -> VerificationKey | None:
    """Only RSA and P-256, never a symmetric key: one published by mistake must not sign tokens."""
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(item.get("kty")))
    if (
        algorithm is None
        or item.get("use", "sig") != "sig"
        or item.get("alg", algorithm) != algorithm
    ):
        return None
    if algorithm == "ES256" and item.get("crv") != "P-256":
        return None
    try:
        key = jwt.PyJWK.from_dict(item, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAPublicKey):
        return VerificationKey(key, algorithm) if key.key_size >= MIN_RSA_BITS else None
    return VerificationKey(key, algorithm) if isinstance(key, EllipticCurvePublicKey) else None


def _download(url: str) -> bytes:
    """The document, bounded in size and in total time: a drip of bytes must not hold the thread."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("JWT_JWKS_URL must be http or https")
    deadline = time.monotonic() + TIMEOUT_SECONDS
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310  # checked above
    body = bytearray()
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310  # checked above
        while chunk := answer.read1(65_536):
            body += chunk
            if len(body) > MAX_BYTES or time.monotonic() > deadline:
                raise ValueError("the answer is too large or too slow")
    return bytes(body)
