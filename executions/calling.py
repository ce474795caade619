"""One call to a partner under a lease: intent before, outcome after, nothing of ours held between."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from django.conf import settings

from config import metrics
from config.ids import new_id
from config.jsonvalues import JsonValue
from executions import ledger
from executions.enums import ErrorCode
from executions.leases import IsOurs, lease_keeper
from executions.ledger import FromNow, Row
from executions.outcomes import AttemptRecord, CallResult, Certainty, TriggerResponse
from executions.partner_calls import PartnerCall
from executions.surroundings import Surroundings
from executions.triggers import Happened, StatusAnswer, ask_status, call_partner
from workflows.compiled import CompiledStatus
from workflows.errors import ExpressionFailed
from workflows.retry import RetryPolicy

_STILL_UNKNOWN = "An earlier call has an unknown outcome, and the partner does not say which."


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to be the one that calls a partner for an execution, and the run it is for."""

    execution_id: UUID
    run_id: UUID = field(default_factory=new_id)
    holder: UUID = field(default_factory=uuid4)
    since: float = field(default_factory=time.monotonic)
    """When it was made, which is before it is taken."""

    def taken(self) -> Row:
        """The columns that take the lease."""
        return {"lease_holder": self.holder, "lease_until": FromNow(settings.LEASE_SECONDS)}

    @staticmethod
    def given_back() -> Row:
        """The columns that end it."""
        return {"lease_holder": None, "lease_until": None}

    @contextmanager
    def kept(self) -> Iterator[IsOurs]:
        """Hold the lease as long as the partner takes; no database connection is held meanwhile.

        The block is told how to ask whether the lease still lives.
        """
        ledger.release_connection()
        with lease_keeper.holding(self.execution_id, self.holder, since=self.since) as is_ours:
            yield is_ours

    def attempt_row(self, record: AttemptRecord) -> Row:
        """The attempt's row."""
        return {
            "run_id": self.run_id,
            "number": record.number,
            "outcome": record.outcome.value,
            "http_status": record.http_status,
            "error_code": record.error_code,
            "started_at": record.started_at,
            "duration_ms": record.duration_ms,
        }

    def note_failed(self, record: AttemptRecord) -> None:
        """Write down an attempt that another one will follow."""
        ledger.note_attempt(self.attempt_row(record))
        ledger.release_connection()


def call_under(
    lease: Lease,
    call: PartnerCall,
    *,
    policy: RetryPolicy,
    world: Surroundings,
    deadline_ms: float,
    is_ours: IsOurs,
) -> CallResult:
    """Call the partner with retries while the lease is kept; failed attempts become rows at once."""
    result = call_partner(
        call,
        policy=policy,
        world=world,
        deadline_ms=deadline_ms,
        on_failed_attempt=lease.note_failed,
        may_send=is_ours,
    )
    count_attempts(call.connection.name, result)
    return result


def count_attempts(connection: str, result: CallResult) -> None:
    """Tell the metrics."""
    for attempt in result.attempts:
        metrics.trigger_attempted(
            connection=connection,
            outcome=attempt.outcome.value,
            seconds=attempt.duration_ms / 1000,
        )


def last_attempt(lease: Lease, result: CallResult) -> list[Row]:
    """The row of the attempt that none followed; the others are written already."""
    if result.is_last_told:
        return []
    return [lease.attempt_row(record) for record in result.attempts[-1:]]


def ask(
    question: PartnerCall,
    status: CompiledStatus,
    *,
    world: Surroundings,
    deadline_ms: float | None = None,
) -> CallResult | None:
    """What the partner's `status` endpoint settles of a call in doubt; None: it did not happen."""

    def is_expected(body: JsonValue) -> bool:
        if status.expect is None:
            return True
        try:
            return status.expect.evaluate({"result": body}) is True
        except ExpressionFailed:
            return False

    answer = ask_status(question, expect=is_expected, world=world, deadline_ms=deadline_ms)
    return _result_of_status(answer)


def _result_of_status(answer: StatusAnswer) -> CallResult | None:
    """What a status endpoint's answer settles; None when the effect did not happen."""
    if answer.happened is Happened.NO:
        return None
    attempts = () if answer.attempt is None else (answer.attempt,)
    if answer.happened is Happened.YES:
        return CallResult(
            response=TriggerResponse(status=200, body=answer.result),
            attempts=attempts,
            certainty=Certainty.ANSWERED,
        )
    return CallResult(
        response=None,
        attempts=attempts,
        certainty=Certainty.UNKNOWN,
        error_code=ErrorCode.TRIGGER_UNAVAILABLE,
        retryable=True,
        retry_after_ms=answer.retry_after_ms,
        message=_STILL_UNKNOWN,
    )
