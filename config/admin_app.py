"""The back office as a Django app: `django.contrib.admin` with a site of our own."""

from django.contrib.admin.apps import AdminConfig


class BackOfficeConfig(AdminConfig):
    """Stands in INSTALLED_APPS where `django.contrib.admin` would."""

    default_site = "config.admin_site.BackOfficeSite"
