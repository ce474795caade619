"""Which tokens are taken, and that all others get one and the same answer."""

import base64
import json
import time
from typing import Any

import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from config.identity import (
    MAX_TOKEN_LENGTH,
    Identity,
    TokenRefused,
    TokensMisconfigured,
    check_configuration,
    identify_token,
)
from config.tests.conftest import SECRET, Api, token

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_SECRET = "another-secret-of-at-least-thirty-two-bytes-in-length"


def public_pem(key: Any) -> str:
    pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem.decode()


def forged(header: Any, payload: Any, signature: str = "AAAA") -> str:
    parts = [
        base64.urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode())
        for part in (header, payload)
    ]
    return ".".join([*(part.rstrip(b"=").decode() for part in parts), signature])


def _in(seconds: int) -> int:
    return int(time.time()) + seconds


NOW_CLAIMS = {"sub": "alice", "exp": 4_000_000_000}
REFUSED_HEADERS = {
    # the header
    "no header at all": None,
    "empty": "",
    "scheme alone": "Bearer",
    "scheme and a space": "Bearer ",
    "another scheme": f"Basic {token()}",
    "no scheme": token(),
    "two tokens": f"Bearer {token()} {token()}",
    "duplicated header": f"Bearer {token()},Bearer {token()}",
    "a comma behind": f"Bearer {token()},",
    "not ASCII": "Bearer ü.ü.ü",
    # the token's form
    "one part": "Bearer abc",
    "two parts": "Bearer abc.def",
    "four parts": f"Bearer {token()}.abc",
    "no signature": f"Bearer {token().rpartition('.')[0]}.",
    "header no JSON": f"Bearer {forged(b'{', NOW_CLAIMS)}",
    "header a list": f"Bearer {forged([], NOW_CLAIMS)}",
    "header bottomless": f"Bearer {forged(b'[' * 5_000, NOW_CLAIMS)}",
    "kid a number": f"Bearer {forged({'alg': 'HS256', 'kid': 1}, NOW_CLAIMS)}",
    "too long": f"Bearer {token(filler='x' * MAX_TOKEN_LENGTH)}",
    # the signature
    "alg none": f"Bearer {forged({'alg': 'none'}, NOW_CLAIMS, '')}",
    "alg none with a signature": f"Bearer {forged({'alg': 'none'}, NOW_CLAIMS)}",
    "alg missing": f"Bearer {forged({'typ': 'JWT'}, NOW_CLAIMS)}",
    "alg a list": f"Bearer {forged({'alg': ['HS256']}, NOW_CLAIMS)}",
    "another secret": f"Bearer {token(key=OTHER_SECRET)}",
    "another algorithm": f"Bearer {token(key=SECRET * 2, algorithm='HS512')}",
    "RS256": f"Bearer {token(key=RSA_KEY, algorithm='RS256')}",
    "signature changed": f"Bearer {token()[:-2]}AA",
    # the claims
    "expired": f"Bearer {token(exp=_in(-60))}",
    "exp missing": f"Bearer {token(exp=None)}",
    "exp a text": f"Bearer {token(exp='tomorrow')}",
    "exp a text of digits": f"Bearer {token(exp='4000000000')}",
    "exp true": f"Bearer {token(exp=True)}",
    "exp infinite": f"Bearer {token(exp=float('inf'))}",
    "exp a list": f"Bearer {token(exp=[4_000_000_000])}",
    "not yet": f"Bearer {token(nbf=_in(600))}",
    "issued in the future": f"Bearer {token(iat=_in(600))}",
    "sub missing": f"Bearer {token(sub=None)}",
    "sub empty": f"Bearer {token(sub='')}",
    "sub a number": f"Bearer {token(sub=1)}",
    "sub an object": f"Bearer {token(sub={'id': 1})}",
    "sub too long": f"Bearer {token(sub='a' * 256)}",
    "sub with NUL": f"Bearer {token(sub='a' + chr(0))}",
    "sub with a lone surrogate": f"Bearer {token(sub=chr(0xD800))}",
    "sub of a staff session": f"Bearer {token(sub='staff:root')}",
}


def _answer(api: Api, header: str | None) -> tuple[int, bytes, dict[str, str]]:
    extra = {} if header is None else {"HTTP_AUTHORIZATION": header}
    response = api.post({"query": "{ whoami }"}, bearer=None, **extra)
    headers = {name: value for name, value in response.items() if name != "X-Request-Id"}
    return response.status_code, response.content, headers


@pytest.mark.parametrize("header", REFUSED_HEADERS.values(), ids=REFUSED_HEADERS.keys())
def test_every_defect_gets_the_same_answer(api: Api, header: str | None) -> None:
    status, body, headers = _answer(api, header)
    assert (status, body, headers) == _answer(api, None)
    assert status == 401
    assert body == (
        b'{"errors":[{"message":"A valid bearer token is needed.",'
        b'"extensions":{"code":"UNAUTHENTICATED"}}]}'
    )
    assert headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("issuer", "audience", "claims", "is_taken"),
    [
        ("https://id", "", {"iss": "https://id"}, True),
        ("https://id", "", {"iss": "https://other"}, False),
        ("https://id", "", {}, False),
        ("", "", {"iss": "https://any"}, True),
        ("", "handrail", {"aud": "handrail"}, True),
        ("", "handrail", {"aud": ["other", "handrail"]}, True),
        ("", "handrail", {"aud": "other"}, False),
        ("", "handrail", {}, False),
        ("", "", {"aud": "any"}, True),
    ],
)
def test_issuer_and_audience_count_when_set(
    api: Api, settings: Any, issuer: str, audience: str, claims: dict[str, Any], is_taken: bool
) -> None:
    settings.JWT_ISSUER, settings.JWT_AUDIENCE = issuer, audience
    status, body, _ = _answer(api, f"Bearer {token(**claims)}")
    assert status == (200 if is_taken else 401)
    assert (body == b'{"data":{"whoami":"alice"}}') is is_taken


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER  {}"])
def test_a_good_token_is_taken(api: Api, header: str) -> None:
    assert _answer(api, header.format(token()))[1] == b'{"data":{"whoami":"alice"}}'


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "a b:c"}, {"a", "b:c"}),
        ({"scopes": ["a", "b"]}, {"a", "b"}),
        ({"scp": ["a"], "scope": "b"}, {"a", "b"}),
        ({"scp": "a b"}, {"a", "b"}),
        ({"scope": ["a", 1, None]}, {"a"}),
        ({"scope": 1, "scp": {"a": 1}}, set()),
        ({}, set()),
    ],
)
def test_scopes(claims: dict[str, Any], scopes: set[str]) -> None:
    assert identify_token(token(**claims)) == Identity("alice", frozenset(scopes))


@pytest.mark.usefixtures("api")
def test_a_little_leeway_for_clocks() -> None:
    assert identify_token(token(exp=_in(-5), nbf=_in(5), iat=_in(5))).user_id == "alice"


@pytest.mark.usefixtures("api")
def test_a_remembered_token_still_expires() -> None:
    with time_machine.travel("2026-01-01T00:00:00Z", tick=False) as clock:
        given = token()
        assert identify_token(given) is identify_token(given)
        clock.shift(605)  # within the leeway, but no longer remembered
        assert identify_token(given).user_id == "alice"
        clock.shift(10)
        with pytest.raises(TokenRefused):
            identify_token(given)


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA_KEY, "RS256"), (EC_KEY, "ES256")], ids=["RSA", "EC"]
)
def test_a_public_key_pins_its_algorithm(api: Api, settings: Any, key: Any, algorithm: str) -> None:
    settings.JWT_SECRET, settings.JWT_PUBLIC_KEY = "", public_pem(key)
    assert identify_token(token(key=key, algorithm=algorithm)).user_id == "alice"
    refused = [
        token(),
        token(
            key=EC_KEY if key is RSA_KEY else RSA_KEY,
            algorithm={"RS256": "ES256", "ES256": "RS256"}[algorithm],
        ),
    ]
    # The public key taken for an HMAC secret, which PyJWT itself would not sign with.
    signing_input = forged({"alg": "HS256"}, NOW_CLAIMS).rpartition(".")[0].encode()
    hmac = jwt.get_algorithm_by_name("HS256").sign(signing_input, public_pem(key).encode())
    refused.append(
        f"{signing_input.decode()}.{base64.urlsafe_b64encode(hmac).rstrip(b'=').decode()}"
    )
    for given in refused:
        with pytest.raises(TokenRefused):
            identify_token(given)


def test_a_public_key_on_one_line(api: Api, settings: Any) -> None:
    settings.JWT_SECRET, settings.JWT_PUBLIC_KEY = "", public_pem(EC_KEY).replace("\n", "\\n")
    assert identify_token(token(key=EC_KEY, algorithm="ES256")).user_id == "alice"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"JWT_SECRET": "short"}, "32 bytes"),
        ({"JWT_SECRET": public_pem(EC_KEY)}, "JWT_PUBLIC_KEY"),
        ({"JWT_SECRET": SECRET, "JWT_JWKS_URL": "https://id/keys"}, "not several"),
        ({"JWT_PUBLIC_KEY": "nonsense"}, "PEM"),
        ({"JWT_PUBLIC_KEY": public_pem(ec.generate_private_key(ec.SECP384R1()))}, "P-256"),
        (
            {
                "JWT_PUBLIC_KEY": public_pem(
                    rsa.generate_private_key(public_exponent=65537, key_size=1024)
                )
            },
            "2048",
        ),
        ({}, "none of"),
    ],
)
def test_wrong_settings_are_told(settings: Any, values: dict[str, str], told: str) -> None:
    for name in ("JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS_URL"):
        setattr(settings, name, values.get(name, ""))
    with pytest.raises(TokensMisconfigured, match=told):
        check_configuration()


@pytest.mark.parametrize(
    ("identity", "is_staff", "may_change"),
    [
        (Identity("alice", frozenset()), False, False),
        (Identity("alice", frozenset({"workflows:read"})), False, False),
        (Identity("alice", frozenset({"workflows:admin"})), True, True),
        (Identity("staff:op", frozenset(), frozenset(), by_session=True), True, False),
        (
            Identity(
                "staff:op", frozenset(), frozenset({"workflows.change_workflow"}), by_session=True
            ),
            True,
            True,
        ),
    ],
)
def test_permissions(identity: Identity, is_staff: bool, may_change: bool) -> None:
    assert identity.is_staff is is_staff
    assert identity.has_permission("workflows.change_workflow") is may_change
