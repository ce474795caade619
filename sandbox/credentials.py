"""Does a call carry the credentials that the sandbox was told to require?

The signature of a body is the header `X-Handrail-Signature: t=<unix seconds>,v1=<hex>`, where the
hex is the HMAC-SHA256 of `<t>.<body>` under the shared secret; a time more than five minutes off
is refused.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field

from .messages import Request

SIGNATURE_HEADER = "X-Handrail-Signature"
_SIGNATURE_TOLERANCE_SECONDS = 300
_SIGNATURE = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")
_USAGE = "must be bearer:TOKEN, basic:USER:PASSWORD, api-key:HEADER:VALUE or hmac:SECRET"


@dataclass(frozen=True, slots=True)
class Requirement:
    """The one kind of credentials that every call to `/api/` has to carry."""

    kind: str
    name: str
    secret: str = field(repr=False)

    def refusal(self, request: Request, *, now: float) -> str | None:
        """Why the call is not let in, or None."""
        if self.kind == "hmac":
            return self._signature_refusal(request, now)
        given = request.headers.get(self.name.lower(), "")
        if not given:
            return f"the header {self.name} is missing"
        if not hmac.compare_digest(given.encode(), self.secret.encode()):
            return f"the header {self.name} is wrong"
        return None

    def _signature_refusal(self, request: Request, now: float) -> str | None:
        given = request.headers.get(self.name.lower(), "")
        match = _SIGNATURE.fullmatch(given)
        if match is None:
            return f"the header {self.name} must be t=<unix seconds>,v1=<64 hex digits>"
        signed_at = int(match[1])
        if abs(now - signed_at) > _SIGNATURE_TOLERANCE_SECONDS:
            return "the signature is too old or from the future"
        expected = sign(self.secret, request.body, signed_at=signed_at)
        return None if hmac.compare_digest(given, expected) else "the signature is wrong"


def sign(secret: str, body: bytes, *, signed_at: int) -> str:
    """The value of the signature header for this body."""
    text = f"{signed_at}.".encode() + body
    digest = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
    return f"t={signed_at},v1={digest}"


def parse_requirement(text: str) -> Requirement:
    """Read `bearer:TOKEN` and its like; ValueError says which forms there are."""
    kind, _, rest = text.partition(":")
    first, _, second = rest.partition(":")
    if kind == "bearer" and rest:
        return Requirement(kind, "Authorization", f"Bearer {rest}")
    if kind == "basic" and first and second:
        credentials = base64.b64encode(rest.encode()).decode()
        return Requirement(kind, "Authorization", f"Basic {credentials}")
    if kind == "api-key" and first and second:
        return Requirement(kind, first, second)
    if kind == "hmac" and rest:
        return Requirement(kind, SIGNATURE_HEADER, rest)
    raise ValueError(_USAGE)
