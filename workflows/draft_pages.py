"""The pages of a draft: a workflow with its steps, and a step.

A page hands what was entered to a form or to `drafts.py`, and shows what they say. What the check of the
draft finds stands at the step, and on the step's page at the field, that it is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from uuid import UUID

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from config.back_office import BackOfficeAdmin
from config.jsonvalues import JsonObject
from workflows import drafts, publishing
from workflows.changes import describe_changes
from workflows.connections import connection_facts
from workflows.document_text import read_json, write_json
from workflows.documents import WorkflowDocument, dump_document, parse_document
from workflows.draft_check import DraftReport, check_draft
from workflows.draft_forms import DraftForm, NewStepForm, NewWorkflowForm, StepForm, WorkflowForm
from workflows.errors import DefinitionError, Problem, WorkflowError
from workflows.models import Workflow, WorkflowStep
from workflows.paths import available_paths, call_paths
from workflows.routing import ConnectionFacts
from workflows.rows_editor import problems_of
from workflows.step_look import look_at_step, look_at_submission

_STEP_PATH: Final = re.compile(r"steps\[(?P<at>\d+)\](?:\.(?P<inner>.*))?")
_MAX_SAMPLE: Final = 200_000


@dataclass(slots=True)
class ShownStep:
    """A step in the list: its row, its document, and what the check of the draft says of it."""

    row: WorkflowStep
    document: Any
    url: str
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


class _DraftAdmin(BackOfficeAdmin):
    """An admin whose add and change pages are pages of a draft."""

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",  # noqa: ARG002 - Django's signature
        extra_context: dict[str, Any] | None = None,  # noqa: ARG002 - the same
    ) -> HttpResponse:
        if object_id is None:
            if not self.has_add_permission(request):
                raise PermissionDenied
            return self.add_page(request)
        row = self.get_object(request, unquote(object_id))
        if not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        if row is None:
            raise Http404
        if request.method == "POST" and not self.has_change_permission(request, row):
            raise PermissionDenied
        return self.row_page(request, row)

    def add_page(self, request: HttpRequest) -> HttpResponse:
        """The page that makes a row."""
        raise NotImplementedError

    def row_page(self, request: HttpRequest, row: Any) -> HttpResponse:
        """The page of a row, for who may see it; a POST, for who may change it."""
        raise NotImplementedError

    def save(self, request: HttpRequest, form: DraftForm) -> bool:
        """Make the form's edit, if it can be made and changes something; says so to the person."""
        if not form.is_valid():
            return False
        if not form.changes():
            self.message_user(request, "Nothing was changed.")
            return True
        try:
            saved = form.edit()
        except WorkflowError as error:  # between the form's check and its saving
            form.add_error(None, error.message)
            return False
        self.log_change(request, saved, "Changed.")
        self.message_user(request, f"Saved {saved}.", messages.SUCCESS)
        return True

    def show(
        self, request: HttpRequest, template: str, *, row: Any = None, title: str, **context: Any
    ) -> HttpResponse:
        """Our template, with what the base of every page needs."""
        request.current_app = self.admin_site.name
        of_row = {}
        if row is not None:
            of_row = {
                "subtitle": str(row),
                "original": row,
                "object": row,
                "page_links": self.page_links(request, row),
                "change_url": self.page_url("change", row.pk),
                "history_url": self.page_url("history", row.pk),
                "mapping_url": self.page_url("mapping", row.pk) if "mapping" in self.pages else "",
                "compensation_mapping_url": (
                    self.page_url("compensation-mapping", row.pk)
                    if "compensation-mapping" in self.pages
                    else ""
                ),
                "may_change": self.has_change_permission(request, row),
            }
        base = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            **of_row,
        }
        return TemplateResponse(request, template, {**base, **context})


class WorkflowPages(_DraftAdmin):
    """A workflow's page: its settings, its steps in their order, and the draft against what is live."""

    def add_page(self, request: HttpRequest) -> HttpResponse:
        form = NewWorkflowForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            row = form.edit()
            self.log_addition(request, row, "Added.")
            return HttpResponseRedirect(self.page_url("change", row.pk))
        return self.show(
            request, "workflows/add.html", title="New workflow", form=form, word="workflow"
        )

    def row_page(self, request: HttpRequest, row: Workflow) -> HttpResponse:
        if request.method == "POST" and "act" in request.POST:
            return self._act_on_steps(request, row)
        facts = connection_facts()
        form = WorkflowForm(
            request.POST if request.method == "POST" else None,
            workflow=row,
            connections=sorted(facts),
            may_change=self.has_change_permission(request, row),
        )
        if request.method == "POST" and self.save(request, form):
            return HttpResponseRedirect(self.page_url("change", row.pk))
        document = row.document()
        report = check_draft(document, connections=facts)
        steps = self._steps(row, document, report)
        elsewhere = [
            *form.note(one for one in report.problems if not _STEP_PATH.match(one.path)),
            *form.note(one for one in report.warnings if not _STEP_PATH.match(one.path)),
        ]
        return self.show(
            request,
            "workflows/workflow.html",
            row=row,
            title=row.name,
            form=form,
            steps=steps,
            report=report,
            elsewhere=elsewhere,
            changes=_unpublished(row, document),
            look=look_at_submission(document),
            new_step=NewStepForm(),
            may={
                verb: request.user.has_perm(f"workflows.{verb}_workflowstep")
                for verb in ("add", "change", "delete")
            },
        )

    def _steps(
        self, row: Workflow, document: WorkflowDocument, report: DraftReport
    ) -> list[ShownStep]:
        rows = row.steps_in_order()
        shown = [
            ShownStep(one, step, reverse("admin:workflows_workflowstep_change", args=[one.pk]))
            for one, step in zip(rows, document.steps, strict=True)
        ]
        for found, name in ((report.problems, "problems"), (report.warnings, "warnings")):
            for problem in found:
                place = _STEP_PATH.match(problem.path)
                if place:
                    inner = Problem(place["inner"] or "", problem.message)
                    getattr(shown[int(place["at"])], name).append(inner)
        return shown

    def _act_on_steps(self, request: HttpRequest, row: Workflow) -> HttpResponse:
        act = _ACTS.get(request.POST["act"])
        revision = _number(request.POST.get("seen_revision", ""))
        if act is None:
            raise Http404
        require_verb, do = act
        if not request.user.has_perm(f"workflows.{require_verb}_workflowstep"):
            raise PermissionDenied
        place = "steps"
        try:
            done, step_id = do(row, request.POST, revision)
        except DefinitionError as error:
            said = "; ".join(str(one) for one in error.problems) or error.message
            self.message_user(request, said, messages.ERROR)
        except WorkflowError as error:
            self.message_user(request, error.message, messages.ERROR)
        else:
            self.log_change(request, row, done)
            self.message_user(request, done, messages.SUCCESS)
            if step_id is not None:  # where the next Tab goes on, and the eye
                place = f"step-{step_id}"
        return HttpResponseRedirect(f"{self.page_url('change', row.pk)}#{place}")


_Done: TypeAlias = tuple[str, UUID | None]
"""What was done, in words, and the step to look at now."""


def _add(row: Workflow, data: Any, revision: int) -> _Done:
    form = NewStepForm(data)
    if not form.is_valid():
        raise DefinitionError(message="A step needs a label and a type.")
    step = drafts.create_step(row.pk, form.fields_of_step(), revision=revision)
    url = reverse("admin:workflows_workflowstep_change", args=[step.pk])
    return format_html('Added <a href="{}">{}</a>.', url, step), step.pk


def _move(row: Workflow, data: Any, revision: int) -> _Done:
    step, to = _step_of(row, data), _number(data.get("to", ""))
    drafts.move_step(step.pk, to=to, revision=revision)
    return f"{step.label} is step {to + 1} now.", step.pk


def _duplicate(row: Workflow, data: Any, revision: int) -> _Done:
    copy = drafts.duplicate_step(_step_of(row, data).pk, revision=revision)
    return f"Added {copy.label}.", copy.pk


def _remove(row: Workflow, data: Any, revision: int) -> _Done:
    step = _step_of(row, data)
    drafts.delete_step(step.pk, revision=revision)
    after = row.steps.filter(order__gt=step.order).order_by("order").first()
    return f"Removed {step.label}.", after.pk if after else None


_ACTS: Final[dict[str, tuple[str, Callable[[Workflow, Any, int], _Done]]]] = {
    "add": ("add", _add),
    "move": ("change", _move),
    "duplicate": ("add", _duplicate),
    "remove": ("delete", _remove),
}


def _number(text: str) -> int:
    """A number that a form of ours sends. Raises Http404."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise Http404
    return int(text)


def _step_of(row: Workflow, data: Any) -> WorkflowStep:
    try:
        return row.steps.get(pk=UUID(data.get("step", "")))
    except (ValueError, WorkflowStep.DoesNotExist):
        raise Http404 from None


def _unpublished(row: Workflow, document: WorkflowDocument) -> list[str]:
    """What publishing would change, in words; empty when the draft is what is live, or nothing is."""
    live = row.live_version
    if live is None:
        return []
    before = publishing.snapshot_of(live)
    steps = row.steps_in_order()
    told = describe_changes(
        before.document, before.step_ids, document, [str(one.pk) for one in steps]
    )
    return [] if told == ["nothing changed"] else told


class StepPages(_DraftAdmin):
    """A step's page: every setting a field, with how it would look and act over a sample beside it."""

    def get_urls(self) -> list[URLPattern]:
        look = path(
            "<path:object_id>/look/",
            self.admin_site.admin_view(self.look_view),
            name="workflows_workflowstep_look",
        )
        return [look, *super().get_urls()]

    def add_page(self, request: HttpRequest) -> HttpResponse:
        posted = request.POST if request.method == "POST" else None
        workflow = (posted or request.GET).get("workflow", "")
        form = NewStepForm(posted, initial={"workflow": workflow}, chooses_workflow=True)
        if posted is not None and form.is_valid():
            try:
                row = drafts.create_step(form.cleaned_data["workflow"].pk, form.fields_of_step())
            except DefinitionError as error:
                form.add_error(None, error.message)
            else:
                self.log_addition(request, row, "Added.")
                return HttpResponseRedirect(self.page_url("change", row.pk))
        return self.show(request, "workflows/add.html", title="New step", form=form, word="step")

    def row_page(self, request: HttpRequest, row: WorkflowStep) -> HttpResponse:
        facts = connection_facts()
        form = self._form(request, row, facts)
        if request.method == "POST" and self.save(request, form):
            return HttpResponseRedirect(self.page_url("change", row.pk))
        document = row.workflow.document()
        rows = row.workflow.steps_in_order()
        index = rows.index(row)
        report = check_draft(document, connections=facts)
        elsewhere = form.note(_of_step(report, index))
        look = look_at_step(document, index)
        return self.show(
            request,
            "workflows/step.html",
            row=row,
            title=row.label,
            form=form,
            elsewhere=elsewhere,
            look=look,
            sample=write_json(look.sample),
            paths=available_paths(document, until=index),
            call_names=_own_names(document, index),
            workflow_url=reverse("admin:workflows_workflow_change", args=[row.workflow_id]),
            look_url=reverse("admin:workflows_workflowstep_look", args=[row.pk]),
            before=rows[index - 1] if index else None,
            after=rows[index + 1] if index + 1 < len(rows) else None,
            place=index + 1,
            count=len(rows),
        )

    def look_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The looks of the step as its form stands, before it is saved: parts of the page."""
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        if request.method != "POST" or not self.has_change_permission(request, row):
            raise PermissionDenied
        facts = connection_facts()
        form = self._form(request, row, facts)
        try:
            document, index = self._as_it_stands(row, form)
            sample = _sample_of(request.POST.get("sample", ""))
            elsewhere = form.note(_of_step(check_draft(document, connections=facts), index))
            look = look_at_step(document, index, sample=sample)
        except DefinitionError as error:
            said = [(_words_of(form, one.path), one.message) for one in problems_of(error)]
            return TemplateResponse(request, "workflows/look_refused.html", {"said": said})
        context = {"look": look, "elsewhere": elsewhere, "said": form.said(), "form": form}
        return TemplateResponse(request, "workflows/look.html", context)

    def _as_it_stands(self, row: WorkflowStep, form: StepForm) -> tuple[WorkflowDocument, int]:
        """The draft with the step as its form has it. Raises DefinitionError."""
        form.read()
        rows = row.workflow.steps_in_order()
        index = rows.index(row)
        data = dump_document(row.workflow.document())
        steps: Any = data["steps"]
        steps[index] = {**form.after(), "order": row.order}
        return parse_document(data), index

    def _form(
        self, request: HttpRequest, row: WorkflowStep, facts: dict[str, ConnectionFacts]
    ) -> StepForm:
        return StepForm(
            request.POST if request.method == "POST" else None,
            step=row,
            connections=sorted(facts),
            may_change=self.has_change_permission(request, row),
        )


def _of_step(report: DraftReport, index: int) -> list[Problem]:
    prefix = f"steps[{index}]."
    found = (*report.problems, *report.warnings)
    return [one for one in found if one.path.startswith(prefix)]


def _words_of(form: StepForm, path: str) -> str:
    """The label of the field that a path leads to, or the path itself."""
    name = form.field_at(path)
    return path if name is None else str(form[name].label)


def _own_names(document: WorkflowDocument, index: int) -> list[Any]:
    """What the step's calls read beside the context."""
    roots = ("input", "execution")
    return [one for one in call_paths(document, step=index) if one.path.split(".")[0] in roots]


def _sample_of(text: str) -> JsonObject | None:
    """The context that was typed, None for the one that the draft makes. Raises DefinitionError."""
    if not text.strip():
        return None
    if len(text) > _MAX_SAMPLE:
        raise DefinitionError(message="The sample is too long.")
    sample = read_json(text.encode(errors="surrogatepass"))
    if not isinstance(sample, dict):
        raise DefinitionError(message="The sample is an object: names and values.")
    return sample
