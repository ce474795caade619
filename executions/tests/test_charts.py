"""The marks of the charts stand where the counts say."""

import pytest

from executions.charts import HEIGHT, percent, round_up, share_in_words, stacked_bars, stripe


def test_bars_are_stacked_from_the_bottom_up() -> None:
    chart = stacked_bars([("1 Mar", {"completed": 6, "failed": 2}), ("2 Mar", {"completed": 0})])
    completed, failed = chart.segments
    assert (completed.tone, completed.title) == ("completed", "1 Mar: 6 completed")
    assert completed.height == 3 * failed.height
    assert failed.y + failed.height == pytest.approx(completed.y)
    assert completed.y + completed.height == HEIGHT - 22
    assert [row.text for row in chart.rows] == ["0", "2", "4", "6", "8"]
    assert [column.text for column in chart.columns] == ["1 Mar", "2 Mar"]


def test_nothing_is_an_empty_chart() -> None:
    chart = stacked_bars([])
    assert (chart.segments, chart.columns) == ((), ())
    assert [row.text for row in chart.rows] == ["0", "1"]


def test_many_bars_have_few_labels() -> None:
    chart = stacked_bars([(str(day), {"completed": 1}) for day in range(90)])
    assert len(chart.segments) == 90
    assert len(chart.columns) == 7


@pytest.mark.parametrize(
    ("number", "top"),
    [
        (0, 1),
        (1, 1),
        (4, 4),
        (5, 8),
        (9, 12),
        (10, 12),
        (19, 20),
        (21, 24),
        (99, 100),
        (1001, 1200),
    ],
)
def test_axis_ends_at_a_round_number(number: int, top: int) -> None:
    assert round_up(number) == top


def test_parts_stand_side_by_side() -> None:
    parts = [("good", "went on", 3), ("bad", "left", 0), ("plain", "cancelled", 1)]
    first, second = stripe(parts, whole=8)
    assert (first.x, first.width, first.title) == (0, 37.5, "went on: 3")
    assert (second.x, second.width) == (37.5, 12.5)
    assert stripe(parts, whole=0) == ()


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (None, "-"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.5, "50.0 %"),
        (0.9999, "99.9 %"),
        (0.0001, "0.1 %"),
    ],
)
def test_shares_are_not_rounded_to_all_or_nothing(share: float | None, words: str) -> None:
    assert share_in_words(share) == words


def test_share_of_nothing_is_none() -> None:
    assert (percent(0, 0), percent(1, 4)) == ("-", "25.0 %")
