"""Trying a draft's request from the back office: see it, send it to the sandbox, or to the partner itself.

Nothing goes to the real partner but after a confirmation that names the connection and its host, by
who may test connections. What is entered and what comes back is shown, and kept nowhere.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpRequest, HttpResponse

from config.back_office import ObjectPage
from config.ids import new_id
from config.jsonvalues import JsonObject, JsonValue
from executions.errors import InputInvalid
from executions.surroundings import get_surroundings
from executions.trials import TrialRepeated, send
from executions.trying import SANDBOX, PlannedTrial, Trial, TrialSubject, plan_trial, timings_to_try
from workflows.connections import connection_by_name
from workflows.document_text import read_json, write_json
from workflows.enums import TriggerTiming
from workflows.errors import DefinitionError, WorkflowError
from workflows.models import Workflow, WorkflowStep
from workflows.paths import join_names, sample_call, sample_context

MAX_PICKED: Final = 200
MAX_SHOWN: Final = 100_000

_REAL_PERMISSION: Final = "workflows.test_connection"
_UNCONFIRMED: Final = "Not sent: confirm the connection and the host that are to be called."
_MAX_SHORT: Final = 80


@dataclass(frozen=True, slots=True)
class Picked:
    """A value of the answer and the paths to it: in a mapping, and in `proceedWhen`."""

    value: str
    in_mapping: str
    in_condition: str


@dataclass(frozen=True, slots=True)
class Entered:
    """The form: texts as they were entered, and what is wrong with them."""

    context: str
    value: str
    timing: str
    context_error: str = ""
    value_error: str = ""


class _TrialPage(ABC, ObjectPage):
    title = "Try it"
    icon = "science"
    template_name = "executions/trial.html"

    @abstractmethod
    def subject(self, timing: str) -> TrialSubject:
        """What is tried, at the timing that was chosen, if there is a choice."""

    @abstractmethod
    def workflow_id(self) -> UUID:
        """Whose trial it is."""

    def step_id(self) -> UUID | None:
        """Whose trial it is, when it is a step's."""
        return None

    @abstractmethod
    def sample(self, subject: TrialSubject) -> Entered:
        """A plausible context and input."""

    def get(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> HttpResponse:  # noqa: ARG002 - Django's signature
        subject = self.subject("")
        return self._shown(subject, self.sample(subject))

    def post(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> HttpResponse:
        """Show the request, or send it: to the sandbox, or to the partner after a confirmation."""
        subject = self.subject(request.POST.get("timing", ""))
        entered, context, value = _read_form(request, subject)
        if entered.context_error or entered.value_error:
            return self._shown(subject, entered, status=400)
        do = request.POST.get("do", "show")
        world = get_surroundings()
        connection = SANDBOX if do in ("sandbox", "show-sandbox") else None
        if do == "real" and not self._may_call_partners():
            raise PermissionDenied
        try:
            plan = plan_trial(
                subject, context=context, value=value, connection=connection, world=world
            )
        except WorkflowError as error:
            return self._shown(subject, entered, refusal=_told(error), status=409)
        if do == "real" and request.POST.get("confirmed") != confirmation(plan):
            return self._shown(subject, entered, plan=plan, refusal=[_UNCONFIRMED], status=409)
        if do not in ("real", "sandbox"):
            return self._shown(subject, entered, plan=plan)
        try:
            trial = send(
                plan,
                trial_id=_trial_id(request),
                workflow_id=self.workflow_id(),
                step_id=self.step_id(),
                by=request.user.get_username(),
                world=world,
            )
        except TrialRepeated as error:
            return self._shown(subject, entered, plan=plan, refusal=[error.message], status=409)
        return self._shown(subject, entered, plan=plan, trial=trial)

    def _may_call_partners(self) -> bool:
        return self.request.user.has_perm(_REAL_PERMISSION)

    def _shown(
        self,
        subject: TrialSubject,
        entered: Entered,
        *,
        plan: PlannedTrial | None = None,
        trial: Trial | None = None,
        refusal: list[str] | None = None,
        status: int = 200,
    ) -> HttpResponse:
        answer = None if trial is None else trial.answer
        return self.render_to_response(
            self.get_context_data(
                subject=subject,
                entered=entered,
                trial_id=new_id(),
                timings=_timings(subject),
                plan=plan,
                trial=trial,
                refusal=refusal or [],
                sandbox=_sandbox_origin(),
                confirmation=None if plan is None else confirmation(plan),
                is_real=plan is not None and plan.connection != SANDBOX,
                may_call_partners=self._may_call_partners(),
                picked=[] if trial is None else [*picked_paths(answer, trial.result_key)],
                is_large=len(json.dumps(answer)) > MAX_SHOWN,
            ),
            status=status,
        )


class StepTrialPage(_TrialPage):
    """A step's trigger."""

    permission = "workflows.change_workflowstep"
    object: WorkflowStep

    @classmethod
    def is_offered(cls, row: WorkflowStep) -> bool:
        return bool(timings_to_try(row.document()))

    def subject(self, timing: str) -> TrialSubject:
        index = self.object.workflow.steps_in_order().index(self.object)
        timings = timings_to_try(self.object.document())
        chosen = next((one for one in timings if one.value == timing), None)
        return TrialSubject(
            document=self.object.workflow.document(),
            index=index,
            step_id=str(self.object.pk),
            timing=chosen or (timings[0] if timings else None),
        )

    def workflow_id(self) -> UUID:
        return self.object.workflow_id

    def step_id(self) -> UUID:
        return self.object.pk

    def sample(self, subject: TrialSubject) -> Entered:
        index = subject.index or 0
        value = sample_call(subject.document, step=index).get("input")
        return Entered(
            context=write_json(sample_context(subject.document, until=index)),
            value=write_json(value),
            timing=_name(subject.timing),
        )


class FinalTrialPage(_TrialPage):
    """A workflow's final request."""

    permission = "workflows.change_workflow"
    object: Workflow

    @classmethod
    def is_offered(cls, row: Workflow) -> bool:
        return "finalApi" in (row.config or {})

    def subject(self, timing: str) -> TrialSubject:  # noqa: ARG002 - there is no choice
        return TrialSubject(document=self.object.document(), index=None)

    def workflow_id(self) -> UUID:
        return self.object.pk

    def sample(self, subject: TrialSubject) -> Entered:
        context = sample_context(subject.document, until=None)
        return Entered(context=write_json(context), value="null", timing="")


def confirmation(plan: PlannedTrial) -> str:
    """What somebody confirms: the connection, and where it leads."""
    return f"{plan.connection} at {plan.origin}"


def picked_paths(answer: JsonValue, result_key: str) -> Iterator[Picked]:
    """The values in an answer with the paths that lead to them, at most MAX_PICKED."""
    left = MAX_PICKED
    pending: list[tuple[tuple[str | int, ...], JsonValue]] = [((), answer)]
    while pending and left:
        names, value = pending.pop(0)
        if isinstance(value, dict):
            pending[:0] = [((*names, name), member) for name, member in value.items()]
        elif isinstance(value, list):
            pending[:0] = [((*names, index), item) for index, item in enumerate(value[:left])]
        elif names or value is not None:
            left -= 1
            text = json.dumps(value, ensure_ascii=False)
            yield Picked(
                value=text if len(text) <= _MAX_SHORT else text[:_MAX_SHORT] + "…",
                in_mapping=join_names((result_key, *names)) if result_key else "",
                in_condition=join_names(("result", *names)) if result_key else "",
            )


def _trial_id(request: HttpRequest) -> UUID:
    """The id that the form was given for its trial: sent again, it names one that is there."""
    try:
        return UUID(request.POST.get("trial", ""))
    except ValueError:
        raise SuspiciousOperation("the trial has no id") from None


def _read_form(
    request: HttpRequest, subject: TrialSubject
) -> tuple[Entered, JsonObject, JsonValue]:
    context_text, value_text = request.POST.get("context", ""), request.POST.get("input", "")
    context, context_error = _read(context_text)
    value, value_error = _read(value_text) if value_text.strip() else (None, "")
    if not context_error and not isinstance(context, dict):
        context_error = "The context must be an object: names and their values."
    entered = Entered(context_text, value_text, _name(subject.timing), context_error, value_error)
    return entered, context if isinstance(context, dict) else {}, value


def _read(text: str) -> tuple[JsonValue, str]:
    try:
        return read_json(text.encode(errors="surrogatepass")), ""
    except DefinitionError as error:
        return None, error.message


def _told(error: WorkflowError) -> list[str]:
    """Why nothing can be sent, in sentences."""
    if isinstance(error, InputInvalid):
        return [error.message, *(f"{one.path or '/'}: {one.message}" for one in error.field_errors)]
    if isinstance(error, DefinitionError) and error.problems:
        return [str(problem) for problem in error.problems]
    return [error.message]


def _timings(subject: TrialSubject) -> tuple[TriggerTiming, ...]:
    return () if subject.index is None else timings_to_try(subject.document.steps[subject.index])


def _name(timing: TriggerTiming | None) -> str:
    return "" if timing is None else timing.value


def _sandbox_origin() -> str:
    """Where the sandbox is, "" without one."""
    try:
        return connection_by_name(SANDBOX).base_url
    except WorkflowError:
        return ""
