"""Mappings: JSON whose string leaves are expressions, applied to a scope to give a payload.

Objects and arrays nest, leaves that are no strings are literals, and `{"$from": expression,
"$default": json}` gives a default for what is absent or null. A source without a value and without
a default stops the whole mapping: every such output field is named, and nothing partial comes out.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from config.jsonvalues import JsonObject, JsonValue
from workflows.errors import ExpressionFailed, ExpressionInvalid, MappingIncomplete, Problem
from workflows.expressions import (
    Expression,
    Scope,
    check_output,
    compile_expression,
)

FROM = "$from"
DEFAULT = "$default"
ROOT_FIELD = "$"


@dataclass(frozen=True, slots=True)
class MappingSource:
    """One expression of a mapping: the output field it fills (`items[0].id`), and from what."""

    path: str
    expression: Expression
    has_default: bool


@dataclass(frozen=True, slots=True)
class _Literal:
    value: JsonValue

    def build(self, _scope: Scope, _missing: list[str]) -> JsonValue:
        return self.value


@dataclass(frozen=True, slots=True)
class _Leaf:
    source: MappingSource
    default: JsonValue

    def build(self, scope: Scope, missing: list[str]) -> JsonValue:
        try:
            value = self.source.expression.evaluate(scope)
        except ExpressionFailed:
            # Never the default: a sum that failed over bad data is not a sum of nothing.
            missing.append(self.source.path or ROOT_FIELD)
            return None
        if value is not None:
            return value
        if not self.source.has_default:
            missing.append(self.source.path or ROOT_FIELD)
        return self.default


@dataclass(frozen=True, slots=True)
class _Object:
    parts: "tuple[tuple[str, _Part], ...]"

    def build(self, scope: Scope, missing: list[str]) -> JsonValue:
        return {name: part.build(scope, missing) for name, part in self.parts}


@dataclass(frozen=True, slots=True)
class _Array:
    parts: "tuple[_Part, ...]"

    def build(self, scope: Scope, missing: list[str]) -> JsonValue:
        return [part.build(scope, missing) for part in self.parts]


_Part: TypeAlias = "_Literal | _Leaf | _Object | _Array"


@dataclass(frozen=True, slots=True)
class ApiMapping:
    """A compiled mapping. `roots` are the names it reads, None when it may read all of them."""

    sources: tuple[MappingSource, ...]
    roots: frozenset[str] | None
    _part: _Part

    def apply(self, scope: Scope) -> JsonValue:
        """The payload. It shares its parts with the scope and the mapping: do not change it.

        Raises MappingIncomplete with every output field that has no value (`$` is the payload
        itself), and ExpressionFailed when the payload is over MAX_OUTPUT_BYTES.
        """
        missing: list[str] = []
        payload = self._part.build(scope, missing)
        if missing:
            raise MappingIncomplete(missing)
        try:
            check_output(payload)
        except ExpressionFailed as error:
            raise ExpressionFailed(f"The mapping failed: {error.message}.") from None
        return payload


def final_payload(
    mapping: ApiMapping | None, context: Mapping[str, JsonValue], *, is_sent: bool
) -> JsonValue:
    """What completing sends and keeps. Raises as `ApiMapping.apply`.

    Without a mapping a final API gets the whole context, a record nothing.
    """
    if mapping is not None:
        return mapping.apply(context)
    return dict(context) if is_sent else None


def compile_mapping(source: JsonValue) -> ApiMapping:
    """The compiled mapping. Raises ExpressionInvalid with every problem and its path."""
    problems: list[Problem] = []
    part = _compile(source, "", problems)
    if problems:
        raise ExpressionInvalid(problems)
    sources = tuple(_sources(part))
    return ApiMapping(sources, union_of_roots(item.expression for item in sources), part)


def union_of_roots(expressions: Iterable[Expression]) -> frozenset[str] | None:
    """The names that any of the expressions reads; None when one of them may read all."""
    names: set[str] = set()
    for expression in expressions:
        if expression.roots is None:
            return None
        names |= expression.roots
    return frozenset(names)


def _compile(source: JsonValue, path: str, problems: list[Problem]) -> _Part:
    if isinstance(source, str):
        return _compile_leaf(source, {}, path, problems)
    if isinstance(source, list):
        items = [_compile(item, f"{path}[{at}]", problems) for at, item in enumerate(source)]
        return _Array(tuple(items))
    if not isinstance(source, dict):
        return _Literal(source)
    if FROM in source or DEFAULT in source:
        return _compile_default(source, path, problems)
    parts = {name: _compile(item, _join(path, name), problems) for name, item in source.items()}
    return _Object(tuple(parts.items()))


def _compile_default(source: JsonObject, path: str, problems: list[Problem]) -> _Part:
    problems += [
        Problem(_join(path, name), f"an object with {FROM} may only have {DEFAULT} besides")
        for name in source
        if name not in (FROM, DEFAULT)
    ]
    text = source.get(FROM)
    if not isinstance(text, str):
        problems.append(Problem(_join(path, FROM), "must be an expression"))
        return _Literal(None)
    return _compile_leaf(text, source, path, problems)


def _compile_leaf(text: str, source: JsonObject, path: str, problems: list[Problem]) -> _Part:
    try:
        expression = compile_expression(text)
    except ExpressionInvalid as error:
        problems += [Problem(path, problem.message) for problem in error.problems]
        return _Literal(None)
    return _Leaf(MappingSource(path, expression, DEFAULT in source), source.get(DEFAULT))


def _sources(part: _Part) -> Iterator[MappingSource]:
    if isinstance(part, _Leaf):
        yield part.source
    elif isinstance(part, _Object):
        for _, child in part.parts:
            yield from _sources(child)
    elif isinstance(part, _Array):
        for child in part.parts:
            yield from _sources(child)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
