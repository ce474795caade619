"""Differences of documents: every line accounted for, long unchanged parts set apart."""

from time import perf_counter

from hypothesis import given
from hypothesis import strategies as st

from config.jsonvalues import JsonObject, JsonValue
from workflows.document_diff import (
    ADDED,
    MAX_LINES,
    REMOVED,
    SAME,
    DiffPart,
    DocumentDiff,
    diff_documents,
)
from workflows.document_text import write_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def test_changed_value_is_a_line_out_and_a_line_in() -> None:
    assert diff_documents({"a": 1, "b": 2}, {"a": 1, "b": 3}).parts == (
        DiffPart(SAME, ("{", '  "a": 1,')),
        DiffPart(REMOVED, ('  "b": 2',)),
        DiffPart(ADDED, ('  "b": 3',)),
        DiffPart(SAME, ("}",)),
    )


def test_equal_documents_have_no_difference() -> None:
    diff = diff_documents({"a": [1]}, {"a": [1]})
    assert (diff.is_empty, diff.added, diff.removed) == (True, 0, 0)


def test_long_unchanged_parts_are_folds_with_three_lines_kept_at_a_change() -> None:
    old: JsonObject = {f"k{at}": at for at in range(40)}
    diff = diff_documents(old, {**old, "k20": "changed"})
    folds = [part for part in diff.parts if part.is_fold]
    assert [len(part.lines) for part in folds] == [18, 17]
    assert [(part.mark, len(part.lines)) for part in diff.parts] == [
        (SAME, 18), (SAME, 3), (REMOVED, 1), (ADDED, 1), (SAME, 3), (SAME, 17),
    ]  # fmt: skip
    assert (diff.added, diff.removed) == (1, 1)


@given(JSON, JSON)
def test_parts_are_both_texts(old: JsonValue, new: JsonValue) -> None:
    parts = diff_documents(old, new).parts
    for without, value in ((ADDED, old), (REMOVED, new)):
        lines = [line for part in parts if part.mark != without for line in part.lines]
        assert lines == write_json(value).splitlines()


def test_what_is_too_long_is_not_compared() -> None:
    old: JsonValue = list(range(MAX_LINES))
    new: JsonValue = list(range(MAX_LINES, 2 * MAX_LINES))
    assert diff_documents(old, new) == DocumentDiff(is_too_long=True)
    assert diff_documents(old, new).is_empty is False


def test_longest_comparison_is_quick() -> None:
    half = MAX_LINES // 2 - 2
    old: JsonValue = [at % 7 for at in range(half)]
    new: JsonValue = [at % 5 for at in range(half)]
    began = perf_counter()
    diff = diff_documents(old, new)
    assert perf_counter() - began < 2
    assert diff.is_too_long is False
