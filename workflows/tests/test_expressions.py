from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.jsonvalues import JsonValue
from workflows.errors import ExpressionFailed, ExpressionInvalid, Problem
from workflows.expressions import (
    MAX_LENGTH,
    MAX_OUTPUT_BYTES,
    Scope,
    check_output,
    compile_expression,
)

BIG = 123456789012345678901234567890
SCOPE: dict[str, JsonValue] = {
    "transferDetails": {"amount": BIG, "recipientAccount": "0012", "fee": 0.1},
    "items": [{"id": 7, "price": 2}, {"id": 8, "price": 3}],
    "user-name": {"prénom": "José", "$id": "u1"},
    "userAccount": "A1",
    "yes": True,
    "nothing": None,
}


MakeScope: TypeAlias = Callable[[dict[str, JsonValue]], Mapping[str, JsonValue]]


class LazyContext(Mapping[str, JsonValue]):
    """A scope as the session store gives it: not a dict, and it notes what was read."""

    def __init__(self, values: dict[str, JsonValue]) -> None:
        self.values_by_name = values
        self.read: list[str] = []

    def __getitem__(self, name: str) -> JsonValue:
        value = self.values_by_name[name]
        self.read.append(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("transferDetails.amount", BIG),
        ("context.transferDetails.amount", BIG),
        ("transferDetails.recipientAccount", "0012"),
        ("transferDetails.fee", 0.1),
        (" userAccount ", "A1"),
        ("items.0.id", 7),
        ("items.9.id", None),
        ("items.-1.id", None),  # an index counts from the front only
        ("items.id", None),
        ("user-name.prénom", "José"),
        ("user-name.$id", "u1"),
        ("userAccount.deeper", None),
        ("nothing.deeper", None),
        ("absent", None),
        ("context.absent.deeper", None),
        ("yes", True),
        ("'USD'", "USD"),
        ("`12345678901234567890123`", 12345678901234567890123),
        ('`"text"`', "text"),
        ("'{}'", "{}"),
        ('"user-name"."$id"', "u1"),
        ("items[-1].id", 8),
        ("items[*].id", [7, 8]),
        ("context.items[?price > `2`].id | [0]", 8),
        ("sum(items[].price)", 5),
        ("context.items[0].id == `7`", True),
        ("{a: transferDetails.amount, b: context.userAccount}", {"a": BIG, "b": "A1"}),
        ("[yes, @.userAccount]", [True, "A1"]),
        ("not_null(context.absent, userAccount)", "A1"),
        ("context | userAccount", "A1"),
        ("sort_by(items, &price)[1].id", 8),
        ("length(keys(@))", 6),
        ("length(keys(context))", 6),
        ("contains(keys(@), 'context')", False),
        ("context.context", None),
        ("items[?context.price].id", []),  # in a filter, names are those of the element
        ("to_string(items[0])", '{"id":7,"price":2}'),
        ('to_string({n: "user-name".x, e: `"é"`})', '{"n":null,"e":"é"}'),
        ("to_number('0012')", 12),
        ("to_number('123456789012345678901234567890')", BIG),
        ("to_number('1.5')", 1.5),
        ("to_number('nan')", None),
        ("to_number('Infinity')", None),
        ("to_number('1_000')", None),
        ("to_number(yes)", None),
        ("to_number(`5`)", 5),
        ("join('-', ['a', 'b'])", "a-b"),
    ],
)
@pytest.mark.parametrize("make_scope", [dict, LazyContext])
def test_value(
    text: str,
    value: JsonValue,
    make_scope: MakeScope,
) -> None:
    result = compile_expression(text).evaluate(make_scope(SCOPE))

    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("text", ["context", "@", "(@)", "context | @", "@ | @"])
def test_whole_context_is_told_and_given_as_a_dict(text: str) -> None:
    expression = compile_expression(text)

    assert (expression.is_whole_context, expression.roots) == (True, None)
    assert expression.evaluate(LazyContext(SCOPE)) == SCOPE


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        ("a", {"a"}),
        ("a.b.c", {"a"}),
        ("context.a.b", {"a"}),
        ("context.context.a", {"context"}),
        ("a-b.$c", {"a-b"}),
        ("a[0].b", {"a"}),
        ("context.a[0].b", {"a"}),
        ("@.a", {"a"}),
        ("@ | a", {"a"}),
        ("context | a.b", {"a"}),
        ("a && context.b || !c", {"a", "b", "c"}),
        ("{x: a.x, y: [context.b, c.c]}", {"a", "b", "c"}),
        ("a[?b == c].d", {"a"}),
        ("a[*].b", {"a"}),
        ("a.*.b", {"a"}),
        ("a[]", {"a"}),
        ("map(&b, a)", {"a"}),
        ("sort_by(a, &context)", {"a"}),
        ("'text'", set()),
        ("[0]", set()),
        ("*", None),
        ("context.*", None),
        ("[@]", None),
        ("keys(@)", None),
        ("keys(context)", None),
        ("a || @", None),
        ("@ == a", None),
        ("a | @", {"a"}),
    ],
)
def test_roots(text: str, roots: set[str] | None) -> None:
    expression = compile_expression(text)

    assert expression.roots == (None if roots is None else frozenset(roots))
    assert not expression.is_whole_context


@pytest.mark.parametrize(
    "text", ["items[0].id", "context.items[0].id", "items.0.id", "sum(items[].id)"]
)
def test_only_the_names_it_reads_are_taken_from_the_scope(text: str) -> None:
    scope = LazyContext(SCOPE)

    compile_expression(text).evaluate(scope)

    assert set(scope.read) == {"items"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("context.valid", "inner"),
        ("context.valid == 'inner'", True),
        ("result.valid", True),
        ("keys(context)", ["valid"]),
        ("context", {"valid": "inner"}),
        ("{c: context.valid, w: keys(@)}", {"c": "inner", "w": ["context", "result"]}),
    ],
)
@pytest.mark.parametrize("make_scope", [dict, LazyContext])
def test_a_scope_with_its_own_context_wins(
    text: str,
    value: JsonValue,
    make_scope: MakeScope,
) -> None:
    scope: Scope = {"context": make_scope({"valid": "inner"}), "result": {"valid": True}}

    assert compile_expression(text).evaluate(scope) == value


def test_the_same_text_is_compiled_once() -> None:
    assert compile_expression("items[0].once") is compile_expression("items[0].once")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an expression cannot be empty"),
        (" \n", "an expression cannot be empty"),
        ("a" * (MAX_LENGTH + 1), "an expression may have 500 characters"),
        ("a[", "does not parse: it ends too early"),
        ("length(", "does not parse: it ends too early"),
        ("a[::0]", "does not parse: the step of a slice cannot be 0"),
        ("!" * 499 + "a", "nests too deeply"),
    ],
)
def test_what_does_not_parse_is_said_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ExpressionInvalid) as caught:
        compile_expression(text)

    assert caught.value.problems == (Problem("", message),)


NOT_JSON = "a literal in backquotes is JSON; write a text as 'text'"
NOT_STORABLE = "a literal cannot be stored: /: "


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("a.", 3, "it ends too early"),
        ("a..b", 3, "unexpected ."),
        ("a b", 3, "unexpected b"),
        ("items]", 6, "unexpected ]"),
        ("a # b", 3, "unknown token #"),
        ("'open", 1, "unclosed ' delimiter"),
        ("a == `{`", 6, NOT_JSON),
        ("`USD`", 1, NOT_JSON),
        ("`NaN`", 1, NOT_STORABLE + "NaN and infinite numbers are not JSON"),
        ('`"\\ud800"`', 1, NOT_STORABLE + "lone surrogates cannot be stored"),
        ("a || nope(b)", 6, "there is no function nope()"),
        ("abs(a, b)", 1, "abs() takes 1 argument, got 2"),
        ("contains(a)", 1, "contains() takes 2 arguments, got 1"),
        ("not_null()", 1, "not_null() takes at least 1 argument, got 0"),
        ("[&a]", 2, "& belongs in a function's arguments"),
    ],
)
def test_the_position_of_a_problem_is_named(text: str, position: int, reason: str) -> None:
    with pytest.raises(ExpressionInvalid) as caught:
        compile_expression(text)

    message = f"does not parse at position {position}: {reason}"
    assert caught.value.problems == (Problem("", message),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sum(secret)", "sum() wants array-number, and got string"),
        ("sum(absent)", "sum() wants array-number, and got null"),
        ("sort_by(rows, &id)", "sort_by() wants number, and got string"),
        ("secret < `5`", "its values do not fit together"),
        ("contains(secret, `5`)", "its values do not fit together"),
        ("sum([`1e308`, `1e308`])", "it gives a number that is not finite"),
        ("to_number('1e999')", "it gives a number that is not finite"),
        ("sum([huge, huge])", "it gives an integer of over 4300 digits"),
        ("not_null(&a)", "it does not give a JSON value"),
    ],
)
def test_failure_names_the_reason_and_no_value(text: str, reason: str) -> None:
    scope: dict[str, JsonValue] = {
        "secret": "4111-1111",
        "rows": [{"id": 1}, {"id": "4111-1111"}],
        "huge": 10**4300 - 1,
    }
    with pytest.raises(ExpressionFailed) as caught:
        compile_expression(text).evaluate(scope)

    assert caught.value.message == f"The expression {text} failed: {reason}."
    assert caught.value.code == "MAPPING_INCOMPLETE"
    assert caught.value.__context__ is None  # a traceback would print the value


DOUBLING = "|".join(["[@, @]"] * 30)
TOO_LARGE = f"it gives more than {MAX_OUTPUT_BYTES} bytes"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DOUBLING, TOO_LARGE),
        (f"to_string({DOUBLING})", TOO_LARGE),
        (f"[{DOUBLING}] == [{DOUBLING}]", TOO_LARGE),
        ("rows" + "|[*].[@, @][]" * 30, "it takes more than 1000000 steps"),
        ("join(long, rows)", TOO_LARGE),
        ("`[1,1,1,1]`[?" * 25 + "a" + "]" * 25, "it takes more than 1000000 steps"),
    ],
)
def test_bombs_are_stopped(text: str, reason: str) -> None:
    scope: dict[str, JsonValue] = {"rows": ["a"] * 2000, "long": "x" * 1000}

    with pytest.raises(ExpressionFailed, match=reason):
        compile_expression(text).evaluate(scope)


def test_recursion_is_a_failure() -> None:
    text = "!" * 150 + "a"
    expression = compile_expression(text)

    def deeper(levels: int) -> JsonValue:
        return deeper(levels - 1) if levels else expression.evaluate({})

    assert expression.evaluate({}) is False
    with pytest.raises(ExpressionFailed, match="it nests too deeply"):
        deeper(850)


@pytest.mark.parametrize(
    ("value", "is_allowed"),
    [
        ("x" * (MAX_OUTPUT_BYTES - 2), True),
        ("x" * (MAX_OUTPUT_BYTES - 1), False),
        ("é" * (MAX_OUTPUT_BYTES // 2 - 1), True),
        ("é" * (MAX_OUTPUT_BYTES // 2), False),
        ({"x" * MAX_OUTPUT_BYTES: 1}, False),
        ([[]] * MAX_OUTPUT_BYTES, False),
        ([10**4300 - 1], True),
        ([10**4300], False),
        (float("nan"), False),
        (object(), False),
    ],
)
def test_output_is_bounded(value: JsonValue, is_allowed: bool) -> None:
    try:
        check_output(value)
    except ExpressionFailed:
        assert not is_allowed
    else:
        assert is_allowed


FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PIECES = (
    "a b context @ . [ ] [*] [? ( ) { } : , | || & && ! == < * [] 0 -1 'x' \"q\" `1` `[1]` "
    "sum( keys( map( to_string( sort_by( merge("
)
FRAGMENTS = st.sampled_from(PIECES.split())


@given(
    st.lists(FRAGMENTS, max_size=12).map("".join) | st.text(max_size=40),
    st.dictionaries(st.sampled_from("abq"), JSON),
)
def test_any_text_over_any_scope_gives_json_or_one_of_our_errors(
    text: str, scope: dict[str, JsonValue]
) -> None:
    try:
        value = compile_expression(text).evaluate(scope)
    except (ExpressionInvalid, ExpressionFailed):
        return
    check_output(value)


@given(st.lists(st.text("ab-$é_0", min_size=1, max_size=4), min_size=1, max_size=4), JSON)
def test_a_plain_path_finds_what_lies_there(names: list[str], value: JsonValue) -> None:
    scope: JsonValue = value
    for name in reversed(names):
        scope = {name: scope}
    assert isinstance(scope, dict)

    assert compile_expression(".".join(names)).evaluate(scope) == value
    assert compile_expression("context." + ".".join(names)).evaluate(scope) == value
