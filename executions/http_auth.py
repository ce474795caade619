"""How a connection proves to its partner who is calling: the headers that carry its credentials.

An HMAC connection signs every request: `X-Handrail-Signature: t=<unix seconds>,v1=<hex>`, where v1
is the HMAC-SHA256, keyed with the shared secret, of `<t>.` followed by the body's bytes as sent.
Pure: the time is handed in, and a signature is good for one attempt only.
"""

import base64
import hashlib
import hmac
from typing import Protocol

from workflows.enums import AuthKind
from workflows.routing import SIGNATURE_HEADER


class Credentials(Protocol):
    """What is needed of a connection; `workflows.connections.ConnectionValue` is one."""

    @property
    def auth_kind(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def secret(self) -> str: ...
    @property
    def header_name(self) -> str: ...


def credential_headers(
    credentials: Credentials, *, body: bytes, unix_seconds: int
) -> tuple[tuple[str, str], ...]:
    """The headers that prove who is calling with this body at this time."""
    secret = credentials.secret
    match AuthKind(credentials.auth_kind):
        case AuthKind.NONE:
            return ()
        case AuthKind.BEARER:
            return (("Authorization", f"Bearer {secret}"),)
        case AuthKind.BASIC:
            pair = f"{credentials.username}:{secret}".encode()
            return (("Authorization", f"Basic {base64.b64encode(pair).decode()}"),)
        case AuthKind.API_KEY:
            return ((credentials.header_name, secret),)
        case AuthKind.HMAC:
            signed = sign(secret, body=body, unix_seconds=unix_seconds)
            return ((SIGNATURE_HEADER, f"t={unix_seconds},v1={signed}"),)


def sign(secret: str, *, body: bytes, unix_seconds: int) -> str:
    """The hex HMAC-SHA256 of `<unix seconds>.<body>`."""
    message = f"{unix_seconds}.".encode() + body
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
