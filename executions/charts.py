"""Where the marks of the back office's charts stand. Pure.

Charts are SVG that the server writes: no library, no script. Colour repeats what a legend, a title
or the table beside the chart says in words.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 200
_LEFT, _TOP, _BOTTOM = 44, 8, 22
_LABELS = 7
_LINES = 4


@dataclass(frozen=True, slots=True)
class Segment:
    """A rectangle of one tone; `title` says what it stands for."""

    x: float
    y: float
    width: float
    height: float
    tone: str
    title: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A text of an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class BarChart:
    """Stacked bars over an axis that begins at 0."""

    width: int
    height: int
    left: int
    segments: tuple[Segment, ...]
    rows: tuple[Mark, ...]
    columns: tuple[Mark, ...]


def stacked_bars(bars: Sequence[tuple[str, Mapping[str, int]]]) -> BarChart:
    """A bar for each label, from the bottom up in the order of its counts by tone."""
    highest = max((sum(counts.values()) for _, counts in bars), default=0)
    top = round_up(highest)
    room = HEIGHT - _TOP - _BOTTOM
    slot = (WIDTH - _LEFT) / max(len(bars), 1)
    segments = []
    for number, (label, counts) in enumerate(bars):
        bottom = float(HEIGHT - _BOTTOM)
        for tone, count in counts.items():
            height = room * count / top
            bottom -= height
            if count:
                x, width = _LEFT + slot * number + slot * 0.1, slot * 0.8
                title = f"{label}: {count} {tone}"
                segments.append(
                    Segment(_short(x), _short(bottom), _short(width), _short(height), tone, title)
                )
    lines = [top * part // _LINES for part in range(_LINES + 1)] if top >= _LINES else [0, top]
    every = max(1, ceil(len(bars) / _LABELS))
    return BarChart(
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        segments=tuple(segments),
        rows=tuple(Mark(_short(HEIGHT - _BOTTOM - room * n / top), str(n)) for n in lines),
        columns=tuple(
            Mark(_short(_LEFT + slot * (number + 0.5)), label)
            for number, (label, _) in enumerate(bars)
            if number % every == 0
        ),
    )


def stripe(parts: Iterable[tuple[str, str, int]], *, whole: int) -> tuple[Segment, ...]:
    """Parts of a whole (tone, title, count) side by side, on a line of 100."""
    segments, x = [], 0.0
    for tone, title, count in parts:
        width = 100 * count / whole if whole else 0.0
        if width:
            segments.append(Segment(_short(x), 0, _short(width), 10, tone, f"{title}: {count}"))
        x += width
    return tuple(segments)


def percent(part: int, whole: int) -> str:
    """A share as people say it; "-" of nothing."""
    return share_in_words(part / whole) if whole else "-"


def share_in_words(share: float | None) -> str:
    """0.934 as 93.4 %; "-" for None. What is not all of it never reads as 100 %."""
    if share is None:
        return "-"
    if share in (0.0, 1.0):
        return f"{share * 100:.0f} %"
    return f"{min(max(share * 100, 0.1), 99.9):.1f} %"


def round_up(number: int) -> int:
    """The next number that four lines divide well; 1 at least."""
    if number <= _LINES:
        return max(number, 1)
    unit: int = 10 ** (len(str(number)) - 1)
    for tenths in (10, 12, 16, 20, 24, 32, 40, 60, 80, 100):
        wanted = unit * tenths // 10
        if wanted >= number and wanted % _LINES == 0:
            return wanted
    return unit * 10 if number > 10 else 12


def _short(number: float) -> float:
    return round(number, 2)
