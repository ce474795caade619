"""Where a problem is mended: the page and the field that its path in the document leads to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.contrib.admin.utils import quote
from django.urls import reverse

from workflows.draft_forms import StepForm, WorkflowForm
from workflows.errors import Problem

_STEP: Final = re.compile(r"steps\[(?P<at>\d+)\](?:\.(?P<inner>.*))?")
_WORKFLOW_MAPPINGS: Final = {"config.apiMapping": "mapping"}
_STEP_MAPPINGS: Final = {
    "config.requestMapping": "mapping",
    "config.compensation.requestMapping": "compensation-mapping",
}


@dataclass(frozen=True, slots=True)
class FieldLink:
    """A place on an admin page: `workflow` or `workflowstep`, its page, the row, and the field's anchor."""

    model: str
    page: str
    object_id: UUID
    anchor: str = ""

    @property
    def url(self) -> str:
        """The address, with the anchor."""
        address = reverse(f"admin:workflows_{self.model}_{self.page}", args=[quote(self.object_id)])
        return f"{address}#{self.anchor}" if self.anchor else address


@dataclass(frozen=True, slots=True)
class LinkedProblem:
    """A problem with the link to where it is mended, and the step's label."""

    problem: Problem
    link: FieldLink
    step: str = ""


def link_of(path: str, *, workflow_id: UUID, step_ids: Sequence[UUID]) -> FieldLink:
    """The place for a problem's path; the workflow's own page for what belongs to no field."""
    found = _STEP.fullmatch(path)
    if found is None:
        if page := _page_of(path, _WORKFLOW_MAPPINGS):
            return FieldLink("workflow", page, workflow_id)
        anchor = "steps" if path.startswith("steps") else _anchor(path, WorkflowForm)
        return FieldLink("workflow", "change", workflow_id, anchor)
    at, inner = int(found["at"]), found["inner"] or ""
    if at >= len(step_ids):
        return FieldLink("workflow", "change", workflow_id, "steps")
    if page := _page_of(inner, _STEP_MAPPINGS):
        return FieldLink("workflowstep", page, step_ids[at])
    return FieldLink("workflowstep", "change", step_ids[at], _anchor(inner, StepForm))


def _page_of(path: str, pages: dict[str, str]) -> str:
    return next((page for start, page in pages.items() if _is_within(path, start)), "")


def _anchor(path: str, form: Any) -> str:
    """The field whose part of the document the path is in, or else the first one inside the path."""
    found, length = "", 0
    for name, field in form.base_fields.items():
        own = ".".join(getattr(field, "path", ()))
        if own and _is_within(path, own) and len(own) > length:
            found, length = name, len(own)
        elif own and path and not found and own.startswith(f"{path}."):
            found = name
    return f"field-{found}" if found else ""


def _is_within(path: str, start: str) -> bool:
    return path == start or path.startswith((f"{start}.", f"{start}["))
