"""How connections stand right now, as whoever calls partners knows it.

Definitions and their admin show it, and are below the layer that knows: they are told whom to ask.
"""

from collections.abc import Callable
from dataclasses import dataclass

from workflows.enums import WorkflowAvailability


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """How one connection stands; `words` are for operators."""

    availability: WorkflowAvailability = WorkflowAvailability.OK
    words: str = ""


def connection_state(connection: str) -> ConnectionState:
    """How the connection of this name stands; OK where nobody calls partners."""
    return _asked[-1](connection)


def ask_for_states(ask: Callable[[str], ConnectionState]) -> None:
    """Have states of connections asked for here, from now on."""
    _asked[:] = [ask]


def _nobody_calls(_connection: str) -> ConnectionState:
    return ConnectionState()


_asked: list[Callable[[str], ConnectionState]] = [_nobody_calls]
