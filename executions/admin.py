"""The back office on records: read-only, newest first, without a count over the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.functional import cached_property

from config.back_office import PageLink, ReadOnlyAdmin, ReadOnlyInline
from executions import trial_admin
from executions.bulk_pages import BulkPage
from executions.connection_pages import ConnectionStatePage
from executions.execution_pages import ActPage, ContextPage, ExecutionPage
from executions.listing_pages import ExecutionListPage
from executions.models import (
    OperatorAction,
    SessionField,
    SessionRecord,
    StepAttempt,
    StepRun,
    WorkflowExecution,
)

__all__ = ["trial_admin"]  # which registers what trials have
from workflows.admin import ConnectionAdmin
from workflows.models import Connection

if TYPE_CHECKING:
    _Pages = Paginator[Any]
else:  # generic in Django's stubs only
    _Pages = Paginator

COUNTED_ROWS = 10_000
"""Lists go as far as this; who looks for something older searches for it."""


class BoundedPaginator(_Pages):
    """Counts COUNTED_ROWS at most: a count over a million rows takes longer than the page."""

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        if isinstance(rows, QuerySet):
            return rows.order_by()[:COUNTED_ROWS].count()
        return len(rows)


class _RecordAdmin(ReadOnlyAdmin):
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = (
        admin.ShowFacets.NEVER
    )  # they count the whole table for each choice of each filter
    list_per_page = 50


class _CallAdmin(_RecordAdmin):
    """Of millions of rows the newest are listed, filtered and sorted; older ones are found by an id.

    A filter or an order that no index serves reads them all, and every index makes each step dearer.
    """

    ids: ClassVar[tuple[str, ...]] = ()
    """The columns that are searched, each for a whole id; an index serves each."""

    search_fields = ("=pk",)  # so that there is a field to search in

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's signature
        queryset: QuerySet[Any],
        search_term: str,
    ) -> tuple[QuerySet[Any], bool]:
        if not search_term:
            return queryset.filter(pk__gte=first) if (first := self._first()) else queryset, False
        try:
            wanted = UUID(search_term)
        except ValueError:
            return queryset.none(), False
        return queryset.filter(Q(*((name, wanted) for name in self.ids), _connector=Q.OR)), False

    def _first(self) -> Any:
        """The oldest row that is listed; None when all are."""
        newest = self.model._meta.default_manager.order_by("-pk").values_list("pk", flat=True)
        return next(iter(newest[COUNTED_ROWS - 1 : COUNTED_ROWS]), None)


class AttemptInline(ReadOnlyInline):
    """A run's HTTP tries in their order."""

    model = StepAttempt
    fields = ("number", "outcome", "http_status", "error_code", "started_at", "duration_ms")
    ordering = ("number",)
    show_change_link = False


@admin.register(WorkflowExecution)
class WorkflowExecutionAdmin(_RecordAdmin):
    """One person's run: a list without a count, a page that tells its story, actions by form."""

    pages: ClassVar = {"context": ContextPage, "act": ActPage}

    def get_urls(self) -> list[URLPattern]:
        bulk = path(
            "bulk/",
            self.admin_site.admin_view(BulkPage.as_view(site=self.admin_site)),
            name="executions_workflowexecution_bulk",
        )
        return [bulk, *super().get_urls()]

    def page_links(self, request: HttpRequest, row: Any) -> list[PageLink]:
        """The form of an action is reached from the offer of that action."""
        act = self.page_url("act", row.pk)
        return [link for link in super().page_links(request, row) if link.url != act]

    def changelist_view(
        self,
        request: HttpRequest,
        extra_context: dict[str, Any] | None = None,  # noqa: ARG002 - Django's signature
    ) -> HttpResponse:
        return ExecutionListPage.as_view(site=self.admin_site)(request)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",  # noqa: ARG002 - Django's signature
        extra_context: dict[str, Any] | None = None,  # noqa: ARG002 - the same
    ) -> HttpResponse:
        page = ExecutionPage.as_view(model_admin=self)
        return page(request, object_id=object_id)


@admin.register(StepRun)
class StepRunAdmin(_CallAdmin):
    """The record of one accepted call."""

    list_display = ("id", "kind", "step_index", "timing", "mode", "status", "error_code")
    list_filter = ("status", "kind")
    ids = ("id", "execution_id")
    search_help_text = f"A run's id, or an execution's. Listed are the newest {COUNTED_ROWS:,}."
    ordering = ("-id",)
    inlines = (AttemptInline,)
    raw_id_fields = ("execution",)
    exclude = ("sealed_request", "sealed_answer", "input_hash", "arguments_hash")


@admin.register(StepAttempt)
class StepAttemptAdmin(_CallAdmin):
    """One HTTP try of a run."""

    list_display = ("id", "number", "outcome", "http_status", "error_code", "duration_ms")
    list_filter = ("outcome",)
    ids = ("run_id",)
    search_help_text = f"The id of the run. Listed are the newest {COUNTED_ROWS:,}."
    ordering = ("-id",)
    raw_id_fields = ("run",)


@admin.register(OperatorAction)
class OperatorActionAdmin(_RecordAdmin):
    """What staff did by hand: who, why, and what came of it."""

    list_display = ("at", "action", "execution_id", "about", "by", "outcome", "reason")
    list_filter = ("action", "outcome")
    search_fields = ("=execution_id", "by")
    search_help_text = "An execution's id, or who did it."
    ordering = ("-id",)


@admin.register(SessionRecord)
class SessionRecordAdmin(_RecordAdmin):
    """A session in the database's store; what it holds is sealed and not shown."""

    list_display = ("__str__", "sequence", "expires_at")
    ordering = ("-pk",)


@admin.register(SessionField)
class SessionFieldAdmin(_RecordAdmin):
    """One sealed value of a session, by its name only."""

    list_display = ("name",)
    ordering = ("-pk",)
    raw_id_fields = ("session",)
    exclude = ("sealed",)


admin.site.unregister(Connection)


@admin.register(Connection)
class OperatedConnectionAdmin(ConnectionAdmin):
    """Connections with what is known where partners are called: definitions are below that layer."""

    pages: ClassVar = {**ConnectionAdmin.pages, "state": ConnectionStatePage}
