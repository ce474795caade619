"""A person's phone at the engine's door, and the flows that tests walk."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from django.utils import timezone

from config.jsonvalues import JsonObject, JsonValue
from executions import executor
from executions.answers import StepAnswer
from executions.models import StepRun, WorkflowExecution
from executions.session_store import get_session_store
from workflows.compiled import CompiledWorkflow
from workflows.drafts import import_document
from workflows.enums import TriggerTiming
from workflows.publishing import publish
from workflows.versions import compiled_version

ROOT = Path(__file__).resolve().parent.parent.parent
MONEY_TRANSFER: JsonObject = json.loads(
    (ROOT / "contract" / "workflows" / "money-transfer.json").read_text()
)
TRANSFER_INPUT: JsonObject = {
    "amount": 5000,
    "recipientAccount": "9876543210",
    "recipientName": "John Doe",
}
BEFORE, AFTER = TriggerTiming.BEFORE_STEP, TriggerTiming.AFTER_STEP


def published(document: JsonObject) -> CompiledWorkflow:
    """The document, imported as a new workflow and published."""
    workflow, _ = import_document(document, as_new=True)
    return compiled_version(publish(workflow.id, by="operator").id)


def form(order: int = 0, **config: Any) -> JsonObject:
    """A form without a partner."""
    return {
        "type": "FORM",
        "label": f"Form {order}",
        "order": order,
        "executionMode": "CLIENT_ONLY",
        "config": {"dataKey": f"form{order}", **config},
    }


def server_step(order: int = 0, **changes: Any) -> JsonObject:
    """A step that calls the sandbox's transfer; `config` is merged."""
    config = {"dataKey": f"call{order}", **changes.pop("config", {})}
    return {
        "type": "API_CALL",
        "label": f"Call {order}",
        "order": order,
        "executionMode": "SERVER_SYNC",
        "triggerTiming": "AFTER_STEP",
        "triggerEndpoint": "/api/transactions/transfer",
        "timeoutMs": 2000,
        **changes,
        "config": config,
    }


def flow(*steps: JsonObject, **config: Any) -> JsonObject:
    """A workflow of these steps."""
    document: JsonObject = {"name": "Flow", "steps": list(steps)}
    return {**document, "config": config} if config else document


@dataclass
class Phone:
    """One person walking one execution."""

    compiled: CompiledWorkflow
    user_id: str = "alice"
    initial: JsonObject = field(default_factory=dict)
    execution_id: UUID = field(init=False)

    def __post_init__(self) -> None:
        self.execution_id = self.start().id

    def start(self, key: str | None = None) -> WorkflowExecution:
        return executor.start_execution(
            self.compiled.workflow_id,
            user_id=self.user_id,
            scopes=frozenset(),
            page_id="home",
            initial_context=self.initial,
            idempotency_key=key,
            now=timezone.now(),
        )

    def step(
        self,
        index: int,
        value: JsonValue = None,
        timing: TriggerTiming = AFTER,
        key: str | None = None,
        user_id: str | None = None,
    ) -> StepAnswer:
        return executor.execute_step(
            self.execution_id,
            step_id=self.compiled.steps[index].id,
            timing=timing,
            value=value,
            user_id=user_id or self.user_id,
            idempotency_key=key,
            now=timezone.now(),
        )

    def complete(self, key: str | None = None) -> StepAnswer:
        return executor.complete_execution(
            self.execution_id, user_id=self.user_id, idempotency_key=key, now=timezone.now()
        )

    def cancel(self, reason: str | None = None, key: str | None = None) -> WorkflowExecution:
        return executor.cancel_execution(
            self.execution_id,
            user_id=self.user_id,
            reason=reason,
            idempotency_key=key,
            now=timezone.now(),
        )

    @property
    def row(self) -> WorkflowExecution:
        return WorkflowExecution.objects.get(pk=self.execution_id)

    @property
    def runs(self) -> list[StepRun]:
        return list(StepRun.objects.filter(execution_id=self.execution_id).order_by("sequence"))

    @property
    def context(self) -> dict[str, JsonValue]:
        snapshot = get_session_store().get_context(self.row.session_id)
        assert snapshot is not None
        return dict(snapshot.context)

    @property
    def has_session(self) -> bool:
        return get_session_store().get_session_ttl(self.row.session_id) is not None


def walk_money_transfer(phone: Phone) -> StepAnswer:
    """Every step of the seed's money transfer; the last answer."""
    assert phone.step(0, TRANSFER_INPUT).success
    assert phone.step(1, timing=BEFORE).should_proceed
    assert phone.step(2, {"accepted": True}).should_proceed
    return phone.step(3)
