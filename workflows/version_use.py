"""Whether executions run on a version, as whoever keeps executions knows it.

The pages of versions show it, and are below the layer that knows: they are told whom to ask.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID


@dataclass(frozen=True, slots=True)
class VersionUse:
    """Whether there is an execution of the version, and whether one is still under way."""

    is_used: bool = False
    is_running: bool = False

    @property
    def words(self) -> str:
        """For operators."""
        if self.is_running:
            return "executions under way"
        return "ended ones only" if self.is_used else "none"


_Ask: TypeAlias = Callable[[Sequence[UUID]], Mapping[UUID, VersionUse]]


def uses_of(versions: Sequence[UUID]) -> Mapping[UUID, VersionUse]:
    """How these versions are used; empty where nobody keeps executions."""
    return _asked[-1](versions)


def ask_for_uses(ask: _Ask) -> None:
    """Have uses of versions asked for here, from now on."""
    _asked[:] = [ask]


def _nobody_keeps_executions(_versions: Sequence[UUID]) -> Mapping[UUID, VersionUse]:
    return {}


_asked: list[_Ask] = [_nobody_keeps_executions]
