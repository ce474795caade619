"""One action on many executions: first what it would reach, then a reason, then what came of each.

The work is done a few seconds at a time, so that no request lasts long: the page that tells what
came of the first ones sends itself for the next, and has a button for browsers without scripts.
What was done is read from the record; only what was refused travels with the page, signed.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone

from config.back_office import SitePage, require
from config.ids import new_id
from executions.enums import OperatorActionKind
from executions.executor import MAX_REASON_LENGTH, staff_reason
from executions.listing_pages import BULK_KINDS, LIST
from executions.models import OperatorAction
from executions.operating import (
    MAX_BULK,
    PERMISSIONS,
    TITLES,
    action_on,
    perform,
    plan_many,
)
from executions.operator_actions import ActionRepeated, item_of
from executions.surroundings import get_surroundings
from workflows.errors import WorkflowError

REFUSED: Final = "REFUSED"
CHUNK_SECONDS: Final = 5.0
"""After so long no further execution is begun in a request; one that was begun may last longer."""

_SALT: Final = "executions.bulk"


@dataclass(frozen=True, slots=True)
class ItemLine:
    """What came of one; `outcome` is "" while it has not begun."""

    id: str
    url: str
    outcome: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class BulkForm:
    """What is asked for. `once` names the form; without it nothing is done yet."""

    kind: OperatorActionKind
    ids: tuple[UUID, ...]
    once: UUID | None
    reason: str
    told: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, request: HttpRequest) -> "BulkForm":
        """From what was posted. Raises Http404 for what our pages do not send."""
        try:
            kind = OperatorActionKind(request.POST.get("action", ""))
            ids = tuple(dict.fromkeys(map(UUID, request.POST.getlist("ids"))))
            once = UUID(request.POST["once"]) if "once" in request.POST else None
            sealed = request.POST.get("told", "")
            told = signing.loads(sealed, salt=_SALT) if sealed else {}
        except (ValueError, signing.BadSignature):
            raise Http404 from None
        if kind not in BULK_KINDS:
            raise Http404
        kept = {each: (outcome, error) for each, (outcome, error) in told.items()}
        return cls(kind, ids, once, request.POST.get("reason", ""), kept)

    def with_told(self, execution_id: UUID, outcome: str, error: str) -> "BulkForm":
        """The same, knowing what came of one more."""
        return replace(self, told=self.told | {str(execution_id): (outcome, error)})

    @property
    def sealed(self) -> str:
        """What came of the first ones, for the next request."""
        return signing.dumps(self.told, salt=_SALT)

    @property
    def left(self) -> tuple[UUID, ...]:
        """Those not begun."""
        return tuple(each for each in self.ids if str(each) not in self.told)


class BulkPage(SitePage):
    """The blast radius, and then the progress."""

    permission = "executions.view_workflowexecution"
    template_name = "executions/bulk.html"

    def get(self, *_args: Any, **_kwargs: Any) -> HttpResponse:
        """Nothing is chosen: the list is where to choose."""
        return redirect(LIST)

    def post(self, request: HttpRequest, **_kwargs: Any) -> HttpResponse:
        """Show what would be reached; with a reason and the form's id, do some of it."""
        form = BulkForm.of(request)
        require(request, PERMISSIONS[form.kind])
        if not form.ids:
            return self._answer(form, 400, problem="Select at least one execution.")
        if len(form.ids) > MAX_BULK:
            problem = f"At most {MAX_BULK} at once here. For more use the command:"
            return self._answer(form, 400, problem=problem, command=_command(form))
        if form.once is None:
            return self._radius(form)
        try:
            reason = staff_reason(form.reason)
        except WorkflowError as error:
            return self._radius(form, error=error.message)
        form = _worked_off(form, form.once, reason, by=request.user.get_username())
        return self._answer(form, 200, lines=_lines(form), is_over=not form.left)

    def _radius(self, form: BulkForm, *, error: str = "") -> HttpResponse:
        radius = plan_many(form.kind, form.ids, world=get_surroundings())
        once = form.once or new_id()
        return self._answer(
            replace(form, once=once),
            400 if error else 200,
            radius=radius,
            refused=[
                ItemLine(str(item.execution_id), _url(item.execution_id), REFUSED, item.refusal)
                for item in radius.refused
            ],
            error=error,
            max_reason=MAX_REASON_LENGTH,
        )

    def _answer(self, form: BulkForm, status: int, **context: Any) -> HttpResponse:
        shown = self.get_context_data(form=form, list_url=reverse(LIST), **context)
        shown["title"] = f"{TITLES[form.kind]}: {len(form.ids)} selected"
        return self.render_to_response(shown, status=status)


def _worked_off(form: BulkForm, once: UUID, reason: str, *, by: str) -> BulkForm:
    """The next of them, one at least, until the time of a request is over."""
    until = time.monotonic() + CHUNK_SECONDS
    for execution_id in form.left:
        outcome, error = _done(form, execution_id, once, reason, by=by)
        form = form.with_told(execution_id, outcome, error)
        if time.monotonic() > until:
            break
    return form


def _done(
    form: BulkForm, execution_id: UUID, once: UUID, reason: str, *, by: str
) -> tuple[str, str]:
    action_id = item_of(once, execution_id)
    try:
        action = action_on(form.kind, execution_id)
        done = perform(
            execution_id,
            action,
            by=by,
            reason=reason,
            action_id=action_id,
            now=timezone.now(),
        )
    except WorkflowError as error:
        # A form that was sent twice finds the execution changed, or its action recorded.
        recorded = OperatorAction.objects.filter(pk=action_id).first()
        if recorded is not None:
            return recorded.outcome, ActionRepeated().message
        return REFUSED, error.message
    return done.outcome.value, done.error


def _lines(form: BulkForm) -> list[ItemLine]:
    outcomes = {str(each): form.told.get(str(each), ("", "")) for each in form.ids}
    return [ItemLine(each, _url(UUID(each)), *told) for each, told in outcomes.items()]


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
