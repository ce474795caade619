"""What a replay by hand would send, whether it may, and the record of who did it.

A failed submission is sent again as a repeated complete would send it: the very same bytes, under
the same Idempotency-Key unless the partner definitely said no. A step's trigger is called again as
the person would call it, with the input that was kept with its request. What has succeeded is
refused, and so is everything of which nothing is kept. What a worker does (a compensation, a parked
run) goes on in its own row. `executor.replay` does it; `executor.settle` says that staff did it outside.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import UUID

from config.crypto import Unsealable
from config.jsonvalues import JsonObject, JsonValue
from executions import composing, steps, submission
from executions.composing import Composed
from executions.enums import (
    ErrorCode,
    OperatorActionKind,
    OperatorOutcome,
    RunKind,
    RunStatus,
    WorkflowExecutionStatus,
)
from executions.errors import (
    ExecutionError,
    ExecutionNotFound,
    SessionUnavailable,
    SubmissionFailed,
)
from executions.models import StepRun, WorkflowExecution, session_id_of
from executions.partner_calls import PartnerCall
from executions.recovery import Outpaced
from executions.redaction import Redactor, redactor_of
from executions.requeueing import DOUBTFUL, first_undone, has_failed_undo, next_key
from executions.session_store import Found, SessionSnapshot, get_session_store
from executions.standing import Standing, UpdatedContext, find_standing, standing_of
from executions.steps import StepCall
from executions.surroundings import Surroundings
from workflows.compiled import CompiledStep, CompiledTrigger, CompiledWorkflow
from workflows.connections import keep_connections
from workflows.enums import TriggerTiming
from workflows.versions import compiled_version, compiled_versions

_NOTHING_KEPT = "Nothing that could be sent again is kept of it."
_UNCOMPOSED = (
    "The request that would undo the step could not be composed: undo it outside, and settle it."
)
_AT_WORK = "A worker has it, or will take it: there is nothing to replay."
_SETTLED = "It was settled outside: there is nothing to replay."
_NOT_TAKEN_OVER = (
    "A call of it is being worked off, or its process died: try again shortly, or run"
    " cleanup_executions first."
)


class ReplayRefused(ExecutionError):
    """This cannot be replayed."""

    code = "REPLAY_REFUSED"


class Known:
    """One execution as it was read: its row, and its runs and its session once they are asked for.

    For who plans more than one thing of it, or has read some of it already; who acts reads anew.
    """

    def __init__(
        self,
        row: WorkflowExecution,
        runs: Sequence[StepRun] | None = None,
        *,
        sessions: "_Sessions | None" = None,
    ) -> None:
        self.row = row
        self._runs = runs
        self._sessions = sessions

    @cached_property
    def runs(self) -> Sequence[StepRun]:
        """All of its runs, in their order."""
        if self._runs is not None:
            return self._runs
        return list(StepRun.objects.filter(execution_id=self.row.pk).order_by("sequence"))

    @cached_property
    def standing(self) -> Standing | None:
        """What the session says; None when it is gone. Raises SessionUnavailable."""
        if self._sessions is None:
            return find_standing(self.row.pk)
        snapshot = self._sessions.get(self.row.pk)
        return None if snapshot is None else standing_of(self.row.pk, snapshot, runs=self.runs)

    @property
    def compiled(self) -> CompiledWorkflow:
        """The version that it runs."""
        return compiled_version(self.row.version_id)

    @property
    def last_submission(self) -> StepRun | None:
        """The newest run of the final submission."""
        return _newest(run for run in self.runs if run.kind == RunKind.SUBMISSION)

    def newest_of(self, step: CompiledStep) -> StepRun | None:
        """The newest run of the step."""
        of_steps = (run for run in self.runs if run.kind == RunKind.STEP)
        return _newest(run for run in of_steps if run.step_index == step.index)


def _newest(runs: Iterable[StepRun]) -> StepRun | None:
    return max(runs, key=lambda run: run.sequence, default=None)


def find_known(execution_id: UUID) -> Known:
    """The execution, just read. Raises ExecutionNotFound."""
    row = WorkflowExecution.objects.filter(pk=execution_id).first()
    if row is None:
        raise ExecutionNotFound
    return Known(row)


class _Sessions:
    """The sessions of several executions, read together when one of them is asked for."""

    def __init__(self, execution_ids: Iterable[UUID]) -> None:
        self._names = {each: session_id_of(each) for each in execution_ids}

    @cached_property
    def _found(self) -> Mapping[str, Found]:
        names = self._names.values()
        try:
            return get_session_store().get_contexts(list(names))
        except (
            SessionUnavailable
        ) as error:  # of the store: asking again for each would take as long
            return dict.fromkeys(names, error)

    def get(self, execution_id: UUID) -> SessionSnapshot | None:
        """The session; None when it is gone. Raises SessionUnavailable."""
        found = self._found.get(self._names[execution_id])
        if isinstance(found, SessionUnavailable):
            raise found
        return found


def know_many(execution_ids: Collection[UUID]) -> dict[UUID, Known]:
    """These executions, without those there are not.

    Two queries for the rows, and two at most for their versions and partners; one more if sessions
    are asked for and the database keeps them.
    """
    rows = WorkflowExecution.objects.in_bulk(execution_ids)
    runs: dict[UUID, list[StepRun]] = {}
    for run in StepRun.objects.filter(execution_id__in=rows).order_by("sequence"):
        runs.setdefault(run.execution_id, []).append(run)
    versions = compiled_versions({row.version_id for row in rows.values()})
    keep_connections({name for version in versions for name in version.connections})
    sessions = _Sessions(rows)
    return {pk: Known(row, runs.get(pk, []), sessions=sessions) for pk, row in rows.items()}


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request as staff may see it: what is sensitive is masked, credentials are left out."""

    connection: str
    method: str
    url: str
    idempotency_key: str
    query: JsonValue = field(default=None, repr=False)
    headers: JsonValue = field(default=None, repr=False)
    payload: JsonValue = field(default=None, repr=False)

    def to_json(self) -> JsonObject:
        """For machines."""
        return {
            "connection": self.connection,
            "method": self.method,
            "url": self.url,
            "query": self.query,
            "headers": self.headers,
            "idempotencyKey": self.idempotency_key,
            "payload": self.payload,
        }


@dataclass(frozen=True, slots=True)
class StepRepeat:
    """The step call to make again."""

    step_id: str
    timing: TriggerTiming
    value: JsonValue = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a replay would do now; `step` is None for the final submission.

    With two `requests` the first asks the partner whether an unknown outcome happened, and the
    second is sent when it did not. `run` is the run that would be taken up in its own row.
    """

    row: WorkflowExecution = field(repr=False)
    action: OperatorActionKind
    requests: tuple[PlannedRequest, ...]
    step: StepRepeat | None = None
    run: StepRun | None = field(default=None, repr=False)

    @property
    def connection(self) -> str:
        """The partner that would be called."""
        return self.requests[-1].connection


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay: read back from the rows, with the execution as it stands now.

    QUEUED is not the end of it: `executor.verified` reads again what became of the run.
    """

    row: WorkflowExecution = field(repr=False)
    outcome: OperatorOutcome
    error: str = ""
    run_id: UUID | None = None
    action_id: UUID | None = None


def plan_replay(
    execution_id: UUID,
    *,
    from_step: str | None = None,
    compensation: bool = False,
    world: Surroundings,
    known: Known | None = None,
) -> ReplayPlan:
    """What a replay would send. Changes and sends nothing.

    Of the final submission; of the step that `from_step` names by id, order or label; or of the
    `compensation` that failed. Raises ExecutionNotFound, ReplayRefused with a sentence, or what the
    call itself would be refused with. `known` is the execution for who has just read it.
    """
    known = _free(known or find_known(execution_id))
    if compensation:
        return _plan_compensation(known)
    if from_step is None:
        return _plan_submission(known)
    return _plan_step(known, from_step, world=world)


def plan_settlement(
    execution_id: UUID,
    *,
    from_step: str | None = None,
    compensation: bool = False,
    known: Known | None = None,
) -> ReplayPlan:
    """The run that may be settled: nothing would be sent. Raises ExecutionNotFound, ReplayRefused.

    A compensation that failed; or a call of an ended execution of which nobody knows whether the
    partner acted: the final submission's, or that of the step that `from_step` names.
    """
    known = _free(known or find_known(execution_id))
    row = known.row
    if compensation:
        return ReplayPlan(
            row, OperatorActionKind.SETTLE_COMPENSATION, (), run=_failed_compensation(known)
        )
    if row.is_live:
        raise ReplayRefused("It has not ended: it is not settled while the person can go on.")
    if from_step is None:
        run = _doubtful(known.last_submission)
        return ReplayPlan(row, OperatorActionKind.SETTLE_SUBMISSION, (), run=run)
    run = _doubtful(known.newest_of(_step_named(known.compiled, from_step)))
    return ReplayPlan(row, OperatorActionKind.SETTLE_STEP, (), run=run)


def _free(known: Known) -> Known:
    if known.row.lease_holder is not None:
        raise ReplayRefused(_NOT_TAKEN_OVER)
    return known


def _doubtful(run: StepRun | None) -> StepRun:
    if run is None or run.status not in DOUBTFUL:
        raise ReplayRefused("Its outcome is not unknown: there is nothing to settle.")
    return run


def read_back(plan: ReplayPlan, *, error: str) -> Replayed:
    """What the rows say came of the replay; `error` is why nothing was sent, if nothing was."""
    row = WorkflowExecution.objects.get(pk=plan.row.pk)
    if plan.run is not None:
        if error:
            return Replayed(row, OperatorOutcome.NOT_SENT, error, plan.run.pk)
        return _as_it_stands(row, StepRun.objects.get(pk=plan.run.pk))
    kind = RunKind.SUBMISSION if plan.step is None else RunKind.STEP
    run = (
        StepRun.objects.filter(
            execution_id=row.pk,
            kind=kind,
            sequence__gt=plan.row.sequence,
            trigger_key__isnull=False,
        )
        .order_by("-sequence")
        .first()
    )
    if run is None or (run.status == RunStatus.RUNNING and run.due_at is None):
        return Replayed(row, OperatorOutcome.NOT_SENT, error)
    return _as_it_stands(row, run)


def read_again(replayed: Replayed) -> Replayed:
    """The same replay as the rows tell of it now."""
    if replayed.run_id is None:
        return replayed
    row = WorkflowExecution.objects.filter(pk=replayed.row.pk).first()
    run = StepRun.objects.filter(pk=replayed.run_id).first()
    if row is None or run is None:
        return replayed
    return replace(_as_it_stands(row, run), action_id=replayed.action_id)


_OUTCOMES = {
    RunStatus.QUEUED: OperatorOutcome.QUEUED,
    RunStatus.RUNNING: OperatorOutcome.QUEUED,
    RunStatus.WAITING: OperatorOutcome.QUEUED,
    RunStatus.SUCCEEDED: OperatorOutcome.SUCCEEDED,
    RunStatus.REJECTED: OperatorOutcome.REJECTED,
    RunStatus.FAILED: OperatorOutcome.FAILED,
    RunStatus.UNKNOWN: OperatorOutcome.UNKNOWN,
    RunStatus.PARKED: OperatorOutcome.UNKNOWN,
    RunStatus.CANCELLED: OperatorOutcome.NOT_SENT,
    RunStatus.SETTLED: OperatorOutcome.SETTLED,
}


def outcome_of(run: StepRun) -> OperatorOutcome:
    """What an action by hand has come to, as the run that it brought about tells."""
    return _OUTCOMES[RunStatus(run.status)]


def _as_it_stands(row: WorkflowExecution, run: StepRun) -> Replayed:
    return Replayed(row, outcome_of(run), run.error, run.pk)


# --- the final submission -------------------------------------------------------------------------


def _plan_submission(known: Known) -> ReplayPlan:
    _check_failed_submission(known)
    try:
        composed, call = submission.request_of_repeat(known.row, known.last_submission)
    except SubmissionFailed:
        raise ReplayRefused(_NOTHING_KEPT) from None
    request = shown_request(call, redactor_of(known.compiled.sensitive), composed.secrets)
    return ReplayPlan(known.row, OperatorActionKind.REPLAY_SUBMISSION, (request,))


def _check_failed_submission(known: Known) -> None:
    row = known.row
    if row.is_live:
        raise ReplayRefused("It has not ended: no submission of it has failed.")
    if row.status == WorkflowExecutionStatus.COMPLETED:
        raise ReplayRefused("It has succeeded: there is nothing to replay.")
    last = known.last_submission
    if last is not None and last.status == RunStatus.SETTLED:
        raise ReplayRefused(_SETTLED)
    if row.status == WorkflowExecutionStatus.CANCELLED:
        raise ReplayRefused("It was cancelled: what a person called off is not sent.")
    if row.error_code != ErrorCode.SUBMISSION_FAILED:
        raise ReplayRefused(f"It ended with {row.error_code} before anything was submitted.")


# --- what a worker does ---------------------------------------------------------------------------


def _plan_compensation(known: Known) -> ReplayPlan:
    run = _failed_compensation(known)
    trigger = known.compiled.steps[run.step_index or 0].compensation
    if run.sealed_request is None and run.error_code == ErrorCode.MAPPING_INCOMPLETE:
        raise ReplayRefused(_UNCOMPOSED)
    requests = _requests_of_worker(run, trigger, known)
    return ReplayPlan(known.row, OperatorActionKind.REPLAY_COMPENSATION, requests, run=run)


def _failed_compensation(known: Known) -> StepRun:
    """The one that the others wait for, if it has failed."""
    run = first_undone(known.runs)
    if run is None or not has_failed_undo(known.runs):
        raise ReplayRefused("Nothing of it has failed to be undone.")
    if run.finished_at is None:
        raise ReplayRefused("An earlier one is still being undone: that has to come first.")
    return run


def _plan_parked(known: Known, step: CompiledStep, run: StepRun) -> ReplayPlan:
    standing = known.standing
    if standing is not None:
        mark = standing.progress.mark(step.index, TriggerTiming(run.timing))
        if mark.visit != run.visit:
            raise ReplayRefused("The person has gone back since: nothing waits for it any more.")
    requests = _requests_of_worker(run, step.trigger, known)
    return ReplayPlan(known.row, OperatorActionKind.REPLAY_STEP, requests, run=run)


def _requests_of_worker(
    run: StepRun, trigger: CompiledTrigger | None, known: Known
) -> tuple[PlannedRequest, ...]:
    """What a worker would send for this run: in doubt it asks first, where it knows whom."""
    if run.sealed_request is None or trigger is None:
        raise ReplayRefused(_NOTHING_KEPT)
    redactor = redactor_of(known.compiled.sensitive)
    composed = _kept_request(run)
    undone = next((one for one in known.runs if one.pk == run.compensates_id), None)
    key, _ = next_key(run, undone=undone)

    def shown(made: Composed, method: str | None = None) -> PlannedRequest:
        call = composing.addressed(
            made,
            trigger,
            execution_id=known.row.pk,
            step_id=str(run.step_id),
            key=key or run.pk,
            method=method,
        )
        return shown_request(call, redactor, composed.secrets)

    status = trigger.status
    if status is None or not run.in_doubt or not composed.status_endpoint:
        return (shown(composed),)
    body = None if status.method == "GET" else b"{}"
    return shown(Composed(composed.status_endpoint, body), status.method), shown(composed)


# --- one step -------------------------------------------------------------------------------------


def _plan_step(known: Known, name: str, *, world: Surroundings) -> ReplayPlan:
    row = known.row
    if not row.is_live:
        raise ReplayRefused(f"It has ended ({row.status}): its steps cannot be called any more.")
    step = _step_named(known.compiled, name)
    run = _run_to_repeat(known, step)
    if run.status == RunStatus.PARKED:
        return _plan_parked(known, step, run)
    standing = known.standing
    if standing is None:
        raise ReplayRefused("Its session is gone: the step's answer could not be kept.")
    repeat = StepRepeat(step.id, TriggerTiming(run.timing), _kept_input(run))
    call = StepCall(
        step_id=step.id,
        timing=repeat.timing,
        value=repeat.value,
        key=None,
        now=world.now(),
        world=world,
        deadline_ms=world.clock(),
    )
    try:
        requests = steps.requests_of(standing, call, runs=known.runs)
    except Outpaced:
        raise ReplayRefused(_NOT_TAKEN_OVER) from None
    except Unsealable as error:
        raise SessionUnavailable from error
    redactor = redactor_of(standing.compiled.sensitive)
    secrets = _secrets_of(standing, step, repeat.value, redactor)
    shown = tuple(shown_request(call, redactor, secrets | made.secrets) for made, call in requests)
    return ReplayPlan(row, OperatorActionKind.REPLAY_STEP, shown, repeat)


def _step_named(compiled: CompiledWorkflow, name: str) -> CompiledStep:
    """By its id, else by its order, else by its label, which may look like another step's order."""
    for names in (
        [step.id for step in compiled.steps],
        [str(step.order) for step in compiled.steps],
        [step.label for step in compiled.steps],
    ):
        if name in names:
            return compiled.steps[names.index(name)]
    raise ReplayRefused(f"Its workflow has no step {name}.")


def _run_to_repeat(known: Known, step: CompiledStep) -> StepRun:
    """The step's newest run, if it failed or nobody knows what came of it."""
    run = known.newest_of(step)
    if run is None:
        raise ReplayRefused("The step has not been called yet.")
    if run.finished_at is None and run.due_at is not None:
        raise ReplayRefused(_AT_WORK)
    if run.status == RunStatus.SETTLED:
        raise ReplayRefused(_SETTLED)
    if run.status == RunStatus.SUCCEEDED:
        raise ReplayRefused("The step has succeeded: there is nothing to replay.")
    if run.status == RunStatus.REJECTED:
        raise ReplayRefused(
            f"The step got a definite answer ({run.error_code}): only the person can call it again."
        )
    if run.sealed_request is None:
        raise ReplayRefused(_NOTHING_KEPT)
    return run


def _kept_input(run: StepRun) -> JsonValue:
    return _kept_request(run).value


def _kept_request(run: StepRun) -> Composed:
    """That of a compensation was sealed with the run that it undoes. Raises SessionUnavailable."""
    owner = run.compensates_id or run.id
    try:
        return Composed.unsealed(run.sealed_request or b"", run_id=owner)
    except Unsealable as error:
        raise SessionUnavailable from error


def _secrets_of(
    standing: Standing, step: CompiledStep, value: JsonValue, redactor: Redactor
) -> frozenset[str]:
    said = UpdatedContext(standing.context, updates={step.data_key: value})
    return redactor.secrets(said)


# --- what staff may see ---------------------------------------------------------------------------


def shown_request(call: PartnerCall, redactor: Redactor, secrets: frozenset[str]) -> PlannedRequest:
    """The request as staff may see it: its sensitive values and `secrets` masked, no credentials."""
    if call.callback_url:
        secrets |= {call.callback_url}
    payload = None if call.body is None else json.loads(call.body)
    url, query = _shown_url(call.url, redactor, secrets)
    headers: dict[str, JsonValue] = dict(call.headers)
    return PlannedRequest(
        connection=call.connection.name,
        method=call.method,
        url=url,
        query=query,
        headers=redactor.redact(headers, secrets) if headers else None,
        idempotency_key=call.idempotency_key,
        payload=redactor.redact(payload, secrets),
    )


def _shown_url(url: str, redactor: Redactor, secrets: frozenset[str]) -> tuple[str, JsonValue]:
    """The URL without its query, and the query: each part masked as the value that it carries."""
    parts = urlsplit(url)
    path = "/".join(
        _redacted_text(unquote(segment), redactor, secrets, otherwise=segment)
        for segment in parts.path.split("/")
    )
    query: dict[str, JsonValue] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        before = query.get(name)
        values = before if isinstance(before, list) else [] if before is None else [before]
        query[name] = [*values, value] if values else value
    return f"{parts.scheme}://{parts.netloc}{path}", redactor.redact(query, secrets) or None


def _redacted_text(
    text: str, redactor: Redactor, secrets: frozenset[str], *, otherwise: str
) -> str:
    redacted = redactor.redact(text, secrets)
    return otherwise if redacted == text else str(redacted)
