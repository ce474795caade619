"""One step call, from a standing to an answer: check, decide, and write down before and after.

Without a partner: the row first, then the session. With a partner: the intent's row, the call, the
session, the outcome's row. Whatever line the process dies on, `recovery.py` finds rows that say so.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction

from config.crypto import Unsealable
from config.ids import new_id
from config.jsonvalues import JsonValue, dump_compact
from config.killpoints import reached
from executions import callback_tokens, calling, composing, ending, judging, ledger, state, tasks
from executions.answers import StepAnswer
from executions.calling import Lease
from executions.composing import Composed
from executions.enums import ErrorCode, RunKind, RunStatus, WorkflowExecutionStatus
from executions.errors import (
    ExecutionBusy,
    FieldError,
    InputInvalid,
    InputRefused,
    SessionUnavailable,
    StepLocked,
    StepUnknown,
)
from executions.idempotency import (
    ClientKey,
    hash_of_input,
    is_hash_of_input,
    recorded_answer,
    seal_answer,
)
from executions.judging import StepOutcome
from executions.ledger import Change, FromNow, Renewed, Row
from executions.models import LIVE_STATUSES, StepRun, WorkflowExecution
from executions.outcomes import CallResult
from executions.partner_calls import PartnerCall
from executions.recovery import Outpaced, WorkedOff
from executions.redaction import redactor_of
from executions.run_data import seal_data
from executions.session_store import get_session_store
from executions.standing import Standing, UpdatedContext
from executions.state import MarkStatus, Progress, Verdict
from executions.surroundings import Surroundings
from workflows.compiled import CompiledStep, CompiledTrigger
from workflows.enums import StepType, TriggerTiming
from workflows.errors import EndpointForbidden, ExpressionFailed, MappingIncomplete, WorkflowError

logger = logging.getLogger(__name__)

_DOUBTFUL = (RunStatus.UNKNOWN, RunStatus.PARKED)
_DIFFERENT_INPUT = (
    "An earlier call of this step has an unknown outcome; repeat it with the same input."
)
_PARKED = "Working this step off has failed too often; it is held for operators."
_RESULT_TOO_LARGE = "The partner's answer is too large to keep."


@dataclass(frozen=True, slots=True)
class StepCall:
    """What the app asks for: this step, at this timing, with this input."""

    step_id: str
    timing: TriggerTiming
    value: JsonValue
    key: ClientKey | None
    now: datetime
    world: Surroundings
    deadline_ms: float


def execute(standing: Standing, call: StepCall) -> StepAnswer:
    """Work the call off. Raises the refusal, or Outpaced when the standing is not the present one."""
    index = standing.compiled.index_by_id.get(call.step_id)
    if index is None:
        raise StepUnknown
    step = standing.compiled.steps[index]
    if state.is_settled_for_good(standing.progress, step, call.timing):
        return _settled_answer(standing, step, call.timing)
    if standing.progress.mark(index, call.timing).status is MarkStatus.QUEUED:
        queued = _queued_answer(standing, step, call)
        if queued is not None:
            return queued
    answer = _worked_off(standing, step, call)
    _cancel_outdated(standing, answer)
    return answer


def _worked_off(standing: Standing, step: CompiledStep, call: StepCall) -> StepAnswer:
    attempt = _checked(standing, step, call)
    if call.timing in step.trigger_timings:
        is_last = call.timing is step.timings[-1]
        if not (is_last and judging.declines(step, call.value)):
            return attempt.queued() if step.is_async else attempt.with_partner()
        attempt.check_nothing_in_doubt()
    outcome = judging.judge_input(step, call.value, context=attempt.scene.context)
    return attempt.without_partner(outcome)


def requests_of(
    standing: Standing, call: StepCall, *, runs: Sequence[StepRun]
) -> "list[tuple[Composed, PartnerCall]]":
    """What a call of this server step would send, in its order; nothing is sent or stored.

    `runs` are all of the execution's, in their order. Raises the refusal of the call, or
    MappingIncomplete, ExpressionFailed, EndpointForbidden.
    """
    step = standing.compiled.steps[standing.compiled.index_by_id[call.step_id]]
    return _checked(standing, step, call).requests(runs)


def _checked(standing: Standing, step: CompiledStep, call: StepCall) -> "_StepAttempt":
    """The call, if it may be made now. Raises why not."""
    state.check_callable(
        standing.progress,
        standing.compiled.steps,
        index=step.index,
        timing=call.timing,
        is_skipped=standing.is_skipped,
    )
    is_last = call.timing is step.timings[-1]
    if is_last:
        _check_input(step, call.value)
    stored = _stored_input(step, call.value) if is_last else {}
    attempt = _StepAttempt(standing, step, call, stored)
    if not attempt.has_room(stored):
        raise InputRefused(
            f"The session may hold {settings.MAX_CONTEXT_BYTES} bytes; this input is too much."
        )
    return attempt


def _queued_answer(standing: Standing, step: CompiledStep, call: StepCall) -> StepAnswer | None:
    """The answer again for the call that is being worked off; None when this one replaces it."""
    run = StepRun.objects.unfinished_work().filter(
        execution_id=standing.execution_id,
        trigger_key=composing.key_of_step(
            standing, step, call.timing, standing.progress.mark(step.index, call.timing).visit
        ),
    )
    queued = run.first()
    if queued is None:
        raise Outpaced  # it has ended since the standing was read
    if is_hash_of_input(queued.input_hash, call.value):
        return recorded_answer(queued).with_standing(standing)
    if not step.reversible:
        raise StepLocked(_DIFFERENT_INPUT)
    return None


def _cancel_outdated(before: Standing, answer: StepAnswer) -> None:
    """Going back calls off what no worker has begun; what it has begun ends unheard."""
    if answer.standing is None or not state.is_pending(before.progress):
        return
    now_queued = answer.standing.progress.queued
    keys = [
        composing.key_of_step(before, before.compiled.steps[index], timing, mark.visit)
        for (index, timing), mark in before.progress.queued.items()
        if now_queued.get((index, timing)) != mark
    ]
    if keys:
        ending.cancel_queued(before.execution_id, keys=keys)


def _settled_answer(standing: Standing, step: CompiledStep, timing: TriggerTiming) -> StepAnswer:
    run = (
        StepRun.objects.filter(
            execution_id=standing.execution_id,
            kind=RunKind.STEP,
            step_index=step.index,
            timing=timing.value,
            status=RunStatus.SUCCEEDED,
        )
        .select_related("execution")
        .order_by("-sequence")
        .first()
    )
    if run is None or not run.execution.is_live:
        raise Outpaced
    return recorded_answer(run).with_standing(standing)


def _check_input(step: CompiledStep, value: JsonValue) -> None:
    if step.type is StepType.FORM and value is None:
        raise InputInvalid([FieldError("", "an input is required")])
    if step.input_schema is None:
        return
    violations = step.input_schema.violations(value)
    if violations:
        raise InputInvalid([FieldError(path, message) for path, message in violations])


def _stored_input(step: CompiledStep, value: JsonValue) -> Mapping[str, JsonValue]:
    return {step.data_key: value} if step.stores_input and value is not None else {}


@dataclass(frozen=True, slots=True)
class _StepAttempt:
    """A call that passed every check; `stored` is what of its input the session will keep."""

    standing: Standing
    step: CompiledStep
    call: StepCall
    stored: Mapping[str, JsonValue]

    @property
    def scene(self) -> Standing:
        """The standing as this call finds it: its input is in, the results it makes worthless are out.

        Requests and conditions read this one, so that nothing outdated is sent or decided by.
        """
        return self.standing.moved(
            sequence=self.standing.sequence,
            progress=self.standing.progress,
            updates=self.stored,
            remove=self._dropped(),
        )

    def has_room(self, updates: Mapping[str, JsonValue]) -> bool:
        """Whether the session may take these values, what they replace being gone."""
        standing = self.standing
        beyond = standing.size - settings.MAX_CONTEXT_BYTES
        beyond += sum(len(dump_compact(value)) for value in updates.values())
        if beyond <= 0:
            return True
        gone = self._dropped().union(updates).intersection(standing.context)
        return beyond <= sum(len(dump_compact(standing.context[key])) for key in gone)

    # --- without a partner ------------------------------------------------------------------------

    def without_partner(self, outcome: StepOutcome) -> StepAnswer:
        """Record the outcome, then write the session; take the record back when that fails."""
        standing, step = self.standing, self.step
        visit = standing.progress.visit_of(step, self.call.timing)
        progress = self._progress(outcome.verdict, visit=visit)
        kept = outcome.verdict in (Verdict.PROCEED, Verdict.STOP)
        updates = self.stored if kept else {}
        sequence = standing.sequence + 1
        run_id = new_id()
        answer = self._answer(outcome)
        run = {
            **self._run(run_id, visit=visit, sequence=sequence),
            **self._end_of_run(outcome, answer, run_id=run_id),
            "client_key": self._client_key(outcome),
        }
        if standing.compiled.durable_session:
            run["sealed_data"] = self._kept_data(updates, run_id)
        if not ledger.apply(self._change(sequence, progress, new_run=run)):
            raise Outpaced
        reached("after-record")
        moved = standing.moved(
            sequence=sequence, progress=progress, updates=updates, remove=self._dropped()
        )
        try:
            written = self._write_session(moved, expected=standing.sequence, updates=updates)
        except SessionUnavailable:
            self._take_back(sequence, run_id)
            raise
        if not written:
            self._take_back(sequence, run_id)
            raise Outpaced
        return answer.with_standing(moved)

    def _take_back(self, sequence: int, run_id: UUID) -> None:
        """The input did not reach the session: say so, and stay at the step."""
        position = min(self.standing.progress.position, self.step.index)
        taken_back = ledger.apply(
            Change(
                execution_id=self.standing.execution_id,
                when={"sequence": sequence, "lease_holder": None, "status": LIVE_STATUSES},
                to={"sequence": sequence + 1, "position": position},
                run_id=run_id,
                run_end={
                    "status": RunStatus.FAILED.value,
                    "error_code": ErrorCode.SESSION_UNAVAILABLE.value,
                    "error": SessionUnavailable().message,
                    "should_proceed": False,
                    "client_key": None,
                },
            )
        )
        if not taken_back:
            logger.warning("execution %s moved on meanwhile", self.standing.execution_id)

    # --- with a partner, by a worker --------------------------------------------------------------

    def queued(self) -> StepAnswer:
        """Record the run for a worker and write the session, both or neither; answer at once.

        The session is written inside the transaction: a run that a worker may take is one whose
        acceptance the session knows. When the commit fails, the session is ahead, and mended.
        """
        trigger = self.step.trigger
        if trigger is None:
            raise Outpaced
        visit, prior = self._visit_and_prior()
        self._check_not_parked(prior)
        key = composing.key_of_step(self.standing, self.step, self.call.timing, visit)
        token = callback_tokens.new_token()
        try:
            composed = self._composed(trigger, prior, key=key, callback_url=token.url)
            partner_call = self._addressed(composed, trigger, key=key)
            composed = self._for_a_worker(composed, trigger, key=key)
        except (MappingIncomplete, ExpressionFailed, EndpointForbidden) as error:
            return self._unsent(error)
        run_id = new_id()
        progress = self._progress(Verdict.QUEUED, visit=visit)
        answer = self._answer(judging.queued(run_id))
        run = {
            **self._run(run_id, visit=visit, sequence=self.standing.sequence + 1),
            "status": RunStatus.QUEUED.value,
            "should_proceed": True,
            "trigger_key": key,
            "connection": partner_call.connection.name,
            "input_hash": hash_of_input(self.call.value),
            "sealed_request": composed.sealed(run_id),
            "sealed_answer": seal_answer(answer, run_id=run_id),
            "sealed_data": self._kept_data(self.stored, run_id),
            "client_key": None if self.call.key is None else self.call.key.key,
            "callback_hash": token.hash,
            "in_doubt": prior is not None,
            "due_at": FromNow(),
        }
        reached("before-intent")
        return answer.with_standing(self._enqueue(run, progress, prior))

    def _enqueue(
        self, run: dict[str, object], progress: Progress, prior: StepRun | None
    ) -> Standing:
        sequence = self.standing.sequence + 1
        moved = self.standing.moved(
            sequence=sequence, progress=progress, updates=self.stored, remove=self._dropped()
        )
        with transaction.atomic():
            if prior is not None:
                run["callback_hash"] = self._address_taken_from(prior) or run["callback_hash"]
            if not ledger.apply(self._change(sequence, progress, new_run=run)):
                raise Outpaced
            tasks.wake(UUID(str(run["id"])))
            if not self._write_session(moved, expected=self.standing.sequence, updates=self.stored):
                raise Outpaced
            reached("after-context-write")
        reached("after-intent")
        return moved

    @staticmethod
    def _address_taken_from(prior: StepRun) -> bytes | None:
        """The hash of the address for a late answer: the request is the prior run's, and so is that.

        The execution's row is locked first, as everywhere.
        """
        WorkflowExecution.objects.select_for_update().filter(pk=prior.execution_id).first()
        taken = StepRun.objects.filter(
            pk=prior.pk, status=prior.status, callback_hash=prior.callback_hash
        ).update(callback_hash=None)
        if not taken:
            raise Outpaced  # it was answered since the standing was read
        return None if prior.callback_hash is None else bytes(prior.callback_hash)

    def _for_a_worker(self, composed: Composed, trigger: CompiledTrigger, *, key: UUID) -> Composed:
        question = self._question(trigger, key=key)
        return replace(
            composed,
            value=self.call.value,
            secrets=self._secrets(None),
            reads=composing.reads_later(self.scene, self.step),
            room_bytes=max(0, settings.MAX_CONTEXT_BYTES - self.standing.size),
            status_endpoint="" if question is None else question.url,
        )

    def _check_not_parked(self, prior: StepRun | None) -> None:
        if prior is not None and prior.status == RunStatus.PARKED:
            raise StepLocked(_PARKED)

    # --- with a partner ---------------------------------------------------------------------------

    def with_partner(self) -> StepAnswer:
        """Compose the request, commit the intent, call, write the session, commit the outcome."""
        trigger = self.step.trigger
        if trigger is None:
            raise Outpaced
        visit, prior = self._visit_and_prior()
        key = composing.key_of_step(self.standing, self.step, self.call.timing, visit)
        try:
            composed = self._composed(trigger, prior, key=key)
            partner_call = self._addressed(composed, trigger, key=key)
            question = None if prior is None else self._question(trigger, key=key)
        except (MappingIncomplete, ExpressionFailed, EndpointForbidden) as error:
            return self._unsent(error)
        reached("before-intent")
        lease = Lease(self.standing.execution_id)
        begun = state.begin(self.standing.progress, self.step, self.call.timing, visit=visit)
        self._commit_intent(lease, begun, composed, visit=visit, key=key)
        reached("after-intent")
        with lease.kept() as is_ours:
            result = None
            if question is not None and trigger.status is not None:
                result = calling.ask(
                    question,
                    trigger.status,
                    world=self.call.world,
                    deadline_ms=self.call.deadline_ms,
                )
            if result is None:
                result = calling.call_under(
                    lease,
                    partner_call,
                    policy=trigger.retry,
                    world=self.call.world,
                    deadline_ms=self.call.deadline_ms,
                    is_ours=is_ours,
                )
        reached("after-answer")
        was_unknown = begun.mark(self.step.index, self.call.timing).status is (MarkStatus.UNKNOWN)
        outcome = self._judged(result, was_unknown=was_unknown)
        return self._conclude(lease, begun, outcome, result)

    def requests(self, runs: Sequence[StepRun]) -> list[tuple[Composed, PartnerCall]]:
        """What would be sent, by us or a worker: the question after an unknown outcome, then the call."""
        trigger = self.step.trigger
        if trigger is None:
            raise Outpaced
        visit, prior = self._visit_and_prior(runs)
        key = composing.key_of_step(self.standing, self.step, self.call.timing, visit)
        # An address like the one that the real call will be given.
        callback_url = callback_tokens.new_token().url if self.step.is_async else ""
        composed = self._composed(trigger, prior, key=key, callback_url=callback_url)
        question = None if prior is None else self._question(trigger, key=key)
        asked = [] if question is None else [(Composed("", question.body), question)]
        return [*asked, (composed, self._addressed(composed, trigger, key=key))]

    def check_nothing_in_doubt(self) -> None:
        """A person's "no" cannot take back what may have been done and cannot be undone."""
        mark = self.standing.progress.mark(self.step.index, self.call.timing)
        if mark.status is MarkStatus.UNKNOWN and not self.step.reversible:
            raise StepLocked(_DIFFERENT_INPUT)

    def _visit_and_prior(self, runs: Sequence[StepRun] | None = None) -> tuple[int, StepRun | None]:
        """The visit of this call, and the run of unknown outcome that it repeats, if it does.

        `runs` are all of the execution's, in their order, for who has them.
        """
        timing, index = self.call.timing, self.step.index
        visit = self.standing.progress.visit_of(self.step, timing)
        mark = self.standing.progress.mark(index, timing)
        if mark.status is not MarkStatus.UNKNOWN or mark.visit != visit:
            return visit, None
        if runs is None:
            of_it = StepRun.objects.filter(execution_id=self.standing.execution_id)
            runs = list(of_it.filter(step_index=index, status__in=_DOUBTFUL).order_by("sequence"))
        in_doubt = [
            run
            for run in runs
            if (run.step_index, run.timing, run.visit) == (index, timing.value, visit)
            and run.kind == RunKind.STEP
            and run.status in _DOUBTFUL
        ]
        prior = in_doubt[-1] if in_doubt else None
        if prior is None or is_hash_of_input(prior.input_hash, self.call.value):
            return visit, prior
        if not self.step.reversible:
            raise StepLocked(_DIFFERENT_INPUT)
        return visit + 1, None

    def _composed(
        self,
        trigger: CompiledTrigger,
        prior: StepRun | None,
        *,
        key: UUID,
        callback_url: str = "",
    ) -> Composed:
        if prior is not None and prior.sealed_request is not None:
            try:
                return Composed.unsealed(prior.sealed_request, run_id=prior.id)
            except Unsealable as error:
                # Nothing else may go out under the key, so nothing does.
                logger.exception("run %s: the kept request cannot be unsealed", prior.id)
                raise SessionUnavailable from error
        return composing.compose_step(
            self.scene,
            self.step,
            trigger,
            value=self.call.value,
            key=key,
            callback_url=callback_url,
        )

    def _addressed(
        self, composed: Composed, trigger: CompiledTrigger, *, key: UUID, method: str | None = None
    ) -> PartnerCall:
        return composing.addressed(
            composed,
            trigger,
            execution_id=self.standing.execution_id,
            step_id=self.step.id,
            key=key,
            method=method,
        )

    def _question(self, trigger: CompiledTrigger, *, key: UUID) -> PartnerCall | None:
        """The call to the `status` endpoint, which is asked before anything is sent again."""
        status = trigger.status
        if status is None:
            return None
        scope = composing.step_scope(self.scene, self.step, value=self.call.value, key=key)
        body = None if status.method == "GET" else b"{}"
        composed = Composed(endpoint=status.endpoint.render(scope), body=body)
        return self._addressed(composed, trigger, key=key, method=status.method)

    def _unsent(self, error: WorkflowError) -> StepAnswer:
        """Nothing was sent: the refusal is recorded like any outcome."""
        code = ErrorCode(error.code)
        if isinstance(error, EndpointForbidden):
            logger.error("step %s: %s", self.step.id, error.message)
            error = EndpointForbidden()
        fields = error.fields if isinstance(error, MappingIncomplete) else ()
        outcome = StepOutcome(
            Verdict.NOT_SENT,
            success=False,
            should_proceed=False,
            error=error.message,
            error_code=code,
            field_errors=tuple(FieldError(name, "has no value") for name in fields),
        )
        return self.without_partner(outcome)

    def _commit_intent(
        self, lease: Lease, begun: Progress, composed: Composed, *, visit: int, key: UUID
    ) -> None:
        """Renew the session, which also shows that it can be written, and commit the intent."""
        ttl_seconds = self.standing.ttl_seconds(self.call.now)
        if not get_session_store().extend_session(
            self.standing.session_id, ttl_seconds=ttl_seconds
        ):
            raise Outpaced
        sequence = self.standing.sequence + 1
        # The secrets are kept with it, because staff may look at what was sent when no session is left.
        kept = replace(composed, value=self.call.value, secrets=self._secrets(None))
        run = {
            **self._run(lease.run_id, visit=visit, sequence=sequence),
            "status": RunStatus.RUNNING.value,
            "trigger_key": key,
            "input_hash": hash_of_input(self.call.value),
            "sealed_request": kept.sealed(lease.run_id),
            "client_key": None if self.call.key is None else self.call.key.key,
        }
        change = self._change(sequence, begun, new_run=run, lease=lease.taken())
        if not ledger.apply(change):
            raise Outpaced

    def _judged(self, result: CallResult, *, was_unknown: bool) -> StepOutcome:
        outcome = judging.judge_call(
            self.step,
            result,
            value=self.call.value,
            context=self.scene.context,
            was_unknown=was_unknown,
        )
        if not self.has_room(self._updates(outcome)):
            return judging.unkept(ErrorCode.TRIGGER_BAD_RESPONSE, _RESULT_TOO_LARGE)
        return outcome

    def _conclude(
        self, lease: Lease, begun: Progress, outcome: StepOutcome, result: CallResult
    ) -> StepAnswer:
        """Write the session, then the outcome. What could not be kept is an unknown outcome."""
        standing, step = self.standing, self.step
        sequence = standing.sequence + 2
        progress = state.settle(begun, step, self.call.timing, outcome.verdict)
        updates = self._updates(outcome)
        moved = standing.moved(
            sequence=sequence, progress=progress, updates=updates, remove=self._dropped()
        )
        try:
            written = self._write_session(moved, expected=standing.sequence, updates=updates)
        except SessionUnavailable as error:
            written = False
            if outcome.verdict is Verdict.PROCEED:
                outcome = judging.unkept(ErrorCode.SESSION_UNAVAILABLE, error.message)
        reached("after-context-write")
        answer = self._answer(outcome)
        run_end = {
            **self._end_of_run(outcome, answer, run_id=lease.run_id),
            "client_key": self._client_key(outcome),
        }
        if outcome.is_definite:
            run_end["sealed_request"] = None
        if outcome.verdict is Verdict.PROCEED:
            run_end["sealed_data"] = self._kept_data(updates, lease.run_id)
            run_end["sealed_compensation"] = self._compensation(outcome, moved, lease.run_id)
        settled = ledger.apply(
            Change(
                execution_id=standing.execution_id,
                when={"lease_holder": lease.holder},
                to={
                    # What may have reached the session although its store did not say so is outdated.
                    "sequence": sequence if written else sequence + 1,
                    "position": progress.position if written else begun.position,
                    **lease.given_back(),
                },
                run_id=lease.run_id,
                run_end=run_end,
                attempts=calling.last_attempt(lease, result),
            )
        )
        if not settled:
            raise ExecutionBusy
        if not written and outcome.error_code is not ErrorCode.SESSION_UNAVAILABLE:
            raise WorkedOff(answer) if standing.compiled.durable_session else Outpaced
        return answer.with_standing(moved)

    def _compensation(self, outcome: StepOutcome, moved: Standing, run_id: UUID) -> bytes | None:
        """The request that would undo the step, for its row."""
        if self.step.compensation is None:
            return None
        visit = moved.progress.mark(self.step.index, self.call.timing).visit
        return ending.sealed_compensation(
            self.step,
            execution_id=moved.execution_id,
            workflow=moved.compiled.name,
            user_id=moved.user_id,
            context=moved.context,
            value=self.call.value,
            result=outcome.result,
            key=composing.key_of_step(moved, self.step, self.call.timing, visit),
            secrets=self._secrets(outcome.result),
            run_id=run_id,
        )

    def _updates(self, outcome: StepOutcome) -> Mapping[str, JsonValue]:
        if outcome.verdict is not Verdict.PROCEED:
            return {}
        return {**self.stored, self.step.result_key: outcome.result}

    # --- both -------------------------------------------------------------------------------------

    def _progress(self, verdict: Verdict, *, visit: int) -> Progress:
        begun = state.begin(self.standing.progress, self.step, self.call.timing, visit=visit)
        return state.settle(begun, self.step, self.call.timing, verdict)

    def _dropped(self) -> frozenset[str]:
        return state.results_to_drop(
            self.standing.progress,
            self.standing.compiled.steps,
            index=self.step.index,
            timing=self.call.timing,
        )

    def _kept_data(self, updates: Mapping[str, JsonValue], run_id: UUID) -> bytes | None:
        """What a durable session's row keeps of the run's data."""
        if not self.standing.compiled.durable_session or not updates:
            return None
        return seal_data(updates, owner_id=run_id)

    def _secrets(self, result: JsonValue) -> frozenset[str]:
        """The sensitive values that records about this call must not repeat."""
        redactor = redactor_of(self.standing.compiled.sensitive)
        said = UpdatedContext(
            self.standing.context, updates={**self.stored, self.step.data_key: self.call.value}
        )
        return redactor.secrets(said) | redactor.secrets({self.step.result_key: result})

    def _write_session(
        self, moved: Standing, *, expected: int, updates: Mapping[str, JsonValue]
    ) -> bool:
        dropped = self._dropped()
        arrived = self.standing.arrived
        taken_in = {key: arrived[key] for key in arrived if key not in dropped}
        return get_session_store().update_context(
            moved.session_id,
            expected_sequence=expected,
            sequence=moved.sequence,
            updates={**taken_in, **updates},
            remove=dropped,
            state=moved.state_json(moved.progress),
            ttl_seconds=moved.ttl_seconds(self.call.now),
        )

    def _change(
        self, sequence: int, progress: Progress, *, new_run: Row, lease: Row | None = None
    ) -> Change:
        return Change(
            execution_id=self.standing.execution_id,
            when={
                "sequence": self.standing.sequence,
                "status": LIVE_STATUSES,
                "lease_holder": None,
            },
            to={
                "status": WorkflowExecutionStatus.IN_PROGRESS.value,
                "sequence": sequence,
                "position": progress.position,
                "expires_at": Renewed(self.standing.base_ttl_seconds),
                **(lease or {}),
            },
            new_run=new_run,
        )

    def _run(self, run_id: UUID, *, visit: int, sequence: int) -> Row:
        key = self.call.key
        return {
            "id": run_id,
            "execution_id": self.standing.execution_id,
            "kind": RunKind.STEP.value,
            "step_id": UUID(self.step.id),
            "step_index": self.step.index,
            "timing": self.call.timing.value,
            "mode": self.step.mode.value,
            "sequence": sequence,
            "visit": visit,
            "should_proceed": False,
            "arguments_hash": None if key is None else key.arguments_hash,
            "error_code": "",
            "error": "",
            "started_at": FromNow(),
        }

    def _end_of_run(self, outcome: StepOutcome, answer: StepAnswer, *, run_id: UUID) -> Row:
        redactor = redactor_of(self.standing.compiled.sensitive)
        secrets = self._secrets(outcome.result)
        return {
            "status": outcome.run_status.value,
            "should_proceed": outcome.should_proceed,
            "result": redactor.redact(outcome.result, secrets, at=self.step.result_key),
            "error_code": "" if outcome.error_code is None else outcome.error_code.value,
            "error": redactor.redact_text(outcome.error or "", secrets),
            "sealed_answer": self._sealed_answer(outcome, answer, run_id=run_id),
            "finished_at": FromNow(),
            "duration_ms": self._elapsed_ms(),
        }

    def _elapsed_ms(self) -> int:
        left = self.call.deadline_ms - self.call.world.clock()
        return max(0, round(settings.SYNC_BUDGET_MS - left))

    def _client_key(self, outcome: StepOutcome) -> str | None:
        """A definite answer is recorded under the key; any other gives the key back."""
        key = self.call.key
        return key.key if key is not None and outcome.is_definite else None

    def _sealed_answer(
        self, outcome: StepOutcome, answer: StepAnswer, *, run_id: UUID
    ) -> bytes | None:
        is_repeatable = not self.step.reversible and outcome.verdict is Verdict.PROCEED
        if is_repeatable or self._client_key(outcome) is not None:
            return seal_answer(answer, run_id=run_id)
        return None

    def _shown(self, outcome: StepOutcome) -> JsonValue:
        """What of the result the app gets; that a run is queued is nobody's data."""
        is_hidden = self.step.private and outcome.verdict is not Verdict.QUEUED
        return None if is_hidden else outcome.result

    def _answer(self, outcome: StepOutcome) -> StepAnswer:
        return StepAnswer(
            execution_id=self.standing.execution_id,
            success=outcome.success,
            should_proceed=outcome.should_proceed,
            result=self._shown(outcome),
            error=outcome.error,
            error_code=None if outcome.error_code is None else outcome.error_code.value,
            retryable=outcome.retryable,
            retry_after_ms=outcome.retry_after_ms,
            field_errors=outcome.field_errors,
        )
