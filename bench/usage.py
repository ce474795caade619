"""What processes have used, as the kernel counts it in /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    cpu_ms: float  # with that of the children it has waited for
    resident_bytes: int


def cpu_ms(root: int) -> float:
    """CPU of a process, its threads and all its descendants, dead ones too, in ms."""
    return sum(each.cpu_ms for each in _tree(root))


def largest_resident_mb(root: int) -> float:
    """Resident memory of the largest process of the tree, in MB: of a server, its worker."""
    return max((each.resident_bytes for each in _tree(root)), default=0) / 1e6


def _tree(root: int) -> list[_Process]:
    every = _processes()
    found, frontier = [], {root} & every.keys()
    while frontier:
        found += [every[pid] for pid in frontier]
        frontier = {pid for pid, each in every.items() if each.parent in frontier}
    return found


def _processes() -> dict[int, _Process]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except OSError:  # it has ended meanwhile
                continue
            # The name before the last parenthesis may hold anything.
            fields = text.rpartition(")")[2].split()
            ticks = sum(map(int, fields[11:15]))
            found[int(folder.name)] = _Process(
                parent=int(fields[1]),
                cpu_ms=ticks * _TICK_MS,
                resident_bytes=int(fields[21]) * _PAGE_BYTES,
            )
    return found
