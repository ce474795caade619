"""Batches of a size that fits the machine: what follows one that took so long."""

import pytest

from executions.pacing import FEWEST, FIRST, TARGET_SECONDS, Pace


@pytest.mark.parametrize(
    ("size", "seconds", "after"),
    [
        # quick: twice as many, as far as that is allowed
        (25, 0.0, 50),
        (25, TARGET_SECONDS * 0.49, 50),
        (150, 0.0, 200),
        (200, 0.0, 200),
        # as it should be
        (25, TARGET_SECONDS * 0.5, 25),
        (25, TARGET_SECONDS, 25),
        # slow: half as many, down to what is few anyway
        (25, TARGET_SECONDS * 1.01, 12),
        (200, 3600.0, 100),
        (12, 3600.0, FEWEST),
        (FEWEST, 3600.0, FEWEST),
    ],
)
def test_next_batch_follows_from_the_last(size: int, seconds: float, after: int) -> None:
    assert Pace(size, most=200).after(seconds) == Pace(after, most=200)


@pytest.mark.parametrize("seconds", [0.0, TARGET_SECONDS, 3600.0])
def test_the_bound_holds_whatever_it_is(seconds: float) -> None:
    assert Pace.up_to(3).after(seconds) == Pace(3, most=3)


def test_it_begins_small_and_within_its_bound() -> None:
    assert [Pace.up_to(most).size for most in (1, FIRST - 1, FIRST, 1_000)] == [
        1,
        FIRST - 1,
        FIRST,
        FIRST,
    ]


@pytest.mark.parametrize("row_seconds", [0.00001, 0.0002, 0.001, 0.005])
def test_it_settles_where_a_batch_is_short_but_not_idle(row_seconds: float) -> None:
    """A row takes 0.2 ms on an idle machine; here also twenty-five times as long."""
    pace = Pace.up_to(200)
    for _ in range(20):
        pace = pace.after(pace.size * row_seconds)
    assert pace.size * row_seconds <= TARGET_SECONDS
    assert pace.size == 200 or pace.size * row_seconds * 4 >= TARGET_SECONDS
