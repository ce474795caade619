"""The provider's keys: which are used, how seldom they are fetched, and what a dead provider costs."""

import json
import threading
import time
from typing import Any

import pytest
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from config import jwks
from config.identity import TokenRefused, identify_token
from config.jwks import KeySet, KeysUnavailable, parse_keys
from config.tests.conftest import SECRET, Api, token
from config.tests.test_identity import EC_KEY, RSA_KEY

RSA_JWK = {**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "r1"}
EC_JWK = {**ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True), "kid": "e1"}
OCT_JWK = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "o1"}


class Provider:
    """Serves a key set, counts the fetches, and can be slow or broken."""

    def __init__(self, server: HTTPServer) -> None:
        self.keys: list[Any] = [RSA_JWK, EC_JWK]
        self.fetches = 0
        self.status = 200
        self.delay = 0.0
        self.url = server.url_for("/keys")
        server.expect_request("/keys").respond_with_handler(self._answer)

    def _answer(self, _request: Request) -> Response:
        self.fetches += 1
        time.sleep(self.delay)
        return Response(json.dumps({"keys": self.keys}), status=self.status)


@pytest.fixture
def provider(httpserver: HTTPServer) -> Provider:
    return Provider(httpserver)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic time of the module, to be moved."""
    now = [1_000.0]
    monkeypatch.setattr("config.jwks.time.monotonic", lambda: now[0])
    return now


def test_tokens_of_both_kinds_are_taken(api: Api, settings: Any, provider: Provider) -> None:
    settings.JWT_SECRET, settings.JWT_JWKS_URL = "", provider.url
    for key, algorithm, kid in ((RSA_KEY, "RS256", "r1"), (EC_KEY, "ES256", "e1")):
        given = token(key=key, algorithm=algorithm, headers={"kid": kid})
        assert identify_token(given).user_id == "alice"
    assert provider.fetches == 1


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [
        (RSA_KEY, "RS256", "e1"),  # the other's id
        (RSA_KEY, "RS384", "r1"),  # not the key's algorithm
        (RSA_KEY, "RS256", "r2"),  # unknown
        (RSA_KEY, "RS256", None),  # no id, and two keys
        (SECRET, "HS256", "r1"),
    ],
)
def test_other_tokens_are_refused(
    api: Api, settings: Any, provider: Provider, key: Any, algorithm: str, kid: str | None
) -> None:
    settings.JWT_SECRET, settings.JWT_JWKS_URL = "", provider.url
    headers = {"kid": kid} if kid else None
    with pytest.raises(TokenRefused):
        identify_token(token(key=key, algorithm=algorithm, headers=headers))


def test_without_an_id_the_only_key_counts(provider: Provider) -> None:
    provider.keys = [EC_JWK]
    found = KeySet(provider.url).find(None)
    assert found is not None
    assert found.algorithm == "ES256"


@pytest.mark.parametrize(
    "unusable",
    [
        OCT_JWK,
        {**RSA_JWK, "use": "enc"},
        {**RSA_JWK, "alg": "RS512"},
        {**EC_JWK, "crv": "P-384"},
        {**RSA_JWK, "n": "AQAB"},
        {**RSA_JWK, "n": 1},
        {**RSA_JWK, "kid": 7},
        {"kty": "RSA"},
        {"kty": ["RSA"]},
        "text",
        None,
    ],
)
def test_unusable_keys_are_left_out(unusable: Any) -> None:
    assert set(parse_keys(json.dumps({"keys": [unusable, EC_JWK]}).encode())) == {"e1", None}


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b'{"keys": {}}', b'{"keys": []}', b"\xff"])
def test_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of several kinds
        parse_keys(document)


def test_made_up_ids_do_not_hammer_the_provider(provider: Provider, clock: list[float]) -> None:
    keys = KeySet(provider.url)
    for number in range(200):
        assert keys.find(f"made-up-{number}") is None
        clock[0] += 0.5
    assert provider.fetches <= 1 + 200 * 0.5 / jwks.UNKNOWN_KID_SECONDS


def test_a_new_key_is_found(provider: Provider, clock: list[float]) -> None:
    provider.keys = [EC_JWK]
    keys = KeySet(provider.url)
    assert keys.find("r1") is None
    provider.keys = [EC_JWK, RSA_JWK]
    clock[0] += jwks.UNKNOWN_KID_SECONDS + 1
    assert keys.find("r1") is not None
    assert provider.fetches == 2


def test_a_withdrawn_key_is_forgotten(provider: Provider, clock: list[float]) -> None:
    keys = KeySet(provider.url)
    assert keys.find("r1") is not None
    provider.keys = [EC_JWK]
    clock[0] += jwks.FRESH_SECONDS + 1
    assert keys.find("r1") is None


def test_known_keys_outlive_a_dead_provider(provider: Provider, clock: list[float]) -> None:
    keys = KeySet(provider.url)
    assert keys.find("r1") is not None
    provider.status = 500
    for _ in range(20):
        clock[0] += jwks.FRESH_SECONDS
        assert keys.find("r1") is not None
    for _ in range(20):  # and it is not asked more often for being dead
        keys.find("r1")
    assert provider.fetches == 20


def test_without_keys_a_dead_provider_is_told(provider: Provider, clock: list[float]) -> None:
    provider.status = 503
    keys = KeySet(provider.url)
    for _ in range(10):
        with pytest.raises(KeysUnavailable):
            keys.find("r1")
    assert provider.fetches == 1


def test_the_client_gets_503_then(api: Api, settings: Any, provider: Provider) -> None:
    settings.JWT_SECRET, settings.JWT_JWKS_URL = "", provider.url
    provider.status = 500
    response = api.post({"query": "{ whoami }"})
    assert response.status_code == 503
    assert json.loads(response.content)["errors"][0]["extensions"] == {
        "code": "SERVICE_UNAVAILABLE",
        "retryable": True,
    }


def test_a_cold_start_fetches_once(provider: Provider) -> None:
    provider.delay = 0.2
    keys = KeySet(provider.url)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(keys.find("r1"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert provider.fetches == 1
    assert [key is not None for key in found] == [True] * 10


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://localhost/keys"])
def test_only_http_is_fetched(url: str) -> None:
    with pytest.raises(KeysUnavailable):
        KeySet(url).find("r1")


def test_a_large_answer_is_cut_off(provider: Provider) -> None:
    provider.keys = [{"filler": "x" * jwks.MAX_BYTES}, EC_JWK]
    with pytest.raises(KeysUnavailable):
        KeySet(provider.url).find("e1")
