"""Callbacks: the answer that a partner posts later, to an address that only it was told.

Persisted first, then applied: what was answered with 200 is never lost, whatever dies afterwards. The
first answer wins, and the row's lock decides which that is. While a worker holds the run, it
concludes the run with the answer; otherwise the answer is applied at once, or by the next worker.
"""

import base64
import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from config.crypto import fingerprint, is_fingerprint_of
from config.jsonvalues import JsonValue, dump_canonical
from config.killpoints import reached
from config.logs import get_logger
from executions import worker
from executions.callback_tokens import hash_of, seal_callback
from executions.enums import RunStatus
from executions.errors import ExecutionError
from executions.models import UNFINISHED_STATUSES, StepRun
from executions.outcomes import ExchangeFailed
from executions.partner_json import read_json
from workflows.connections import connection_by_name
from workflows.errors import EndpointForbidden

CALLBACK_WINDOW_SECONDS: Final = 300
MAX_CALLBACK_BYTES: Final = 1 << 20

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_SIGNATURE = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")
# Nobody knows what became of these: the late answer is the truth.
_OPEN_AGAIN: Final = (RunStatus.UNKNOWN, RunStatus.PARKED)

_log = get_logger("handrail.callbacks")


class CallbackRefused(ExecutionError):
    """The callback was refused."""

    outcome: ClassVar[str] = "REFUSED"


class CallbackUnknown(CallbackRefused):
    """There is no such callback."""

    outcome = "UNKNOWN"


class CallbackUnsigned(CallbackRefused):
    """The callback needs a good signature, made within the last five minutes."""

    outcome = "UNSIGNED"


class CallbackUncheckable(CallbackRefused):
    """The signature cannot be checked at the moment; post the same again later."""

    outcome = "UNCHECKABLE"
    retryable = True


class CallbackUnreadable(CallbackRefused):
    """The body is not JSON that can be kept."""

    outcome = "UNREADABLE"


class CallbackTooLarge(CallbackRefused):
    """The body is too large."""

    outcome = "TOO_LARGE"


class CallbackConflict(CallbackRefused):
    """Another answer was taken before this one."""

    outcome = "CONFLICT"


class CallbackExpired(CallbackRefused):
    """Nobody waits for this callback any more."""

    outcome = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer is kept: now, or by an earlier callback with the same body."""

    run_id: UUID
    is_repeat: bool


def receive(token: str, *, body: bytes, signature: str | None, now: datetime) -> Receipt:
    """Keep a partner's late answer and apply it. Raises CallbackRefused, and then nothing changed.

    That it could not be applied is no error: it is kept, and a worker applies it. `now` is only for
    the signature's time; everything else goes by the database's clock.
    """
    digest = hash_in(token)
    found = StepRun.objects.filter(callback_hash=digest).values_list("connection", flat=True)
    connection = found.first()
    if connection is None:
        raise CallbackUnknown
    _check_signature(signature, connection=connection, body=body, now=now)
    receipt = _persist(digest, _value_in(body))
    if not receipt.is_repeat:
        reached("after-callback-record")
        _apply(receipt.run_id)
    return receipt


def hash_in(token: str) -> bytes:
    """The hash that a token is known by. Raises CallbackUnknown for what is no token of ours."""
    if not _TOKEN.fullmatch(token):
        raise CallbackUnknown
    return hash_of(base64.urlsafe_b64decode(f"{token}="))


def _check_signature(signature: str | None, *, connection: str, body: bytes, now: datetime) -> None:
    try:
        secret = connection_by_name(connection).callback_secret
    except EndpointForbidden:
        # Gone, or its secrets cannot be opened: nobody knows any more whether it asked for one.
        _log.error("callback cannot be checked", connection=connection)
        raise CallbackUncheckable from None
    if not secret:
        return
    match = _SIGNATURE.fullmatch(signature or "")
    if match is None:
        raise CallbackUnsigned
    signed = hmac.digest(secret.encode(), f"{match[1]}.".encode() + body, "sha256").hex()
    is_right = hmac.compare_digest(signed, match[2])
    if not is_right or abs(now.timestamp() - int(match[1])) > CALLBACK_WINDOW_SECONDS:
        raise CallbackUnsigned


def _value_in(body: bytes) -> JsonValue:
    if len(body) > MAX_CALLBACK_BYTES:
        raise CallbackTooLarge
    try:
        return read_json(body, coding="identity", max_bytes=MAX_CALLBACK_BYTES)
    except ExchangeFailed as error:
        raise CallbackUnreadable from error


def _persist(digest: bytes, value: JsonValue) -> Receipt:
    content = dump_canonical(value)
    try:
        with transaction.atomic():
            # A second look: while we waited for its lock, a newer run took the token over.
            run = _locked(digest) or _locked(digest)
            if run is None:
                raise CallbackUnknown
            if run.callback_received_at is not None:
                return _repeated(run, content)
            _check_is_open(run)
            _take(run, value, body_hash=fingerprint(content))
    except IntegrityError as error:
        # A newer run of the same call is under way, or has succeeded.
        raise CallbackConflict from error
    return Receipt(run.id, is_repeat=False)


def _locked(digest: bytes) -> StepRun | None:
    return (
        StepRun.objects.select_for_update()
        .annotate(read_at=Now())
        .filter(callback_hash=digest)
        .first()
    )


def _repeated(run: StepRun, content: bytes) -> Receipt:
    if not is_fingerprint_of(run.callback_body_hash, content):
        raise CallbackConflict
    return Receipt(run.id, is_repeat=True)


def _check_is_open(run: StepRun) -> None:
    read_at: datetime = run.read_at  # type: ignore[attr-defined]  # annotated
    ends_at = run.callback_expires_at
    if ends_at is None and run.finished_at is not None:
        # No 202 has come, so the time began when the call was given up.
        ends_at = run.finished_at + timedelta(seconds=settings.CALLBACK_TTL_SECONDS)
    if ends_at is not None and ends_at <= read_at:
        raise CallbackExpired
    if run.status == RunStatus.CANCELLED:
        raise CallbackExpired
    if run.status not in (*UNFINISHED_STATUSES, *_OPEN_AGAIN):
        raise CallbackConflict


def _take(run: StepRun, value: JsonValue, *, body_hash: bytes) -> None:
    """Keep the answer and make the run due; a lease stays, and its holder finds the answer."""
    opened_again: dict[str, object] = {}
    if run.status in _OPEN_AGAIN:
        opened_again = {
            "status": RunStatus.QUEUED,
            "finished_at": None,
            "duration_ms": None,
            "error_code": "",
            "error": "",
            "needs_attention": False,
            "claims": 0,
        }
    StepRun.objects.filter(pk=run.pk).update(
        sealed_callback=seal_callback(value, run.id),
        callback_body_hash=body_hash,
        callback_received_at=Now(),
        due_at=Now(),
        **opened_again,
    )


def _apply(run_id: UUID) -> None:
    try:
        worker.work_off(run_id)
    except Exception as error:  # noqa: BLE001 - a door: the answer is kept, and a worker applies it
        _log.error("callback kept but not applied", run=str(run_id), error=type(error).__name__)
