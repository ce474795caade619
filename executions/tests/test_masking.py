"""Masked values are found by what redaction changed, and one of them by its place."""

import pytest

from config.jsonvalues import JsonValue
from executions.masking import masked_places, value_at
from executions.redaction import redactor_of

DATA: dict[str, JsonValue] = {
    "card": {"number": "4111", "a/b": {"pin": 7}, "c~d": [{"pin": None}, 1]},
    "note": "my pin is 4111, really",
    "open": True,
}
PLACES = ("/card/number", "/card/a~1b/pin", "/card/c~0d/0/pin", "/note")


def test_places_are_what_redaction_changed() -> None:
    redactor = redactor_of(("pin", "card.number"))
    shown = redactor.redact(DATA, redactor.secrets(DATA))
    assert masked_places(DATA, shown) == PLACES
    assert masked_places(DATA, DATA) == ()


def test_no_place_tells_a_name_that_was_masked() -> None:
    echoed: dict[str, JsonValue] = {"errors": {"4111": "unknown"}, "card": {"number": "4111"}}
    redactor = redactor_of(("card.number",))
    shown = redactor.redact(echoed, redactor.secrets(echoed))
    assert masked_places(echoed, shown) == ("/errors", "/card/number")


@pytest.mark.parametrize(
    ("place", "value"), list(zip(PLACES, ("4111", 7, None, DATA["note"]), strict=True))
)
def test_value_stands_at_its_place(place: str, value: JsonValue) -> None:
    assert value_at(DATA, place) == value


@pytest.mark.parametrize("place", ["/gone", "/card/c~0d/x", "/card/c~0d/9", "/note/0", "/open/x"])
def test_no_value_stands_elsewhere(place: str) -> None:
    with pytest.raises(LookupError):
        value_at(DATA, place)


def test_true_is_not_one() -> None:
    assert masked_places({"a": True}, {"a": 1}) == ("/a",)
