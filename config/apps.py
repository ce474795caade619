"""The house itself as a Django app: it brings the system checks of the settings, and the groups."""

from django.apps import AppConfig

from config.rights import make_groups_after_migrations


class HouseConfig(AppConfig):
    """Registers the system checks, and what is done after migrations."""

    name = "config"
    verbose_name = "Handrail"

    def ready(self) -> None:
        make_groups_after_migrations()
        from config import checks  # noqa: F401, PLC0415 - registers; the app registry must be ready first
