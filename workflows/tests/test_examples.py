"""The flows in `examples/`: documents that import unchanged and call what the sandbox offers."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from config.jsonvalues import JsonObject
from sandbox.routes import find_route
from workflows.compiled import CompiledWorkflow, compile_workflow
from workflows.documents import dump_document, parse_document
from workflows.models import WorkflowVersion

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.json"))
CONTEXT: JsonObject = {
    "userAccount": "1234567890",
    "execution": {"idempotencyKey": "k"},
    "billDetails": {"billerId": "city-power", "billNumber": "2024000042"},
}
APPLICANT: JsonObject = {
    "fullName": "Ann Example", "dateOfBirth": "1990-02-03", "nationalId": "X1234567"
}  # fmt: skip
APPLICATION: JsonObject = {
    "product": "SAVINGS",
    "currency": "EUR",
    "address": {"street": "Main St 1", "postalCode": "1000", "city": "Sofia", "country": "BG"},
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


def test_there_are_three_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["account-opening", "bill-payment", "money-transfer"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_document_comes_back_unchanged(path: Path) -> None:
    assert dump_document(parse_document(load(path))) == load(path)


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["account-opening", "bill-payment"])
def test_example_is_published_without_a_warning(name: str) -> None:
    [path] = [path for path in EXAMPLES if path.stem == name]
    err = StringIO()
    call_command("import_workflow", str(path), "--publish", stdout=StringIO(), stderr=err)
    assert err.getvalue() == ""
    assert WorkflowVersion.objects.get().document == load(path)


@pytest.mark.parametrize("name", ["account-opening", "bill-payment", "money-transfer"])
def test_every_call_has_a_path_in_the_sandbox(name: str) -> None:
    workflow = compiled(name)
    triggers = [step.trigger for step in workflow.steps] + [workflow.final_api]
    triggers += [step.compensation for step in workflow.steps]
    calls = [(call.method, call.endpoint.render(CONTEXT)) for call in triggers if call is not None]
    questions = [call.status for call in triggers if call is not None and call.status is not None]
    calls += [(question.method, question.endpoint.render(CONTEXT)) for question in questions]
    assert len(calls) == {"money-transfer": 2, "bill-payment": 4, "account-opening": 3}[name]
    assert [call for call in calls if find_route(*call) is None] == []


def test_late_fee_is_asked_for_an_overdue_bill_only() -> None:
    step = compiled("bill-payment").steps[2]
    assert step.when is not None
    assert step.when.evaluate({"bill": {"overdue": True}}) is True
    assert step.when.evaluate({"bill": {"overdue": False}}) is False


def test_account_is_opened_with_what_the_identity_check_said() -> None:
    mapping = compiled("account-opening").api_mapping
    assert mapping is not None
    kyc: JsonObject = {"checkId": "KYC-1", "verified": True, "riskScore": 12, "status": "DONE"}
    context: JsonObject = {
        "userId": "alice", "applicant": APPLICANT, "application": APPLICATION, "kyc": kyc
    }  # fmt: skip
    assert mapping.apply(context) == {
        "customer": "alice",
        "holder": APPLICANT,
        **APPLICATION,
        "identityCheck": {key: kyc[key] for key in ("checkId", "verified", "riskScore")},
        "referralCode": None,
    }


def test_identity_is_checked_in_the_background_and_not_shown_to_the_app() -> None:
    workflow = compiled("account-opening")
    check = workflow.steps[1]
    assert (check.is_async, workflow.durable_session) == (True, True)
    assert workflow.hidden_keys == {"kyc"}
    assert check.trigger is not None
    assert check.trigger.body is not None
    assert check.trigger.body.apply({"applicant": APPLICANT}) == {
        "fullName": "Ann Example", "dateOfBirth": "1990-02-03", "documentNumber": "X1234567"
    }  # fmt: skip
    # What judging and undoing read is in the answer: nothing of the context has to be kept for them.
    assert check.proceed_roots == frozenset()
    assert check.compensation is not None
    assert check.compensation.roots == frozenset()


def test_account_forms_take_what_they_ask_for() -> None:
    forms = [step.input_schema for step in compiled("account-opening").steps if step.input_schema]
    assert [
        schema.violations(value)
        for schema, value in zip(forms, (APPLICANT, APPLICATION), strict=True)
    ] == [[], []]
    assert [path for path, _ in forms[1].violations({**APPLICATION, "product": "GOLD"})] == [
        "/product"
    ]
