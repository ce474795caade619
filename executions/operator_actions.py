"""The record of what staff do by hand: written before it is done, and once for each form.

Whoever shows a form gives it an id for the action that it will be. A form that is sent a second
time names an action that is there already: it is refused, and nothing happens twice. The id is
signed, because actions are listed in the order of their ids: nobody chooses where theirs stands.
"""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from django.core import signing
from django.db import IntegrityError, transaction

from config.ids import new_id
from executions.enums import OperatorActionKind, OperatorOutcome
from executions.errors import ExecutionError
from executions.models import OperatorAction

MAX_ABOUT = 500
FORM_LASTS: Final = timedelta(hours=12)
_MAX_BY = 255


class ActionRepeated(ExecutionError):
    """This form was sent before: what it asked for was not done a second time."""

    code = "ACTION_REPEATED"


class FormRefused(ExecutionError):
    """The form is too old, or not one that you were shown: nothing was done. Look again."""

    code = "FORM_REFUSED"


def new_form_id(*, by: str) -> str:
    """An id for the form that `by` is shown now."""
    return _signer(by).sign(str(new_id()))


def read_form_id(text: str, *, by: str) -> UUID:
    """The id. Raises FormRefused for one that `by` was not given within FORM_LASTS."""
    try:
        return UUID(_signer(by).unsign(text, max_age=FORM_LASTS))
    except (signing.BadSignature, ValueError):
        raise FormRefused from None


def _signer(by: str) -> signing.TimestampSigner:
    return signing.TimestampSigner(salt=f"executions.forms.{by}")


def begin(
    execution_id: UUID,
    *,
    action: OperatorActionKind,
    by: str,
    reason: str,
    at: datetime,
    action_id: UUID | None = None,
    about: str = "",
    outcome: OperatorOutcome = OperatorOutcome.STARTED,
) -> OperatorAction:
    """The record, STARTED unless told otherwise. Raises ActionRepeated for an id that is taken."""
    try:
        with transaction.atomic():
            return OperatorAction.objects.create(
                id=action_id or new_id(),
                execution_id=execution_id,
                action=action,
                by=by[:_MAX_BY],
                reason=reason,
                about=about[:MAX_ABOUT],
                at=at,
                outcome=outcome,
            )
    except IntegrityError:
        if action_id is None:
            raise
        raise ActionRepeated from None


def end(action: OperatorAction, outcome: OperatorOutcome) -> None:
    """What came of it."""
    OperatorAction.objects.filter(pk=action.pk).update(outcome=outcome)


def item_of(form_id: UUID, execution_id: UUID, step: str = "") -> UUID:
    """The id of one action in a form about many: the form's time, and what the action is about."""
    low = (1 << 62) - 1
    about = int.from_bytes(sha256(execution_id.bytes + step.encode()).digest()[:8], "big")
    return UUID(int=form_id.int & ~low | (form_id.int ^ about) & low)
