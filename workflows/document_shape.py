"""The shape of a workflow document: which keys there are, of which type, and how long or large.

Every problem is told at once, with its path; nothing is changed and no default is filled in. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from config.jsonvalues import JsonRefused, JsonValue, check_storable
from workflows.enums import StepExecutionMode, StepType, TriggerTiming
from workflows.errors import Problem


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how large the parts of a document may be."""

    name: int = 200
    description: int = 5_000
    label: int = 200
    endpoint: int = 2_000
    expression: int = 500
    text: int = 10_000
    data_key: int = 100
    order: int = 100_000
    timeout_ms: tuple[int, int] = (100, 120_000)


LIMITS: Final = Limits()
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")

_DATA_KEY = re.compile(r"[^\W\d][\w-]*")
_PLAIN_KEY = re.compile(r"[\w$-]+")


def document_problems(data: JsonValue, *, max_steps: int | None = None) -> list[Problem]:
    """Everything that is wrong with the document's shape."""
    steps = data.get("steps") if isinstance(data, dict) else None
    if isinstance(steps, list) and max_steps is not None and len(steps) > max_steps:
        # Before anything else: what is too long is not looked through.
        return [Problem("steps", f"must have at most {max_steps} steps, not {len(steps)}")]
    try:
        check_storable(data)
    except JsonRefused as refused:
        return [Problem("", str(refused))]
    problems: list[Problem] = []
    _check_workflow(data, "", problems)
    return problems


def join_path(path: str, key: str) -> str:
    """The path of `key` inside the object at `path`."""
    if not _PLAIN_KEY.fullmatch(key):
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


# Checks: each looks at one value and adds what is wrong with it.

_Check: TypeAlias = Callable[[JsonValue, str, list[Problem]], None]


def _any(_value: JsonValue, _path: str, _problems: list[Problem]) -> None:
    """Every JSON value will do."""


def _present(value: JsonValue, path: str, problems: list[Problem]) -> None:
    if value is None:
        problems.append(Problem(path, "must not be null; leave it out instead"))


def _boolean(value: JsonValue, path: str, problems: list[Problem]) -> None:
    if not isinstance(value, bool):
        problems.append(Problem(path, _wrong_type(value, "true or false")))


def _text(limit: int, *, may_be_empty: bool = False) -> _Check:
    def check(value: JsonValue, path: str, problems: list[Problem]) -> None:
        if not isinstance(value, str):
            problems.append(Problem(path, _wrong_type(value, "text")))
        elif not value.strip() and not may_be_empty:
            problems.append(Problem(path, "must not be empty"))
        elif len(value) > limit:
            problems.append(Problem(path, f"must have at most {limit} characters"))

    return check


def _integer(low: int, high: int) -> _Check:
    def check(value: JsonValue, path: str, problems: list[Problem]) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            problems.append(Problem(path, _wrong_type(value, "a whole number")))
        elif not low <= value <= high:
            problems.append(Problem(path, f"must be between {low} and {high}"))

    return check


def _number(low: int, high: int) -> _Check:
    def check(value: JsonValue, path: str, problems: list[Problem]) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            problems.append(Problem(path, _wrong_type(value, "a number")))
        elif not low <= value <= high:
            problems.append(Problem(path, f"must be between {low} and {high}"))

    return check


def _one_of(words: Sequence[str]) -> _Check:
    def check(value: JsonValue, path: str, problems: list[Problem]) -> None:
        if not isinstance(value, str):
            problems.append(Problem(path, _wrong_type(value, f"one of {', '.join(words)}")))
        elif value not in words:
            problems.append(Problem(path, f"must be one of {', '.join(words)}"))

    return check


def _data_key(value: JsonValue, path: str, problems: list[Problem]) -> None:
    if not isinstance(value, str):
        problems.append(Problem(path, _wrong_type(value, "text")))
    elif not _DATA_KEY.fullmatch(value) or len(value) > LIMITS.data_key:
        problems.append(
            Problem(
                path,
                "must start with a letter or _, go on with letters, digits, _ or -, "
                f"and have at most {LIMITS.data_key} characters",
            )
        )


def _schema(value: JsonValue, path: str, problems: list[Problem]) -> None:
    if not isinstance(value, dict | bool):
        problems.append(Problem(path, _wrong_type(value, "a JSON Schema (an object)")))


def _texts(value: JsonValue, path: str, problems: list[Problem]) -> None:
    if not isinstance(value, dict):
        problems.append(Problem(path, _wrong_type(value, "an object")))
        return
    for key, item in value.items():
        _text(LIMITS.text, may_be_empty=True)(item, join_path(path, key), problems)


def _list_of_texts(value: JsonValue, path: str, problems: list[Problem]) -> None:
    if not isinstance(value, list):
        problems.append(Problem(path, _wrong_type(value, "a list")))
        return
    for index, item in enumerate(value):
        _text(LIMITS.expression)(item, f"{path}[{index}]", problems)


def _object(keys: Mapping[str, _Check], *, required: Sequence[str] = ()) -> _Check:
    def check(value: JsonValue, path: str, problems: list[Problem]) -> None:
        if not isinstance(value, dict):
            problems.append(Problem(path, _wrong_type(value, "an object")))
            return
        missing = (key for key in required if key not in value)
        problems.extend(Problem(join_path(path, key), "is required") for key in missing)
        for key, item in value.items():
            at = join_path(path, key)
            if key not in keys:
                problems.append(Problem(at, f"unknown key; known are {', '.join(sorted(keys))}"))
            elif item is None and keys[key] is not _any:
                _present(item, at, problems)
            else:
                keys[key](item, at, problems)

    return check


def _wrong_type(value: JsonValue, wanted: str) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a fraction",
        str: "text",
        list: "a list",
    }
    got = names.get(type(value), "null" if value is None else "an object")
    return f"must be {wanted}, not {got}"


_expression = _text(LIMITS.expression)
_endpoint = _text(LIMITS.endpoint)
_connection = _text(100)
_method = _one_of(METHODS)
_timeout = _integer(*LIMITS.timeout_ms)
_retry_config = _object(
    {
        "maxRetries": _integer(0, 10),
        "initialDelayMs": _integer(0, 60_000),
        "backoffMultiplier": _number(1, 10),
        "maxDelayMs": _integer(0, 3_600_000),
    }
)
_final_api = _object(
    {
        "endpoint": _endpoint,
        "method": _method,
        "connection": _connection,
        "timeoutMs": _timeout,
        "retryConfig": _retry_config,
    },
    required=("endpoint",),
)
_workflow_config = _object(
    {
        "apiMapping": _present,
        "finalApi": _final_api,
        "sessionTtlSeconds": _integer(60, 86_400),
        "durableSession": _boolean,
        "initialContextSchema": _schema,
        "requiredScopes": _list_of_texts,
        "sensitive": _list_of_texts,
    }
)
_step_config = _object(
    {
        "dataKey": _data_key,
        "inputSchema": _schema,
        "title": _text(LIMITS.text, may_be_empty=True),
        "message": _text(LIMITS.text, may_be_empty=True),
        "formId": _text(LIMITS.name),
        "fields": _present,
        "method": _method,
        "headers": _texts,
        "connection": _connection,
        "requestMapping": _present,
        "proceedWhen": _expression,
        "when": _expression,
        "optional": _boolean,
        "reversible": _boolean,
        "private": _boolean,
        "app": _any,
        "status": _object(
            {"endpoint": _endpoint, "method": _method, "expect": _expression},
            required=("endpoint",),
        ),
        "compensation": _object(
            {
                "endpoint": _endpoint,
                "method": _method,
                "requestMapping": _present,
                "retryConfig": _retry_config,
            },
            required=("endpoint",),
        ),
    }
)
_step = _object(
    {
        "type": _one_of(StepType.values),
        "label": _text(LIMITS.label),
        "order": _integer(0, LIMITS.order),
        "executionMode": _one_of(StepExecutionMode.values),
        "triggerTiming": _one_of(TriggerTiming.values),
        "triggerEndpoint": _endpoint,
        "timeoutMs": _timeout,
        "retryConfig": _retry_config,
        "config": _step_config,
    },
    required=("type", "label", "order"),
)


def _steps(value: JsonValue, path: str, problems: list[Problem]) -> None:
    if not isinstance(value, list):
        problems.append(Problem(path, _wrong_type(value, "a list")))
        return
    for index, item in enumerate(value):
        _step(item, f"{path}[{index}]", problems)
    _check_orders(value, path, problems)


def _check_orders(steps: list[JsonValue], path: str, problems: list[Problem]) -> None:
    last: int | None = None
    for index, step in enumerate(steps):
        order = step.get("order") if isinstance(step, dict) else None
        if not isinstance(order, int):
            continue
        if order == last:
            problems.append(
                Problem(f"{path}[{index}].order", f"is taken: another step has order {order}")
            )
        elif last is not None and order < last:
            problems.append(
                Problem(f"{path}[{index}].order", f"must be above the step before it ({last})")
            )
        last = order if last is None else max(last, order)


_check_workflow = _object(
    {
        "name": _text(LIMITS.name),
        "description": _text(LIMITS.description, may_be_empty=True),
        "config": _workflow_config,
        "steps": _steps,
    },
    required=("name", "steps"),
)
