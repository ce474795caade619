"""Trying a draft's request out: composed, sent and judged as an execution would, without being one.

No execution, run or session comes of it. A trial makes one attempt, under an Idempotency-Key of its
own and marked by the header `X-Handrail-Trial`, and nothing can call back. Where it may go is what
decides where any call may go: connections, egress, breakers and caps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from django.conf import settings

from config.jsonvalues import JsonObject, JsonValue, dump_compact
from executions import calling, composing, judging, ledger, steps
from executions.enums import AttemptOutcome, OperatorOutcome
from executions.outcomes import CallResult, Certainty, ExchangeFailed
from executions.partner_calls import PartnerCall
from executions.redaction import Redactor, redactor_of
from executions.replaying import PlannedRequest, shown_request
from executions.standing import Standing, UpdatedContext, is_skipped
from executions.state import AFTER, BEFORE, Mark, MarkStatus, Progress
from executions.steps import StepCall
from executions.surroundings import Surroundings
from executions.triggers import call_partner
from workflows.compiled import CompiledStep, CompiledWorkflow, compile_workflow
from workflows.documents import StepDocument, WorkflowDocument
from workflows.enums import AuthKind, StepExecutionMode, TriggerTiming
from workflows.errors import WorkflowError
from workflows.mapping import final_payload
from workflows.retry import RetryPolicy
from workflows.routing import credential_header

SANDBOX: Final = "sandbox"
"""The connection that trials use unless somebody confirms the real one."""

TRIAL_HEADER: Final = "X-Handrail-Trial"
HIDDEN: Final = "[hidden]"

_ACCEPTED: Final = 202
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")
_NO_RETRIES: Final = RetryPolicy()
_NOBODY: Final = "sample-user"
_AT_LAST: Final = {
    Certainty.ANSWERED: OperatorOutcome.SUCCEEDED,
    Certainty.REFUSED: OperatorOutcome.REJECTED,
    Certainty.NOT_SENT: OperatorOutcome.NOT_SENT,
    Certainty.UNKNOWN: OperatorOutcome.UNKNOWN,
}


class TrialRefused(WorkflowError):
    """There is nothing to try."""

    code = "BAD_USER_INPUT"


@dataclass(frozen=True, slots=True)
class TrialSubject:
    """What is tried: a step of a draft at a timing, or its final submission (`index` of None)."""

    document: WorkflowDocument
    index: int | None
    step_id: str = ""
    timing: TriggerTiming | None = None


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """A request that may be sent. `shown` is what staff may see of it, credentials left out."""

    subject: TrialSubject
    call: PartnerCall = field(repr=False)
    shown: PlannedRequest
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    origin: str
    is_skipped: bool
    step: CompiledStep | None = field(repr=False)
    redactor: Redactor = field(repr=False)
    secrets: frozenset[str] = field(repr=False)
    value: JsonValue = field(repr=False)
    own: JsonObject = field(repr=False)
    scene: Mapping[str, JsonValue] = field(repr=False)

    @property
    def connection(self) -> str:
        """The partner that would be called."""
        return self.call.connection.name


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a trial; what is sensitive is masked.

    `attempt` is None when nobody was called: the breaker was open, or the connection's cap reached.
    `stored` is what an execution's context would get, by key: the step's input too, where it keeps one.
    `waits`: the partner took the work and would call back.
    """

    plan: PlannedTrial
    outcome: OperatorOutcome
    attempt: AttemptOutcome | None
    http_status: int | None
    duration_ms: int | None
    answer: JsonValue
    has_answer: bool
    should_proceed: bool
    success: bool
    waits: bool
    error_code: str
    error: str
    stored: JsonObject
    result_key: str


def plan_trial(
    subject: TrialSubject,
    *,
    context: JsonObject,
    value: JsonValue,
    connection: str | None,
    world: Surroundings,
) -> PlannedTrial:
    """The request that the draft makes of this context and input. Nothing is sent or stored.

    `connection` sends it to another partner than the draft's, with the same path. Raises what an
    execution would be refused with: DefinitionError for what does not compile, InputInvalid,
    MappingIncomplete, ExpressionFailed, EndpointForbidden.
    """
    compiled = _compiled(subject, connection)
    standing = Standing(
        execution_id=uuid4(),
        user_id=str(context.get("userId") or _NOBODY),
        compiled=compiled,
        started_at=world.now(),
        sequence=0,
        progress=_progress(subject),
        context=context,
        size=len(dump_compact(context)),
    )
    if subject.index is None:
        return _planned_submission(subject, standing, world=world)
    return _planned_step(subject, standing, value=value, world=world)


def try_trigger(plan: PlannedTrial, *, world: Surroundings) -> Trial:
    """Send the planned request once, and say what an execution would make of the answer."""
    ledger.release_connection()
    result = call_partner(
        plan.call,
        policy=_NO_RETRIES,
        world=world,
        deadline_ms=world.clock() + settings.SYNC_BUDGET_MS,
    )
    calling.count_attempts(plan.connection, result)
    return _judged(plan, result)


def timings_to_try(step: StepDocument) -> tuple[TriggerTiming, ...]:
    """The timings at which the step calls a partner, in their order; none for a step without one."""
    if step.mode is StepExecutionMode.CLIENT_ONLY or step.trigger_endpoint is None:
        return ()
    return (BEFORE, AFTER) if step.timing is TriggerTiming.BOTH else (step.timing,)


def target_of(subject: TrialSubject) -> str:
    """What is tried, in words: the workflow, and the step's label."""
    document = subject.document
    step = "final request" if subject.index is None else document.steps[subject.index].label
    return f"{document.name}: {step}"


# The draft, as far as it is tried: what is broken elsewhere stands in nobody's way.


def _compiled(subject: TrialSubject, connection: str | None) -> CompiledWorkflow:
    document, index = subject.document, subject.index
    config = document.config or {}
    keys = {"sensitive"} if index is not None else {"sensitive", "apiMapping", "finalApi"}
    kept: JsonObject = {key: config[key] for key in config if key in keys}
    if index is None:
        kept = _final_through(kept, connection)
    tried = () if index is None else (_step_through(document.steps[index], connection),)
    return compile_workflow(
        version_id="trial",
        workflow_id="trial",
        number=0,
        document=WorkflowDocument(name=document.name, config=kept, steps=tried),
        step_ids=[subject.step_id] * len(tried),
    )


def _step_through(step: StepDocument, connection: str | None) -> StepDocument:
    """The step without its `when`, which is told apart, and through another connection if given."""
    if step.mode is StepExecutionMode.CLIENT_ONLY or step.trigger_endpoint is None:
        raise TrialRefused("The step calls nobody: it has no server mode, or no endpoint.")
    config = {key: value for key, value in (step.config or {}).items() if key != "when"}
    if connection is None:
        return replace(step, config=config)
    endpoint = _without_origin(step.trigger_endpoint)
    return replace(step, trigger_endpoint=endpoint, config={**config, "connection": connection})


def _final_through(config: JsonObject, connection: str | None) -> JsonObject:
    final = config.get("finalApi")
    if not isinstance(final, dict):
        raise TrialRefused("The workflow has no finalApi: completing it calls nobody.")
    if connection is None:
        return config
    endpoint = _without_origin(str(final["endpoint"]))
    return {**config, "finalApi": {**final, "endpoint": endpoint, "connection": connection}}


def _without_origin(endpoint: str) -> str:
    return _ORIGIN.sub("", endpoint, count=1) or "/"


def _progress(subject: TrialSubject) -> Progress:
    """The person stands at the step, whose earlier timing has succeeded."""
    if subject.timing is AFTER:
        return Progress(marks={(0, BEFORE): Mark(status=MarkStatus.SUCCEEDED)})
    return Progress()


# The request.


def _planned_step(
    subject: TrialSubject, standing: Standing, *, value: JsonValue, world: Surroundings
) -> PlannedTrial:
    (step,) = standing.compiled.steps
    timing = subject.timing
    if timing is None or timing not in step.trigger_timings:
        raise TrialRefused("The step calls nobody at that timing.")
    call = StepCall(
        step_id=step.id,
        timing=timing,
        value=value,
        key=None,
        now=world.now(),
        world=world,
        deadline_ms=world.clock(),
    )
    ((_, partner_call),) = steps.requests_of(standing, call, runs=())
    own: JsonObject = {}
    if step.stores_input and value is not None and timing is step.timings[-1]:
        own = {step.data_key: value}
    return _planned(
        subject,
        standing,
        partner_call,
        step=step,
        value=value,
        own=own,
        scene=UpdatedContext(standing.context, updates=own),
        said=UpdatedContext(standing.context, updates={**own, step.data_key: value}),
        now=world.now(),
        span_id=world.new_span_id(),
    )


def _planned_submission(
    subject: TrialSubject, standing: Standing, *, world: Surroundings
) -> PlannedTrial:
    compiled = standing.compiled
    trigger = compiled.final_api
    if trigger is None:
        raise TrialRefused("The workflow has no finalApi: completing it calls nobody.")
    payload = final_payload(compiled.api_mapping, standing.context, is_sent=True)
    composed = composing.compose_submission(standing, trigger, payload)
    key: UUID = uuid4()
    execution_id = standing.execution_id
    call = composing.addressed(composed, trigger, execution_id=execution_id, step_id="", key=key)
    return _planned(
        subject,
        standing,
        call,
        step=None,
        value=None,
        own={},
        scene=standing.context,
        said=standing.context,
        now=world.now(),
        span_id=world.new_span_id(),
    )


def _planned(
    subject: TrialSubject,
    standing: Standing,
    call: PartnerCall,
    *,
    step: CompiledStep | None,
    value: JsonValue,
    own: JsonObject,
    scene: Mapping[str, JsonValue],
    said: Mapping[str, JsonValue],
    now: datetime,
    span_id: str,
) -> PlannedTrial:
    call = replace(call, headers=(*call.headers, (TRIAL_HEADER, "true")))
    redactor = redactor_of(standing.compiled.sensitive)
    secrets = redactor.secrets(said)
    shown = shown_request(call, redactor, secrets)
    return PlannedTrial(
        subject=subject,
        call=call,
        shown=shown,
        headers=_shown_headers(call, redactor, secrets, now=now, span_id=span_id),
        origin="/".join(shown.url.split("/")[:3]),
        is_skipped=_is_skipped(subject, standing.context),
        step=step,
        redactor=redactor,
        secrets=secrets,
        value=value,
        own=own,
        scene=scene,
    )


def _is_skipped(subject: TrialSubject, context: JsonValue | Mapping[str, JsonValue]) -> bool:
    """Whether the draft's `when` would pass the step over."""
    if subject.index is None or not isinstance(context, Mapping):
        return False
    step = subject.document.steps[subject.index]
    when = (step.config or {}).get("when")
    if not isinstance(when, str):
        return False
    asked = WorkflowDocument(name="when", steps=(replace(step, config={"when": when}),))
    (compiled,) = compile_workflow(
        version_id="trial", workflow_id="trial", number=0, document=asked, step_ids=["trial"]
    ).steps
    return is_skipped(compiled, context)


def _shown_headers(
    call: PartnerCall,
    redactor: Redactor,
    secrets: frozenset[str],
    *,
    now: datetime,
    span_id: str,
) -> tuple[tuple[str, str], ...]:
    """Every header as it would be sent, without what proves who is calling."""
    try:
        headers = call.request(timeout_ms=call.timeout_ms, span_id=span_id, now=now).headers
    except ExchangeFailed:  # which sending it would say, too
        return ()
    proof = credential_header(AuthKind(call.connection.auth_kind), call.connection.header_name)
    return tuple(
        (name, HIDDEN if name.lower() == proof.lower() else _masked(name, value, redactor, secrets))
        for name, value in headers
    )


def _masked(name: str, value: str, redactor: Redactor, secrets: frozenset[str]) -> str:
    return str(redactor.redact(value, secrets, at=name))


# The answer.


def _judged(plan: PlannedTrial, result: CallResult) -> Trial:
    step = plan.step
    result_key = "" if step is None else step.result_key
    body = None if result.response is None else result.response.body
    redactor = plan.redactor
    secrets = plan.secrets | redactor.secrets({result_key: body})
    if step is None:
        outcome = judging.failure(result, result.certainty) if result.error_code else None
    else:
        outcome = judging.judge_call(
            step,
            result,
            value=plan.value,
            context=plan.scene,
            was_unknown=False,
        )
    waits = step is not None and step.is_async and result.http_status == _ACCEPTED
    proceeds = outcome is None or outcome.should_proceed
    last = result.attempts[-1] if result.attempts else None
    shown = redactor.redact(body, secrets, at=result_key or None)
    # What an async step is sent is kept when it is queued, whatever the partner says to it.
    keeps_input = proceeds or (step is not None and step.is_async)
    own: JsonObject = plan.own if keeps_input else {}
    stored = {key: redactor.redact(value, secrets, at=key) for key, value in own.items()}
    if step is not None and proceeds and not waits:
        stored[result_key] = shown
    error = "" if outcome is None else outcome.error or ""
    return Trial(
        plan=plan,
        outcome=_AT_LAST[result.certainty],
        attempt=None if last is None else last.outcome,
        http_status=result.http_status,
        duration_ms=None if last is None else last.duration_ms,
        answer=shown,
        has_answer=result.response is not None,
        should_proceed=proceeds,
        success=outcome is None or outcome.success,
        waits=waits,
        error_code=""
        if outcome is None or outcome.error_code is None
        else outcome.error_code.value,
        error=redactor.redact_text(error, secrets),
        stored=stored,
        result_key=result_key,
    )
