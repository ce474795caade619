"""`durableSession`: a session that was lost is built again from sealed rows."""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from config.jsonvalues import JsonObject
from executions import recovery, sweeping, worker
from executions.enums import RunStatus, WorkflowExecutionStatus
from executions.models import StepRun, WorkflowExecution
from executions.session_store import get_session_store
from executions.standing import find_standing
from executions.tests.phone import AFTER, BEFORE, Phone, flow, form, published, server_step
from executions.tests.test_async_steps import CHECK, async_step, work_off_all
from sandbox.testing import FakePartner

pytestmark = pytest.mark.django_db

TRANSFER: JsonObject = {"requestMapping": {"amount": "form0.amount", "recipientAccount": "to"}}


def durable(*steps: JsonObject, **config: Any) -> Phone:
    document = flow(*steps, durableSession=True, **config)
    return Phone(published(document), initial={"to": "9876543210"})


def lose_session(phone: Phone) -> None:
    get_session_store().clear_session(phone.row.session_id)


class Died(Exception):
    """The process ended here."""


def dies(*_args: Any) -> None:
    raise Died


def sealed_left(phone: Phone) -> int:
    runs = StepRun.objects.filter(execution_id=phone.execution_id, sealed_data__isnull=False)
    starts = WorkflowExecution.objects.filter(pk=phone.execution_id, sealed_start__isnull=False)
    return runs.count() + starts.count()


def test_the_person_goes_on_after_a_flush(partner: FakePartner) -> None:
    phone = durable(
        form(0), server_step(1, config=TRANSFER), form(2), apiMapping={"paid": "call1.amount"}
    )
    phone.step(0, {"amount": 50})
    assert phone.step(1).success
    before = phone.context
    lose_session(phone)
    assert phone.step(2, {"note": "x"}).success
    assert phone.context == {**before, "form2": {"note": "x"}}
    lose_session(phone)
    assert phone.complete().result == {"paid": 50}
    assert len(partner.effects()) == 1
    assert sealed_left(phone) == 0


def test_going_back_is_remembered(partner: FakePartner) -> None:
    transfer = server_step(1, config={**TRANSFER, "reversible": True})
    phone = durable(form(0), transfer, form(2))
    phone.step(0, {"amount": 50})
    phone.step(1)
    phone.step(0, {"amount": 70})
    before, standing = phone.context, phone.step(2, {}).error_code
    lose_session(phone)
    assert phone.step(2, {}).error_code == standing
    assert phone.context == before
    assert phone.step(1).success
    assert len({call.key for call in partner.calls()}) == 2


def test_an_async_result_is_there_again(partner: FakePartner) -> None:
    partner.answer(CHECK, {"score": 3})
    phone = durable(form(0), async_step(1), form(2), apiMapping={"score": "call1.score"})
    phone.step(0, {"amount": 1})
    phone.step(1)
    lose_session(phone)
    phone.step(2, {})
    work_off_all()
    lose_session(phone)
    assert phone.complete().result == {"score": 3}
    assert sealed_left(phone) == 0


def test_without_it_a_lost_session_ends_the_execution(partner: FakePartner) -> None:
    phone = Phone(published(flow(form(0), form(1))))
    phone.step(0, {"a": 1})
    lose_session(phone)
    assert phone.step(1, {}).error_code == "SESSION_EXPIRED"
    assert sealed_left(phone) == 0


def test_its_time_ends_a_durable_session_too(partner: FakePartner) -> None:
    phone = durable(form(0), form(1))
    phone.step(0, {"a": 1})
    lose_session(phone)
    WorkflowExecution.objects.update(expires_at=phone.row.started_at)
    assert phone.step(1, {}).error_code == "SESSION_EXPIRED"
    assert phone.row.status == WorkflowExecutionStatus.FAILED
    assert sealed_left(phone) == 0


def test_an_older_copy_of_the_session_is_replaced(partner: FakePartner) -> None:
    phone = durable(form(0), form(1), form(2))
    phone.step(0, {"a": 1})
    store = get_session_store()
    old = store.get_context(phone.row.session_id)
    assert old is not None
    phone.step(1, {"b": 1})
    store.set_context(
        phone.row.session_id,
        context=dict(old.context),
        state=old.state,
        sequence=old.sequence,
        ttl_seconds=60,
    )
    long_ago = phone.row.started_at - timedelta(minutes=1)
    StepRun.objects.update(finished_at=long_ago)  # nothing is on its way to the session any more
    assert phone.step(2, {"c": 1}).success
    assert phone.context["form1"] == {"b": 1}
    assert [run.status for run in phone.runs] == [RunStatus.SUCCEEDED] * 3


def test_of_two_who_build_it_one_does(partner: FakePartner) -> None:
    phone = durable(form(0), form(1))
    phone.step(0, {"a": 1})
    lose_session(phone)
    row = phone.row
    assert recovery.rebuild_session(row)
    assert not recovery.rebuild_session(row)
    assert phone.context["form0"] == {"a": 1}


def test_the_time_to_live_is_what_was_left(partner: FakePartner) -> None:
    phone = durable(form(0), form(1))
    phone.step(0, {"a": 1})
    WorkflowExecution.objects.filter(pk=phone.execution_id).update(
        expires_at=Now() + timedelta(seconds=100)
    )
    lose_session(phone)
    assert recovery.rebuild_session(phone.row)
    left = get_session_store().get_session_ttl(phone.row.session_id)
    assert left is not None
    assert 95 <= left <= 100


# --- what the rows tell ---------------------------------------------------------------------------

ASK, DO = "/api/ask", "/api/do"
FAULTS = ["cut_after", "400", "422", "500", "503"]
SLOTS = [
    (0, AFTER), (1, AFTER), (2, AFTER), (3, BEFORE), (3, AFTER), (4, BEFORE), (4, AFTER), (5, AFTER)
]  # fmt: skip


def every_kind() -> Phone:
    """A form, a validation, and calls that are waited for and not, with inputs and without."""
    ask = {"type": "VALIDATION", "executionMode": "SERVER_VALIDATION", "triggerEndpoint": ASK}
    both: JsonObject = {"type": "FORM", "triggerTiming": "BOTH"}
    anew: JsonObject = {"reversible": True}
    return durable(
        form(0),
        server_step(1, **ask),
        async_step(2, config={"optional": True}),
        server_step(3, triggerEndpoint=DO, config=anew, **both),
        async_step(4, **both),
        server_step(5, triggerEndpoint=DO, config={**anew, "proceedWhen": "result.valid"}),
    )


def behave(partner: FakePartner, rng: random.Random, number: int) -> None:
    """Let the next calls go well, mostly."""
    partner.reset()
    fault = rng.choice(FAULTS) if rng.random() < 0.25 else ""
    for path in (ASK, CHECK, DO):
        if not fault:
            partner.answer(path, {"valid": rng.random() < 0.9, "number": number})
        elif fault.isdecimal():
            partner.fault(path, "status", status=int(fault), times=None)
        else:
            partner.fault(path, fault, times=None)


@pytest.mark.parametrize("seed", range(2))
def test_rows_tell_what_the_session_holds(partner: FakePartner, seed: int) -> None:
    """Whatever was called, gone back over, refused, or answered late: at any moment it may be lost."""
    rng = random.Random(seed)
    phone = every_kind()
    claims: list[worker.Claim] = []
    for number in range(30):
        behave(partner, rng, number)
        if rng.random() < 0.2:
            claims += worker.claim_due(1)
        elif claims and rng.random() < 0.3:
            worker.work(claims.pop(rng.randrange(len(claims))))
        else:
            next_ones = [slot for slot in SLOTS if slot[0] == phone.row.position]
            slots = next_ones if next_ones and rng.random() < 0.8 else SLOTS
            index, timing = rng.choice(slots)
            phone.step(index, {"number": rng.randrange(3)}, timing)
        live = find_standing(phone.execution_id)
        assert live is not None
        progress, context = recovery.read_from_rows(phone.row)
        assert context == dict(live.context)
        assert (progress.position, progress.marks) == (live.progress.position, live.progress.marks)
        if rng.random() < 0.1:
            lose_session(phone)
            assert recovery.rebuild_session(phone.row)
    assert phone.context["userId"] == "alice"
    assert phone.context["to"] == "9876543210"


# --- lost at a bad moment -------------------------------------------------------------------------


def before_once(monkeypatch: pytest.MonkeyPatch, verb: str, happens: Callable[[], object]) -> None:
    """Let something happen just before the session store is asked for `verb` the next time."""
    store = type(get_session_store())
    real = getattr(store, verb)

    def late(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(store, verb, real)
        happens()
        return real(*args, **kwargs)

    monkeypatch.setattr(store, verb, late)


@pytest.mark.parametrize("reversible", [False, True])
@pytest.mark.parametrize("key", [None, "k-1"])
def test_a_session_lost_during_a_call_costs_no_second_call(
    partner: FakePartner, monkeypatch: pytest.MonkeyPatch, reversible: bool, key: str | None
) -> None:
    transfer = server_step(1, config={**TRANSFER, "reversible": reversible})
    phone = durable(form(0), transfer, form(2))
    phone.step(0, {"amount": 50})
    before_once(monkeypatch, "update_context", lambda: lose_session(phone))
    answer = phone.step(1, key=key)
    (effect,) = partner.effects()
    assert (answer.success, answer.result) == (True, effect.result)
    assert answer.standing is not None
    assert answer.standing.progress.position == 2
    assert len(partner.calls()) == 1
    assert [run.status for run in phone.runs] == [RunStatus.SUCCEEDED] * 2
    assert phone.context["call1"] == effect.result
    assert phone.step(2, {}).success


def test_a_no_that_met_a_lost_session_is_told_once(
    partner: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner.answer(CHECK, {"valid": False})
    check = server_step(0, executionMode="SERVER_VALIDATION", triggerEndpoint=CHECK)
    phone = durable(check)
    before_once(monkeypatch, "update_context", lambda: lose_session(phone))
    assert phone.step(0).error_code == "VALIDATION_REJECTED"
    assert len(partner.calls()) == 1
    assert phone.context == {"to": "9876543210", "userId": "alice"}


def test_a_session_that_is_built_too_late_does_not_outlive_the_end(
    partner: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = durable(form(0), form(1))
    phone.step(0, {"a": 1})
    lose_session(phone)
    before_once(monkeypatch, "set_context", phone.cancel)
    assert phone.step(1, {"b": 1}).error_code == "EXECUTION_ENDED"
    assert phone.row.status == WorkflowExecutionStatus.CANCELLED
    assert not phone.has_session


# --- deleted with the end -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 500])
def test_a_failed_submission_keeps_its_request_only(partner: FakePartner, status: int) -> None:
    partner.fault("/api/submit", "answer", status=status, body={})
    partner.answer("/api/submit", {"done": True})
    partner.answer(CHECK, {"score": 3})
    phone = durable(
        form(0), async_step(1), finalApi={"endpoint": "/api/submit"}, apiMapping={"a": "form0.a"}
    )
    phone.step(0, {"a": 1})
    phone.step(1)
    work_off_all()
    assert sealed_left(phone) == 3
    assert phone.complete().error_code == "SUBMISSION_FAILED"
    assert sealed_left(phone) == 0
    assert phone.complete().result == {"done": True}


def test_a_submission_whose_process_died_keeps_its_request_only(
    partner: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = durable(form(0), finalApi={"endpoint": "/api/submit"}, apiMapping={"a": "form0.a"})
    phone.step(0, {"a": 1})
    monkeypatch.setattr("executions.submission._Submission._conclude", dies)
    with pytest.raises(Died):
        phone.complete()
    assert sealed_left(phone) == 2
    WorkflowExecution.objects.update(lease_until=phone.row.started_at)
    assert [swept.outcome for swept in sweeping.take_over_stranded()] == ["DONE"]
    assert phone.row.status == WorkflowExecutionStatus.FAILED
    assert sealed_left(phone) == 0
    assert phone.runs[-1].sealed_request is not None
