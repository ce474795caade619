"""The back office on definitions: every change is a call that the API and the commands make too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from config.back_office import BackOfficeAdmin, ReadOnlyAdmin
from config.display import json_block, text_block
from workflows import drafts, publishing
from workflows.connection_states import connection_state
from workflows.connections import forget_connections
from workflows.draft_pages import StepPages, WorkflowPages
from workflows.errors import WorkflowError
from workflows.forms import ConnectionForm
from workflows.history import (
    SHOWN_EDITS,
    Edit,
    connection_history,
    step_history,
    workflow_history,
)
from workflows.mapping_pages import ApiMappingPage, CompensationMappingPage, RequestMappingPage
from workflows.models import Connection, Workflow, WorkflowStep, WorkflowVersion
from workflows.publish_pages import published_words
from workflows.version_pages import VERSION_PAGES, WORKFLOW_PAGES, ImportsDocuments


class _HistoryAdmin(BackOfficeAdmin):
    """An admin whose *History* tells the edits through every door, not only its own.

    `edits_of` gives the edits of the row with an id, newest first.
    """

    edits_of: Callable[[UUID], list[Edit]]

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Who changed what: a page for everybody who may see the row."""
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        if not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": "History",
            "subtitle": str(row),
            "opts": self.opts,
            "original": row,
            "edits": self.edits_of(row.pk),
            "shown_edits": SHOWN_EDITS,
            "page_links": self.page_links(request, row),
            "change_url": self.page_url("change", row.pk),
            **(extra_context or {}),
        }
        return TemplateResponse(request, "handrail/history.html", context)


@admin.register(Workflow)
class WorkflowAdmin(ImportsDocuments, WorkflowPages, _HistoryAdmin):
    """Drafts: edit, publish, archive. Nothing is deleted: executions refer to it."""

    list_display = ("name", "live_version", "revision", "archived_at", "updated_at")
    list_filter = ("archived_at",)
    list_select_related = ("live_version",)
    search_fields = ("name",)
    pages: ClassVar = {"mapping": ApiMappingPage, **WORKFLOW_PAGES}
    edits_of = staticmethod(workflow_history)
    actions = ("publish", "archive", "restore")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        return False

    def has_publish_permission(self, request: HttpRequest) -> bool:
        """Asked by the action that changes what new executions run."""
        return request.user.has_perm("workflows.publish_workflow")

    @admin.action(
        description="Publish the drafts of the selected workflows", permissions=["publish"]
    )
    def publish(self, request: HttpRequest, queryset: QuerySet[Workflow]) -> None:
        by = request.user.get_username()

        def publish_one(row: Workflow) -> None:
            done = publishing.publish_draft(row.pk, by=by)
            if not done.is_new:
                raise WorkflowError(published_words(done)[0])

        self._apply_to_each(request, queryset, "Published", publish_one)

    def has_archive_permission(self, request: HttpRequest) -> bool:
        """Asked by the actions that open and close a workflow for new executions."""
        return request.user.has_perm("workflows.archive_workflow")

    @admin.action(description="Archive the selected workflows", permissions=["archive"])
    def archive(self, request: HttpRequest, queryset: QuerySet[Workflow]) -> None:
        self._apply_to_each(
            request, queryset, "Archived", lambda row: drafts.archive_workflow(row.pk)
        )

    @admin.action(description="Restore the selected workflows", permissions=["archive"])
    def restore(self, request: HttpRequest, queryset: QuerySet[Workflow]) -> None:
        self._apply_to_each(
            request, queryset, "Restored", lambda row: drafts.restore_workflow(row.pk)
        )

    def _apply_to_each(
        self,
        request: HttpRequest,
        rows: QuerySet[Workflow],
        done: str,
        act: Callable[[Workflow], object],
    ) -> None:
        """Do it to each row and report how many it was done to, and why not to the others."""
        count = 0
        for row in rows:
            try:
                act(row)
            except WorkflowError as error:
                self.message_user(request, f"{row}: {error.message}", messages.ERROR)
            else:
                count += 1
        self.message_user(request, f"{done}: {count}.")


@admin.register(WorkflowStep)
class WorkflowStepAdmin(StepPages, _HistoryAdmin):
    """Steps of drafts."""

    list_display = ("label", "workflow", "order", "type", "execution_mode", "trigger_timing")
    list_filter = ("type", "execution_mode")
    list_select_related = ("workflow",)
    search_fields = ("label", "workflow__name")
    pages: ClassVar = {
        "mapping": RequestMappingPage,
        "compensation-mapping": CompensationMappingPage,
    }
    edits_of = staticmethod(step_history)

    def delete_model(self, request: HttpRequest, obj: WorkflowStep) -> None:  # noqa: ARG002 - Django's signature
        drafts.delete_step(obj.pk)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[WorkflowStep]) -> None:  # noqa: ARG002 - Django's signature
        for step in queryset:
            drafts.delete_step(step.pk)


@admin.register(WorkflowVersion)
class WorkflowVersionAdmin(ReadOnlyAdmin):
    """What was published, when, by whom and what changed: read-only."""

    pages: ClassVar = VERSION_PAGES
    list_display = ("name", "number", "published_at", "published_by", "note")
    list_filter = ("published_at",)
    search_fields = ("name", "note")
    fields = (
        "workflow",
        "number",
        "published_at",
        "published_by",
        "note",
        "what_changed",
        "content_hash",
        "document_text",
    )
    readonly_fields = fields
    actions = ("republish",)

    def has_publish_permission(self, request: HttpRequest) -> bool:
        """Asked by the action that changes what new executions run."""
        return request.user.has_perm("workflows.publish_workflow")

    @admin.display(description="changes")
    def what_changed(self, version: WorkflowVersion) -> str:
        return text_block("\n".join(map(str, version.changes)))

    @admin.display(description="document")
    def document_text(self, version: WorkflowVersion) -> str:
        return json_block(version.document)

    @admin.action(description="Publish the selected version again", permissions=["publish"])
    def republish(self, request: HttpRequest, queryset: QuerySet[WorkflowVersion]) -> None:
        by = request.user.get_username()
        version = queryset.first()
        if version is None or queryset.count() > 1:
            self.message_user(request, "Select one version.", messages.ERROR)
            return
        try:
            done = publishing.republish_version(version.workflow_id, version.number, by=by)
        except WorkflowError as error:
            self.message_user(request, error.message, messages.ERROR)
        else:
            self.message_user(request, *published_words(done))


@admin.register(Connection)
class ConnectionAdmin(_HistoryAdmin):
    """Partner systems. Private networks are the superuser's to allow."""

    form = ConnectionForm
    edits_of = staticmethod(connection_history)
    list_display = ("name", "base_url", "auth_kind", "allow_private", "breaker", "updated_at")
    list_filter = ("auth_kind", "allow_private")
    search_fields = ("name", "base_url")
    fields = (
        "name",
        "base_url",
        "auth_kind",
        "username",
        "header_name",
        "new_secret",
        "new_callback_secret",
        "allow_private",
    )

    @admin.display(description="breaker")
    def breaker(self, connection: Connection) -> str:
        """How the partner stands right now; "-" where nobody calls partners."""
        return connection_state(connection.name).words

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        name = ("name",) if obj else ()
        return name if request.user.is_superuser else (*name, "allow_private")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Who may not allow private networks may not point such a connection elsewhere either."""
        if obj is not None and obj.allow_private and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except WorkflowError as error:  # between the form's check and its saving
            self.message_user(request, error.message, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    def save_model(self, request: HttpRequest, obj: Connection, form: Any, change: bool) -> None:  # noqa: ARG002, FBT001 - Django's signature
        obj.__dict__.update(form.edit().__dict__)

    def delete_model(self, request: HttpRequest, obj: Connection) -> None:
        super().delete_model(request, obj)
        forget_connections()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Connection]) -> None:
        super().delete_queryset(request, queryset)
        forget_connections()
