"""A trial on record: who sent what to whom, committed before it is sent, and what came of it."""

from uuid import UUID

from executions.enums import OperatorOutcome
from executions.models import TriggerTrial
from executions.surroundings import Surroundings
from executions.trying import SANDBOX, PlannedTrial, Trial, target_of, try_trigger


def send(
    plan: PlannedTrial, *, workflow_id: UUID, step_id: UUID | None, by: str, world: Surroundings
) -> Trial:
    """Make the trial. Its record stays STARTED when the process dies meanwhile."""
    record = TriggerTrial(
        at=world.now(),
        by=by,
        workflow_id=workflow_id,
        step_id=step_id,
        what=target_of(plan.subject)[:500],
        connection=plan.connection,
        origin=plan.origin[:500],
        is_sandbox=plan.connection == SANDBOX,
    )
    record.save(force_insert=True)
    trial = try_trigger(plan, world=world)
    record.outcome = OperatorOutcome(trial.outcome)
    record.http_status = trial.http_status
    record.save(update_fields=["outcome", "http_status"])
    return trial
