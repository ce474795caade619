"""Who may do what: the groups Viewer, Editor, Publisher and Operator, set anew by every `migrate`.

Permissions come into being after migrations, so the groups are made then, on a new database as on an
old one. A group of ours has exactly these permissions, whatever somebody clicked; who needs another
mixture makes a group of another name, which is left alone. Members need `is_staff` to sign in.
"""

from __future__ import annotations

from typing import Any, Final

from django.apps import AppConfig, apps
from django.contrib.auth.management import create_permissions
from django.db import transaction
from django.db.models.signals import post_migrate

VIEWER: Final = "Viewer"
EDITOR: Final = "Editor"
PUBLISHER: Final = "Publisher"
OPERATOR: Final = "Operator"

APPS: Final = ("workflows", "executions")

# Viewers see every record and definition of ours; these are what the others may on top.
_EDITING: Final = frozenset({
    "workflows.add_workflow",
    "workflows.change_workflow",
    "workflows.add_workflowstep",
    "workflows.change_workflowstep",
    "workflows.delete_workflowstep",
})  # fmt: skip
_PUBLISHING: Final = frozenset({
    "workflows.publish_workflow",
    "workflows.archive_workflow",
    "workflows.add_connection",
    "workflows.change_connection",
    "workflows.test_connection",
})  # fmt: skip
_OPERATING: Final = frozenset({
    "executions.replay_execution",
    "executions.retry_step",
    "executions.cancel_execution",
    "executions.reveal_value",
})  # fmt: skip

GROUPS: Final = {
    VIEWER: frozenset[str](),
    EDITOR: _EDITING,
    PUBLISHER: _EDITING | _PUBLISHING,
    OPERATOR: _OPERATING,
}


def make_groups_after_migrations() -> None:
    """From now on; call it once the apps are ready."""
    post_migrate.connect(_after_migrations, dispatch_uid="handrail.groups")


def _after_migrations(app_config: AppConfig, using: str, apps: Any = apps, **_kwargs: Any) -> None:
    # Told for each app in their order: the last of ours has its tables and the others' then.
    if app_config.label == APPS[-1]:
        make_groups(using=using, known=apps)


def make_groups(*, using: str = "default", known: Any = apps) -> None:
    """Give each group exactly its permissions; nothing is written where nothing differs.

    Does nothing on a database that has no groups yet, as after `migrate workflows`.
    """
    try:
        groups = known.get_model("auth", "Group").objects.using(using)
        permissions = known.get_model("auth", "Permission").objects.using(using)
    except LookupError:
        return
    for label in APPS:
        create_permissions(apps.get_app_config(label), verbosity=0, using=using, apps=known)
    ours = {
        f"{label}.{codename}": key
        for label, codename, key in permissions.filter(
            content_type__app_label__in=APPS
        ).values_list("content_type__app_label", "codename", "pk")
    }
    with transaction.atomic(using=using):
        for name, extra in GROUPS.items():
            group, _ = groups.get_or_create(name=name)
            group.permissions.set({key for full, key in ours.items() if _is_for(full, extra)})


def _is_for(permission: str, extra: frozenset[str]) -> bool:
    return permission in extra or permission.partition(".")[2].startswith("view_")
