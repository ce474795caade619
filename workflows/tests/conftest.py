"""What the tests of definitions share: the seed's workflow, a partner to call, empty caches."""

from collections.abc import Iterator
from typing import Any

import pytest

from config.jsonvalues import JsonObject
from workflows.connections import forget_connections
from workflows.tests.samples import seed_document
from workflows.versions import forget_everything


@pytest.fixture(autouse=True)
def _fresh(settings: Any) -> Iterator[None]:
    settings.TRIGGER_BASE_URL = "http://127.0.0.1:9000"
    forget_everything()
    forget_connections()
    yield
    forget_everything()
    forget_connections()


@pytest.fixture
def money_transfer() -> JsonObject:
    """The seed's Example 1, verbatim."""
    return seed_document()
