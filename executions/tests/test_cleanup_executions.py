"""cleanup_executions and the sweeps behind it: what they find, do, leave alone and tell."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from structlog.testing import capture_logs

from config.ids import new_id
from executions import sweeping
from executions.enums import (
    ErrorCode,
    OperatorActionKind,
    RunKind,
    RunStatus,
    WorkflowExecutionStatus,
)
from executions.models import (
    OperatorAction,
    SessionRecord,
    StepAttempt,
    StepRun,
    TriggerTrial,
    WorkflowExecution,
)
from executions.session_store import get_session_store
from executions.session_store_database import DatabaseSessionStore
from executions.sweeping import SweepKind, SweepOutcome, Swept
from executions.tests.evidence import nothing_happens
from executions.tests.fakes import MemorySessionStore
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.records import (
    CommandProcess,
    end_long_ago,
    let_expire,
    many_executions,
    multiply_ended,
    strand,
)
from executions.tests.servers import wait_until
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow
from workflows.models import WorkflowVersion
from workflows.versions import forget_everything

pytestmark = pytest.mark.django_db

STEPS = (form(0), server_step(1, type="INFO", triggerEndpoint="/api/anything/x"))


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    return published(flow(*STEPS))


@pytest.fixture
def phone(compiled: CompiledWorkflow) -> Phone:
    """Past its form, before the call."""
    phone = Phone(compiled)
    assert phone.step(0, {"a": 1}).success
    return phone


def run(*words: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("cleanup_executions", *words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def told(*words: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(run(*words, "--json")[0])
    return report


def refused(*words: str) -> tuple[str, int]:
    with pytest.raises(CommandError) as error:
        run(*words)
    return str(error.value), error.value.returncode


def done(kind: SweepKind, phone: Phone, outcome: SweepOutcome = SweepOutcome.DONE) -> Swept:
    return Swept(kind, outcome, 1, (phone.execution_id,))


# --- calls of dead processes ----------------------------------------------------------------------


def test_call_of_a_dead_process_becomes_unknown(phone: Phone) -> None:
    run_id = strand(phone)
    assert list(sweeping.take_over_stranded()) == [done(SweepKind.TAKE_OVER, phone)]
    row = phone.row
    assert (row.status, row.lease_holder, row.lease_until) == ("IN_PROGRESS", None, None)
    assert StepRun.objects.get(pk=run_id).status == RunStatus.UNKNOWN
    assert list(sweeping.take_over_stranded()) == []


def test_person_goes_on_after_the_take_over(phone: Phone, partner: FakePartner) -> None:
    strand(phone)
    list(sweeping.take_over_stranded())
    assert phone.step(1).should_proceed
    assert len(partner.effects()) == 1


def test_submission_of_a_dead_process_is_left_to_be_replayed(phone: Phone) -> None:
    strand(phone, RunKind.SUBMISSION)
    assert list(sweeping.take_over_stranded()) == [done(SweepKind.TAKE_OVER, phone)]
    assert (phone.row.status, phone.row.error_code) == ("FAILED", ErrorCode.SUBMISSION_FAILED)


def test_living_call_is_left_alone(phone: Phone) -> None:
    strand(phone, ago=-timedelta(minutes=1))
    with nothing_happens():
        assert list(sweeping.take_over_stranded()) == []


def test_taken_over_with_its_session_gone_it_ends_at_once(phone: Phone) -> None:
    strand(phone)
    let_expire(phone)
    assert list(sweeping.take_over_stranded()) == [done(SweepKind.TAKE_OVER, phone)]
    assert (phone.row.status, phone.row.error_code) == ("FAILED", ErrorCode.SESSION_EXPIRED)


def test_call_that_came_back_to_life_is_skipped(phone: Phone) -> None:
    strand(phone)
    found = sweeping._stranded(10)
    assert next(found) == phone.execution_id
    WorkflowExecution.objects.update(lease_until=timezone.now() + timedelta(minutes=1))
    skipped = sweeping._mended(phone.execution_id, is_done=sweeping._has_no_lease)
    assert skipped is SweepOutcome.SKIPPED


# --- sessions that are gone -----------------------------------------------------------------------


def test_overdue_execution_ends_as_expired(phone: Phone) -> None:
    let_expire(phone)
    assert list(sweeping.expire_overdue()) == [done(SweepKind.EXPIRE, phone)]
    row = phone.row
    assert (row.status, row.error_code) == ("FAILED", ErrorCode.SESSION_EXPIRED)
    assert row.completed_at is not None
    assert list(sweeping.expire_overdue()) == []


def test_living_session_has_the_say(phone: Phone) -> None:
    WorkflowExecution.objects.update(expires_at=timezone.now() - timedelta(minutes=1))
    with nothing_happens():
        assert list(sweeping.expire_overdue(asks_sessions=True)) == []


def test_session_lost_before_its_time_is_found_when_the_store_is_asked(phone: Phone) -> None:
    get_session_store().clear_session(phone.row.session_id)
    assert list(sweeping.expire_overdue()) == []
    assert list(sweeping.expire_overdue(asks_sessions=True)) == [done(SweepKind.EXPIRE, phone)]
    assert phone.row.error_code == ErrorCode.SESSION_EXPIRED


def test_execution_with_a_living_call_does_not_expire(phone: Phone) -> None:
    strand(phone, ago=-timedelta(minutes=1))
    let_expire(phone)
    with nothing_happens():
        assert list(sweeping.expire_overdue(asks_sessions=True)) == []


@pytest.mark.parametrize("page", [1, 2, 5, 6])
def test_every_page_is_looked_at_once(compiled: CompiledWorkflow, page: int) -> None:
    """Also where many started at the same moment, and whether or not the rows stay."""
    many_executions(compiled, 5, ended=None)
    wanted = sorted(WorkflowExecution.objects.values_list("id", flat=True))
    would = [one.ids[0] for one in sweeping.expire_overdue(dry_run=True, page=page)]
    assert would == wanted
    assert [one.ids[0] for one in sweeping.expire_overdue(page=page)] == wanted
    assert not WorkflowExecution.objects.live().exists()


def test_store_that_is_away_ends_the_search_with_one_failure(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    Phone(phone.compiled)
    store = MemorySessionStore(is_down=True)
    monkeypatch.setattr(sweeping, "get_session_store", lambda: store)
    with nothing_happens():
        [failed] = sweeping.expire_overdue(asks_sessions=True)
        assert (failed.outcome, failed.count) == (SweepOutcome.FAILED, 0)
        assert refused() == ("Not everything could be done; run it again.", 1)


# --- what cannot be mended ------------------------------------------------------------------------


def fail_finally(phone: Phone) -> None:
    """Its submission failed, and nobody repeated it in time."""
    past = timezone.now() - timedelta(minutes=1)
    WorkflowExecution.objects.filter(pk=phone.execution_id).update(
        status=WorkflowExecutionStatus.FAILED,
        error_code=ErrorCode.SUBMISSION_FAILED,
        completed_at=past,
        undo_at=past,
    )


@pytest.mark.parametrize(
    ("make_due", "sweep", "kind", "outcome"),
    [
        # its call is closed; that its session is not in step with it then is for its next caller
        (strand, sweeping.take_over_stranded, SweepKind.TAKE_OVER, SweepOutcome.DONE),
        (let_expire, sweeping.expire_overdue, SweepKind.EXPIRE, SweepOutcome.FAILED),
        (fail_finally, sweeping.undo_final_failures, SweepKind.UNDO, SweepOutcome.FAILED),
    ],
)
def test_one_that_cannot_be_mended_keeps_nobody_waiting(
    phone: Phone,
    make_due: Callable[[Phone], object],
    sweep: Callable[[], Iterator[Swept]],
    kind: SweepKind,
    outcome: SweepOutcome,
) -> None:
    """It comes first, each time: its version is of a release that this one cannot read."""
    good = Phone(published(flow(*STEPS)))
    for each in (phone, good):
        make_due(each)
    version = WorkflowVersion.objects.filter(pk=phone.row.version_id)
    QuerySet.update(version, document={"steps": "?"})  # its own refuses
    forget_everything()
    with capture_logs() as lines:
        assert list(sweep()) == [done(kind, phone, outcome), done(kind, good)]
        assert all(one.outcome is SweepOutcome.FAILED for one in sweep())
    told = [line for line in lines if line["event"] == "not swept"]
    # Once, and not every few seconds.
    assert [line["execution"] for line in told] == [str(phone.execution_id)]
    if outcome is SweepOutcome.FAILED:
        assert refused() == ("Not everything could be done; run it again.", 1)


def test_a_database_that_is_away_ends_the_search(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would fail at each: nobody waits for them one by one."""
    for each in (phone, Phone(phone.compiled)):
        strand(each)

    def away(_execution_id: UUID) -> None:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(sweeping, "mend", away)
    monkeypatch.setattr(type(connections["default"]), "is_usable", lambda _self: False)
    with pytest.raises(OperationalError):
        list(sweeping.take_over_stranded())


# --- retention ------------------------------------------------------------------------------------


def test_ended_executions_go_with_all_their_records(
    phone: Phone, compiled: CompiledWorkflow
) -> None:
    assert phone.step(1).success
    assert phone.complete().success
    assert StepAttempt.objects.count() == 1
    end_long_ago(phone, days=31)
    kept = Phone(compiled)
    kept.cancel()
    end_long_ago(kept, days=29)
    assert list(sweeping.delete_past_retention(days=30)) == [
        done(SweepKind.DELETE_EXECUTIONS, phone)
    ]
    assert list(WorkflowExecution.objects.values_list("id", flat=True)) == [kept.execution_id]
    assert list(StepRun.objects.values_list("execution_id", flat=True)) == [kept.execution_id]
    assert StepAttempt.objects.count() == 0


def test_live_execution_is_never_deleted(compiled: CompiledWorkflow) -> None:
    many_executions(compiled, 3, ended=None)
    with nothing_happens():
        assert list(sweeping.delete_past_retention(days=1)) == []


@pytest.mark.parametrize("batch", [2, 3, 7])
def test_batches_are_bounded_and_leave_none(compiled: CompiledWorkflow, batch: int) -> None:
    many_executions(compiled, 6, ended=timedelta(days=3))
    would = list(sweeping.delete_past_retention(days=2, dry_run=True, batch=batch))
    swept = list(sweeping.delete_past_retention(days=2, batch=batch, clock=lambda: 0.0))
    assert [one.ids for one in swept] == [one.ids for one in would]
    assert [one.count for one in swept] == {2: [2, 2, 2], 3: [3, 3], 7: [6]}[batch]
    assert StepRun.objects.count() == 0


def test_slow_batches_are_followed_by_smaller_ones(compiled: CompiledWorkflow) -> None:
    """The clock is asked before and after each."""
    many_executions(compiled, 120, ended=timedelta(days=3))
    seconds = iter([0.0, 1.0] * 99)
    swept = sweeping.delete_past_retention(days=2, clock=lambda: next(seconds))
    assert [one.count for one in swept] == [25, 12, *([10] * 8), 3]
    assert WorkflowExecution.objects.count() == 0


def test_quick_batches_grow_up_to_the_bound(compiled: CompiledWorkflow) -> None:
    many_executions(compiled, 120, ended=timedelta(days=3))
    swept = sweeping.delete_past_retention(days=2, batch=40, clock=lambda: 0.0)
    assert [one.count for one in swept] == [25, 40, 40, 15]


def test_what_another_one_gave_back_is_found_before_the_end(compiled: CompiledWorkflow) -> None:
    """It lies behind where the search has come to, as a batch does whose process was killed."""
    many_executions(compiled, 3, ended=timedelta(days=3))
    swept = sweeping.delete_past_retention(days=2, batch=2)
    assert next(swept).count == 2
    many_executions(compiled, 1, ended=timedelta(days=9))
    assert [one.count for one in swept] == [1, 1]
    assert WorkflowExecution.objects.count() == 0


def test_what_staff_did_stays_without_their_words(phone: Phone, compiled: CompiledWorkflow) -> None:
    """They may name the person, whom an erasure would not find any more."""
    kept = Phone(compiled)
    for each in (phone, kept):
        each.cancel()
        OperatorAction.objects.create(
            execution_id=each.execution_id,
            action=OperatorActionKind.REVEAL_VALUE,
            by="olga",
            reason="Alice called",
            about="context /form0/name",
            at=timezone.now(),
        )
    end_long_ago(phone, days=31)
    list(sweeping.delete_past_retention(days=30))
    told = OperatorAction.objects.values_list("execution_id", "by", "action", "reason", "about")
    assert set(told) == {
        (phone.execution_id, "olga", "REVEAL_VALUE", "", ""),
        (kept.execution_id, "olga", "REVEAL_VALUE", "Alice called", "context /form0/name"),
    }


@pytest.mark.usefixtures("db")
def test_records_of_trials_go_after_the_retention() -> None:
    for days in (40, 31, 29):
        TriggerTrial.objects.create(
            at=timezone.now() - timedelta(days=days),
            by="olga",
            workflow_id=new_id(),
            what=f"{days} days ago",
            connection="sandbox",
            origin="https://sandbox.example",
            is_sandbox=True,
        )
    assert told("--retention-days", "0")["DELETE_TRIALS"]["DONE"] == 0
    words = ("--retention-days", "30")
    assert told(*words, "--dry-run")["DELETE_TRIALS"]["WOULD_BE_DONE"] == 2
    assert TriggerTrial.objects.count() == 3
    counts = [one.count for one in sweeping.delete_old_trials(days=30, batch=1)]
    assert counts == [1, 1]
    assert TriggerTrial.objects.get().what == "29 days ago"


def test_retention_is_off_by_default(compiled: CompiledWorkflow) -> None:
    many_executions(compiled, 1, ended=timedelta(days=10_000))
    assert "kept for ever" in run()[0]
    assert WorkflowExecution.objects.count() == 1


def test_setting_gives_the_retention_and_the_option_overrides_it(
    compiled: CompiledWorkflow, settings: Settings
) -> None:
    settings.RETENTION_DAYS = 5
    many_executions(compiled, 2, ended=timedelta(days=10))
    assert told("--retention-days", "0")["DELETE_EXECUTIONS"]["DONE"] == 0
    assert told("--retention-days", "20")["DELETE_EXECUTIONS"]["DONE"] == 0
    assert told()["DELETE_EXECUTIONS"]["DONE"] == 2
    assert WorkflowExecution.objects.count() == 0


# --- sessions in the database ---------------------------------------------------------------------


def test_expired_sessions_leave_the_database(db: None) -> None:
    store = DatabaseSessionStore()
    for name in ("a", "b", "c"):
        store.set_context(name, context={"x": 1}, state={}, sequence=0, ttl_seconds=60)
    SessionRecord.objects.exclude(pk="b").update(expires_at=timezone.now() - timedelta(minutes=1))
    assert told("--dry-run")["DELETE_SESSIONS"]["WOULD_BE_DONE"] == 2
    counts = [one.count for one in sweeping.delete_expired_sessions(batch=1)]
    assert counts == [1, 1]
    assert list(SessionRecord.objects.values_list("pk", flat=True)) == ["b"]


# --- the command ----------------------------------------------------------------------------------


def test_dry_run_tells_what_the_run_then_does(phone: Phone, compiled: CompiledWorkflow) -> None:
    strand(phone)
    expired, old = Phone(compiled), Phone(compiled)
    let_expire(expired)
    old.cancel()
    end_long_ago(old, days=40)
    words = ("--retention-days", "30")
    with nothing_happens():
        would = told(*words, "--dry-run")
        lines = run(*words, "--dry-run")[0].splitlines()
    assert would["TAKE_OVER"]["ids"] == [str(phone.execution_id)]
    assert would["EXPIRE"]["ids"] == [str(expired.execution_id)]
    assert would["DELETE_EXECUTIONS"]["ids"] == [str(old.execution_id)]
    assert lines[:2] == [
        "Calls of dead processes taken over: would be 1",
        f"  {phone.execution_id}",
    ]
    did = told(*words)
    for kind in ("TAKE_OVER", "EXPIRE", "DELETE_EXECUTIONS"):
        assert (would[kind]["WOULD_BE_DONE"], did[kind]["DONE"]) == (1, 1)
        assert did[kind]["ids"] == would[kind]["ids"]
    with nothing_happens():
        assert told(*words)["TAKE_OVER"]["DONE"] == 0


def test_report_names_every_kind(phone: Phone) -> None:
    let_expire(phone)
    lines = run()[0].splitlines()
    # What was started in the last five seconds is counted the next time.
    assert lines.pop(7).startswith("Days counted for the dashboard: ")
    assert lines == [
        "Calls of dead processes taken over: 0",
        "Runs that kill their workers parked: 0",
        "Executions without a session ended: 1",
        f"  {phone.execution_id}",
        "Final failures whose steps are being undone: 0",
        "Forgotten runs handed to workers again: 0",
        "Outcomes told of what staff left to workers: 0",
        "Executions past retention deleted: none, they are kept for ever (RETENTION_DAYS is 0)",
        "Records of trials past retention deleted: none, they are kept for ever (RETENTION_DAYS is 0)",
        "Expired sessions deleted: 0",
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--retention-days", "-1"), "--retention-days has to be between 0 and 36500."),
        (("--batch", "0"), "--batch has to be between 1 and 1000."),
    ],
)
def test_wrong_usage_is_refused(db: None, words: tuple[str, str], sentence: str) -> None:
    assert refused(*words) == (sentence, 2)


# --- many, twice at once, and killed --------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_twice_at_once_and_killed_gives_the_same_rows(compiled: CompiledWorkflow) -> None:
    many_executions(compiled, 600, ended=None)
    many_executions(compiled, 600, ended=timedelta(days=40))
    words = ("cleanup_executions", "--retention-days", "30", "--batch", "20", "--json")
    killed = CommandProcess(*words)
    wait_until(lambda: WorkflowExecution.objects.live().count() < 600, seconds=30)
    killed.kill()
    both = [CommandProcess(*words), CommandProcess(*words)]
    told = [each.wait() for each in both]
    assert [code for code, _, _ in told] == [0, 0], told
    left = Counter(WorkflowExecution.objects.values_list("status", "error_code", "sequence"))
    assert left == {(WorkflowExecutionStatus.FAILED, ErrorCode.SESSION_EXPIRED, 2): 600}
    assert StepRun.objects.count() == 600
    deleted = [json.loads(out)["DELETE_EXECUTIONS"]["DONE"] for _, out, _ in told]
    assert sum(deleted) == 600


def explained(sql: str) -> str:
    with connection.cursor() as cursor:
        is_sqlite = connection.vendor == "sqlite"
        cursor.execute(f"EXPLAIN {'QUERY PLAN ' if is_sqlite else ''}{sql}")
        return "\n".join(str(row) for row in cursor.fetchall())


def test_no_search_reads_a_whole_table(compiled: CompiledWorkflow) -> None:
    """PostgreSQL plans by what there is, so there is much; SQLite plans by the indexes alone."""
    many_executions(compiled, 1, ended=timedelta(days=1))
    if connection.vendor == "postgresql":
        multiply_ended(100_000)
    many_executions(compiled, 300, ended=None)
    strand(Phone(compiled))
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    with CaptureQueriesContext(connection) as captured:
        list(sweeping.take_over_stranded(dry_run=True))
        list(sweeping.expire_overdue(dry_run=True))
        list(sweeping.expire_overdue(dry_run=True, asks_sessions=True, page=100))
        next(sweeping.delete_past_retention(days=1, dry_run=True))
        next(sweeping.delete_past_retention(days=1))
    searches = [query["sql"] for query in captured if "executions_" in query["sql"]]
    assert len(searches) > 10
    for sql in searches:
        plan = explained(sql)
        for table in ("executions_workflowexecution", "executions_steprun"):
            assert f"Seq Scan on {table}" not in plan, (sql, plan)
            for line in plan.splitlines():
                assert f"SCAN {table}" not in line or "USING" in line, (sql, plan)
