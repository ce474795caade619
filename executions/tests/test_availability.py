"""How a failing partner shows: to apps before they start, and to operators in the admin."""

import re
from dataclasses import replace

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from prometheus_client import REGISTRY
from pytest_django import Settings

from config import metrics
from executions.availability import show_breakers, state_of_connection
from executions.breakers import Breakers
from executions.breaking import Ending, Policy
from executions.surroundings import ConnectionCaps, get_surroundings
from executions.tests.app import App
from executions.tests.fakes import MemorySharedBreakers
from executions.tests.phone import MONEY_TRANSFER, flow, form, published
from sandbox.testing import FakePartner
from workflows.connection_states import ConnectionState
from workflows.connections import set_connection
from workflows.enums import WorkflowAvailability

pytestmark = pytest.mark.django_db

OK = WorkflowAvailability.OK
DEGRADED = WorkflowAvailability.DEGRADED
BLOCKED = WorkflowAvailability.BLOCKED
ONE = "query One($id: ID!) { workflow(id: $id) { availability } }"
LIST = "{ workflows { name availability } }"


@pytest.fixture
def breakers() -> Breakers:
    return get_surroundings().breakers


def open_breaker(breakers: Breakers, connection: str = "default") -> None:
    for _ in range(5):
        permit = breakers.ask(connection, lasting_ms=1_000)
        breakers.end(connection, permit, Ending.FAILED)


def end_cooldown(settings: Settings) -> None:
    """A rest longer than any cooldown counts as over."""
    settings.BREAKER_COOLDOWN_MS = 100


def test_states_of_a_connection() -> None:
    time_ms = 0.0
    world = replace(
        get_surroundings(),
        caps=ConnectionCaps(1),
        breakers=Breakers(clock_ms=lambda: time_ms, policy=lambda: Policy(5, 30_000)),
    )

    def state(connection: str = "bank") -> ConnectionState:
        return state_of_connection(connection, world=world)

    assert state() == ConnectionState(OK, "closed")
    with world.caps.slot("bank"):
        assert state() == ConnectionState(DEGRADED, "closed, no room for another call")
        open_breaker(world.breakers, "bank")
        assert state() == ConnectionState(BLOCKED, "open, 30 s left, no room for another call")
    time_ms = 28_999
    assert state() == ConnectionState(BLOCKED, "open, 2 s left")
    time_ms = 30_000
    assert state() == ConnectionState(DEGRADED, "half-open")
    world.breakers.end("bank", world.breakers.ask("bank", lasting_ms=1_000), Ending.ANSWERED)
    assert state() == ConnectionState(OK, "closed")
    assert state("another") == ConnectionState(OK, "closed")


def test_app_asks_before_it_starts(
    partner: FakePartner, breakers: Breakers, settings: Settings
) -> None:
    workflow_id = published(MONEY_TRANSFER).workflow_id
    app = App("alice")
    assert app.data(ONE, id=workflow_id) == {"availability": "OK"}
    open_breaker(breakers)
    assert app.data(ONE, id=workflow_id) == {"availability": "BLOCKED"}
    end_cooldown(settings)
    assert app.data(ONE, id=workflow_id) == {"availability": "DEGRADED"}
    assert partner.calls() == []


def test_list_tells_each_workflows_own(partner: FakePartner, breakers: Breakers) -> None:
    published(MONEY_TRANSFER)
    published({**flow(form()), "name": "Alone"})
    open_breaker(breakers)
    assert App("alice").data(LIST) == [
        {"name": "Alone", "availability": "OK"},
        {"name": MONEY_TRANSFER["name"], "availability": "BLOCKED"},
    ]


def test_draft_has_none(partner: FakePartner) -> None:
    workflow_id = published(MONEY_TRANSFER).workflow_id
    draft = "query One($id: ID!) { workflow(id: $id, draft: true) { availability } }"
    assert App("operator", "workflows:admin").data(draft, id=workflow_id) == {"availability": None}


def test_operators_see_it_beside_the_connection(breakers: Breakers) -> None:
    set_connection(name="bank", base_url="https://bank.example")
    set_connection(name="shop", base_url="https://shop.example")
    open_breaker(breakers, "bank")
    operator = Client()
    operator.force_login(User.objects.create_superuser("operator"))
    page = operator.get(reverse("admin:workflows_connection_changelist")).content.decode()
    assert re.findall(r"field-breaker[^>]*>(?:\s|<[^>]+>)*(open|closed)", page) == [
        "open",
        "closed",
    ]


# --- to the metrics -------------------------------------------------------------------------------


def shown() -> float | None:
    return REGISTRY.get_sample_value("handrail_breaker_state", {"connection": "bank"})


def test_metrics_tell_of_a_breaker_that_another_process_opened() -> None:
    """As a worker does, which nobody can ask for figures; and of the end of the cooldown."""
    time_ms = 0.0
    store = MemorySharedBreakers(lambda: time_ms)

    def process() -> Breakers:
        return Breakers(
            clock_ms=lambda: time_ms, policy=lambda: Policy(5, 30_000), shared=lambda: store
        )

    set_connection(name="bank", base_url="https://bank.example.com")
    web = replace(get_surroundings(), breakers=process())
    show_breakers(world=web)
    assert shown() == 0
    open_breaker(process(), "bank")
    metrics.breaker_changed(connection="bank", state=0)  # that was another process's figure
    time_ms += 1_001
    show_breakers(world=web)
    assert shown() == 2
    time_ms += 30_000
    show_breakers(world=web)
    assert shown() == 1


def test_a_process_on_its_own_does_not_speak_for_the_others() -> None:
    set_connection(name="bank", base_url="https://bank.example.com")
    metrics.breaker_changed(connection="bank", state=2)  # of another one, which opened its own
    alone = Breakers(clock_ms=lambda: 0.0, policy=lambda: Policy(5, 30_000))
    show_breakers(world=replace(get_surroundings(), breakers=alone))
    assert shown() == 2
