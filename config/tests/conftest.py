"""The cast of the endpoint's tests: alice calls with a good token, the settings are production's."""

import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from django.http import HttpResponse
from django.test import Client

from config import identity, rate_limits
from config.tests import small_schema

SECRET = "a-secret-for-tests-of-at-least-thirty-two-bytes"


def token(*, key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token of alice's; a claim of None is left out."""
    given = {"sub": "alice", "exp": int(time.time()) + 600, **claims}
    present = {name: value for name, value in given.items() if value is not None}
    headers = present.pop("headers", None)
    return jwt.encode(present, key, algorithm=algorithm, headers=headers)


class Api:
    """Posts to /graphql as somebody."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def post(self, body: Any, *, bearer: str | None = "", **extra: Any) -> HttpResponse:
        """Post a payload, or bytes as they are; `bearer` None sends no header, empty is alice's."""
        if bearer is not None:
            extra.setdefault("HTTP_AUTHORIZATION", f"Bearer {bearer or token()}")
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        extra.setdefault("content_type", "application/json")
        extra["CONTENT_TYPE"] = extra["content_type"]  # which the client drops for an empty body
        response: Any = self.client.post("/graphql", data=data, **extra)
        return response  # type: ignore[no-any-return]  # of Django's test client

    def ask(self, query: str, *, bearer: str | None = "", **variables: Any) -> Any:
        """The answer's JSON."""
        return json.loads(
            self.post({"query": query, "variables": variables}, bearer=bearer).content
        )


@pytest.fixture
def api(settings: Any) -> Iterator[Api]:
    """The endpoint as alice sees it, in production."""
    settings.ROOT_URLCONF = "config.tests.urls"
    settings.DEBUG = False
    settings.SECURE_SSL_REDIRECT = False
    settings.JWT_SECRET = SECRET
    settings.JWT_PUBLIC_KEY = settings.JWT_JWKS_URL = ""
    settings.JWT_ISSUER = settings.JWT_AUDIENCE = ""
    settings.REDIS_URL = ""
    settings.RATE_LIMIT_USER = settings.RATE_LIMIT_ADDRESS = "1000000/minute"
    rate_limits.forget()
    identity._verifier.cache_clear()
    small_schema.EFFECTS.clear()
    yield Api(Client())
    rate_limits.forget()
