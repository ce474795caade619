"""The seed's Example 1, walked at the engine's door."""

from executions.enums import RunStatus, WorkflowExecutionStatus
from executions.tests.phone import AFTER, BEFORE, TRANSFER_INPUT, Phone, walk_money_transfer
from sandbox.testing import FakePartner

EXAMPLE_2 = {
    "amount": 5000,
    "senderAccount": "1234567890",
    "recipientAccount": "9876543210",
    "recipientName": "John Doe",
}


def test_the_whole_flow_ends_completed_with_the_mapped_result(
    alice: Phone, partner: FakePartner
) -> None:
    assert walk_money_transfer(alice).success
    token = alice.context["validation"]["token"]  # type: ignore[index,call-overload]
    answer = alice.complete()
    assert answer.result == {**EXAMPLE_2, "validationToken": token}
    assert alice.row.status == WorkflowExecutionStatus.COMPLETED
    assert alice.row.result == answer.result
    assert not alice.has_session
    assert len(partner.effects("/api/transactions/transfer")) == 1


def test_the_message_is_rendered_for_the_next_step(alice: Phone) -> None:
    alice.step(0, TRANSFER_INPUT)
    answer = alice.step(1, timing=BEFORE)
    assert answer.standing is not None
    step = answer.standing.next_step
    assert step is not None
    config = step.view_config(answer.standing.context, staff=False)
    assert config is not None
    assert config["message"] == "Send 5000 to John Doe?"


def test_every_call_is_a_row(alice: Phone) -> None:
    walk_money_transfer(alice)
    alice.complete()
    assert [(run.kind, run.timing, run.status) for run in alice.runs] == [
        ("STEP", AFTER, RunStatus.SUCCEEDED),
        ("STEP", BEFORE, RunStatus.SUCCEEDED),
        ("STEP", AFTER, RunStatus.SUCCEEDED),
        ("STEP", AFTER, RunStatus.SUCCEEDED),
        ("SUBMISSION", "", RunStatus.SUCCEEDED),
    ]
    assert [run.attempts.count() for run in alice.runs] == [0, 1, 0, 1, 0]
