"""Templates: `${expression}` in texts and endpoints.

Rendered in one pass: what a value holds is never looked at again, so nobody's input can become an
expression. `$${` is a literal `${`. In texts what is missing or fails gives an empty string; in an
endpoint every value is percent-encoded as one path segment or query value, and a missing one stops
the call.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote

from config.jsonvalues import JsonValue
from workflows.errors import ExpressionFailed, ExpressionInvalid, MappingIncomplete, Problem
from workflows.expressions import (
    MAX_LENGTH,
    MAX_OUTPUT_BYTES,
    QUOTED,
    Expression,
    Scope,
    compile_expression,
)
from workflows.mapping import union_of_roots

_OPENING = re.compile(r"\$?\$\{")
_BRACE_OR_QUOTED = re.compile(rf"{QUOTED}|[{{}}]", re.DOTALL)
_NO_SEGMENT = ("", ".", "..")

_Parts: TypeAlias = "tuple[str | Expression, ...]"


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled text. `roots` are the names it reads, None when it may read all of them."""

    _parts: _Parts
    expressions: tuple[Expression, ...]
    roots: frozenset[str] | None

    def render(self, scope: Scope) -> str:
        """The text. Values that would take it beyond MAX_OUTPUT_BYTES characters are left out."""
        rendered: list[str] = []
        room = MAX_OUTPUT_BYTES
        for part in self._parts:
            text = part if isinstance(part, str) else _render_value(part, scope)
            if len(text) <= room or isinstance(part, str):
                rendered.append(text)
                room -= len(text)
        return "".join(rendered)


@dataclass(frozen=True, slots=True)
class EndpointTemplate:
    """A compiled endpoint. `roots` are the names it reads, None when it may read all of them."""

    _parts: _Parts
    expressions: tuple[Expression, ...]
    roots: frozenset[str] | None

    def render(self, scope: Scope) -> str:
        """The endpoint. Raises MappingIncomplete naming each expression without a usable value.

        Not usable are what is missing or fails, null, an empty text, `.` and `..`, lists, objects.
        """
        missing: list[str] = []
        rendered = [
            part if isinstance(part, str) else _render_segment(part, scope, missing)
            for part in self._parts
        ]
        if missing:
            raise MappingIncomplete(missing)
        return "".join(rendered)

    def sample(self) -> str:
        """The endpoint with `x` for each value: what publishing checks against the connection."""
        return "".join(part if isinstance(part, str) else "x" for part in self._parts)


@dataclass(frozen=True, slots=True)
class TextTree:
    """Any JSON whose texts may hold `${expression}`; the names of its objects are left alone."""

    _value: JsonValue
    _render: "Callable[[Scope], JsonValue] | None"
    expressions: tuple[Expression, ...]
    roots: frozenset[str] | None

    def render(self, scope: Scope) -> JsonValue:
        """The JSON with its texts rendered. What is constant is shared: do not change it."""
        return self._value if self._render is None else self._render(scope)


def compile_text(text: str) -> Template:
    """The compiled text. Raises ExpressionInvalid with every problem in it."""
    parts, expressions = _split(text)
    return Template(parts, expressions, union_of_roots(expressions))


def compile_endpoint(text: str) -> EndpointTemplate:
    """The compiled endpoint. Raises ExpressionInvalid with every problem in it."""
    parts, expressions = _split(text)
    return EndpointTemplate(parts, expressions, union_of_roots(expressions))


def compile_texts(value: JsonValue) -> TextTree:
    """The compiled JSON. Raises ExpressionInvalid with every problem and its path in the value."""
    problems: list[Problem] = []
    expressions: list[Expression] = []
    constant, render = _compile_tree(value, "", expressions, problems)
    if problems:
        raise ExpressionInvalid(problems)
    return TextTree(constant, render, tuple(expressions), union_of_roots(expressions))


def _split(text: str) -> tuple[_Parts, tuple[Expression, ...]]:
    problems: list[Problem] = []
    parts: list[str | Expression] = []
    at = 0
    while opening := _OPENING.search(text, at):
        parts.append(text[at : opening.start()])
        if opening[0] == "$${":
            parts.append("${")
            at = opening.end()
            continue
        end = _closing(text, opening.end())
        if end is None:
            reason = f"${{ at position {opening.start() + 1} is not closed"
            problems.append(Problem("", f"{reason} within {MAX_LENGTH} characters"))
            break
        try:
            parts.append(compile_expression(text[opening.end() : end]))
        except ExpressionInvalid as error:
            where = f"${{ at position {opening.start() + 1}"
            problems += [Problem("", f"{where}: {problem.message}") for problem in error.problems]
        at = end + 1
    if problems:
        raise ExpressionInvalid(problems)
    parts.append(text[at:])
    expressions = tuple(part for part in parts if isinstance(part, Expression))
    return tuple(part for part in parts if part != ""), expressions


def _closing(text: str, start: int) -> int | None:
    """Where the `}` of an expression stands: not one in quotes, nor one of an inner `{ }`."""
    depth = 0
    for found in _BRACE_OR_QUOTED.finditer(text, start, start + MAX_LENGTH + 1):
        if found[0] == "{":
            depth += 1
        elif found[0] == "}":
            if depth == 0:
                return found.start()
            depth -= 1
    return None


def _render_value(expression: Expression, scope: Scope) -> str:
    try:
        return _as_text(expression.evaluate(scope))
    except ExpressionFailed:
        return ""


def _render_segment(expression: Expression, scope: Scope, missing: list[str]) -> str:
    try:
        value = expression.evaluate(scope)
    except ExpressionFailed:
        value = None
    text = "" if isinstance(value, list | dict) else _as_text(value)
    if text in _NO_SEGMENT:
        missing.append(expression.text)
    return quote(text, safe="")


def _as_text(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_Compiled: TypeAlias = "tuple[JsonValue, Callable[[Scope], JsonValue] | None]"


def _compile_tree(
    value: JsonValue, path: str, expressions: list[Expression], problems: list[Problem]
) -> _Compiled:
    """The value as far as it is constant, and how to render it; None when all of it is constant."""
    if isinstance(value, str):
        return _compile_leaf(value, path, expressions, problems)
    if isinstance(value, list):
        items = [
            _compile_tree(item, f"{path}[{at}]", expressions, problems)
            for at, item in enumerate(value)
        ]
        return _join_items(items)
    if isinstance(value, dict):
        members = {
            name: _compile_tree(item, f"{path}.{name}" if path else name, expressions, problems)
            for name, item in value.items()
        }
        return _join_members(members)
    return value, None


def _compile_leaf(
    text: str, path: str, expressions: list[Expression], problems: list[Problem]
) -> _Compiled:
    try:
        template = compile_text(text)
    except ExpressionInvalid as error:
        problems += [Problem(path, problem.message) for problem in error.problems]
        return None, None
    expressions += template.expressions
    if template.expressions:
        return None, template.render
    return template.render({}), None


def _join_items(items: list[_Compiled]) -> _Compiled:
    if all(render is None for _, render in items):
        return [constant for constant, _ in items], None
    return None, lambda scope: [
        constant if render is None else render(scope) for constant, render in items
    ]


def _join_members(members: dict[str, _Compiled]) -> _Compiled:
    if all(render is None for _, render in members.values()):
        return {name: constant for name, (constant, _) in members.items()}, None
    return None, lambda scope: {
        name: constant if render is None else render(scope)
        for name, (constant, render) in members.items()
    }
