"""erase_user and what workers do: nothing is erased that money depends on, and nothing else stays."""

import json
import logging
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from django_tasks_db.models import DBTaskResult

from config.jsonvalues import JsonObject
from executions import callbacks, erasing, rollups, tasks
from executions.composing import Composed
from executions.enums import RunKind, RunStatus
from executions.erasing import NEEDS_FORCE, STILL_UNDOING, ErasureOutcome, erase_executions
from executions.models import StepRun, WorkflowExecution
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.test_async_steps import CHECK, async_step, work_off_all
from executions.tests.test_compensation import undone, work_off_everything
from executions.tests.test_erase_user import PERSON, SENTINEL, dump_of_database, dump_of_redis
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow

pytestmark = pytest.mark.django_db

BOOK, UNDO = "/api/book", "/api/anything/undo"
FINAL = "/api/anything/final"


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    """Durable, with a check that answers later and a booking that can be undone."""
    undo: JsonObject = {
        "endpoint": UNDO,
        "requestMapping": {"name": "form0.name", "ref": "result.ref"},
    }
    partner.fault(CHECK, "answer", status=202, body={"note": f"{SENTINEL}-later"}, times=None)
    partner.answer(BOOK, {"ref": f"{SENTINEL}-ref"})
    return published(
        flow(
            form(0),
            async_step(1),
            server_step(2, triggerEndpoint=BOOK, config={"compensation": undo}),
            form(3),
            durableSession=True,
            finalApi={"endpoint": FINAL},
            apiMapping={"name": "form0.name"},
        )
    )


def started(compiled: CompiledWorkflow, *, answered: bool = True) -> Phone:
    """Booked; the check has been called back, or is still waited for."""
    phone = Phone(compiled, user_id=PERSON, initial={"account": f"{SENTINEL}-account"})
    assert phone.step(0, {"name": f"{SENTINEL}-name"}).success
    assert phone.step(1, key=f"{SENTINEL}-key").success
    work_off_all()
    assert phone.runs[1].status == RunStatus.WAITING
    if answered:
        body = json.dumps({"score": f"{SENTINEL}-score"}).encode()
        callbacks.receive(token_of(phone), body=body, signature=None, now=timezone.now())
        assert phone.runs[1].status == RunStatus.SUCCEEDED
    assert phone.step(2).success
    return phone


def token_of(phone: Phone) -> str:
    """What the partner was told for its late answer."""
    run = phone.runs[1]
    kept = Composed.unsealed(run.sealed_request or b"", run_id=run.id)
    return kept.callback_url.rsplit("/", 1)[1]


def refused(partner: FakePartner, path: str, status: int = 422) -> None:
    partner.fault(path, "status", status=status, body={"message": f"{SENTINEL}-no"}, times=None)


def erase(**changed: Any) -> dict[str, tuple[str, str, int]]:
    given: dict[str, Any] = {"sleep": lambda _seconds: None, **changed}
    return {
        str(one.execution_id): (one.outcome, one.error, one.lost)
        for one in erase_executions(PERSON, **given)
    }


def run(*words: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("erase_user", PERSON, *words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def nothing_personal(*texts: str) -> bool:
    return all(SENTINEL not in text for text in (dump_of_database(), dump_of_redis(), *texts))


def test_nothing_is_left_of_async_steps_callbacks_and_compensations(
    compiled: CompiledWorkflow,
    partner: FakePartner,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    undone_one, live = started(compiled), started(compiled)
    undone_one.cancel(f"{SENTINEL}-reason")
    work_off_everything()
    assert undone(undone_one)[0].status == RunStatus.SUCCEEDED
    refused(partner, FINAL)
    repeatable = started(compiled)
    repeatable.step(3, {"a": f"{SENTINEL}-a"})
    assert repeatable.complete().error_code == "SUBMISSION_FAILED"
    for _ in rollups.roll_up():
        pass
    assert dump_of_database().count(SENTINEL) > 3
    caplog.set_level(logging.DEBUG)
    capfd.readouterr()
    with pytest.raises(CommandError) as error:
        run()
    told = "2 of 3 executions still hold the person's data; run it again."
    assert str(error.value) == told
    work_off_everything()
    out, err = run()
    assert out.splitlines()[-1] == "2 executions erased, with their sessions."
    assert nothing_personal(caplog.text, *capfd.readouterr(), out, err)
    for phone in (undone_one, live, repeatable):
        [undoing] = undone(phone)
        assert undoing.status == RunStatus.SUCCEEDED
        assert phone.row.sealed_start is None
        assert phone.row.undo_at is None
    sealed = (
        "sealed_request",
        "sealed_answer",
        "sealed_data",
        "sealed_compensation",
        "sealed_callback",
        "callback_hash",
        "callback_body_hash",
        "input_hash",
        "arguments_hash",
        "client_key",
    )
    assert set(StepRun.objects.values_list(*sealed)) == {(None,) * len(sealed)}


def test_every_sealed_column_and_hash_is_known_to_the_erasure() -> None:
    """A new one has to be erased, too."""
    names = {each.name for each in StepRun._meta.get_fields()}
    personal = {name for name in names if name.startswith("sealed_") or name.endswith("_hash")}
    assert personal | {"client_key", "result", "error"} == set(erasing._ALL_EMPTY)
    own = {each.name for each in WorkflowExecution._meta.get_fields()}
    assert {name for name in own if name.startswith("sealed_")} <= set(erasing._ERASED_COLUMNS)


def test_what_is_still_to_be_undone_keeps_its_request_and_nothing_else(
    compiled: CompiledWorkflow, partner: FakePartner
) -> None:
    phone = started(compiled)
    assert erase() == {str(phone.execution_id): ("FAILED", STILL_UNDOING, 0)}
    [undoing] = undone(phone)
    assert undoing.status == RunStatus.QUEUED
    row = phone.row
    assert (row.status, row.user_id, row.page_id) == ("CANCELLED", PERSON, "")
    kept = StepRun.objects.filter(sealed_request__isnull=False)
    assert [each.id for each in kept] == [undoing.id]
    assert not StepRun.objects.exclude(result=None).exists()
    assert not phone.has_session
    work_off_everything()
    [sent] = partner.calls(UNDO)
    assert sent.json == {"name": f"{SENTINEL}-name", "ref": f"{SENTINEL}-ref"}
    assert erase() == {str(phone.execution_id): ("ERASED", "", 0)}
    assert nothing_personal()


def test_a_call_that_waits_for_its_answer_is_waited_for(compiled: CompiledWorkflow) -> None:
    phone = started(compiled, answered=False)
    assert erase()[str(phone.execution_id)] == ("FAILED", STILL_UNDOING, 0)
    work_off_everything()
    assert erase()[str(phone.execution_id)] == ("FAILED", STILL_UNDOING, 0)
    token = token_of(phone)
    callbacks.receive(token, body=b'{"score": 1}', signature=None, now=timezone.now())
    assert erase() == {str(phone.execution_id): ("ERASED", "", 0)}
    assert nothing_personal()


def test_wait_waits_for_the_workers(compiled: CompiledWorkflow) -> None:
    phones = [started(compiled), started(compiled)]
    erased = erase(wait_seconds=30, sleep=lambda _seconds: work_off_everything())
    assert erased == {str(phone.execution_id): ("ERASED", "", 0) for phone in phones}
    assert nothing_personal()


def test_the_wait_has_an_end_and_the_rest_is_not_held_up(
    compiled: CompiledWorkflow, partner: FakePartner
) -> None:
    waiting = started(compiled)
    other = Phone(compiled, user_id=PERSON)
    times = iter([0.0, 1.0, 4.0, 6.0])
    slept: list[float] = []
    erased = list(
        erase_executions(PERSON, wait_seconds=5, sleep=slept.append, clock=lambda: next(times))
    )
    assert [(one.execution_id, one.outcome) for one in erased] == [
        (other.execution_id, ErasureOutcome.ERASED),
        (waiting.execution_id, ErasureOutcome.FAILED),
    ]
    assert slept == [erasing.PAUSE_SECONDS] * 2


def stuck(compiled: CompiledWorkflow, partner: FakePartner) -> Phone:
    """Cancelled, and the partner refuses to undo the booking."""
    phone = started(compiled)
    refused(partner, UNDO)
    phone.cancel()
    work_off_everything()
    assert undone(phone)[0].needs_attention
    return phone


def test_what_failed_to_be_undone_goes_only_by_force(
    compiled: CompiledWorkflow, partner: FakePartner
) -> None:
    phone = stuck(compiled, partner)
    name = str(phone.execution_id)
    assert erase(dry_run=True) == {name: ("FAILED", NEEDS_FORCE, 1)}
    assert erase() == {name: ("FAILED", NEEDS_FORCE, 1)}
    assert undone(phone)[0].sealed_request is not None
    assert erase(dry_run=True, force=True) == {name: ("WOULD_BE_ERASED", "", 1)}
    out, _ = run("--force")
    told = " (1 of its runs cannot be mended once they are erased)"
    assert out.splitlines()[0] == f"{name} erased{told}"
    assert nothing_personal()
    [undoing] = undone(phone)
    assert (undoing.status, undoing.needs_attention) == (RunStatus.REJECTED, True)


def test_what_was_settled_needs_no_force(compiled: CompiledWorkflow, partner: FakePartner) -> None:
    phone = stuck(compiled, partner)
    words = ("--compensation", "--settled", "--reason", f"{SENTINEL} was paid back by phone")
    call_command("replay_execution", str(phone.execution_id), *words, stdout=StringIO())
    assert erase() == {str(phone.execution_id): ("ERASED", "", 0)}
    assert nothing_personal()


def undone_at(path: str) -> JsonObject:
    return {"compensation": {"endpoint": path}}


def test_force_calls_off_what_waits_for_what_failed(partner: FakePartner) -> None:
    partner.answer("/api/hold", {})
    partner.answer(BOOK, {})
    refused(partner, UNDO)
    document = flow(
        server_step(0, triggerEndpoint="/api/hold", config=undone_at("/api/anything/undo-hold")),
        server_step(1, triggerEndpoint=BOOK, config=undone_at(UNDO)),
    )
    phone = Phone(published(document), user_id=PERSON)
    phone.step(0)
    phone.step(1)
    phone.cancel()
    work_off_everything()
    assert erase()[str(phone.execution_id)] == ("FAILED", STILL_UNDOING, 1)
    assert erase(force=True) == {str(phone.execution_id): ("ERASED", "", 2)}
    assert [each.status for each in undone(phone)] == [RunStatus.REJECTED, RunStatus.CANCELLED]
    assert [each.needs_attention for each in undone(phone)] == [True, True]


def test_an_unknown_submission_keeps_what_could_be_undone(
    compiled: CompiledWorkflow, partner: FakePartner
) -> None:
    phone = started(compiled)
    phone.step(3, {"a": 1})
    refused(partner, FINAL, status=500)
    phone.complete()
    assert erase()[str(phone.execution_id)] == ("FAILED", NEEDS_FORCE, 1)
    booked = next(each for each in phone.runs if each.step_index == 2)
    submitted = next(each for each in phone.runs if each.kind == RunKind.SUBMISSION)
    assert booked.sealed_compensation is not None
    assert submitted.sealed_request is not None
    assert erase(force=True)[str(phone.execution_id)] == ("ERASED", "", 1)
    assert nothing_personal()


def test_a_failed_submission_is_undone_before_it_is_erased(
    compiled: CompiledWorkflow, partner: FakePartner
) -> None:
    phone = started(compiled)
    phone.step(3, {"a": 1})
    refused(partner, FINAL)
    phone.complete()
    assert phone.row.undo_at is not None
    assert erase()[str(phone.execution_id)] == ("FAILED", STILL_UNDOING, 0)
    work_off_everything()
    assert len(partner.calls(UNDO)) == 1
    assert erase()[str(phone.execution_id)] == ("ERASED", "", 0)


def test_wake_ups_hold_no_personal_data(compiled: CompiledWorkflow) -> None:
    phone = started(compiled)
    phone.cancel()
    assert tasks.uses_database()
    woken = [row.args_kwargs for row in DBTaskResult.objects.all()]
    ids = {str(each.id) for each in phone.runs}
    assert woken
    for one in woken:
        assert one["kwargs"] == {}
        assert set(one["args"]) <= ids
