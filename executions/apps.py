"""The app of executions: what it tells the others when it is ready."""

from django.apps import AppConfig

from config.health import register_probe
from workflows.connection_states import ConnectionState, ask_for_states


class ExecutionsConfig(AppConfig):
    """The executions app."""

    name = "executions"
    verbose_name = "Operation"

    def ready(self) -> None:
        """Make `/readyz` ask the session store and the queue, and definitions ask how connections stand."""
        register_probe("sessions", _ping_session_store)
        register_probe("tasks", _ping_tasks)
        ask_for_states(_state_of_connection)


def _ping_session_store() -> None:
    from executions.session_store import get_session_store  # noqa: PLC0415 - needs the models, which load later

    get_session_store().ping()


def _ping_tasks() -> None:
    from executions.tasks import ping  # noqa: PLC0415 - the same

    ping()


def _state_of_connection(connection: str) -> ConnectionState:
    from executions.availability import state_of_connection  # noqa: PLC0415 - the same

    return state_of_connection(connection)
