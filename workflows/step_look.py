"""How a step would look and act, shown beside its form: address, attempts, texts, conditions.

Everything is worked out by what works it out when a flow runs; the context is a sample, which whoever
looks may change. Nothing is called.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from django.conf import settings

from config.display import duration
from config.jsonvalues import JsonObject, JsonValue
from workflows.compiled import hidden_keys_of, written_keys
from workflows.conditions import is_skipped, may_proceed
from workflows.connections import connection_for
from workflows.documents import (
    CallSettings,
    StepDocument,
    StepSettings,
    WorkflowDocument,
    WorkflowSettings,
)
from workflows.enums import StepExecutionMode
from workflows.errors import DefinitionError, ExpressionFailed, MappingIncomplete
from workflows.expressions import compile_expression
from workflows.interpolation import compile_endpoint, compile_text
from workflows.paths import sample_call, sample_context
from workflows.retry import RetryPolicy

LINE_HEIGHT: Final = 8  # of an attempt on the timeline, in its own units

_Verdict: TypeAlias = Callable[[str, JsonObject], tuple[str, str]]
_SYNC: Final = (StepExecutionMode.SERVER_SYNC, StepExecutionMode.SERVER_VALIDATION)


@dataclass(frozen=True, slots=True)
class AddressLook:
    """Where a call would go with the sample, or why it would go nowhere."""

    name: str
    method: str = ""
    url: str = ""
    connection: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class AttemptLook:
    """One attempt on the timeline: when it begins, and where its bar stands in percent."""

    number: int
    when: str
    left: float
    width: float

    @property
    def top(self) -> int:
        return (self.number - 1) * LINE_HEIGHT


@dataclass(frozen=True, slots=True)
class RetryLook:
    """A call's attempts in a sentence and as a timeline as long as `total`."""

    name: str
    sentence: str
    attempts: tuple[AttemptLook, ...]
    total: str

    @property
    def height(self) -> int:
        return len(self.attempts) * LINE_HEIGHT


@dataclass(frozen=True, slots=True)
class TextLook:
    """A text as the app would get it."""

    name: str
    text: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ConditionLook:
    """A condition over the sample: its value, and what follows in words."""

    name: str
    verdict: str
    status: str
    value: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class StepLook:
    """One step over one sample."""

    writes: tuple[str, ...]
    addresses: tuple[AddressLook, ...]
    retries: tuple[RetryLook, ...]
    texts: tuple[TextLook, ...]
    conditions: tuple[ConditionLook, ...]
    sample: JsonObject


def look_at_step(
    document: WorkflowDocument, index: int, *, sample: JsonObject | None = None
) -> StepLook:
    """The step at this index over the sample context, or over one that its document makes."""
    step, own = document.steps[index], StepSettings.of(document.steps[index])
    context = sample_context(document, until=index) if sample is None else sample
    scope = {**sample_call(document, step=index), **context}
    calls = _calls_of(step, own)
    return StepLook(
        writes=written_keys(step),
        addresses=tuple(address_of(name, call, scope) for name, call in calls),
        retries=tuple(
            retry_look(name, call.retry, timeout_ms=call.timeout_ms, mode=mode)
            for name, call, mode in _retried(step, own)
        ),
        texts=tuple(_texts_of(document, step, context)),
        conditions=_conditions_of(step, own, scope, context),
        sample=context,
    )


def look_at_submission(document: WorkflowDocument) -> StepLook:
    """The final request: where it goes and how often it is tried."""
    final = WorkflowSettings.of(document).final_api
    context = sample_context(document, until=None)
    if final is None:
        return StepLook((), (), (), (), (), context)
    call = sample_call(document, step=0) if document.steps else {}
    scope = {**context, "execution": call.get("execution")}
    retry = retry_look("Submission", final.retry, timeout_ms=final.timeout_ms, mode=_SYNC[0])
    return StepLook((), (address_of("Submission", final, scope),), (retry,), (), (), context)


def address_of(name: str, call: CallSettings, scope: JsonObject) -> AddressLook:
    """Where the call would go; values that the sample has not stand as `x`."""
    try:
        template = compile_endpoint(call.endpoint)
        try:
            endpoint = template.render(scope)
        except MappingIncomplete:
            endpoint = template.sample()
        connection, url = connection_for(call.connection, endpoint)
    except DefinitionError as error:
        return AddressLook(name, call.method, problem=error.message)
    return AddressLook(name, call.method, url, connection.name)


def retry_look(
    name: str, policy: RetryPolicy, *, timeout_ms: int, mode: StepExecutionMode
) -> RetryLook:
    """The attempts of a call that fails every time."""
    plan = policy.plan(timeout_ms=timeout_ms)
    total = plan[-1].latest_ms + timeout_ms
    attempts = [
        AttemptLook(
            number=one.number,
            when=_between(one.earliest_ms, one.latest_ms) if one.number > 1 else "at once",
            left=round(100 * one.earliest_ms / total, 1),
            width=round(100 * (one.latest_ms + timeout_ms - one.earliest_ms) / total, 1),
        )
        for one in plan
    ]
    waits = [f"after {_between(one.least_wait_ms, one.most_wait_ms)}" for one in plan[1:]]
    calls = "1 call" if len(plan) == 1 else f"Up to {len(plan)} calls"
    most = _span(total)
    sentence = f"{calls}: {', '.join(['at once', *waits])}; at most {most} with the timeouts."
    if mode in _SYNC and total > settings.SYNC_BUDGET_MS:
        budget = _span(settings.SYNC_BUDGET_MS)
        sentence += f" Somebody is waiting: no attempt begins that could not end within {budget}."
    return RetryLook(name, sentence, tuple(attempts), most)


def _between(least_ms: int, most_ms: int) -> str:
    """`0.5-1 s`; `8 s to 1 min 4 s`."""
    if least_ms == most_ms:
        return _span(most_ms)
    if most_ms < _MINUTE_MS:
        return f"{least_ms / 1000:g}-{_span(most_ms)}"
    return f"{_span(least_ms)} to {_span(most_ms)}"


def _span(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s" if milliseconds < _MINUTE_MS else duration(milliseconds)


def _calls_of(step: StepDocument, own: StepSettings) -> list[tuple[str, CallSettings]]:
    if step.mode is StepExecutionMode.CLIENT_ONLY:
        return []
    calls = (("Trigger", own.trigger), ("Status", own.status), ("Compensation", own.compensation))
    return [(name, call) for name, call in calls if call is not None]


def _retried(
    step: StepDocument, own: StepSettings
) -> list[tuple[str, CallSettings, StepExecutionMode]]:
    """Nobody waits for a compensation: the worker calls it."""
    modes = {"Trigger": step.mode, "Compensation": StepExecutionMode.SERVER_ASYNC}
    return [(name, call, modes[name]) for name, call in _calls_of(step, own) if name in modes]


def _texts_of(
    document: WorkflowDocument, step: StepDocument, context: Mapping[str, JsonValue]
) -> list[TextLook]:
    hidden = hidden_keys_of(document)
    visible = {key: value for key, value in context.items() if key not in hidden}
    looks = []
    for key in ("title", "message"):
        text = (step.config or {}).get(key)
        if not isinstance(text, str):
            continue
        try:
            looks.append(TextLook(key.capitalize(), compile_text(text).render(visible)))
        except DefinitionError as error:
            looks.append(TextLook(key.capitalize(), "", error.message))
    return looks


def _conditions_of(
    step: StepDocument, own: StepSettings, scope: JsonObject, context: JsonObject
) -> tuple[ConditionLook, ...]:
    looks = []
    if own.when is not None:
        looks.append(_condition("Only when", own.when, context, _when_verdict))
    if own.proceed_when is not None:
        names: JsonObject = {name: scope.get(name) for name in ("result", "input")}
        asked: JsonObject = {**names, "context": context}

        def verdict(text: str, over: JsonObject) -> tuple[str, str]:
            goes_on = may_proceed(
                compile_expression(text), step.mode, result=names["result"], scope=over
            )
            return ("The flow goes on.", "OK") if goes_on else ("The flow stops here.", "BLOCKED")

        looks.append(_condition("Goes on when", own.proceed_when, asked, verdict))
    return tuple(looks)


def _when_verdict(text: str, context: JsonObject) -> tuple[str, str]:
    if is_skipped(compile_expression(text), context):
        return "The step is skipped.", "SKIPPED"
    return "The step is shown.", "OK"


def _condition(name: str, text: str, scope: JsonObject, verdict: _Verdict) -> ConditionLook:
    try:
        expression = compile_expression(text)
    except DefinitionError as error:
        return ConditionLook(name, "", "BLOCKED", problem=error.message)
    try:
        value = json.dumps(expression.evaluate(scope), ensure_ascii=False)
    except ExpressionFailed as error:
        value = error.message
    words, status = verdict(text, scope)
    return ConditionLook(name, words, status, value=value[:_SHOWN_CHARACTERS])


_SHOWN_CHARACTERS: Final = 500
_MINUTE_MS: Final = 60_000
