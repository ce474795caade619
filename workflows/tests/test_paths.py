"""What an expression can read where, and a sample of it."""

import json
from pathlib import Path

import pytest

from config.jsonvalues import JsonObject
from workflows.documents import WorkflowDocument, parse_document
from workflows.expressions import compile_expression
from workflows.paths import (
    AvailablePath,
    available_paths,
    call_paths,
    compensation_paths,
    join_names,
    sample_call,
    sample_context,
)
from workflows.tests.samples import form, server, workflow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLOSED: JsonObject = {
    "type": "object",
    "properties": {
        "amount": {"type": "number", "minimum": 1, "maximum": 100},
        "items": {"type": "array", "items": {"type": "object", "properties": {"id": {}}}},
        "to": {"$ref": "#/$defs/party"},
    },
    "required": ["amount"],
    "$defs": {"party": {"type": "object", "properties": {"full name": {"type": "string"}}}},
}


def parsed(*steps: JsonObject, **config: object) -> WorkflowDocument:
    return parse_document(workflow(*steps, **config))  # type: ignore[arg-type]


def by_path(paths: tuple[AvailablePath, ...]) -> dict[str, AvailablePath]:
    return {one.path: one for one in paths}


def test_seed_offers_what_its_mapping_reads(money_transfer: JsonObject) -> None:
    document = parse_document(money_transfer)
    offered = available_paths(document, until=None)
    assert [one.path for one in offered] == [
        "userId",
        "userAccount",
        "transferDetails",
        "transferDetails.amount",
        "transferDetails.recipientAccount",
        "transferDetails.recipientName",
        "validation",
        "validation.token",
        "confirmation",
        "confirmation.accepted",
        "step3",
    ]
    assert [one.path for one in offered if one.is_guess] == [
        "userAccount",
        "transferDetails.amount",
        "transferDetails.recipientAccount",
        "transferDetails.recipientName",
        "validation.token",
    ]
    assert sample_context(document, until=2) == {
        "userId": "sample-user",
        "userAccount": "1234567890",
        "transferDetails": {
            "amount": 250,
            "recipientAccount": "1234567890",
            "recipientName": "Sample Name",
        },
        "validation": {"token": "sample-token"},
    }


def test_only_what_came_before_is_offered(money_transfer: JsonObject) -> None:
    document = parse_document(money_transfer)
    assert [one.path for one in available_paths(document, until=0)] == ["userId", "userAccount"]


def test_schemas_say_types_and_what_may_be_missing() -> None:
    document = parsed(form(dataKey="order", inputSchema=CLOSED), form(1, label="B", dataKey="b"))
    found = by_path(available_paths(document, until=1))
    told = {path: (one.type, one.may_be_missing) for path, one in found.items()}
    assert told == {
        "userId": ("string", False),
        "order": ("object", False),
        "order.amount": ("number", False),
        "order.items": ("array", True),
        "order.items[0]": ("object", True),
        "order.items[0].id": ("any", True),
        "order.to": ("object", True),
        'order.to."full name"': ("string", True),
    }
    assert found["order.amount"].example == 100
    assert found["order"].source == "Form: what was entered"


def test_described_form_offers_nothing_by_guess() -> None:
    document = parsed(
        form(dataKey="order", inputSchema=CLOSED), apiMapping={"x": "order.unheard", "y": "new.z"}
    )
    found = by_path(available_paths(document, until=None))
    assert "order.unheard" not in found
    assert found["new.z"].is_guess is True


def test_closed_initial_context_offers_nothing_else() -> None:
    schema: JsonObject = {
        "properties": {"account": {"type": "string"}},
        "required": ["account"],
        "additionalProperties": False,
    }
    document = parsed(form(), initialContextSchema=schema, apiMapping={"x": "elsewhere"})
    found = by_path(available_paths(document, until=0))
    assert list(found) == ["userId", "account"]
    assert (found["account"].source, found["account"].may_be_missing) == ("initial context", False)


@pytest.mark.parametrize(
    "config", [{"optional": True}, {"when": "userId"}], ids=["optional", "conditional"]
)
def test_step_that_may_be_passed_by_may_be_missing(config: JsonObject) -> None:
    step: JsonObject = {**form(), "config": {"dataKey": "a", **config}}
    document = parsed(step)
    assert by_path(available_paths(document, until=None))["a"].may_be_missing is True


def test_async_answer_may_be_late_but_not_for_the_completion() -> None:
    document = parsed(server(columns={"executionMode": "SERVER_ASYNC"}, dataKey="kyc"))
    assert by_path(available_paths(document, until=1))["kyc"].may_be_missing is True
    assert by_path(available_paths(document, until=None))["kyc"].may_be_missing is False


def test_form_with_a_partner_has_input_and_answer() -> None:
    step = server(columns={"type": "FORM"}, dataKey="a", fields=[{"name": "amount"}], private=True)
    found = available_paths(parsed(step), until=1)
    assert [(one.path, one.is_private) for one in found] == [
        ("userId", False),
        ("a", True),
        ("a.amount", True),
        ("aResult", True),
    ]


def test_conditions_and_own_names_tell_of_answers() -> None:
    step = server(
        dataKey="bill",
        proceedWhen="result.status == 'OPEN' && result.verified",
        compensation={"endpoint": "/undo/${result.id}", "requestMapping": {"a": "context.b"}},
    )
    paths = sorted(one.path for one in available_paths(parsed(step), until=None))
    assert paths == ["b", "bill", "bill.id", "bill.status", "bill.verified", "userId"]


def test_call_sees_input_and_execution() -> None:
    step = server(
        columns={"executionMode": "SERVER_ASYNC"}, requestMapping={"a": "input.a"}, dataKey="k"
    )
    document = parsed(step)
    own = [one.path for one in call_paths(document, step=0)]
    assert own == ["userId", "input", "input.a", "execution", *(
        f"execution.{name}"
        for name in ("id", "workflow", "step", "userId", "idempotencyKey", "callbackUrl")
    )]  # fmt: skip
    undo = [one.path for one in compensation_paths(document, step=0)]
    assert undo[:2] == ["userId", "k"]
    assert undo[-1] == "result"
    assert "execution.callbackUrl" not in undo
    sample = sample_call(document, step=0)
    assert sorted(sample) == ["execution", "input", "result", "userId"]
    assert sample["input"] == {"a": "a"}


def test_every_path_reads_its_example() -> None:
    for file in sorted(EXAMPLES.glob("*.json")):
        document = parse_document(json.loads(file.read_text()))
        sample = sample_context(document, until=None)
        for one in available_paths(document, until=None):
            assert compile_expression(one.path).evaluate(sample) == one.example, one.path


def test_schema_that_refers_to_itself_ends() -> None:
    tree: JsonObject = {
        "type": "object",
        "properties": {name: {"$ref": "#"} for name in ("a", "b", "c", "d", "e", "f", "g", "h")},
    }
    found = available_paths(parsed(form(dataKey="t", inputSchema=tree)), until=None)
    assert len(found) == 500


def test_names_are_quoted_where_they_have_to_be() -> None:
    names: tuple[list[str | int], ...] = (
        ["a", "b-c"],
        ["a", 0, "b"],
        ["a", 0, "b-c"],
        ["a b", "c"],
    )
    expected = ["a.b-c", "a[0].b", 'a[0]."b-c"', '"a b".c']
    assert [join_names(one) for one in names] == expected
