"""Replays of what workers do: compensations and parked runs go on in their row, or are settled."""

import json
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models.functions import Now
from django.utils import timezone

from executions import executor, requeueing, sweeping, worker
from executions.attention import AttentionKind, read_attention
from executions.enums import ErrorCode, OperatorOutcome, RunKind, RunStatus
from executions.errors import InputRefused
from executions.management.commands import replay_execution
from executions.models import OperatorAction, StepAttempt, StepRun, WorkflowExecution
from executions.replaying import ReplayRefused
from executions.tests.evidence import nothing_happens
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.test_async_steps import CHECK, async_step
from executions.tests.test_compensation import (
    BOOK,
    HOLD,
    UNDO_BOOK,
    UNDO_HOLD,
    undoable,
    undone,
    work_off_everything,
)
from sandbox.ledger import Call
from sandbox.testing import FakePartner

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture
def bank(partner: FakePartner) -> FakePartner:
    _answer(partner)
    return partner


def _answer(bank: FakePartner) -> None:
    for path, ref in ((HOLD, "h1"), (BOOK, "b1")):
        bank.answer(path, {"ref": ref})
        bank.answer(f"{path}/undo", {"undone": True})


def held_and_booked(**config: Any) -> Phone:
    phone = Phone(published(flow(undoable(0, HOLD), undoable(1, BOOK), **config)))
    assert phone.step(0).success
    assert phone.step(1).success
    return phone


def cancelled(
    bank: FakePartner, *, status: int, then: int | None = None, phone: Phone | None = None
) -> Phone:
    """Cancelled; the booking could not be undone, and so the hold waits. The partner's calls are
    counted anew; `then` is what it answers to the next call."""
    phone = phone or held_and_booked()
    bank.reset()
    bank.fault(UNDO_BOOK, "status", status=status)
    if then is not None:
        bank.fault(UNDO_BOOK, "status", status=then)
    _answer(bank)
    phone.cancel()
    work_off_everything()
    assert [call.path for call in bank.calls()] == [UNDO_BOOK]
    return phone


def undo_calls(bank: FakePartner) -> list[Call]:
    return [call for call in bank.calls() if call.path.endswith("/undo")]


def replay(phone: Phone, **changed: Any) -> Any:
    given = {"by": "operator", "reason": "asked to", "now": timezone.now(), "compensation": True}
    return executor.replay(phone.execution_id, **{**given, **changed})


def settle(phone: Phone, **changed: Any) -> Any:
    given = {"by": "operator", "reason": "by hand", "now": timezone.now(), "compensation": True}
    return executor.settle(phone.execution_id, **{**given, **changed})


def refusal(phone: Phone, **changed: Any) -> str:
    with nothing_happens(), pytest.raises(ReplayRefused) as error:
        replay(phone, **changed)
    assert OperatorAction.objects.count() == 0
    return error.value.message


def run(*words: object) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("replay_execution", *map(str, words), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def missed(*words: object) -> tuple[str, int]:
    with pytest.raises(CommandError) as error:
        run(*words)
    return str(error.value), error.value.returncode


def counted(kind: AttentionKind) -> int:
    return {each.kind: each.count for each in read_attention()}[kind]


# --- compensations --------------------------------------------------------------------------------


def test_an_unknown_outcome_keeps_its_key(bank: FakePartner) -> None:
    phone = cancelled(bank, status=501)
    failed = undone(phone)[0]
    assert (failed.status, failed.needs_attention) == (RunStatus.UNKNOWN, True)
    assert replay(phone).outcome is OperatorOutcome.QUEUED
    queued = undone(phone)[0]
    assert (queued.id, queued.status, queued.visit) == (failed.id, RunStatus.QUEUED, 0)
    assert (queued.needs_attention, queued.error, queued.error_code) == (False, "", "")
    work_off_everything()
    first, again, last = undo_calls(bank)
    assert (first.key, first.body) == (again.key, again.body)
    assert [again.path, last.path] == [UNDO_BOOK, UNDO_HOLD]
    assert [each.status for each in undone(phone)] == [RunStatus.SUCCEEDED] * 2
    numbers = undone(phone)[0].attempts.order_by("number").values_list("number", flat=True)
    assert list(numbers) == [1, 2]


def test_what_was_refused_gets_a_new_key_each_time(bank: FakePartner) -> None:
    phone = cancelled(bank, status=422, then=422)
    replay(phone)
    work_off_everything()
    assert undone(phone)[0].status == RunStatus.REJECTED
    replay(phone)
    work_off_everything()
    assert undone(phone)[0].visit == 2
    keys = [call.key for call in bank.calls(UNDO_BOOK)]
    assert len(set(keys)) == len(keys) == 3
    assert [each.status for each in undone(phone)] == [RunStatus.SUCCEEDED] * 2


def test_retries_are_fresh(bank: FakePartner) -> None:
    phone = cancelled(bank, status=501, then=503)
    failed, compensation = undone(phone)[0], phone.compiled.steps[1].compensation
    assert compensation is not None
    used = range(2, compensation.retry.max_attempts + 1)
    StepAttempt.objects.bulk_create(
        StepAttempt(run=failed, number=n, outcome="SERVER_ERROR", started_at=Now(), duration_ms=1)
        for n in used
    )
    replay(phone)
    work_off_everything()
    waiting = undone(phone)[0]
    assert (waiting.status, waiting.attempts_before) == (RunStatus.QUEUED, used[-1])
    StepRun.objects.filter(pk=waiting.pk).update(due_at=Now())
    work_off_everything()
    assert [each.status for each in undone(phone)] == [RunStatus.SUCCEEDED] * 2


def test_an_execution_that_has_nothing_to_undo_is_refused(bank: FakePartner) -> None:
    phone = held_and_booked()
    assert refusal(phone) == "Nothing of it has failed to be undone."
    phone.cancel()
    assert refusal(phone) == "Nothing of it has failed to be undone."


def test_the_earlier_one_in_the_order_comes_first(bank: FakePartner) -> None:
    phone = held_and_booked()
    StepRun.objects.filter(step_index=0).update(sealed_compensation=None)
    phone.cancel()
    assert [each.status for each in undone(phone)] == [RunStatus.QUEUED, RunStatus.FAILED]
    assert refusal(phone) == "An earlier one is still being undone: that has to come first."


def test_what_could_not_be_composed_is_refused_and_can_be_settled(bank: FakePartner) -> None:
    phone = held_and_booked()
    StepRun.objects.filter(step_index=1).update(sealed_compensation=None)
    phone.cancel()
    told = "The request that would undo the step could not be composed: undo it outside, and settle it."
    assert refusal(phone) == told
    assert settle(phone).outcome is OperatorOutcome.SETTLED
    work_off_everything()
    assert [each.status for each in undone(phone)] == [RunStatus.SETTLED, RunStatus.SUCCEEDED]


def test_what_it_needs_may_be_gone(bank: FakePartner) -> None:
    phone = cancelled(bank, status=501)
    StepRun.objects.filter(kind=RunKind.COMPENSATION).update(sealed_request=None)
    assert refusal(phone) == "Nothing that could be sent again is kept of it."


def test_of_two_who_read_it_one_queues_it(bank: FakePartner) -> None:
    phone = cancelled(bank, status=501)
    failed = undone(phone)[0]
    assert requeueing.requeue(failed, connection=failed.connection)
    assert not requeueing.requeue(failed, connection=failed.connection)
    assert not requeueing.settle(failed)
    assert undone(phone)[0].status == RunStatus.QUEUED


def test_who_did_it_is_recorded_with_the_verified_outcome(bank: FakePartner) -> None:
    phone = cancelled(bank, status=501)
    replayed = replay(phone, by="olga", reason="bank is back")
    recorded = ("action", "by", "reason", "outcome")
    action = OperatorAction.objects.values_list(*recorded)
    assert action.get() == ("REPLAY_COMPENSATION", "olga", "bank is back", "QUEUED")
    work_off_everything()
    assert executor.verified(replayed).outcome is OperatorOutcome.SUCCEEDED
    assert action.get() == ("REPLAY_COMPENSATION", "olga", "bank is back", "SUCCEEDED")


# --- settling -------------------------------------------------------------------------------------


def test_what_a_worker_made_of_it_is_told_in_the_record(bank: FakePartner) -> None:
    phone = cancelled(bank, status=422)
    executor.replay(
        phone.execution_id, by="operator", reason="Again", compensation=True, now=timezone.now()
    )
    assert list(sweeping.tell_outcomes()) == []
    work_off_everything()
    assert [swept.outcome for swept in sweeping.tell_outcomes(dry_run=True)] == ["WOULD_BE_DONE"]
    assert [swept.outcome for swept in sweeping.tell_outcomes()] == ["DONE"]
    assert OperatorAction.objects.get().outcome == OperatorOutcome.SUCCEEDED
    assert list(sweeping.tell_outcomes()) == []


def test_what_was_settled_outside_lets_the_next_one_go_on(bank: FakePartner) -> None:
    phone = cancelled(bank, status=422)
    assert counted(AttentionKind.HELD) == 1
    settled = settle(phone, by="olga", reason="booked back by phone, INC-7")
    assert (settled.outcome, settled.row.status) == (OperatorOutcome.SETTLED, "CANCELLED")
    booked = undone(phone)[0]
    assert (booked.status, booked.sealed_request) == (RunStatus.SETTLED, None)
    assert counted(AttentionKind.HELD) == 0
    work_off_everything()
    assert [call.path for call in undo_calls(bank)] == [UNDO_BOOK, UNDO_HOLD]
    recorded = OperatorAction.objects.values_list("action", "by", "reason", "outcome").get()
    assert recorded == (
        "SETTLE_COMPENSATION",
        "olga",
        "booked back by phone, INC-7",
        "SETTLED",
    )


def test_a_submission_in_doubt_is_settled_and_then_not_sent_again(partner: FakePartner) -> None:
    partner.fault("/api/pay", "status", status=500, times=None)
    document = flow(form(0), finalApi={"endpoint": "/api/pay"}, apiMapping={})
    phone = Phone(published(document))
    phone.step(0, {"a": 1})
    phone.complete()
    assert counted(AttentionKind.SUBMISSION_IN_DOUBT) == 1
    settle(phone, compensation=False)
    assert phone.runs[-1].status == RunStatus.SETTLED
    assert counted(AttentionKind.SUBMISSION_IN_DOUBT) == 0
    calls = len(partner.calls())
    assert phone.complete().error_code == ErrorCode.SUBMISSION_FAILED
    assert len(partner.calls()) == calls
    OperatorAction.objects.all().delete()
    assert refusal(phone, compensation=False) == (
        "It was settled outside: there is nothing to replay."
    )


def test_a_step_in_doubt_of_an_ended_execution_is_settled(bank: FakePartner) -> None:
    phone = Phone(published(flow(undoable(0, HOLD), form(1))))
    bank.reset()
    bank.fault(HOLD, "status", status=500, times=None)
    phone.step(0)
    live = refused_settlement(phone, from_step="0", compensation=False)
    assert live == "It has not ended: it is not settled while the person can go on."
    phone.cancel()
    assert counted(AttentionKind.HELD) == 1
    settle(phone, from_step="0", compensation=False)
    assert phone.runs[0].status == RunStatus.SETTLED
    assert counted(AttentionKind.HELD) + counted(AttentionKind.CALL_IN_DOUBT) == 0
    again = refused_settlement(phone, from_step="0", compensation=False)
    assert again == "Its outcome is not unknown: there is nothing to settle."


def refused_settlement(phone: Phone, **changed: Any) -> str:
    with nothing_happens(), pytest.raises(ReplayRefused) as error:
        settle(phone, **changed)
    return error.value.message


# --- async steps ----------------------------------------------------------------------------------


def parked(partner: FakePartner) -> Phone:
    """Its check cost five workers their lives."""
    partner.answer(CHECK, {"score": 3})
    phone = Phone(published(flow(async_step(0), form(1), apiMapping={"score": "call0.score"})))
    phone.step(0)
    for _ in range(worker.MAX_CLAIMS):
        assert worker.claim_due(1)
        StepRun.objects.filter(lease_holder__isnull=False).update(lease_until=LONG_AGO)
    assert worker.park(phone.runs[0].id)
    return phone


def test_a_parked_run_goes_on_in_its_own_row(partner: FakePartner) -> None:
    phone = parked(partner)
    before = phone.runs[0]
    replayed = replay(phone, from_step="0", compensation=False)
    assert replayed.outcome is OperatorOutcome.QUEUED
    work_off_everything()
    [after] = phone.runs
    assert (after.id, after.trigger_key) == (before.id, before.trigger_key)
    assert (after.status, after.needs_attention) == (RunStatus.SUCCEEDED, False)
    assert phone.step(1, {"a": 1}).success
    assert phone.complete().result == {"score": 3}


def test_a_parked_run_that_was_gone_back_from_is_refused(partner: FakePartner) -> None:
    partner.answer(CHECK, {"score": 3})
    phone = Phone(published(flow(form(0), async_step(1), form(2))))
    phone.step(0, {"a": 1})
    phone.step(1)
    for _ in range(worker.MAX_CLAIMS):
        assert worker.claim_due(1)
        StepRun.objects.filter(lease_holder__isnull=False).update(lease_until=LONG_AGO)
    assert worker.park(phone.runs[1].id)
    phone.step(0, {"a": 2})
    told = "The person has gone back since: nothing waits for it any more."
    assert refusal(phone, from_step="1", compensation=False) == told


def test_a_failed_async_step_goes_the_persons_way(partner: FakePartner) -> None:
    partner.fault(CHECK, "status", status=503)
    partner.answer(CHECK, {"score": 3})
    phone = Phone(published(flow(async_step(0), form(1))))
    phone.step(0)
    work_off_everything()
    assert phone.runs[0].status == RunStatus.UNKNOWN
    assert replay(phone, from_step="0", compensation=False).outcome is OperatorOutcome.QUEUED
    assert [each.status for each in phone.runs] == [RunStatus.UNKNOWN, RunStatus.QUEUED]
    OperatorAction.objects.all().delete()
    told = "A worker has it, or will take it: there is nothing to replay."
    assert refusal(phone, from_step="0", compensation=False) == told
    work_off_everything()
    first, second = partner.calls(CHECK)
    assert (first.key, first.body) == (second.key, second.body)


@pytest.mark.parametrize("status", [503, 429])
def test_the_address_for_callbacks_is_not_shown(partner: FakePartner, status: int) -> None:
    """It is a secret: who knows it may answer for the partner. A new one is not shown either."""
    partner.fault(CHECK, "status", status=status)
    phone = Phone(published(flow(async_step(0), form(1))))
    phone.step(0)
    work_off_everything()
    out = run(phone.execution_id, "--from-step", 0, "--dry-run", "--json")[0]
    [request] = json.loads(out)["items"][0]["requests"]
    assert request["payload"]["callbackUrl"] == "[redacted]"
    assert "/callbacks/" not in out


# --- the command ----------------------------------------------------------------------------------


def test_dry_run_shows_what_workers_then_send(bank: FakePartner) -> None:
    phone = cancelled(bank, status=422)
    with nothing_happens(bank):
        out = run(phone.execution_id, "--compensation", "--dry-run", "--json")[0]
    run(phone.execution_id, "--compensation", "--reason", "asked")
    work_off_everything()
    sent = bank.calls(UNDO_BOOK)[-1]
    assert json.loads(out)["items"] == [
        {
            "id": str(phone.execution_id),
            "outcome": "WOULD_BE_SENT",
            "status": None,
            "error": None,
            "requests": [
                {
                    "connection": "default",
                    "method": "POST",
                    "url": f"{bank.url}{UNDO_BOOK}",
                    "query": None,
                    "headers": None,
                    "idempotencyKey": sent.key,
                    "payload": {"ref": "b1"},
                }
            ],
        }
    ]


def test_what_is_sensitive_is_masked(bank: FakePartner) -> None:
    phone = cancelled(bank, status=422, phone=held_and_booked(sensitive=["ref"]))
    out = run(phone.execution_id, "--compensation", "--dry-run")[0]
    assert '  body: {"ref": "[redacted]"}' in out.splitlines()
    assert '"b1"' not in out  # bare, it may stand in a key or an id


def test_queued_counts_as_done(bank: FakePartner) -> None:
    phone = cancelled(bank, status=501)
    out, _ = run(phone.execution_id, "--compensation", "--reason", "asked")
    assert out == f"{phone.execution_id} QUEUED (now CANCELLED)\n"


@pytest.mark.parametrize(("status", "code"), [(200, 0), (422, 1)])
def test_wait_tells_what_workers_made_of_it(
    bank: FakePartner, monkeypatch: pytest.MonkeyPatch, status: int, code: int
) -> None:
    phone = cancelled(bank, status=501, then=status if code else None)
    monkeypatch.setattr(replay_execution, "sleep", lambda _seconds: work_off_everything())
    words = (phone.execution_id, "--compensation", "--reason", "asked", "--wait", "30")
    if code:
        assert missed(*words) == ("1 of 1 did not succeed.", 1)
    else:
        assert run(*words)[0] == f"{phone.execution_id} SUCCEEDED (now CANCELLED)\n"
    outcome = "REJECTED" if code else "SUCCEEDED"
    assert OperatorAction.objects.get().outcome == outcome


def test_what_is_not_done_in_the_time_did_not_succeed(
    bank: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = cancelled(bank, status=501)
    monkeypatch.setattr(replay_execution, "sleep", lambda _seconds: None)
    words = (phone.execution_id, "--compensation", "--reason", "asked", "--wait", "0.05")
    assert missed(*words) == ("1 of 1 did not succeed.", 1)


def test_failed_undoings_are_selected_and_ask_for_yes(bank: FakePartner) -> None:
    phones = [cancelled(bank, status=501) for _ in range(2)]
    held_and_booked_elsewhere = flow(undoable(0, HOLD), form(1))
    other = Phone(published(held_and_booked_elsewhere))
    other.cancel()
    bulk = ("--compensation", "--failed-since", "1h", "--reason", "bank is back")
    err = StringIO()
    with nothing_happens(bank), pytest.raises(CommandError) as error:
        call_command("replay_execution", *bulk, stderr=err)
    assert error.value.returncode == 2
    told = "Blast radius: 2 executions; calls per connection: default 2; refused: 0.\n"
    assert err.getvalue() == told
    run(*bulk, "--yes")
    work_off_everything()
    for phone in phones:
        assert [each.status for each in undone(phone)] == [RunStatus.SUCCEEDED] * 2
    nothing = run("--compensation", "--workflow", "Flow", "--dry-run")[0]
    assert nothing == "No compensation has failed.\n"


def test_command_settles(bank: FakePartner) -> None:
    phone = cancelled(bank, status=422)
    words = (phone.execution_id, "--compensation", "--settled")
    with nothing_happens(bank):
        assert run(*words, "--dry-run")[0] == f"{phone.execution_id} WOULD_BE_SETTLED\n"
    out = run(*words, "--reason", "by phone")[0]
    told = "Settled outside by the staff."
    assert out == f"{phone.execution_id} SETTLED (now CANCELLED): {told}\n"
    assert missed(*words, "--reason", "again") == ("1 of 1 did not succeed.", 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("--compensation", "--from-step", "1"),
            "--compensation and --from-step exclude each other.",
        ),
        (("--compensation", "--settled"), "--reason is required: it is kept in the record."),
    ],
)
def test_wrong_usage_is_refused(db: None, words: tuple[str, ...], told: str) -> None:
    assert missed("01920000-0000-7000-8000-000000000000", *words) == (told, 2)


def test_settling_many_at_once_is_refused(db: None) -> None:
    words = ("--compensation", "--settled", "--failed-since", "1h", "--reason", "x")
    assert missed(*words) == ("--settled needs executions by their ids.", 2)


def test_a_reason_is_needed(bank: FakePartner) -> None:
    phone = cancelled(bank, status=501)
    with pytest.raises(InputRefused):
        settle(phone, reason=" ")
    assert not WorkflowExecution.objects.filter(runs__status=RunStatus.SETTLED).exists()


def test_server_step_is_not_touched(bank: FakePartner) -> None:
    """A call within a request has no row that a worker could go on with."""
    bank.fault("/api/anything/x", "status", status=500)
    phone = Phone(published(flow(server_step(0, triggerEndpoint="/api/anything/x"), form(1))))
    phone.step(0)
    unknown = phone.runs[0]
    assert unknown.status == RunStatus.UNKNOWN
    assert not requeueing.requeue(unknown, connection="default")
