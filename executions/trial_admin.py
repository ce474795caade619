"""The back office on trials: their pages on steps and workflows, and their records."""

from django.contrib import admin

from config.back_office import ReadOnlyAdmin
from executions.models import TriggerTrial
from executions.trial_pages import FinalTrialPage, StepTrialPage
from workflows.admin import WorkflowAdmin, WorkflowStepAdmin


@admin.register(TriggerTrial)
class TriggerTrialAdmin(ReadOnlyAdmin):
    """Requests of drafts that staff sent by hand."""

    list_display = (
        "at",
        "what",
        "connection",
        "origin",
        "is_sandbox",
        "by",
        "outcome",
        "http_status",
    )
    list_filter = ("is_sandbox", "outcome")
    search_fields = ("what", "by", "connection")
    ordering = ("-id",)
    show_full_result_count = False


WorkflowStepAdmin.register_page("try", StepTrialPage)
WorkflowAdmin.register_page("try", FinalTrialPage)
