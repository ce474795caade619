"""Definitions over GraphQL: types, two queries, and the mutations of staff. No rule lives here."""

from __future__ import annotations

from typing import Any, Final

import graphene

from config.graphql import JSON
from config.jsonvalues import JsonObject
from workflows import drafts, publishing
from workflows.documents import as_changes
from workflows.enums import (
    StepExecutionMode,
    StepState,
    StepType,
    TriggerTiming,
    WorkflowAvailability,
)
from workflows.models import Workflow as WorkflowRow
from workflows.models import WorkflowStep as WorkflowStepRow
from workflows.reading import DraftStep, StepView, WorkflowView, list_workflows, read_workflow
from workflows.versions import as_uuid

__all__ = [
    "Mutation",
    "Query",
    "StepExecutionModeEnum",
    "StepStateEnum",
    "StepTypeEnum",
    "StepView",
    "TriggerTimingEnum",
    "Workflow",
    "WorkflowStep",
    "WorkflowView",
]

DEFAULT_LIMIT: Final = 20

# What several fields and arguments say of themselves.
_WORKFLOW_ID: Final = "The workflow's id."
_STEP_ID: Final = "The step's id."
_NAME: Final = "What the flow is called: 1 to 200 characters."
_DESCRIPTION: Final = "What the flow is for."
_CONFIG: Final = "The flow's settings: docs/workflow-document.md has every key."
_TYPE: Final = "What the step is to the person."
_LABEL: Final = "What operators call the step: 1 to 200 characters."
_ORDER: Final = "Steps run by rising order; no two have the same."
_REVISION: Final = "The revision that the edit started from."

StepTypeEnum = graphene.Enum.from_enum(StepType, name="StepType")
StepExecutionModeEnum = graphene.Enum.from_enum(StepExecutionMode, name="StepExecutionMode")
TriggerTimingEnum = graphene.Enum.from_enum(TriggerTiming, name="TriggerTiming")
StepStateEnum = graphene.Enum.from_enum(StepState, name="StepState")
WorkflowAvailabilityEnum = graphene.Enum.from_enum(
    WorkflowAvailability, name="WorkflowAvailability"
)


class WorkflowStep(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """One step of a workflow. What only the server needs is null for everyone but staff."""

    id = graphene.ID(required=True, description="What calls of the step name it by.")
    type = StepTypeEnum(required=True, description="What the step is to the person.")
    label = graphene.String(required=True, description="What operators call the step.")
    order = graphene.Int(required=True, description="Steps run by rising order.")
    data_key = graphene.String(
        required=True, description="The key of the context under which the step's data is kept."
    )
    execution_mode = StepExecutionModeEnum(required=True, description="Who works the step off.")
    trigger_timing = TriggerTimingEnum(
        required=True, description="When the step's partner is called, where it has one."
    )
    timings = graphene.List(
        graphene.NonNull(TriggerTimingEnum),
        required=True,
        description="The timings at which the step is called, in their order.",
    )
    trigger_endpoint = graphene.String(description="For staff: where the partner is called.")
    timeout_ms = graphene.Int(description="For staff: how long one attempt may take.")
    retry_config = JSON(description="For staff: how often the partner is called again, and when.")
    config = JSON(
        description="What the step shows and asks for. Through an execution its texts are rendered."
    )
    state = StepStateEnum(description="How the step stands, when reached through an execution.")


class Workflow(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """A workflow as published; for staff also as a draft, which has no version."""

    id = graphene.ID(required=True, description="What a start names the workflow by.")
    name = graphene.String(required=True, description="What the flow is called.")
    description = graphene.String(description="What the flow is for.")
    version = graphene.Int(description="The number of the published version; null for a draft.")
    config = JSON(description="The flow's settings; what only the server needs is for staff.")
    steps = graphene.List(
        graphene.NonNull(WorkflowStep), required=True, description="The steps, in their order."
    )
    published_at = graphene.DateTime(
        description="For staff: when the live version was published; null through an execution."
    )
    availability = WorkflowAvailabilityEnum(
        description="Whether the flow can be walked right now. BLOCKED: a partner that it needs is "
        "known not to answer. DEGRADED: it may work, or in parts. Null for a draft."
    )
    revision = graphene.Int(
        description="For staff: the draft's revision, to send with an edit so that a stale one is "
        "refused."
    )
    archived = graphene.Boolean(description="For staff: whether it takes no new executions.")


class Query(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """Definitions."""

    workflow = graphene.Field(
        Workflow,
        id=graphene.ID(required=True, description=_WORKFLOW_ID),
        draft=graphene.Boolean(default_value=False, description="For staff: the draft."),
        description="One workflow: its newest published version.",
    )
    workflows = graphene.List(
        graphene.NonNull(Workflow),
        search=graphene.String(description="A part of the name."),
        limit=graphene.Int(default_value=DEFAULT_LIMIT, description="At most so many."),
        offset=graphene.Int(default_value=0, description="So many are passed over first."),
        required=True,
        description="The published workflows by name; for staff also drafts and archived ones.",
    )

    @staticmethod
    def resolve_workflow(
        _root: None,
        info: Any,
        id: str,  # noqa: A002 - the argument's name
        draft: bool | None = None,  # noqa: FBT001 - graphene passes arguments by name
    ) -> WorkflowView:
        return read_workflow(id, info.context.require_identity(), draft=bool(draft))

    @staticmethod
    def resolve_workflows(
        _root: None,
        info: Any,
        search: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[WorkflowView]:
        return list_workflows(
            info.context.require_identity(),
            search=search or "",
            limit=DEFAULT_LIMIT if limit is None else limit,
            offset=offset or 0,
        )


class CreateWorkflowInput(graphene.InputObjectType):  # type: ignore[misc]  # graphene has no types
    """A new draft without steps."""

    name = graphene.String(required=True, description=_NAME)
    description = graphene.String(description=_DESCRIPTION)
    config = JSON(description=_CONFIG)


class UpdateWorkflowInput(graphene.InputObjectType):  # type: ignore[misc]  # graphene has no types
    """What is left out stays as it is; null leaves it out of the document."""

    name = graphene.String(description=_NAME)
    description = graphene.String(description=_DESCRIPTION)
    config = JSON(description=_CONFIG)
    revision = graphene.Int(description=_REVISION)


class _StepInput:
    """What both inputs of a step may hold."""

    execution_mode = StepExecutionModeEnum(description="Who works the step off.")
    trigger_timing = TriggerTimingEnum(description="When the step's partner is called.")
    trigger_endpoint = graphene.String(description="Where the partner is called.")
    timeout_ms = graphene.Int(description="How long one attempt may take, in milliseconds.")
    retry_config = JSON(description="How often the partner is called again, and when.")
    config = JSON(description="Everything else: docs/workflow-document.md has every key.")
    revision = graphene.Int(description=_REVISION)


class CreateWorkflowStepInput(_StepInput, graphene.InputObjectType):  # type: ignore[misc]  # see above
    """A new step; without an order it is the last one."""

    type = StepTypeEnum(required=True, description=_TYPE)
    label = graphene.String(required=True, description=_LABEL)
    order = graphene.Int(description=_ORDER)


class UpdateWorkflowStepInput(_StepInput, graphene.InputObjectType):  # type: ignore[misc]  # see above
    """What is left out stays as it is; null leaves it out of the document."""

    type = StepTypeEnum(description=_TYPE)
    label = graphene.String(description=_LABEL)
    order = graphene.Int(description=_ORDER)


class CreateWorkflow(graphene.Mutation):  # type: ignore[misc]  # graphene has no types
    """Create a workflow: a draft. For staff."""

    class Arguments:
        input = CreateWorkflowInput(required=True, description="The new draft.")

    Output = Workflow

    @staticmethod
    def mutate(_root: None, info: Any, input: Any) -> WorkflowView:  # noqa: A002 - its name
        info.context.require_permission("workflows.add_workflow")
        return WorkflowView.of_draft(drafts.create_workflow(_as_document(input)))


class UpdateWorkflow(graphene.Mutation):  # type: ignore[misc]  # graphene has no types
    """Change a draft's name, description or config. For staff."""

    class Arguments:
        id = graphene.ID(required=True, description=_WORKFLOW_ID)
        input = UpdateWorkflowInput(required=True, description="What changes.")

    Output = Workflow

    @staticmethod
    def mutate(_root: None, info: Any, id: str, input: Any) -> WorkflowView:  # noqa: A002 - their names
        info.context.require_permission("workflows.change_workflow")
        workflow = drafts.update_workflow(
            as_uuid(id), _as_document(input), revision=input.get("revision")
        )
        return WorkflowView.of_draft(workflow)


class CreateWorkflowStep(graphene.Mutation):  # type: ignore[misc]  # graphene has no types
    """Add a step to a draft. For staff."""

    class Arguments:
        workflow_id = graphene.ID(required=True, description=_WORKFLOW_ID)
        input = CreateWorkflowStepInput(required=True, description="The new step.")

    Output = WorkflowStep

    @staticmethod
    def mutate(_root: None, info: Any, workflow_id: str, input: Any) -> StepView:  # noqa: A002 - its name
        info.context.require_permission("workflows.add_workflowstep")
        step = drafts.create_step(
            as_uuid(workflow_id), _as_document(input), revision=input.get("revision")
        )
        return _draft_step(step)


class UpdateWorkflowStep(graphene.Mutation):  # type: ignore[misc]  # graphene has no types
    """Change a step of a draft. For staff."""

    class Arguments:
        id = graphene.ID(required=True, description=_STEP_ID)
        input = UpdateWorkflowStepInput(required=True, description="What changes.")

    Output = WorkflowStep

    @staticmethod
    def mutate(_root: None, info: Any, id: str, input: Any) -> StepView:  # noqa: A002 - their names
        info.context.require_permission("workflows.change_workflowstep")
        step = drafts.update_step(as_uuid(id), _as_document(input), revision=input.get("revision"))
        return _draft_step(step)


class DeleteWorkflowStep(graphene.Mutation):  # type: ignore[misc]  # graphene has no types
    """Remove a step from a draft; published versions keep theirs. For staff."""

    class Arguments:
        id = graphene.ID(required=True, description=_STEP_ID)
        revision = graphene.Int(description=_REVISION)

    Output = graphene.Boolean

    @staticmethod
    def mutate(
        _root: None,
        info: Any,
        id: str,  # noqa: A002 - the argument's name
        revision: int | None = None,
    ) -> bool:
        info.context.require_permission("workflows.delete_workflowstep")
        drafts.delete_step(as_uuid(id), revision=revision)
        return True


class PublishWorkflow(graphene.Mutation):  # type: ignore[misc]  # graphene has no types
    """Check a draft and publish it as the next version, unless the live one is the same. For staff."""

    class Arguments:
        id = graphene.ID(required=True, description=_WORKFLOW_ID)
        note = graphene.String(description="Why; kept with the version.")
        revision = graphene.Int(description="The revision that was looked at.")
        accept_failing_golden_runs = graphene.Boolean(
            description="Publish even where a golden run fails."
        )

    Output = Workflow

    @staticmethod
    def mutate(
        _root: None,
        info: Any,
        id: str,  # noqa: A002 - the argument's name
        note: str | None = None,
        revision: int | None = None,
        accept_failing_golden_runs: bool | None = None,  # noqa: FBT001 - graphene's signature
    ) -> WorkflowView:
        identity = info.context.require_permission("workflows.publish_workflow")
        publication = publishing.publish_draft(
            as_uuid(id),
            by=identity.user_id,
            note=note or "",
            revision=revision,
            accepts_failing=bool(accept_failing_golden_runs),
        )
        workflow_id = publication.version.workflow_id
        row = WorkflowRow.objects.select_related("live_version").get(pk=workflow_id)
        return WorkflowView.of_row(row)


class Mutation(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """Changing definitions."""

    create_workflow = CreateWorkflow.Field()
    update_workflow = UpdateWorkflow.Field()
    create_workflow_step = CreateWorkflowStep.Field()
    update_workflow_step = UpdateWorkflowStep.Field()
    delete_workflow_step = DeleteWorkflowStep.Field()
    publish_workflow = PublishWorkflow.Field()


def _draft_step(row: WorkflowStepRow) -> StepView:
    return StepView(DraftStep.of(row), staff=True)


def _as_document(given: Any) -> JsonObject:
    """The input as changes to the document; what was not sent is not in it."""
    values = {name: getattr(value, "value", value) for name, value in given.items()}
    values.pop("revision", None)
    return as_changes(values)
