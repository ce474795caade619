"""erase_user: afterwards nothing of the person is anywhere, and what happened is still countable."""

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from redis import Redis

from executions import erasing
from executions.erasing import CANCEL_REASON, Erased, ErasureOutcome, erase_executions
from executions.models import OperatorAction, SessionRecord, StepRun, WorkflowExecution
from executions.session_store import get_session_store
from executions.tests.evidence import everything_stored, nothing_happens
from executions.tests.fakes import MemorySessionStore
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.records import CommandProcess, let_expire, strand
from executions.tests.servers import wait_until
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow

pytestmark = pytest.mark.django_db

PERSON = "sentinel-person"
SENTINEL = "sentinel"
PATH = "/api/anything/x"


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    steps = (form(0), server_step(1, triggerEndpoint=PATH), form(2))
    return published(
        flow(
            *steps,
            finalApi={"endpoint": "/api/anything/final", "method": "POST"},
            apiMapping={"name": "form0.name", "who": "userId"},
        )
    )


def started(compiled: CompiledWorkflow, user_id: str = PERSON) -> Phone:
    """Past its form and its partner call, everything said with sentinels."""
    phone = Phone(compiled, user_id=user_id, initial={"account": f"{user_id}-account"})
    WorkflowExecution.objects.filter(pk=phone.execution_id).update(page_id=f"{user_id}-page")
    assert phone.step(0, {"name": f"{user_id}-name"}, key=f"{user_id}-step-key").success
    assert phone.step(1).success
    return phone


def finished(phone: Phone) -> Phone:
    assert phone.step(2, {"note": f"{phone.user_id}-note"}).success
    phone.complete(key=f"{phone.user_id}-complete-key")
    return phone


@pytest.fixture
def everything(compiled: CompiledWorkflow, partner: FakePartner) -> dict[str, Phone]:
    """The person's executions in every state there is."""
    partner.answer(PATH, {"echo": f"{SENTINEL}-answer"})
    partner.answer("/api/anything/final", {"echo": f"{SENTINEL}-result"}, times=1)
    phones = {"completed": finished(started(compiled))}
    partner.fault(
        "/api/anything/final", "status", status=422, body={"message": f"{SENTINEL}-refused"}
    )
    phones["failed"] = finished(started(compiled))
    phones["cancelled"] = started(compiled)
    phones["cancelled"].cancel(f"{SENTINEL}-reason", key=f"{SENTINEL}-cancel-key")
    phones["expired"] = started(compiled)
    let_expire(phones["expired"])
    phones["live"] = started(compiled)
    phones["stranded"] = started(compiled)
    strand(phones["stranded"])
    OperatorAction.objects.create(
        execution_id=phones["failed"].execution_id,
        action="REPLAY_SUBMISSION",
        by="operator",
        reason=f"{SENTINEL} called us",
        at=timezone.now(),
    )
    return phones


def run(*words: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("erase_user", *words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def dump_of_database() -> str:
    """Every column of every row of every table."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            found += [f"{table} {row}" for row in map(_readable, cursor.fetchall())]
    # Their rows hold them compressed.
    found += [f"django_session {each.get_decoded()}" for each in Session.objects.all()]
    return "\n".join(found)


def _readable(row: tuple[Any, ...]) -> list[object]:
    return [bytes(v) if isinstance(v, bytes | memoryview) else v for v in row]


def dump_of_redis() -> str:
    """Every key with everything in it, as it was written: a key's dump may be compressed."""
    if not settings.REDIS_URL:
        return ""
    with Redis.from_url(settings.REDIS_URL) as client:
        read: dict[bytes, Callable[[bytes], object]] = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"set": client.smembers,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        }
        return "\n".join(f"{key} {read[client.type(key)](key)}" for key in client.scan_iter())


def test_nothing_of_the_person_is_left_anywhere(
    everything: dict[str, Phone],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert dump_of_database().count(SENTINEL) > 20
    caplog.set_level(logging.DEBUG)
    capfd.readouterr()
    out, err = run(PERSON)
    assert out.splitlines()[-1] == "6 executions erased, with their sessions."
    written = capfd.readouterr()
    for text in (dump_of_database(), dump_of_redis(), caplog.text, *written, out, err):
        assert SENTINEL not in text
    for phone in everything.values():
        assert not phone.has_session
        assert phone.execution_id.hex not in dump_of_redis()
    sealed = ("sealed_request", "sealed_answer", "input_hash", "arguments_hash")
    kept = StepRun.objects.values_list(*sealed)
    assert set(kept) == {(None, None, None, None)}
    assert SessionRecord.objects.count() == 0


def test_counts_stay_without_the_person(everything: dict[str, Phone]) -> None:
    runs = StepRun.objects.count()
    list(erase_executions(PERSON))
    ended = {name: (phone.row.status, phone.row.error_code) for name, phone in everything.items()}
    assert ended == {
        "completed": ("COMPLETED", ""),
        "failed": ("FAILED", "SUBMISSION_FAILED"),
        "cancelled": ("CANCELLED", ""),
        "expired": ("FAILED", "SESSION_EXPIRED"),
        "live": ("CANCELLED", ""),
        "stranded": ("CANCELLED", ""),
    }
    assert StepRun.objects.count() == runs + 2  # the two cancellations
    [marker] = {phone.row.user_id for phone in everything.values()}
    assert marker.startswith("erased:")
    assert len(marker) == len("erased:") + 16
    assert everything["live"].row.cancel_reason == CANCEL_REASON
    assert everything["cancelled"].row.cancel_reason == ""


def test_every_erasure_has_a_marker_of_its_own(compiled: CompiledWorkflow) -> None:
    first, second = started(compiled), started(compiled, user_id="bob")
    list(erase_executions(PERSON))
    list(erase_executions("bob"))
    assert first.row.user_id != second.row.user_id


def test_others_keep_everything(compiled: CompiledWorkflow) -> None:
    bob = started(compiled, user_id="bob")
    before = everything_stored()
    started(compiled)
    assert [one.outcome for one in erase_executions(PERSON)] == [ErasureOutcome.ERASED]
    after = everything_stored()
    assert after["sessions"] == before["sessions"]
    assert [row for row in after["WorkflowExecution"] if row["user_id"] == "bob"] == before[
        "WorkflowExecution"
    ]
    assert bob.step(2, {"note": "goes on"}).success


def test_dry_run_changes_nothing(everything: dict[str, Phone]) -> None:
    with nothing_happens():
        report = json.loads(run(PERSON, "--dry-run", "--json")[0])
    wanted = {str(phone.execution_id): phone.row.is_live for phone in everything.values()}
    assert {one["id"]: one["wasLive"] for one in report["executions"]} == wanted
    assert {one["outcome"] for one in report["executions"]} == {"WOULD_BE_ERASED"}


def test_second_run_finds_nothing(everything: dict[str, Phone]) -> None:
    run(PERSON)
    with nothing_happens():
        assert run(PERSON)[0] == "There is nothing of this person.\n"


def test_erased_submission_cannot_be_repeated(
    everything: dict[str, Phone], partner: FakePartner
) -> None:
    list(erase_executions(PERSON))
    row = everything["failed"].row
    everything["failed"].user_id = row.user_id
    calls = len(partner.calls())
    assert everything["failed"].complete().error_code == "SUBMISSION_FAILED"
    assert len(partner.calls()) == calls


def test_living_call_is_waited_for_and_then_reported(compiled: CompiledWorkflow) -> None:
    busy, other = started(compiled), started(compiled)
    run_id = strand(busy)
    WorkflowExecution.objects.filter(pk=busy.execution_id).update(
        lease_until=timezone.now() + timedelta(minutes=1)
    )
    waits: list[float] = []
    erased = list(erase_executions(PERSON, sleep=waits.append))
    told = "Another call on this execution is being worked off; try again shortly."
    assert erased == [
        Erased(busy.execution_id, True, ErasureOutcome.FAILED, told),
        Erased(other.execution_id, True, ErasureOutcome.ERASED),
    ]
    assert waits == [erasing.PAUSE_SECONDS] * (erasing.TRIES - 1)
    assert (busy.row.user_id, busy.row.status) == (PERSON, "IN_PROGRESS")
    assert StepRun.objects.get(pk=run_id).status == "RUNNING"


def test_call_that_ends_meanwhile_is_erased(compiled: CompiledWorkflow) -> None:
    busy = started(compiled)
    strand(busy)
    rows = WorkflowExecution.objects.filter(pk=busy.execution_id)
    rows.update(lease_until=timezone.now() + timedelta(minutes=1))

    def die(_seconds: float) -> None:
        rows.update(lease_until=timezone.now() - timedelta(minutes=1))

    [erased] = erase_executions(PERSON, sleep=die)
    assert erased.outcome is ErasureOutcome.ERASED
    assert busy.row.user_id != PERSON


def test_store_that_is_away_fails_and_keeps_the_handle(
    everything: dict[str, Phone], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemorySessionStore(is_down=True)
    monkeypatch.setattr(erasing, "get_session_store", lambda: store)
    with pytest.raises(CommandError) as error:
        run(PERSON)
    assert error.value.returncode == 1
    assert str(error.value) == ("6 of 6 executions still hold the person's data; run it again.")
    assert WorkflowExecution.objects.owned_by(PERSON).count() == 6
    monkeypatch.undo()
    run(PERSON)
    assert SENTINEL not in dump_of_database()


def test_no_name_is_wrong_usage(db: None) -> None:
    with pytest.raises(CommandError) as error:
        run("")
    assert error.value.returncode == 2


@pytest.mark.django_db(transaction=True)
def test_twice_at_once_and_killed_leaves_nothing(compiled: CompiledWorkflow) -> None:
    for _ in range(40):
        Phone(compiled, user_id=PERSON).step(0, {"name": f"{PERSON}-name"})
    owned = WorkflowExecution.objects.owned_by(PERSON)
    killed = CommandProcess("erase_user", PERSON)
    wait_until(lambda: owned.count() < 40, seconds=30)
    killed.kill()
    both = [CommandProcess("erase_user", PERSON, "--json") for _ in range(2)]
    codes = [each.wait()[0] for each in both]
    assert codes == [0, 0]
    assert SENTINEL not in dump_of_database() + dump_of_redis()
    assert set(WorkflowExecution.objects.values_list("status", "cancel_reason")) == {
        ("CANCELLED", CANCEL_REASON)
    }
    assert StepRun.objects.filter(kind="CANCELLATION").count() == 40
    store = get_session_store()
    for row in WorkflowExecution.objects.all():
        assert store.get_session_ttl(row.session_id) is None
