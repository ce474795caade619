"""A session past its time ends its execution, whoever looks first, and nobody else's."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone
from pytest_django import Settings
from structlog.testing import capture_logs

from executions.enums import ErrorCode, WorkflowExecutionStatus
from executions.errors import ExecutionEnded, ExecutionNotFound
from executions.models import WorkflowExecution
from executions.reading import list_executions, read_execution
from executions.session_store import get_session_store
from executions.tests.evidence import nothing_happens
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.test_execute_step import refused, told
from sandbox.testing import FakePartner

pytestmark = pytest.mark.django_db

TTL = 120
EXPIRED = refused("SESSION_EXPIRED", "The session has expired; start again.")


@pytest.fixture
def phone(partner: FakePartner) -> Phone:
    """Past its first step."""
    steps = (form(0), form(1), server_step(2, type="INFO", triggerEndpoint="/api/anything/x"))
    phone = Phone(published(flow(*steps, sessionTtlSeconds=TTL)))
    phone.step(0, {"a": 1}, key="first")
    return phone


def let_expire(phone: Phone) -> None:
    """The time is over: the store has nothing any more, and the row's end has passed."""
    get_session_store().clear_session(phone.row.session_id)
    past = timezone.now() - timedelta(seconds=1)
    WorkflowExecution.objects.filter(pk=phone.execution_id).update(expires_at=past)


def step(phone: Phone) -> None:
    assert told(phone.step(1, {"b": 1})) == EXPIRED


def complete(phone: Phone) -> None:
    assert told(phone.complete()) == EXPIRED


def cancel(phone: Phone) -> None:
    with pytest.raises(ExecutionEnded):
        phone.cancel()


def read(phone: Phone) -> None:
    view = read_execution(phone.execution_id, user_id="alice", sees_all=False)
    assert (view.row.status, view.row.error_code, view.context) == (
        "FAILED",
        "SESSION_EXPIRED",
        None,
    )
    assert view.current_step is None


def read_as_staff(phone: Phone) -> None:
    view = read_execution(phone.execution_id, user_id="boss", sees_all=True)
    assert view.row.status == "FAILED"


def list_them(phone: Phone) -> None:
    failed = list_executions(
        "alice",
        viewer="alice",
        sees_all=False,
        status=WorkflowExecutionStatus.FAILED,
        limit=10,
    )
    assert [view.row.id for view in failed] == [phone.execution_id]


CALLS = [step, complete, cancel, read, read_as_staff, list_them]


@pytest.mark.parametrize("look", CALLS)
def test_whoever_looks_first_ends_it(
    phone: Phone, partner: FakePartner, look: Callable[[Phone], None]
) -> None:
    let_expire(phone)
    look(phone)
    row = phone.row
    assert (row.status, row.error_code) == ("FAILED", ErrorCode.SESSION_EXPIRED)
    assert row.error == "The session has expired; start again."
    assert row.completed_at is not None
    with nothing_happens(partner):
        for again in CALLS:
            again(phone)


def test_what_was_recorded_is_answered_still(phone: Phone) -> None:
    let_expire(phone)
    step(phone)
    with nothing_happens():
        assert phone.step(0, {"a": 1}, key="first").success


def test_a_strangers_look_ends_nothing(phone: Phone) -> None:
    let_expire(phone)
    with nothing_happens():
        with pytest.raises(ExecutionNotFound):
            phone.step(1, {}, user_id="bob")
        with pytest.raises(ExecutionNotFound):
            read_execution(phone.execution_id, user_id="bob", sees_all=False)
        assert list_executions("bob", viewer="bob", sees_all=False, status=None, limit=10) == []


def test_a_call_at_work_is_not_ended_from_under_itself(phone: Phone) -> None:
    let_expire(phone)
    WorkflowExecution.objects.update(
        lease_holder=uuid4(), lease_until=timezone.now() + timedelta(seconds=60)
    )
    with nothing_happens():
        assert phone.step(1, {}).error_code == "EXECUTION_BUSY"
        assert list(WorkflowExecution.objects.expired()) == []


def test_of_many_only_the_expired_one_ends(phone: Phone) -> None:
    other = Phone(phone.compiled)
    let_expire(phone)
    step(phone)
    assert other.row.status == "PENDING"
    assert other.step(0, {}).success


def ttl_of(phone: Phone) -> int | None:
    return get_session_store().get_session_ttl(phone.row.session_id)


@pytest.mark.parametrize(
    ("index", "value", "is_renewed"),
    [
        # accepted, with and without a partner
        (1, {"b": 1}, True),
        (2, None, True),
        # refused
        (1, None, False),
        (0, None, False),
    ],
)
def test_every_accepted_call_renews_the_session(
    phone: Phone, index: int, value: Any, is_renewed: bool
) -> None:
    if index == 2:
        phone.step(1, {})
    soon = timezone.now() + timedelta(seconds=10)
    get_session_store().extend_session(phone.row.session_id, ttl_seconds=10)
    WorkflowExecution.objects.update(expires_at=soon)
    assert phone.step(index, value).success is is_renewed
    assert ttl_of(phone) == (TTL if is_renewed else 10)
    left = (phone.row.expires_at - timezone.now()).total_seconds()
    assert round(left) in ((TTL, TTL - 1) if is_renewed else (10, 9))


@pytest.mark.parametrize("index", [1, 2])
def test_no_call_renews_it_past_a_day_after_the_start(phone: Phone, index: int) -> None:
    if index == 2:
        phone.step(1, {})
    store, row = get_session_store(), phone.row
    snapshot = store.get_context(row.session_id)
    assert snapshot is not None
    begun = timezone.now() - timedelta(hours=24) + timedelta(seconds=30)
    store.set_context(
        row.session_id,
        context=snapshot.context,
        state={**snapshot.state, "started": begun.timestamp()},
        sequence=snapshot.sequence,
        ttl_seconds=TTL,
    )
    WorkflowExecution.objects.update(started_at=begun)
    assert phone.step(index, {}).success
    assert ttl_of(phone) in (29, 30)
    assert round((phone.row.expires_at - begun).total_seconds()) == 86_400


def test_an_unreadable_session_is_not_an_expired_one(phone: Phone, settings: Settings) -> None:
    keys = settings.FIELD_ENCRYPTION_KEYS
    with nothing_happens(), capture_logs() as logs:
        settings.FIELD_ENCRYPTION_KEYS = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]
        answer = phone.step(1, {})
        assert (answer.error_code, answer.retryable) == ("SESSION_UNAVAILABLE", True)
        assert phone.complete().error_code == "SESSION_UNAVAILABLE"
        settings.FIELD_ENCRYPTION_KEYS = keys
    assert {(line["event"], line["reason"]) for line in logs} == {
        ("session is unreadable", "unknown key")
    }
    assert phone.step(1, {}).success


def test_an_ended_execution_does_not_expire(phone: Phone) -> None:
    phone.cancel("why")
    past = timezone.now() - timedelta(hours=1)
    WorkflowExecution.objects.update(expires_at=past)
    with nothing_happens():
        assert phone.step(1, {}).error_code == "EXECUTION_ENDED"
        assert list(WorkflowExecution.objects.expired()) == []
