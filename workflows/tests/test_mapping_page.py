"""The mapping configurator: what is opened and saved stays, and everything is told at its row."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from config.jsonvalues import JsonObject, JsonValue, dump_compact
from workflows import drafts
from workflows.documents import dump_document
from workflows.mapping_pages import MAX_ROWS
from workflows.models import Workflow, WorkflowStep
from workflows.tests.samples import form, seed_document, server, workflow
from workflows.tests.test_admin import staff

pytestmark = pytest.mark.django_db

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.json"))
VIEW = ("view_workflow", "view_workflowstep")
EDIT = (*VIEW, "change_workflow", "change_workflowstep")
UNDO: JsonObject = {"endpoint": "/undo", "requestMapping": {"id": "result.id"}, "method": "POST"}
JSON = {"Accept": "application/json"}


def imported(document: JsonObject) -> Workflow:
    return drafts.import_document(document)[0]


def document_of(row: Workflow) -> bytes:
    return dump_compact(dump_document(Workflow.objects.get(pk=row.pk).document()))


def address(row: Workflow | WorkflowStep, page: str = "mapping") -> str:
    return reverse(f"admin:workflows_{row._meta.model_name}_{page}", args=[row.pk])


def opened(client: Client, url: str, *, spare: bool = False) -> dict[str, list[str]]:
    """The form's fields as a browser without scripts would send them, line breaks of fields lost."""
    page = client.get(url)
    assert page.status_code == 200
    text = page.content.decode()
    if not spare:
        text = re.sub(r"<noscript>.*?</noscript>", "", text, flags=re.DOTALL)
    text = text[
        text.index('<form id="mapping"') : text.index("</form>", text.index('id="mapping"'))
    ]
    fields: dict[str, list[str]] = {}
    for found in re.finditer(
        r'<input[^>]*? name="(?P<name>[^"]+)"(?P<rest>[^>]*)>'
        r'|<select[^>]*name="(?P<select>[^"]+)">(?P<options>.*?)</select>'
        r'|<textarea[^>]*name="(?P<area>[^"]+)"[^>]*>(?P<content>.*?)</textarea>',
        text, re.DOTALL,
    ):  # fmt: skip
        if found["select"]:
            (value,) = re.findall(r'value="([^"]*)" selected', found["options"])
        elif found["area"]:
            value = found["content"].removeprefix("\n").replace("\n", "\r\n")
        else:
            value = re.sub(r"[\r\n]", "", re.search(r'value="([^"]*)"', found[0])[1])  # type: ignore[index]
        name = found["name"] or found["select"] or found["area"]
        fields.setdefault(name, []).append(html.unescape(value))
    return fields


def save(client: Client, url: str, fields: dict[str, list[str]], do: str = "save") -> Any:
    return client.post(url, {**fields, "do": do})


def first_step(row: Workflow, index: int = 0) -> WorkflowStep:
    return row.steps.order_by("order")[index]


# --- nothing is lost ------------------------------------------------------------------------------


def places(row: Workflow) -> list[str]:
    steps = [*row.steps.order_by("order")]
    urls = [address(row), *(address(step) for step in steps)]
    return urls + [
        address(step, "compensation-mapping")
        for step in steps
        if "compensation" in (step.config or {})
    ]


@pytest.mark.parametrize("do", ["save", "save-json"])
@pytest.mark.parametrize("name", ["seed", *(path.name for path in EXAMPLES)])
def test_saving_without_a_change_changes_nothing(name: str, do: str) -> None:
    paths = {path.name: path for path in EXAMPLES}
    row = imported(json.loads(paths[name].read_text()) if name in paths else seed_document())
    before = document_of(row)
    client = staff(*EDIT)
    for url in places(row):
        assert save(client, url, opened(client, url), do).status_code == 302
    assert document_of(row) == before
    assert Workflow.objects.get(pk=row.pk).revision == row.revision


AWKWARD: JsonObject = {
    "big": 2**80,
    "whole": 1.0,
    "dotted.name": "a.b",
    "lines": "a ||\r\n  b",
    "two\nlines": {"$from": "a"},
    "back": {"$default": [1, {"x": "'y'"}], "$from": "a"},
    "": "a",
    "list": [[], {}, None, "'it\\'s'", '`"q\\\\"`'],
    "quotes": "\"<script>alert('stored')</script>\"",
}


@pytest.mark.parametrize("mapping", [AWKWARD, [AWKWARD], "a", 1, {}, False, {"$from": 3}])
def test_an_awkward_mapping_stays_when_its_neighbour_changes(mapping: JsonValue) -> None:
    row = imported(workflow(form(), apiMapping={"first": "a", "kept": mapping}, sensitive=["pin"]))
    client = staff(*EDIT)
    fields = opened(client, address(row))
    fields["row_text"][1] = "c"
    assert save(client, address(row), fields).status_code == 302
    expected: JsonObject = {"apiMapping": {"first": "c", "kept": mapping}, "sensitive": ["pin"]}
    config = Workflow.objects.get(pk=row.pk).config
    assert dump_compact(config) == dump_compact(expected)


# --- editing --------------------------------------------------------------------------------------


def test_rows_are_saved_into_the_draft() -> None:
    row = imported(workflow(form()))
    client = staff(*EDIT)
    fields = opened(client, address(row))
    assert fields["row_kind"] == ["none"]
    fields |= {
        "row_origin": ["0", "", "", "", ""],
        "row_shape": [""] * 5,
        "row_depth": ["0", "1", "2", "1", "1"],
        "row_kind": ["object", "object", "source", "text", "source"],
        "row_name": ["", "to", "a.b", "currency", ""],
        "row_text": ["", "", "step0.iban", "USD", ""],
        "row_default": ["", "", "null", "", ""],
    }
    assert save(client, address(row), fields).status_code == 302
    changed = Workflow.objects.get(pk=row.pk)
    assert changed.config == {
        "apiMapping": {
            "to": {"a.b": {"$from": "step0.iban", "$default": None}},
            "currency": "'USD'",
        }
    }
    assert changed.revision == row.revision + 1


def test_spare_rows_take_new_ones_where_no_script_runs() -> None:
    row = imported(workflow(form(), apiMapping={"a": "step0.a"}))
    client = staff(*EDIT)
    fields = opened(client, address(row), spare=True)
    assert fields["row_name"] == ["", "a", "", "", ""]
    fields["row_name"][3], fields["row_text"][3] = "b", "step0.b"
    assert save(client, address(row), fields).status_code == 302
    config = Workflow.objects.get(pk=row.pk).config
    assert config == {"apiMapping": {"a": "step0.a", "b": "step0.b"}}


def test_a_page_takes_few_queries() -> None:
    row = imported(
        workflow(*(server(number, requestMapping={"a": "input.a"}) for number in range(9)))
    )
    client = staff(*EDIT)
    for url in (address(row), address(first_step(row, 8))):
        with CaptureQueriesContext(connection) as captured:
            assert client.get(url).status_code == 200
        assert len(captured) <= 12


def test_steps_and_compensations_have_mappings_of_their_own() -> None:
    row = imported(
        workflow(server(requestMapping={"a": "input.a"}, compensation=UNDO, dataKey="k"))
    )
    client, step = staff(*EDIT), first_step(row)
    for page in ("mapping", "compensation-mapping"):
        url = address(step, page)
        fields = opened(client, url)
        fields["row_name"][1] = "renamed"
        assert save(client, url, fields).status_code == 302
    assert list(first_step(row).config.items()) == [
        ("requestMapping", {"renamed": "input.a"}),
        ("compensation", {**UNDO, "requestMapping": {"renamed": "result.id"}}),
        ("dataKey", "k"),
    ]


def test_a_draft_that_moved_on_is_not_overwritten() -> None:
    row = imported(seed_document())
    client = staff(*EDIT)
    fields = opened(client, address(row))
    drafts.update_workflow(row.pk, {"description": "meanwhile"})
    before = document_of(row)
    fields["row_text"][1] = "mine"
    answer = save(client, address(row), fields)
    assert answer.status_code == 409
    assert "has been changed by someone else" in answer.content.decode()
    assert 'value="mine"' in answer.content.decode()  # what was entered is still there
    assert document_of(row) == before


def test_mistakes_are_not_saved_and_stand_at_their_rows() -> None:
    row = imported(seed_document())
    client, before = staff(*EDIT), document_of(row)
    fields = opened(client, address(row))
    fields["row_name"][2] = fields["row_name"][1]
    answer = save(client, address(row), fields)
    assert answer.status_code == 409
    assert [one["problems"] for one in answer.context["rows"]][:3] == [
        None, None, ["amount is there twice in this object"],
    ]  # fmt: skip
    assert document_of(row) == before


def test_a_draft_that_cannot_be_published_is_saved_and_says_so() -> None:
    row = imported(workflow(form(), apiMapping={"a": "step0.a"}))
    client = staff(*EDIT)
    fields = opened(client, address(row))
    fields["row_text"][1] = "input.x"
    page = client.post(address(row), {**fields, "do": "save"}, follow=True)
    assert [str(one) for one in page.context["messages"]] == [
        "The draft is saved.", "One row stops the draft from being published.",
    ]  # fmt: skip
    assert page.context["rows"][1]["problems"] == [
        "input does not exist here",
        "has no value in the sample, and no default: MAPPING_INCOMPLETE, nothing would be sent",
    ]


def test_a_dotted_name_is_nested_on_request_only() -> None:
    row = imported(workflow(form(), apiMapping={"to.name": "step0.n"}))
    client = staff(*EDIT)
    fields = opened(client, address(row))
    page = save(client, address(row), fields, "nest:1")
    assert [(one["depth"], one["kind"], one["name"]) for one in page.context["rows"]] == [
        (0, "object", ""), (1, "object", "to"), (2, "source", "name"),
    ]  # fmt: skip
    assert Workflow.objects.get(pk=row.pk).config == {"apiMapping": {"to.name": "step0.n"}}


def test_large_mappings_are_edited_as_json() -> None:
    large: JsonObject = {f"f{number}": "step0.a" for number in range(MAX_ROWS + 1)}
    row = imported(workflow(form(), apiMapping=large))
    client = staff(*EDIT)
    fields = opened(client, address(row))
    assert (fields["from"], "row_name" in fields) == (["text"], False)
    assert save(client, address(row), fields).status_code == 302
    assert Workflow.objects.get(pk=row.pk).config == {"apiMapping": large}


def test_json_that_does_not_read_is_told() -> None:
    row = imported(seed_document())
    client, before = staff(*EDIT), document_of(row)
    fields = {**opened(client, address(row)), "text": ['{"a": 1, "a": 2}']}
    answer = save(client, address(row), fields, "save-json")
    assert (answer.status_code, answer.context["entered"].text_error) == (
        409, 'it has the key "a" twice in one object',
    )  # fmt: skip
    assert document_of(row) == before


def test_a_step_that_calls_nobody_gets_no_mapping() -> None:
    row = imported(
        workflow(form(), form(1, label="Old", dataKey="old", requestMapping={"a": "userId"}))
    )
    client = staff(*EDIT)
    for step in row.steps.order_by("order"):
        fields = {**opened(client, address(step)), "text": ['{"b": "userId"}']}
        answer = save(client, address(step), fields, "save-json")
        assert answer.status_code == 409
        assert answer.context["error"].startswith("Not saved: the step calls nobody")
    assert Workflow.objects.get(pk=row.pk).revision == 1
    old = first_step(row, 1)
    fields = {**opened(client, address(old)), "text": [""]}
    assert save(client, address(old), fields, "save-json").status_code == 302
    assert first_step(row, 1).config == {"dataKey": "old"}


# --- previews -------------------------------------------------------------------------------------


def preview(client: Client, row: Workflow | WorkflowStep, rows: list[Any], **fields: str) -> Any:
    names = ("origin", "shape", "depth", "kind", "name", "text", "default")
    sent = [dict(zip(names, ("", "", *one), strict=True)) for one in rows]
    data = {"do": "preview", "from": "rows", "sample": "{}", "rows": json.dumps(sent), **fields}
    answer = client.post(address(row), data, headers=JSON)
    assert answer.status_code == 200
    return answer.json()


OBJECT = ("0", "object", "", "", "")


def test_a_preview_is_what_production_computes() -> None:
    row = imported(seed_document())
    big = 2**70
    shown = preview(
        staff(*VIEW), row,
        [OBJECT, ("1", "source", "amount", "context.transferDetails.amount", ""),
         ("1", "source", "token", "validation.token", '"none"'), ("1", "literal", "n", "1.0", "")],
        sample=f'{{"transferDetails": {{"amount": {big}}}}}',
    )  # fmt: skip
    assert shown["payload"] == f'{{\n  "amount": {big},\n  "token": "none",\n  "n": 1.0\n}}\n'
    assert shown["values"] == {"1": str(big), "2": '"none"', "3": "1.0"}
    assert (shown["problems"], shown["general"]) == ({}, [])
    assert json.loads(shown["text"])["token"] == {"$from": "validation.token", "$default": "none"}


def test_a_preview_tells_each_problem_at_its_row() -> None:
    row = imported(workflow(form(dataKey="a"), initialContextSchema={"properties": {}}))
    shown = preview(
        staff(*VIEW), row,
        [OBJECT, ("1", "source", "x", "nobody.knows", "1"), ("1", "source", "y", "a.b", ""),
         ("1", "source", "z", "a.(", "")],
        sample='{"a": {}}',
    )  # fmt: skip
    assert shown["payload"] is None
    assert shown["problems"]["1"] == ["no step and no initial context produces nobody"]
    assert shown["problems"]["2"] == [
        "has no value in the sample, and no default: MAPPING_INCOMPLETE, nothing would be sent"
    ]
    assert len(shown["problems"]["3"]) == 1
    assert shown["problems"]["3"][0].startswith("does not parse at position")


@pytest.mark.parametrize("sample", ["", "[1]", "{", '{"a": NaN}'])
def test_a_sample_that_is_no_object_is_told(sample: str) -> None:
    row = imported(workflow(form()))
    shown = preview(staff(*VIEW), row, [OBJECT, ("1", "source", "x", "a", "")], sample=sample)
    assert shown["sampleError"]
    assert (shown["payload"], shown["values"], shown["problems"]) == (None, {}, {})


def test_json_becomes_rows() -> None:
    row = imported(workflow(form()))
    text = '{"n": 123456789012345678901234567890, "t": "\'x\'"}'
    shown = preview(staff(*VIEW), row, [], **{"from": "text", "text": text})
    assert [(one["kind"], one["name"], one["text"]) for one in shown["rows"]] == [
        ("object", "", ""), ("literal", "n", "123456789012345678901234567890"), ("text", "t", "x"),
    ]  # fmt: skip
    assert shown["opened"] == text


def test_what_builds_no_mapping_is_neither_none_nor_sent() -> None:
    row = imported(workflow(form()))
    client = staff(*VIEW)
    nameless = preview(client, row, [OBJECT, ("1", "source", "", "a", "")])
    assert (nameless["isBuilt"], nameless["isNone"], nameless["payload"]) == (False, False, None)
    broken = preview(client, row, [], **{"from": "text", "text": "{"})
    assert (broken["isBuilt"], broken["isNone"]) == (False, False)
    none = preview(client, row, [("0", "none", "", "", "")])
    assert (none["isBuilt"], none["isNone"], none["text"]) == (True, True, "")


def test_previews_store_nothing() -> None:
    row = imported(seed_document())
    before = document_of(row)
    preview(staff(*EDIT), row, [OBJECT])
    assert document_of(row) == before


@pytest.mark.parametrize(
    "data",
    [
        {"rows": "[1]"},
        {"rows": "no"},
        {"rows": '[{"kind": "evil"}]'},
        {"row_name": ["a"], "row_kind": ["text", "text"]},
        {"row_depth": ["x"], "row_kind": ["text"], "row_name": ["a"], "row_text": ["a"],
         "row_default": [""], "row_origin": [""], "row_shape": [""]},
    ],
)  # fmt: skip
def test_what_no_page_sends_is_refused(data: dict[str, Any]) -> None:
    row = imported(workflow(form()))
    answer = staff(*EDIT).post(address(row), {"do": "preview", **data}, headers=JSON)
    assert answer.status_code == 400


# --- rights ---------------------------------------------------------------------------------------


def test_viewers_may_try_and_not_save() -> None:
    row = imported(seed_document())
    client, before = staff(*VIEW), document_of(row)
    fields = opened(client, address(row))
    assert 'value="save"' not in client.get(address(row)).content.decode()
    fields["row_text"][1] = "mine"
    assert save(client, address(row), fields).status_code == 403
    assert save(client, address(row), fields, "save-json").status_code == 403
    assert document_of(row) == before


def test_strangers_see_nothing_and_forgers_are_refused() -> None:
    row = imported(seed_document())
    assert staff().get(address(row)).status_code == 403
    assert staff().post(address(row), {"do": "preview"}, headers=JSON).status_code == 403
    assert Client().post(address(row), {"do": "preview"}).status_code == 302
    checking = Client(enforce_csrf_checks=True)
    checking.force_login(staff_user())
    assert checking.post(address(row), {"do": "preview"}, headers=JSON).status_code == 403


def staff_user() -> Any:
    client = staff(superuser=True)
    from django.contrib.auth.models import User  # noqa: PLC0415 - only here

    return User.objects.get(pk=client.session["_auth_user_id"])


def test_hostile_text_stays_text() -> None:
    script = "<script>alert('stored')</script>"
    mapping: JsonObject = {
        script: f"'{script}'",
        "x": script,
        "y": {"$from": "a", "$default": script},
    }
    row = imported(workflow(form(label=script), apiMapping=mapping, name=script))
    page = staff(superuser=True).get(address(row)).content.decode()
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert") > 5


def test_pages_are_offered_where_they_mean_something() -> None:
    row = imported(workflow(form(), server(1), server(2, compensation=UNDO)))
    client = staff(superuser=True)
    offered = [
        [link.title for link in client.get(address(step)).context["page_links"]]
        for step in row.steps.order_by("order")
    ]
    assert "Request mapping" not in offered[0]
    assert "Request mapping" in offered[1]
    assert "Compensation mapping" not in offered[1]
    assert "Compensation mapping" in offered[2]
    page = client.get(address(first_step(row, 1), "compensation-mapping")).content.decode()
    assert "No compensation" in page
    assert "calls nobody" in client.get(address(first_step(row))).content.decode()
