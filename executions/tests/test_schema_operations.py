"""The seed's operations, byte for byte, over HTTP against its own workflow."""

from typing import Any

import pytest
from django.core.management import call_command

from executions.models import WorkflowExecution
from executions.tests.app import OPERATIONS, App
from executions.tests.phone import MONEY_TRANSFER, TRANSFER_INPUT, published
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow


@pytest.fixture
def transfer(db: None, partner: FakePartner) -> CompiledWorkflow:
    return published(MONEY_TRANSFER)


@pytest.fixture
def started(transfer: CompiledWorkflow) -> Any:
    return App("alice").data(OPERATIONS["start"], workflowId=transfer.workflow_id, pageId="home")


def walk(execution: Any) -> None:
    app = App("alice")
    calls: list[tuple[int, Any, str]] = [
        (0, TRANSFER_INPUT, "AFTER_STEP"),
        (1, None, "BEFORE_STEP"),
        (2, {"accepted": True}, "AFTER_STEP"),
        (3, None, "AFTER_STEP"),
    ]
    for index, value, timing in calls:
        answer = app.data(
            OPERATIONS["execute-step"],
            executionId=execution["id"],
            stepId=execution["workflow"]["steps"][index]["id"],
            input=value,
            timing=timing,
        )
        assert answer["success"] is True, answer
        assert answer["shouldProceed"] is True


def test_start_gives_the_session_and_the_steps(started: Any) -> None:
    assert started["sessionId"]
    assert [step["executionMode"] for step in started["workflow"]["steps"]] == [
        "CLIENT_ONLY",
        "SERVER_VALIDATION",
        "CLIENT_ONLY",
        "SERVER_SYNC",
    ]
    assert started["workflow"]["steps"][1]["triggerTiming"] == "BEFORE_STEP"


def test_the_flow_completes_with_the_mapped_result(started: Any, partner: FakePartner) -> None:
    walk(started)
    answer = App("alice").data(OPERATIONS["complete"], executionId=started["id"])
    assert answer["success"] is True
    assert answer["executionId"] == started["id"]
    assert {**answer["result"], "validationToken": "…"} == {
        "amount": 5000,
        "senderAccount": "1234567890",
        "recipientAccount": "9876543210",
        "recipientName": "John Doe",
        "validationToken": "…",
    }
    assert len(partner.effects("/api/transactions/transfer")) == 1


def test_the_execution_shows_where_it_stands(started: Any) -> None:
    shown = App("alice").data(OPERATIONS["execution"], id=started["id"])
    assert shown["status"] == "PENDING"
    assert shown["context"] == {"userAccount": "1234567890", "userId": "alice"}
    assert shown["currentStep"]["label"] == "Enter Transfer Details"


def test_a_person_lists_their_executions(started: Any) -> None:
    (listed,) = App("alice").data(
        OPERATIONS["user-executions"], userId="alice", status="PENDING", limit=5
    )
    assert listed["id"] == started["id"]
    assert listed["workflow"] == {"name": "Money Transfer"}


def test_cancelling_twice_gives_the_same_execution(started: Any) -> None:
    app = App("alice")
    cancelled = {"id": started["id"], "status": "CANCELLED"}
    for _ in range(2):
        answer = app.data(OPERATIONS["cancel"], executionId=started["id"], reason="changed my mind")
        assert answer == cancelled


def test_a_stranger_gets_not_found(started: Any, transfer: CompiledWorkflow) -> None:
    bob = App("bob")
    assert bob.code(OPERATIONS["execution"], id=started["id"]) == "NOT_FOUND"
    assert bob.code(OPERATIONS["cancel"], executionId=started["id"]) == "NOT_FOUND"
    assert bob.code(OPERATIONS["complete"], executionId=started["id"]) == "NOT_FOUND"
    step = {"stepId": transfer.steps[0].id, "timing": "AFTER_STEP", "input": TRANSFER_INPUT}
    assert bob.code(OPERATIONS["execute-step"], executionId=started["id"], **step) == "NOT_FOUND"
    assert bob.code(OPERATIONS["user-executions"], userId="alice") == "FORBIDDEN"
    assert WorkflowExecution.objects.get().status == "PENDING"


def test_the_committed_schema_is_the_served_one() -> None:
    call_command("export_schema", "--check")
