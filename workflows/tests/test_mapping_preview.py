"""What rows give for a sample: as an execution would compute it, every reason at its row."""

import pytest

from config.jsonvalues import JsonObject, JsonValue
from workflows.mapping_preview import MappingPreview, preview_of
from workflows.mapping_rows import MappingRow, RowKind, RowProblem, mapping_of, rows_of

MISSING = "has no value in the sample, and no default: MAPPING_INCOMPLETE, nothing would be sent"
SAMPLE: JsonObject = {"transfer": {"amount": 2**70, "to": "0012"}, "list": [1, 2]}


def previewed(mapping: JsonValue, sample: JsonObject = SAMPLE) -> MappingPreview:
    return preview_of(mapping_of(rows_of(mapping)), sample)


def test_payload_and_values() -> None:
    shown = previewed(
        {"a": "context.transfer.amount", "b": {"c": "'x'"}, "d": [{"$from": "no", "$default": 1}]}
    )
    assert shown == MappingPreview(
        has_payload=True,
        payload={"a": 2**70, "b": {"c": "x"}, "d": [1]},
        values={1: 2**70, 3: "x", 5: 1},
    )


def test_missing_values_are_told_at_their_rows() -> None:
    shown = previewed({"a": "transfer.to", "b": {"c": "transfer.none"}, "b.c": "transfer.to"})
    assert shown.problems == (RowProblem(3, MISSING),)
    assert (shown.has_payload, shown.general) == (False, ())
    assert shown.values == {1: "0012", 4: "0012"}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"a": "transfer.("}, "does not parse"),
        ({"a": ""}, "an expression cannot be empty"),
        ({"a": "length(`1`)"}, "failed: length() wants"),
    ],
)
def test_expressions_that_fail_say_why(mapping: JsonValue, message: str) -> None:
    (problem,) = previewed(mapping).problems
    assert problem.index == 1
    assert message in problem.message


def test_what_no_mapping_may_hold_is_told_on_the_whole() -> None:
    shown = previewed({"a": {"$from": "transfer.to", "other": "list"}})
    assert shown.general == ("a.other: an object with $from may only have $default besides",)
    assert shown.has_payload is False


def test_rows_that_build_nothing_still_show_the_others() -> None:
    rows = [MappingRow(0, RowKind.OBJECT), MappingRow(1, RowKind.SOURCE, "a", "list[0]"),
            MappingRow(1, RowKind.SOURCE, "a", "list[1]")]  # fmt: skip
    shown = preview_of(mapping_of(rows), SAMPLE)
    assert (shown.has_payload, shown.values) == (False, {1: 1, 2: 2})
    assert shown.problems == (RowProblem(2, "a is there twice in this object"),)


def test_no_mapping_has_no_payload() -> None:
    assert previewed(None) == MappingPreview(has_payload=False)


def test_too_large_a_payload_is_told_on_the_whole() -> None:
    text = "x" * 600_000
    shown = previewed({"a": "t", "b": "t"}, {"t": text})
    assert shown.general == ("The mapping failed: it gives more than 1048576 bytes.",)
    assert shown.has_payload is False
