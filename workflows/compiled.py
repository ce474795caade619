"""A published version as the engine runs it: every expression, schema and text compiled once.

A version never changes, so what is compiled here never goes stale, and nothing on the step path
reads a definition's JSON again. Everything a step call asks (which timings, which key, which names
a request reads) is answered by a precomputed attribute. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from config.jsonvalues import JsonObject, JsonValue
from workflows.documents import (
    SERVER_SIDE_STEP_KEYS,
    SERVER_SIDE_WORKFLOW_KEYS,
    TEXT_KEYS,
    CallSettings,
    StepDocument,
    StepSettings,
    WorkflowDocument,
    WorkflowSettings,
    public_config,
    retry_policy,
)
from workflows.enums import StepExecutionMode, StepType, TriggerTiming
from workflows.expressions import Expression, Scope, compile_expression
from workflows.interpolation import (
    EndpointTemplate,
    Template,
    TextTree,
    compile_endpoint,
    compile_text,
    compile_texts,
)
from workflows.mapping import ApiMapping, compile_mapping
from workflows.retry import RetryPolicy
from workflows.schemas import Schema, compile_schema

BUILT_IN_NAMES: Final = frozenset({"userId", "context", "input", "result", "execution"})
# Names in a call's scope that are not the context's.
_TRIGGER_NAMES: Final = frozenset({"input", "execution"})
_COMPENSATION_NAMES: Final = _TRIGGER_NAMES | {"result"}
_PROCEED_NAMES: Final = frozenset({"result", "input"})

_BEFORE, _AFTER = TriggerTiming.BEFORE_STEP, TriggerTiming.AFTER_STEP
_TIMINGS: Final = {
    TriggerTiming.BEFORE_STEP: (_BEFORE,),
    TriggerTiming.AFTER_STEP: (_AFTER,),
    TriggerTiming.BOTH: (_BEFORE, _AFTER),
}
_In = TypeVar("_In")
_Out = TypeVar("_Out")
_COLLECTING: Final = frozenset({StepType.FORM, StepType.CONFIRMATION})


@dataclass(frozen=True, slots=True)
class CompiledStatus:
    """The question asked after an unknown outcome: did the effect happen?"""

    endpoint: EndpointTemplate
    method: str
    expect: Expression | None


@dataclass(frozen=True, slots=True)
class CompiledTrigger:
    """One HTTP call. `roots` are the context's names that building it reads; None is all of them.

    Without a `body` a method other than GET sends the default body, which holds the whole context.
    A compensation always has a body, but for GET: `{input, result, execution}` by default.
    """

    connection: str
    endpoint: EndpointTemplate
    method: str
    headers: tuple[tuple[str, Template], ...]
    body: ApiMapping | None
    timeout_ms: int
    retry: RetryPolicy
    status: CompiledStatus | None
    roots: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class CompiledStep:
    """One step of a version. `timings` are those it may be called at, in their order.

    `proceed_roots` are the context's names that `proceed_when` reads, None for all of them: what a
    judge needs of the context when it judges later. A compensation's scope is the context's names,
    `input`, `result` (the step's) and `execution` (whose `idempotencyKey` is that of the call to undo).
    """

    id: str
    index: int
    order: int
    label: str
    type: StepType
    mode: StepExecutionMode
    timings: tuple[TriggerTiming, ...]
    trigger_timings: frozenset[TriggerTiming]
    data_key: str
    result_key: str
    stores_input: bool
    trigger: CompiledTrigger | None
    input_schema: Schema | None
    when: Expression | None
    proceed_when: Expression | None
    proceed_roots: frozenset[str] | None
    compensation: CompiledTrigger | None
    optional: bool
    reversible: bool
    private: bool
    config: JsonObject | None
    public_config: JsonObject | None
    texts: TextTree | None
    retry: RetryPolicy
    document: StepDocument
    _hidden_from_texts: frozenset[str] = field(repr=False)

    @property
    def is_server(self) -> bool:
        """Whether the server calls a partner for this step."""
        return self.mode is not StepExecutionMode.CLIENT_ONLY

    @property
    def is_async(self) -> bool:
        """Whether a worker calls the partner, after the app has had its answer."""
        return self.mode is StepExecutionMode.SERVER_ASYNC

    @property
    def may_be_passed_by(self) -> bool:
        """Whether the app may go past the step without a call."""
        return self.optional or self.type is StepType.INFO

    @property
    def written_keys(self) -> tuple[str, ...]:
        """The context's keys that the step writes."""
        return written_keys(self.document)

    def view_config(self, scope: Scope | None, *, staff: bool) -> JsonObject | None:
        """The config for an app or for staff, its texts rendered when there is a scope.

        Without `staff` the server-side keys are missing. Private steps' data is never in a text.
        The answer may be shared between calls: do not change it.
        """
        config = self.config if staff else self.public_config
        if config is None or scope is None or self.texts is None:
            return config
        if self._hidden_from_texts:
            scope = _Without(scope, self._hidden_from_texts)
        rendered = self.texts.render(scope)
        return {**config, **rendered} if isinstance(rendered, dict) else config


@dataclass(frozen=True, slots=True)
class CompiledWorkflow:
    """One published version, compiled. `session_ttl_seconds` of None is the setting's."""

    version_id: str
    workflow_id: str
    number: int
    document: WorkflowDocument
    name: str
    steps: tuple[CompiledStep, ...]
    index_by_id: Mapping[str, int]
    api_mapping: ApiMapping | None
    final_api: CompiledTrigger | None
    session_ttl_seconds: int | None
    durable_session: bool
    has_async: bool
    has_compensation: bool
    initial_context_schema: Schema | None
    required_scopes: frozenset[str]
    sensitive: tuple[str, ...]
    reserved_keys: frozenset[str]
    hidden_keys: frozenset[str]
    public_config: JsonObject | None

    @property
    def connections(self) -> frozenset[str]:
        """The names of those that its calls name; "" for calls that name none."""
        calls = (call for step in self.steps for call in (step.trigger, step.compensation))
        return frozenset(call.connection for call in (*calls, self.final_api) if call is not None)

    def view_config(self, *, staff: bool) -> JsonObject | None:
        """The workflow's config, without the server-side keys unless `staff`."""
        return self.document.config if staff else self.public_config


def compile_workflow(
    *,
    version_id: str,
    workflow_id: str,
    number: int,
    document: WorkflowDocument,
    step_ids: Sequence[str],
) -> CompiledWorkflow:
    """The version, ready to run. Raises DefinitionError when a part of it does not compile."""
    settings = WorkflowSettings.of(document)
    hidden_keys = hidden_keys_of(document)
    steps = tuple(
        _compile_step(step, index=index, step_id=step_id, hidden_keys=hidden_keys)
        for index, (step, step_id) in enumerate(zip(document.steps, step_ids, strict=True))
    )
    written = {key for step in steps for key in step.written_keys}
    return CompiledWorkflow(
        version_id=version_id,
        workflow_id=workflow_id,
        number=number,
        document=document,
        name=document.name,
        steps=steps,
        index_by_id={step.id: step.index for step in steps},
        api_mapping=_compile_mapping(settings.api_mapping),
        final_api=_optional(_compile_call, settings.final_api),
        session_ttl_seconds=settings.session_ttl_seconds,
        durable_session=settings.durable_session,
        has_async=any(step.is_async for step in steps),
        has_compensation=any(step.compensation is not None for step in steps),
        initial_context_schema=_compile_schema(settings.initial_context_schema),
        required_scopes=frozenset(settings.required_scopes),
        sensitive=settings.sensitive,
        reserved_keys=BUILT_IN_NAMES | written,
        hidden_keys=hidden_keys,
        public_config=public_config(document.config, SERVER_SIDE_WORKFLOW_KEYS),
    )


def stores_input(step: StepDocument) -> bool:
    """Whether what the app sends with the step is kept under its data key."""
    return step.type in _COLLECTING or step.mode is StepExecutionMode.CLIENT_ONLY


def result_key(step: StepDocument) -> str:
    """Where a partner's answer lands: beside the input when the step keeps one."""
    return f"{step.data_key}Result" if stores_input(step) else step.data_key


def written_keys(step: StepDocument) -> tuple[str, ...]:
    """The context's keys that the step writes."""
    if not stores_input(step) or step.mode is StepExecutionMode.CLIENT_ONLY:
        return (step.data_key,)
    return (step.data_key, result_key(step))


def hidden_keys_of(document: WorkflowDocument) -> frozenset[str]:
    """The context's keys that never go to the app."""
    private = (step for step in document.steps if StepSettings.of(step).private)
    return frozenset(key for step in private for key in written_keys(step))


def timings_of(step: StepDocument) -> tuple[TriggerTiming, ...]:
    """The timings a step may be called at: what collects input is always passed by AFTER_STEP."""
    if step.mode is StepExecutionMode.CLIENT_ONLY:
        return (_AFTER,)
    configured = _TIMINGS[step.timing]
    if step.type in _COLLECTING and _AFTER not in configured:
        return (*configured, _AFTER)
    return configured


def _compile_step(
    step: StepDocument, *, index: int, step_id: str, hidden_keys: frozenset[str]
) -> CompiledStep:
    settings = StepSettings.of(step)
    is_server = step.mode is not StepExecutionMode.CLIENT_ONLY
    visible = public_config(step.config, SERVER_SIDE_STEP_KEYS)
    texts = _compile_texts(visible)
    proceed_when = _optional(compile_expression, settings.proceed_when)
    return CompiledStep(
        id=step_id,
        index=index,
        order=step.order,
        label=step.label,
        type=step.type,
        mode=step.mode,
        timings=timings_of(step),
        trigger_timings=frozenset(_TIMINGS[step.timing]) if is_server else frozenset(),
        data_key=step.data_key,
        result_key=result_key(step),
        stores_input=stores_input(step),
        trigger=_compile_trigger(settings) if is_server else None,
        input_schema=_compile_schema(settings.input_schema),
        when=_optional(compile_expression, settings.when),
        proceed_when=proceed_when,
        proceed_roots=_proceed_roots(proceed_when),
        compensation=_compile_compensation(settings) if is_server else None,
        optional=settings.optional,
        reversible=settings.reversible,
        private=settings.private,
        config=step.config,
        public_config=visible,
        texts=texts,
        retry=retry_policy(step.retry_config),
        document=step,
        _hidden_from_texts=_readable(hidden_keys, texts.roots if texts else frozenset()),
    )


def _compile_texts(config: JsonObject | None) -> TextTree | None:
    texts: JsonObject = {key: config[key] for key in TEXT_KEYS if key in config} if config else {}
    return compile_texts(texts) if texts else None


def _readable(hidden_keys: frozenset[str], roots: frozenset[str] | None) -> frozenset[str]:
    return hidden_keys if roots is None else hidden_keys & roots


def _compile_trigger(settings: StepSettings) -> CompiledTrigger | None:
    if settings.trigger is None:
        return None
    return _compile_call(settings.trigger, status=_compile_status(settings))


def _compile_compensation(settings: StepSettings) -> CompiledTrigger | None:
    if settings.compensation is None:
        return None
    return _compile_call(settings.compensation, own_names=_COMPENSATION_NAMES)


def _proceed_roots(proceed_when: Expression | None) -> frozenset[str] | None:
    roots = frozenset[str]() if proceed_when is None else proceed_when.roots
    return None if roots is None else roots - _PROCEED_NAMES


def _compile_status(settings: StepSettings) -> CompiledStatus | None:
    if settings.status is None:
        return None
    return CompiledStatus(
        endpoint=compile_endpoint(settings.status.endpoint),
        method=settings.status.method,
        expect=_optional(compile_expression, settings.status_expect),
    )


def _compile_call(
    call: CallSettings,
    status: CompiledStatus | None = None,
    own_names: frozenset[str] = _TRIGGER_NAMES,
) -> CompiledTrigger:
    endpoint = compile_endpoint(call.endpoint)
    headers = tuple((name, compile_text(text)) for name, text in call.headers)
    body = _compile_mapping(call.body)
    parts = [endpoint.roots, *(template.roots for _, template in headers)]
    if body is not None:
        parts.append(body.roots)
    elif call.method != "GET":
        parts.append(None)
    if status is not None:
        parts.append(status.endpoint.roots)
    return CompiledTrigger(
        connection=call.connection,
        endpoint=endpoint,
        method=call.method,
        headers=headers,
        body=body,
        timeout_ms=call.timeout_ms,
        retry=call.retry,
        status=status,
        roots=_joined_roots(parts, own_names=own_names),
    )


def _joined_roots(
    parts: Iterable[frozenset[str] | None], *, own_names: frozenset[str]
) -> frozenset[str] | None:
    joined: frozenset[str] = frozenset()
    for roots in parts:
        if roots is None:
            return None
        joined |= roots
    return joined - own_names


def _compile_mapping(source: JsonValue) -> ApiMapping | None:
    return None if source is None else compile_mapping(source)


def _compile_schema(source: JsonValue) -> Schema | None:
    return None if source is None else compile_schema(source)


def _optional(compile_it: Callable[[_In], _Out], source: _In | None) -> _Out | None:
    return None if source is None else compile_it(source)


class _Without(Mapping[str, "JsonValue | Mapping[str, JsonValue]"]):
    """A scope without some of its names; nothing is copied."""

    def __init__(self, scope: Scope, hidden: frozenset[str]) -> None:
        self._scope = scope
        self._hidden = hidden

    def __getitem__(self, name: str) -> JsonValue | Mapping[str, JsonValue]:
        if name in self._hidden:
            raise KeyError(name)
        return self._scope[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._scope if name not in self._hidden)

    def __len__(self) -> int:
        return sum(1 for _ in self)
