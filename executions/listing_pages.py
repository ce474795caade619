"""The list of executions: filters, a page at a time without a count over the table, actions on many."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from config.back_office import SitePage
from executions.abandoned import recent_stops
from executions.enums import ErrorCode, OperatorActionKind, WorkflowExecutionStatus
from executions.operating import MAX_BULK, PERMISSIONS, TITLES
from executions.searching import (
    Count,
    ExecutionPage,
    ExecutionRow,
    ExecutionSearch,
    count_executions,
    find_executions,
    shown_executions,
)
from workflows.models import Workflow, WorkflowVersion

LIST: Final = "admin:executions_workflowexecution_changelist"
BULK_KINDS: Final = (
    OperatorActionKind.REPLAY_SUBMISSION,
    OperatorActionKind.REPLAY_STEP,
    OperatorActionKind.REPLAY_COMPENSATION,
    OperatorActionKind.CANCEL,
)

_HOURS: Final = {"abandoned-24": 24, "abandoned-168": 168}
_SHOW: Final = (
    ("", "All"),
    ("attention", "Needs attention"),
    ("abandoned-24", "Abandoned in the last 24 hours"),
    ("abandoned-168", "Abandoned in the last 7 days"),
)
_NOT_WITH_ABANDONED: Final = ("q", "status", "code", "since", "until", "version")
_SHOWN_WORKFLOWS: Final = 500
_DAYS: Final = (
    MinValueValidator(date(1971, 1, 1), "Days before 1971 have no executions."),
    MaxValueValidator(date(9998, 12, 31), "Days after 9998 have no executions."),
)
"""Between them every day can be told by an id."""


class ExecutionFilterForm(forms.Form):
    """What to look for. Days are UTC days of the start; the last one is included."""

    q = forms.CharField(
        label="Execution, session or person",
        required=False,
        max_length=255,
        help_text="A whole id: nothing is searched by parts.",
    )
    show = forms.ChoiceField(label="Show", required=False, choices=_SHOW)
    status = forms.ChoiceField(
        label="Status", required=False, choices=[("", "Any"), *WorkflowExecutionStatus.choices]
    )
    workflow = forms.ChoiceField(label="Workflow", required=False)
    version = forms.ChoiceField(label="Version", required=False)
    code = forms.ChoiceField(
        label="Error code", required=False, choices=[("", "Any"), *ErrorCode.choices]
    )
    since = forms.DateField(
        label="Started from",
        required=False,
        widget=forms.DateInput({"type": "date"}),
        validators=_DAYS,
    )
    until = forms.DateField(
        label="Started until",
        required=False,
        widget=forms.DateInput({"type": "date"}),
        validators=_DAYS,
    )

    def __init__(self, data: Any) -> None:
        super().__init__(data, label_suffix="")
        self._choice("workflow").choices = [("", "Any"), *_workflows()]
        self._choice("version").choices = [("", "Any"), *_versions(data.get("workflow", ""))]
        for field in self.fields.values():
            field.widget.attrs["class"] = "hr-input"

    def _choice(self, name: str) -> forms.ChoiceField:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101 - declared above
        return field

    def clean(self) -> dict[str, Any]:
        found: dict[str, Any] = super().clean() or {}
        if found.get("show") in _HOURS and any(found.get(name) for name in _NOT_WITH_ABANDONED):
            raise forms.ValidationError(
                "Abandoned executions are narrowed down by workflow only: clear the other filters."
            )
        since, until = found.get("since"), found.get("until")
        if since and until and until < since:
            self.add_error("until", "This is before the first day.")
        return found

    @property
    def hours(self) -> int | None:
        """How far back to look for who stopped; None when that is not asked for."""
        return _HOURS.get(self.cleaned_data["show"])

    @property
    def workflow_id(self) -> UUID | None:
        return _uuid(self.cleaned_data["workflow"])

    def search(self) -> ExecutionSearch:
        """What was asked for. A version says which workflow it belongs to."""
        found = self.cleaned_data
        version_id = _uuid(found["version"])
        return ExecutionSearch(
            text=found["q"],
            status=WorkflowExecutionStatus(found["status"]) if found["status"] else None,
            workflow_id=None if version_id else self.workflow_id,
            version_id=version_id,
            error_code=found["code"],
            since=_midnight(found["since"]),
            until=_midnight(found["until"], days=1),
            needs_attention=found["show"] == "attention",
        )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _midnight(day: date | None, *, days: int = 0) -> datetime | None:
    if day is None:
        return None
    return datetime.combine(day + timedelta(days=days), time(tzinfo=UTC))


def _workflows() -> Iterable[tuple[str, str]]:
    rows = Workflow.objects.order_by("name", "id").values_list("id", "name")[:_SHOWN_WORKFLOWS]
    return [(str(workflow_id), name) for workflow_id, name in rows]


def _versions(workflow: str) -> Iterable[tuple[str, str]]:
    workflow_id = _uuid(workflow)
    if workflow_id is None:
        return []
    rows = WorkflowVersion.objects.filter(workflow_id=workflow_id).order_by("-number")
    return [
        (str(version_id), str(number)) for version_id, number in rows.values_list("id", "number")
    ]


@dataclass(frozen=True, slots=True)
class _Line:
    """One execution, with the address of its page."""

    row: ExecutionRow
    url: str
    lasted_ms: float
    place: str


@dataclass(frozen=True, slots=True)
class _Found:
    """What is on the page."""

    page: ExecutionPage
    count: Count | None


class ExecutionListPage(SitePage):
    """Every execution there is; nothing of what people entered is here."""

    title = "Executions"
    permission = "executions.view_workflowexecution"
    template_name = "executions/list.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        form = ExecutionFilterForm(self.request.GET)
        now = timezone.now()
        found = _find(form, self.request, now) if form.is_valid() else _Found(_NOTHING, None)
        return super().get_context_data(
            form=form,
            lines=[_line(row) for row in found.page.rows],
            count=_in_words(found),
            older=self._neighbour("older", found.page.older),
            newer=self._neighbour("newer", found.page.newer),
            first=self._neighbour("", None) if "older" in self.request.GET else "",
            is_filtered=any(self.request.GET.get(name) for name in form.fields),
            list_url=reverse(LIST),
            actions=_actions(self.request),
            max_bulk=MAX_BULK,
            command=_command(form),
            **kwargs,
        )

    def _neighbour(self, name: str, begins_at: UUID | None) -> str:
        if name and begins_at is None:
            return ""
        wanted = {
            key: value
            for key, value in self.request.GET.items()
            if value and key not in ("older", "newer")
        }
        if begins_at is not None:
            wanted[name] = str(begins_at)
        return f"{reverse(LIST)}?{urlencode(wanted)}"


_NOTHING: Final = ExecutionPage((), None, None)


def _find(form: ExecutionFilterForm, request: HttpRequest, now: datetime) -> _Found:
    if form.hours is not None:
        stops = recent_stops(hours=form.hours, workflow_id=form.workflow_id, limit=MAX_BULK)
        rows = shown_executions([execution_id for execution_id, _ in stops], now=now)
        return _Found(ExecutionPage(rows, None, None), None)
    search = form.search()
    page = find_executions(
        search,
        now=now,
        older_than=_uuid(request.GET.get("older", "")),
        newer_than=_uuid(request.GET.get("newer", "")),
        limit=MAX_BULK,
    )
    is_whole = page.older is None and page.newer is None
    return _Found(page, None if is_whole else count_executions(search))


def _in_words(found: _Found) -> str:
    if found.count is None:
        return f"{len(found.page.rows)} found"
    return (
        f"{found.count.number:,} found" if found.count.is_exact else f"about {found.count.number:,}"
    )


def _line(row: ExecutionRow) -> _Line:
    place = row.step
    if place and row.position < row.step_count:
        place = f"{place} ({row.position + 1} of {row.step_count})"
    return _Line(
        row,
        reverse("admin:executions_workflowexecution_change", args=[row.id]),
        row.lasted.total_seconds() * 1000,
        place,
    )


def _actions(request: HttpRequest) -> list[tuple[str, str]]:
    """What this person may do to many at once."""
    return [
        (kind.value, TITLES[kind])
        for kind in BULK_KINDS
        if request.user.has_perm(PERMISSIONS[kind])
    ]


def _command(form: ExecutionFilterForm) -> str:
    """The command for more than a page of failed submissions; "" when none of them are listed."""
    if not form.is_valid() or form.cleaned_data["code"] != ErrorCode.SUBMISSION_FAILED:
        return ""
    found = form.cleaned_data
    words = ["python manage.py replay_execution"]
    if found["since"]:
        words.append(f"--failed-since {found['since'].isoformat()}T00:00Z")
    if found["workflow"]:
        words.append(f"--workflow {found['workflow']}")
    if len(words) == 1:
        words.append("--failed-since 24h")
    return " ".join([*words, '--reason "…" --dry-run'])
