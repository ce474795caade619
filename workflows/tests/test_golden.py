"""Golden runs: made-up contexts against the payload they have to give, and what publishing makes of them."""

from typing import Any

import pytest

from config.ids import new_id
from config.jsonvalues import JsonObject, JsonValue
from workflows import drafts, golden, publishing
from workflows.documents import parse_document
from workflows.errors import (
    DefinitionError,
    DefinitionNotFound,
    DraftChanged,
    DraftNotPublishable,
    GoldenRunsFail,
)
from workflows.golden_check import GoldenResult, payloads_of
from workflows.models import GoldenRun, Workflow, WorkflowVersion
from workflows.tests.samples import form, workflow

MAPPING: JsonObject = {"amount": "form.amount", "to": {"$from": "form.to", "$default": None}}
CONTEXT: JsonObject = {"form": {"amount": 250}}


def document(**config: Any) -> JsonObject:
    return workflow(form(dataKey="form"), **config)


@pytest.fixture
def row() -> Workflow:
    return drafts.import_document(document(apiMapping=MAPPING))[0]


def payload(context: JsonObject, **config: Any) -> GoldenResult:
    (result,) = payloads_of(parse_document(document(**config)), (context,))
    return result


def test_payload_is_what_completing_would_send() -> None:
    assert payload(CONTEXT, apiMapping=MAPPING).payload == {"amount": 250, "to": None}
    # As completing does without a mapping: all of it to a final API, nothing to a record.
    assert payload(CONTEXT, finalApi={"endpoint": "/submit"}).payload == CONTEXT
    assert payload(CONTEXT).payload is None


def test_why_there_is_no_payload() -> None:
    missing = payload({}, apiMapping={"a": "form.amount", "b": "form.to"})
    assert (missing.missing, missing.has_payload) == (("a", "b"), False)
    assert missing.why_not() == "MAPPING_INCOMPLETE: no value for a, b"
    assert payload({}, apiMapping={"a": "("}).why_not() == (
        "The mapping does not compile: a: does not parse: it ends too early."
    )


@pytest.mark.parametrize(
    ("expected", "passes"),
    [
        ({"to": None, "amount": 250}, True),  # the order of keys is nothing
        ({"amount": 250.0, "to": None}, False),  # and a partner reads 250.0 as another number
        ({"amount": "250", "to": None}, False),
        ({"amount": 250}, False),
        (None, False),
    ],
    ids=["order", "fraction", "text", "absent", "null"],
)
def test_payloads_are_compared_as_json(expected: JsonValue, passes: bool) -> None:
    assert payload(CONTEXT, apiMapping=MAPPING).passes(expected) is passes


@pytest.mark.django_db
def test_without_an_expected_payload_the_present_one_is_taken(row: Workflow) -> None:
    run = golden.save_golden_run(row.pk, name=" Small ", context=CONTEXT, by="eve")
    stored = GoldenRun.objects.get()
    assert (stored.pk, stored.name, stored.context) == (run.pk, "Small", CONTEXT)
    assert stored.expected == {"amount": 250, "to": None}
    assert (stored.created_by, stored.updated_by) == ("eve", "eve")
    golden.save_golden_run(
        row.pk, name="Small", context=CONTEXT, expected={"amount": 1}, by="pat", run_id=run.pk
    )
    stored.refresh_from_db()
    assert (stored.expected, stored.created_by, stored.updated_by) == ({"amount": 1}, "eve", "pat")


def refused(row: Workflow, **changes: Any) -> list[str]:
    fields: dict[str, Any] = {"name": "Run", "context": CONTEXT, "by": "eve", **changes}
    with pytest.raises(DefinitionError) as error:
        golden.save_golden_run(row.pk, **fields)
    return [str(problem) for problem in error.value.problems]


@pytest.mark.django_db
def test_what_cannot_be_kept_is_refused_with_its_field(row: Workflow) -> None:
    assert refused(row, name=" ", context=[1]) == [
        "name: must have 1 to 200 characters",
        "context: must be an object",
    ]
    large = {"a": "x" * golden.MAX_BYTES}
    assert refused(row, context=large, expected=large) == [
        "context: must have at most 65536 bytes",
        "expected: must have at most 65536 bytes",
    ]
    assert refused(row, name="a\x00", expected={"a": "\x00"}) == [
        "name: /: NUL characters cannot be stored",
        "expected: /a: NUL characters cannot be stored",
    ]
    assert refused(row, context={}) == [
        "expected: the draft gives no payload for this context (MAPPING_INCOMPLETE: no value for amount)"
    ]
    golden.save_golden_run(row.pk, name="Run", context=CONTEXT, by="eve")
    assert refused(row) == ["name: is taken by another golden run"]
    assert GoldenRun.objects.count() == 1


@pytest.mark.django_db
def test_number_of_golden_runs_is_bounded(row: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "MAX_RUNS", 1)
    run = golden.save_golden_run(row.pk, name="One", context=CONTEXT, by="eve")
    assert refused(row, name="Two") == ["a workflow has at most 1 golden runs"]
    golden.save_golden_run(row.pk, name="Uno", context=CONTEXT, by="eve", run_id=run.pk)
    assert GoldenRun.objects.get().name == "Uno"


@pytest.mark.django_db
def test_golden_run_of_another_workflow_is_not_found(row: Workflow) -> None:
    run = golden.save_golden_run(row.pk, name="One", context=CONTEXT, by="eve")
    other = drafts.import_document(document(), as_new=True)[0]
    with pytest.raises(DefinitionNotFound):
        golden.take_result(other.pk, run.pk, by="eve")
    with pytest.raises(DefinitionNotFound):
        golden.save_golden_run(other.pk, name="x", context={}, by="eve", run_id=run.pk)
    with pytest.raises(DefinitionNotFound):
        golden.save_golden_run(new_id(), name="x", context={}, by="eve")
    golden.delete_golden_run(other.pk, run.pk)
    assert GoldenRun.objects.count() == 1
    golden.delete_golden_run(row.pk, run.pk)
    assert GoldenRun.objects.count() == 0


@pytest.mark.django_db
def test_result_is_taken_of_the_draft_that_was_seen(row: Workflow) -> None:
    run = golden.save_golden_run(row.pk, name="One", context=CONTEXT, expected={}, by="eve")
    drafts.update_workflow(row.pk, {"config": {"apiMapping": {"sum": "form.amount"}}})
    with pytest.raises(DraftChanged):
        golden.take_result(row.pk, run.pk, by="pat", revision=1)
    taken = golden.take_result(row.pk, run.pk, by="pat", revision=2)
    assert (taken.expected, taken.updated_by) == ({"sum": 250}, "pat")


@pytest.mark.django_db
def test_failing_run_stops_publishing_until_it_is_accepted(row: Workflow) -> None:
    golden.save_golden_run(row.pk, name="Small", context=CONTEXT, by="eve")
    publishing.publish(row.pk, by="pat")
    drafts.update_workflow(row.pk, {"config": {"apiMapping": {"sum": "form.amount"}}})
    with pytest.raises(GoldenRunsFail) as error:
        publishing.publish(row.pk, by="pat")
    assert [str(problem) for problem in error.value.problems] == [
        "Small: the payload is another one than expected"
    ]
    assert WorkflowVersion.objects.count() == 1
    version = publishing.publish_draft(row.pk, by="pat", accepts_failing=True).version
    assert version.number == 2
    assert version.changes[0] == "published although the golden run Small failed"
    # Going back must not wait for them.
    golden.save_golden_run(row.pk, name="Other", context=CONTEXT, expected={}, by="eve")
    assert publishing.republish_version(row.pk, 1, by="pat").version.number == 3


@pytest.mark.django_db
def test_problems_forbid_publishing_whatever_is_accepted(row: Workflow) -> None:
    drafts.update_workflow(row.pk, {"config": {"apiMapping": {"a": "("}}})
    with pytest.raises(DraftNotPublishable, match="does not parse"):
        publishing.publish_draft(row.pk, by="pat", accepts_failing=True)
    assert WorkflowVersion.objects.count() == 0
