"""Cancelling: once, with its reason, and never under a call that is talking to a partner."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from config.jsonvalues import JsonObject
from executions.errors import (
    ExecutionBusy,
    ExecutionEnded,
    ExecutionNotFound,
    InputRefused,
    SessionUnavailable,
)
from executions.models import WorkflowExecution
from executions.session_store import get_session_store
from executions.tests.evidence import nothing_happens
from executions.tests.phone import Phone, flow, form, published, server_step
from sandbox.testing import FakePartner

pytestmark = pytest.mark.django_db

SEND = "/api/transactions/transfer"
TRANSFER: JsonObject = {"amount": 10, "recipientAccount": "9876543210"}


@pytest.fixture
def phone(partner: FakePartner) -> Phone:
    return Phone(published(flow(form(0), server_step(1))))


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("reason", [None, "", "changed my mind", "ж" * 1000])
def test_a_cancellation_is_a_record(phone: Phone, steps: int, reason: str | None) -> None:
    for index in range(steps):
        phone.step(index, TRANSFER)
    row = phone.cancel(reason)
    assert (row.status, row.cancel_reason) == ("CANCELLED", reason or "")
    assert row.completed_at is not None
    assert (row.error_code, row.result, row.lease_holder) == ("", None, None)
    assert not phone.has_session
    last = phone.runs[-1]
    assert (last.kind, last.status, last.sequence) == ("CANCELLATION", "SUCCEEDED", row.sequence)
    assert len(phone.runs) == steps + 1


def test_cancelling_again_changes_nothing(phone: Phone, partner: FakePartner) -> None:
    phone.cancel("first", key="k")
    with nothing_happens(partner):
        for arguments in ((), ("second",), ("first", "k"), ("second", "l")):
            assert phone.cancel(*arguments).cancel_reason == "first"


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("r" * 1001, "A reason has at most 1000 characters."),
        ("a\x00", "The reason cannot be stored: /: NUL characters cannot be stored"),
        ("a\ud800", "The reason cannot be stored: /: lone surrogates cannot be stored"),
    ],
)
def test_a_reason_can_be_stored(phone: Phone, reason: str, message: str) -> None:
    with nothing_happens(), pytest.raises(InputRefused) as refused:
        phone.cancel(reason)
    assert refused.value.message == message


def test_a_stranger_cancels_nothing(phone: Phone) -> None:
    phone.user_id = "bob"
    with nothing_happens(), pytest.raises(ExecutionNotFound):
        phone.cancel()


def test_during_a_call_it_is_busy(phone: Phone) -> None:
    WorkflowExecution.objects.update(
        lease_holder=uuid4(), lease_until=timezone.now() + timedelta(seconds=60)
    )
    with nothing_happens(), pytest.raises(ExecutionBusy) as refused:
        phone.cancel()
    assert (refused.value.code, refused.value.retryable) == ("EXECUTION_BUSY", True)


def test_a_dead_call_stops_nobody(phone: Phone) -> None:
    WorkflowExecution.objects.update(
        lease_holder=uuid4(), lease_until=timezone.now() - timedelta(seconds=1)
    )
    assert phone.cancel().status == "CANCELLED"


def failed(phone: Phone, partner: FakePartner) -> None:
    phone.compiled = published(flow(form(0), finalApi={"endpoint": "/api/payments/submit"}))
    phone.execution_id = phone.start().id
    partner.fault("/api/payments/submit", "status", status=422)
    phone.step(0, {})
    assert phone.complete().error_code == "SUBMISSION_FAILED"


def completed(phone: Phone, partner: FakePartner) -> None:
    phone.step(0, TRANSFER)
    phone.step(1)
    assert phone.complete().success


def expired(phone: Phone, partner: FakePartner) -> None:
    get_session_store().clear_session(phone.row.session_id)
    phone.step(0, {})


@pytest.mark.parametrize(
    ("end", "status"), [(completed, "COMPLETED"), (failed, "FAILED"), (expired, "FAILED")]
)
def test_what_has_ended_is_not_cancelled(
    phone: Phone, partner: FakePartner, end: Any, status: str
) -> None:
    end(phone, partner)
    with nothing_happens(partner), pytest.raises(ExecutionEnded):
        phone.cancel()
    assert phone.row.status == status


def test_after_the_cancellation_nothing_goes_on(phone: Phone, partner: FakePartner) -> None:
    phone.step(0, TRANSFER)
    phone.cancel()
    with nothing_happens(partner):
        assert phone.step(1).error_code == "EXECUTION_ENDED"
        assert phone.complete().error_code == "EXECUTION_ENDED"


def test_a_payment_in_doubt_may_be_left(phone: Phone, partner: FakePartner) -> None:
    partner.fault(SEND, "cut_after")
    phone.step(0, TRANSFER)
    phone.step(1)
    assert phone.cancel().status == "CANCELLED"
    assert [run.status for run in phone.runs] == ["SUCCEEDED", "UNKNOWN", "SUCCEEDED"]


def test_without_the_session_store_nothing_is_cancelled(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: Any, **kwargs: Any) -> None:
        raise SessionUnavailable

    store = type(get_session_store())
    with nothing_happens(), monkeypatch.context() as patched:
        patched.setattr(store, "get_session_ttl", away)
        with pytest.raises(SessionUnavailable):
            phone.cancel()
