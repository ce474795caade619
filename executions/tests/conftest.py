"""What the tests of executions share: a partner over real HTTP, and clean caches."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

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


@pytest.fixture(autouse=True)
def _fresh_definitions() -> Iterator[None]:
    """Compiled versions of rolled back transactions must not outlive them."""
    yield
    forget_everything()


@pytest.fixture
def alice(db: None, partner: FakePartner) -> Phone:
    """Alice, who has just started the seed's money transfer."""
    return Phone(published(MONEY_TRANSFER), initial={"userAccount": "1234567890"})
