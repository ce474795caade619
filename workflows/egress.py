"""Egress: may this connection call this endpoint, this address, with this header.

An endpoint is relative to its connection's base URL, or absolute on the same origin; anything else
is refused. A URL is taken apart once, and the one that is called is put together from those parts,
so that no second parser reads another host into it. Addresses that are not public are refused, also
those inside another address, unless the connection allows private networks.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote, unquote

from workflows.errors import EndpointForbidden, Problem

MAX_URL_LENGTH = 8_192
MAX_HEADER_NAME_LENGTH = 100

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_URL = re.compile(r"(?P<scheme>[A-Za-z]+)://(?P<authority>[^/?]*)(?P<rest>.*)")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_NEVER_IN_A_URL = re.compile(r"[\x00-\x20\x7f\\#]")
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SEPARATOR = re.compile(r"[/\\]")
_KEPT = "%/:?@!$&'()*+,;=-._~"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

FORBIDDEN_HEADERS = frozenset(
    # what frames and routes the message
    {"host", "connection", "content-length", "transfer-encoding", "expect", "upgrade", "te"}
    | {"trailer", "keep-alive", "proxy-authorization", "proxy-connection"}
    # what Handrail says about the call
    | {"idempotency-key", "traceparent"}
    | {"x-workflow-execution-id", "x-workflow-step-id", "x-callback-url"}
)

# RFC 6890 and the IANA registries, written out: what `is_global` says differs between Pythons.
_NOT_PUBLIC_4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; metadata of one cloud is at 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host services, on a public-looking address
        "169.254.0.0/16",  # link-local, with the metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "3fff::/20")  # Teredo and others, examples
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOW_32_BITS = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class _Url:
    origin: str
    path: str
    query: str


def resolve_endpoint(*, endpoint: str, base_url: str) -> str:
    """The URL to call: on the origin of `base_url`, below its path when the endpoint is relative.

    Raises EndpointForbidden for everything else. Messages do not hold the endpoint, which may carry
    people's data. What comes back is ASCII, without fragment, credentials and dot segments.
    """
    _check_characters(endpoint)
    base = _take_apart(base_url)
    if base.query:
        _forbid("the base URL of a connection has no query")
    if not endpoint:
        _forbid("the endpoint is empty")
    if not is_absolute(endpoint):
        return _put_together(base.origin, _below(base.path, endpoint))
    target = _take_apart(endpoint)
    if target.origin != base.origin:
        _forbid("the endpoint is not on its connection's origin")
    return _put_together(target.origin, target.path + target.query)


def origin_of(url: str) -> str:
    """`https://partner.example`: scheme and host in lower case, the port unless it is the default.

    Raises EndpointForbidden when the URL is not one that Handrail would call.
    """
    return _take_apart(url).origin


def is_absolute(endpoint: str) -> bool:
    """Whether the endpoint names its scheme and host itself."""
    return _SCHEME.match(endpoint) is not None


def is_address_allowed(address: str, *, allow_private: bool) -> bool:
    """Whether a resolved address may be connected to. What is no IP address in full may not."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return allow_private or _is_public(parsed)


def check_header_name(name: str, *, credentials_header: str = "") -> None:
    """Raise EndpointForbidden when an operator may not set this header.

    `credentials_header` is the one that carries the connection's credentials.
    """
    if len(name) > MAX_HEADER_NAME_LENGTH or not _HEADER_NAME.fullmatch(name):
        _forbid("this is not the name of a header")
    if name.lower() in FORBIDDEN_HEADERS:
        _forbid(f"the header {name} is set by Handrail")
    if name.lower() == credentials_header.lower():
        _forbid(f"the header {name} carries the connection's credentials")


def check_header_value(value: str) -> None:
    """Raise EndpointForbidden when a rendered value could end its header and begin another."""
    if _CONTROL.search(value):
        _forbid("the value of a header holds a control character")


def _take_apart(url: str) -> _Url:
    _check_characters(url)
    parts = _URL.fullmatch(url)
    if parts is None:
        _forbid("a URL begins with http:// or https:// and a host")
    scheme = parts["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        _forbid("only http and https are called")
    path, mark, query = parts["rest"].partition("?")
    return _Url(_origin(scheme, parts["authority"]), path, mark + query)


def _origin(scheme: str, authority: str) -> str:
    if "@" in authority:
        _forbid("a URL holds no credentials")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        _forbid("the host or the port cannot be read")
    host = _canonical_host(parts["host"].lower())
    if parts["port"] is None:
        return f"{scheme}://{host}"
    port = int(parts["port"])
    if not 0 < port <= 65_535:
        _forbid("a port is between 1 and 65535")
    return f"{scheme}://{host}" if port == _DEFAULT_PORTS[scheme] else f"{scheme}://{host}:{port}"


def _canonical_host(host: str) -> str:
    try:
        if host.startswith("["):
            if "%" in host:
                _forbid("an address has no zone")
            return f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        if _NUMERIC.fullmatch(host):  # resolvers read 0x7f.1, 017700000001 and 2130706433 as IPv4
            return str(ipaddress.IPv4Address(host))
    except ValueError:
        _forbid("the address is not written out in full")
    if len(host) > 253 or not _NAME.fullmatch(host):
        _forbid("a host is an ASCII name without a dot at its end; write others in punycode")
    return host


def _below(base_path: str, endpoint: str) -> str:
    if endpoint.startswith("//"):
        _forbid("an endpoint that begins with // names another host")
    if endpoint.startswith("?"):
        return base_path + endpoint
    return f"{base_path.rstrip('/')}/{endpoint.removeprefix('/')}"


def _put_together(origin: str, rest: str) -> str:
    path, _, query = rest.partition("?")
    _check_path(path)
    url = origin + quote(f"{path or '/'}?{query}" if query else path or "/", safe=_KEPT)
    if len(url) > MAX_URL_LENGTH:
        _forbid(f"the endpoint is longer than {MAX_URL_LENGTH} characters")
    return url


def _check_path(path: str) -> None:
    """Refuse what a proxy or a partner may take for another path than the one that was meant."""
    if path.startswith("//"):
        _forbid("the path begins with //")
    decoded = path
    while (further := unquote(decoded)) != decoded:
        decoded = further
    if _CONTROL.search(decoded):
        _forbid("the path holds an encoded control character")
    for segment in _SEPARATOR.split(decoded):
        if segment.partition(";")[0] in (".", ".."):
            _forbid("the path holds a . or .. segment")


def _check_characters(url: str) -> None:
    if len(url) > MAX_URL_LENGTH:
        _forbid(f"the endpoint is longer than {MAX_URL_LENGTH} characters")
    if _NEVER_IN_A_URL.search(url):
        _forbid("a URL holds no spaces, control characters, backslashes or fragments")
    if _BROKEN_PERCENT.search(url):
        _forbid("a % stands before two hexadecimal digits")


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    inner = _inner_address(address)
    if inner is not None:
        return _is_public(inner)
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def _inner_address(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a mapped, 6to4 or NAT64 address leads to."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & _LOW_32_BITS)
    return address.ipv4_mapped or address.sixtofour


def _forbid(reason: str) -> NoReturn:
    raise EndpointForbidden([Problem("", reason)])
