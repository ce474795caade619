"""What was done is undone when an execution is cancelled, expires, or fails for good: last first."""

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from config.jsonvalues import JsonObject
from executions import callbacks, sweeping, worker
from executions.enums import ErrorCode, RunKind, RunStatus, WorkflowExecutionStatus
from executions.models import StepRun, WorkflowExecution
from executions.session_store import get_session_store
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.test_async_steps import async_step, work_off_all
from sandbox.testing import FakePartner

pytestmark = pytest.mark.django_db

TRANSFER, REVERSE = "/api/transactions/transfer", "/api/transactions/reverse"
HOLD, BOOK, UNDO_HOLD, UNDO_BOOK = "/api/hold", "/api/book", "/api/hold/undo", "/api/book/undo"


def undoable(order: int, path: str, **changes: Any) -> JsonObject:
    undo = {"endpoint": f"{path}/undo", "requestMapping": {"ref": "result.ref"}}
    config = {"compensation": undo, **changes.pop("config", {})}
    return server_step(order, triggerEndpoint=path, config=config, **changes)


@pytest.fixture
def holding(partner: FakePartner) -> FakePartner:
    for path, ref in ((HOLD, "h1"), (BOOK, "b1")):
        partner.answer(path, {"ref": ref})
        partner.answer(f"{path}/undo", {"undone": True})
    partner.fault("/api/submit", "answer", status=400, body={"message": "closed"}, times=None)
    return partner


@pytest.fixture
def alice(holding: FakePartner) -> Phone:
    """Alice, who has held and booked, and has to complete."""
    document = flow(
        undoable(0, HOLD),
        undoable(1, BOOK),
        apiMapping={"hold": "call0.ref"},
        finalApi={"endpoint": "/api/submit"},
    )
    phone = Phone(published(document))
    assert phone.step(0).success
    assert phone.step(1).success
    return phone


def undone(phone: Phone) -> list[StepRun]:
    return [run for run in phone.runs if run.kind == RunKind.COMPENSATION]


def work_off_everything() -> None:
    while work_off_all():
        pass


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """The thread that does it, with its database connection closed at the end."""

    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def paths(partner: FakePartner) -> list[str]:
    return [call.path for call in partner.calls()]


def test_a_cancelled_execution_is_undone_in_reverse_order(
    alice: Phone, holding: FakePartner
) -> None:
    alice.cancel()
    assert [run.status for run in undone(alice)] == [RunStatus.QUEUED] * 2
    work_off_everything()
    assert paths(holding) == [HOLD, BOOK, UNDO_BOOK, UNDO_HOLD]
    assert [run.status for run in undone(alice)] == [RunStatus.SUCCEEDED] * 2
    assert [call.body for call in holding.calls()][2:] == [b'{"ref":"b1"}', b'{"ref":"h1"}']
    assert len({call.key for call in holding.calls()}) == 4
    assert not StepRun.objects.filter(sealed_compensation__isnull=False).exists()
    assert not StepRun.objects.filter(sealed_request__isnull=False).exists()


def test_only_the_last_undone_one_may_be_taken(alice: Phone) -> None:
    alice.cancel()
    booked, held = undone(alice)
    assert not worker.work_off(held.id)
    assert worker.work_off(booked.id)
    assert worker.work_off(held.id)


def test_a_completed_execution_is_not_undone(holding: FakePartner) -> None:
    phone = Phone(published(flow(undoable(0, HOLD))))
    phone.step(0)
    assert phone.complete().success
    assert undone(phone) == []
    assert phone.runs[0].sealed_compensation is None


def test_an_expired_execution_is_undone(alice: Phone, holding: FakePartner) -> None:
    get_session_store().clear_session(alice.row.session_id)
    WorkflowExecution.objects.update(expires_at=alice.row.started_at)
    assert [swept.count for swept in sweeping.expire_overdue()] == [1]
    work_off_everything()
    assert paths(holding)[2:] == [UNDO_BOOK, UNDO_HOLD]


def test_a_refused_submission_is_final_when_nobody_repeats_it_in_time(
    alice: Phone, holding: FakePartner
) -> None:
    assert alice.complete().error_code == ErrorCode.SUBMISSION_FAILED
    assert alice.row.undo_at is not None
    assert list(sweeping.undo_final_failures()) == []
    WorkflowExecution.objects.update(undo_at=alice.row.started_at)
    assert [swept.outcome for swept in sweeping.undo_final_failures()] == ["DONE"]
    work_off_everything()
    assert paths(holding)[3:] == [UNDO_BOOK, UNDO_HOLD]
    again = alice.complete()
    assert again.error_code == ErrorCode.SUBMISSION_FAILED
    assert not again.retryable
    assert len(paths(holding)) == 5


def test_an_unknown_submission_is_never_undone_by_itself(holding: FakePartner) -> None:
    holding.fault("/api/pay", "status", status=500, times=None)
    document = flow(undoable(0, HOLD), finalApi={"endpoint": "/api/pay"}, apiMapping={})
    phone = Phone(published(document))
    phone.step(0)
    phone.complete()
    assert phone.row.status == WorkflowExecutionStatus.FAILED
    assert phone.row.undo_at is None


def test_a_failing_compensation_stops_those_before_it_and_is_shown(
    alice: Phone, holding: FakePartner
) -> None:
    holding.reset()
    holding.fault(UNDO_BOOK, "answer", status=409, body={"message": "settled"}, times=None)
    alice.cancel()
    work_off_everything()
    booked, held = undone(alice)
    assert (booked.status, booked.needs_attention) == (RunStatus.REJECTED, True)
    assert booked.sealed_request is not None
    assert held.status == RunStatus.QUEUED
    assert paths(holding) == [UNDO_BOOK]


def test_compensations_are_retried_under_their_key(alice: Phone, holding: FakePartner) -> None:
    holding.reset()
    holding.fault(UNDO_BOOK, "status", status=503)
    holding.answer(f"{BOOK}/undo", {"undone": True})
    holding.answer(f"{HOLD}/undo", {"undone": True})
    alice.cancel()
    work_off_all()
    assert undone(alice)[0].status == RunStatus.QUEUED
    StepRun.objects.filter(finished_at__isnull=True).update(due_at=Now())
    work_off_everything()
    assert [run.status for run in undone(alice)] == [RunStatus.SUCCEEDED] * 2
    first, second, _ = holding.calls()
    assert first.key == second.key


@pytest.mark.django_db(transaction=True)
def test_a_success_that_comes_after_the_end_is_undone_too(holding: FakePartner) -> None:
    mapping = {"amount": "`5`", "recipientAccount": "'9876543210'"}
    undo = {"endpoint": REVERSE, "requestMapping": {"transferId": "result.transferId"}}
    config = {"compensation": undo, "requestMapping": mapping}
    phone = Phone(published(flow(async_step(0, triggerEndpoint=TRANSFER, config=config))))
    phone.step(0)
    (claim,) = worker.claim_due(1)
    with holding.hold(TRANSFER):
        working = in_thread(lambda: worker.work(claim))
        holding.wait_for_calls(1)
        assert phone.cancel().status == WorkflowExecutionStatus.CANCELLED
    working.join()
    assert phone.runs[0].status == RunStatus.SUCCEEDED
    assert [run.status for run in undone(phone)] == [RunStatus.QUEUED]
    work_off_everything()
    assert paths(holding) == [TRANSFER, REVERSE]
    assert [run.status for run in undone(phone)] == [RunStatus.SUCCEEDED]


def test_what_may_have_been_done_is_shown_to_operators(holding: FakePartner) -> None:
    holding.fault("/api/doubt", "status", status=500, times=None)
    phone = Phone(published(flow(undoable(0, HOLD), undoable(1, "/api/doubt"))))
    phone.step(0)
    phone.step(1)
    phone.cancel()
    held, doubted, *_ = phone.runs
    assert (held.needs_attention, doubted.needs_attention) == (False, True)
    assert [run.compensates_id for run in undone(phone)] == [held.id]


def test_each_visit_of_a_step_is_undone(holding: FakePartner) -> None:
    """Somebody went back and called it again: the partner has acted twice, each time under its key."""
    hold = undoable(1, HOLD, config={"reversible": True})
    phone = Phone(published(flow(form(0), hold, form(2))))
    for amount in (1, 2):
        assert phone.step(0, {"amount": amount}).success
        assert phone.step(1).success
    phone.cancel()
    work_off_everything()
    assert [run.status for run in undone(phone)] == [RunStatus.SUCCEEDED] * 2
    assert paths(holding) == [HOLD, HOLD, UNDO_HOLD, UNDO_HOLD]
    assert len({call.key for call in holding.calls()}) == 4


# --- late answers of what nobody knew -------------------------------------------------------------


def unheard(holding: FakePartner, **changes: Any) -> Phone:
    """The partner has held, and its answer was lost on the way."""
    holding.reset()
    holding.fault(HOLD, "cut_after")
    holding.answer(UNDO_HOLD, {"undone": True})
    holding.fault("/api/submit", "answer", status=400, body={"message": "closed"}, times=None)
    config = {"reversible": True, "optional": True}
    hold = undoable(0, HOLD, executionMode="SERVER_ASYNC", config=config, **changes)
    phone = Phone(published(flow(hold, finalApi={"endpoint": "/api/submit"}, apiMapping={})))
    phone.step(0)
    work_off_all()
    return phone


def call_back(holding: FakePartner) -> None:
    """The partner posts what it did."""
    url = holding.calls(HOLD)[-1].headers["x-callback-url"]
    token = urlsplit(url).path.rpartition("/")[2]
    callbacks.receive(token, body=b'{"ref": "h1"}', signature=None, now=timezone.now())


def test_a_late_answer_to_what_was_called_off_in_doubt_is_undone(holding: FakePartner) -> None:
    phone = unheard(holding, retryConfig={"maxRetries": 1, "initialDelayMs": 60_000})
    assert phone.runs[0].status == RunStatus.QUEUED
    phone.cancel()
    assert (phone.runs[0].status, phone.runs[0].needs_attention) == (RunStatus.UNKNOWN, True)
    call_back(holding)
    assert (phone.runs[0].status, phone.runs[0].needs_attention) == (RunStatus.SUCCEEDED, False)
    work_off_everything()
    assert paths(holding) == [HOLD, UNDO_HOLD]


def test_a_late_answer_after_a_failure_became_final_is_undone(holding: FakePartner) -> None:
    phone = unheard(holding)
    assert phone.runs[0].status == RunStatus.UNKNOWN
    phone.complete()
    WorkflowExecution.objects.update(undo_at=phone.row.started_at)
    assert [swept.outcome for swept in sweeping.undo_final_failures()] == ["DONE"]
    assert undone(phone) == []
    call_back(holding)
    work_off_everything()
    assert paths(holding) == [HOLD, "/api/submit", UNDO_HOLD]


def test_a_late_answer_before_a_failure_is_final_is_undone_then(holding: FakePartner) -> None:
    phone = unheard(holding)
    phone.complete()
    call_back(holding)
    assert undone(phone) == []
    WorkflowExecution.objects.update(undo_at=phone.row.started_at)
    assert [swept.outcome for swept in sweeping.undo_final_failures()] == ["DONE"]
    assert [run.status for run in undone(phone)] == [RunStatus.QUEUED]
