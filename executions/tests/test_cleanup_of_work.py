"""cleanup_executions and the runs of workers: parked, woken again, undone, and kept from deletion."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django_tasks_db.models import DBTaskResult

from executions import sweeping, tasks, worker
from executions.enums import OperatorActionKind, OperatorOutcome, RunStatus
from executions.models import OperatorAction, StepRun, WorkflowExecution
from executions.sweeping import LATE_SECONDS, SweepKind, SweepOutcome, Swept
from executions.tests.evidence import nothing_happens
from executions.tests.phone import Phone, flow, form, published
from executions.tests.records import end_long_ago
from executions.tests.test_async_steps import CHECK, async_step, work_off_all
from executions.tests.test_cleanup_executions import explained
from executions.tests.test_compensation import (
    BOOK,
    HOLD,
    UNDO_BOOK,
    UNDO_HOLD,
    undoable,
    undone,
    work_off_everything,
)
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow

pytestmark = pytest.mark.django_db

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    partner.answer(CHECK, {"score": 3})
    return published(flow(async_step(0), form(1)))


def queued(compiled: CompiledWorkflow) -> Phone:
    phone = Phone(compiled)
    assert phone.step(0).success
    return phone


def poison(*phones: Phone) -> None:
    """Their runs have cost five workers their lives."""
    for _ in range(worker.MAX_CLAIMS):
        claims = worker.claim_due(100)
        assert len(claims) == len(phones)
        StepRun.objects.filter(lease_holder__isnull=False).update(lease_until=LONG_AGO)


def let_be_late(**of: Any) -> None:
    late = Now() - timedelta(seconds=LATE_SECONDS + 1)
    StepRun.objects.filter(finished_at__isnull=True, **of).update(due_at=late)


def run(*words: str) -> str:
    out = StringIO()
    call_command("cleanup_executions", *words, stdout=out, stderr=StringIO())
    return out.getvalue()


def told(*words: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(run(*words, "--json"))
    return report


def swept(kind: SweepKind, phone: Phone, outcome: SweepOutcome = SweepOutcome.DONE) -> Swept:
    return Swept(kind, outcome, 1, (phone.execution_id,))


def counts(report: dict[str, Any], outcome: str) -> dict[str, int]:
    """What came to this outcome, the dashboard's days aside."""
    kinds = set(SweepKind) - {SweepKind.COUNT}
    return {kind: report[kind][outcome] for kind in kinds if report[kind][outcome]}


# --- parking --------------------------------------------------------------------------------------


def test_a_run_that_kills_its_workers_is_parked(compiled: CompiledWorkflow) -> None:
    phone, other = queued(compiled), queued(compiled)
    poison(phone, other)
    StepRun.objects.filter(execution_id=other.execution_id).update(claims=worker.MAX_CLAIMS - 1)
    with nothing_happens():
        would = list(sweeping.park_poisonous(dry_run=True))
    assert would == [swept(SweepKind.PARK, phone, SweepOutcome.WOULD_BE_DONE)]
    assert list(sweeping.park_poisonous()) == [swept(SweepKind.PARK, phone)]
    [run] = phone.runs
    assert (run.status, run.needs_attention, run.lease_holder) == (RunStatus.PARKED, True, None)
    assert list(sweeping.park_poisonous()) == []
    assert work_off_all() == 1
    assert other.runs[0].status == RunStatus.SUCCEEDED


@pytest.mark.parametrize("page", [1, 2, 5, 6])
def test_every_page_is_looked_at_once(compiled: CompiledWorkflow, page: int) -> None:
    """Also where many were due at the same moment, and whether or not the rows stay."""
    phones = [queued(compiled) for _ in range(5)]
    poison(*phones)
    StepRun.objects.update(due_at=LONG_AGO)
    wanted = sorted(run.id for phone in phones for run in phone.runs)
    order = dict(StepRun.objects.values_list("execution_id", "id"))
    would = [order[one.ids[0]] for one in sweeping.park_poisonous(dry_run=True, page=page)]
    assert would == wanted
    assert [order[one.ids[0]] for one in sweeping.park_poisonous(page=page)] == wanted
    assert StepRun.objects.filter(status=RunStatus.PARKED).count() == 5


# --- waking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 3])
def test_after_a_flush_of_the_queue_what_is_due_is_woken_once(
    compiled: CompiledWorkflow, page: int
) -> None:
    phones = [queued(compiled) for _ in range(3)]
    let_be_late()
    assert list(sweeping.wake_lost(page=page)) == []  # their wake-ups are still there
    DBTaskResult.objects.all().delete()
    with nothing_happens():
        assert len(list(sweeping.wake_lost(dry_run=True, page=page))) == 3
    assert DBTaskResult.objects.count() == 0
    woken = [one.ids[0] for one in sweeping.wake_lost(page=page)]
    assert woken == [phone.execution_id for phone in phones]
    assert list(sweeping.wake_lost(page=page)) == []
    assert sorted(tasks.take_woken(10)) == sorted(run.id for p in phones for run in p.runs)
    assert work_off_all() == 3


def test_what_has_its_time_before_it_is_not_woken(compiled: CompiledWorkflow) -> None:
    queued(compiled)
    DBTaskResult.objects.all().delete()
    assert list(sweeping.wake_lost()) == []  # due, but not late
    StepRun.objects.update(due_at=Now() + timedelta(minutes=5))
    assert list(sweeping.wake_lost()) == []


def test_what_a_worker_holds_is_not_woken(compiled: CompiledWorkflow) -> None:
    queued(compiled)
    assert worker.claim_due(1)
    let_be_late()
    DBTaskResult.objects.all().delete()
    assert list(sweeping.wake_lost()) == []


def test_what_waits_for_another_compensation_is_not_woken(booked: Phone) -> None:
    booked.cancel()
    DBTaskResult.objects.all().delete()
    let_be_late()
    assert list(sweeping.wake_lost()) == [swept(SweepKind.WAKE, booked)]
    assert tasks.take_woken(10) == [undone(booked)[0].id]


# --- undoing --------------------------------------------------------------------------------------


@pytest.fixture
def booked(partner: FakePartner) -> Phone:
    for path, ref in ((HOLD, "h1"), (BOOK, "b1")):
        partner.answer(path, {"ref": ref})
        partner.answer(f"{path}/undo", {"undone": True})
    partner.fault("/api/submit", "answer", status=400, body={"message": "closed"}, times=None)
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


def test_final_failures_are_undone_by_the_command(booked: Phone, partner: FakePartner) -> None:
    booked.complete()
    WorkflowExecution.objects.update(undo_at=LONG_AGO)
    with nothing_happens(partner):
        would = told("--dry-run")
    assert counts(would, "WOULD_BE_DONE") == {SweepKind.UNDO: 1}
    assert would["UNDO"]["ids"] == [str(booked.execution_id)]
    assert counts(told(), "DONE") == {SweepKind.UNDO: 1}
    assert counts(told(), "DONE") == {}
    work_off_everything()
    assert [call.path for call in partner.calls()][-2:] == [UNDO_BOOK, UNDO_HOLD]


# --- telling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 2, 5, 6])
def test_every_page_of_outcomes_is_told(compiled: CompiledWorkflow, page: int) -> None:
    """Also where many were asked for at the same moment."""
    run = queued(compiled).runs[0]
    for _ in range(5):
        OperatorAction.objects.create(
            execution_id=run.execution_id,
            action=OperatorActionKind.REPLAY_STEP,
            by="olga",
            reason="asked",
            run_id=run.id,
            at=LONG_AGO,
            outcome=OperatorOutcome.QUEUED,
        )
    assert list(sweeping.tell_outcomes(page=page)) == []
    work_off_all()
    assert len(list(sweeping.tell_outcomes(dry_run=True, page=page))) == 5
    assert len(list(sweeping.tell_outcomes(page=page))) == 5
    told = OperatorAction.objects.values_list("outcome", flat=True)
    assert set(told) == {OperatorOutcome.SUCCEEDED}


# --- retention ------------------------------------------------------------------------------------


def test_what_is_still_to_be_done_is_not_deleted(booked: Phone) -> None:
    booked.cancel()
    end_long_ago(booked, days=40)
    with nothing_happens():
        assert list(sweeping.delete_past_retention(days=30)) == []
    work_off_everything()
    assert list(sweeping.delete_past_retention(days=30)) == [
        swept(SweepKind.DELETE_EXECUTIONS, booked)
    ]


def test_what_needs_attention_is_not_deleted(booked: Phone) -> None:
    StepRun.objects.update(sealed_compensation=None)
    booked.cancel()
    end_long_ago(booked, days=40)
    StepRun.objects.filter(finished_at__isnull=True).update(due_at=LONG_AGO)
    with nothing_happens():
        assert list(sweeping.delete_past_retention(days=30)) == []
    for _ in range(2):
        words = ("--compensation", "--settled", "--reason", "by hand")
        call_command("replay_execution", str(booked.execution_id), *words, stdout=StringIO())
    assert [one.count for one in sweeping.delete_past_retention(days=30)] == [1]


# --- the command ----------------------------------------------------------------------------------


def test_dry_run_tells_what_the_run_then_does(compiled: CompiledWorkflow, booked: Phone) -> None:
    poisonous = queued(compiled)
    poison(poisonous)
    lost = queued(compiled)
    DBTaskResult.objects.all().delete()
    let_be_late(execution_id=lost.execution_id)
    booked.complete()
    WorkflowExecution.objects.filter(pk=booked.execution_id).update(undo_at=LONG_AGO)
    with nothing_happens():
        would = told("--dry-run")
        lines = run("--dry-run").splitlines()
    assert {kind: would[kind]["ids"] for kind in ("PARK", "UNDO", "WAKE")} == {
        "PARK": [str(poisonous.execution_id)],
        "UNDO": [str(booked.execution_id)],
        "WAKE": [str(lost.execution_id)],
    }
    assert "Runs that kill their workers parked: would be 1" in lines
    assert "Final failures whose steps are being undone: would be 1" in lines
    assert "Forgotten runs handed to workers again: would be 1" in lines
    expected = {SweepKind.PARK: 1, SweepKind.UNDO: 1, SweepKind.WAKE: 1}
    assert counts(would, "WOULD_BE_DONE") == expected
    assert counts(told(), "DONE") == expected
    assert counts(told(), "DONE") == {}


def test_no_search_for_work_reads_a_whole_table(compiled: CompiledWorkflow, booked: Phone) -> None:
    phone = queued(compiled)
    poison(phone)
    booked.complete()
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")  # few rows: is there another way?
    with CaptureQueriesContext(connection) as captured:
        list(sweeping.park_poisonous(dry_run=True))
        list(sweeping.undo_final_failures(dry_run=True))
        list(sweeping.wake_lost(dry_run=True))
        list(sweeping.delete_past_retention(days=1, dry_run=True))
    searches = [query["sql"] for query in captured if "executions_" in query["sql"]]
    assert len(searches) == 4
    for sql in searches:
        plan = explained(sql)
        for table in ("executions_workflowexecution", "executions_steprun"):
            assert f"Seq Scan on {table}" not in plan, (sql, plan)
            for line in plan.splitlines():
                assert f"SCAN {table}" not in line or "USING" in line, (sql, plan)
