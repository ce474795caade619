"""Running a flow over GraphQL: types, three queries, four mutations. No rule lives here."""

from typing import Any
from uuid import UUID

import graphene

from config.graphql import JSON, Forbidden, RequestContext
from executions import executor
from executions.abandoned import Abandoned, recently_abandoned
from executions.answers import StepAnswer
from executions.enums import (
    AttemptOutcome,
    ErrorCode,
    RunKind,
    RunStatus,
    WorkflowExecutionStatus,
)
from executions.errors import ExecutionNotFound
from executions.models import StepAttempt as StepAttemptRow
from executions.models import StepRun as StepRunRow
from executions.models import WorkflowExecution as ExecutionRow
from executions.reading import ExecutionView, NextStep, list_executions, read_execution
from workflows.enums import TriggerTiming
from workflows.schema import (
    StepExecutionModeEnum,
    StepView,
    TriggerTimingEnum,
    Workflow,
    WorkflowStep,
    WorkflowView,
)
from workflows.versions import as_uuid

DEFAULT_LIMIT = 20
DEFAULT_HOURS = 24
VIEW_PERMISSION = "executions.view_workflowexecution"

_EXECUTION_ID = "The execution's id, as its start answered it."
_IDEMPOTENCY_KEY = (
    "Your name for this call: a repeat under it gets the first answer, and does nothing twice."
)
_LIMIT = "At most so many."

WorkflowExecutionStatusEnum = graphene.Enum.from_enum(
    WorkflowExecutionStatus, name="WorkflowExecutionStatus"
)
ErrorCodeEnum = graphene.Enum.from_enum(ErrorCode, name="ErrorCode")
RunKindEnum = graphene.Enum.from_enum(RunKind, name="RunKind")
RunStatusEnum = graphene.Enum.from_enum(RunStatus, name="RunStatus")
AttemptOutcomeEnum = graphene.Enum.from_enum(AttemptOutcome, name="AttemptOutcome")


class FieldError(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """One violation: a JSON pointer into the input, and what is wrong there."""

    path = graphene.String(
        required=True, description="The place in the input; empty for the input as a whole."
    )
    message = graphene.String(required=True, description="What is wrong there, without the value.")


class StepAttempt(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """One HTTP try of a run, counted from 1."""

    number = graphene.Int(required=True, description="1 for the first try; the others are retries.")
    outcome = AttemptOutcomeEnum(required=True, description="What the try came to.")
    http_status = graphene.Int(description="The partner's HTTP status; null without an answer.")
    error_code = graphene.String(description="Why it failed; null when it did not.")
    started_at = graphene.DateTime(required=True, description="When the try began.")
    duration_ms = graphene.Int(required=True, description="How long it took, in milliseconds.")

    @staticmethod
    def resolve_error_code(attempt: StepAttemptRow, _info: Any) -> str | None:
        return attempt.error_code or None


class _RunOfView:
    """A run with the view that decides what of it is shown."""

    def __init__(self, run: StepRunRow, view: ExecutionView) -> None:
        self.run = run
        self.view = view


class StepRun(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """The record of one accepted call: a step, the submission, the cancellation, a compensation."""

    id = graphene.ID(required=True, description="The run's own id.")
    kind = RunKindEnum(required=True, description="What the run is the record of.")
    step_id = graphene.ID(description="The step that was called; null for the whole execution.")
    timing = TriggerTimingEnum(description="When the step was called; null for what is no step.")
    mode = StepExecutionModeEnum(required=True, description="Who worked it off.")
    status = RunStatusEnum(required=True, description="How the run stands.")
    should_proceed = graphene.Boolean(required=True, description="Whether the flow went on.")
    result = JSON(description="The recorded result, sensitive values masked.")
    error = graphene.String(description="What went wrong, in words; null when nothing did.")
    error_code = graphene.String(
        description="What went wrong, for programs; null when nothing did."
    )
    started_at = graphene.DateTime(required=True, description="When the call was accepted.")
    finished_at = graphene.DateTime(description="When the run ended; null before.")
    duration_ms = graphene.Int(
        description="Milliseconds of work, waits for a worker or a callback left out; null before the end."
    )
    attempts = graphene.List(
        graphene.NonNull(StepAttempt),
        required=True,
        description="Its HTTP tries, in order; empty when no partner was called.",
    )

    @staticmethod
    def resolve_id(parent: _RunOfView, _info: Any) -> str:
        return str(parent.run.id)

    @staticmethod
    def resolve_kind(parent: _RunOfView, _info: Any) -> str:
        return parent.run.kind

    @staticmethod
    def resolve_step_id(parent: _RunOfView, _info: Any) -> UUID | None:
        return parent.run.step_id

    @staticmethod
    def resolve_timing(parent: _RunOfView, _info: Any) -> str | None:
        return parent.run.timing or None

    @staticmethod
    def resolve_mode(parent: _RunOfView, _info: Any) -> str:
        return parent.run.mode

    @staticmethod
    def resolve_status(parent: _RunOfView, _info: Any) -> str:
        return parent.run.status

    @staticmethod
    def resolve_should_proceed(parent: _RunOfView, _info: Any) -> bool:
        return parent.run.should_proceed

    @staticmethod
    def resolve_result(parent: _RunOfView, _info: Any) -> Any:
        return parent.view.result_of(parent.run)

    @staticmethod
    def resolve_error(parent: _RunOfView, _info: Any) -> str | None:
        return parent.run.error or None

    @staticmethod
    def resolve_error_code(parent: _RunOfView, _info: Any) -> str | None:
        return parent.run.error_code or None

    @staticmethod
    def resolve_started_at(parent: _RunOfView, _info: Any) -> Any:
        return parent.run.started_at

    @staticmethod
    def resolve_finished_at(parent: _RunOfView, _info: Any) -> Any:
        return parent.run.finished_at

    @staticmethod
    def resolve_duration_ms(parent: _RunOfView, _info: Any) -> int | None:
        return parent.run.duration_ms

    @staticmethod
    def resolve_attempts(parent: _RunOfView, _info: Any) -> list[StepAttemptRow]:
        return list(parent.run.attempts.all())


class WorkflowExecution(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """One person's run of one published version."""

    id = graphene.ID(required=True, description="The execution's own id.")
    session_id = graphene.String(required=True, description="The name of its session.")
    workflow = graphene.Field(Workflow, required=True, description="The pinned version.")
    version = graphene.Int(description="The number of the pinned version.")
    page_id = graphene.String(description="What the app called the place it was started from.")
    user_id = graphene.ID(required=True, description="The person: `sub` of the token.")
    status = WorkflowExecutionStatusEnum(required=True, description="How the execution stands.")
    context = JSON(description="What was entered and answered so far; null after the end.")
    current_step = graphene.Field(
        WorkflowStep, description="The step to show next; null after the end."
    )
    steps = graphene.List(
        graphene.NonNull(WorkflowStep), required=True, description="Every step, with its state."
    )
    result = JSON(description="The final result, once COMPLETED.")
    error = graphene.String(description="Why it is FAILED, in words.")
    error_code = graphene.String(description="Why it is FAILED, for programs.")
    cancel_reason = graphene.String(description="The reason that a cancellation was given.")
    started_at = graphene.DateTime(required=True, description="When it was started.")
    completed_at = graphene.DateTime(description="When it ended, however it ended.")
    expires_at = graphene.DateTime(
        required=True, description="When its session ends, unless a call renews it."
    )
    runs = graphene.List(
        graphene.NonNull(StepRun), required=True, description="Every recorded call, in order."
    )

    @staticmethod
    def resolve_id(view: ExecutionView, _info: Any) -> str:
        return str(view.row.id)

    @staticmethod
    def resolve_session_id(view: ExecutionView, _info: Any) -> str:
        return view.row.session_id

    @staticmethod
    def resolve_workflow(view: ExecutionView, _info: Any) -> WorkflowView:
        return WorkflowView.of(view.compiled, staff=view.is_staff)

    @staticmethod
    def resolve_version(view: ExecutionView, _info: Any) -> int:
        return view.compiled.number

    @staticmethod
    def resolve_page_id(view: ExecutionView, _info: Any) -> str:
        return view.row.page_id

    @staticmethod
    def resolve_user_id(view: ExecutionView, _info: Any) -> str:
        return view.row.user_id

    @staticmethod
    def resolve_status(view: ExecutionView, _info: Any) -> str:
        return view.row.status

    @staticmethod
    def resolve_context(view: ExecutionView, _info: Any) -> Any:
        return view.context

    @staticmethod
    def resolve_current_step(view: ExecutionView, _info: Any) -> StepView | None:
        step = view.current_step
        return None if step is None else view.step(step)

    @staticmethod
    def resolve_steps(view: ExecutionView, _info: Any) -> list[StepView]:
        return [view.step(step) for step in view.compiled.steps]

    @staticmethod
    def resolve_result(view: ExecutionView, _info: Any) -> Any:
        return view.row.result

    @staticmethod
    def resolve_error(view: ExecutionView, _info: Any) -> str | None:
        return view.row.error or None

    @staticmethod
    def resolve_error_code(view: ExecutionView, _info: Any) -> str | None:
        return view.row.error_code or None

    @staticmethod
    def resolve_cancel_reason(view: ExecutionView, _info: Any) -> str | None:
        return view.row.cancel_reason or None

    @staticmethod
    def resolve_started_at(view: ExecutionView, _info: Any) -> Any:
        return view.row.started_at

    @staticmethod
    def resolve_completed_at(view: ExecutionView, _info: Any) -> Any:
        return view.row.completed_at

    @staticmethod
    def resolve_expires_at(view: ExecutionView, _info: Any) -> Any:
        return view.row.expires_at

    @staticmethod
    def resolve_runs(view: ExecutionView, _info: Any) -> list[_RunOfView]:
        return [_RunOfView(run, view) for run in view.runs]


class _Answered(graphene.Interface):  # type: ignore[misc]  # graphene has no types
    """What every answer to a person's call says."""

    class Meta:
        name = "ExecutionAnswer"

    success = graphene.Boolean(required=True, description="Whether the call did what it should.")
    result = JSON(description="What the call brought; null for a private step.")
    error = graphene.String(description="What went wrong, in words.")
    error_code = ErrorCodeEnum(description="What went wrong, for programs.")
    retryable = graphene.Boolean(
        required=True, description="Whether the same call may succeed later."
    )
    retry_after_ms = graphene.Int(description="How long to wait at least before the next try.")
    field_errors = graphene.List(
        graphene.NonNull(FieldError), required=True, description="What is wrong, per field."
    )
    next_step = graphene.Field(
        WorkflowStep, description="The step to show next, its texts rendered."
    )
    execution = graphene.Field(
        WorkflowExecution, description="The execution as it stands after the call."
    )

    @staticmethod
    def resolve_next_step(answer: StepAnswer, info: Any) -> StepView | None:
        standing = answer.standing
        step = None if standing is None else standing.next_step
        if standing is None or step is None:
            return None
        staff = info.context.require_identity().has_permission(VIEW_PERMISSION)
        return StepView(step, staff=staff, standing=NextStep(standing.context))

    @staticmethod
    def resolve_execution(answer: StepAnswer, info: Any) -> ExecutionView | None:
        identity = info.context.require_identity()
        try:
            view = read_execution(answer.execution_id, user_id=identity.user_id, sees_all=False)
        except ExecutionNotFound:
            return None
        # The answer says it; an error beside it would take the whole answer from an Apollo client.
        is_away = answer.error_code == ErrorCode.SESSION_UNAVAILABLE
        return view.without_session() if is_away else view


class StepExecutionResponse(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """The answer to `executeWorkflowStep`."""

    class Meta:
        interfaces = (_Answered,)

    should_proceed = graphene.Boolean(required=True, description="Whether the flow goes on.")


class WorkflowCompletionResult(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """The answer to `completeWorkflowExecution`."""

    class Meta:
        interfaces = (_Answered,)

    execution_id = graphene.ID(required=True, description="The execution that was completed.")


class AbandonedExecution(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """An execution that a person stopped at: expired, or live without a call for a while."""

    execution = graphene.Field(
        WorkflowExecution, required=True, description="The record of the execution."
    )
    step = graphene.Field(
        WorkflowStep,
        description="The first step not passed; null when only the completion was missing.",
    )
    stopped_at = graphene.DateTime(required=True, description="When the last call began.")

    @staticmethod
    def resolve_execution(one: Abandoned, _info: Any) -> ExecutionView:
        return one.view

    @staticmethod
    def resolve_step(one: Abandoned, _info: Any) -> StepView | None:
        return None if one.step is None else StepView(one.step, staff=True)


class Query(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """Executions."""

    workflow_execution = graphene.Field(
        WorkflowExecution,
        id=graphene.ID(required=True, description=_EXECUTION_ID),
        description="One execution: your own, or anybody's for staff.",
    )
    user_workflow_executions = graphene.List(
        graphene.NonNull(WorkflowExecution),
        user_id=graphene.ID(required=True, description="The person; staff may ask for anybody."),
        status=WorkflowExecutionStatusEnum(description="Only those that stand so."),
        limit=graphene.Int(default_value=DEFAULT_LIMIT, description=_LIMIT),
        required=True,
        description="A person's executions, newest first.",
    )
    recently_abandoned = graphene.List(
        graphene.NonNull(AbandonedExecution),
        hours=graphene.Int(default_value=DEFAULT_HOURS, description="How far back to look."),
        workflow_id=graphene.ID(description="Only those of this workflow."),
        limit=graphene.Int(default_value=DEFAULT_LIMIT, description=_LIMIT),
        required=True,
        description="Executions that stopped at a step in the last hours, the latest first; staff.",
    )

    @staticmethod
    def resolve_workflow_execution(
        _root: None,
        info: Any,
        id: str,  # noqa: A002 - the argument's name
    ) -> ExecutionView:
        identity = info.context.require_identity()
        return read_execution(
            _uuid(id),
            user_id=identity.user_id,
            sees_all=identity.has_permission(VIEW_PERMISSION),
        )

    @staticmethod
    def resolve_user_workflow_executions(
        _root: None,
        info: Any,
        user_id: str,
        status: Any = None,
        limit: int | None = None,
    ) -> list[ExecutionView]:
        identity = info.context.require_identity()
        sees_all = identity.has_permission(VIEW_PERMISSION)
        if user_id != identity.user_id and not sees_all:
            raise Forbidden
        return list_executions(
            user_id,
            viewer=identity.user_id,
            sees_all=sees_all,
            status=None if status is None else WorkflowExecutionStatus(_value(status)),
            limit=DEFAULT_LIMIT if limit is None else limit,
        )

    @staticmethod
    def resolve_recently_abandoned(
        _root: None,
        info: Any,
        hours: int | None = None,
        workflow_id: str | None = None,
        limit: int | None = None,
    ) -> list[Abandoned]:
        identity = info.context.require_permission(VIEW_PERMISSION)
        return recently_abandoned(
            hours=DEFAULT_HOURS if hours is None else hours,
            workflow_id=None if workflow_id is None else as_uuid(workflow_id),
            limit=DEFAULT_LIMIT if limit is None else limit,
            viewer=identity.user_id,
        )


class StartWorkflowExecution(graphene.Mutation):  # type: ignore[misc]  # graphene has no types
    """Start a workflow: its newest published version."""

    class Arguments:
        workflow_id = graphene.ID(required=True, description="The workflow to start.")
        page_id = graphene.ID(required=True, description="Where in the app it is started.")
        initial_context = JSON(description="What the app knows beforehand, by name.")
        idempotency_key = graphene.String(description=_IDEMPOTENCY_KEY)

    Output = WorkflowExecution

    @staticmethod
    def mutate(
        _root: None,
        info: Any,
        workflow_id: str,
        page_id: str,
        initial_context: Any = None,
        idempotency_key: str | None = None,
    ) -> ExecutionView:
        context: RequestContext = info.context
        identity = context.require_identity()
        row = executor.start_execution(
            workflow_id,
            user_id=identity.user_id,
            scopes=identity.scopes,
            page_id=page_id,
            initial_context=initial_context,
            idempotency_key=idempotency_key,
            now=context.now,
        )
        return _own_view(row, info)


class ExecuteWorkflowStep(graphene.Mutation):  # type: ignore[misc]  # graphene has no types
    """Execute one step at one timing."""

    class Arguments:
        execution_id = graphene.ID(required=True, description=_EXECUTION_ID)
        step_id = graphene.ID(required=True, description="A step of the execution's own version.")
        input = JSON(description="What the person entered, as the step's schema asks for it.")
        timing = TriggerTimingEnum(required=True, description="One of the step's `timings`.")
        idempotency_key = graphene.String(description=_IDEMPOTENCY_KEY)

    Output = StepExecutionResponse

    @staticmethod
    def mutate(  # noqa: PLR0917 - graphene passes the arguments by name
        _root: None,
        info: Any,
        execution_id: str,
        step_id: str,
        timing: Any,
        input: Any = None,  # noqa: A002 - the argument's name in the seed
        idempotency_key: str | None = None,
    ) -> StepAnswer:
        context: RequestContext = info.context
        return executor.execute_step(
            _uuid(execution_id),
            step_id=step_id,
            timing=TriggerTiming(_value(timing)),
            value=input,
            user_id=context.require_identity().user_id,
            idempotency_key=idempotency_key,
            now=context.now,
        )


class CompleteWorkflowExecution(graphene.Mutation):  # type: ignore[misc]  # graphene has no types
    """Complete an execution: map, submit, and keep the record."""

    class Arguments:
        execution_id = graphene.ID(required=True, description=_EXECUTION_ID)
        idempotency_key = graphene.String(description=_IDEMPOTENCY_KEY)

    Output = WorkflowCompletionResult

    @staticmethod
    def mutate(
        _root: None, info: Any, execution_id: str, idempotency_key: str | None = None
    ) -> StepAnswer:
        context: RequestContext = info.context
        return executor.complete_execution(
            _uuid(execution_id),
            user_id=context.require_identity().user_id,
            idempotency_key=idempotency_key,
            now=context.now,
        )


class CancelWorkflowExecution(graphene.Mutation):  # type: ignore[misc]  # graphene has no types
    """Cancel an execution, with an optional reason."""

    class Arguments:
        execution_id = graphene.ID(required=True, description=_EXECUTION_ID)
        reason = graphene.String(description="Why: at most 1,000 characters, kept in the record.")
        idempotency_key = graphene.String(description=_IDEMPOTENCY_KEY)

    Output = WorkflowExecution

    @staticmethod
    def mutate(
        _root: None,
        info: Any,
        execution_id: str,
        reason: str | None = None,
        idempotency_key: str | None = None,
    ) -> ExecutionView:
        context: RequestContext = info.context
        row = executor.cancel_execution(
            _uuid(execution_id),
            user_id=context.require_identity().user_id,
            reason=reason,
            idempotency_key=idempotency_key,
            now=context.now,
        )
        return _own_view(row, info)


class Mutation(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """Running flows."""

    start_workflow_execution = StartWorkflowExecution.Field()
    execute_workflow_step = ExecuteWorkflowStep.Field()
    complete_workflow_execution = CompleteWorkflowExecution.Field()
    cancel_workflow_execution = CancelWorkflowExecution.Field()


def _own_view(row: ExecutionRow, info: Any) -> ExecutionView:
    identity = info.context.require_identity()
    return ExecutionView(row, is_staff=identity.has_permission(VIEW_PERMISSION), is_owner=True)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ExecutionNotFound from None


def _value(enum: Any) -> str:
    """graphene hands out its own enum's members for variables and literals alike."""
    return str(getattr(enum, "value", enum))
