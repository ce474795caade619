"""Executions as they are shown: the record, and while it lives, what its session says.

Reading is a call, too: an execution whose session is gone ends here, so that no state is shown that
is not true any more.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar
from uuid import UUID

from django.conf import settings
from django.db.models import Prefetch

from config.jsonvalues import JsonObject, JsonValue
from executions.enums import WorkflowExecutionStatus
from executions.errors import (
    ExecutionError,
    ExecutionNotFound,
    InputRefused,
    SessionStoreAway,
    SessionUnavailable,
)
from executions.models import StepAttempt, StepRun, WorkflowExecution
from executions.recovery import mend
from executions.redaction import redactor_of
from executions.session_store import get_session_store
from executions.standing import Standing, find_standing
from executions.state import MarkStatus
from workflows.compiled import CompiledStep, CompiledWorkflow
from workflows.enums import StepState
from workflows.reading import StepView
from workflows.versions import compiled_version

__all__ = ["ExecutionView", "list_executions", "read_execution"]

Answer = TypeVar("Answer")

# What is known of a step's calls, the most telling first.
_STATES = {
    MarkStatus.UNKNOWN: StepState.UNKNOWN,
    MarkStatus.FAILED: StepState.FAILED,
    MarkStatus.SAID_NO: StepState.REJECTED,
    MarkStatus.QUEUED: StepState.PENDING,
}


class RunsOfMany:
    """The runs of several executions, with their attempts: two queries, at the first question."""

    def __init__(self, execution_ids: Sequence[UUID]) -> None:
        self._ids = execution_ids

    @cached_property
    def _by_execution(self) -> Mapping[UUID, list[StepRun]]:
        attempts = Prefetch("attempts", StepAttempt.objects.order_by("number"))
        runs = StepRun.objects.filter(execution_id__in=self._ids).order_by("sequence")
        found: dict[UUID, list[StepRun]] = {}
        for run in runs.prefetch_related(attempts):
            found.setdefault(run.execution_id, []).append(run)
        return found

    def of(self, execution_id: UUID) -> list[StepRun]:
        """One execution's runs, in their order."""
        return self._by_execution.get(execution_id, [])


class Sessions:
    """The sessions of what is shown together. A store that is away is asked once."""

    def __init__(self) -> None:
        self._is_away = False

    def has(self, row: WorkflowExecution) -> bool:
        """Whether the execution has a session; True when nobody knows: its record is shown as it is."""
        store = get_session_store()
        try:
            return self._asked(lambda: store.get_session_ttl(row.session_id)) is not None
        except SessionUnavailable:
            return True

    def standing(self, row: WorkflowExecution) -> Standing | None:
        """What the execution's session says. Raises SessionUnavailable."""
        return self._asked(lambda: find_standing(row.id))

    def mend(self, execution_id: UUID) -> None:
        """End it as expired if it is; another call may have the say."""
        with suppress(ExecutionError):
            self._asked(lambda: mend(execution_id))

    def _asked(self, question: Callable[[], Answer]) -> Answer:
        if self._is_away:
            raise SessionStoreAway
        try:
            return question()
        except SessionStoreAway:
            self._is_away = True
            raise


class ExecutionView:
    """One execution for one viewer. The session is read when something of it is asked for, once.

    `is_owner`: the person's own. Others see what is sensitive masked; only staff see private data.
    """

    def __init__(
        self,
        row: WorkflowExecution,
        *,
        is_staff: bool,
        is_owner: bool,
        runs: RunsOfMany | None = None,
        sessions: Sessions | None = None,
        standing: Standing | None = None,
    ) -> None:
        self.row = row
        self.is_staff = is_staff
        self.is_owner = is_owner
        self._runs = runs or RunsOfMany([row.id])
        self._sessions = sessions or Sessions()
        self._given = standing

    @cached_property
    def compiled(self) -> CompiledWorkflow:
        """The pinned version."""
        return compiled_version(self.row.version_id)

    @property
    def standing(self) -> Standing | None:
        """What the session says; None after the end. Raises SessionUnavailable."""
        if isinstance(self._read, SessionUnavailable):
            raise SessionUnavailable from self._read
        return self._read

    @cached_property
    def _read(self) -> Standing | SessionUnavailable | None:
        if self._given is not None or not self.row.is_live:
            return self._given
        try:
            return self._sessions.standing(self.row)
        except SessionUnavailable as error:
            return error

    def without_session(self) -> "ExecutionView":
        """The record alone, for who knows already that the session cannot be read."""
        self._read = None
        return self

    @property
    def runs(self) -> list[StepRun]:
        """Every recorded call, in order."""
        return self._runs.of(self.row.id)

    @property
    def context(self) -> JsonValue:
        """The context as this viewer may see it; None when there is no session any more."""
        if self.scope is None:
            return None
        hidden = frozenset() if self.is_staff else self.compiled.hidden_keys
        shown: JsonObject = {key: self.scope[key] for key in self.scope if key not in hidden}
        return shown

    @cached_property
    def scope(self) -> Mapping[str, JsonValue] | None:
        """What this viewer's texts are rendered with; None when there is no session any more.

        Only the owner's holds what is sensitive.
        """
        if self.standing is None or self.is_owner or not self.compiled.sensitive:
            return None if self.standing is None else self.standing.context
        redactor = redactor_of(self.compiled.sensitive)
        secrets = redactor.secrets(self.standing.context)
        return {
            key: redactor.redact(value, secrets, at=key)
            for key, value in self.standing.context.items()
        }

    @property
    def current_step(self) -> CompiledStep | None:
        """The step to show next; None after the end."""
        return None if self.standing is None else self.standing.next_step

    def state_of(self, step: CompiledStep) -> StepState:
        """How the step stands in this execution."""
        standing = self.standing
        if standing is None:
            return StepState.PASSED if step.index < self.row.position else StepState.OPEN
        if standing.is_skipped(step.index):
            return StepState.SKIPPED
        is_behind = step.index < standing.progress.position
        if is_behind and not step.is_async:
            return StepState.PASSED
        statuses = {standing.progress.mark(step.index, at).status for at in step.timings}
        told = next((_STATES[status] for status in _STATES if status in statuses), None)
        if told is not None:
            return told
        if is_behind:
            return StepState.PASSED
        return StepState.CURRENT if step is standing.next_step else StepState.OPEN

    def step(self, step: CompiledStep) -> StepView:
        """One of its steps."""
        return StepView(step, staff=self.is_staff, standing=_StepOfView(self, step))

    def result_of(self, run: StepRun) -> JsonValue:
        """A run's recorded result; a private step's is for staff."""
        is_private = run.step_index is not None and self.compiled.steps[run.step_index].private
        result: JsonValue = run.result
        return None if is_private and not self.is_staff else result


@dataclass(frozen=True, slots=True)
class NextStep:
    """How the step stands that an answer shows next."""

    scope: Mapping[str, JsonValue]
    state: StepState = StepState.CURRENT


@dataclass(frozen=True, slots=True)
class _StepOfView:
    """How a step stands in an execution, for its viewer."""

    view: ExecutionView
    step: CompiledStep

    @property
    def state(self) -> StepState:
        return self.view.state_of(self.step)

    @property
    def scope(self) -> Mapping[str, JsonValue] | None:
        return self.view.scope


def read_execution(execution_id: UUID, *, user_id: str, sees_all: bool) -> ExecutionView:
    """The person's execution, or anybody's for who `sees_all`. Raises ExecutionNotFound."""
    rows = WorkflowExecution.objects.filter(pk=execution_id)
    row = rows.first()
    if row is None or not (sees_all or row.user_id == user_id):
        raise ExecutionNotFound
    sessions = Sessions()
    if row.is_live and not sessions.has(row):
        sessions.mend(row.id)
        row = rows.get()
    is_owner = row.user_id == user_id
    return ExecutionView(row, is_staff=sees_all, is_owner=is_owner, sessions=sessions)


def list_executions(
    of_user: str,
    *,
    viewer: str,
    sees_all: bool,
    status: WorkflowExecutionStatus | None,
    limit: int,
) -> list[ExecutionView]:
    """One person's executions, newest first, at most `limit` (1 to the page size).

    Raises InputRefused for another limit. One query; those found overdue are ended first.
    """
    if not 1 <= limit <= settings.MAX_PAGE_SIZE:
        raise InputRefused(f"limit has to be between 1 and {settings.MAX_PAGE_SIZE}.")
    theirs = WorkflowExecution.objects.owned_by(of_user)
    sessions = Sessions()
    for execution_id in theirs.expired().values_list("id", flat=True)[:limit]:
        sessions.mend(execution_id)
    wanted = theirs if status is None else theirs.filter(status=status)
    rows = list(wanted.newest_first()[:limit])
    runs = RunsOfMany([row.id for row in rows])
    is_owner = of_user == viewer
    return [
        ExecutionView(row, is_staff=sees_all, is_owner=is_owner, runs=runs, sessions=sessions)
        for row in rows
    ]
