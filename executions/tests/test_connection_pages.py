"""A connection's page: its breaker, a test that never tells credentials, and who calls it."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from config import rights
from executions.breaking import Breaker, Ending, Phase, reset
from executions.connection_trials import try_connection
from executions.surroundings import get_surroundings
from executions.tests.phone import flow, form, published, server_step
from sandbox.testing import FakePartner
from workflows.connection_users import uses_of
from workflows.connections import set_connection
from workflows.drafts import import_document
from workflows.enums import AuthKind
from workflows.models import Connection

pytestmark = pytest.mark.django_db

SECRET = "token-918273645"


@pytest.fixture
def bank_row(partner: FakePartner) -> Connection:
    row, _ = set_connection(
        name="bank",
        base_url=partner.url,
        auth_kind=AuthKind.BEARER,
        secret=SECRET,
        allow_private=True,
    )
    return row


def staff(group: str) -> Client:
    user = User.objects.create_user(group.lower(), is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


def state_of(row: Connection) -> str:
    return reverse("admin:workflows_connection_state", args=[row.pk])


def told(answer: Any) -> str:
    shown: str = answer.content.decode()
    return shown


def open_breaker(name: str) -> None:
    breakers = get_surroundings().breakers
    for _ in range(5):
        breakers.end(name, breakers.ask(name, lasting_ms=100), Ending.FAILED)


def test_partner_that_answers(bank_row: Connection, partner: FakePartner) -> None:
    trial = try_connection("bank", now=timezone.now())
    assert (trial.is_reached, trial.refusal) == (True, "")
    assert trial.status is not None
    assert [phase.name for phase in trial.phases] == [
        "Name lookup",
        "Connection",
        "Request and answer",
    ]
    assert not any(phase.failed for phase in trial.phases)
    assert SECRET not in repr(trial)


def test_name_that_nobody_knows(db: None) -> None:
    def unknown(_host: str, _port: int) -> list[Any]:
        raise OSError

    set_connection(name="gone", base_url="https://gone.example")
    trial = try_connection("gone", now=timezone.now(), lookup=unknown)
    assert (trial.is_reached, trial.status) == (False, None)
    assert trial.refusal == "The host's name was not resolved."
    assert [(phase.name, phase.failed) for phase in trial.phases] == [("Name lookup", True)]


def test_private_address_is_refused(bank_row: Connection) -> None:
    Connection.objects.update(allow_private=False)
    trial = try_connection("bank", now=timezone.now())
    assert trial.is_reached is False
    assert trial.refusal == "The host's address is not one that may be called."


def test_port_where_nobody_listens(db: None) -> None:
    set_connection(name="closed", base_url="http://127.0.0.1:9", allow_private=True)
    trial = try_connection("closed", now=timezone.now())
    assert trial.refusal == "No connection."
    assert [(phase.name, phase.failed) for phase in trial.phases] == [
        ("Name lookup", False),
        ("Connection", True),
    ]


def test_unknown_connection_is_told(db: None) -> None:
    assert try_connection("none", now=timezone.now()).refusal == "there is no connection none"


def test_test_is_sent_whatever_the_breaker_says(bank_row: Connection, partner: FakePartner) -> None:
    open_breaker("bank")
    client = staff(rights.PUBLISHER)
    answer = client.post(state_of(bank_row), {"do": "test"})
    assert answer.context["trial"].is_reached is True
    assert SECRET not in told(answer)
    assert get_surroundings().breakers.look("bank").phase is Phase.OPEN
    entry = LogEntry.objects.get()
    assert (entry.user.username, SECRET in entry.change_message) == ("publisher", False)


def test_reset_closes_the_breaker(bank_row: Connection) -> None:
    open_breaker("bank")
    client = staff(rights.PUBLISHER)
    assert "BLOCKED" in told(client.get(state_of(bank_row)))
    answer = client.post(state_of(bank_row), {"do": "reset"})
    assert (answer.status_code, answer["Location"]) == (302, state_of(bank_row))
    assert get_surroundings().breakers.look("bank").phase is Phase.CLOSED
    assert LogEntry.objects.get().get_change_message() == "Breaker reset"


@pytest.mark.parametrize("group", [rights.VIEWER, rights.EDITOR, rights.OPERATOR])
@pytest.mark.parametrize("do", ["test", "reset"])
def test_testing_is_a_right(
    group: str, do: str, bank_row: Connection, partner: FakePartner
) -> None:
    open_breaker("bank")
    client = staff(group)
    assert client.get(state_of(bank_row)).status_code == 200
    assert client.post(state_of(bank_row), {"do": do}).status_code == 403
    assert get_surroundings().breakers.look("bank").phase is Phase.OPEN
    assert LogEntry.objects.count() == 0


def test_there_is_nothing_else_to_do(bank_row: Connection) -> None:
    assert staff(rights.PUBLISHER).post(state_of(bank_row), {"do": "x"}).status_code == 404


def test_users_are_drafts_and_live_versions(bank_row: Connection, partner: FakePartner) -> None:
    named = server_step(0, config={"connection": "bank"})
    by_origin = server_step(1, triggerEndpoint=f"{partner.url}/x", config={"connection": "bank"})
    live = published(flow(named, by_origin, form(2)) | {"name": "A live one"})
    final = {"endpoint": f"{partner.url}/y"}
    draft, _ = import_document(flow(form(0), finalApi=final) | {"name": "B draft"})
    import_document(flow(server_step(0)) | {"name": "C another partner"})
    found = [(one.workflow, one.version, one.calls) for one in uses_of(bank_row)]
    assert found == [
        ("A live one", 1, ("Call 0", "Call 1")),
        ("A live one", None, ("Call 0", "Call 1")),
        ("B draft", None, ("Completion",)),
    ]
    shown = told(staff(rights.VIEWER).get(state_of(bank_row)))
    assert str(draft.pk) in shown
    assert live.workflow_id in shown


def test_users_are_also_what_asks_and_undoes_there(
    bank_row: Connection, partner: FakePartner
) -> None:
    elsewhere = {"triggerEndpoint": "https://other.example/pay"}
    asks = server_step(0, **elsewhere, config={"status": {"endpoint": f"{partner.url}/was-it"}})
    undoes = server_step(1, **elsewhere, config={"compensation": {"endpoint": f"{partner.url}/no"}})
    both = {"connection": "bank", "compensation": {"endpoint": "/no"}}
    import_document(flow(asks, undoes, server_step(2, triggerEndpoint="/pay", config=both)))
    assert [one.calls for one in uses_of(bank_row)] == [
        ("Call 0 (its status)", "Call 1 (undoing it)", "Call 2")
    ]


def test_who_tested_and_reset_is_shown(bank_row: Connection, partner: FakePartner) -> None:
    client = staff(rights.PUBLISHER)
    for do in ("test", "reset"):
        client.post(state_of(bank_row), {"do": do})
    deeds = staff(rights.VIEWER).get(state_of(bank_row)).context["deeds"]
    told = [(deed.user.username, deed.change_message) for deed in deeds]
    assert told == [("publisher", "Breaker reset"), ("publisher", "Tested: answered 404")]


def test_page_takes_few_queries(bank_row: Connection) -> None:
    for number in range(20):
        import_document(flow(server_step(0)) | {"name": f"Flow {number}"})
    client = staff(rights.VIEWER)
    client.get(state_of(bank_row))
    with CaptureQueriesContext(database) as captured:
        client.get(state_of(bank_row))
    assert len(captured) <= 12


def test_reset_of_a_closed_breaker_changes_nothing() -> None:
    closed = Breaker(generation=3)
    assert reset(closed) is closed
    assert reset(Breaker(generation=3, failures=2)) == Breaker(generation=4)
    opened = Breaker(generation=3, failures=5, open_until_ms=9.0, probe="p")
    assert reset(opened) == Breaker(generation=4)
