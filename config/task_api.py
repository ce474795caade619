"""Django's Tasks API, whichever package brings it, and whether TASK_BACKEND can be used at all.

Django has `django.tasks` from 6.0 on; before, `django-tasks` brings the same names. This is the one
place that knows. Leaf: imports nothing of ours.
"""

from functools import cache
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING or django.VERSION >= (6,):
    from django.tasks import task, task_backends
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.exceptions import TaskResultDoesNotExist
else:
    from django_tasks import task, task_backends
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.exceptions import TaskResultDoesNotExist

__all__ = [
    "DEFAULT",
    "BaseTaskBackend",
    "TaskResultDoesNotExist",
    "is_usable",
    "task",
    "task_backends",
    "usable_alias",
]

DEFAULT = "default"
UNUSABLE = "unusable"
"""The alias in settings.TASKS that tasks are made for while the configured backend cannot be loaded."""


def is_usable() -> bool:
    """Whether the configured backend can be loaded and is one."""
    try:
        return isinstance(task_backends[DEFAULT], BaseTaskBackend)
    except Exception:  # noqa: BLE001 - code that a setting names: whatever it raises, the checks tell it
        return False


@cache
def usable_alias() -> str:
    """What tasks are made for: a task whose backend cannot be loaded would end the import, not the start."""
    return DEFAULT if is_usable() else UNUSABLE
