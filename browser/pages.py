"""Every page of the back office, by name, with its address in the world of `world.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from django.urls import resolve, reverse

from browser.world import World


@dataclass(frozen=True, slots=True)
class BackOfficePage:
    """A page; `is_main` ones have a picture for narrow screens, too. `press` names a button to press.

    `is_dark`: it has one in the dark theme, as an example of them all.
    With `posted` it is what a form is answered with; such a form changes nothing.
    """

    name: str
    address: str
    press: str = ""
    is_main: bool = False
    is_dark: bool = False
    posted: Mapping[str, Any] = field(default_factory=dict)

    @property
    def url_name(self) -> str:
        """The name of its address, without `admin:`."""
        return resolve(urlsplit(self.address).path).url_name or ""


def pages_of(world: World) -> list[BackOfficePage]:
    """The pages in the order in which the documentation shows them."""
    transfer, first, live = world.transfer, world.transfer.steps.earliest("order"), world.version
    call = world.transfer.steps.latest("order")

    def page(
        name: str, view: str, *row: Any, main: bool = False, dark: bool = False, press: str = "",
        **query: str,
    ) -> BackOfficePage:  # fmt: skip
        address = address_of(view, row, query)
        return BackOfficePage(name, address, press=press, is_main=main, is_dark=dark)

    return [
        page("overview", "index", main=True, dark=True),
        page("workflows", "workflows_workflow_changelist", main=True),
        page("workflow-add", "workflows_workflow_add"),
        page("workflow", "workflows_workflow_change", transfer.pk, main=True),
        page("workflow-problems", "workflows_workflow_change", world.broken.pk),
        page("workflow-history", "workflows_workflow_history", transfer.pk),
        page("mapping", "workflows_workflow_mapping", transfer.pk, main=True),
        page("try-final", "workflows_workflow_try", world.bills.pk),
        page("publish", "workflows_workflow_publish", transfer.pk, main=True),
        page("publish-problems", "workflows_workflow_publish", world.broken.pk),
        page("golden-run", "workflows_workflow_golden", transfer.pk, sample="1"),
        page("versions-of-workflow", "workflows_workflow_versions", transfer.pk),
        page("import", "workflows_workflow_import"),
        page("steps", "workflows_workflowstep_changelist"),
        page("step-add", "workflows_workflowstep_add"),
        page("step-form", "workflows_workflowstep_change", first.pk),
        page("step-call", "workflows_workflowstep_change", call.pk, main=True, dark=True),
        page("step-mapping", "workflows_workflowstep_mapping", call.pk),
        page("undoing-mapping", "workflows_workflowstep_compensation-mapping",
             world.accounts.steps.get(label="Check Identity").pk),
        page("try-step", "workflows_workflowstep_try", call.pk),
        page("try-answer", "workflows_workflowstep_try", call.pk,
             main=True, press="Send to the sandbox"),
        page("step-history", "workflows_workflowstep_history", first.pk),
        page("step-remove", "workflows_workflowstep_delete", first.pk),
        page("versions", "workflows_workflowversion_changelist"),
        page("version", "workflows_workflowversion_change", live.pk),
        page("version-compare", "workflows_workflowversion_compare", live.pk, against="draft"),
        page("connections", "workflows_connection_changelist", main=True),
        page("connection-add", "workflows_connection_add"),
        page("connection", "workflows_connection_change", world.connection.pk),
        page("connection-state", "workflows_connection_state", world.cards.pk),
        page("connection-history", "workflows_connection_history", world.connection.pk),
        page("executions", "executions_workflowexecution_changelist", main=True),
        page("executions-failed", "executions_workflowexecution_changelist", show="attention"),
        page("execution", "executions_workflowexecution_change", world.failed.pk,
             main=True, dark=True),
        page("execution-completed", "executions_workflowexecution_change", world.completed.pk),
        page("execution-undoing", "executions_workflowexecution_change", world.undoing.pk),
        page("execution-data", "executions_workflowexecution_context", world.masked.pk),
        page("replay", "executions_workflowexecution_act", world.failed.pk,
             main=True, do="REPLAY_STEP", step="3"),
        page("cancel", "executions_workflowexecution_act", world.masked.pk, do="CANCEL"),
        page("operator-actions", "executions_operatoraction_changelist"),
        page("trials", "executions_triggertrial_changelist"),
        page("users", "auth_user_changelist"),
        page("user", "auth_user_change", world.staff.pk),
        page("user-add", "auth_user_add"),
        page("groups", "auth_group_changelist"),
        page("password", "password_change"),
    ]  # fmt: skip


def address_of(view: str, row: tuple[Any, ...], query: Mapping[str, str]) -> str:
    """Where the view of this name is, without `admin:`."""
    return reverse(f"admin:{view}", args=row, query=query)
