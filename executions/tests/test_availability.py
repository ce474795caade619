"""How a failing partner shows: to apps before they start, and to operators in the admin."""

import re
from dataclasses import replace

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from executions.availability import state_of_connection
from executions.breakers import Breakers
from executions.breaking import Ending, Policy
from executions.surroundings import ConnectionCaps, get_surroundings
from executions.tests.app import App
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
