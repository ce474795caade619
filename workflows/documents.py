"""The workflow document: the one JSON shape that import, export, admin and API speak.

`parse_document` refuses what `document_shape.py` has a problem with; `dump_document` gives back
exactly what was parsed, so an absent key stays absent and never becomes its default. The settings
classes read the same JSON with every default filled in. What needs more than one place to judge
(connections, expressions, data keys) is the business of `draft_check.py`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from config.jsonvalues import JsonObject, JsonValue
from workflows.document_shape import document_problems
from workflows.enums import StepExecutionMode, StepType, TriggerTiming
from workflows.errors import DocumentInvalid
from workflows.retry import RetryPolicy

DEFAULT_TIMEOUT_MS: Final = 10_000
# Undoing goes on for longer than doing: nobody waits for it, and somebody has to do it.
COMPENSATION_RETRIES: Final = RetryPolicy(max_retries=5, initial_delay_ms=1000)
_NO_RETRIES: Final = RetryPolicy()
_COMPENSATION_BODY: Final[JsonObject] = {
    name: {"$from": name, "$default": None} for name in ("input", "result", "execution")
}

# Attributes of the dataclasses whose keys in the JSON are spelt differently.
_KEYS: Final = {
    "execution_mode": "executionMode",
    "trigger_timing": "triggerTiming",
    "trigger_endpoint": "triggerEndpoint",
    "timeout_ms": "timeoutMs",
    "retry_config": "retryConfig",
}


@dataclass(frozen=True, slots=True)
class StepDocument:
    """One step as written; None is "not in the document"."""

    type: StepType
    label: str
    order: int
    execution_mode: StepExecutionMode | None = None
    trigger_timing: TriggerTiming | None = None
    trigger_endpoint: str | None = None
    timeout_ms: int | None = None
    retry_config: JsonObject | None = None
    config: JsonObject | None = None

    @property
    def mode(self) -> StepExecutionMode:
        """The execution mode, the default filled in."""
        return self.execution_mode or StepExecutionMode.CLIENT_ONLY

    @property
    def timing(self) -> TriggerTiming:
        """The trigger timing, the default filled in."""
        return self.trigger_timing or TriggerTiming.AFTER_STEP

    @property
    def data_key(self) -> str:
        """Where the step's data lands in the context."""
        return self.own_data_key or f"step{self.order}"

    @property
    def own_data_key(self) -> str | None:
        """The data key that is written in the step, if one is."""
        key = (self.config or {}).get("dataKey")
        return key if isinstance(key, str) else None


@dataclass(frozen=True, slots=True)
class WorkflowDocument:
    """A workflow as written; None is "not in the document"."""

    name: str
    description: str | None = None
    config: JsonObject | None = None
    steps: tuple[StepDocument, ...] = ()


@dataclass(frozen=True, slots=True)
class CallSettings:
    """One HTTP call as written: trigger, submission, status question or compensation."""

    endpoint: str
    method: str
    connection: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: JsonValue = None
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    retry: RetryPolicy = _NO_RETRIES


@dataclass(frozen=True, slots=True)
class StepSettings:
    """A step's `config`, the defaults filled in."""

    input_schema: JsonValue
    when: str | None
    proceed_when: str | None
    optional: bool
    reversible: bool
    private: bool
    trigger: CallSettings | None
    status: CallSettings | None
    status_expect: str | None
    compensation: CallSettings | None

    @classmethod
    def of(cls, step: StepDocument) -> StepSettings:
        config = step.config or {}
        status = cast("JsonObject | None", config.get("status"))
        connection = str(config.get("connection") or "")
        return cls(
            input_schema=config.get("inputSchema"),
            when=_text_or_none(config, "when"),
            proceed_when=_text_or_none(config, "proceedWhen"),
            optional=bool(config.get("optional", False)),
            reversible=bool(config.get("reversible", step.type is not StepType.API_CALL)),
            private=bool(config.get("private", False)),
            trigger=_trigger_of(step, config),
            status=_call_of(status, connection=connection, method="GET"),
            status_expect=_text_or_none(status or {}, "expect"),
            compensation=_compensation_of(step, config),
        )


@dataclass(frozen=True, slots=True)
class WorkflowSettings:
    """A workflow's `config`, the defaults filled in; no time to live means the setting's."""

    api_mapping: JsonValue
    final_api: CallSettings | None
    session_ttl_seconds: int | None
    durable_session: bool
    initial_context_schema: JsonValue
    required_scopes: tuple[str, ...]
    sensitive: tuple[str, ...]

    @classmethod
    def of(cls, document: WorkflowDocument) -> WorkflowSettings:
        config = document.config or {}
        return cls(
            api_mapping=config.get("apiMapping"),
            final_api=_final_api_of(config),
            session_ttl_seconds=cast("int | None", config.get("sessionTtlSeconds")),
            durable_session=bool(config.get("durableSession", False)),
            initial_context_schema=config.get("initialContextSchema"),
            required_scopes=tuple(cast("list[str]", config.get("requiredScopes", []))),
            sensitive=tuple(cast("list[str]", config.get("sensitive", []))),
        )


# What an app may not see of a definition; staff see all of it.
SERVER_SIDE_STEP_KEYS: Final = frozenset(
    {"method", "headers", "connection", "requestMapping", "proceedWhen", "status", "compensation"}
)
SERVER_SIDE_WORKFLOW_KEYS: Final = frozenset({"apiMapping", "finalApi"})
# The keys of a step's config whose texts may hold `${expression}`.
TEXT_KEYS: Final = ("title", "message", "fields", "app")


def public_config(config: JsonObject | None, hidden: frozenset[str]) -> JsonObject | None:
    """The config without the keys that only staff may see."""
    if config is None:
        return None
    return {key: value for key, value in config.items() if key not in hidden}


def retry_policy(config: JsonObject | None) -> RetryPolicy:
    """The policy that a `retryConfig` describes, the defaults filled in."""
    names = {
        "maxRetries": "max_retries",
        "initialDelayMs": "initial_delay_ms",
        "backoffMultiplier": "backoff_multiplier",
        "maxDelayMs": "max_delay_ms",
    }
    written = cast("dict[str, int]", config or {})
    return RetryPolicy(**{names[key]: value for key, value in written.items()})


def parse_document(data: JsonValue, *, max_steps: int | None = None) -> WorkflowDocument:
    """The document that `data` is; raises DocumentInvalid with every problem and its path."""
    problems = document_problems(data, max_steps=max_steps)
    if problems:
        raise DocumentInvalid(problems)
    workflow = cast("JsonObject", data)
    return WorkflowDocument(
        name=cast(str, workflow["name"]),
        description=cast("str | None", workflow.get("description")),
        config=cast("JsonObject | None", workflow.get("config")),
        steps=tuple(_step_of(step) for step in cast("list[JsonObject]", workflow["steps"])),
    )


def dump_document(document: WorkflowDocument) -> JsonObject:
    """The JSON that parses to `document`."""
    data: JsonObject = {"name": document.name}
    if document.description is not None:
        data["description"] = document.description
    if document.config is not None:
        data["config"] = document.config
    data["steps"] = [dump_step(step) for step in document.steps]
    return data


def dump_step(step: StepDocument) -> JsonObject:
    """One step as it stands in the workflow document."""
    values: JsonObject = {
        "type": step.type.value,
        "label": step.label,
        "order": step.order,
        "executionMode": step.execution_mode and step.execution_mode.value,
        "triggerTiming": step.trigger_timing and step.trigger_timing.value,
        "triggerEndpoint": step.trigger_endpoint,
        "timeoutMs": step.timeout_ms,
        "retryConfig": step.retry_config,
        "config": step.config,
    }
    return {key: value for key, value in values.items() if value is not None}


def as_changes(values: Mapping[str, JsonValue]) -> JsonObject:
    """Attributes of a document or step as changes to its JSON; empty texts leave their key out."""
    return {_KEYS.get(name, name): None if value == "" else value for name, value in values.items()}


def with_changes(data: JsonObject, changes: JsonObject) -> JsonObject:
    """The object with the changes laid over it; a change to null leaves the key out."""
    return {key: value for key, value in {**data, **changes}.items() if value is not None}


_Word = TypeVar("_Word", StepExecutionMode, TriggerTiming)


def _step_of(data: JsonObject) -> StepDocument:
    return StepDocument(
        type=StepType(cast(str, data["type"])),
        label=cast(str, data["label"]),
        order=cast(int, data["order"]),
        execution_mode=_word(StepExecutionMode, data.get("executionMode")),
        trigger_timing=_word(TriggerTiming, data.get("triggerTiming")),
        trigger_endpoint=cast("str | None", data.get("triggerEndpoint")),
        timeout_ms=cast("int | None", data.get("timeoutMs")),
        retry_config=cast("JsonObject | None", data.get("retryConfig")),
        config=cast("JsonObject | None", data.get("config")),
    )


def _word(words: type[_Word], value: JsonValue) -> _Word | None:
    return None if value is None else words(cast(str, value))


def _text_or_none(config: JsonObject, key: str) -> str | None:
    return cast("str | None", config.get(key))


def _trigger_of(step: StepDocument, config: JsonObject) -> CallSettings | None:
    if step.trigger_endpoint is None:
        return None
    headers = cast("dict[str, str]", config.get("headers", {}))
    return CallSettings(
        endpoint=step.trigger_endpoint,
        method=str(config.get("method", "POST")),
        connection=str(config.get("connection") or ""),
        headers=tuple(headers.items()),
        body=config.get("requestMapping"),
        timeout_ms=DEFAULT_TIMEOUT_MS if step.timeout_ms is None else step.timeout_ms,
        retry=retry_policy(step.retry_config),
    )


def _call_of(call: JsonObject | None, *, connection: str, method: str) -> CallSettings | None:
    if call is None:
        return None
    return CallSettings(
        endpoint=str(call["endpoint"]),
        method=str(call.get("method", method)),
        connection=connection,
    )


def _compensation_of(step: StepDocument, config: JsonObject) -> CallSettings | None:
    compensation = cast("JsonObject | None", config.get("compensation"))
    if compensation is None:
        return None
    method = str(compensation.get("method", "POST"))
    own = cast("JsonObject | None", compensation.get("retryConfig"))
    retries = step.retry_config if own is None else own
    return CallSettings(
        endpoint=str(compensation["endpoint"]),
        method=method,
        connection=str(config.get("connection") or ""),
        body=compensation.get("requestMapping", None if method == "GET" else _COMPENSATION_BODY),
        timeout_ms=DEFAULT_TIMEOUT_MS if step.timeout_ms is None else step.timeout_ms,
        retry=COMPENSATION_RETRIES if retries is None else retry_policy(retries),
    )


def _final_api_of(config: JsonObject) -> CallSettings | None:
    final = cast("JsonObject | None", config.get("finalApi"))
    if final is None:
        return None
    return CallSettings(
        endpoint=str(final["endpoint"]),
        method=str(final.get("method", "POST")),
        connection=str(final.get("connection") or ""),
        body=config.get("apiMapping"),
        timeout_ms=cast(int, final.get("timeoutMs", DEFAULT_TIMEOUT_MS)),
        retry=retry_policy(cast("JsonObject | None", final.get("retryConfig"))),
    )
