"""Reads the evidence: the rows through the ORM, the partner's book from the sandbox."""

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime

from chaos.evidence import (
    Attempt,
    Call,
    Disturbance,
    Effect,
    Evidence,
    Execution,
    FlowFacts,
    Run,
    Story,
)
from chaos.flows import facts_of
from config.jsonvalues import dump_canonical
from executions.models import StepAttempt, StepRun, WorkflowExecution
from sandbox.ledger import Call as PartnerCall
from sandbox.messages import without_callback_url
from sandbox.testing import FakePartner
from workflows.versions import compiled_version


class PartnersBook:
    """What a partner was asked, collected before its bounded book forgets it.

    `keep_up` has to be called at least once every 10,000 calls.
    """

    def __init__(self, partner: FakePartner) -> None:
        self._partner = partner
        self._lock = threading.Lock()
        self._calls: dict[int, Call] = {}

    def keep_up(self) -> None:
        """Take over what is new."""
        with self._lock:
            for call in self._partner.calls():
                self._calls[call.number] = _call(call)

    def calls(self) -> tuple[Call, ...]:
        """All calls, the oldest first."""
        self.keep_up()
        return tuple(self._calls[number] for number in sorted(self._calls))

    def effects(self) -> tuple[Effect, ...]:
        """Everything that was done."""
        return tuple(
            Effect(effect.key, effect.path, effect.json, effect.result, effect.at)
            for effect in self._partner.effects()
        )


def gather(
    book: PartnersBook,
    *,
    stories: Sequence[Story] = (),
    disturbances: Sequence[Disturbance] = (),
) -> Evidence:
    """All evidence of the running database and of this partner."""
    return Evidence(
        executions=_executions(),
        runs=_runs(),
        effects=book.effects(),
        calls=book.calls(),
        stories=tuple(stories),
        disturbances=tuple(disturbances),
    )


def _call(call: PartnerCall) -> Call:
    return Call(
        key=call.key,
        path=call.path,
        execution_id=call.headers.get("x-workflow-execution-id", ""),
        request=dump_canonical(without_callback_url(call.json)),
        received_at=call.received_at,
        was_refused=call.status == 422,
    )


def _executions() -> tuple[Execution, ...]:
    facts: dict[object, FlowFacts] = {}
    found = []
    for row in WorkflowExecution.objects.order_by("pk").iterator():
        if row.version_id not in facts:
            facts[row.version_id] = facts_of(compiled_version(row.version_id))
        found.append(
            Execution(
                id=str(row.id),
                user_id=row.user_id,
                flow=facts[row.version_id],
                status=row.status,
                error_code=row.error_code,
                is_leased=row.lease_holder is not None,
                result=row.result,
                ended_at=_seconds(row.completed_at),
            )
        )
    return tuple(found)


def _runs() -> tuple[Run, ...]:
    attempts = _attempts()
    return tuple(
        Run(
            id=str(row.id),
            execution_id=str(row.execution_id),
            kind=row.kind,
            status=row.status,
            sequence=row.sequence,
            step_id=_text(row.step_id),
            timing=row.timing,
            visit=row.visit,
            key=_text(row.trigger_key),
            compensates=_text(row.compensates_id),
            is_leased=row.lease_holder is not None,
            needs_attention=row.needs_attention,
            result=row.result,
            attempts=tuple(attempts.get(str(row.id), ())),
            finished_at=_seconds(row.finished_at),
        )
        for row in StepRun.objects.order_by("pk").iterator()
    )


def _attempts() -> Mapping[str, list[Attempt]]:
    found: dict[str, list[Attempt]] = {}
    for row in StepAttempt.objects.order_by("pk").iterator():
        attempt = Attempt(row.started_at.timestamp(), row.duration_ms / 1000)
        found.setdefault(str(row.run_id), []).append(attempt)
    return found


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _seconds(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()
