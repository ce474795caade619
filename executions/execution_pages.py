"""The pages of one execution: its story, its data with the reveal, and the form of an action."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils import timezone

from config.back_office import ObjectPage, require
from config.display import in_words
from config.jsonvalues import JsonValue
from executions.definitions import VersionFacts, facts_of
from executions.enums import OperatorActionKind, OperatorOutcome
from executions.errors import SessionUnavailable
from executions.executor import MAX_REASON_LENGTH
from executions.models import OperatorAction, WorkflowExecution
from executions.operating import (
    PERMISSIONS,
    TITLES,
    Done,
    Offer,
    Plan,
    StaffAction,
    offers_for,
    perform,
    plan_of,
)
from executions.operator_actions import (
    MAX_ABOUT,
    ActionRepeated,
    FormRefused,
    new_form_id,
    read_form_id,
)
from executions.reading import RunsOfMany
from executions.revealing import CONTEXT, KeptRequest, Masked, kept_requests, masked_context, reveal
from executions.surroundings import get_surroundings
from executions.timeline import TimelineEntry, TimelineKind, read_timeline
from workflows.errors import WorkflowError

_TONES: Final[Mapping[str, str]] = {
    "SUCCEEDED": "good",
    "COMPLETED": "good",
    "FAILED": "bad",
    "PARKED": "bad",
    "UNKNOWN": "doubt",
    "REJECTED": "doubt",
}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of the timeline: whom it called, and what its run keeps to be sent again."""

    told: TimelineEntry
    heading: str
    tone: str
    partner: str
    kept: KeptRequest | None


@dataclass(frozen=True, slots=True)
class _OfferLine:
    """One action: the address of its form, "" when it is not possible or not this person's."""

    label: str
    url: str
    reason: str


class ExecutionPage(ObjectPage):
    """What happened, in its order, and what can be done now. Nobody changes it here."""

    title = "Execution"
    icon = "directions_run"
    template_name = "executions/execution.html"
    object: WorkflowExecution

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        row = self.object
        runs = RunsOfMany([row.pk]).of(row.pk)
        facts = facts_of([row.version_id])[row.version_id]
        kept = kept_requests(row, runs)
        place = "" if row.completed_at and row.error_code == "" else facts.step(row.position).label
        ended = row.completed_at or timezone.now()  # by a clock that may be behind the database's
        return super().get_context_data(
            facts=facts,
            place=place,
            lasted_ms=max(0.0, (ended - row.started_at).total_seconds() * 1000),
            is_at_work=row.lease_holder is not None,
            needs_attention=any(run.needs_attention for run in runs),
            entries=[_entry(told, kept, facts) for told in read_timeline(row, runs=runs)],
            offers=[
                self._offer(offer) for offer in offers_for(row, runs, world=get_surroundings())
            ],
            **kwargs,
        )

    def post(self, *_args: Any, **_kwargs: Any) -> HttpResponse:
        """Records change by actions, each of which has its own form."""
        raise PermissionDenied

    def _offer(self, offer: Offer) -> _OfferLine:
        if offer.refusal:
            return _OfferLine(offer.label, "", offer.refusal)
        if not self.request.user.has_perm(offer.action.permission):
            return _OfferLine(offer.label, "", "You have no permission for it.")
        query = urlencode({"do": offer.action.kind.value, "step": offer.action.step})
        return _OfferLine(
            offer.label, f"{self.model_admin.page_url('act', self.object.pk)}?{query}", ""
        )


def _entry(told: TimelineEntry, kept: Mapping[UUID, KeptRequest], facts: VersionFacts) -> _Entry:
    is_staff = told.kind is TimelineKind.OPERATOR_ACTION
    run = told.run
    partner = "" if run is None or run.trigger_key is None else run.connection
    if run is not None and run.trigger_key is not None and not partner:
        partner = facts.step(-1 if run.step_index is None else run.step_index).connection
    return _Entry(
        told,
        _HEADINGS.get(told.kind, "{}").format(told.label),
        "staff" if is_staff else _TONES.get(told.status, ""),
        partner,
        None if run is None else kept.get(run.id),
    )


_HEADINGS: Final = {
    TimelineKind.SUBMISSION: "Submission",
    TimelineKind.COMPENSATION: "Undoing: {}",
    TimelineKind.CALLBACK: "Callback: {}",
    TimelineKind.OPERATOR_ACTION: "Staff: {}",
}
"""How an entry is headed, of its label."""


# --- data -----------------------------------------------------------------------------------------


class RevealForm(forms.Form):
    """One masked value, and why somebody has to see it. A place "" is all of the data.

    A place is as long as the record can tell it whole.
    """

    source = forms.CharField(max_length=40)
    place = forms.CharField(max_length=MAX_ABOUT - 41, required=False, strip=False)
    reason = forms.CharField(
        max_length=MAX_REASON_LENGTH,
        widget=forms.TextInput({"class": "hr-input"}),
        error_messages={"required": "Say why: it is kept with your name."},
    )


@dataclass(frozen=True, slots=True)
class _Revealed:
    """What was revealed just now."""

    source: str
    place: str
    value: JsonValue


class ContextPage(ObjectPage):
    """What was entered and answered, sensitive values masked; each may be revealed, on record."""

    title = "Data"
    icon = "data_object"
    template_name = "executions/context.html"
    object: WorkflowExecution

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        row = self.object
        facts = facts_of([row.version_id])[row.version_id]
        runs = RunsOfMany([row.pk]).of(row.pk)
        labels = {
            run.id: facts.step(-1 if run.step_index is None else run.step_index) for run in runs
        }
        kept = [
            (labels[run_id].label, str(run_id), request)
            for run_id, request in kept_requests(row, runs).items()
        ]
        context, problem = _context_of(row)
        may_reveal = self.request.user.has_perm(PERMISSIONS[OperatorActionKind.REVEAL_VALUE])
        shown = {
            "context": context,
            "source": CONTEXT,
            "problem": problem,
            "kept": kept,
            "may_reveal": may_reveal,
            "max_reason": MAX_REASON_LENGTH,
            **kwargs,
        }
        return super().get_context_data(**shown)

    def post(self, request: HttpRequest, **_kwargs: Any) -> HttpResponse:
        """Reveal one value: recorded first, shown on this answer only, kept in no address."""
        require(request, PERMISSIONS[OperatorActionKind.REVEAL_VALUE])
        form = RevealForm(request.POST)
        if not form.is_valid():
            error = " ".join(str(message) for found in form.errors.values() for message in found)
            return self._answer(400, error=error)
        source, place = form.cleaned_data["source"], form.cleaned_data["place"]
        try:
            value = reveal(
                self.object,
                source=source,
                place=place,
                by=request.user.get_username(),
                reason=form.cleaned_data["reason"],
                now=timezone.now(),
            )
        except WorkflowError as error:
            return self._answer(409, error=error.message)
        response = self._answer(200, revealed=_Revealed(source, place, value))
        response.headers["Cache-Control"] = "no-store"
        return response

    def _answer(self, status: int, **context: Any) -> HttpResponse:
        return self.render_to_response(self.get_context_data(**context), status=status)


def _context_of(row: WorkflowExecution) -> tuple[Masked | None, str]:
    try:
        return masked_context(row), ""
    except SessionUnavailable as error:
        return None, error.message


# --- one action -----------------------------------------------------------------------------------


class ActForm(forms.Form):
    """Why, and which form this is: one that is sent twice is done once."""

    reason = forms.CharField(
        label="Reason",
        max_length=MAX_REASON_LENGTH,
        widget=forms.Textarea({"class": "hr-input", "rows": 3, "maxlength": MAX_REASON_LENGTH}),
        error_messages={"required": "Say why: it is kept with your name."},
    )
    once = forms.CharField(widget=forms.HiddenInput, max_length=200)
    seen = forms.CharField(widget=forms.HiddenInput, max_length=64)


class ActPage(ObjectPage):
    """One action: what exactly would be sent, why, and one button."""

    template_name = "executions/act.html"
    object: WorkflowExecution
    action: StaffAction

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        self.action = _asked(request)
        require(request, self.action.permission)
        return super().dispatch(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        plan, refusal = self._plan()
        if "form" not in kwargs and plan is not None:
            kwargs["form"] = ActForm(
                initial={"once": new_form_id(by=self._by), "seen": plan.fingerprint},
                label_suffix="",
            )
        shown = super().get_context_data(
            plan=plan, refusal=refusal, kind=self.action.kind.value, **kwargs
        )
        return {**shown, "title": TITLES[self.action.kind]}

    def post(self, request: HttpRequest, **_kwargs: Any) -> HttpResponse:
        """Do it, if it is still what was shown; then the story tells what came of it."""
        form = ActForm(request.POST, label_suffix="")
        if not form.is_valid():
            return self._answer(400, form=form)
        try:
            action_id = read_form_id(form.cleaned_data["once"], by=self._by)
        except FormRefused as error:
            return self._answer(409, error=error.message)
        if OperatorAction.objects.filter(pk=action_id).exists():
            return self._repeated()
        plan, _ = self._plan()
        if plan is None or plan.fingerprint != form.cleaned_data["seen"]:
            return self._answer(409, changed=plan is not None)
        return self._performed(request, form, action_id)

    def _performed(self, request: HttpRequest, form: ActForm, action_id: UUID) -> HttpResponse:
        try:
            done = perform(
                self.object.pk,
                self.action,
                by=self._by,
                reason=form.cleaned_data["reason"],
                action_id=action_id,
                now=timezone.now(),
            )
        except ActionRepeated:
            return self._repeated()
        except WorkflowError as error:
            return self._answer(409, error=error.message)
        level, text = told(done)
        messages.add_message(request, level, f"{TITLES[self.action.kind]}: {text}")
        return redirect(self.model_admin.page_url("change", self.object.pk))

    @property
    def _by(self) -> str:
        return self.request.user.get_username()

    def _plan(self) -> tuple[Plan | None, str]:
        try:
            return plan_of(self.object.pk, self.action, world=get_surroundings()), ""
        except WorkflowError as error:
            return None, error.message

    def _repeated(self) -> HttpResponse:
        messages.warning(self.request, ActionRepeated().message)
        return redirect(self.model_admin.page_url("change", self.object.pk))

    def _answer(self, status: int, **context: Any) -> HttpResponse:
        return self.render_to_response(self.get_context_data(**context), status=status)


def _asked(request: HttpRequest) -> StaffAction:
    try:
        kind = OperatorActionKind(request.GET.get("do", ""))
    except ValueError:
        raise Http404 from None
    if kind is OperatorActionKind.REVEAL_VALUE:
        raise Http404
    return StaffAction(kind, request.GET.get("step", ""))


_WORDS: Final = {
    OperatorOutcome.STARTED: (messages.WARNING, "begun, and not known to have ended"),
    OperatorOutcome.QUEUED: (messages.SUCCESS, "queued: a worker does it"),
    OperatorOutcome.SUCCEEDED: (messages.SUCCESS, "done"),
    OperatorOutcome.REJECTED: (messages.ERROR, "the partner said no"),
    OperatorOutcome.FAILED: (messages.ERROR, "nobody acted on it"),
    OperatorOutcome.UNKNOWN: (messages.WARNING, "nobody knows whether the partner acted"),
    OperatorOutcome.NOT_SENT: (messages.WARNING, "nothing was sent"),
    OperatorOutcome.SETTLED: (messages.SUCCESS, "settled; nothing was sent"),
}


def told(done: Done) -> tuple[int, str]:
    """The level and the words of an outcome."""
    level, words = _WORDS[done.outcome]
    status = f" It is now {in_words(done.status).lower()}." if done.status else ""
    error = f" ({done.error})" if done.error else ""
    return level, f"{words}{error}.{status}"
