"""A partner's late answer: kept before it is applied, once, from who may give it, while it matters."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from config.crypto import seal
from executions import worker
from executions.callback_tokens import hash_of, new_token, open_callback
from executions.callbacks import (
    CALLBACK_WINDOW_SECONDS,
    MAX_CALLBACK_BYTES,
    CallbackConflict,
    CallbackExpired,
    CallbackRefused,
    CallbackTooLarge,
    CallbackUncheckable,
    CallbackUnknown,
    CallbackUnreadable,
    CallbackUnsigned,
    Receipt,
    receive,
)
from executions.enums import RunStatus
from executions.models import StepRun
from executions.tests.phone import Phone, flow, form, published
from executions.tests.servers import at_once
from executions.tests.waiting import HOUR, SECRET, signed, waiting_run
from workflows.connections import forget_connections
from workflows.models import Connection

pytestmark = pytest.mark.django_db

BODY = b'{"verified": true, "score": 12345678901234567890123}'
VALUE = {"verified": True, "score": 12345678901234567890123}
OTHER = b'{"verified": false}'


@pytest.fixture(autouse=True)
def applied(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """The runs that a worker was asked to work off; none does."""
    asked: list[UUID] = []
    monkeypatch.setattr(worker, "work_off", asked.append)
    return asked


@pytest.fixture(autouse=True)
def _fresh_connections() -> Iterator[None]:
    yield
    forget_connections()


# --- the token ------------------------------------------------------------------------------------


def test_tokens_are_32_random_bytes_in_an_address_of_ours(settings: Any) -> None:
    settings.PUBLIC_BASE_URL = "https://flows.example.com/base"
    made = [new_token() for _ in range(100)]
    assert len({each.token for each in made}) == 100
    for each in made:
        raw = base64.urlsafe_b64decode(each.token + "=")
        assert (len(raw), each.hash) == (32, hash_of(raw))
        assert each.url == f"https://flows.example.com/base/callbacks/{each.token}"
        assert each.token not in repr(each)


@pytest.mark.parametrize(
    "token",
    ["", "short", "x" * 42, "x" * 44, "ä" * 43, "x" * 42 + "=", "x" * 42 + "\n", "x" * 42 + "/"],
)
def test_what_is_no_token_is_not_looked_for(
    token: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0), pytest.raises(CallbackUnknown):
        receive(token, body=BODY, signature=None, now=timezone.now())


def test_unknown_token_is_unknown_whatever_comes_with_it() -> None:
    waiting = waiting_run(callback_secret=SECRET)
    before = waiting.columns
    for body in (BODY, b"no json"):
        with pytest.raises(CallbackUnknown):
            receive(new_token().token, body=body, signature=signed(body), now=timezone.now())
    assert waiting.columns == before


# --- taking it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [RunStatus.QUEUED, RunStatus.WAITING])
def test_first_answer_is_kept_and_the_run_is_due(status: RunStatus, applied: list[UUID]) -> None:
    waiting = waiting_run(status)
    before = waiting.columns

    receipt = waiting.receives(BODY)

    row = waiting.row
    assert receipt == Receipt(row.id, is_repeat=False)
    assert open_callback(row) == VALUE
    assert b"verified" not in bytes(row.sealed_callback or b"")
    assert row.callback_received_at is not None
    assert row.due_at is not None
    assert row.due_at <= timezone.now() + timedelta(seconds=1)
    assert StepRun.objects.due().filter(pk=row.pk).exists()
    assert applied == [row.id]
    changed = {name for name, value in waiting.columns.items() if value != before[name]}
    assert changed == {"sealed_callback", "callback_body_hash", "callback_received_at", "due_at"}


def test_answer_that_beats_our_commit_leaves_the_worker_its_run() -> None:
    holder, until = uuid4(), timezone.now() + HOUR
    waiting = waiting_run(
        RunStatus.RUNNING, lease_holder=holder, lease_until=until, callback_expires_at=None
    )
    waiting.receives(BODY)
    row = waiting.row
    assert (row.status, row.lease_holder, row.lease_until) == (RunStatus.RUNNING, holder, until)
    assert open_callback(row) == VALUE


@pytest.mark.parametrize("status", [RunStatus.UNKNOWN, RunStatus.PARKED])
def test_late_answer_is_the_truth_where_nobody_knows(status: RunStatus) -> None:
    waiting = waiting_run(
        status,
        error_code="TRIGGER_TIMEOUT",
        error="The partner did not answer in time.",
        duration_ms=7,
        needs_attention=True,
        claims=5,
        in_doubt=True,
    )
    waiting.receives(BODY)
    row = waiting.row
    assert (row.status, row.finished_at, row.duration_ms) == (RunStatus.QUEUED, None, None)
    assert (row.error_code, row.error, row.needs_attention) == ("", "", False)
    assert (row.claims, row.in_doubt) == (0, True)
    assert StepRun.objects.due().filter(pk=row.pk).exists()


def test_an_empty_body_is_null() -> None:
    waiting = waiting_run()
    waiting.receives(b"")
    assert open_callback(waiting.row) is None


def test_answer_that_cannot_be_applied_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(run_id: UUID) -> bool:
        raise RuntimeError(str(run_id))

    monkeypatch.setattr(worker, "work_off", fail)
    waiting = waiting_run()
    assert waiting.receives(BODY).is_repeat is False
    assert open_callback(waiting.row) == VALUE


def test_token_that_a_newer_run_took_over_finds_that_run() -> None:
    phone = Phone(published(flow(form(0))))
    prior = waiting_run(RunStatus.UNKNOWN, phone=phone)
    prior_id = prior.row.id
    StepRun.objects.filter(pk=prior_id).update(callback_hash=None)
    waiting_run(phone=phone, callback_hash=prior.token.hash)

    receipt = prior.receives(BODY)

    assert receipt.run_id != prior_id
    assert open_callback(StepRun.objects.get(pk=receipt.run_id)) == VALUE
    assert StepRun.objects.get(pk=prior_id).sealed_callback is None


# --- once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [BODY, b' {"score":12345678901234567890123,"verified":true}'])
def test_repeat_is_taken_for_the_same_answer(again: bytes, applied: list[UUID]) -> None:
    waiting = waiting_run()
    first = waiting.receives(BODY)
    before = waiting.columns
    assert waiting.receives(again) == Receipt(first.run_id, is_repeat=True)
    assert waiting.columns == before
    assert applied == [first.run_id]


def test_another_answer_is_a_conflict() -> None:
    waiting = waiting_run()
    waiting.receives(BODY)
    before = waiting.columns
    with pytest.raises(CallbackConflict):
        waiting.receives(OTHER)
    assert waiting.columns == before


@pytest.mark.parametrize("status", [RunStatus.SUCCEEDED, RunStatus.REJECTED, RunStatus.FAILED])
def test_repeat_is_known_after_the_end_and_after_the_time(status: RunStatus) -> None:
    waiting = waiting_run()
    waiting.receives(BODY)
    past = timezone.now() - HOUR
    StepRun.objects.update(status=status, finished_at=past, callback_expires_at=past)
    before = waiting.columns
    assert waiting.receives(BODY).is_repeat is True
    with pytest.raises(CallbackConflict):
        waiting.receives(OTHER)
    assert waiting.columns == before


@pytest.mark.django_db(transaction=True)
def test_of_ten_answers_at_once_one_wins() -> None:
    waiting = waiting_run()
    bodies = [BODY, OTHER] * 5

    def post(body: bytes) -> str:
        try:
            return "repeat" if waiting.receives(body).is_repeat else "first"
        except CallbackConflict:
            return "conflict"
        finally:
            connection.close()

    came = list(zip(bodies, at_once([partial(post, body) for body in bodies]), strict=True))

    (winner,) = [body for body, outcome in came if outcome == "first"]
    assert sorted(outcome for body, outcome in came if body == winner) == ["first"] + ["repeat"] * 4
    assert {outcome for body, outcome in came if body != winner} == {"conflict"}
    assert open_callback(waiting.row) == (VALUE if winner == BODY else {"verified": False})


# --- while it matters -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "columns", "refusal"),
    [
        (RunStatus.SUCCEEDED, {}, CallbackConflict),
        (RunStatus.REJECTED, {}, CallbackConflict),
        (RunStatus.FAILED, {}, CallbackConflict),
        (RunStatus.CANCELLED, {}, CallbackExpired),
        # its time is over, whatever became of it
        (RunStatus.WAITING, {"callback_expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, CallbackExpired),
        (RunStatus.UNKNOWN, {"callback_expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, CallbackExpired),
        (RunStatus.FAILED, {"callback_expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, CallbackExpired),
    ],
)  # fmt: skip
def test_answer_that_comes_too_late_changes_nothing(
    status: RunStatus,
    columns: dict[str, Any],
    refusal: type[CallbackRefused],
    applied: list[UUID],
) -> None:
    waiting = waiting_run(status, **columns)
    before = waiting.columns
    with pytest.raises(refusal):
        waiting.receives(BODY)
    assert waiting.columns == before
    assert applied == []


@pytest.mark.parametrize("status", [RunStatus.UNKNOWN, RunStatus.PARKED])
def test_without_a_202_the_time_begins_when_the_call_was_given_up(
    status: RunStatus, settings: Any, applied: list[UUID]
) -> None:
    settings.CALLBACK_TTL_SECONDS = 3600
    over, open_ = (
        waiting_run(status, callback_expires_at=None, finished_at=timezone.now() - age)
        for age in (HOUR, HOUR - timedelta(minutes=1))
    )
    before = over.columns
    with pytest.raises(CallbackExpired):
        over.receives(BODY)
    assert over.columns == before
    assert open_.receives(BODY) == Receipt(open_.row.id, is_repeat=False)
    assert applied == [open_.row.id]


@pytest.mark.django_db(transaction=True)
def test_doubt_is_not_opened_again_beside_a_newer_call_under_its_key() -> None:
    phone = Phone(published(flow(form(0))))
    key = uuid4()
    unknown = waiting_run(RunStatus.UNKNOWN, phone=phone, trigger_key=key)
    newer = waiting_run(RunStatus.QUEUED, phone=phone, trigger_key=key)
    before = [unknown.columns, newer.columns]
    with pytest.raises(CallbackConflict):
        unknown.receives(BODY)
    assert [unknown.columns, newer.columns] == before


# --- who may give it ------------------------------------------------------------------------------


def test_good_signature_is_taken() -> None:
    waiting = waiting_run(callback_secret=SECRET)
    assert waiting.receives(BODY, signed(BODY)).is_repeat is False


@pytest.mark.parametrize("seconds", [CALLBACK_WINDOW_SECONDS - 5, 5 - CALLBACK_WINDOW_SECONDS])
def test_signature_within_five_minutes_is_taken(seconds: int) -> None:
    waiting = waiting_run(callback_secret=SECRET)
    at = timezone.now() + timedelta(seconds=seconds)
    assert waiting.receives(BODY, signed(BODY, at=at)).is_repeat is False


def bad_signatures() -> dict[str, str | None]:
    """What is no signature of BODY, by what is wrong with it."""
    good = signed(BODY)
    early, late = (timezone.now() + timedelta(seconds=each) for each in (-310, 310))
    return {
        "missing": None,
        "empty": "",
        "other body": signed(OTHER),
        "other secret": signed(BODY, secret="another"),
        "no secret": signed(BODY, secret=""),
        "old": signed(BODY, at=early),
        "from the future": signed(BODY, at=late),
        "other time": good.replace("t=", "t=1"),
        "no time": good.partition(",")[2],
        "upper case": good.upper().replace("T=", "t=").replace(",V1=", ",v1="),
        "something before": f" {good}",
        "something after": f"{good},v1=0",
        "negative time": good.replace("t=", "t=-"),
        "no hex": good[:-1] + "g",
        "endless time": good.replace("t=", "t=" + "9" * 5000),
    }


BAD_SIGNATURES = sorted(bad_signatures())


@pytest.mark.parametrize("wrong", BAD_SIGNATURES)
def test_bad_signature_is_refused(wrong: str, applied: list[UUID]) -> None:
    waiting = waiting_run(callback_secret=SECRET)
    before = waiting.columns
    with pytest.raises(CallbackUnsigned):
        waiting.receives(BODY, bad_signatures()[wrong])
    assert waiting.columns == before
    assert applied == []


def test_signature_comes_before_everything_that_it_would_tell_a_stranger() -> None:
    waiting = waiting_run(RunStatus.SUCCEEDED, callback_secret=SECRET)
    for body in (BODY, b"no json", b"x" * (MAX_CALLBACK_BYTES + 1)):
        with pytest.raises(CallbackUnsigned):
            waiting.receives(body, signed(OTHER))


def test_repeat_needs_a_signature_too() -> None:
    waiting = waiting_run(callback_secret=SECRET)
    waiting.receives(BODY, signed(BODY))
    with pytest.raises(CallbackUnsigned):
        waiting.receives(BODY)


def test_connection_that_is_gone_may_have_asked_for_a_signature() -> None:
    waiting = waiting_run()
    before = waiting.columns
    Connection.objects.all().delete()
    forget_connections()
    with pytest.raises(CallbackUncheckable):
        waiting.receives(BODY)
    assert waiting.columns == before


def test_secret_that_cannot_be_opened_is_not_no_secret() -> None:
    waiting = waiting_run(callback_secret=SECRET)
    Connection.objects.update(callback_secret=seal(b"", binding=b"elsewhere"))
    forget_connections()
    with pytest.raises(CallbackUncheckable):
        waiting.receives(BODY, signed(BODY, secret=""))
    assert waiting.row.sealed_callback is None


# --- what can be kept -----------------------------------------------------------------------------


UNREADABLE = {
    "text": b"no json",
    "half": b"{",
    "form": b"a=1&b=2",
    "not a number": b'{"a": NaN}',
    "infinite": b'{"a": 1e999}',
    "NUL": b'{"a": "\\u0000"}',
    "lone surrogate": b'{"a": "\\ud800"}',
    "no UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "deep": b"[" * 65 + b"]" * 65,
    "bottomless": b"[" * 100_000,
    "many digits": b"9" * 4_301,
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_no_store_keeps_is_refused(what: str) -> None:
    waiting = waiting_run()
    before = waiting.columns
    with pytest.raises(CallbackUnreadable):
        waiting.receives(UNREADABLE[what])
    assert waiting.columns == before


def test_the_body_has_its_limit() -> None:
    text = b'"' + b"x" * (MAX_CALLBACK_BYTES - 2) + b'"'
    waiting = waiting_run()
    with pytest.raises(CallbackTooLarge):
        waiting.receives(text + b" ")
    assert waiting.row.sealed_callback is None
    waiting.receives(text)
    assert open_callback(waiting.row) == "x" * (MAX_CALLBACK_BYTES - 2)
