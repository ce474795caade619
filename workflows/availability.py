"""Whether a flow can be walked right now, as far as its partners go.

An app asks before a person types for two minutes. BLOCKED: a partner that every run needs is being
left alone. DEGRADED: one is being tried out or has no room for another call, or one is left alone
that a run may do without.
"""

from collections.abc import Callable, Iterator

from workflows.compiled import CompiledTrigger, CompiledWorkflow
from workflows.connection_states import ConnectionState, connection_state
from workflows.connections import connection_for
from workflows.enums import WorkflowAvailability
from workflows.errors import EndpointForbidden

OK = WorkflowAvailability.OK
DEGRADED = WorkflowAvailability.DEGRADED
BLOCKED = WorkflowAvailability.BLOCKED


def availability_of(
    compiled: CompiledWorkflow, *, state: Callable[[str], ConnectionState] = connection_state
) -> WorkflowAvailability:
    """The worst of the workflow's calls."""
    worst = OK
    for trigger, is_needed in _calls(compiled):
        found = _of_call(trigger, state)
        if found is BLOCKED and is_needed:
            return BLOCKED
        if found is not OK:
            worst = DEGRADED
    return worst


def _calls(compiled: CompiledWorkflow) -> Iterator[tuple[CompiledTrigger, bool]]:
    """Every partner call of the workflow, and whether each run makes it.

    A step with a `when` is left out of some runs: of which is not known before they start.
    """
    for step in compiled.steps:
        if step.trigger is not None:
            yield step.trigger, step.when is None and not step.may_be_passed_by
    if compiled.final_api is not None:
        yield compiled.final_api, True


def _of_call(
    trigger: CompiledTrigger, state: Callable[[str], ConnectionState]
) -> WorkflowAvailability:
    try:
        connection, _ = connection_for(trigger.connection, trigger.endpoint.sample())
    except EndpointForbidden:  # the connection was removed or changed after publishing
        return BLOCKED
    return state(connection.name).availability
