"""Users and groups in the back office: the superuser's, for who may change them may become anybody."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as StockGroupAdmin
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from config.back_office import BackOfficeAdmin


class _SuperusersOnly:
    def has_module_permission(self, request: HttpRequest) -> bool:
        return _is_superuser(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        return _is_superuser(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        return _is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        return _is_superuser(request)


def _is_superuser(request: HttpRequest) -> bool:
    return bool(request.user.is_superuser)


# What other packages registered: Django's own pages of users and groups, and a queue's rows, which
# only wake workers and tell operators nothing that a run does not tell.
for _model in list(admin.site._registry):  # noqa: SLF001 - Django has no public list of them
    if not isinstance(admin.site.get_model_admin(_model), BackOfficeAdmin):
        admin.site.unregister(_model)


@admin.register(User)
class UserAdmin(_SuperusersOnly, StockUserAdmin, BackOfficeAdmin):  # type: ignore[type-arg]  # generic in stubs
    """Staff: who signs in here. The people who walk through flows are no users of Django's."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_staff", "is_superuser", "is_active", "last_login")
    list_filter = ("groups", "is_staff", "is_superuser", "is_active")
    filter_horizontal = ()  # Django's two boxes are too wide for a phone and mute for screen readers


@admin.register(Group)
class GroupAdmin(_SuperusersOnly, StockGroupAdmin, BackOfficeAdmin):
    """Viewer, Editor, Publisher and Operator are set anew by every `migrate`; others are yours."""

    filter_horizontal = ()  # as with users
