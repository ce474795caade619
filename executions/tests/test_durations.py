"""Histograms of durations: where they fall, how they add up, what they say."""

import pytest

from executions.durations import GROWTH, bucket_of, merged, quantile


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (-5.0, -73),  # a clock that was set back: as the shortest
        (0.0, -73),
        (0.001, -73),
        (0.5, -8),
        (0.999, -1),
        (1.0, 0),
        (1.09, 0),
        (1.11, 1),
        (60.0, 42),
        (86_400.0, 119),
    ],
)
def test_buckets_are_ten_per_cent_wide(seconds: float, bucket: int) -> None:
    assert bucket_of(seconds) == bucket


def test_histograms_add_up() -> None:
    assert merged([{0: 1, 5: 2}, {}, {5: 3, 7: 1}]) == {0: 1, 5: 5, 7: 1}


def test_nothing_has_no_median() -> None:
    assert quantile({}, 0.5) is None


@pytest.mark.parametrize(("share", "exact"), [(0.5, 50), (0.9, 90), (1.0, 100), (0.01, 1)])
def test_quantiles_are_within_five_per_cent(share: float, exact: float) -> None:
    counts: dict[int, int] = {}
    for second in range(1, 101):
        counts[bucket_of(second)] = counts.get(bucket_of(second), 0) + 1
    told = quantile(counts, share)
    assert told is not None
    assert exact / GROWTH**0.5 <= told <= exact * GROWTH**0.5
