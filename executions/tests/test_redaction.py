"""The rules of redaction, without a database."""

import time

import pytest

from config.jsonvalues import JsonObject, JsonValue
from executions.redaction import REDACTED, Redactor

CARD = "4111111111111111"


@pytest.mark.parametrize(
    ("paths", "value", "expected"),
    [
        # a single name, at any depth
        (["pin"], {"pin": "12"}, {"pin": REDACTED}),
        (["pin"], {"a": {"b": {"pin": 1}}}, {"a": {"b": {"pin": REDACTED}}}),
        # whatever the value is
        (["pin"], {"pin": None}, {"pin": REDACTED}),
        (["pin"], {"pin": {"a": [1]}}, {"pin": REDACTED}),
        # a path matches where the chain of names ends with it
        (["card.number"], {"card": {"number": 1}}, {"card": {"number": REDACTED}}),
        (["card.number"], {"x": {"card": {"number": 1}}}, {"x": {"card": {"number": REDACTED}}}),
        (["card.number"], {"number": 1, "card": 2}, {"number": 1, "card": 2}),
        (["card.number"], {"card": {"x": {"number": 1}}}, {"card": {"x": {"number": 1}}}),
        (["a.a.b"], {"a": {"a": {"a": {"b": 1}}}}, {"a": {"a": {"a": {"b": REDACTED}}}}),
        # lists are transparent
        (["pin"], [{"pin": 1}, [{"pin": 2}]], [{"pin": REDACTED}, [{"pin": REDACTED}]]),
        (["cards.number"], {"cards": [{"number": 1}]}, {"cards": [{"number": REDACTED}]}),
        # several paths with one beginning
        (
            ["card.number", "card.cvc", "pin"],
            {"card": {"number": 1, "cvc": 2, "holder": "Al"}, "pin": 3},
            {"card": {"number": REDACTED, "cvc": REDACTED, "holder": "Al"}, "pin": REDACTED},
        ),
        # names are compared whole and as they are written
        (["pin"], {"PIN": 1, "pins": 2, "spin": 3}, {"PIN": 1, "pins": 2, "spin": 3}),
        # scalars have no members
        (["pin"], "pin", "pin"),
        (["pin"], None, None),
    ],
)
def test_sensitive_members_are_marked(
    paths: list[str], value: JsonValue, expected: JsonValue
) -> None:
    assert Redactor(paths).redact(value) == expected


def test_value_is_not_changed_in_place() -> None:
    value: JsonObject = {"list": [{"pin": 1}], "other": {"a": 1}}
    redacted = Redactor(["pin"]).redact(value)
    assert value == {"list": [{"pin": 1}], "other": {"a": 1}}
    assert isinstance(redacted, dict)
    assert redacted["other"] is value["other"]


def test_nothing_sensitive_gives_the_same_object() -> None:
    value: JsonObject = {"a": [1, "two", {"b": None}], "text": "long enough to look at"}
    assert Redactor(["pin"]).redact(value, frozenset({"secret"})) is value


def test_no_paths_hide_nothing() -> None:
    redactor = Redactor([])
    value: JsonObject = {"pin": "1234"}
    assert redactor.secrets(value) == frozenset()
    assert redactor.redact(value) is value
    assert redactor.redact_text("1234", frozenset()) == "1234"


def test_path_counts_from_where_the_value_stands() -> None:
    redactor = Redactor(["card.number", "pin"])
    value: JsonObject = {"number": 1, "pin": 2, "holder": 3}
    assert redactor.redact(value, at="card") == {"number": REDACTED, "pin": REDACTED, "holder": 3}
    assert redactor.redact(value, at="account") == {"number": 1, "pin": REDACTED, "holder": 3}
    assert redactor.redact(value, at="pin") == REDACTED


def test_secrets_are_the_texts_at_sensitive_paths() -> None:
    context: JsonObject = {
        "step1": {"card": {"number": CARD, "holder": "Alice"}},
        "pin": 1234,
        "codes": [{"tan": ["abc", 0.25]}, {"tan": {"x": "deep"}}],
    }
    redactor = Redactor(["card.number", "pin", "codes.tan"])
    assert redactor.secrets(context) == {CARD, "1234", "abc", "0.25", "deep"}


def test_short_values_booleans_and_null_are_no_secrets() -> None:
    context: JsonObject = {"pin": ["12", 12, "", True, False, None]}
    assert Redactor(["pin"]).secrets(context) == frozenset()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # whole leaves, from three characters, as text or as number
        ("abc", REDACTED),
        ("1234", REDACTED),
        (1234, REDACTED),
        (["x", {"echo": CARD}], ["x", {"echo": REDACTED}]),
        # parts, from four
        (f"card {CARD} was refused", f"card {REDACTED} was refused"),
        (f"{CARD}{CARD}", REDACTED + REDACTED),
        ("abcd", "abcd"),
        ("pin=1234;", f"pin={REDACTED};"),
        # numbers only as a whole
        (12345, 12345),
        # what is neither
        (None, None),
        (True, True),
        ("123", "123"),
    ],
)
def test_secrets_are_marked_wherever_they_turn_up(value: JsonValue, expected: JsonValue) -> None:
    redactor = Redactor(["pin"])
    assert redactor.redact(value, frozenset({CARD, "1234", "abc"})) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (CARD, REDACTED),
        (f"card {CARD}", f"card {REDACTED}"),
        ("ab1", REDACTED),
        ("al@b.example", REDACTED),
        # words are what names are made of
        ("male", "male"),
        ("male_or_female", "male_or_female"),
        ("other_1", "other_1"),
    ],
)
def test_secrets_are_no_names_either(name: str, expected: str) -> None:
    secrets = frozenset({CARD, "ab1", "al@b.example", "male"})
    redacted = Redactor(["pin"]).redact({"errors": {name: 1, "x": 2}}, secrets)
    assert redacted == {"errors": {expected: 1, "x": 2}}


def test_members_whose_names_are_marked_all_stay() -> None:
    value: JsonObject = {"1234": 1, "5678": 2, REDACTED: 3}
    redacted = Redactor(["pin"]).redact(value, frozenset({"1234", "5678"}))
    assert redacted == {REDACTED: 1, f"{REDACTED} 1": 2, f"{REDACTED} 2": 3}


def test_longest_secret_goes_first() -> None:
    redactor = Redactor(["pin"])
    assert redactor.redact_text("12345678", frozenset({"1234", "12345678"})) == REDACTED
    assert redactor.redact_text("x12345678", frozenset({"1234", "1234567"})) == f"x{REDACTED}8"


def test_secret_is_not_found_in_a_mark() -> None:
    secrets = frozenset({"redacted", "[red", "secret-value"})
    text = Redactor(["pin"]).redact_text("a secret-value redacted", secrets)
    assert text == f"a {REDACTED} {REDACTED}"


def test_pattern_characters_are_plain_text() -> None:
    redactor = Redactor(["pin"])
    assert redactor.redact_text("a.c*(x) abcd", frozenset({"a.c*(x)"})) == f"{REDACTED} abcd"


def test_text_beyond_the_budget_is_hidden_whole() -> None:
    secrets = frozenset(str(number) for number in range(10_000, 60_000))
    value: JsonObject = {"first": "y" * 1_900, "then": "z" * 1_900, "short": "ok", "count": 7}
    redacted = Redactor(["pin"]).redact(value, secrets)
    assert redacted == {"first": "y" * 1_900, "then": REDACTED, "short": "ok", "count": 7}


@pytest.mark.parametrize(
    "secrets",
    [
        # each of a person's thousands of secrets, and texts made to be almost found
        frozenset(str(number) for number in range(10_000, 47_000)),
        frozenset({"a" * 100_000 + "b"}),
        frozenset("a" * length + "b" for length in range(4, 700)),
    ],
)
def test_hostile_secrets_take_bounded_time(secrets: frozenset[str]) -> None:
    names: JsonObject = {f"{number:016}": number for number in range(20_000)}
    value: JsonValue = ["a" * 200_000, *("aaaa" * 4 for _ in range(20_000)), names]
    started = time.process_time()
    Redactor(["pin"]).redact(value, secrets)
    assert time.process_time() - started < 3
