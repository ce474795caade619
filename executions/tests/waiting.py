"""Runs that wait for a partner's late answer, and the partner's side of it."""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from django.utils import timezone

from executions.callback_tokens import CallbackToken, new_token
from executions.callbacks import Receipt, receive
from executions.enums import RunKind, RunStatus
from executions.models import UNFINISHED_STATUSES, StepRun
from executions.tests.phone import Phone, flow, form, published
from workflows.connections import set_connection
from workflows.enums import StepExecutionMode, TriggerTiming

SECRET = "the secret of the bank's callbacks"
HOUR = timedelta(hours=1)


def signed(body: bytes, *, secret: str = SECRET, at: datetime | None = None) -> str:
    """The signature that a partner puts on a body."""
    seconds = int((at or timezone.now()).timestamp())
    digest = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


@dataclass(frozen=True)
class Waiting:
    """A run whose partner was told a token."""

    token: CallbackToken

    @property
    def row(self) -> StepRun:
        return StepRun.objects.get(callback_hash=self.token.hash)

    @property
    def columns(self) -> dict[str, object]:
        return dict(StepRun.objects.filter(callback_hash=self.token.hash).values().get())

    @property
    def path(self) -> str:
        return f"/callbacks/{self.token.token}"

    def receives(self, body: bytes, signature: str | None = None) -> Receipt:
        """Hand a callback to the engine."""
        return receive(self.token.token, body=body, signature=signature, now=timezone.now())


def waiting_run(
    status: RunStatus = RunStatus.WAITING,
    *,
    callback_secret: str = "",
    phone: Phone | None = None,
    **columns: Any,
) -> Waiting:
    """A run in this status at the connection `bank`, as an async step leaves it."""
    set_connection(
        name="bank", base_url="https://bank.example.com", callback_secret=callback_secret
    )
    phone = phone or Phone(published(flow(form(0))))
    token = new_token()
    now = timezone.now()
    step = phone.compiled.steps[0]
    is_unfinished = status in UNFINISHED_STATUSES
    StepRun.objects.create(
        **{
            "execution_id": phone.execution_id,
            "kind": RunKind.STEP,
            "step_id": step.id,
            "step_index": step.index,
            "timing": TriggerTiming.AFTER_STEP,
            "mode": StepExecutionMode.SERVER_ASYNC,
            "status": status,
            "sequence": phone.row.sequence + 1 + len(phone.runs),
            "trigger_key": uuid4(),
            "connection": "bank",
            "started_at": now - HOUR,
            "finished_at": None if is_unfinished else now,
            "due_at": now + HOUR,
            "callback_hash": token.hash,
            "callback_expires_at": now + HOUR,
            **columns,
        }
    )
    return Waiting(token)
