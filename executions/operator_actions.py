"""The record of what staff do by hand: written before it is done, and once for each form.

Whoever shows a form gives it an id for the action that it will be. A form that is sent a second
time names an action that is there already: it is refused, and nothing happens twice.
"""

from datetime import datetime
from uuid import UUID

from django.db import IntegrityError, transaction

from config.ids import new_id
from executions.enums import OperatorActionKind, OperatorOutcome
from executions.errors import ExecutionError
from executions.models import OperatorAction

MAX_ABOUT = 500
_MAX_BY = 255


class ActionRepeated(ExecutionError):
    """This form was sent before: what it asked for was not done a second time."""

    code = "ACTION_REPEATED"


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


def item_of(form_id: UUID, execution_id: UUID) -> UUID:
    """The id of one execution's action in a form about many: the form's time, the execution's end."""
    low = (1 << 62) - 1
    return UUID(int=form_id.int & ~low | (form_id.int ^ execution_id.int) & low)
