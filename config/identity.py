"""Who is calling: a bearer token becomes a frozen Identity, or is refused.

The kind of the configured key pins the algorithm (a secret: HS256; a public key or a key set: RS256
or ES256), so a token cannot choose how it is checked. Every defect raises the same TokenRefused: a
caller learns nothing about which check failed. Verified tokens are remembered, by their hash, until
they expire, and at most five minutes, after which a withdrawn key counts.
"""

import hashlib
import math
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from threading import Lock
from typing import Any, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from django.conf import settings

from config.jsonvalues import check_storable
from config.jwks import MIN_RSA_BITS, KeySet, KeysUnavailable, VerificationKey

__all__ = ["ADMIN_SCOPE", "Identity", "KeysUnavailable", "TokenRefused", "identify_token"]

ADMIN_SCOPE = "workflows:admin"
STAFF_PREFIX = "staff:"
MAX_TOKEN_LENGTH = 8_192
MAX_SUBJECT_LENGTH = 255
MIN_SECRET_BYTES = 32
LEEWAY_SECONDS = 10
_REMEMBERED_TOKENS = 10_000
_REMEMBERED_SECONDS = 300
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class TokenRefused(Exception):
    """The token is not valid; no more is told."""


class TokensMisconfigured(ValueError):
    """The JWT_* settings do not make one usable key; the message is for the operator."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller: an app's user by token, or a member of staff by session (`staff:<username>`)."""

    user_id: str
    scopes: frozenset[str]
    permissions: frozenset[str] = frozenset()
    by_session: bool = False

    @property
    def is_staff(self) -> bool:
        """Whether the caller works here: the admin scope, or a staff session of any permission."""
        return self.by_session or ADMIN_SCOPE in self.scopes

    def has_permission(self, name: str) -> bool:
        """Whether the caller may, by a Django permission's name: `"workflows.change_workflow"`."""
        return ADMIN_SCOPE in self.scopes or name in self.permissions


class _Keys(Protocol):
    def find(self, kid: str | None) -> VerificationKey | None: ...


@dataclass(frozen=True, slots=True)
class _OneKey:
    key: VerificationKey

    def find(self, kid: str | None) -> VerificationKey | None:
        del kid  # the only key there is, whatever it is called
        return self.key


class TokenVerifier:
    """Checks tokens against one configuration and remembers those it has accepted."""

    def __init__(self, keys: _Keys, *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer or None
        self._audience = audience or None
        self._known: dict[bytes, tuple[float, Identity]] = {}
        self._lock = Lock()

    def verify(self, token: str) -> Identity:
        """The identity that the token proves. Raises TokenRefused, or KeysUnavailable."""
        if len(token) > MAX_TOKEN_LENGTH or not _TOKEN.fullmatch(token):
            raise TokenRefused
        now = time.time()
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None and now < known[0]:
            return known[1]
        claims = self._claims(token)
        identity = _identity(claims)
        self._remember(digest, min(float(claims["exp"]), now + _REMEMBERED_SECONDS), identity)
        return identity

    def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = self._keys.find(kid)
            if key is None:
                raise TokenRefused
            return jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={
                    "require": ["exp", "sub"],
                    "verify_aud": self._audience is not None,
                    "verify_iss": self._issuer is not None,
                    "enforce_minimum_key_length": True,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise TokenRefused from None

    def _remember(self, digest: bytes, until: float, identity: Identity) -> None:
        with self._lock:
            while len(self._known) >= _REMEMBERED_TOKENS:
                del self._known[next(iter(self._known))]
            self._known[digest] = (until, identity)


def identify_token(token: str) -> Identity:
    """The identity that a bearer token proves. Raises TokenRefused, or KeysUnavailable."""
    verifier = _verifier(
        settings.JWT_SECRET,
        settings.JWT_PUBLIC_KEY,
        settings.JWT_JWKS_URL,
        settings.JWT_ISSUER,
        settings.JWT_AUDIENCE,
    )
    if verifier is None:
        raise TokenRefused
    return verifier.verify(token)


def issue_token(
    user_id: str, *, scopes: Collection[str] = (), ttl_seconds: int, now: datetime
) -> str:
    """A token that `identify_token` takes, for development. Raises TokensMisconfigured, ValueError."""
    if not settings.JWT_SECRET:
        raise TokensMisconfigured("tokens are issued with JWT_SECRET, which is not set")
    key = _secret_key(settings.JWT_SECRET)
    _check_subject(user_id)
    claims: dict[str, Any] = {
        "sub": user_id,
        "iat": int(now.timestamp()),
        "exp": int(now.timestamp()) + ttl_seconds,
    }
    if scopes:
        claims["scope"] = " ".join(scopes)
    if settings.JWT_ISSUER:
        claims["iss"] = settings.JWT_ISSUER
    if settings.JWT_AUDIENCE:
        claims["aud"] = settings.JWT_AUDIENCE
    return jwt.encode(claims, str(key.key), algorithm=key.algorithm)


def check_configuration() -> None:
    """Raise TokensMisconfigured when JWT_* names no key, several, or an unusable one."""
    keys = _configured_keys(settings.JWT_SECRET, settings.JWT_PUBLIC_KEY, settings.JWT_JWKS_URL)
    if keys is None:
        raise TokensMisconfigured("none of JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS_URL is set")


@lru_cache(maxsize=8)  # one entry in a server; more only where tests change the settings
def _verifier(
    secret: str, public_key: str, jwks_url: str, issuer: str, audience: str
) -> TokenVerifier | None:
    keys = _configured_keys(secret, public_key, jwks_url)
    return None if keys is None else TokenVerifier(keys, issuer=issuer, audience=audience)


def _configured_keys(secret: str, public_key: str, jwks_url: str) -> _Keys | None:
    if sum(map(bool, (secret, public_key, jwks_url))) > 1:
        raise TokensMisconfigured(
            "set one of JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS_URL, not several"
        )
    if secret:
        return _OneKey(_secret_key(secret))
    if public_key:
        return _OneKey(_public_key(public_key))
    return KeySet(jwks_url) if jwks_url else None


def _secret_key(secret: str) -> VerificationKey:
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise TokensMisconfigured(f"JWT_SECRET must have at least {MIN_SECRET_BYTES} bytes")
    if "-----BEGIN" in secret:
        raise TokensMisconfigured(
            "JWT_SECRET holds a PEM key; a public key belongs in JWT_PUBLIC_KEY"
        )
    return VerificationKey(key=secret, algorithm="HS256")


def _public_key(pem: str) -> VerificationKey:
    try:
        key = load_pem_public_key(pem.replace("\\n", "\n").encode())
    except ValueError:
        raise TokensMisconfigured("JWT_PUBLIC_KEY is not a public key in PEM") from None
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return VerificationKey(key=key, algorithm="RS256")
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return VerificationKey(key=key, algorithm="ES256")
    raise TokensMisconfigured(
        f"JWT_PUBLIC_KEY must be RSA of at least {MIN_RSA_BITS} bits, or EC on P-256"
    )


def _identity(claims: Mapping[str, Any]) -> Identity:
    subject, expires = claims["sub"], claims["exp"]
    if (
        not isinstance(expires, int | float)
        or isinstance(expires, bool)
        or not math.isfinite(expires)
    ):
        raise TokenRefused
    try:
        _check_subject(subject)
    except ValueError:
        raise TokenRefused from None
    return Identity(user_id=subject, scopes=_scopes(claims))


def _check_subject(subject: object) -> None:
    """Raise ValueError, in words, for what cannot be a userId."""
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_LENGTH:
        raise ValueError(f"a user id is a text of 1 to {MAX_SUBJECT_LENGTH} characters")
    if subject.startswith(STAFF_PREFIX):
        raise ValueError(f"{STAFF_PREFIX!r} begins the names of staff sessions, not of users")
    check_storable(subject)  # raises JsonRefused, a ValueError


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """From `scope` (a string with spaces, RFC 8693), `scopes` and `scp` (lists)."""
    found: set[str] = set()
    for name in ("scope", "scopes", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            found.update(value.split())
        elif isinstance(value, Sequence):
            found.update(item for item in value if isinstance(item, str))
    return frozenset(found)
