"""No page asks the database more than a dozen questions, of a process that has just begun either."""

from collections.abc import Iterable, Iterator
from datetime import timedelta

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.handlers.wsgi import WSGIRequest
from django.db import connection
from django.test import Client, RequestFactory
from django.test.client import ClientHandler
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver
from django.utils import timezone

from browser.more_pages import SUPERUSER, every_page, who_sees_most
from browser.pages import pages_of
from browser.world import World, make_world
from config import rights
from executions.definitions import forget_facts
from executions.enums import AttemptOutcome, OperatorActionKind, RunStatus
from executions.models import (
    OperatorAction,
    SessionField,
    SessionRecord,
    StepAttempt,
    TriggerTrial,
)
from executions.tests.past import COMPLETED, FAILED, IN_PROGRESS, call, execution
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow
from workflows.connections import forget_connections, set_connection
from workflows.enums import StepExecutionMode, StepType
from workflows.models import GoldenRun, Workflow, WorkflowStep, WorkflowVersion
from workflows.versions import compiled_version, forget_everything

pytestmark = pytest.mark.django_db

MAX_QUERIES = 12
MANY = 30
"""Of everything that is listed there are so many: with a question for each there were too many."""

NO_PAGES = {"login", "logout", "jsi18n", "autocomplete", "view_on_site", "search"}
"""Addresses that show nobody a page: for who has not signed in, scripts', redirects, not offered."""


@pytest.mark.timeout(300)
def test_no_page_asks_much(partner: FakePartner) -> None:
    world = make_world(partner, days=2)
    make_many(world, partner)
    pages = every_page(world)
    assert names_of_pages() - {page.url_name for page in pages} == set()
    main = {page.name for page in pages_of(world)}
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for role in (SUPERUSER, *rights.GROUPS):
        browser, handler = signed_in(role), ClientHandler(enforce_csrf_checks=False)
        for page in pages:
            if role == who_sees_most(page) or (page.name in main and role != SUPERUSER):
                request = (browser.post if page.posted else browser.get)(page.address, page.posted)
                found[role, page.name] = answered(handler, request)
    assert {key: view for key, view in found.items() if view[1] > MAX_QUERIES} == {}
    assert {key: view for key, view in found.items() if view[0] not in (200, 403)} == {}


def answered(handler: ClientHandler, request: WSGIRequest) -> tuple[int, int]:
    """The status of the answer, and how many queries it took a process that has just begun.

    Not by a Client: that keeps a copy of every context, which takes as long as the page.
    """
    begin_anew()
    with CaptureQueriesContext(connection) as captured:
        answer = handler(request.environ)
    return answer.status_code, len(captured)


def begin_anew() -> None:
    """Know nothing, as a process that has just begun."""
    ContentType.objects.clear_cache()
    forget_everything()
    forget_facts()
    forget_connections()


def signed_in(role: str) -> RequestFactory:
    """Requests of somebody of the group."""
    user = User.objects.create_user(role.lower(), is_staff=True, is_superuser=role == SUPERUSER)
    if role != SUPERUSER:
        user.groups.add(Group.objects.get(name=role))
    client, browser = Client(), RequestFactory()
    client.force_login(user)
    browser.cookies = client.cookies
    return browser


def names_of_pages() -> set[str]:
    """Every address that the site answers at."""
    return set(_names(admin.site.get_urls())) - NO_PAGES


def _names(patterns: Iterable[URLPattern | URLResolver]) -> Iterator[str]:
    for one in patterns:
        if isinstance(one, URLResolver):
            yield from _names(one.url_patterns)
        elif one.name:
            yield one.name


# --- many of everything ---------------------------------------------------------------------------


def make_many(world: World, partner: FakePartner) -> None:
    """Rows on every list, and many beneath the rows that have pages."""
    for number in range(MANY):
        set_connection(name=f"bank-{number}", base_url=partner.url, allow_private=True)
        User.objects.create_user(f"somebody-{number}").groups.add(Group.objects.earliest("pk"))
        Group.objects.create(name=f"shift-{number}").permissions.set(Permission.objects.all()[:20])
    _definitions(world)
    for version in WorkflowVersion.objects.all():
        _executions(compiled_version(version.pk))
    _records(world)


def _definitions(world: World) -> None:
    """Many versions, steps and golden runs of one workflow, and many workflows beside it."""
    GoldenRun.objects.bulk_create(
        GoldenRun(workflow=world.transfer, name=f"golden-{number}", context={})
        for number in range(MANY)
    )
    WorkflowStep.objects.bulk_create(
        WorkflowStep(
            workflow=world.transfer,
            order=100 + number,
            type=StepType.INFO,
            label=f"Page {number}",
            execution_mode=StepExecutionMode.CLIENT_ONLY,
        )
        for number in range(MANY)
    )
    for number in range(MANY):
        _version(world.version, world.transfer, world.version.number + 1 + number)
        row = Workflow.objects.create(name=f"Flow {number}", config=world.transfer.config)
        row.live_version = _version(world.version, row, 1)
        row.save(update_fields=["live_version"])


def _version(like: WorkflowVersion, row: Workflow, number: int) -> WorkflowVersion:
    return WorkflowVersion.objects.create(
        workflow=row,
        number=number,
        name=row.name,
        document=like.document,
        step_ids=like.step_ids,
        content_hash=like.content_hash,
        published_at=timezone.now(),
    )


def _executions(compiled: CompiledWorkflow) -> None:
    """One that succeeded, one that was not submitted, and one that is under way."""
    for status, code in ((COMPLETED, ""), (FAILED, "SUBMISSION_FAILED"), (IN_PROGRESS, "")):
        started = timezone.now() - timedelta(hours=2)
        row = execution(compiled, started=started, status=status, code=code)
        call(row, index=0, status=RunStatus.FAILED, code="TRIGGER_TIMEOUT")


def _records(world: World) -> None:
    """What happened to one execution again and again, and what staff did."""
    run = world.failed.runs.latest("sequence")
    StepAttempt.objects.bulk_create(
        StepAttempt(
            run=run,
            number=100 + number,
            outcome=AttemptOutcome.TIMED_OUT,
            started_at=run.started_at,
            duration_ms=5,
        )
        for number in range(MANY)
    )
    for number in range(MANY):
        call(world.failed, index=number % 4, status=RunStatus.UNKNOWN, sequence=100 + number)
        OperatorAction.objects.create(
            execution_id=world.failed.pk,
            action=OperatorActionKind.CANCEL,
            by="mara",
            reason="because",
            at=run.started_at,
        )
    for number in range(MANY):  # as the database's store keeps them
        session = SessionRecord.objects.create(
            session_id=f"ws_{number}", sequence=1, expires_at=timezone.now()
        )
        SessionField.objects.create(session=session, name="s", sealed=b"x")
    TriggerTrial.objects.bulk_create(
        TriggerTrial(
            at=run.started_at,
            by="mara",
            workflow_id=world.transfer.pk,
            what="Validate",
            connection="bank",
            origin="https://bank.example",
            is_sandbox=True,
        )
        for _ in range(MANY)
    )
