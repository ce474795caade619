"""What the commands on executions share: who runs them, and progress where a terminal listens."""

import getpass
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], *, unit: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a bar on standard error when that is a terminal."""
    with closing(
        tqdm(items, unit=f" {unit}", total=total, disable=not sys.stderr.isatty(), leave=False)
    ) as bar:
        yield from bar


def operator_name(given: str | None) -> str:
    """Who acts: the name that was given, else the user of the operating system."""
    if given:
        return given
    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError, ImportError):  # a user id without a name, as in containers
        return "command line"
