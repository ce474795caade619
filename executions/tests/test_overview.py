"""The overview on the index: figures for who may see executions, and where they lead."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from config import rights
from executions.breaking import Ending
from executions.enums import RunStatus
from executions.rollups import roll_up
from executions.surroundings import get_surroundings
from executions.tests.past import CANCELLED, FAILED, call, execution
from executions.tests.phone import flow, form, published, server_step
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow

pytestmark = pytest.mark.django_db

INDEX = reverse("admin:index")
SCRIPT = "<script>alert('stored')</script>"


def staff(group: str = "") -> Client:
    user = User.objects.create_user("somebody", is_staff=True)
    if group:
        user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    return published(flow(form(0, title=SCRIPT), server_step(1, label=SCRIPT)) | {"name": SCRIPT})


@pytest.fixture
def past(compiled: CompiledWorkflow) -> CompiledWorkflow:
    """Three days ago: two completed, one cancelled at the call, one whose submission is in doubt."""
    started = timezone.now() - timedelta(days=3)
    for _ in range(2):
        row = execution(compiled, started=started, seconds=60)
        call(row)
        call(row, index=1)
    gone = execution(compiled, started=started, status=CANCELLED, position=1)
    call(gone)
    call(gone, index=1, status=RunStatus.FAILED, code="TRIGGER_TIMEOUT", connection="bank")
    doubtful = execution(
        compiled, started=started, status=FAILED, code="SUBMISSION_FAILED", position=2
    )
    call(doubtful, index=None, status=RunStatus.UNKNOWN, code="TRIGGER_UNAVAILABLE")
    for _ in roll_up(now=timezone.now()):
        pass
    return compiled


def overview(**wanted: Any) -> Any:
    return staff(rights.VIEWER).get(INDEX, wanted).context["overview"]


def test_figures_are_the_counted_ones(past: CompiledWorkflow) -> None:
    found = overview()
    total = found["total"]
    assert (total.started, total.completed, total.cancelled, total.failed) == (4, 2, 1, 1)
    assert found["success"] == "50.0 %"
    assert len(found["rows"]) == 30
    (flow_line,) = found["workflows"]
    assert (flow_line.started, flow_line.success) == (4, "50.0 %")
    assert flow_line.median_ms == pytest.approx(60_000, rel=0.05)


def test_funnel_tells_who_stopped_where_and_why(past: CompiledWorkflow) -> None:
    funnel = overview()["funnel"]
    lines = [(line.reached, line.passed, line.drops) for line in funnel.lines]
    assert lines == [
        (4, 4, ()),
        (4, 3, (("plain", "cancelled", 1),)),
        (3, 2, (("bad", "partner error", 1),)),
    ]
    (version,) = funnel.versions
    assert (version[0].text, version[1:]) == ("Version 1", (4, 2, "50.0 %"))


def test_what_needs_attention_leads_to_its_list(past: CompiledWorkflow) -> None:
    (trouble,) = overview()["troubles"]
    assert trouble.count == "1"
    assert trouble.url.endswith("?status=FAILED&code=SUBMISSION_FAILED")
    listed = Client()
    listed.force_login(User.objects.get())
    page = listed.get(trouble.url)
    assert [str(line.row.id) for line in page.context["lines"]] == [trouble.newest[0][0]]


def test_failing_steps_are_told(past: CompiledWorkflow) -> None:
    told = [(one.label, one.error_code, one.failures, one.calls) for one in overview()["failing"]]
    assert sorted(told) == [
        (SCRIPT, "TRIGGER_TIMEOUT", 1, 3),
        ("Completion", "TRIGGER_UNAVAILABLE", 1, 1),
    ]


def test_open_breaker_is_told(partner: FakePartner, db: None) -> None:
    breakers = get_surroundings().breakers
    for _ in range(5):
        breakers.end("default", breakers.ask("default", lasting_ms=100), Ending.FAILED)
    ((name, availability, words),) = overview()["breakers"]
    assert (name, availability, words.startswith("open, ")) == ("default", "BLOCKED", True)


@pytest.mark.parametrize(("asked", "days"), [("7", 7), ("90", 90), ("", 30), ("31", 30), ("x", 30)])
def test_period_is_one_of_three(asked: str, days: int, db: None) -> None:
    found = overview(days=asked)
    assert (found["days"], len(found["rows"])) == (days, days)


@pytest.mark.parametrize("wanted", [{"workflow": "x"}, {"version": "x"}, {"version": "99"}])
def test_what_is_not_there_is_the_first_one(wanted: dict[str, str], past: CompiledWorkflow) -> None:
    assert overview(**wanted)["funnel"].number == 1


def test_without_the_right_there_are_no_figures(past: CompiledWorkflow) -> None:
    answer = staff().get(INDEX)
    assert answer.status_code == 200
    assert "overview" not in answer.context
    assert "Figures are for who may see executions" in answer.content.decode()


def test_empty_house_says_so(db: None) -> None:
    page = staff(rights.VIEWER).get(INDEX).content.decode()
    assert "No executions in this period" in page
    assert "No failed calls" in page


def test_stored_text_stays_text(past: CompiledWorkflow) -> None:
    page = staff(rights.VIEWER).get(INDEX).content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_index_has_no_context_named_opts(db: None) -> None:
    assert "opts" not in staff(rights.VIEWER).get(INDEX).context
