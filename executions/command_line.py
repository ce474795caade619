"""What the commands on executions share: who runs them, and progress where a terminal listens."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing
from typing import TypeVar

from tqdm import tqdm

from config.actors import command_line

Item = TypeVar("Item")
LONGEST_WAIT_SECONDS = 86_400


def progress(items: Iterable[Item], *, unit: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a bar on standard error when that is a terminal."""
    with closing(
        tqdm(items, unit=f" {unit}", total=total, disable=not sys.stderr.isatty(), leave=False)
    ) as bar:
        yield from bar


def beside_progress() -> AbstractContextManager[None]:
    """Within it lines may be written while a bar is shown: it makes room for them."""
    return tqdm.external_write_mode(file=sys.stdout)


def printable(text: str) -> str:
    """What people entered as it may stand in a line of a terminal, which obeys control characters."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


def operator_name(given: str | None) -> str:
    """Who acts: the name that was given, else the user of the operating system."""
    return given or command_line()


def seconds(text: str) -> float:
    """An option's time to wait, up to a day."""
    try:
        given = float(text)
    except ValueError:
        given = -1.0
    if not 0 <= given <= LONGEST_WAIT_SECONDS:
        raise argparse.ArgumentTypeError(f"0 to {LONGEST_WAIT_SECONDS} seconds")
    return given
