"""Takes one queued run and works one attempt of it off. The loop around it is `worker_loop.py`.

A run is claimed by a conditional update that sets its lease, so it has one worker however many were
woken. One claim is one attempt: between two attempts nobody holds it, and `due_at` says when the
next one is. Everything that the call needs was sealed with the run when it was accepted, so no
session is read or written here, and a lost one costs nothing.

A worker that dies leaves a lease that runs out; who finds that knows that the partner may have been
called, and calls again under the same key. A run that has cost five workers their lives is parked,
and so is one whose kept request cannot be unsealed.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import NamedTuple
from uuid import UUID, uuid4

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Case, Exists, F, OuterRef, QuerySet, When
from django.db.models.functions import Now

from config import metrics
from config.crypto import Unsealable
from config.jsonvalues import JsonObject, dump_compact
from config.killpoints import reached
from executions import calling, composing, ending, judging, ledger, tasks
from executions.callback_tokens import open_callback, token_in
from executions.composing import Composed
from executions.enums import ErrorCode, RunKind, RunStatus, WorkflowExecutionStatus
from executions.errors import SessionUnavailable
from executions.judging import StepOutcome
from executions.leases import IsOurs, lease_keeper
from executions.models import DONE_STATUSES, StepAttempt, StepRun, WorkflowExecution
from executions.outcomes import (
    AttemptRecord,
    CallResult,
    Certainty,
    TriggerResponse,
    is_tried_again,
)
from executions.partner_calls import PartnerCall
from executions.redaction import redactor_of
from executions.run_data import open_data, seal_data
from executions.state import Verdict
from executions.surroundings import Surroundings, get_surroundings
from executions.triggers import call_partner
from workflows.compiled import CompiledStep, CompiledTrigger, CompiledWorkflow
from workflows.errors import EndpointForbidden
from workflows.retry import RetryPolicy
from workflows.versions import compiled_version

logger = logging.getLogger(__name__)

MAX_CLAIMS = 5
"""So many workers may die of one run before it is parked."""

SUSPECT_CLAIMS = 3
"""After so many deaths a run is worked off beside no other of which as many workers have died."""

HELD_BACK_MS = 1_000
"""The wait of a run whose call was not even tried, when nobody says how long it will be."""

OUTAGE_PAUSE_SECONDS = 0.5

_ACCEPTED = 202
_ONE_TRY = RetryPolicy()
_POISONOUS = "The workers that took this run died of it; it is held for operators."
_CALLED_OFF = "Called off before a worker began."
_IN_DOUBT = "Called off; nobody knows whether the partner has acted."
_NO_ANSWER = "The partner has not answered in time."
_UNREADABLE = "What was kept of it cannot be unsealed; it is held for operators."
_TOO_LARGE = "The partner's answer is too large to keep."


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a run until its lease runs out."""

    run_id: UUID
    holder: UUID
    connection: str
    is_suspect: bool = False
    since: float = field(default_factory=time.monotonic)
    """The monotonic time, in seconds, before it was taken."""


def work_off(run_id: UUID, *, world: Surroundings | None = None) -> bool:
    """Claim the run and work one attempt of it off; False when it is not due or somebody has it."""
    claims = claim_woken([run_id])
    for claim in claims:
        work(claim, world=world)
    return bool(claims)


class Found(NamedTuple):
    """A run that may be taken, as it was seen."""

    run_id: UUID
    connection: str
    claims: int

    @property
    def is_suspect(self) -> bool:
        """Whether so many workers have died of it, or beside one that they died of."""
        return self.claims >= SUSPECT_CLAIMS


@dataclass(frozen=True, slots=True)
class Share:
    """What may be taken together: of each connection `most` runs, those `busy` with it included,
    and one suspect, so that those that were beside a poisonous run are not parked with it.
    """

    most: int
    busy: Mapping[str, int]
    has_suspect: bool = False

    @property
    def full(self) -> list[str]:
        """The connections that have all of it."""
        return [name for name, count in self.busy.items() if count >= self.most]

    def of(self, found: Iterable[Found]) -> list[Found]:
        """Those of the runs found that there is room for."""
        counts, has_suspect = Counter(self.busy), self.has_suspect
        taken = []
        for run in found:
            if counts[run.connection] < self.most and not (has_suspect and run.is_suspect):
                counts[run.connection] += 1
                has_suspect |= run.is_suspect
                taken.append(run)
        return taken

    def less(self, claims: Iterable[Claim]) -> Share:
        """What is left of it beside these."""
        claims = list(claims)
        busy = Counter(self.busy) + Counter(claim.connection for claim in claims)
        suspects = any(claim.is_suspect for claim in claims)
        return Share(self.most, busy, self.has_suspect or suspects)


def claim_woken(run_ids: Collection[UUID], *, share: Share | None = None) -> list[Claim]:
    """Claim those of these runs that are due and free, of each connection no more than its share."""
    if not run_ids:
        return []
    runs = takeable(share).filter(pk__in=run_ids)
    return _claim(runs, limit=len(run_ids), share=share)


def claim_due(limit: int, *, share: Share | None = None) -> list[Claim]:
    """Claim up to `limit` runs, the longest due first, of each connection no more than its share.

    One query when there is nothing to do (in a transaction on PostgreSQL), by the index of
    unfinished work.
    """
    return _claim(takeable(share).order_by("due_at", "id"), limit=limit, share=share)


def takeable(share: Share | None = None) -> QuerySet[StepRun]:
    """Due runs that are not poisonous. Of an execution's compensations only the first undone one."""
    before = StepRun.objects.filter(
        execution_id=OuterRef("execution_id"),
        kind=RunKind.COMPENSATION,
        sequence__lt=OuterRef("sequence"),
    ).exclude(status__in=DONE_STATUSES)
    runs = StepRun.objects.due().filter(claims__lt=MAX_CLAIMS)
    runs = runs.exclude(Exists(before), kind=RunKind.COMPENSATION)
    if share is None:
        return runs
    if share.has_suspect:
        runs = runs.filter(claims__lt=SUSPECT_CLAIMS)
    return runs.exclude(connection__in=share.full) if share.full else runs


def _claim(runs: QuerySet[StepRun], *, limit: int, share: Share | None) -> list[Claim]:
    """Claim of these runs, past those that somebody has locked.

    A machine that lost its power in a transaction leaves rows locked until PostgreSQL notices. Who
    waits for one takes nothing else meanwhile, and every worker comes to it.
    """
    if not connection.features.has_select_for_update_skip_locked:
        return _claim_unlocked(runs, limit=limit, share=share)
    with transaction.atomic():
        unlocked = runs.select_for_update(skip_locked=True, no_key=True)
        return _claim_unlocked(unlocked, limit=limit, share=share)


def _claim_unlocked(runs: QuerySet[StepRun], *, limit: int, share: Share | None) -> list[Claim]:
    seen = [Found(*row) for row in runs.values_list("pk", "connection", "claims")[:limit]]
    found = {run.run_id: run for run in (seen if share is None else share.of(seen))}
    if not found:
        return []
    holder, since = uuid4(), time.monotonic()
    # Who was faster has set a lease: the condition is looked at again under the row's lock.
    won = (
        StepRun.objects.due()
        .filter(pk__in=list(found), claims__lt=MAX_CLAIMS)
        .update(
            status=RunStatus.RUNNING,
            lease_holder=holder,
            lease_until=Now() + timedelta(seconds=settings.LEASE_SECONDS),
            claims=F("claims") + 1,
            # Whose lease ran out was at work: its partner may have heard of it.
            in_doubt=Case(When(status=RunStatus.RUNNING, then=True), default=F("in_doubt")),
        )
    )
    if won < len(found):
        held = StepRun.objects.filter(pk__in=list(found), lease_holder=holder)
        found = {pk: found[pk] for pk in held.values_list("pk", flat=True)}
    return [
        Claim(run.run_id, holder, run.connection, run.is_suspect, since) for run in found.values()
    ]


def park(run_id: UUID) -> bool:
    """Hold a run for operators whose workers died too often; False when it is not one (any more)."""
    parked = (
        StepRun.objects.due()
        .filter(pk=run_id, status=RunStatus.RUNNING, claims__gte=MAX_CLAIMS)
        .update(
            status=RunStatus.PARKED,
            error=_POISONOUS,
            finished_at=Now(),
            should_proceed=False,
            needs_attention=True,
            lease_holder=None,
            lease_until=None,
        )
    )
    return bool(parked)


def hand_back(claims: Collection[Claim]) -> int:
    """Give runs back whose calls this process does not wait for; how many it held still.

    The partner has them perhaps: they are in doubt, and due when their leases would have run out
    had the process died, which it has not, so that the claim does not count. To be followed by the
    end of the process.
    """
    ours = StepRun.objects.filter(
        pk__in=[claim.run_id for claim in claims],
        lease_holder__in={claim.holder for claim in claims},
    )
    due = Now() + timedelta(seconds=settings.LEASE_SECONDS)
    return ours.update(
        status=RunStatus.QUEUED,
        due_at=_unless_called_back(due),
        in_doubt=True,
        claims=F("claims") - 1,
        **_GIVEN_BACK,
    )


def work(claim: Claim, *, world: Surroundings | None = None) -> None:
    """Work one attempt of a claimed run off. The lease is kept meanwhile, and given back."""
    reached("after-claim")
    with lease_keeper.holding_run(claim.run_id, claim.holder, since=claim.since) as is_ours:
        run = StepRun.objects.select_related("execution").get(pk=claim.run_id)
        _Work(run, claim.holder, world or get_surroundings(), is_ours).do()


class _Work:
    """One claimed run, from its row to its row."""

    def __init__(self, run: StepRun, holder: UUID, world: Surroundings, is_ours: IsOurs) -> None:
        self.run = run
        self.holder = holder
        self.world = world
        self.is_ours = is_ours

    @cached_property
    def compiled(self) -> CompiledWorkflow:
        return compiled_version(self.run.execution.version_id)

    @cached_property
    def step(self) -> CompiledStep:
        return self.compiled.steps[self.run.step_index or 0]

    @property
    def is_step(self) -> bool:
        return self.run.kind == RunKind.STEP

    @cached_property
    def earlier_ms(self) -> list[int]:
        """How long each attempt of earlier claims took."""
        return list(self.run.attempts.values_list("duration_ms", flat=True))

    @cached_property
    def composed(self) -> Composed:
        """The sealed request; that of a compensation was sealed with the run that it undoes."""
        owner = self.run.compensates_id or self.run.id
        return Composed.unsealed(self.run.sealed_request or b"", run_id=owner)

    def do(self) -> None:
        try:
            _ = self.composed
        except Unsealable:
            logger.exception("run %s: the kept request cannot be unsealed", self.run.id)
            self._hold()
            return
        if self.run.sealed_callback is not None:
            self._conclude_with_callback()
        elif self.run.callback_expires_at is not None:
            self._end_wait()
        elif self.is_step and not self.run.execution.is_live:
            self._call_off()
        else:
            self._call()

    # --- calling ----------------------------------------------------------------------------------

    def _call(self) -> None:
        trigger = self.step.trigger if self.is_step else self.step.compensation
        if trigger is None:
            raise LookupError(f"run {self.run.id} has nothing to call")
        try:
            call = self._addressed(trigger, self.composed)
            question = self._question(trigger)
        except EndpointForbidden as error:
            logger.error("run %s: %s", self.run.id, error.message)  # noqa: TRY400 - no bug
            self._fail_unsent(ErrorCode.ENDPOINT_FORBIDDEN, EndpointForbidden().message)
            return
        ledger.release_connection()
        result = None
        if question is not None and trigger.status is not None:
            result = calling.ask(question, trigger.status, world=self.world)
        if result is None:
            result = call_partner(call, policy=_ONE_TRY, world=self.world, may_send=self.is_ours)
        calling.count_attempts(call.connection.name, result)
        reached("after-worker-answer")
        self._take_through_outages(result, trigger)

    def _addressed(
        self, trigger: CompiledTrigger, composed: Composed, *, method: str | None = None
    ) -> PartnerCall:
        return composing.addressed(
            composed,
            trigger,
            execution_id=self.run.execution_id,
            step_id=self.step.id,
            key=self.run.trigger_key or self.run.id,
            method=method,
        )

    def _question(self, trigger: CompiledTrigger) -> PartnerCall | None:
        """The call that asks whether the effect happened; None when there is no doubt."""
        status = trigger.status
        if status is None or not self.run.in_doubt or not self.composed.status_endpoint:
            return None
        body = None if status.method == "GET" else b"{}"
        asked = Composed(endpoint=self.composed.status_endpoint, body=body)
        return self._addressed(trigger, asked, method=status.method)

    # --- what came of it --------------------------------------------------------------------------

    def _take_through_outages(self, result: CallResult, trigger: CompiledTrigger) -> None:
        """Record again while the database is away or has no connection free, as long as a lease.

        What the partner has answered would be lost otherwise, and the call made once more. To record
        it twice, or too late, does nothing: the conditions name the lease.
        """
        last_ms = self.world.clock() + settings.LEASE_SECONDS * 1000
        while True:
            try:
                return self._take(result, trigger)
            except (OperationalError, InterfaceError) as error:
                if self.world.clock() >= last_ms or connection.in_atomic_block:
                    raise
                logger.warning("run %s: not recorded yet: %s", self.run.id, type(error).__name__)
                connection.close()
                self.world.sleep(OUTAGE_PAUSE_SECONDS)

    def _take(self, result: CallResult, trigger: CompiledTrigger) -> None:
        """Wait for a callback, try again later, or conclude."""
        attempts = self._numbered(result)
        if not attempts:
            self._release(result.retry_after_ms or HELD_BACK_MS, attempts)
            return
        if result.certainty is Certainty.ANSWERED:
            if self.is_step and result.http_status == _ACCEPTED:
                self._wait(attempts)
            else:
                self._conclude(self._judged(result), attempts)
            return
        delay_ms = self._delay_before_next(attempts[-1], trigger.retry)
        if delay_ms is None:
            self._conclude(self._judged(result), attempts)
        else:
            self._release(delay_ms, attempts)

    def _numbered(self, result: CallResult) -> list[AttemptRecord]:
        """The attempts, counted on from those of earlier claims."""
        if not result.attempts:
            return []
        before = len(self.earlier_ms)
        return [
            replace(record, number=before + number)
            for number, record in enumerate(result.attempts, start=1)
        ]

    def _delay_before_next(self, last: AttemptRecord, policy: RetryPolicy) -> int | None:
        if not is_tried_again(last):
            return None
        delay_ms = policy.next_delay_ms(
            attempt=last.number - self.run.attempts_before,
            jitter=self.world.jitter(),
            retry_after_ms=last.retry_after_ms,
        )
        rest_ms = self.world.breakers.look(self.run.connection).rest_ms
        return None if delay_ms is None else max(delay_ms, int(rest_ms))

    def _judged(self, result: CallResult) -> StepOutcome:
        if not self.is_step:
            return self._judged_compensation(result)
        outcome = judging.judge_call(
            self.step,
            result,
            value=self.composed.value,
            context=self.composed.reads,
            was_unknown=self.run.in_doubt,
        )
        is_kept = outcome.verdict is Verdict.PROCEED
        if is_kept and len(dump_compact(outcome.result)) > self.composed.room_bytes:
            return judging.unkept(ErrorCode.TRIGGER_BAD_RESPONSE, _TOO_LARGE)
        return outcome

    def _judged_compensation(self, result: CallResult) -> StepOutcome:
        certainty = judging.certainty_of(result, was_unknown=self.run.in_doubt, is_guarded=True)
        if certainty is Certainty.ANSWERED:
            return judging.proceed(None if result.response is None else result.response.body)
        return judging.failure(result, certainty)

    def _conclude_with_callback(self) -> None:
        """The partner's late answer decides as an answer at once would have."""
        try:
            body = open_callback(self.run)
        except SessionUnavailable:
            logger.exception("run %s: its callback cannot be unsealed", self.run.id)
            self._hold()
            return
        answered = CallResult(TriggerResponse(200, body), (), Certainty.ANSWERED)
        self._conclude(self._judged(answered), [])

    def _fail_unsent(self, code: ErrorCode, message: str) -> None:
        """Nothing was sent now; what was sent before stays unknown."""
        verdict = Verdict.UNKNOWN if self.run.in_doubt else Verdict.NOT_SENT
        failed = StepOutcome(verdict, success=False, should_proceed=False, error=message)
        self._conclude(replace(failed, error_code=code), [])

    def _hold(self) -> None:
        """What cannot be unsealed is kept, with what a partner answered: its key may come back."""
        self._own().update(
            status=RunStatus.PARKED,
            error_code=ErrorCode.SESSION_UNAVAILABLE,
            error=_UNREADABLE,
            should_proceed=False,
            finished_at=Now(),
            needs_attention=True,
            **_GIVEN_BACK,
        )
        outcome = ErrorCode.SESSION_UNAVAILABLE.value
        metrics.run_worked_off(kind=self.run.kind, outcome=outcome)

    def _end_wait(self) -> None:
        """The time for the callback is over, or a worker died just when it looked."""
        self._rewait_or(
            judging.unkept(ErrorCode.TRIGGER_TIMEOUT, _NO_ANSWER),
        )

    def _rewait_or(self, ended: StepOutcome) -> None:
        waits = self._own().filter(callback_expires_at__gt=Now(), sealed_callback__isnull=True)
        waiting = waits.update(
            status=RunStatus.WAITING, due_at=F("callback_expires_at"), **_GIVEN_BACK
        )
        if not waiting:
            self._conclude(ended, [])

    def _call_off(self) -> None:
        """The execution has ended: what was never sent is not sent any more."""
        if self.run.in_doubt:
            self._conclude(judging.unkept(ErrorCode.TRIGGER_UNAVAILABLE, _IN_DOUBT), [])
            return
        self._own().update(
            status=RunStatus.CANCELLED,
            error=_CALLED_OFF,
            should_proceed=False,
            sealed_request=None,
            finished_at=Now(),
            **_GIVEN_BACK,
        )

    # --- the rows ---------------------------------------------------------------------------------

    def _own(self) -> QuerySet[StepRun]:
        return StepRun.objects.filter(pk=self.run.id, lease_holder=self.holder)

    def _release(self, delay_ms: int, attempts: Sequence[AttemptRecord]) -> None:
        """Give the run back until its next attempt; an answer that came meanwhile is due at once."""
        due = Now() + timedelta(milliseconds=delay_ms)
        self._give_back(attempts, status=RunStatus.QUEUED, due_at=_unless_called_back(due))

    def _wait(self, attempts: Sequence[AttemptRecord]) -> None:
        """The partner has the work: its callback is waited for."""
        expiry = Now() + timedelta(seconds=settings.CALLBACK_TTL_SECONDS)
        self._give_back(
            attempts,
            status=RunStatus.WAITING,
            due_at=_unless_called_back(expiry),
            callback_expires_at=expiry,
        )
        if StepRun.objects.filter(pk=self.run.id, sealed_callback__isnull=False).exists():
            tasks.wake(self.run.id)

    def _give_back(self, attempts: Sequence[AttemptRecord], **to: object) -> None:
        is_in_doubt = self._in_doubt_after(attempts)
        with transaction.atomic():
            if self._own().update(in_doubt=is_in_doubt, claims=0, **to, **_GIVEN_BACK):
                self._write_attempts(attempts)

    def _in_doubt_after(self, attempts: Sequence[AttemptRecord]) -> bool:
        unknown = any(record.outcome in judging.UNKNOWN_OUTCOMES for record in attempts)
        return self.run.in_doubt or unknown

    def _conclude(self, outcome: StepOutcome, attempts: Sequence[AttemptRecord]) -> None:
        """End the run, and undo what succeeded too late. An answer that was posted meanwhile wins."""
        is_posted = self.run.sealed_callback is not None
        with transaction.atomic():
            execution = WorkflowExecution.objects.select_for_update().get(pk=self.run.execution_id)
            own = self._own() if is_posted else self._own().filter(sealed_callback__isnull=True)
            if not own.update(**self._end(outcome, attempts, execution), **_GIVEN_BACK):
                self._let_callback_decide(attempts)
                return
            self._write_attempts(attempts)
            if outcome.verdict is Verdict.PROCEED:
                self._after_success(execution)
        metrics.run_worked_off(
            kind=self.run.kind, outcome=outcome.error_code or outcome.run_status.value
        )

    def _let_callback_decide(self, attempts: Sequence[AttemptRecord]) -> None:
        now_due: dict[str, object] = {"status": RunStatus.QUEUED, "due_at": Now(), "claims": 0}
        with transaction.atomic():
            if self._own().update(**now_due, **_GIVEN_BACK):
                self._write_attempts(attempts)
                tasks.wake(self.run.id)

    def _after_success(self, execution: WorkflowExecution) -> None:
        if not self.is_step:
            ending.wake_next_undo(self.run.execution_id, after=self.run.sequence)
        elif self.step.compensation is not None and ending.is_ended_undone(execution):
            ending.undo_succeeded(execution.pk, self.compiled)

    def _end(
        self,
        outcome: StepOutcome,
        attempts: Sequence[AttemptRecord],
        execution: WorkflowExecution,
    ) -> dict[str, object]:
        redactor = redactor_of(self.compiled.sensitive)
        at = self.step.result_key
        secrets = self.composed.secrets | redactor.secrets({at: outcome.result})
        if self.composed.callback_url:
            secrets |= {token_in(self.composed.callback_url)}  # a partner may repeat it
        is_success = outcome.verdict is Verdict.PROCEED
        end: dict[str, object] = {
            "status": outcome.run_status,
            "should_proceed": outcome.should_proceed,
            "result": redactor.redact(outcome.result, secrets, at=at),
            "error_code": "" if outcome.error_code is None else outcome.error_code.value,
            "error": redactor.redact_text(outcome.error or "", secrets),
            "finished_at": Now(),
            "duration_ms": self._duration_ms(attempts),
            "in_doubt": outcome.verdict is Verdict.UNKNOWN,
            "needs_attention": self._needs_attention(outcome, execution),
            "claims": 0,
            "sealed_callback": None,
        }
        if outcome.is_definite and (self.is_step or is_success):
            end["sealed_request"] = None
        if is_success and self.is_step:
            end["sealed_data"] = self._kept_result(outcome) if execution.is_live else None
            is_over = execution.status == WorkflowExecutionStatus.COMPLETED
            end["sealed_compensation"] = None if is_over else self._compensation(outcome, secrets)
        return end

    def _needs_attention(self, outcome: StepOutcome, execution: WorkflowExecution) -> bool:
        """A compensation that failed for good; an effect of which nobody knows whether to undo it."""
        if not self.is_step:
            return outcome.verdict is not Verdict.PROCEED
        is_unknown = outcome.verdict is Verdict.UNKNOWN
        return is_unknown and self.step.compensation is not None and not execution.is_live

    def _duration_ms(self, attempts: Sequence[AttemptRecord]) -> int:
        return sum(self.earlier_ms) + sum(record.duration_ms for record in attempts)

    def _kept_result(self, outcome: StepOutcome) -> bytes:
        """The result, for the context; beside it what a durable session keeps of the input."""
        kept = open_data(self.run.sealed_data, owner_id=self.run.id)
        brought: JsonObject = {**kept, self.step.result_key: outcome.result}
        return seal_data(brought, owner_id=self.run.id)

    def _compensation(self, outcome: StepOutcome, secrets: frozenset[str]) -> bytes | None:
        if self.step.compensation is None:
            return None
        return ending.sealed_compensation(
            self.step,
            execution_id=self.run.execution_id,
            workflow=self.compiled.name,
            user_id=self.run.execution.user_id,
            context=self.composed.reads,
            value=self.composed.value,
            result=outcome.result,
            key=self.run.trigger_key or self.run.id,
            secrets=secrets,
            run_id=self.run.id,
        )

    def _write_attempts(self, attempts: Sequence[AttemptRecord]) -> None:
        StepAttempt.objects.bulk_create(
            StepAttempt(
                run_id=self.run.id,
                number=record.number,
                outcome=record.outcome,
                http_status=record.http_status,
                error_code=record.error_code,
                started_at=record.started_at,
                duration_ms=record.duration_ms,
            )
            for record in attempts
        )


_GIVEN_BACK: dict[str, None] = {"lease_holder": None, "lease_until": None}


def _unless_called_back(due: object) -> Case:
    return Case(When(sealed_callback__isnull=False, then=Now()), default=due)
