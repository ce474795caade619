"""What an expression can read at a place in a flow: paths with their source and type, and a sample.

The schema of the initial context and the input schemas and fields of steps say what there is. A partner's
answer and a form without a schema say nothing: of these only what the document itself reads elsewhere is
known, and taken on trust. What one step sees beside the context (`input`, `execution`) is asked for apart,
by `call_paths` and `sample_call`. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeAlias

from config.jsonvalues import JsonObject, JsonValue
from workflows.compiled import BUILT_IN_NAMES, result_key, stores_input, written_keys
from workflows.documents import TEXT_KEYS, StepDocument, StepSettings, WorkflowDocument
from workflows.enums import StepExecutionMode, StepType
from workflows.errors import DefinitionError
from workflows.interpolation import compile_text
from workflows.mapping import DEFAULT, FROM
from workflows.sampling import (
    MAX_DEPTH,
    properties_of,
    resolve,
    sample_by_name,
    sample_of,
    type_of,
)

MAX_PATHS: Final = 500

INITIAL_CONTEXT: Final = "initial context"
SERVER: Final = "the server"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN_NAME = re.compile(r"[\w$-]+")
_PLAIN_PATH = re.compile(r"[\w$-]+(?:\.[\w$-]+)*")
_USER_ID: Final = "sample-user"
_Names: TypeAlias = "tuple[str | int, ...]"
_EXECUTION: Final[JsonObject] = {
    "id": "0190a0a0-0000-7000-8000-000000000001",
    "workflow": "0190a0a0-0000-7000-8000-000000000002",
    "step": "0190a0a0-0000-7000-8000-000000000003",
    "userId": _USER_ID,
    "idempotencyKey": "0190a0a0-0000-7000-8000-000000000004",
}
_CALLBACK_URL: Final = "https://handrail.example/callbacks/sample"


@dataclass(frozen=True, slots=True)
class AvailablePath:
    """A path that an expression may read here.

    `type` is a JSON Schema type or `any`; `example` is what the sample has there. `is_guess`: nothing
    says that it is there but that the document reads it elsewhere. `is_private`: no text for the app
    ever holds it.
    """

    path: str
    source: str
    type: str
    may_be_missing: bool
    example: JsonValue = None
    is_guess: bool = False
    is_private: bool = False


@dataclass(frozen=True, slots=True)
class _Root:
    """A name of the context: what fills it, as far as it is described."""

    name: str
    source: str
    schema: JsonValue
    may_be_missing: bool
    is_described: bool
    is_private: bool = False
    is_guess: bool = False


def available_paths(document: WorkflowDocument, *, until: int | None) -> tuple[AvailablePath, ...]:
    """What the initial context and the steps before index `until` can produce, None for all steps.

    At most MAX_PATHS, in the order in which the flow makes them.
    """
    used = _used_paths(document)
    found = (one for root in _roots(document, until, used) for one in _paths_of(root, used))
    return tuple(islice(found, MAX_PATHS))


def call_paths(document: WorkflowDocument, *, step: int) -> tuple[AvailablePath, ...]:
    """What the trigger of the step at this index reads: the context before it, `input`, `execution`."""
    used = _used_paths(document)
    roots = _call_roots(document.steps[step], with_result=False)
    own = (path for root in roots for path in _paths_of(root, used))
    return (*available_paths(document, until=step), *islice(own, MAX_PATHS))


def compensation_paths(document: WorkflowDocument, *, step: int) -> tuple[AvailablePath, ...]:
    """What the compensation of the step reads: as its trigger, with the step's own data and `result`."""
    used = _used_paths(document)
    roots = _call_roots(document.steps[step], with_result=True)
    own = (path for root in roots for path in _paths_of(root, used))
    return (*available_paths(document, until=step + 1), *islice(own, MAX_PATHS))


def sample_context(document: WorkflowDocument, *, until: int | None) -> JsonObject:
    """A plausible context at that place, the same every time."""
    used = _used_paths(document)
    return {root.name: _sample_root(root, used) for root in _roots(document, until, used)}


def sample_call(document: WorkflowDocument, *, step: int) -> JsonObject:
    """The sample context before the step, with a plausible `input`, `result` and `execution`."""
    used = _used_paths(document)
    own = {
        root.name: _sample_root(root, used)
        for root in _call_roots(document.steps[step], with_result=True)
    }
    return {**sample_context(document, until=step), **own}


def join_names(names: Iterable[str | int]) -> str:
    """The expression that walks these names and indexes, quoted where it has to be."""
    steps = list(names)
    if all(isinstance(one, str) and _PLAIN_NAME.fullmatch(one) for one in steps):
        return ".".join(map(str, steps))
    text = ""
    for one in steps:
        if isinstance(one, int):
            text += f"[{one}]"
        else:
            name = one if _NAME.fullmatch(one) else json.dumps(one, ensure_ascii=False)
            text += f".{name}" if text else name
    return text


# Roots: who fills which name of the context.


def _roots(
    document: WorkflowDocument, until: int | None, used: list[tuple[str, ...]]
) -> list[_Root]:
    steps = document.steps if until is None else document.steps[:until]
    user_id: JsonObject = {"type": "string", "const": _USER_ID}
    user = _Root("userId", SERVER, user_id, may_be_missing=False, is_described=True)
    roots = [user, *_initial_roots(document, used)]
    for step in steps:
        roots += _step_roots(step, is_completion=until is None)
    return list({root.name: root for root in roots}.values())


def _initial_roots(document: WorkflowDocument, used: list[tuple[str, ...]]) -> list[_Root]:
    schema = (document.config or {}).get("initialContextSchema")
    one = resolve(schema, schema)
    described = properties_of(one, schema)
    roots = [
        _Root(
            name,
            INITIAL_CONTEXT,
            _with_definitions(member, schema),
            may_be_missing=not required,
            is_described=True,
        )
        for name, member, required in described
    ]
    if one.get("additionalProperties") is False:
        return roots
    known = {root.name for root in roots} | BUILT_IN_NAMES
    known |= {key for step in document.steps for key in written_keys(step)}
    return roots + [
        _Root(name, INITIAL_CONTEXT, None, may_be_missing=True, is_described=False, is_guess=True)
        for name in dict.fromkeys(path[0] for path in used)
        if name not in known
    ]


def _step_roots(step: StepDocument, *, is_completion: bool) -> Iterator[_Root]:
    settings = StepSettings.of(step)
    may_be_missing = settings.optional or settings.when is not None or step.type is StepType.INFO
    if stores_input(step):
        schema, is_described = _input_schema(step)
        source = f"{step.label}: what was entered"
        yield _Root(
            step.data_key, source, schema, may_be_missing, is_described, is_private=settings.private
        )
    if step.mode is not StepExecutionMode.CLIENT_ONLY:
        late = step.mode is StepExecutionMode.SERVER_ASYNC and not is_completion
        yield _Root(
            result_key(step),
            f"{step.label}: the partner's answer",
            None,
            may_be_missing or late,
            is_described=False,
            is_private=settings.private,
        )


def _input_schema(step: StepDocument) -> tuple[JsonValue, bool]:
    """The schema of what the app sends with the step, and whether something describes it."""
    config = step.config or {}
    schema = config.get("inputSchema")
    if isinstance(schema, dict):
        return schema, bool(properties_of(resolve(schema, schema), schema)) or "type" in schema
    if step.type is StepType.CONFIRMATION:
        accepted: JsonObject = {"type": "boolean", "const": True}
        return {
            "type": "object",
            "properties": {"accepted": accepted},
            "required": ["accepted"],
        }, True
    members: JsonObject = {name: {} for name in field_names(config.get("fields"))}
    return {"type": "object", "properties": members}, False


def field_names(fields: JsonValue) -> list[str]:
    """The names in a step's `fields`, where they are written as a list of objects with a `name`."""
    entries = fields if isinstance(fields, list) else []
    names = [entry.get("name") for entry in entries if isinstance(entry, dict)]
    return [name for name in names if isinstance(name, str) and name]


def _call_roots(step: StepDocument, *, with_result: bool) -> list[_Root]:
    schema, is_described = _input_schema(step)
    names = dict(_EXECUTION)
    if step.mode is StepExecutionMode.SERVER_ASYNC and not with_result:
        names["callbackUrl"] = _CALLBACK_URL
    members: JsonObject = {
        name: {"type": "string", "const": value} for name, value in names.items()
    }
    execution: JsonObject = {"type": "object", "properties": members, "required": [*names]}
    entered = f"{step.label}: what was entered"
    roots = [
        _Root("input", entered, schema, not is_described, is_described=is_described),
        _Root("execution", SERVER, execution, may_be_missing=False, is_described=True),
    ]
    if with_result:
        answer = f"{step.label}: the partner's answer"
        roots.append(_Root("result", answer, None, may_be_missing=False, is_described=False))
    return roots


def _with_definitions(member: JsonObject, root: JsonValue) -> JsonValue:
    """The member as a schema of its own: its references lead into the whole."""
    if not isinstance(root, dict):
        return member
    return {**{key: root[key] for key in ("$defs", "definitions") if key in root}, **member}


# Paths: what is inside a root.


def _paths_of(root: _Root, used: list[tuple[str, ...]]) -> Iterator[AvailablePath]:
    seen: set[_Names] = set()
    sample = _sample_root(root, used)
    schema = resolve(root.schema, root.schema)
    for names, kind, missing in _walk((root.name,), schema, root.schema, root.may_be_missing):
        seen.add(names)
        yield _available(root, names, kind, sample, may_be_missing=missing)
    if root.is_described:
        return
    for path in used:
        for end in range(2, len(path) + 1):
            names = path[:end]
            if path[0] == root.name and names not in seen:
                seen.add(names)
                guess = _available(root, names, "any", sample, may_be_missing=True)
                yield replace(guess, is_guess=True)


def _walk(
    names: _Names,
    schema: JsonObject,
    root: JsonValue,
    missing: bool,  # noqa: FBT001 - carried along
) -> Iterator[tuple[_Names, str, bool]]:
    kind = type_of(schema)
    members = properties_of(schema, root)
    yield names, "object" if kind == "any" and members else kind, missing
    if len(names) > MAX_DEPTH:
        return
    for name, member, required in members:
        yield from _walk((*names, name), member, root, missing or not required)
    if kind == "array" and "items" in schema:  # which may have none
        yield from _walk((*names, 0), resolve(schema["items"], root), root, missing=True)


def _available(
    root: _Root, names: _Names, kind: str, sample: JsonValue, *, may_be_missing: bool
) -> AvailablePath:
    example = sample
    for name in names[1:]:
        if isinstance(example, list) and isinstance(name, int):
            example = example[name] if name < len(example) else None
        else:
            example = example.get(str(name)) if isinstance(example, dict) else None
    return AvailablePath(
        path=join_names(names),
        source=root.source,
        type=kind,
        may_be_missing=may_be_missing,
        example=example,
        is_guess=root.is_guess,
        is_private=root.is_private,
    )


def _sample_root(root: _Root, used: list[tuple[str, ...]]) -> JsonValue:
    inside = [path[1:] for path in used if path[0] == root.name and len(path) > 1]
    if root.is_described or (not inside and root.schema is None and root.is_guess):
        return sample_of(root.schema, root.name)
    value = sample_of(root.schema, root.name) if root.schema is not None else {}
    filled: JsonObject = value if isinstance(value, dict) else {}
    for path in inside:
        _fill(filled, path)
    return filled


def _fill(value: JsonObject, path: tuple[str, ...]) -> None:
    for name in path[:-1]:
        inner = value.get(name)
        if not isinstance(inner, dict):
            inner = value[name] = {}
        value = inner
    value.setdefault(path[-1], sample_by_name(path[-1]))


# What the document itself reads: the only word there is on a partner's answer.


def _used_paths(document: WorkflowDocument) -> list[tuple[str, ...]]:
    """The plain paths that the document's expressions read, of the context as a whole."""
    found: dict[tuple[str, ...], None] = {}
    config = document.config or {}
    final = config.get("finalApi")
    endpoint = final.get("endpoint") if isinstance(final, dict) else None
    for text in (*_leaves(config.get("apiMapping")), *_in_text(endpoint)):
        found.update(dict.fromkeys(_context_path(text, None)))
    for step in document.steps:
        for text in _step_expressions(step):
            found.update(dict.fromkeys(_context_path(text, step)))
    return list(found)


def _step_expressions(step: StepDocument) -> Iterator[str]:
    config = step.config or {}
    yield from _in_text(step.trigger_endpoint)
    yield from (text for key in ("when", "proceedWhen") for text in _text_at(config, key))
    yield from _leaves(config.get("requestMapping"))
    for key in (*TEXT_KEYS, "headers"):
        for text in _strings(config.get(key)):
            yield from _in_text(text)
    for call in (config.get("status"), config.get("compensation")):
        if isinstance(call, dict):
            yield from _in_text(call.get("endpoint"))
            yield from _leaves(call.get("requestMapping"))
            yield from _text_at(call, "expect")


def _text_at(config: JsonObject, key: str) -> Iterator[str]:
    value = config.get(key)
    if isinstance(value, str):
        yield value


def _context_path(text: str, step: StepDocument | None) -> Iterator[tuple[str, ...]]:
    """The path that a text reads, if it is a plain one; in a step its own names as the context's too.

    A comparison's left side is one as well: `result.status == 'OPEN'` tells of the answer's `status`.
    """
    for part in re.split(r"==|!=|<=|>=|<|>|&&|\|\|", text):
        plain = part.strip().lstrip("!").strip()
        if not _PLAIN_PATH.fullmatch(plain) or plain[0].isdigit():
            continue
        names = tuple(plain.split("."))
        names = names[1:] if names[0] == "context" else names
        if not names:
            continue
        if step is not None and names[0] in ("input", "result"):
            yield names
            key = result_key(step) if names[0] == "result" else step.data_key
            if names[0] == "result" or stores_input(step):
                yield (key, *names[1:])
        elif names[0] != "execution":
            yield names


def _leaves(mapping: JsonValue) -> Iterator[str]:
    if isinstance(mapping, str):
        yield mapping
    elif isinstance(mapping, list):
        for item in mapping:
            yield from _leaves(item)
    elif isinstance(mapping, dict):
        for name, item in mapping.items():
            if name == DEFAULT and FROM in mapping:
                continue
            yield from _leaves(item)


def _strings(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _in_text(text: JsonValue) -> Iterator[str]:
    if not isinstance(text, str) or "${" not in text:
        return
    try:
        expressions = compile_text(text).expressions
    except DefinitionError:
        return
    for expression in expressions:
        yield expression.text
