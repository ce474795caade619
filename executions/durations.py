"""How long things took, counted in buckets, so that days can be added up. Pure.

A bucket is ten per cent wide: number n holds durations from 1.1^n up to 1.1^(n+1) seconds. A quantile
is told as the geometric middle of its bucket, and so is wrong by less than five per cent.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final

GROWTH: Final = 1.1
SHORTEST_SECONDS: Final = 0.001
"""What took no longer is counted as this."""

Histogram = Mapping[int, int]
"""How many durations fell into each bucket."""


def bucket_of(seconds: float) -> int:
    """The bucket's number."""
    return math.floor(math.log(max(seconds, SHORTEST_SECONDS)) / math.log(GROWTH))


def merged(histograms: Iterable[Histogram]) -> dict[int, int]:
    """All of them as one."""
    total: dict[int, int] = {}
    for each in histograms:
        for bucket, count in each.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def quantile(histogram: Histogram, share: float) -> float | None:
    """The seconds that this share of the durations did not exceed; None when there are none."""
    rest = math.ceil(share * sum(histogram.values()))
    for bucket in sorted(histogram):
        rest -= histogram[bucket]
        if rest <= 0:
            return float(GROWTH ** (bucket + 0.5)) if histogram else None
    return None
