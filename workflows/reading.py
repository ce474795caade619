"""What apps and staff see of definitions.

Apps see the newest published version, of workflows that are not archived and whose scopes they hold,
without the server-side keys; all else is not there for them. Staff see everything: the live version, or
the draft when they ask for it or when nothing is published yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from django.conf import settings

from config.identity import Identity
from config.jsonvalues import JsonObject, JsonRefused, check_storable
from workflows.availability import availability_of
from workflows.compiled import CompiledWorkflow, timings_of
from workflows.documents import StepDocument
from workflows.enums import (
    StepExecutionMode,
    StepState,
    StepType,
    TriggerTiming,
    WorkflowAvailability,
)
from workflows.errors import DefinitionError, DefinitionNotFound, Problem, WorkflowArchived
from workflows.expressions import Scope
from workflows.models import Workflow, WorkflowStep
from workflows.versions import as_uuid, compiled_version, live_version_id

VIEW_PERMISSION: Final = "workflows.view_workflow"
MAX_SEARCH: Final = 200


class ShownStep(Protocol):
    """A step that can be shown: a compiled one, or one of a draft."""

    @property
    def id(self) -> str: ...
    @property
    def document(self) -> StepDocument: ...
    def view_config(self, scope: Scope | None, *, staff: bool) -> JsonObject | None: ...


@dataclass(frozen=True, slots=True)
class DraftStep:
    """A step of a draft, which only staff see and whose texts nobody renders."""

    id: str
    document: StepDocument

    @classmethod
    def of(cls, row: WorkflowStep) -> DraftStep:
        return cls(str(row.pk), row.document())

    def view_config(self, scope: Scope | None, *, staff: bool) -> JsonObject | None:
        """The config as written, for staff; nothing for others."""
        del scope
        return self.document.config if staff else None


class StepStanding(Protocol):
    """What an execution tells of one of its steps; asking may raise what reading its session does."""

    @property
    def state(self) -> StepState: ...
    @property
    def scope(self) -> Scope | None: ...


@dataclass(frozen=True, slots=True)
class StepView:
    """A step as its reader may see it; through an execution with its state and rendered texts.

    Those two are found out when they are read, so that all else can be shown without the session.
    """

    step: ShownStep
    staff: bool = False
    standing: StepStanding | None = None

    @property
    def id(self) -> str:
        return self.step.id

    @property
    def type(self) -> StepType:
        return self.step.document.type

    @property
    def label(self) -> str:
        return self.step.document.label

    @property
    def order(self) -> int:
        return self.step.document.order

    @property
    def data_key(self) -> str:
        return self.step.document.data_key

    @property
    def execution_mode(self) -> StepExecutionMode:
        return self.step.document.mode

    @property
    def trigger_timing(self) -> TriggerTiming:
        return self.step.document.timing

    @property
    def timings(self) -> tuple[TriggerTiming, ...]:
        return timings_of(self.step.document)

    @property
    def trigger_endpoint(self) -> str | None:
        return self.step.document.trigger_endpoint if self.staff else None

    @property
    def timeout_ms(self) -> int | None:
        return self.step.document.timeout_ms if self.staff else None

    @property
    def retry_config(self) -> JsonObject | None:
        return self.step.document.retry_config if self.staff else None

    @property
    def config(self) -> JsonObject | None:
        scope = None if self.standing is None else self.standing.scope
        return self.step.view_config(scope, staff=self.staff)

    @property
    def state(self) -> StepState | None:
        return None if self.standing is None else self.standing.state


@dataclass(frozen=True, slots=True)
class WorkflowView:
    """A workflow as its reader may see it. `version` is None for a draft.

    `revision` and `archived` are for staff, and not known of an execution's pinned version.
    """

    id: str
    name: str
    description: str | None
    version: int | None
    config: JsonObject | None
    steps: Sequence[StepView]
    revision: int | None = None
    archived: bool | None = None
    published_at: datetime | None = None
    compiled: CompiledWorkflow | None = None

    @property
    def availability(self) -> WorkflowAvailability | None:
        """Whether the published version can be walked right now; None for a draft."""
        return None if self.compiled is None else availability_of(self.compiled)

    @classmethod
    def of(
        cls, compiled: CompiledWorkflow, *, staff: bool = False, row: Workflow | None = None
    ) -> WorkflowView:
        """A published version; `row` adds what staff see of the workflow beside it."""
        return cls(
            id=compiled.workflow_id,
            name=compiled.name,
            description=compiled.document.description,
            version=compiled.number,
            config=compiled.view_config(staff=staff),
            steps=[StepView(step, staff=staff) for step in compiled.steps],
            revision=row.revision if row else None,
            archived=row.is_archived if row else None,
            published_at=row.live_version.published_at if row and row.live_version else None,
            compiled=compiled,
        )

    @classmethod
    def of_draft(cls, row: Workflow) -> WorkflowView:
        """The draft, for staff."""
        steps = row.steps_in_order()
        return cls(
            id=str(row.pk),
            name=row.name,
            description=row.description,
            version=None,
            config=row.config,
            steps=[StepView(DraftStep.of(step), staff=True) for step in steps],
            revision=row.revision,
            archived=row.is_archived,
        )

    @classmethod
    def of_row(cls, row: Workflow, *, draft: bool = False) -> WorkflowView:
        """For staff: the live version, or the draft when asked for or when nothing is published."""
        if draft or row.live_version_id is None:
            return cls.of_draft(row)
        return cls.of(compiled_version(row.live_version_id), staff=True, row=row)


def read_workflow(text: str, identity: Identity, *, draft: bool = False) -> WorkflowView:
    """The workflow as this caller may see it. Raises DefinitionNotFound, the same for every reason."""
    if identity.has_permission(VIEW_PERMISSION):
        row = Workflow.objects.select_related("live_version").filter(pk=as_uuid(text)).first()
        if row is None:
            raise DefinitionNotFound
        return WorkflowView.of_row(row, draft=draft)
    try:
        live = None if draft else live_version_id(text, reload=True)
    except WorkflowArchived:
        live = None
    if live is None:
        raise DefinitionNotFound
    compiled = compiled_version(live)
    if not compiled.required_scopes <= identity.scopes:
        raise DefinitionNotFound
    return WorkflowView.of(compiled)


def list_workflows(
    identity: Identity, *, search: str = "", limit: int, offset: int = 0
) -> list[WorkflowView]:
    """A page of the workflows whose name holds `search`, by name. Raises DefinitionError."""
    _check_page(search, limit=limit, offset=offset)
    if identity.has_permission(VIEW_PERMISSION):
        rows = Workflow.objects.filter(name__icontains=search).order_by("name", "id")
        page = rows.select_related("live_version").prefetch_related("steps")
        return [WorkflowView.of_row(row) for row in page[offset : offset + limit]]
    live = _live_ids_for(identity, search)[offset : offset + limit]
    return [WorkflowView.of(compiled_version(version_id)) for version_id in live]


def _live_ids_for(identity: Identity, search: str) -> list[UUID]:
    """The scopes are compared here: three narrow columns a row, and no SQL for lists in text."""
    rows = (
        Workflow.objects.published()
        .filter(live_version__name__icontains=search)
        .order_by("live_version__name", "id")
        .values_list("live_version_id", "live_version__required_scopes")
    )
    found: Any = rows  # the plugin does not follow columns of a nullable relation
    return [version_id for version_id, scopes in found if identity.scopes.issuperset(scopes)]


def _check_page(search: str, *, limit: int, offset: int) -> None:
    problems = []
    if not 1 <= limit <= settings.MAX_PAGE_SIZE:
        problems.append(Problem("limit", f"must be between 1 and {settings.MAX_PAGE_SIZE}"))
    if offset < 0:
        problems.append(Problem("offset", "must not be negative"))
    if len(search) > MAX_SEARCH:
        problems.append(Problem("search", f"must have at most {MAX_SEARCH} characters"))
    try:
        check_storable(search)
    except JsonRefused:
        problems.append(Problem("search", "holds characters that no name can have"))
    if problems:
        raise DefinitionError(problems)
