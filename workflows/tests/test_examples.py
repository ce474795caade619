"""The flows in `examples/`: documents that import unchanged and call what the sandbox offers."""

import json
from pathlib import Path

import pytest

from config.jsonvalues import JsonObject
from sandbox.routes import find_route
from workflows.compiled import CompiledWorkflow, compile_workflow
from workflows.documents import dump_document, parse_document

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.json"))
CONTEXT: JsonObject = {
    "userAccount": "1234567890",
    "execution": {"idempotencyKey": "k"},
    "billDetails": {"billerId": "city-power", "billNumber": "2024000042"},
}


def load(path: Path) -> JsonObject:
    document: JsonObject = json.loads(path.read_text())
    return document


def compiled(name: str) -> CompiledWorkflow:
    [path] = [path for path in EXAMPLES if path.stem == name]
    document = parse_document(load(path))
    step_ids = [f"step-{position}" for position in range(len(document.steps))]
    return compile_workflow(
        version_id="v", workflow_id="w", number=1, document=document, step_ids=step_ids
    )


def test_there_are_two_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["bill-payment", "money-transfer"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_document_comes_back_unchanged(path: Path) -> None:
    assert dump_document(parse_document(load(path))) == load(path)


@pytest.mark.parametrize("name", ["bill-payment", "money-transfer"])
def test_every_call_has_a_path_in_the_sandbox(name: str) -> None:
    workflow = compiled(name)
    triggers = [step.trigger for step in workflow.steps] + [workflow.final_api]
    calls = [(call.method, call.endpoint.render(CONTEXT)) for call in triggers if call is not None]
    questions = [call.status for call in triggers if call is not None and call.status is not None]
    calls += [(question.method, question.endpoint.render(CONTEXT)) for question in questions]
    assert len(calls) == {"money-transfer": 2, "bill-payment": 4}[name]
    assert [call for call in calls if find_route(*call) is None] == []


def test_late_fee_is_asked_for_an_overdue_bill_only() -> None:
    step = compiled("bill-payment").steps[2]
    assert step.when is not None
    assert step.when.evaluate({"bill": {"overdue": True}}) is True
    assert step.when.evaluate({"bill": {"overdue": False}}) is False
