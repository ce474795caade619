"""One action on many executions: first what it would reach, then a reason, then what came of each.

The work is done a few seconds at a time, so that no request lasts long: the page that tells what
came of the first ones sends itself for the next, and has a button for browsers without scripts.
Each is planned again before it is done: what has changed since it was shown is refused. What was
done is read from the record at every look; why something was not travels with the page, signed.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone

from config.back_office import SitePage, require
from executions.enums import OperatorActionKind, OperatorOutcome
from executions.executor import MAX_REASON_LENGTH, staff_reason
from executions.listing_pages import BULK_KINDS, LIST
from executions.models import OperatorAction, StepRun
from executions.operating import (
    MAX_BULK,
    PERMISSIONS,
    TITLES,
    PlannedItem,
    StaffAction,
    perform_as_shown,
    plan_many,
)
from executions.operator_actions import (
    ActionRepeated,
    item_of,
    new_form_id,
    read_form_id,
)
from executions.replaying import outcome_of
from executions.surroundings import get_surroundings
from workflows.errors import WorkflowError

REFUSED: Final = "REFUSED"
CHUNK_SECONDS: Final = 5.0
"""After so long nothing further is begun in a request; what was begun may last longer."""

_SALT: Final = "executions.bulk"
_OPEN: Final = (OperatorOutcome.STARTED, OperatorOutcome.QUEUED)

Told = Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ItemLine:
    """What came of one; `outcome` is "" while it has not begun."""

    id: str
    url: str
    step: str = ""
    outcome: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class BulkItem:
    """One action of the form: on which execution and step (its order), and the plan that was shown.

    `label` is the step's, to be shown.
    """

    execution_id: UUID
    step: str
    seen: str
    label: str

    @classmethod
    def of(cls, planned: PlannedItem) -> "BulkItem":
        """As it was planned."""
        step = planned.action.step
        return cls(planned.execution_id, step, planned.fingerprint, planned.step)

    @classmethod
    def read(cls, text: str) -> "BulkItem":
        """From what a form carries. Raises ValueError."""
        execution_id, step, seen, label = text.split(":", 3)
        if step and not (step.isascii() and step.isdecimal()):
            raise ValueError(text)
        return cls(UUID(execution_id), step, seen, label)

    @property
    def sent(self) -> str:
        """For the form."""
        return f"{self.name}:{self.seen}:{self.label}"

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return f"{self.execution_id}:{self.step}"


@dataclass(frozen=True, slots=True)
class BulkForm:
    """What is asked for. `once` names the form; without `items` nothing is done yet."""

    kind: OperatorActionKind
    ids: tuple[UUID, ...]
    items: tuple[BulkItem, ...]
    once: str
    reason: str
    told: Told

    @classmethod
    def of(cls, request: HttpRequest) -> "BulkForm":
        """From what was posted. Raises Http404 for what our pages do not send."""
        posted = request.POST
        try:
            kind = OperatorActionKind(posted.get("action", ""))
            items = {one.name: one for one in map(BulkItem.read, posted.getlist("item"))}
            ids = [*map(UUID, posted.getlist("ids")), *(one.execution_id for one in items.values())]
            once = posted.get("once", "")
            told = _unsealed(posted.get("told", ""), once)
        except (ValueError, signing.BadSignature):
            raise Http404 from None
        if kind not in BULK_KINDS:
            raise Http404
        reason = posted.get("reason", "")
        return cls(kind, tuple(dict.fromkeys(ids)), tuple(items.values()), once, reason, told)

    def with_told(self, item: BulkItem, outcome: str, error: str) -> "BulkForm":
        """The same, knowing what came of one more."""
        return replace(self, told={**self.told, item.name: (outcome, error)})

    @property
    def sealed(self) -> str:
        """What came of the first ones, for the next request."""
        return signing.dumps([self.once, self.told], salt=_SALT)

    @property
    def left(self) -> tuple[BulkItem, ...]:
        """Those not begun."""
        return tuple(item for item in self.items if item.name not in self.told)


def _unsealed(sealed: str, once: str) -> Told:
    if not sealed:
        return {}
    form, told = signing.loads(sealed, salt=_SALT)
    if form != once:
        raise signing.BadSignature
    return {name: (outcome, error) for name, (outcome, error) in told.items()}


class BulkPage(SitePage):
    """The blast radius, and then the progress."""

    permission = "executions.view_workflowexecution"
    template_name = "executions/bulk.html"

    def get(self, *_args: Any, **_kwargs: Any) -> HttpResponse:
        """Nothing is chosen: the list is where to choose."""
        return redirect(LIST)

    def post(self, request: HttpRequest, **_kwargs: Any) -> HttpResponse:
        """Show what would be reached; with what was shown, a reason and the form's id, do some of it."""
        form = BulkForm.of(request)
        require(request, PERMISSIONS[form.kind])
        if not form.ids:
            return self._answer(form, 400, problem="Select at least one execution.")
        if len(form.ids) > MAX_BULK:
            problem = f"At most {MAX_BULK} at once here. For more use the command:"
            return self._answer(form, 400, problem=problem, command=_command(form))
        if not form.items:
            return self._radius(form)
        by = request.user.get_username()
        try:
            reason = staff_reason(form.reason)
            form_id = read_form_id(form.once, by=by)
        except WorkflowError as error:
            return self._radius(form, error=error.message)
        form = _worked_off(form, form_id, reason, by=by)
        lines = _lines(form, form_id)
        return self._answer(
            form,
            200,
            lines=lines,
            is_over=not form.left,
            is_open=any(line.outcome in _OPEN for line in lines),
        )

    def _radius(self, form: BulkForm, *, error: str = "") -> HttpResponse:
        radius = plan_many(form.kind, form.ids, world=get_surroundings())
        once = new_form_id(by=self.request.user.get_username())
        return self._answer(
            replace(form, once=once, items=tuple(map(BulkItem.of, radius.possible))),
            400 if error else 200,
            radius=radius,
            planned=[(item, _url(item.execution_id)) for item in radius.possible],
            refused=[
                ItemLine(
                    str(item.execution_id),
                    _url(item.execution_id),
                    item.step,
                    REFUSED,
                    item.refusal,
                )
                for item in radius.refused
            ],
            error=error,
            max_reason=MAX_REASON_LENGTH,
        )

    def _answer(self, form: BulkForm, status: int, **context: Any) -> HttpResponse:
        shown = self.get_context_data(form=form, list_url=reverse(LIST), **context)
        shown["title"] = f"{TITLES[form.kind]}: {len(form.ids)} selected"
        return self.render_to_response(shown, status=status)


def _worked_off(form: BulkForm, form_id: UUID, reason: str, *, by: str) -> BulkForm:
    """The next of them, one at least, until the time of a request is over."""
    until = time.monotonic() + CHUNK_SECONDS
    for item in form.left:
        outcome, error = _done(form, item, form_id, reason, by=by)
        form = form.with_told(item, outcome, error)
        if time.monotonic() > until:
            break
    return form


def _done(
    form: BulkForm, item: BulkItem, form_id: UUID, reason: str, *, by: str
) -> tuple[str, str]:
    action_id = item_of(form_id, item.execution_id, item.step)
    # A form that was sent twice finds its action recorded, and then the execution changed.
    if recorded := OperatorAction.objects.filter(pk=action_id).first():
        return recorded.outcome, ActionRepeated().message
    try:
        done = perform_as_shown(
            item.execution_id,
            StaffAction(form.kind, item.step),
            seen=item.seen,
            by=by,
            reason=reason,
            action_id=action_id,
            now=timezone.now(),
        )
    except WorkflowError as error:
        if recorded := OperatorAction.objects.filter(pk=action_id).first():
            return recorded.outcome, ActionRepeated().message
        return REFUSED, error.message
    return done.outcome.value, done.error


def _lines(form: BulkForm, form_id: UUID) -> list[ItemLine]:
    """Every item, with its outcome as the record tells it now. Two queries at most."""
    begun = [item for item in form.items if item.name in form.told]
    action_ids = {item.name: item_of(form_id, item.execution_id, item.step) for item in begun}
    outcomes = _outcomes(action_ids.values())
    lines = []
    for item in form.items:
        told, error = form.told.get(item.name, ("", ""))
        action_id = action_ids.get(item.name)
        outcome = told if action_id is None else outcomes.get(action_id, told)
        execution_id = item.execution_id
        lines.append(ItemLine(str(execution_id), _url(execution_id), item.label, outcome, error))
    return lines


def _outcomes(action_ids: Iterable[UUID]) -> dict[UUID, str]:
    """What came of the recorded ones; of what was left to a worker by its run, once that has ended."""
    actions = OperatorAction.objects.in_bulk(list(action_ids))
    queued = [
        one.run_id
        for one in actions.values()
        if one.outcome == OperatorOutcome.QUEUED and one.run_id
    ]
    runs = StepRun.objects.in_bulk(queued) if queued else {}
    return {
        action_id: outcome_of(runs[one.run_id]).value if one.run_id in runs else one.outcome
        for action_id, one in actions.items()
    }


def _url(execution_id: UUID) -> str:
    return reverse("admin:executions_workflowexecution_change", args=[execution_id])


def _command(form: BulkForm) -> str:
    """The command that does the same; "" where there is none."""
    words: dict[OperatorActionKind, Sequence[str]] = {
        OperatorActionKind.REPLAY_SUBMISSION: (),
        OperatorActionKind.REPLAY_COMPENSATION: ("--compensation",),
        OperatorActionKind.REPLAY_STEP: ("--from-step STEP",),
    }
    if form.kind not in words:
        return ""
    ids = " ".join(map(str, form.ids))
    options = " ".join([*words[form.kind], '--reason "…" --yes'])
    return f"python manage.py replay_execution {ids} {options}"
