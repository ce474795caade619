"""GraphiQL: for staff or in DEBUG, of our own files only."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders

from config import graphiql
from config.tests.conftest import Api
from config.tests.test_graphql_view import staff_client

HTML = {"Accept": "text/html,application/xhtml+xml"}
FOLDER = Path(graphiql.__file__).parent / "static" / "graphiql"
OURS = {"start.js", "page.css", "graphiql.min.js.map", "graphiql.min.css.map"}


@pytest.fixture(autouse=True)
def plain_static_files(settings: Any) -> None:
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


def test_in_debug_a_browser_gets_the_page(api: Api, settings: Any) -> None:
    settings.DEBUG = True
    response = api.client.get("/graphql", headers=HTML)
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/html")
    assert "script-src 'self';" in response["Content-Security-Policy"]
    assert "csrftoken" in response.cookies


@pytest.mark.django_db
@pytest.mark.parametrize(("is_staff", "status"), [(True, 200), (False, 405)])
def test_in_production_only_staff_gets_it(api: Api, is_staff: bool, status: int) -> None:
    client = staff_client(is_staff=is_staff)
    assert client.get("/graphql", headers=HTML).status_code == status


def test_in_production_nobody_else_gets_it(api: Api) -> None:
    assert api.client.get("/graphql", headers=HTML).status_code == 405


def test_a_program_does_not_get_it(api: Api, settings: Any) -> None:
    settings.DEBUG = True
    assert api.client.get("/graphql", headers={"Accept": "*/*"}).status_code == 405


@pytest.mark.django_db
def test_the_pages_token_is_good_for_a_request(api: Api) -> None:
    client = staff_client()
    page = client.get("/graphql", headers=HTML).content.decode()
    (csrf,) = re.findall(r'data-csrf-token="(\w+)"', page)
    response = client.post(
        "/graphql",
        data={"query": "{ whoami }"},
        content_type="application/json",
        headers={"X-CSRFToken": csrf},
    )
    assert response.content == b'{"data":{"whoami":"staff:operator"}}'


def test_the_page_names_own_files_only(api: Api, settings: Any) -> None:
    settings.DEBUG = True
    page = api.client.get("/graphql", headers=HTML).content.decode()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses.pop(0) == "data:,"
    assert len(addresses) == 6
    for address in addresses:
        assert address.startswith("/static/graphiql/")
        assert finders.find(address.removeprefix("/static/")) is not None
    assert "<script>" not in page


def test_the_files_are_the_packages() -> None:
    readme = (FOLDER / "README.md").read_text()
    named = dict(re.findall(r"\| `([\w.-]+)` \|.*`([0-9a-f]{64})` \|", readme))
    assert len(named) == 4
    for name, digest in named.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest
    kept = {path.name for path in FOLDER.iterdir()}
    assert kept == {*named, *OURS, "README.md", "LICENSE.graphiql", "LICENSE.react"}
