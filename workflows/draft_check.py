"""May this draft be published? Every problem and warning at once, each with its path.

The document's shape has been checked (`document_shape.py`); here is what needs more than one place to
judge: modes against endpoints and timings, data keys against each other, expressions and schemas that
have to compile, mapping sources against what the steps and the initial context can produce, endpoints
and headers against the connections there are. Problems stop publishing, warnings do not. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from config.jsonvalues import JsonObject, JsonValue
from workflows.compiled import BUILT_IN_NAMES, hidden_keys_of, result_key, written_keys
from workflows.document_shape import join_path
from workflows.documents import (
    TEXT_KEYS,
    CallSettings,
    StepDocument,
    StepSettings,
    WorkflowDocument,
    WorkflowSettings,
)
from workflows.egress import (
    check_header_name,
    check_header_value,
    is_absolute,
    origin_of,
    resolve_endpoint,
)
from workflows.enums import StepExecutionMode, StepType, TriggerTiming
from workflows.errors import DefinitionError, EndpointForbidden, Problem
from workflows.expressions import Expression, compile_expression
from workflows.interpolation import compile_endpoint, compile_text, compile_texts
from workflows.mapping import MappingSource, compile_mapping
from workflows.routing import DEFAULT_CONNECTION, ConnectionFacts, choose_by_origin
from workflows.schemas import compile_schema

_WRITTEN_BY_THE_SERVER: Final = frozenset({"userId"})
_TRIGGER_NAMES: Final = frozenset({"input", "execution"})
_COMPENSATION_NAMES: Final = _TRIGGER_NAMES | {"result"}
# A part of `execution`, beside the names: only the trigger of an async step has it.
_CALLBACK_URL: Final = "execution.callbackUrl"
# Keywords that say more about an object's properties than `properties` does.
_OPEN_KEYWORDS: Final = frozenset(
    {"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties"}
    | {"dependentSchemas"}
)
_PROCEED_NAMES: Final = ("result", "input", "context")
_PLAIN_NAME = re.compile(r"\s*(?P<name>[\w-]+)(?:\.[\w-]+)*\s*")
# The keys of a step's config that only a trigger has a use for.
_TRIGGER_KEYS: Final = ("method", "headers", "connection", "requestMapping", "status")

_Compiled = TypeVar("_Compiled")
_Source = TypeVar("_Source")


@dataclass(frozen=True, slots=True)
class DraftReport:
    """What a check found. A draft without problems may be published, whatever its warnings."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def check_draft(
    document: WorkflowDocument, *, connections: Mapping[str, ConnectionFacts]
) -> DraftReport:
    """Everything that stops the draft from being published, and what its author should look at."""
    check = _Check(document, connections)
    _check_workflow(check)
    _check_data_keys(check)
    known: frozenset[str] = frozenset()
    for index, step in enumerate(document.steps):
        known |= _keys_of((step,))
        if step.mode is StepExecutionMode.SERVER_ASYNC:
            check.late_keys[result_key(step)] = index
        _check_step(check, step, f"steps[{index}]", known)
    return DraftReport(tuple(check.problems), tuple(dict.fromkeys(check.warnings)))


def join(path: str, inner: str) -> str:
    """The path of what stands at `inner` inside the value at `path`."""
    if not inner or inner == "$":
        return path
    return path + inner if inner.startswith("[") else f"{path}.{inner}"


class _Check:
    """One pass over a document: what it has found, and what every part of the check asks."""

    def __init__(
        self, document: WorkflowDocument, connections: Mapping[str, ConnectionFacts]
    ) -> None:
        self.document = document
        self.connections = connections
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.settings = WorkflowSettings.of(document)
        self.keys = _keys_of(document.steps)
        self.hidden_keys = hidden_keys_of(document)
        self.initial_names = _property_names(self.settings.initial_context_schema)
        # Result keys of the async steps up to the one being checked, and those steps' indexes.
        self.late_keys: dict[str, int] = {}

    def problem(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message))

    def warn(self, path: str, message: str) -> None:
        self.warnings.append(Problem(path, message))

    def take(self, path: str, error: DefinitionError) -> None:
        """Add what a part of the document was refused for."""
        self.problems += [Problem(join(path, one.path), one.message) for one in error.problems]

    def compiled(
        self, path: str, compile_it: Callable[[_Source], _Compiled], source: _Source
    ) -> _Compiled | None:
        """The compiled part, or None after taking its problems."""
        try:
            return compile_it(source)
        except DefinitionError as error:
            self.take(path, error)
            return None

    def check_mapping(self, path: str, source: JsonValue, names: frozenset[str]) -> None:
        """The mapping's expressions, and whether something can produce what they read."""
        mapping = None if source is None else self.compiled(path, compile_mapping, source)
        for one in mapping.sources if mapping else ():
            at = join(path, one.path)
            if one.expression.is_whole_context:
                self.problem(at, "the whole context is no mapping source; name what is needed")
            else:
                self.check_source(at, one, names)

    def check_source(self, path: str, source: MappingSource, names: frozenset[str]) -> None:
        """A source has to be producible: a missing value fails the call."""
        if not source.has_default:
            self.check_is_there(path, source.expression)
            if source.expression.text.strip() == _CALLBACK_URL and _CALLBACK_URL not in names:
                self.problem(path, f"{_CALLBACK_URL} is there for SERVER_ASYNC triggers only")
        for name in self._unknown(source.expression, names):
            if name in self.keys:
                if not source.has_default:
                    self.problem(path, f"{name} is only there after a later step")
            elif name in BUILT_IN_NAMES:
                self.problem(path, f"{name} does not exist here")
            elif self.initial_names is not None:
                self.problem(path, f"no step and no initial context produces {name}")
            else:
                self.warn(path, f"{name} is no data key: taken to come from the initial context")

    def check_reading(
        self, path: str, expressions: Iterable[Expression], names: frozenset[str]
    ) -> None:
        """Names in conditions and texts: a missing one breaks nothing, so a warning will do."""
        for expression in expressions:
            self.check_is_there(path, expression)
            for name in self._unknown(expression, names | self.keys):
                self.warn(path, f"{name} is no data key" + self._where_from(name))

    def check_is_there(self, path: str, expression: Expression) -> None:
        """Nothing but the completion waits for what an async step brings."""
        for name in sorted((expression.roots or frozenset()) & self.late_keys.keys()):
            step = f"steps[{self.late_keys[name]}]"
            message = (
                f"{name} may not be there yet: {step} is SERVER_ASYNC, and only the completion"
            )
            self.warn(path, f"{message} waits for it")

    def _where_from(self, name: str) -> str:
        if self.initial_names is None and name not in BUILT_IN_NAMES:
            return ": taken to come from the initial context"
        return ", and the initial context has none of that name"

    def _unknown(self, expression: Expression, names: frozenset[str]) -> list[str]:
        known = names | _WRITTEN_BY_THE_SERVER | (self.initial_names or frozenset())
        return sorted((expression.roots or frozenset()) - known)

    def check_endpoint(
        self, paths: _CallPaths, endpoint: str, connection: str, names: frozenset[str]
    ) -> ConnectionFacts | None:
        """Where a call goes: the connection, None after taking problems."""
        template = self.compiled(paths.endpoint, compile_endpoint, endpoint)
        if template is None:
            return None
        for expression in template.expressions:
            source = MappingSource(path="", expression=expression, has_default=False)
            self.check_source(paths.endpoint, source, names)
        if connection and connection not in self.connections:
            self.problem(paths.connection, f"there is no connection {connection}")
            return None
        try:
            return self._route(template.sample(), connection)
        except EndpointForbidden as error:
            self.take(paths.endpoint, error)
            return None

    def _route(self, endpoint: str, connection: str) -> ConnectionFacts:
        facts = self.connections[connection or self._chosen(endpoint)]
        resolve_endpoint(endpoint=endpoint, base_url=facts.base_url)
        return facts

    def _chosen(self, endpoint: str) -> str:
        if is_absolute(endpoint):
            base_urls = {name: facts.base_url for name, facts in self.connections.items()}
            return choose_by_origin(origin_of(endpoint), base_urls)
        if DEFAULT_CONNECTION not in self.connections:
            message = "has no connection: name one, or set TRIGGER_BASE_URL"
            raise EndpointForbidden([Problem("", message)])
        return DEFAULT_CONNECTION


@dataclass(frozen=True, slots=True)
class _CallPaths:
    """Where a call's endpoint and connection stand in the document."""

    endpoint: str
    connection: str


def _check_workflow(check: _Check) -> None:
    settings = check.settings
    if not check.document.steps:
        check.problem("steps", "a workflow needs at least one step")
    for index, path in enumerate(settings.sensitive):
        if not all(path.split(".")):
            check.problem(f"config.sensitive[{index}]", "must be names joined by single dots")
    _check_initial_context(check)
    check.check_mapping("config.apiMapping", settings.api_mapping, check.keys)
    _check_final_api(check)


def _check_initial_context(check: _Check) -> None:
    path = "config.initialContextSchema"
    schema = check.settings.initial_context_schema
    if schema is not None:
        check.compiled(path, compile_schema, schema)
    for name in sorted((check.initial_names or frozenset()) & (BUILT_IN_NAMES | check.keys)):
        message = "is not the initial context's to fill: a step's data key or a reserved name"
        check.problem(f"{path}.properties.{name}", message)


def _check_final_api(check: _Check) -> None:
    final = check.settings.final_api
    if final is None:
        return
    if check.settings.api_mapping is None:
        check.warn("config.finalApi", "sends the whole context: there is no config.apiMapping")
    paths = _CallPaths("config.finalApi.endpoint", "config.finalApi.connection")
    check.check_endpoint(paths, final.endpoint, final.connection, check.keys | {"execution"})


def _check_data_keys(check: _Check) -> None:
    """No two steps may write the same key, and none a reserved one."""
    taken: dict[str, int] = {}
    for index, step in enumerate(check.document.steps):
        path = f"steps[{index}].config.dataKey"
        for key in written_keys(step):
            if key in BUILT_IN_NAMES:
                check.problem(path, f"{key} is a reserved name")
            elif key in taken:
                check.problem(path, f"{key} is taken by steps[{taken[key]}]")
            else:
                taken[key] = index


def _check_step(check: _Check, step: StepDocument, path: str, known: frozenset[str]) -> None:
    settings = StepSettings.of(step)
    config = step.config or {}
    if settings.input_schema is not None:
        check.compiled(f"{path}.config.inputSchema", compile_schema, settings.input_schema)
    _check_condition(check, f"{path}.config.when", settings.when)
    _check_proceed_when(check, f"{path}.config.proceedWhen", settings.proceed_when)
    _check_texts(check, f"{path}.config", config)
    if step.mode is StepExecutionMode.CLIENT_ONLY:
        _check_client_step(check, step, path)
    else:
        _check_server_step(check, step, path, known)


def _check_condition(check: _Check, path: str, text: str | None) -> None:
    expression = None if text is None else check.compiled(path, compile_expression, text)
    if expression is not None:
        check.check_reading(path, (expression,), frozenset())


def _check_proceed_when(check: _Check, path: str, text: str | None) -> None:
    expression = None if text is None else check.compiled(path, compile_expression, text)
    first = _PLAIN_NAME.fullmatch(text) if expression and text else None
    if first and first["name"] not in _PROCEED_NAMES:
        names = ", ".join(_PROCEED_NAMES)
        check.problem(path, f"{first['name']} does not exist here; there are {names}")
    elif expression is not None:
        check.check_is_there(path, expression)


def _check_texts(check: _Check, path: str, config: JsonObject) -> None:
    for key in TEXT_KEYS:
        if key not in config:
            continue
        tree = check.compiled(f"{path}.{key}", compile_texts, config[key])
        if tree is None:
            continue
        check.check_reading(f"{path}.{key}", tree.expressions, frozenset())
        for name in sorted((tree.roots or frozenset()) & check.hidden_keys):
            check.warn(f"{path}.{key}", f"{name} is private: nothing of it is shown")


def _check_client_step(check: _Check, step: StepDocument, path: str) -> None:
    if step.trigger_endpoint is not None:
        message = "has no use: CLIENT_ONLY calls nobody; choose a server mode or leave it out"
        check.problem(f"{path}.triggerEndpoint", message)
    if step.timing is not TriggerTiming.AFTER_STEP:
        message = "makes no sense with CLIENT_ONLY, which has nothing to do before the step"
        check.problem(f"{path}.triggerTiming", message)
    if step.type is StepType.API_CALL:
        check.warn(f"{path}.executionMode", "an API_CALL that is CLIENT_ONLY calls nobody")
    for key in _TRIGGER_KEYS:
        if key in (step.config or {}):
            check.warn(f"{path}.config.{key}", "has no effect: the step calls nobody")
    if "compensation" in (step.config or {}):
        message = "has nothing to undo: CLIENT_ONLY calls nobody"
        check.problem(f"{path}.config.compensation", message)


def _check_server_step(check: _Check, step: StepDocument, path: str, known: frozenset[str]) -> None:
    settings = StepSettings.of(step)
    trigger = settings.trigger
    if trigger is None:
        check.problem(f"{path}.triggerEndpoint", f"is required for {step.mode.value}")
        return
    names = known | _TRIGGER_NAMES
    if step.mode is StepExecutionMode.SERVER_ASYNC:
        names |= {_CALLBACK_URL}
    paths = _CallPaths(f"{path}.triggerEndpoint", f"{path}.config.connection")
    facts = check.check_endpoint(paths, trigger.endpoint, trigger.connection, names)
    check.check_mapping(f"{path}.config.requestMapping", trigger.body, names)
    _check_headers(check, f"{path}.config.headers", trigger, facts)
    _check_status(check, f"{path}.config", settings, names)
    _check_compensation(check, f"{path}.config", settings, known)


def _check_headers(
    check: _Check, path: str, call: CallSettings, facts: ConnectionFacts | None
) -> None:
    seen: set[str] = set()
    for name, text in call.headers:
        at = join_path(path, name)
        try:
            check_header_name(name, credentials_header=facts.credential_header if facts else "")
            check_header_value(text)
        except EndpointForbidden as error:
            check.take(at, error)
        if name.lower() in seen:
            check.problem(at, "is there twice: the case of a header's name does not matter")
        seen.add(name.lower())
        template = check.compiled(at, compile_text, text)
        if template is not None:
            check.check_reading(at, template.expressions, _TRIGGER_NAMES)


def _check_status(check: _Check, path: str, settings: StepSettings, names: frozenset[str]) -> None:
    status = settings.status
    if status is None:
        return
    paths = _CallPaths(f"{path}.status.endpoint", f"{path}.connection")
    if status.connection and status.connection not in check.connections:
        return  # the trigger's check has said so
    check.check_endpoint(paths, status.endpoint, status.connection, names)
    if settings.status_expect is not None:
        check.compiled(f"{path}.status.expect", compile_expression, settings.status_expect)


def _check_compensation(
    check: _Check, path: str, settings: StepSettings, known: frozenset[str]
) -> None:
    """Composed when the step succeeds: what later steps bring is not there."""
    undo = settings.compensation
    if undo is None:
        return
    names = known | _COMPENSATION_NAMES
    paths = _CallPaths(f"{path}.compensation.endpoint", f"{path}.connection")
    if (
        not undo.connection or undo.connection in check.connections
    ):  # or the trigger's check said so
        check.check_endpoint(paths, undo.endpoint, undo.connection, names)
    check.check_mapping(f"{path}.compensation.requestMapping", undo.body, names)


def _keys_of(steps: Iterable[StepDocument]) -> frozenset[str]:
    return frozenset(key for step in steps for key in written_keys(step))


def _property_names(schema: JsonValue) -> frozenset[str] | None:
    """The names that an initial context may have; None when the schema leaves that open."""
    if not isinstance(schema, dict) or _OPEN_KEYWORDS & schema.keys():
        return None
    properties = schema.get("properties")
    return frozenset(properties) if isinstance(properties, dict) else None
