"""`issue_token` and `export_schema`."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command

from config.graphql_sdl import sdl_of
from config.identity import TokenRefused, identify_token
from config.tests.conftest import Api
from config.tests.small_schema import schema


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def test_an_issued_token_is_taken(api: Api, settings: Any) -> None:
    settings.JWT_ISSUER, settings.JWT_AUDIENCE = "https://id", "handrail"
    out = run("issue_token", "alice", "--scope", "workflows:admin", "--scope", "other")
    identity = identify_token(out.removesuffix("\n"))
    assert identity.user_id == "alice"
    assert identity.scopes == {"workflows:admin", "other"}


@pytest.mark.usefixtures("api")
def test_an_issued_token_ends() -> None:
    with time_machine.travel("2026-01-01T00:00:00Z", tick=False) as clock:
        issued = run("issue_token", "alice", "--ttl", "15m").strip()
        clock.shift(15 * 60 - 1)
        assert identify_token(issued).user_id == "alice"
        clock.shift(12)
        with pytest.raises(TokenRefused):
            identify_token(issued)


@pytest.mark.usefixtures("api")
def test_for_machines() -> None:
    told = json.loads(run("issue_token", "alice", "--ttl", "2h", "--json"))
    assert identify_token(told.pop("token")).user_id == "alice"
    assert told == {"userId": "alice", "scopes": [], "expiresInSeconds": 7_200}


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["alice", "--ttl", "0"], "15m"),
        (["alice", "--ttl", "-5"], "ttl"),
        (["alice", "--ttl", "9999d"], "15m"),
        (["alice", "--ttl", "soon"], "15m"),
        (["alice", "--scope", "two words"], "one word"),
        (["", "--ttl", "1h"], "1 to 255"),
        (["staff:root"], "staff sessions"),
        (["a" * 256], "1 to 255"),
        ([], "USER_ID"),
    ],
)
def test_wrong_arguments_are_told(arguments: list[str], told: str) -> None:
    with pytest.raises(CommandError, match=told):
        run("issue_token", *arguments)


def test_without_a_secret_it_says_why(settings: Any) -> None:
    settings.JWT_SECRET, settings.JWT_JWKS_URL = "", "https://id/keys"
    with pytest.raises(CommandError, match="JWT_SECRET"):
        run("issue_token", "alice")


@pytest.fixture
def small(settings: Any) -> None:
    settings.GRAPHENE = {**settings.GRAPHENE, "SCHEMA": "config.tests.small_schema.schema"}


@pytest.mark.usefixtures("small")
def test_the_schema_is_written_and_checked(tmp_path: Path) -> None:
    out = tmp_path / "schema.graphql"
    with pytest.raises(CommandError, match="export_schema"):
        run("export_schema", "--check", "--out", str(out))
    run("export_schema", "--out", str(out))
    assert out.read_text() == sdl_of(schema.graphql_schema)
    assert "store(input: JSON): JSON" in out.read_text()
    run("export_schema", "--check", "--out", str(out))
    out.write_text(out.read_text().replace("whoami", "whoareyou"))
    with pytest.raises(CommandError, match="is not the schema"):
        run("export_schema", "--check", "--out", str(out))
