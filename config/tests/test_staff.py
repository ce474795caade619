"""What staff may do is one question, and the answer is Django's own."""

from typing import Any

import pytest
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Group, Permission, User

from config import rights

pytestmark = pytest.mark.django_db


def operator(**columns: Any) -> User:
    """One of a group, with one right of the group's once more, and one of their own."""
    user = User.objects.create_user("operator", is_staff=True, **columns)
    user.groups.add(*Group.objects.filter(name__in=[rights.OPERATOR, rights.VIEWER]))
    own = ("archive_workflow", "cancel_execution")
    user.user_permissions.set(Permission.objects.filter(codename__in=own))
    return User.objects.get(pk=user.pk)


def test_own_and_groups_permissions_are_one_query(django_assert_num_queries: Any) -> None:
    user = operator()
    with django_assert_num_queries(1):
        assert user.has_perm("workflows.archive_workflow")
        assert user.has_perms(["executions.cancel_execution", "workflows.view_connection"])
        assert not user.has_perm("workflows.publish_workflow")
        assert user.has_module_perms("executions")
    again = User.objects.get(pk=user.pk)
    assert user.get_all_permissions() == ModelBackend().get_all_permissions(again)


def test_who_is_not_active_may_nothing() -> None:
    user = operator(is_active=False)
    assert (user.get_all_permissions(), user.has_perm("workflows.view_workflow")) == (set(), False)


def test_superusers_may_everything() -> None:
    user = User.objects.create_superuser("root")
    assert len(user.get_all_permissions()) == Permission.objects.count()


def test_permissions_on_single_rows_are_none_as_with_django() -> None:
    assert operator().get_all_permissions(Group()) == set()
