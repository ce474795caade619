"""The difference of two JSON documents, line by line of their indented text. Pure.

Long unchanged parts are set apart, so that a page can fold them. What is too long to compare in the time
of a request is not compared at all: `is_too_long`, and no parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from config.jsonvalues import JsonValue
from workflows.document_text import write_json

SAME, ADDED, REMOVED = " ", "+", "-"
KEPT_AROUND: Final = 3
_FOLD_FROM: Final = 2 * KEPT_AROUND + 4
MAX_LINES: Final = 5_000


@dataclass(frozen=True, slots=True)
class DiffPart:
    """Lines in a row with the same mark: unchanged, added or removed; `is_fold`: long and unchanged."""

    mark: str
    lines: tuple[str, ...]
    is_fold: bool = False


@dataclass(frozen=True, slots=True)
class DocumentDiff:
    """The parts in their order, and how many lines came and went."""

    parts: tuple[DiffPart, ...] = ()
    added: int = 0
    removed: int = 0
    is_too_long: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is no difference."""
        return not (self.added or self.removed or self.is_too_long)


def diff_documents(old: JsonValue, new: JsonValue) -> DocumentDiff:
    """What a person would see change between the two."""
    before, after = write_json(old).splitlines(), write_json(new).splitlines()
    start, end = _common(before, after)
    old_middle, new_middle = before[start : len(before) - end], after[start : len(after) - end]
    if len(old_middle) + len(new_middle) > MAX_LINES:
        return DocumentDiff(is_too_long=True)
    parts: list[DiffPart] = []
    for mark, lines in _middle(old_middle, new_middle, before[:start], before[len(before) - end :]):
        if lines and parts and parts[-1].mark == mark:
            parts[-1] = DiffPart(mark, (*parts[-1].lines, *lines))
        elif lines:
            parts.append(DiffPart(mark, tuple(lines)))
    folded = tuple(
        piece for at, part in enumerate(parts) for piece in _folded(part, at, len(parts))
    )
    return DocumentDiff(
        folded,
        added=sum(len(part.lines) for part in parts if part.mark == ADDED),
        removed=sum(len(part.lines) for part in parts if part.mark == REMOVED),
    )


def _common(before: Sequence[str], after: Sequence[str]) -> tuple[int, int]:
    """How many lines at the start and at the end are the same: the rest alone is compared."""
    shorter = min(len(before), len(after))
    start = next((at for at in range(shorter) if before[at] != after[at]), shorter)
    left = shorter - start
    end = next((at for at in range(left) if before[-1 - at] != after[-1 - at]), left)
    return start, end


def _middle(
    old: Sequence[str], new: Sequence[str], head: Sequence[str], tail: Sequence[str]
) -> Iterator[tuple[str, Sequence[str]]]:
    yield SAME, head
    for kind, a, b, c, d in SequenceMatcher(None, old, new).get_opcodes():
        if kind == "equal":
            yield SAME, old[a:b]
        else:
            yield REMOVED, old[a:b]
            yield ADDED, new[c:d]
    yield SAME, tail


def _folded(part: DiffPart, at: int, count: int) -> Iterator[DiffPart]:
    """An unchanged part with its middle set apart, when that is long; its edges explain the changes."""
    if part.mark != SAME or len(part.lines) < _FOLD_FROM:
        yield part
        return
    before = 0 if at == 0 else KEPT_AROUND
    after = len(part.lines) - (0 if at == count - 1 else KEPT_AROUND)
    for lines, is_fold in (
        (part.lines[:before], False),
        (part.lines[before:after], True),
        (part.lines[after:], False),
    ):
        if lines:
            yield DiffPart(SAME, lines, is_fold)
