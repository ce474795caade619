import pytest

from sandbox.credentials import parse_requirement, sign
from sandbox.messages import Request

NOW = 1_800_000_000
BODY = b'{"amount":5000}'


def refusal(requirement: str, **headers: str) -> str | None:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request("POST", "/api/x", "", names, BODY)
    return parse_requirement(requirement).refusal(request, now=NOW)


@pytest.mark.parametrize(
    ("requirement", "header", "value"),
    [
        ("bearer:tok:en", "authorization", "Bearer tok:en"),
        ("basic:bank:pa:ss", "authorization", "Basic YmFuazpwYTpzcw=="),
        ("api-key:X-Api-Key:k:1", "x_api_key", "k:1"),
    ],
)
def test_one_header_lets_in(requirement: str, header: str, value: str) -> None:
    assert refusal(requirement, **{header: value}) is None
    name = "X-Api-Key" if header == "x_api_key" else "Authorization"
    assert refusal(requirement) == f"the header {name} is missing"
    assert refusal(requirement, **{header: f"{value}x"}) == f"the header {name} is wrong"


def test_signature_is_the_agreed_one() -> None:
    assert sign("secret", BODY, signed_at=NOW) == (
        "t=1800000000,v1=9a7d17a71c545e76a2ddcab90ad8c83159a3196cc0c0928208cd37f2f0686e4c"
    )


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (sign("secret", BODY, signed_at=NOW), None),
        (sign("secret", BODY, signed_at=NOW - 300), None),
        (sign("secret", BODY, signed_at=NOW - 301), "the signature is too old or from the future"),
        (sign("secret", BODY, signed_at=NOW + 301), "the signature is too old or from the future"),
        (sign("other", BODY, signed_at=NOW), "the signature is wrong"),
        (sign("secret", BODY + b" ", signed_at=NOW), "the signature is wrong"),
        (
            "v1=00",
            "the header X-Handrail-Signature must be t=<unix seconds>,v1=<64 hex digits>",
        ),
    ],
)
def test_signature_of_the_body(signature: str, expected: str | None) -> None:
    assert refusal("hmac:secret", x_handrail_signature=signature) == expected


@pytest.mark.parametrize("text", ["", "bearer:", "basic:user", "api-key:X-Key", "hmac:", "magic:x"])
def test_unreadable_requirement(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be bearer:TOKEN, basic:USER:PASSWORD"):
        parse_requirement(text)


def test_secret_is_not_shown() -> None:
    assert "s3cret" not in repr(parse_requirement("bearer:s3cret"))
