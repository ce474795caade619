"""A trial on record: who sent what to whom, committed before it is sent, and what came of it."""

from uuid import UUID

from django.db import IntegrityError, transaction

from executions.enums import OperatorOutcome
from executions.errors import ExecutionError
from executions.models import TriggerTrial
from executions.surroundings import Surroundings
from executions.trying import SANDBOX, PlannedTrial, Trial, target_of, try_trigger


class TrialRepeated(ExecutionError):
    """This form was sent before: the request was not sent a second time."""

    code = "ACTION_REPEATED"


def send(
    plan: PlannedTrial,
    *,
    trial_id: UUID,
    workflow_id: UUID,
    step_id: UUID | None,
    by: str,
    world: Surroundings,
) -> Trial:
    """Make the trial. Its record stays STARTED when the process dies meanwhile.

    Raises TrialRepeated, having called nobody, when there is a trial of this id: each is a request of
    its own to the partner, and a second click must not move money twice.
    """
    record = TriggerTrial(
        id=trial_id,
        at=world.now(),
        by=by,
        workflow_id=workflow_id,
        step_id=step_id,
        what=target_of(plan.subject)[:500],
        connection=plan.connection,
        origin=plan.origin[:500],
        is_sandbox=plan.connection == SANDBOX,
    )
    try:
        with transaction.atomic():
            record.save(force_insert=True)
    except IntegrityError:
        raise TrialRepeated from None
    trial = try_trigger(plan, world=world)
    record.outcome = OperatorOutcome(trial.outcome)
    record.http_status = trial.http_status
    record.save(update_fields=["outcome", "http_status"])
    return trial
