from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests import Request

from workflows.egress import (
    FORBIDDEN_HEADERS,
    MAX_URL_LENGTH,
    check_header_name,
    check_header_value,
    is_address_allowed,
    origin_of,
    resolve_endpoint,
)
from workflows.errors import EndpointForbidden

BASE = "https://partner.example/v1"


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("/accounts", "https://partner.example/v1/accounts"),
        ("accounts", "https://partner.example/v1/accounts"),
        ("/accounts/", "https://partner.example/v1/accounts/"),
        ("/", "https://partner.example/v1/"),
        ("/a?b=c&d=e%2Ff", "https://partner.example/v1/a?b=c&d=e%2Ff"),
        ("?a=b", "https://partner.example/v1?a=b"),
        ("/a?", "https://partner.example/v1/a"),
        ("/a?next=https://evil.example/..", "https://partner.example/v1/a?next=https://evil.example/.."),
        ("/a%2Fb", "https://partner.example/v1/a%2Fb"),  # a value that holds a slash, encoded
        ("/a/b@evil.example", "https://partner.example/v1/a/b@evil.example"),
        (".evil.example/x", "https://partner.example/v1/.evil.example/x"),
        ("@evil.example/x", "https://partner.example/v1/@evil.example/x"),
        ("/überweisung/größe", "https://partner.example/v1/%C3%BCberweisung/gr%C3%B6%C3%9Fe"),
        ("/a...b/.well-known", "https://partner.example/v1/a...b/.well-known"),
        ('/a"<>`{|}^', "https://partner.example/v1/a%22%3C%3E%60%7B%7C%7D%5E"),
        # absolute: the connection's origin, whatever its path
        ("https://partner.example/v2/x", "https://partner.example/v2/x"),
        ("HTTPS://PARTNER.example/x", "https://partner.example/x"),
        ("https://partner.example:443/x", "https://partner.example/x"),
        ("https://partner.example", "https://partner.example/"),
        ("https://partner.example?a=b", "https://partner.example/?a=b"),
    ],
)  # fmt: skip
def test_endpoint_of_the_connection(endpoint: str, url: str) -> None:
    assert resolve_endpoint(endpoint=endpoint, base_url=BASE) == url


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/x"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000/x"),
        ("http://partner.example:80/a/b/", "http://partner.example/a/b/x"),
        ("https://partner.example:80", "https://partner.example:80/x"),
        ("http://[::1]:9000", "http://[::1]:9000/x"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]/x"),
        ("http://sandbox_partner:8000", "http://sandbox_partner:8000/x"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example/x"),
    ],
)
def test_base_url(base_url: str, url: str) -> None:
    assert resolve_endpoint(endpoint="/x", base_url=base_url) == url


OTHER_ORIGIN = "the endpoint is not on its connection's origin"
CHARACTERS = "a URL holds no spaces, control characters, backslashes or fragments"
NO_URL = "a URL begins with http:// or https:// and a host"
SCHEME = "only http and https are called"
CREDENTIALS = "a URL holds no credentials"
UNREADABLE = "the host or the port cannot be read"
NOT_IN_FULL = "the address is not written out in full"
NO_NAME = "a host is an ASCII name without a dot at its end; write others in punycode"
OTHER_HOST = "an endpoint that begins with // names another host"
DOTS = "the path holds a . or .. segment"
CONTROL = "the path holds an encoded control character"
DOUBLE = "the path begins with //"


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("", "the endpoint is empty"),
        # other origins
        ("https://evil.example/v1/x", OTHER_ORIGIN),
        ("http://partner.example/v1/x", OTHER_ORIGIN),
        ("https://partner.example:8443/x", OTHER_ORIGIN),
        ("https://partner.example.evil.example/x", OTHER_ORIGIN),
        ("https://evil-partner.example/x", OTHER_ORIGIN),
        ("https://127.0.0.1/x", OTHER_ORIGIN),
        ("https://[::1]/x", OTHER_ORIGIN),
        # credentials
        ("https://partner.example@evil.example/x", CREDENTIALS),
        ("https://user:secret@partner.example/x", CREDENTIALS),
        ("https://@partner.example/x", CREDENTIALS),
        ("https://partner.example:443@evil.example/", CREDENTIALS),
        # what parsers read differently
        ("https://evil.example\\@partner.example/x", CHARACTERS),
        ("https://partner.example\\.evil.example/", CHARACTERS),
        ("\\\\evil.example\\x", CHARACTERS),
        ("/\\evil.example", CHARACTERS),
        ("//evil.example/x", OTHER_HOST),
        ("///evil.example/x", OTHER_HOST),
        ("https:/partner.example/x", NO_URL),
        ("https:partner.example/x", NO_URL),
        ("https:///x", NO_NAME),
        ("https://", NO_NAME),
        ("https://partner.example#@evil.example/", CHARACTERS),
        ("/x#fragment", CHARACTERS),
        ("https://partner.example:/x", UNREADABLE),
        ("https://partner.example:443:80/x", UNREADABLE),
        ("https://partner.example:x/x", UNREADABLE),
        ("https://partner.example:-1/x", UNREADABLE),
        ("https://partner.example:0/x", "a port is between 1 and 65535"),
        ("https://partner.example:65536/x", "a port is between 1 and 65535"),
        ("https://[partner.example]/x", NOT_IN_FULL),
        ("https://[::1/x", UNREADABLE),
        ("https://[fe80::1%25eth0]/x", "an address has no zone"),
        # characters
        ("/x\ty", CHARACTERS),
        ("\t//evil.example", CHARACTERS),
        ("java\tscript:x", CHARACTERS),
        ("/x\r\nHost: evil.example", CHARACTERS),
        ("/x y", CHARACTERS),
        (" /x", CHARACTERS),
        ("/x\x00", CHARACTERS),
        ("/x\x7f", CHARACTERS),
        ("/x%", "a % stands before two hexadecimal digits"),
        ("/x%2", "a % stands before two hexadecimal digits"),
        ("/x%zz", "a % stands before two hexadecimal digits"),
        # schemes
        ("ftp://partner.example/x", SCHEME),
        ("file:///etc/passwd", SCHEME),
        ("gopher://partner.example/x", SCHEME),
        ("javascript:alert(1)", NO_URL),
        ("data:text/plain,x", NO_URL),
        ("http+unix://%2Fsocket/x", NO_URL),
        ("partner.example:443/x", NO_URL),
        # hosts
        ("https://partner.example./x", NO_NAME),
        ("https://partner..example/x", NO_NAME),
        ("https://.partner.example/x", NO_NAME),
        ("https://pаrtner.example/x", NO_NAME),  # noqa: RUF001  # the Cyrillic a is the attack
        ("https://partner。example/x", NO_NAME),
        ("https://partner%2eexample/x", NO_NAME),
        ("https://evil.example%2f@partner.example/x", CREDENTIALS),
        ("https://evil.example%00.partner.example/x", NO_NAME),
        ("https://2130706433/x", NOT_IN_FULL),
        ("https://0x7f000001/x", NOT_IN_FULL),
        ("https://0x7f.1/x", NOT_IN_FULL),
        ("https://017700000001/x", NOT_IN_FULL),
        ("https://0177.0.0.1/x", NOT_IN_FULL),
        ("https://127.1/x", NOT_IN_FULL),
        ("https://127.0.0.1./x", NO_NAME),
        ("https://" + "a" * 254 + "/x", NO_NAME),
        # paths that leave
        ("/../admin", DOTS),
        ("/a/../../admin", DOTS),
        ("/a/..", DOTS),
        ("..", DOTS),
        ("./x", DOTS),
        ("/a/./b", DOTS),
        ("/%2e%2e/admin", DOTS),
        ("/.%2E/admin", DOTS),
        ("/..%2fadmin", DOTS),
        ("/a%2f..%2fadmin", DOTS),
        ("/..%5cadmin", DOTS),
        ("/%252e%252e/admin", DOTS),
        ("/%25252e%25252e%25252fadmin", DOTS),
        ("/..;/admin", DOTS),
        ("/..;a=b/admin", DOTS),
        ("https://partner.example/v1/../admin", DOTS),
        ("https://partner.example//evil.example/x", DOUBLE),
        ("/x%0d%0aHost:evil", CONTROL),
        ("/x%00", CONTROL),
        ("/x%2500", CONTROL),
        # length
        ("/" + "x" * MAX_URL_LENGTH, f"the endpoint is longer than {MAX_URL_LENGTH} characters"),
        ("/" + "é" * 2000, f"the endpoint is longer than {MAX_URL_LENGTH} characters"),
    ],
)  # fmt: skip
def test_attack_is_refused(endpoint: str, reason: str) -> None:
    with pytest.raises(EndpointForbidden) as caught:
        resolve_endpoint(endpoint=endpoint, base_url=BASE)

    assert caught.value.message == reason
    assert caught.value.code == "ENDPOINT_FORBIDDEN"


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "partner.example",
        "/v1",
        "ftp://partner.example",
        "https://",
        "https://partner.example?a=b",
        "https://user@partner.example",
        "https://partner.example/a/../b",
        "https://0x7f.1",
    ],
)  # fmt: skip
def test_base_url_that_nobody_may_call(base_url: str) -> None:
    with pytest.raises(EndpointForbidden):
        resolve_endpoint(endpoint="/x", base_url=base_url)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Partner.Example/a?b", "https://partner.example"),
        ("https://partner.example:443", "https://partner.example"),
        ("http://partner.example:080/", "http://partner.example"),
        ("http://partner.example:443/", "http://partner.example:443"),
        ("http://127.0.0.1:8000/x", "http://127.0.0.1:8000"),
        ("http://[FE80:0::1]/", "http://[fe80::1]"),
    ],
)
def test_origin(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@given(st.text("/\\.@:?#%2e5cf[]0x1a;\té", max_size=24), st.sampled_from(["", "/", "https://"]))
def test_whatever_comes_out_is_read_alike_by_all_parsers(text: str, start: str) -> None:
    try:
        url = resolve_endpoint(endpoint=start + text, base_url="https://a.1a/5")
    except EndpointForbidden:
        return

    prepared = Request("GET", url).prepare().url
    assert prepared is not None
    assert urlsplit(url).netloc == urlsplit(prepared).netloc == "a.1a"
    assert unquote(url) == unquote(prepared)


PUBLIC = ("8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1")
PUBLIC_INSIDE = ("::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1")
NOT_PUBLIC = (
    # IPv4
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
    "168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1",
    "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    # IPv6
    "::", "::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fe80::1%eth0", "fec0::1",
    "ff02::1", "ff0e::1", "100::1", "2001:db8::1", "3fff::1", "5f00::1", "2001:20::1",
    # IPv4 inside IPv6: mapped, compatible, translated, NAT64, local NAT64, 6to4, Teredo
    "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2002:7f00:1::1", "2002:a9fe:a9fe::", "2001:0:808:808::1",
)  # fmt: skip
NO_ADDRESS = (
    "",
    "partner.example",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "[::1]",
    "1.2.3.4 ",
)


@pytest.mark.parametrize("address", PUBLIC + PUBLIC_INSIDE)
def test_public_address_is_allowed(address: str) -> None:
    assert is_address_allowed(address, allow_private=False)
    assert is_address_allowed(address, allow_private=True)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_other_address_needs_the_connections_permission(address: str) -> None:
    assert not is_address_allowed(address, allow_private=False)
    assert is_address_allowed(address, allow_private=True)


@pytest.mark.parametrize("address", NO_ADDRESS)
def test_what_is_no_address_is_never_allowed(address: str) -> None:
    assert not is_address_allowed(address, allow_private=False)
    assert not is_address_allowed(address, allow_private=True)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_alike(address: object) -> None:
    inside = f"::ffff:{address}"

    assert is_address_allowed(inside, allow_private=False) == is_address_allowed(
        str(address), allow_private=False
    )


@pytest.mark.parametrize("name", ["X-Api-Version", "content-type", "Authorization", "X_1.a~b"])
def test_operators_header(name: str) -> None:
    check_header_name(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Host", "the header Host is set by Handrail"),
        ("CONTENT-LENGTH", "the header CONTENT-LENGTH is set by Handrail"),
        ("transfer-encoding", "the header transfer-encoding is set by Handrail"),
        ("Connection", "the header Connection is set by Handrail"),
        ("Idempotency-Key", "the header Idempotency-Key is set by Handrail"),
        ("traceparent", "the header traceparent is set by Handrail"),
        ("x-api-KEY", "the header x-api-KEY carries the connection's credentials"),
        ("", "this is not the name of a header"),
        ("X Y", "this is not the name of a header"),
        ("X:", "this is not the name of a header"),
        ("X\r\nHost", "this is not the name of a header"),
        ("X\n", "this is not the name of a header"),
        ("É", "this is not the name of a header"),
        ("x" * 101, "this is not the name of a header"),
    ],
)
def test_forbidden_header(name: str, reason: str) -> None:
    with pytest.raises(EndpointForbidden) as caught:
        check_header_name(name, credentials_header="X-Api-Key")

    assert caught.value.message == reason


def test_forbidden_headers_are_compared_in_lower_case() -> None:
    assert all(name == name.lower() for name in FORBIDDEN_HEADERS)


@pytest.mark.parametrize("value", ["a\r\nHost: evil", "a\n", "\x00", "a\tb", "\x7f"])
def test_header_value_cannot_end_its_header(value: str) -> None:
    with pytest.raises(EndpointForbidden):
        check_header_value(value)


@pytest.mark.parametrize("value", ["", "plain text", "José", "a: b; c=d"])
def test_header_value(value: str) -> None:
    check_header_value(value)
