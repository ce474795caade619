"""The back office on records: read-only, newest first, without a count over the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.utils.functional import cached_property

from config.back_office import ReadOnlyAdmin, ReadOnlyInline
from executions.models import (
    OperatorAction,
    SessionField,
    SessionRecord,
    StepAttempt,
    StepRun,
    WorkflowExecution,
)

if TYPE_CHECKING:
    _Pages = Paginator[Any]
else:  # generic in Django's stubs only
    _Pages = Paginator

COUNTED_ROWS = 10_000
"""Lists count as far as this; who looks for something older searches or filters."""


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
    list_per_page = 50


class RunInline(ReadOnlyInline):
    """An execution's runs in their order."""

    model = StepRun
    fields = (
        "sequence",
        "kind",
        "step_index",
        "timing",
        "mode",
        "status",
        "error_code",
        "started_at",
        "duration_ms",
    )
    ordering = ("sequence",)


class AttemptInline(ReadOnlyInline):
    """A run's HTTP tries in their order."""

    model = StepAttempt
    fields = ("number", "outcome", "http_status", "error_code", "started_at", "duration_ms")
    ordering = ("number",)
    show_change_link = False


@admin.register(WorkflowExecution)
class WorkflowExecutionAdmin(_RecordAdmin):
    """One person's run. The list names nobody; the person is on the execution's own page."""

    list_display = ("id", "status", "version", "position", "error_code", "started_at")
    list_filter = ("status",)
    list_select_related = ("version",)
    search_fields = ("=id", "=user_id")
    search_help_text = "An execution's id, or a person's id."
    ordering = ("-id",)
    inlines = (RunInline,)
    fieldsets = (
        (None, {"fields": ("id", "session_id", "status", "version", "user_id", "page_id")}),
        ("Progress", {"fields": ("position", "sequence", "lease_until")}),
        ("Times", {"fields": ("started_at", "expires_at", "completed_at")}),
        (
            "Outcome",
            {"fields": ("result", "submitted_payload", "error_code", "error", "cancel_reason")},
        ),
    )
    readonly_fields = ("session_id",)


@admin.register(StepRun)
class StepRunAdmin(_RecordAdmin):
    """The record of one accepted call."""

    list_display = ("id", "kind", "step_index", "timing", "mode", "status", "error_code")
    list_filter = ("status", "kind")
    search_fields = ("=id", "=execution__id")
    search_help_text = "A run's id, or an execution's."
    ordering = ("-id",)
    inlines = (AttemptInline,)
    raw_id_fields = ("execution",)
    exclude = ("sealed_request", "sealed_answer", "input_hash", "arguments_hash")


@admin.register(StepAttempt)
class StepAttemptAdmin(_RecordAdmin):
    """One HTTP try of a run."""

    list_display = ("id", "number", "outcome", "http_status", "error_code", "duration_ms")
    list_filter = ("outcome",)
    search_fields = ("=run__id",)
    ordering = ("-id",)
    raw_id_fields = ("run",)


@admin.register(OperatorAction)
class OperatorActionAdmin(_RecordAdmin):
    """What staff did by hand: who, why, and what came of it."""

    list_display = ("at", "action", "execution_id", "by", "outcome", "reason")
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
