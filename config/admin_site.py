"""The site of the back office: Unfold's, with our sign-in, our navigation and our files."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.urls import reverse
from unfold.sites import UnfoldAdminSite

from config.sign_in import SignInForm, too_many_passwords

TOO_MANY_REQUESTS = 429


class BackOfficeSite(UnfoldAdminSite):  # type: ignore[misc]  # Unfold has no types
    """What `django.contrib.admin.site` is here."""

    login_form = SignInForm
    index_title = "Overview"

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The stock page; a throttled try is 429 with Retry-After."""
        response: HttpResponse = super().login(request, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data:
            wait = getattr(response.context_data.get("form"), "wait_seconds", None)
            if wait is not None:
                response.status_code = TOO_MANY_REQUESTS
                response.headers["Retry-After"] = str(wait)
        return response

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The stock page; the old password is tried no more often than signing in."""
        if request.method == "POST" and (refusal := too_many_passwords(request)):
            messages.error(request, refusal)
            return redirect(f"{self.name}:password_change")
        response: HttpResponse = super().password_change(request, extra_context)
        return response

    def search(self, *_args: Any, **_kwargs: Any) -> HttpResponse:
        """Unfold's search over every page: not offered, it would put found rows into the cache."""
        raise Http404


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the sidebar; shown to who has one of the permissions (none: to superusers)."""

    title: str
    icon: str
    url: str
    permissions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A group of lines."""

    title: str
    entries: tuple[Entry, ...]


SECTIONS = (
    Section(
        "Definitions",
        (
            Entry("Workflows", "account_tree", "admin:workflows_workflow_changelist",
                  ("workflows.view_workflow", "workflows.change_workflow")),
            Entry("Versions", "history", "admin:workflows_workflowversion_changelist",
                  ("workflows.view_workflowversion",)),
            Entry("Connections", "hub", "admin:workflows_connection_changelist",
                  ("workflows.view_connection", "workflows.change_connection")),
        ),
    ),
    Section(
        "Operation",
        (
            Entry("Executions", "directions_run", "admin:executions_workflowexecution_changelist",
                  ("executions.view_workflowexecution",)),
            Entry("Operator actions", "build", "admin:executions_operatoraction_changelist",
                  ("executions.view_operatoraction",)),
            Entry("Trials", "science", "admin:executions_triggertrial_changelist",
                  ("executions.view_triggertrial",)),
        ),
    ),
    Section(
        "Staff",
        (
            Entry("Users", "person", "admin:auth_user_changelist"),
            Entry("Groups", "group", "admin:auth_group_changelist"),
        ),
    ),
)  # fmt: skip
"""The sidebar below *Overview*; a page of its own gets its line here."""


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar of whoever is signed in: what they may not see is not in it."""
    overview = {"title": "Overview", "icon": "dashboard", "link": reverse("admin:index")}
    groups: list[dict[str, Any]] = [{"title": "", "items": [overview]}]
    for section in SECTIONS:
        items = [
            {"title": entry.title, "icon": entry.icon, "link": reverse(entry.url)}
            for entry in section.entries
            if _may_see(request, entry.permissions)
        ]
        if items:
            groups.append({"title": section.title, "separator": True, "items": items})
    return groups


def _may_see(request: HttpRequest, permissions: Iterable[str]) -> bool:
    user = request.user
    return user.is_superuser or any(user.has_perm(name) for name in permissions)


def logo(request: HttpRequest) -> str:  # noqa: ARG001 - Unfold asks with the request
    """The address of the mark, which is the tab's icon too."""
    return static("handrail/logo.svg")


def stylesheet(request: HttpRequest) -> str:  # noqa: ARG001 - the same
    """The address of what Unfold's own style does not have."""
    return static("handrail/admin.css")


def script(request: HttpRequest) -> str:  # noqa: ARG001 - the same
    """The address of the script that every page has."""
    return static("handrail/admin.js")
