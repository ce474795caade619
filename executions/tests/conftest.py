"""What the tests of executions share: a partner over real HTTP, and clean caches."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from config import rate_limits
from executions.http_client import HttpClient
from executions.surroundings import get_surroundings
from executions.tests import servers
from executions.tests.phone import MONEY_TRANSFER, Phone, published
from sandbox.testing import FakePartner
from workflows.connections import forget_connections
from workflows.versions import forget_everything


@pytest.fixture
def partner(settings: Settings) -> Iterator[FakePartner]:
    """The sandbox bank on a loopback port, as the default connection."""
    with FakePartner() as partner:
        settings.TRIGGER_BASE_URL = partner.url
        forget_connections()
        yield partner
    forget_connections()


@pytest.fixture(scope="session", autouse=True)
def _no_lines_left() -> Iterator[None]:
    """The process keeps its lines to partners; the tests' partners are gone at the end."""
    yield
    client = get_surroundings().client
    if isinstance(client, HttpClient):
        client.close()


@pytest.fixture(autouse=True)
def _fresh_definitions() -> Iterator[None]:
    """Compiled versions of rolled back transactions must not outlive them."""
    yield
    forget_everything()


@pytest.fixture(autouse=True)
def _no_rates(settings: Settings) -> Iterator[None]:
    """Tests call more often than people do."""
    settings.RATE_LIMIT_USER = settings.RATE_LIMIT_ADDRESS = "1000000/minute"
    rate_limits.forget()
    yield
    rate_limits.forget()


@pytest.fixture(autouse=True)
def _closed_breakers() -> Iterator[None]:
    """The failures of one test must not cut off the partner of the next."""
    breakers = get_surroundings().breakers
    yield
    breakers.forget()


@pytest.fixture
def alice(db: None, partner: FakePartner) -> Phone:
    """Alice, who has just started the seed's money transfer."""
    return Phone(published(MONEY_TRANSFER), initial={"userAccount": "1234567890"})


@pytest.fixture(scope="module")
def bank_server() -> Iterator[FakePartner]:
    """The sandbox bank that the server processes of a module call; tests use `bank`."""
    with FakePartner() as partner:
        yield partner


@pytest.fixture
def bank(bank_server: FakePartner, settings: Settings) -> Iterator[FakePartner]:
    """The bank of the server processes, with an empty ledger."""
    bank_server.reset()
    settings.TRIGGER_BASE_URL = bank_server.url
    forget_connections()
    yield bank_server
    bank_server.reset()
    forget_connections()


@pytest.fixture
def server_output() -> Iterator[None]:
    """What server processes wrote during the test; pytest shows it when the test has failed."""
    yield
    servers.tell_outputs()
