"""The house itself as a Django app: it brings the system checks of the settings."""

from django.apps import AppConfig


class HouseConfig(AppConfig):
    """Registers the system checks."""

    name = "config"
    verbose_name = "Handrail"

    def ready(self) -> None:
        from config import checks  # noqa: F401, PLC0415 - registers; the app registry must be ready first
