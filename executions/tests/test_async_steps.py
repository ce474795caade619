"""SERVER_ASYNC: accepted at once, worked off by a worker, and the completion waits for it."""

from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.utils import timezone

from config.jsonvalues import JsonObject
from executions import callback_tokens, callbacks, executor, worker
from executions.enums import ErrorCode, RunStatus, WorkflowExecutionStatus
from executions.models import StepRun
from executions.reading import read_execution
from executions.tests.phone import BEFORE, Phone, flow, form, published, server_step
from sandbox.testing import FakePartner
from workflows.enums import StepState

pytestmark = pytest.mark.django_db

CHECK, TRANSFER = "/api/check", "/api/transactions/transfer"


def async_step(order: int = 0, **changes: Any) -> JsonObject:
    """A check that a worker makes; it may be called again."""
    config = {"reversible": True, **changes.pop("config", {})}
    endpoint = changes.pop("triggerEndpoint", CHECK)
    return server_step(
        order, executionMode="SERVER_ASYNC", triggerEndpoint=endpoint, config=config, **changes
    )


def work_off_all() -> int:
    """Everything that is due, one attempt each; how many."""
    claims = worker.claim_due(100)
    for claim in claims:
        worker.work(claim)
    return len(claims)


def states(phone: Phone) -> list[StepState]:
    view = read_execution(phone.execution_id, user_id=phone.user_id, sees_all=False)
    return [view.state_of(step) for step in view.compiled.steps]


@pytest.fixture
def checking(partner: FakePartner) -> FakePartner:
    partner.answer(CHECK, {"verified": True, "score": 7})
    return partner


def test_the_app_is_answered_before_anybody_calls(checking: FakePartner) -> None:
    phone = Phone(published(flow(async_step(0), form(1))))
    answer = phone.step(0)
    run = phone.runs[0]
    assert answer.success
    assert answer.should_proceed
    assert answer.result == {"runId": str(run.id), "status": "QUEUED"}
    assert run.status == RunStatus.QUEUED
    assert checking.calls() == []
    assert states(phone) == [StepState.PENDING, StepState.CURRENT]


def test_a_worker_brings_the_result_into_the_context(checking: FakePartner) -> None:
    phone = Phone(published(flow(async_step(0), form(1), apiMapping={"score": "call0.score"})))
    phone.step(0)
    assert work_off_all() == 1
    run = phone.runs[0]
    assert run.status == RunStatus.SUCCEEDED
    assert run.result == {"verified": True, "score": 7}
    assert run.lease_holder is None
    assert [attempt.number for attempt in run.attempts.all()] == [1]
    assert phone.step(1, {"a": 1}).success
    assert phone.context["call0"] == {"verified": True, "score": 7}
    answer = phone.complete()
    assert answer.result == {"score": 7}
    assert len(checking.calls(CHECK)) == 1


def test_the_completion_waits(checking: FakePartner) -> None:
    phone = Phone(published(flow(async_step(0), apiMapping={"score": "call0.score"})))
    phone.step(0)
    waiting = phone.complete()
    assert waiting.error_code == ErrorCode.STEPS_PENDING
    assert waiting.retryable
    work_off_all()
    assert phone.complete().result == {"score": 7}
    assert phone.row.status == WorkflowExecutionStatus.COMPLETED


def test_a_double_tap_is_one_run(checking: FakePartner) -> None:
    phone = Phone(published(flow(async_step(0), form(1))))
    first, second = phone.step(0), phone.step(0)
    assert first.result == second.result
    assert len(phone.runs) == 1


def test_a_failed_run_stops_what_follows_and_can_be_executed_again(partner: FakePartner) -> None:
    partner.fault(CHECK, "answer", status=400, body={"message": "no such person"})
    partner.answer(CHECK, {"verified": True})
    phone = Phone(published(flow(async_step(0), form(1), form(2))))
    phone.step(0)
    assert phone.step(1, {"a": 1}).success
    work_off_all()
    assert phone.runs[0].status == RunStatus.REJECTED
    assert states(phone) == [StepState.FAILED, StepState.PASSED, StepState.OPEN]
    refused = phone.step(2, {"b": 1})
    assert refused.error_code == ErrorCode.STEP_OUT_OF_ORDER
    assert phone.complete().error_code == ErrorCode.STEPS_INCOMPLETE
    again = phone.step(0)
    assert again.success
    assert again.standing is not None
    assert again.standing.progress.position == 2
    work_off_all()
    assert phone.step(2, {"b": 1}).success
    assert phone.context["form1"] == {"a": 1}
    assert phone.complete().success
    keys = {call.key for call in partner.calls(CHECK)}
    assert len(keys) == 2


def test_a_no_is_no(partner: FakePartner) -> None:
    partner.answer(CHECK, {"verified": False})
    phone = Phone(
        published(flow(async_step(0, config={"proceedWhen": "result.verified"}), form(1)))
    )
    phone.step(0)
    work_off_all()
    run = phone.runs[0]
    assert (run.status, run.error_code) == (RunStatus.REJECTED, ErrorCode.VALIDATION_REJECTED)
    assert states(phone) == [StepState.REJECTED, StepState.OPEN]
    assert phone.complete().error_code == ErrorCode.STEPS_INCOMPLETE


def test_retries_wait_without_a_worker_under_one_key(partner: FakePartner) -> None:
    partner.fault(CHECK, "status", status=503)
    partner.answer(CHECK, {"verified": True})
    retry = {"maxRetries": 2, "initialDelayMs": 60_000, "maxDelayMs": 60_000}
    phone = Phone(published(flow(async_step(0, retryConfig=retry))))
    phone.step(0)
    assert work_off_all() == 1
    run = phone.runs[0]
    assert run.status == RunStatus.QUEUED
    assert run.in_doubt
    assert run.due_at is not None
    assert (run.due_at - run.started_at).total_seconds() > 29
    assert work_off_all() == 0
    StepRun.objects.update(due_at=run.started_at)
    assert work_off_all() == 1
    run = phone.runs[0]
    assert run.status == RunStatus.SUCCEEDED
    assert [attempt.number for attempt in run.attempts.order_by("number")] == [1, 2]
    assert len({call.key for call in partner.calls(CHECK)}) == 1


def test_an_unknown_outcome_keeps_the_key_and_the_request(partner: FakePartner) -> None:
    partner.fault(TRANSFER, "status", status=500, effect="before")
    mapping = {"amount": "amount", "recipientAccount": "'9876543210'"}
    config = {"reversible": False, "requestMapping": mapping}
    document = flow(async_step(0, triggerEndpoint=TRANSFER, config=config))
    phone = Phone(published(document), initial={"amount": 5})
    phone.step(0)
    work_off_all()
    assert phone.runs[0].status == RunStatus.UNKNOWN
    assert states(phone) == [StepState.UNKNOWN]
    assert phone.step(0).success
    work_off_all()
    assert phone.runs[1].status == RunStatus.SUCCEEDED
    assert len(partner.effects(TRANSFER)) == 1
    first, second = partner.calls(TRANSFER)
    assert first.key == second.key
    assert first.body == second.body


def test_an_answer_between_reading_and_repeating_is_not_lost(
    partner: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partner posts just when the person repeats the call of which nobody knew: one call stands."""
    partner.fault(CHECK, "cut_after")
    phone = Phone(published(flow(async_step(0), form(1), apiMapping={"score": "call0.score"})))
    first = phone.step(0)
    work_off_all()
    assert phone.runs[0].status == RunStatus.UNKNOWN
    token = urlsplit(partner.calls(CHECK)[0].headers["x-callback-url"]).path.rpartition("/")[2]
    new_token = callback_tokens.new_token

    def while_it_is_composed() -> callback_tokens.CallbackToken:
        monkeypatch.setattr(callback_tokens, "new_token", new_token)
        body = b'{"score": 9}'
        callbacks.receive(token, body=body, signature=None, now=timezone.now())
        return new_token()

    monkeypatch.setattr(worker, "work_off", lambda _run_id: False)
    monkeypatch.setattr(callback_tokens, "new_token", while_it_is_composed)
    assert phone.step(0).result == first.result
    work_off_all()
    assert [run.status for run in phone.runs] == [RunStatus.SUCCEEDED]
    assert phone.step(1, {}).success
    assert phone.complete().result == {"score": 9}
    assert len(partner.calls(CHECK)) == 1


def test_another_input_replaces_a_queued_before_step(checking: FakePartner) -> None:
    phone = Phone(published(flow(async_step(0, triggerTiming="BOTH", type="FORM"), form(1))))
    for number in (1, 2, 2):
        assert phone.step(0, {"number": number}, BEFORE).success
    assert [(run.status, run.visit) for run in phone.runs] == [("CANCELLED", 0), ("QUEUED", 1)]
    work_off_all()
    (call,) = checking.calls(CHECK)
    assert isinstance(call.json, dict)
    assert call.json["input"] == {"number": 2}
    assert phone.step(0, {"a": 1}).success


def test_going_back_calls_off_what_no_worker_has_begun(checking: FakePartner) -> None:
    phone = Phone(published(flow(form(0), async_step(1), form(2))))
    phone.step(0, {"a": 1})
    phone.step(1)
    assert phone.step(0, {"a": 2}).success
    assert phone.runs[1].status == RunStatus.CANCELLED
    assert work_off_all() == 0
    assert states(phone) == [StepState.PASSED, StepState.CURRENT, StepState.OPEN]
    assert phone.step(1).success
    work_off_all()
    assert [run.status for run in phone.runs][1:] == ["CANCELLED", "SUCCEEDED", "SUCCEEDED"]


def test_a_late_result_of_what_was_gone_back_from_is_not_heard(checking: FakePartner) -> None:
    phone = Phone(published(flow(form(0), async_step(1), form(2))))
    phone.step(0, {"a": 1})
    phone.step(1)
    (claim,) = worker.claim_due(1)
    phone.step(0, {"a": 2})
    worker.work(claim)
    assert phone.runs[1].status == RunStatus.SUCCEEDED
    assert phone.step(2, {"c": 1}).error_code == ErrorCode.STEP_OUT_OF_ORDER
    assert "call1" not in phone.context


def test_a_worker_that_stood_still_sends_nothing(checking: FakePartner) -> None:
    """Its lease is over: somebody else may be calling."""
    phone = Phone(published(flow(async_step(0))))
    phone.step(0)
    (claim,) = worker.claim_due(1)
    worker.work(replace(claim, since=claim.since - settings.LEASE_SECONDS))
    assert checking.calls() == []
    (run,) = phone.runs
    assert (run.status, run.lease_holder, run.attempts.count()) == (RunStatus.QUEUED, None, 0)


def test_cancelling_calls_off_queued_runs(checking: FakePartner) -> None:
    phone = Phone(published(flow(async_step(0), form(1))))
    phone.step(0)
    assert phone.cancel().status == WorkflowExecutionStatus.CANCELLED
    assert phone.runs[0].status == RunStatus.CANCELLED
    assert work_off_all() == 0
    assert checking.calls() == []


def test_before_step_has_to_have_come_back_before_after_step(checking: FakePartner) -> None:
    step = async_step(0, triggerTiming="BOTH", type="FORM")
    phone = Phone(published(flow(step)))
    phone.step(0, timing=BEFORE)
    assert phone.step(0, {"a": 1}).error_code == ErrorCode.STEPS_PENDING
    work_off_all()
    assert phone.step(0, {"a": 1}).success
    work_off_all()
    assert phone.complete().success


def test_in_doubt_the_partner_is_asked_before_it_is_called_again(partner: FakePartner) -> None:
    partner.fault(TRANSFER, "status", status=503, effect="before")
    config = {
        "requestMapping": {"amount": "amount", "recipientAccount": "'9876543210'"},
        "status": {"endpoint": "/api/effects/${execution.idempotencyKey}"},
    }
    retry = {"maxRetries": 1, "initialDelayMs": 0}
    step = async_step(0, triggerEndpoint=TRANSFER, config=config, retryConfig=retry)
    phone = Phone(published(flow(step)), initial={"amount": 5})
    phone.step(0)
    assert work_off_all() == 1
    assert work_off_all() == 1
    run = phone.runs[0]
    assert run.status == RunStatus.SUCCEEDED
    asked = f"/api/effects/{run.trigger_key}"
    assert [call.path for call in partner.calls()] == [TRANSFER, asked]
    assert len(partner.effects(TRANSFER)) == 1


# --- what cannot be unsealed ----------------------------------------------------------------------


@pytest.mark.parametrize("column", ["sealed_request", "sealed_callback"])
def test_what_cannot_be_unsealed_is_held_until_its_key_is_back(
    checking: FakePartner, column: str
) -> None:
    phone = Phone(published(flow(async_step(0), form(1), apiMapping={"score": "call0.score"})))
    phone.step(0)
    run = phone.runs[0]
    if column == "sealed_callback":
        sealed = callback_tokens.seal_callback({"score": 8}, run.id)
        StepRun.objects.update(sealed_callback=sealed, callback_received_at=run.started_at)
    kept = StepRun.objects.values_list(column, flat=True).get()
    StepRun.objects.update(**{column: b"x" * 60})

    assert work_off_all() == 1

    run = phone.runs[0]
    assert (run.status, run.needs_attention) == (RunStatus.PARKED, True)
    assert (run.error_code, run.lease_holder) == (ErrorCode.SESSION_UNAVAILABLE, None)
    assert run.error == "What was kept of it cannot be unsealed; it is held for operators."
    assert work_off_all() == 0
    assert checking.calls() == []
    StepRun.objects.update(**{column: kept})
    executor.replay(
        phone.execution_id,
        by="operator",
        reason="the key is back",
        from_step="0",
        now=timezone.now(),
    )
    work_off_all()
    assert phone.runs[0].status == RunStatus.SUCCEEDED
    phone.step(1, {})
    assert phone.complete().result == {"score": 8 if column == "sealed_callback" else 7}
