"""The app of executions: what it needs to be ready."""

from django.apps import AppConfig

from config.health import register_probe


class ExecutionsConfig(AppConfig):
    """The executions app."""

    name = "executions"

    def ready(self) -> None:
        """Make `/readyz` ask the session store."""
        register_probe("sessions", _ping_session_store)


def _ping_session_store() -> None:
    from executions.session_store import get_session_store  # noqa: PLC0415 - needs the models, which load later

    get_session_store().ping()
