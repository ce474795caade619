"""Headers and credentials: what a partner sees of them, byte for byte."""

import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from executions.enums import AttemptOutcome
from executions.http_auth import credential_headers
from executions.http_client import HttpClient
from executions.outcomes import ExchangeFailed
from executions.partner_calls import PartnerCall, with_query
from executions.tests.raw_partner import RawPartner, answer, says
from workflows.connections import ConnectionValue
from workflows.enums import AuthKind

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
BODY = '{"amount":5000,"to":"Jörg"}'.encode()

PLAIN = ConnectionValue(name="bank", base_url="https://bank.test", allow_private=True)
CALL = PartnerCall(
    connection=PLAIN,
    method="POST",
    url="https://bank.test/pay",
    body=BODY,
    timeout_ms=1000,
    idempotency_key="key-1",
    execution_id="execution-1",
    step_id="step-1",
    trace_id="0af7651916cd43dd8448eb211c80319c",
)


def connection(
    kind: AuthKind, *, secret: str, username: str = "", header_name: str = ""
) -> ConnectionValue:
    return replace(PLAIN, auth_kind=kind, secret=secret, username=username, header_name=header_name)


def headers_of(call: PartnerCall) -> list[tuple[str, str]]:
    request = call.request(timeout_ms=1000, span_id="b7ad6b7169203331", now=NOW)
    return list(request.headers)


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (PLAIN, ()),
        (
            connection(AuthKind.BEARER, secret="s3cret"),
            (("Authorization", "Bearer s3cret"),),
        ),
        (
            # RFC 7617's own example
            connection(AuthKind.BASIC, username="Aladdin", secret="open sesame"),
            (("Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),),
        ),
        (
            connection(AuthKind.BASIC, username="Jörg", secret="pass"),
            (("Authorization", "Basic SsO2cmc6cGFzcw=="),),
        ),
        (
            connection(AuthKind.API_KEY, header_name="X-Api-Key", secret="s3cret"),
            (("X-Api-Key", "s3cret"),),
        ),
        (
            # printf '1772366400.{"amount":5000,"to":"Jörg"}' | openssl dgst -sha256 -hmac s3cret
            connection(AuthKind.HMAC, secret="s3cret"),
            (
                (
                    "X-Handrail-Signature",
                    "t=1772366400,v1=733b059df9b5d6b82d25feb29ab65594fcc55ba8f54c4e301505bf82490b6101",
                ),
            ),
        ),
    ],
    ids=["none", "bearer", "basic", "basic in UTF-8", "API key", "HMAC"],
)
def test_headers_of_each_kind(value: ConnectionValue, headers: tuple[tuple[str, str], ...]) -> None:
    assert credential_headers(value, body=BODY, unix_seconds=1_772_366_400) == headers


def test_partner_can_verify_the_signature_of_what_it_received() -> None:
    client = HttpClient(pool_size=1)
    with RawPartner(says(answer(b"1"))) as partner:
        call = replace(CALL, connection=connection(AuthKind.HMAC, secret="s3cret"))
        call = replace(call, url=partner.url())
        client.send(call.request(timeout_ms=5_000, span_id="b7ad6b7169203331", now=NOW))
        client.close()
    head, _, body = partner.requests[0].partition(b"\r\n\r\n")
    (line,) = [line for line in head.split(b"\r\n") if line.startswith(b"X-Handrail-Signature: ")]
    time, _, signature = line.removeprefix(b"X-Handrail-Signature: t=").partition(b",v1=")
    expected = hmac.new(b"s3cret", time + b"." + body, hashlib.sha256).hexdigest()
    assert body == BODY
    assert (time, signature.decode()) == (b"1772366400", expected)


def test_get_is_signed_over_the_empty_body() -> None:
    call = replace(CALL, connection=connection(AuthKind.HMAC, secret="s3cret"), body=None)
    expected = hmac.new(b"s3cret", b"1772366400.", hashlib.sha256).hexdigest()
    assert ("X-Handrail-Signature", f"t=1772366400,v1={expected}") in headers_of(call)


def test_headers_of_a_call() -> None:
    assert headers_of(replace(CALL, headers=(("X-Channel", "mobile"),))) == [
        ("Accept", "application/json"),
        ("User-Agent", "handrail"),
        ("Content-Type", "application/json"),
        ("X-Channel", "mobile"),
        ("Idempotency-Key", "key-1"),
        ("X-Workflow-Execution-Id", "execution-1"),
        ("X-Workflow-Step-Id", "step-1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]


def test_submission_has_no_step_and_a_get_no_content_type() -> None:
    names = [name for name, _ in headers_of(replace(CALL, body=None, step_id=""))]
    assert names == [
        "Accept",
        "User-Agent",
        "Idempotency-Key",
        "X-Workflow-Execution-Id",
        "traceparent",
    ]


def test_own_headers_win_over_an_operators() -> None:
    call = replace(
        CALL,
        connection=connection(AuthKind.BEARER, secret="s3cret"),
        headers=(
            ("idempotency-key", "mine"),
            ("AUTHORIZATION", "Bearer mine"),
            ("accept", "text/plain"),
        ),
    )
    headers = headers_of(call)
    assert ("Idempotency-Key", "key-1") in headers
    assert ("Authorization", "Bearer s3cret") in headers
    assert ("accept", "text/plain") in headers
    names = [name.lower() for name, _ in headers]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Name", "a\r\nX-Evil: 1"),
        ("X-Name", "a\nb"),
        ("X-Name", "a\x00b"),
        ("X-Name", "a\x7fb"),
        ("X-Name", "Łukasz"),  # not in Latin-1
        ("X Name", "a"),
        ("", "a"),
        ("X-Näme", "a"),
        ("X-Name:", "a"),
    ],
)
def test_header_that_cannot_be_sent_is_refused(name: str, value: str) -> None:
    with pytest.raises(ExchangeFailed) as caught:
        headers_of(replace(CALL, headers=((name, value),)))
    assert caught.value.outcome is AttemptOutcome.FORBIDDEN
    assert str(caught.value) == "FORBIDDEN: a header cannot be sent"


def test_secret_that_cannot_be_sent_is_refused_and_not_shown() -> None:
    call = replace(CALL, connection=connection(AuthKind.BEARER, secret="s3cret\r\nX-Evil: 1"))
    with pytest.raises(ExchangeFailed) as caught:
        headers_of(call)
    assert caught.value.outcome is AttemptOutcome.FORBIDDEN
    assert "s3cret" not in str(caught.value)


def test_secret_is_in_no_repr() -> None:
    call = replace(CALL, connection=connection(AuthKind.BEARER, secret="s3cret"))
    request = call.request(timeout_ms=1000, span_id="b7ad6b7169203331", now=NOW)
    assert "s3cret" not in repr(call) + repr(request)
    assert "Jörg" not in repr(call) + repr(request)


def test_query_of_a_get() -> None:
    url = with_query(
        "https://bank.test/find",
        {
            "name": "Jörg & Söhne",
            "ids": [1, "a", None],
            "active": True,
            "none": None,
            "amount": 10**20,
            "where": {"a": [1]},
        },
    )
    assert url == (
        "https://bank.test/find?name=J%C3%B6rg+%26+S%C3%B6hne&ids=1&ids=a&active=true"
        "&amount=100000000000000000000&where=%7B%22a%22%3A%5B1%5D%7D"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://bank.test/find?x=1", "https://bank.test/find?x=1&a=1"),
        ("https://bank.test/find", "https://bank.test/find?a=1"),
    ],
)
def test_query_is_added_to_one_that_is_there(url: str, expected: str) -> None:
    assert with_query(url, {"a": 1}) == expected


def test_empty_query_changes_nothing() -> None:
    assert with_query("https://bank.test/find", {"a": None}) == "https://bank.test/find"
