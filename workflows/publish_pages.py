"""The pages that lead to a version: publishing a draft, and its golden runs.

Both show what `publishing.py` and `golden.py` say; the button publishes the revision that was shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django import forms
from django.contrib import messages
from django.db.models import prefetch_related_objects
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect

from config.back_office import ObjectPage, require
from config.jsonvalues import JsonValue
from workflows import golden, publishing
from workflows.document_diff import DocumentDiff, diff_documents
from workflows.document_text import read_json, write_json
from workflows.documents import dump_document
from workflows.errors import (
    DefinitionError,
    DefinitionNotFound,
    DraftNotPublishable,
    GoldenRunsFail,
    Problem,
    WorkflowError,
)
from workflows.field_links import LinkedProblem, link_of
from workflows.golden import CheckedRun, checked_runs
from workflows.models import GoldenRun, Workflow
from workflows.paths import sample_context

PUBLISH: Final = "workflows.publish_workflow"
EDIT: Final = "workflows.change_workflow"


@dataclass(frozen=True, slots=True)
class ShownRun:
    """A golden run on the page: what it gives, and the difference to what it should give."""

    checked: CheckedRun
    difference: DocumentDiff | None


class PublishPage(ObjectPage):
    """Everything that speaks for and against publishing the draft, and the button for who may."""

    title = "Publish"
    icon = "publish"
    template_name = "workflows/publish.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        row: Workflow = self.object
        prefetch_related_objects([row], "steps")
        snapshot = publishing.draft_snapshot(row)
        report = publishing.check_publishable(row)
        live = row.live_version
        shown: dict[str, Any] = {"changes": ["first version"], "difference": None}
        if live is not None:
            before = publishing.snapshot_of(live)
            shown = {
                "changes": publishing.changes_between(before, snapshot),
                "difference": diff_documents(
                    dump_document(before.document), dump_document(snapshot.document)
                ),
            }
        runs = checked_runs(row.pk, snapshot.document)
        return super().get_context_data(
            live=live,
            is_unchanged=live is not None and publishing.is_held_by(live, snapshot),
            problems=list(linked(row, report.problems)),
            warnings=list(linked(row, report.warnings)),
            runs=[_shown(one) for one in runs],
            failing=sum(not one.passes for one in runs),
            may_publish=self.request.user.has_perm(PUBLISH),
            may_edit=self.request.user.has_perm(EDIT),
            golden_url=self.model_admin.page_url("golden", row.pk),
            max_note=publishing.MAX_NOTE,
            **shown,
            **kwargs,
        )

    def post(self, request: HttpRequest, **_kwargs: Any) -> HttpResponse:
        """Publish what was shown; a refusal shows the page as it is now, with the note kept."""
        require(request, PUBLISH)
        row: Workflow = self.object
        try:
            done = publishing.publish_draft(
                row.pk,
                by=request.user.get_username(),
                note=request.POST.get("note", "").replace("\r\n", "\n").strip(),
                revision=number(request, "seen_revision"),
                newest=number(request, "seen_version"),
                accepts_failing="accepts_failing" in request.POST,
            )
        except WorkflowError as error:
            context = self.get_context_data(
                refusal=_refusal(error), note=request.POST.get("note", "")
            )
            return self.render_to_response(context)
        said, level = published_words(done)
        if done.is_new:
            self.model_admin.log_change(request, row, said)
        messages.add_message(request, level, said)
        return HttpResponseRedirect(self.model_admin.page_url("publish", row.pk))


class GoldenRunForm(forms.Form):
    """A golden run as it is typed; `seen` is the state of the one that it changes."""

    seen = forms.CharField(required=False, widget=forms.HiddenInput)
    name = forms.CharField(max_length=200, widget=forms.TextInput(attrs={"class": "hr-input"}))
    context = forms.CharField(
        label="Context (JSON)",
        strip=False,
        widget=forms.Textarea(
            attrs={"rows": 16, "class": "hr-input hr-code", "spellcheck": "false"}
        ),
    )
    expected = forms.CharField(
        label="Expected payload (JSON)",
        required=False,
        strip=False,
        help_text="Empty takes what the draft gives now.",
        widget=forms.Textarea(
            attrs={"rows": 12, "class": "hr-input hr-code", "spellcheck": "false"}
        ),
    )

    def clean_context(self) -> JsonValue:
        return _read(self.cleaned_data["context"])

    def clean_expected(self) -> JsonValue:
        text = self.cleaned_data["expected"]
        return _read(text) if text.strip() else None

    def take(self, problems: Sequence[Problem]) -> None:
        """Show the problems at their fields."""
        for problem in problems:
            field = problem.path if problem.path in self.fields else None
            self.add_error(field, problem.message)


class GoldenRunPage(ObjectPage):
    """Adds a golden run, or with `?run=` changes one; POSTs of other pages delete one or take its result."""

    title = "Golden runs"
    icon = "verified"
    permission = EDIT
    template_name = "workflows/publish_golden.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        run = self._run(self.request.GET.get("run", ""))
        if "form" not in kwargs:
            kwargs["form"] = GoldenRunForm(initial=self._initial(run))
        prefetch_related_objects([self.object], "steps")
        runs = checked_runs(self.object.pk, self.object.document())
        return super().get_context_data(
            run=run,
            runs=[_shown(one) for one in runs],
            may_edit=True,
            publish_url=self.model_admin.page_url("publish", self.object.pk),
            golden_url=self.model_admin.page_url("golden", self.object.pk),
            **kwargs,
        )

    def post(self, request: HttpRequest, **_kwargs: Any) -> HttpResponse:
        """Save, delete, or expect what the draft gives."""
        run = self._run(request.POST.get("run", ""))
        act = request.POST.get("act")
        if act == "save":
            return self._save(request, run)
        if act not in ("take", "delete") or run is None:
            raise Http404
        try:
            if act == "take":
                revision = number(request, "seen_revision")
                by = request.user.get_username()
                golden.take_result(self.object.pk, run.pk, by=by, revision=revision)
                return self._done(
                    request, f"The golden run {run.name} expects the present payload."
                )
            golden.delete_golden_run(self.object.pk, run.pk)
        except WorkflowError as error:
            return self._done(request, error.message, messages.ERROR)
        return self._done(request, f"Deleted the golden run {run.name}.")

    def _save(self, request: HttpRequest, run: GoldenRun | None) -> HttpResponse:
        form = GoldenRunForm(request.POST)
        if form.is_valid():
            try:
                saved = golden.save_golden_run(
                    self.object.pk,
                    **form.cleaned_data,
                    by=request.user.get_username(),
                    run_id=run.pk if run else None,
                )
            except DefinitionError as error:
                form.take(error.problems)
            except WorkflowError as error:
                form.add_error(None, error.message)
            else:
                return self._done(request, f"Saved the golden run {saved.name}.")
        return self.render_to_response(self.get_context_data(form=form))

    def _done(self, request: HttpRequest, said: str, level: int = messages.SUCCESS) -> HttpResponse:
        if level == messages.SUCCESS:
            self.model_admin.log_change(request, self.object, said)
        messages.add_message(request, level, said)
        url = self.model_admin.page_url("publish", self.object.pk)
        return HttpResponseRedirect(f"{url}#golden-runs")

    def _initial(self, run: GoldenRun | None) -> dict[str, str]:
        if run is not None:
            return {
                "seen": golden.state_of(run),
                "name": run.name,
                "context": write_json(run.context),
                "expected": write_json(run.expected),
            }
        if "sample" in self.request.GET:
            sample = sample_context(self.object.document(), until=None)
            return {"name": "Sample", "context": write_json(sample)}
        return {}

    def _run(self, text: str) -> GoldenRun | None:
        if not text:
            return None
        try:
            return golden.find_golden_run(self.object.pk, UUID(text))
        except (ValueError, DefinitionNotFound):
            raise Http404 from None


def linked(row: Workflow, problems: Sequence[Problem]) -> Iterator[LinkedProblem]:
    """The problems, each with the link to its field. The steps' rows should be prefetched."""
    steps = row.steps_in_order()
    ids = [step.pk for step in steps]
    labels = {step.pk: step.label for step in steps}
    for problem in problems:
        link = link_of(problem.path, workflow_id=row.pk, step_ids=ids)
        yield LinkedProblem(problem, link, labels.get(link.object_id, ""))


def published_words(done: publishing.Publication) -> tuple[str, int]:
    """What came of publishing, for the person, and how loud to say it."""
    if done.is_new:
        return f"Published as version {done.version.number}.", messages.SUCCESS
    said = f"Nothing to publish: version {done.version.number}, which is live, is the same."
    return said, messages.WARNING


def number(request: HttpRequest, name: str) -> int:
    """What the form says was seen; -1, which is never so, where it says nothing."""
    text = request.POST.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1


def _shown(checked: CheckedRun) -> ShownRun:
    if checked.passes or not checked.result.has_payload:
        return ShownRun(checked, None)
    return ShownRun(checked, diff_documents(checked.run.expected, checked.result.payload))


def _refusal(error: WorkflowError) -> str:
    if isinstance(error, GoldenRunsFail):
        return "A golden run fails. Tick that you accept it, or mend the draft."
    if isinstance(error, DraftNotPublishable) and all(
        problem.path != "note" for problem in error.problems
    ):
        return "The draft has problems: nothing was published."
    return error.message


def _read(text: str) -> JsonValue:
    try:
        return read_json(text.encode(errors="surrogatepass"))
    except DefinitionError as error:
        raise forms.ValidationError(error.message) from error
