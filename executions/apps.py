"""The app of executions: what it tells the others when it is ready."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from django.apps import AppConfig

from config import metrics
from config.health import register_probe
from workflows.connection_states import ConnectionState, ask_for_states
from workflows.version_use import VersionUse, ask_for_uses


class ExecutionsConfig(AppConfig):
    """The executions app."""

    name = "executions"
    verbose_name = "Operation"

    def ready(self) -> None:
        """Make `/readyz` ask the session store and the queue, `/metrics` the breakers, and
        definitions how connections stand and whether versions are used."""
        register_probe("sessions", _ping_session_store)
        register_probe("tasks", _ping_tasks)
        metrics.before_each_look(_show_breakers)
        ask_for_states(_state_of_connection)
        ask_for_uses(_uses_of_versions)


def _ping_session_store() -> None:
    from executions.session_store import get_session_store  # noqa: PLC0415 - needs the models, which load later

    get_session_store().ping()


def _ping_tasks() -> None:
    from executions.tasks import ping  # noqa: PLC0415 - the same

    ping()


def _show_breakers() -> None:
    from executions.availability import show_breakers  # noqa: PLC0415 - the same

    show_breakers()


def _state_of_connection(connection: str) -> ConnectionState:
    from executions.availability import state_of_connection  # noqa: PLC0415 - the same

    return state_of_connection(connection)


def _uses_of_versions(versions: Sequence[UUID]) -> Mapping[UUID, VersionUse]:
    from executions.version_use import uses_of_versions  # noqa: PLC0415 - the same

    return uses_of_versions(versions)
