"""Whom Django asks who staff are and what they may do: its own answers, with fewer questions."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Permission


class StaffBackend(ModelBackend):
    """Django's backend; somebody's own permissions and their groups' are one query, not two."""

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """What they may do, asked for once a request: each request makes its user anew."""
        if user_obj.is_superuser or user_obj.is_anonymous or not user_obj.is_active or obj:
            return super().get_all_permissions(user_obj, obj)
        if not hasattr(user_obj, "_perm_cache"):
            names = ("content_type__app_label", "codename")
            own = user_obj.user_permissions.order_by().values_list(*names)
            groups = Permission.objects.filter(group__user=user_obj).order_by().values_list(*names)
            # Where Django keeps them, so that whoever makes it forget makes this forget.
            found = {f"{label}.{name}" for label, name in own.union(groups)}
            user_obj._perm_cache = found  # noqa: SLF001 - Django's own place
        kept: set[str] = user_obj._perm_cache  # noqa: SLF001 - the same
        return kept
