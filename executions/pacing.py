"""How many rows the next batch takes, so that none holds its locks for long.

What a batch takes stays locked until it commits, and how long that is depends on the machine and on
what else runs there: so the last batch says how large the next one may be. One that took less than
half of TARGET_SECONDS is followed by one twice as large, one that took longer by one half as large.
It never falls under FEWEST: what a batch of those takes on a machine that is overrun is waiting for
its turn, and smaller ones would wait as often. Few sizes come of all that, so a database that keeps
statements prepared has few to keep.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

TARGET_SECONDS: Final = 0.05
"""A quarter of the 200 ms that nothing may be locked for: a machine can be four times as slow for
one batch as it was for the one before."""

FIRST: Final = 25
"""The first batch, of a machine that nothing is known of."""


FEWEST: Final = 10
"""As small as a batch gets, unless `most` is less."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The rows of the next batch, never more than `most`."""

    size: int
    most: int

    @classmethod
    def up_to(cls, most: int) -> Self:
        """Where it begins."""
        return cls(size=min(FIRST, most), most=most)

    def after(self, seconds: float) -> Self:
        """The pace after a batch that took so long."""
        if seconds > TARGET_SECONDS:
            return replace(self, size=min(self.most, max(FEWEST, self.size // 2)))
        if seconds < TARGET_SECONDS / 2:
            return replace(self, size=min(self.most, self.size * 2))
        return self
