"""How connections stand: their breakers, and how many calls this process has under way."""

from executions.breaking import Phase
from executions.surroundings import Surroundings, get_surroundings
from workflows.connection_states import ConnectionState
from workflows.enums import WorkflowAvailability
from workflows.models import Connection
from workflows.routing import DEFAULT_CONNECTION

_OF_PHASE = {
    Phase.CLOSED: WorkflowAvailability.OK,
    Phase.HALF_OPEN: WorkflowAvailability.DEGRADED,
    Phase.OPEN: WorkflowAvailability.BLOCKED,
}


def show_breakers(*, world: Surroundings | None = None) -> None:
    """Tell the metrics how the breaker of every connection stands, whichever process opened it."""
    breakers = (world or get_surroundings()).breakers
    for name in {DEFAULT_CONNECTION, *Connection.objects.values_list("name", flat=True)}:
        breakers.show(name)


def state_of_connection(connection: str, *, world: Surroundings | None = None) -> ConnectionState:
    """Closed, half-open, or open and for how long; and whether its cap is reached."""
    world = world or get_surroundings()
    seen = world.breakers.look(connection)
    availability, words = _OF_PHASE[seen.phase], str(seen.phase)
    if seen.phase is Phase.OPEN:
        words = f"{words}, {-(-seen.rest_ms // 1000)} s left"
    if world.caps.is_full(connection):
        words = f"{words}, no room for another call"
        if availability is WorkflowAvailability.OK:
            availability = WorkflowAvailability.DEGRADED
    return ConnectionState(availability, words)
