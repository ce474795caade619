"""Which address a request came from. Leaf: imports nothing of ours.

X-Forwarded-For is a claim: it is believed only as far as TRUSTED_PROXIES wrote it, read from the
right.
"""

import ipaddress
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=8)
def trusted_networks(proxies: tuple[str, ...]) -> tuple[_Network, ...]:
    """The networks of TRUSTED_PROXIES. Raises ValueError for what is no address or network."""
    return tuple(ipaddress.ip_network(proxy) for proxy in proxies)


def is_trusted_proxy(address: str) -> bool:
    """Whether `address` is one of TRUSTED_PROXIES, in whichever of its two IPv6 forms it came."""
    networks = trusted_networks(tuple(settings.TRUSTED_PROXIES))
    if not networks:
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in networks)


def client_address(request: HttpRequest) -> str:
    """The address nearest to the client that we have reason to believe."""
    address: str = request.META.get("REMOTE_ADDR", "")
    if not settings.TRUSTED_PROXIES:
        return address
    hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    while hops and is_trusted_proxy(address):
        claimed = hops.pop()
        if not _is_address(claimed):
            break
        address = claimed
    return address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
