"""What changed between two versions, in words."""

from config.jsonvalues import JsonObject
from workflows.changes import describe_changes
from workflows.documents import parse_document
from workflows.tests.samples import form, server, workflow


def changes(
    before: JsonObject, after: JsonObject, old: tuple[str, ...], new: tuple[str, ...]
) -> list[str]:
    return describe_changes(parse_document(before), old, parse_document(after), new)


def test_nothing_changed() -> None:
    data = workflow(form(), server(1))
    assert changes(data, data, ("a", "b"), ("a", "b")) == ["nothing changed"]


def test_steps_are_told_apart_by_their_ids() -> None:
    before = workflow(form(label="Enter"), server(1))
    after = workflow(form(label="Fill in"), form(2, label="Confirm"))
    assert changes(before, after, ("a", "b"), ("a", "c")) == [
        "step 'Call 1' removed",
        "step 'Enter' renamed 'Fill in'",
        "step 'Confirm' added",
    ]


def test_columns_and_config_keys_are_named() -> None:
    before = workflow(server(columns={"timeoutMs": 5000}, title="A", headers={"X": "1"}))
    after = workflow(server(columns={"timeoutMs": 100}, title="B", optional=True), name="Other")
    before["config"], after["config"] = {"sensitive": ["pin"]}, {"requiredScopes": ["x"]}
    assert changes(before, after, ("a",), ("a",)) == [
        "name changed",
        "config.sensitive removed",
        "config.requiredScopes added",
        "step 'Call 0': timeoutMs changed from 5000 to 100",
        "step 'Call 0': config.title changed",
        "step 'Call 0': config.headers removed",
        "step 'Call 0': config.optional added",
    ]


def test_true_is_not_one() -> None:
    before, after = workflow(form(app=True)), workflow(form(app=1))
    assert changes(before, after, ("a",), ("a",)) == ["step 'Form': config.app changed"]
