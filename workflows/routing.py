"""Which connection an endpoint belongs to: the one it names, `default`, or the one of its origin.

Publishing and every call ask the same functions, so that what was checked is what is called. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from workflows.egress import origin_of
from workflows.enums import AuthKind
from workflows.errors import EndpointForbidden, Problem

DEFAULT_CONNECTION: Final = "default"
SIGNATURE_HEADER: Final = "X-Handrail-Signature"


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """What checking a draft needs to know of a connection."""

    base_url: str
    credential_header: str = ""


def credential_header(auth_kind: AuthKind, header_name: str) -> str:
    """The header that this kind of authentication sends, "" for none."""
    match auth_kind:
        case AuthKind.NONE:
            return ""
        case AuthKind.BEARER | AuthKind.BASIC:
            return "Authorization"
        case AuthKind.API_KEY:
            return header_name
        case AuthKind.HMAC:
            return SIGNATURE_HEADER


def choose_by_origin(origin: str, base_urls: Mapping[str, str]) -> str:
    """The name of the one connection (name -> base URL) of the origin. Raises EndpointForbidden."""
    names = sorted(name for name, base_url in base_urls.items() if origin_of(base_url) == origin)
    if not names:
        raise EndpointForbidden([Problem("", f"no connection is registered for {origin}")])
    if len(names) > 1:
        message = f"{origin} belongs to {', '.join(names)}: name the connection"
        raise EndpointForbidden([Problem("", message)])
    return names[0]
