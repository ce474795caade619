"""Expressions: JMESPath over a scope, and nothing else is ever evaluated.

A text of names joined by dots (`transferDetails.amount`, `items.0.id`, `user-name.first`) is walked
directly; everything else is JMESPath. The name `context` denotes the scope itself, unless the scope
has a key of that name. What is absent is None. Values pass through untouched: integers stay exact.
Length, work and output are bounded, so that no definition can take a server down.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

from jmespath.exceptions import (
    IncompleteExpressionError,
    JMESPathTypeError,
    LexerError,
    ParseError,
)
from jmespath.functions import Functions, signature
from jmespath.parser import Parser
from jmespath.visitor import Options, TreeInterpreter

from config.jsonvalues import MAX_INTEGER_DIGITS, JsonObject, JsonRefused, JsonValue, check_storable
from workflows.errors import ExpressionFailed, ExpressionInvalid, Problem

MAX_LENGTH = 500
MAX_OUTPUT_BYTES = 1 << 20
CONTEXT = "context"
QUOTED = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`(?:\\.|[^`\\])*`"""

_MAX_STEPS = 1_000_000
_LARGEST_INTEGER = 10**MAX_INTEGER_DIGITS
_JSON_TYPES = (str, int, float, dict, list, type(None))  # a union costs three times as much
_PLAIN_PATH = re.compile(r"[\w$-]+(?:\.[\w$-]+)*")
_QUOTED = re.compile(QUOTED, re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")

# Names to values; one value may be another lazy scope: the session's context under `context`.
ScopeValue: TypeAlias = "JsonValue | Mapping[str, JsonValue]"
Scope: TypeAlias = Mapping[str, ScopeValue]
_Node: TypeAlias = Any  # a dict of jmespath; the type in its stubs cannot be imported


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    `roots` are the names of the context that it reads (`context.a.b` and `a.b` read `a`); None when
    it may read all of them. `is_whole_context` is true for `context`, `@` and what equals them.
    """

    text: str
    roots: frozenset[str] | None = field(compare=False)
    is_whole_context: bool = field(compare=False)
    _path: tuple[str, ...] = field(compare=False, repr=False)
    _tree: _Node | None = field(compare=False, repr=False)
    _tree_over_scope: _Node | None = field(compare=False, repr=False)

    def evaluate(self, scope: Scope) -> JsonValue:
        """The value, None when absent. Raises ExpressionFailed, whose message holds no data."""
        if self._tree is not None:
            return self._search(scope)
        path = self._path
        if path[0] == CONTEXT and CONTEXT not in scope:
            return _plain(scope) if len(path) == 1 else _walk(scope.get(path[1]), path[2:])
        value = scope.get(path[0])
        return _walk(value, path[1:]) if len(path) > 1 else _as_json(value)

    def _search(self, scope: Scope) -> JsonValue:
        tree = self._tree
        if self._tree_over_scope is not None and CONTEXT not in scope:
            tree = self._tree_over_scope
        try:
            source = scope if self.roots is not None else _plain(scope)
            value: JsonValue = _BoundedInterpreter().visit(tree, source)
        except JMESPathTypeError as error:
            reason = _type_reason(error)
        except ExpressionFailed as error:
            reason = error.message
        except RecursionError:
            reason = "it nests too deeply"
        except (TypeError, ValueError, OverflowError):
            reason = "its values do not fit together"
        else:
            return value
        # Not inside the handlers: the text of jmespath's errors holds people's data.
        raise ExpressionFailed(f"The expression {self.text} failed: {reason}.")


def compile_expression(text: str) -> Expression:
    """The expression of a text, compiled once. Raises ExpressionInvalid with one problem."""
    if len(text) > MAX_LENGTH:
        _refuse(f"an expression may have {MAX_LENGTH} characters")
    return _compile(text)


def check_output(value: object) -> int:
    """Raise ExpressionFailed when a value is larger than MAX_OUTPUT_BYTES as JSON, or is not JSON.

    Returns how many values it looked at. The size is an estimate that never exceeds the real one
    by much; a value that holds one part many times over is counted many times over, as JSON would.
    """
    pending = [value]
    size = looked_at = 0
    while pending:
        current = pending.pop()
        looked_at += 1
        size += _own_size(current)
        if size > MAX_OUTPUT_BYTES:
            raise ExpressionFailed(f"it gives more than {MAX_OUTPUT_BYTES} bytes")
        if type(current) is list:
            pending.extend(current)
        elif type(current) is dict:
            pending.extend(current.values())
    return looked_at


def _own_size(value: object) -> int:
    kind = type(value)
    if kind is str:
        text: str = value  # type: ignore[assignment]  # `kind is` does not narrow, and is measured
        return len(text) + 2 if text.isascii() else len(text.encode()) + 2
    if value is None or kind is bool:
        return 4
    if isinstance(value, int):
        if abs(value) >= _LARGEST_INTEGER:
            raise ExpressionFailed(f"it gives an integer of over {MAX_INTEGER_DIGITS} digits")
        return value.bit_length() // 4 + 1
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ExpressionFailed("it gives a number that is not finite")
        return 4
    if isinstance(value, dict):
        return 2 + 4 * len(value) + sum(map(len, value))
    if isinstance(value, list):
        return 2 + len(value)
    raise ExpressionFailed("it does not give a JSON value")


def _walk(value: ScopeValue, path: tuple[str, ...]) -> JsonValue:
    for name in path:
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list):
            at = int(name) if name.isascii() and name.isdecimal() else len(value)
            value = value[at] if at < len(value) else None
        elif isinstance(value, Mapping):
            value = value.get(name)
        else:
            return None
    return _as_json(value)


def _plain(scope: Scope) -> JsonObject:
    """The scope as dicts throughout: jmespath's functions tell types by the exact class."""
    return {name: _as_json(value) for name, value in scope.items()}


def _as_json(value: ScopeValue) -> JsonValue:
    if isinstance(value, _JSON_TYPES):
        return value
    return dict(value)


class _StrictFunctions(Functions):
    """JMESPath's functions without the ways out of JSON that Python's conversions open."""

    @signature({"types": []})
    def _func_to_string(self, value: JsonValue) -> str:
        if isinstance(value, str):
            return value
        check_output(value)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    @signature({"types": []})
    def _func_to_number(self, value: JsonValue) -> int | float | None:
        if isinstance(value, bool):
            return None
        if isinstance(value, int | float):
            return value
        number = _NUMBER.fullmatch(value) if isinstance(value, str) else None
        if number is None:
            return None
        return float(number[0]) if number[1] or number[2] else int(number[0])

    @signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, texts: list[str]) -> str:
        if len(separator) * len(texts) > MAX_OUTPUT_BYTES:
            raise ExpressionFailed(f"it gives more than {MAX_OUTPUT_BYTES} bytes")
        return separator.join(texts)


_OPTIONS = Options(custom_functions=_StrictFunctions())
_BUILDING = frozenset(
    {"multi_select_list", "multi_select_dict", "projection", "value_projection"}
    | {"filter_projection", "function_expression"}
)


class _BoundedInterpreter(TreeInterpreter):
    """jmespath's interpreter with a budget of steps, and a weight for everything it builds.

    Weighing what is built, and not only the end, stops the doubling of `[@, @] | [@, @] | ...`
    before a comparison or `to_string` walks it. What is weighed is charged to the same budget.
    """

    def __init__(self) -> None:
        super().__init__(_OPTIONS)
        self._steps = 0

    def visit(self, node: _Node, *args: Any, **kwargs: Any) -> Any:
        self._charge(1)
        kind = node["type"]
        value = getattr(self, "visit_" + kind)(node, *args, **kwargs)
        if kind in _BUILDING:
            self._charge(check_output(value))
        return value

    def _charge(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS:
            raise ExpressionFailed(f"it takes more than {_MAX_STEPS} steps")


def _type_reason(error: JMESPathTypeError) -> str:
    expected = " or ".join(error.expected_types)
    return f"{error.function_name}() wants {expected}, and got {error.actual_type}"


@lru_cache(maxsize=4096)
def _compile(text: str) -> Expression:
    path = text.strip()
    if not path:
        _refuse("an expression cannot be empty")
    if _PLAIN_PATH.fullmatch(path):
        return _plain_expression(text, tuple(path.split(".")))
    _check_literals(text)
    try:
        return _tree_expression(text, _parse(text))
    except RecursionError:
        _refuse("nests too deeply")


def _plain_expression(text: str, path: tuple[str, ...]) -> Expression:
    names = path[1:] if path[0] == CONTEXT else path
    roots = frozenset(names[:1]) if names else None
    return Expression(text, roots, not names, path, None, None)


def _tree_expression(text: str, tree: _Node) -> Expression:
    _check_nodes(text, tree)
    reading = _Reading()
    is_whole = reading.follow(tree, _Place.ROOT) is not _Place.ELSEWHERE
    roots = None if is_whole or reading.takes_all else frozenset(reading.names)
    over_scope = _without_context(tree, reading.context_nodes) if reading.context_nodes else None
    return Expression(text, roots, is_whole, (), tree, over_scope)


def _parse(text: str) -> _Node:
    try:
        tree: _Node = Parser().parse(text).parsed
    except IncompleteExpressionError:
        _refuse("does not parse: it ends too early")
    except LexerError as error:
        _refuse_at(error.lexer_position, str(error.message).lower())
    except ParseError as error:
        token = error.token_value
        _refuse_at(error.lex_position, f"unexpected {token}" if token else "it ends too early")
    return tree


def _check_literals(text: str) -> None:
    """jmespath takes `foo` for 'foo' with a warning, and NaN for a number; we take JSON only."""
    for quoted in _QUOTED.finditer(text):
        if not quoted[0].startswith("`"):
            continue
        try:
            check_storable(json.loads(quoted[0][1:-1].replace("\\`", "`")))
        except JsonRefused as error:
            _refuse_at(quoted.start(), f"a literal cannot be stored: {error}")
        except ValueError:
            _refuse_at(quoted.start(), "a literal in backquotes is JSON; write a text as 'text'")


def _check_nodes(text: str, tree: _Node) -> None:
    """What jmespath would only find out while evaluating: unknown functions, arguments, slices."""
    pending = [(tree, "")]
    while pending:
        node, parent = pending.pop()
        kind = node["type"]
        if kind == "function_expression":
            _check_call(text, node)
        elif kind == "expref" and parent != "function_expression":
            _refuse_at(text.find("&"), "& belongs in a function's arguments")
        elif kind == "slice" and node["children"][2] == 0:
            _refuse("does not parse: the step of a slice cannot be 0")
        pending.extend((child, kind) for child in node["children"] if isinstance(child, dict))


def _check_call(text: str, node: _Node) -> None:
    name = node["value"]
    found = re.search(rf"\b{re.escape(name)}\s*\(", text)
    at = found.start() if found else 0
    known = _StrictFunctions.FUNCTION_TABLE.get(name)
    if known is None:
        _refuse_at(at, f"there is no function {name}()")
    takes, given = len(known["signature"]), len(node["children"])
    is_variadic = bool(known["signature"][-1].get("variadic"))
    if given < takes or (given > takes and not is_variadic):
        least = "at least " if is_variadic else ""
        _refuse_at(at, f"{name}() takes {least}{takes} argument{'s'[takes == 1 :]}, got {given}")


class _Place(Enum):
    """What a part of an expression is worked out over, or gives."""

    ROOT = "the scope, where `context` is a name of it"
    SCOPE = "the scope, as its value"
    ELSEWHERE = "a value in the scope"


class _Reading:
    """What an expression reads of the scope it is worked out over."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.takes_all = False
        self.context_nodes: list[_Node] = []

    def follow(self, node: _Node, place: _Place) -> _Place:
        """Note what the node reads when worked out over `place`; returns what it gives."""
        kind, children = node["type"], node["children"]
        if place is _Place.ELSEWHERE or kind in ("literal", "index", "slice"):
            return _Place.ELSEWHERE
        if kind == "field":
            return self._follow_field(node, place)
        if kind in ("current", "identity"):
            return _Place.SCOPE
        if kind in ("subexpression", "index_expression", "pipe"):
            for child in children:
                place = self.follow(child, place)
            return place
        if kind in ("projection", "value_projection", "filter_projection"):
            children = children[:1]  # the others are worked out over its elements
        elif kind == "expref":
            children = []  # likewise
        for child in children:
            if self.follow(child, place) is not _Place.ELSEWHERE:
                self.takes_all = True
        return _Place.ELSEWHERE

    def _follow_field(self, node: _Node, place: _Place) -> _Place:
        if place is _Place.ROOT and node["value"] == CONTEXT:
            self.context_nodes.append(node)
            return _Place.SCOPE
        self.names.add(node["value"])
        return _Place.ELSEWHERE


def _without_context(node: _Node, context_nodes: list[_Node]) -> _Node:
    """The tree with the name `context` read as the scope itself."""
    if any(node is context_node for context_node in context_nodes):
        return {"type": "current", "children": []}
    children = [
        _without_context(child, context_nodes) if isinstance(child, dict) else child
        for child in node["children"]
    ]
    return {**node, "children": children}


def _refuse_at(position: int, reason: str) -> NoReturn:
    _refuse(f"does not parse at position {position + 1}: {reason}")


def _refuse(reason: str) -> NoReturn:
    raise ExpressionInvalid([Problem("", reason)])
