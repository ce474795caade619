"""The pages of drafts: everything a field, every problem at its field, nothing else touched."""

import html
import json
import re
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from config import rights
from config.jsonvalues import JsonObject, JsonValue, dump_compact
from workflows import drafts, publishing
from workflows.connections import set_connection
from workflows.document_shape import document_problems
from workflows.documents import dump_document, parse_document
from workflows.draft_forms import StepForm, WorkflowForm
from workflows.history import workflow_history
from workflows.models import Workflow, WorkflowStep
from workflows.tests.samples import form, seed_document, server, workflow

pytestmark = pytest.mark.django_db
Row: TypeAlias = "Workflow | WorkflowStep"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPT = "<script>alert(1)</script>"
EVERYTHING: JsonObject = workflow(
    form(
        3, label="Spaces  ", dataKey="a", title="", message="Two\nlines", optional=False, private=True,
        formId="f", fields=[{"name": "x", "kind": "text", "more": {"a": [1]}}], app=None, reversible=False,
        inputSchema={"properties": {"x": {"type": "string", "minLength": 1.0}}, "required": []},
        when="userId", proceedWhen="input.x",
    ),
    server(
        7, columns={"executionMode": "SERVER_ASYNC", "timeoutMs": 100, "label": "Call",
                    "retryConfig": {"backoffMultiplier": 1.50, "maxRetries": 0}},
        headers={"X-A": "${a.x}", "X-B": " b"}, connection="gone", method="PUT",
        requestMapping={"n": 10**30, "f": 1e23, "t": {"$from": "a", "$default": None}},
        status={"endpoint": "/s", "method": "GET", "expect": "result.a"},
        compensation={"endpoint": "/c", "method": "POST", "requestMapping": {},
                      "retryConfig": {"maxDelayMs": 0}},
        app={"z": 1, "a": "${a.x}"},
    ),
    form(8, label="Odd", inputSchema={"anyOf": [{"type": "object"}]}, fields="free"),
    name="All\u00a0of it", sensitive=["a.x", "b"], requiredScopes=["s"], durableSession=False,
    sessionTtlSeconds=60, apiMapping={"z": "a.x", "a": 1.0}, initialContextSchema=True,
    finalApi={"endpoint": "/f", "retryConfig": {}, "timeoutMs": 120_000},
) | {"description": ""}  # fmt: skip


DATA_KEY = (
    "must start with a letter or _, go on with letters, digits, _ or -, "
    "and have at most 100 characters"
)


def imported(data: JsonObject) -> Workflow:
    return drafts.import_document(data)[0]


def document(row: Workflow) -> JsonObject:
    return dump_document(Workflow.objects.get(pk=row.pk).document())


def in_order(data: JsonObject) -> bytes:
    """The document's text, its own keys in the order of an export; those inside stay in theirs."""
    return dump_compact(dump_document(parse_document(data)))


def steps_of(row: Workflow) -> list[WorkflowStep]:
    return list(WorkflowStep.objects.filter(workflow=row).order_by("order"))


def rows_of(row: Workflow) -> list[Row]:
    """The workflow and its steps: every row with a page of its own."""
    return [row, *steps_of(row)]


def signed_in(role: str | None = None) -> Client:
    user = User.objects.create_user(f"{role}-{uuid4()}", is_staff=True, is_superuser=role is None)
    if role:
        user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def editor() -> Client:
    """Signed in, may change drafts and not publish them."""
    return signed_in(rights.EDITOR)


def address(row: Row, action: str = "change") -> str:
    return reverse(f"admin:workflows_{type(row).__name__.lower()}_{action}", args=[row.pk])


def step_of(row: Workflow, label: str) -> WorkflowStep:
    return row.steps.get(label=label)


def sent_by(page: str, form_id: str) -> dict[str, Any]:
    """What a browser would send of the form, without a script: every named control as it stands."""
    body = re.search(rf'<form[^>]*id="{form_id}".*?</form>', page, re.DOTALL)
    assert body is not None
    text = re.sub(r"<template>.*?</template>", "", body[0], flags=re.DOTALL)
    data: dict[str, Any] = {}
    pattern = (
        r"<input ([^>]*)>|<textarea ([^>]*)>\n?(.*?)</textarea>|<select ([^>]*)>(.*?)</select>"
    )
    for control, area, inside, select, options in re.findall(pattern, text, re.DOTALL):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', control or area or select))
        name, flags = attributes.get("name"), re.sub(r'"[^"]*"', "", control).split()
        if name is None or (
            attributes.get("type") in ("checkbox", "radio") and "checked" not in flags
        ):
            continue
        value = attributes.get("value", "on" if "checked" in flags else "")
        if area:
            value = inside
        if select:
            chosen = re.search(r'<option value="([^"]*)" ?selected', options)
            first = re.search(r'<option value="([^"]*)"', options)
            found = chosen or first
            value = found[1] if found else ""
        data[name] = html.unescape(value).replace("\r\n", "\n").replace("\n", "\r\n")
    return data


def shown(client: Client, row: Row) -> dict[str, Any]:
    answer = client.get(address(row))
    assert answer.status_code == 200
    return sent_by(answer.content.decode(), "settings" if isinstance(row, Workflow) else "step")


def errors(answer: Any) -> dict[str, list[str]]:
    assert answer.status_code == 200
    return {name: list(said) for name, said in answer.context["form"].errors.items()}


def change(client: Client, row: Row, **fields: Any) -> Any:
    return client.post(address(row), {**shown(client, row), **fields})


DOCUMENTS = [
    seed_document(),
    EVERYTHING,
    *(json.loads(file.read_text()) for file in sorted(EXAMPLES.glob("*.json"))),
]


@pytest.mark.parametrize("data", DOCUMENTS, ids=lambda data: data["name"])
def test_saving_without_a_change_changes_no_byte(data: JsonObject, editor: Client) -> None:
    row = imported(data)
    for one in rows_of(row):
        answer = change(editor, one)
        assert (answer.status_code, one) == (302, one)
    assert dump_compact(document(row)) == in_order(data)
    assert Workflow.objects.get(pk=row.pk).revision == 1


@pytest.mark.parametrize("data", DOCUMENTS, ids=lambda data: data["name"])
def test_one_change_leaves_all_else_as_it_is(data: JsonObject, editor: Client) -> None:
    row = imported(data)
    for number, one in enumerate(steps_of(row)):
        assert change(editor, one, label=f"Step {number}").status_code == 302
    assert change(editor, row, name="Renamed").status_code == 302
    steps: Any = data["steps"]
    renamed: list[JsonValue] = [{**step, "label": f"Step {at}"} for at, step in enumerate(steps)]
    expected: JsonObject = {**data, "name": "Renamed", "steps": renamed}
    assert dump_compact(document(row)) == in_order(expected)


def as_inputs_send(sent: dict[str, Any]) -> dict[str, Any]:
    """What a browser makes of it: an input of one line drops the line breaks."""
    areas = {"description", "message", "headers", "sensitive", "required_scopes"}
    return {
        name: value if name in areas else str(value).replace("\r", "").replace("\n", "")
        for name, value in sent.items()
    }


def test_line_breaks_that_one_line_cannot_show_stay_until_it_is_changed(editor: Client) -> None:
    step = server(
        0, columns={"label": "Two\nlines"}, title="T\nU", when="userId\n== 'a\nb'",
        fields=[{"name": "x\ny", "label": "X\nY", "help": "Say\r\nwhat"}, {"name": "z"}],
    )  # fmt: skip
    row = imported(workflow(step))
    (one,) = steps_of(row)
    data = as_inputs_send(shown(editor, one))
    assert data["title"] == "TU"
    assert editor.post(address(one), data).status_code == 302
    assert dump_compact(document(row)["steps"]) == dump_compact([step])
    assert Workflow.objects.get().revision == 1
    at = next(
        key[: -len("name")] for key, value in data.items() if value == "z" and "-was" not in key
    )
    answer = editor.post(address(one), {**data, "title": "TV", f"{at}label": "Z"})
    assert answer.status_code == 302
    config: Any = step["config"]
    x, z = config["fields"]
    changed = {**config, "title": "TV", "fields": [x, {**z, "label": "Z"}]}
    assert document(row)["steps"] == [{**step, "config": changed}]


def test_every_key_of_the_document_has_a_field() -> None:
    unknown: JsonObject = {**form(), "config": {"?": 1}}
    said = document_problems({"name": "x", "config": {"?": 1}, "steps": [unknown]})
    known = {one.path: set(one.message.partition("known are ")[2].split(", ")) for one in said}

    def covered(form_class: Any) -> set[str]:
        parts = form_class.base_fields.values()
        return {part.path[1] for part in parts if getattr(part, "path", ("",))[0] == "config"}

    assert covered(WorkflowForm) == known['config["?"]']
    assert covered(StepForm) == known['steps[0].config["?"]']


def test_seed_is_built_through_the_screens_alone(editor: Client) -> None:
    seed = seed_document()
    answer = editor.post(
        reverse("admin:workflows_workflow_add"),
        {"name": seed["name"], "description": seed["description"]},
    )
    row = Workflow.objects.get()
    assert answer["Location"] == address(row)
    config: Any = seed["config"]
    change(editor, row, api_mapping=json.dumps(config["apiMapping"]))
    steps: Any = seed["steps"]
    names = {"triggerTiming": "trigger_timing", "triggerEndpoint": "trigger_endpoint",
             "timeoutMs": "timeout_ms", "executionMode": "execution_mode"}  # fmt: skip
    inner = {
        "formId": "form_id",
        "dataKey": "data_key",
        "title": "title",
        "message": "message",
        "method": "method",
    }
    for step in steps:
        row.refresh_from_db()
        editor.post(address(row), {"act": "add", "seen_revision": row.revision, "label": step["label"],
                                   "type": step["type"]})  # fmt: skip
        added = step_of(row, step["label"])
        entered = {names[key]: value for key, value in step.items() if key in names}
        entered |= {inner[key]: value for key, value in step["config"].items()}
        retry = step.get("retryConfig", {})
        entered |= {"retry_max_retries": retry.get("maxRetries", ""),
                    "retry_initial_delay_ms": retry.get("initialDelayMs", "")}  # fmt: skip
        assert change(editor, added, **entered).status_code == 302
    assert document(row) == seed


# --- problems at their fields ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entered", "expected"),
    [
        ({"label": ""}, {"label": ["This field is required."]}),
        ({"label": " "}, {"label": ["must not be empty"]}),
        ({"order": "0"}, {"order": ["is taken: another step has order 0"]}),
        ({"timeout_ms": "99"}, {"timeout_ms": ["must be between 100 and 120000"]}),
        ({"timeout_ms": "x"}, {"timeout_ms": ["Enter a whole number."]}),
        ({"retry_max_retries": "11"}, {"retry_max_retries": ["must be between 0 and 10"]}),
        ({"retry_backoff_multiplier": "nan"}, {"retry_backoff_multiplier": ["Enter a number."]}),
        ({"retry_backoff_multiplier": "0.5"}, {"retry_backoff_multiplier": ["must be between 1 and 10"]}),
        ({"data_key": "1a"}, {"data_key": [
            DATA_KEY
        ]}),
        ({"status_method": "GET"}, {"status_endpoint": ["is required"]}),
        ({"compensation_retry_max_delay_ms": "-1"}, {
            "compensation_endpoint": ["is required"],
            "compensation_retry_max_delay_ms": ["must be between 0 and 3600000"],
        }),
        ({"headers": "no colon"}, {"headers": ["A line is Name: text, unlike 'no colon'."]}),
        ({"headers": "A: 1\r\nA: 2"}, {"headers": ["A is there twice."]}),
        ({"request_mapping": "{"}, {"request_mapping": [
            "it is not JSON: Expecting property name enclosed in double quotes (line 1, column 2)"
        ]}),
        ({"request_mapping": "null"}, {"request_mapping": ["must not be null; leave it out instead"]}),
        ({"when": "x" * 501}, {"when": ["must have at most 500 characters"]}),
        ({"type": "X"}, {"type": ["Select a valid choice. X is not one of the available choices."]}),
    ],
    ids=lambda value: ",".join(value.keys()),
)  # fmt: skip
def test_problem_stands_at_its_field(
    entered: dict[str, str], expected: dict[str, list[str]], editor: Client
) -> None:
    row = imported(workflow(form(0, label="A"), server(1)))
    answer = change(editor, step_of(row, "Call 1"), **entered)
    assert errors(answer) == expected
    for name in expected:
        assert f'id="id_{name}_error"' in answer.content.decode()
    assert document(row)["steps"][1] == server(1)  # type: ignore[index]


@pytest.mark.parametrize(
    ("entered", "expected"),
    [
        ({"name": "x" * 201}, {"name": ["must have at most 200 characters"]}),
        ({"session_ttl_seconds": "5"}, {"session_ttl_seconds": ["must be between 60 and 86400"]}),
        ({"final_method": "PUT"}, {"final_endpoint": ["is required"]}),
        ({"sensitive": "x" * 501}, {"sensitive": ["must have at most 500 characters"]}),
        ({"rows-as": "json", "initial_context_schema": "[]"}, {
            "initial_context_schema": ["must be a JSON Schema (an object), not a list"]
        }),
    ],
    ids=lambda value: ",".join(value.keys()),
)  # fmt: skip
def test_problem_of_a_workflow_stands_at_its_field(
    entered: dict[str, str], expected: dict[str, list[str]], editor: Client
) -> None:
    row = imported(workflow(form()))
    assert errors(change(editor, row, **entered)) == expected
    assert Workflow.objects.get().revision == 1


def test_settings_without_a_use_are_refused_at_their_fields(editor: Client) -> None:
    row = imported(workflow(form(0, label="A"), server(1)))
    answer = change(
        editor, step_of(row, "A"), trigger_endpoint="/x", method="PUT", trigger_timing="BOTH"
    )
    useless = "has no use: a CLIENT_ONLY step calls nobody; clear it or choose a server mode"
    assert errors(answer) == {
        "trigger_endpoint": [useless],
        "method": [useless],
        "trigger_timing": ["must be AFTER_STEP: a CLIENT_ONLY step has nothing to do before it"],
    }
    answer = change(editor, step_of(row, "Call 1"), execution_mode="CLIENT_ONLY")
    assert errors(answer) == {"trigger_endpoint": [useless]}
    assert Workflow.objects.get().revision == 1


def test_useless_settings_of_an_import_stay_until_they_are_touched(editor: Client) -> None:
    row = imported(workflow(form(label="A", method="PUT")))
    assert change(editor, step_of(row, "A"), title="T").status_code == 302
    assert document(row)["steps"] == [form(label="A", method="PUT", title="T")]


def test_check_of_the_draft_stands_at_step_and_field(editor: Client) -> None:
    row = imported(
        workflow(form(0, label="A", when="(", message="${gone}"), server(1, connection="no"))
    )
    page = editor.get(address(row))
    assert [
        ([str(one) for one in step.problems], [str(one) for one in step.warnings])
        for step in page.context["steps"]
    ] == [
        (["config.when: does not parse: it ends too early"],
         ["config.message: gone is no data key: taken to come from the initial context"]),
        (["config.connection: there is no connection no"], []),
    ]  # fmt: skip
    said = {
        field.name: [one.message for one in notes]
        for field, notes in editor.get(address(step_of(row, "A"))).context["form"].said()
    }
    assert said == {
        "when": ["does not parse: it ends too early"],
        "message": ["gone is no data key: taken to come from the initial context"],
    }


# --- the field editor -----------------------------------------------------------------------------


def test_rows_write_schema_and_fields(editor: Client) -> None:
    row = imported(workflow(form(label="A")))
    rows = {"rows-as": "rows", "rows-0-name": "amount", "rows-0-label": "Amount", "rows-0-type": "number",
            "rows-0-required": "on", "rows-0-least": "1", "rows-1-name": "speed", "rows-1-type": "choice",
            "rows-1-choices": "NOW\r\nLATER"}  # fmt: skip
    data = {
        key: value for key, value in shown(editor, step_of(row, "A")).items() if "rows-" not in key
    }
    assert editor.post(address(step_of(row, "A")), {**data, **rows}).status_code == 302
    expected = form(
        label="A",
        inputSchema={
            "type": "object",
            "properties": {
                "amount": {"type": "number", "minimum": 1},
                "speed": {"enum": ["NOW", "LATER"]},
            },
            "required": ["amount"],
            "additionalProperties": False,
        },
        fields=[{"name": "amount", "label": "Amount"}],
    )
    assert document(row)["steps"] == [expected]


def test_wrong_row_is_shown_again_with_its_problem(editor: Client) -> None:
    row = imported(workflow(form(label="A")))
    answer = change(editor, step_of(row, "A"), **{"rows-0-name": "a", "rows-0-least": "x"})
    assert errors(answer) == {"__all__": ["The fields have problems."]}
    [one] = [shown for shown in answer.context["form"].editor.rows if shown.row.name]
    assert (one.row.least, one.errors) == ("x", {"least": ["must be a whole number"]})
    assert document(row)["steps"] == [form(label="A")]


def test_pattern_that_cannot_be_used_is_said_at_its_row(editor: Client) -> None:
    schema: JsonObject = {"properties": {"a": {"type": "string", "pattern": "(?=x)"}}}
    row = imported(workflow(form(label="A", inputSchema=schema)))
    page = editor.get(address(step_of(row, "A")))
    assert page.context["form"].editor.rows[0].errors == {
        "pattern": ["must be a regular expression without look-around and back-references"]
    }


def test_schema_that_rows_cannot_show_is_edited_as_json(editor: Client) -> None:
    row = imported(workflow(form(label="A", inputSchema={"anyOf": [{}]}, fields=[{"name": "a"}])))
    page = editor.get(address(step_of(row, "A")))
    assert page.context["form"].editor.mode == "json"
    assert "edit it as JSON" in page.content.decode()
    change(editor, step_of(row, "A"), input_schema='{"not": {}}')
    assert document(row)["steps"] == [
        form(label="A", inputSchema={"not": {}}, fields=[{"name": "a"}])
    ]


def test_more_fields_than_rows_are_shown_for_are_edited_as_json(editor: Client) -> None:
    schema: JsonObject = {"properties": {f"f{at}": {"type": "string"} for at in range(201)}}
    row = imported(workflow(form(label="A", inputSchema=schema)))
    page = editor.get(address(step_of(row, "A")))
    assert page.context["form"].editor.mode == "json"
    assert "There are more than 200 fields: edit them as JSON." in page.content.decode()
    rows = {f"rows-{at}-{key}": f"f{at}" for at in range(3) for key in ("was", "name")}
    assert change(editor, step_of(row, "A"), **{"rows-as": "rows"}, **rows).status_code == 200
    row = imported(workflow(form(label="A")))
    rows = {f"rows-{at}-name": f"f{at}" for at in range(201)}
    answer = change(editor, step_of(row, "A"), **rows)
    assert errors(answer) == {"__all__": ["The fields have problems."]}
    assert len(answer.context["form"].editor.rows) == 201  # nothing that was typed is lost


def test_what_was_not_sent_is_left_alone(editor: Client) -> None:
    row = imported(workflow(server(0, title="T", fields=[{"name": "a"}])))
    step = step_of(row, "Call 0")
    data = {"label": "New", "type": "API_CALL", "order": 0, "seen_revision": 1}
    assert editor.post(address(step), data).status_code == 302
    kept = server(0, columns={"label": "New"}, title="T", fields=[{"name": "a"}])
    assert document(row)["steps"] == [kept]


# --- steps in their order -------------------------------------------------------------------------


def act(client: Client, row: Workflow, name: str, **fields: Any) -> Any:
    row.refresh_from_db()
    data = {"act": name, "seen_revision": row.revision, **fields}
    return client.post(address(row), data, follow=True)


def labels(row: Workflow) -> list[str]:
    return [str(step["label"]) for step in document(row)["steps"]]  # type: ignore[union-attr,index,call-overload]


def test_steps_are_added_moved_copied_and_removed(editor: Client) -> None:
    row = imported(workflow(form(0, label="A"), form(1, label="B")))
    act(editor, row, "add", label="C", type="INFO", execution_mode="CLIENT_ONLY")
    act(editor, row, "move", step=step_of(row, "C").pk, to=0)
    assert labels(row) == ["C", "A", "B"]
    act(editor, row, "duplicate", step=step_of(row, "A").pk)
    assert labels(row) == ["C", "A", "A (copy)", "B"]
    answer = act(editor, row, "remove", step=step_of(row, "B").pk)
    assert labels(row) == ["C", "A", "A (copy)"]
    assert [str(message) for message in answer.context["messages"]] == ["Removed B."]
    assert Workflow.objects.get().revision == 5
    assert len(workflow_history(row.pk)) == 5


def test_the_page_goes_on_at_the_step(editor: Client) -> None:
    row = imported(workflow(form(0, label="A"), form(1, label="B")))
    first, second = steps_of(row)

    def place(name: str, **fields: Any) -> str:
        row.refresh_from_db()
        data = {"act": name, "seen_revision": row.revision, "step": first.pk, **fields}
        return str(editor.post(address(row), data)["Location"].partition("#")[2])

    assert place("move", to=1) == f"step-{first.pk}"
    assert place("remove", step=second.pk) == f"step-{first.pk}"
    assert place("duplicate") == f"step-{step_of(row, 'A (copy)').pk}"
    assert place("add", label="C", type="INFO") == f"step-{step_of(row, 'C').pk}"
    assert place("remove", step=step_of(row, "C").pk) == "steps"
    assert place("move", to=9) == "steps"
    assert f'id="step-{first.pk}"' in editor.get(address(row)).content.decode()


@pytest.mark.parametrize(("name", "fields"), [
    ("add", {"label": "C", "type": "FORM"}), ("move", {"to": 1}), ("duplicate", {}), ("remove", {}),
], ids=["add", "move", "duplicate", "remove"])  # fmt: skip
def test_steps_of_a_changed_draft_stay(name: str, fields: dict[str, Any], editor: Client) -> None:
    row = imported(workflow(form(0, label="A"), form(1, label="B")))
    drafts.update_workflow(row.pk, {"description": "theirs"})
    data = {"act": name, "seen_revision": 1, "step": step_of(row, "A").pk, **fields}
    answer = editor.post(address(row), data, follow=True)
    assert "changed by someone else" in str(next(iter(answer.context["messages"])))
    assert labels(row) == ["A", "B"]


@pytest.mark.parametrize("fields", [
    {"act": "shuffle"}, {"act": "move", "to": "x"}, {"act": "move", "to": 0, "step": "x"},
    {"act": "remove", "step": uuid4()}, {"act": "add", "seen_revision": "x"},
    {"act": "move", "to": "1" * 5000},
], ids=["act", "place", "id", "stranger", "revision", "digits"])  # fmt: skip
def test_what_no_button_sends_is_not_found(fields: dict[str, Any], editor: Client) -> None:
    row = imported(workflow(form(0, label="A")))
    data = {"seen_revision": 1, "step": step_of(row, "A").pk, **fields}
    assert editor.post(address(row), data).status_code == 404
    assert labels(row) == ["A"]


def test_place_that_is_not_there_is_said(editor: Client) -> None:
    row = imported(workflow(form(0, label="A")))
    answer = act(editor, row, "move", step=step_of(row, "A").pk, to=5)
    assert [str(one) for one in answer.context["messages"]] == [
        "to: must be a place between 0 and 0"
    ]


@pytest.mark.parametrize("name", ["workflow", "step"])
def test_stale_form_is_refused(name: str, editor: Client) -> None:
    row = imported(workflow(form(label="A")))
    one: Row = row if name == "workflow" else step_of(row, "A")
    data = shown(editor, one)
    drafts.update_workflow(row.pk, {"description": "theirs"})
    answer = editor.post(address(one), {**data, "label": "mine", "name": "mine"})
    [said] = errors(answer)["__all__"]
    assert said.startswith("The draft has been changed by someone else")
    assert (document(row)["name"], labels(row)) == ("Flow", ["A"])
    assert 'value="mine"' in answer.content.decode()  # nothing that was typed is lost


# --- draft and live -------------------------------------------------------------------------------


def test_unpublished_changes_are_told(editor: Client) -> None:
    row = imported(workflow(form(label="A")))
    assert "Never published" in editor.get(address(row)).content.decode()
    publishing.publish(row.pk, by="pia")
    page = editor.get(address(row))
    assert (page.context["changes"], "by pia" in page.content.decode()) == ([], True)
    change(editor, step_of(row, "A"), title="T")
    assert editor.get(address(row)).context["changes"] == ["step 'A': config added"]


# --- looks ----------------------------------------------------------------------------------------


def looked(client: Client, step: WorkflowStep, **fields: Any) -> Any:
    data = {**shown(client, step), **fields}
    answer = client.post(address(step, "look"), data)
    assert answer.status_code == 200
    return answer


def test_looks_follow_what_is_typed_and_save_nothing(editor: Client) -> None:
    set_connection(name="bank", base_url="https://bank.example/v1")
    row = imported(workflow(form(0, dataKey="pay"), server(1, compensation={"endpoint": "/undo"})))
    answer = looked(
        editor, step_of(row, "Call 1"), connection="bank", trigger_endpoint="/pay/${pay.amount}",
        timeout_ms="10000", retry_max_retries="2", title="Pay ${pay.amount}", when="pay.amount > `5`",
        proceed_when="result.verified",
        sample='{"pay": {"amount": 7}}', execution_mode="SERVER_SYNC",
    )  # fmt: skip
    look = answer.context["look"]
    assert [(one.name, one.method, one.url, one.connection, one.problem) for one in look.addresses] == [
        ("Trigger", "POST", "https://bank.example/v1/pay/7", "bank", ""),
        ("Compensation", "POST", "https://bank.example/v1/undo", "bank", ""),
    ]  # fmt: skip
    assert look.retries[0].sentence == (
        "Up to 3 calls: at once, after 0.5-1 s, after 1-2 s; at most 33 s with the timeouts."
    )
    assert [(one.name, one.text) for one in look.texts] == [("Title", "Pay 7")]
    assert [(one.name, one.value, one.verdict) for one in look.conditions] == [
        ("Only when", "true", "The step is shown."),
        ("Goes on when", "true", "The flow goes on."),
    ]
    assert Workflow.objects.get().revision == 1


def test_look_says_what_is_wrong(editor: Client) -> None:
    row = imported(workflow(server(0)))
    step = step_of(row, "Call 0")
    page = looked(editor, step, trigger_endpoint="https://evil.example/", title="${", when="(")
    look = page.context["look"]
    assert look.addresses[0].problem == "no connection is registered for https://evil.example"
    assert look.texts[0].problem.startswith("${ at position 1 is not closed")
    assert look.conditions[0].problem == "does not parse: it ends too early"
    refused = looked(editor, step, timeout_ms="5")
    assert "Timeout (ms): must be between 100 and 120000" in refused.content.decode()
    refused = looked(editor, step, sample="[]")
    assert "The sample is an object" in refused.content.decode()


def test_private_data_is_in_no_text(editor: Client) -> None:
    row = imported(
        workflow(form(0, dataKey="pin", private=True), form(1, label="B", title="<${pin.code}>"))
    )
    look = editor.get(address(step_of(row, "B"))).context["look"]
    assert [one.text for one in look.texts] == ["<>"]


# --- rights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [rights.VIEWER, rights.OPERATOR])
def test_viewer_sees_everything_and_can_send_nothing(role: str) -> None:
    row = imported(EVERYTHING)
    client = signed_in(role)
    for one in rows_of(row):
        page = client.get(address(one)).content.decode()
        sent = sent_by(page, "settings" if isinstance(one, Workflow) else "step")
        assert client.post(address(one), sent).status_code == 403
        assert "Save " not in page
        assert 'name="act"' not in page
    for step in steps_of(row):
        assert client.post(address(step, "look"), {"label": "x"}).status_code == 403
        data = {"seen_revision": 1, "step": step.pk, "to": 0}
        for name in ("add", "move", "duplicate", "remove"):
            assert client.post(address(row), {**data, "act": name}).status_code == 403
    assert dump_compact(document(row)) == in_order(EVERYTHING)


def test_acts_on_steps_need_their_own_rights() -> None:
    row = imported(workflow(form(0, label="A"), form(1, label="B")))
    user = User.objects.create_user("half", is_staff=True)
    user.user_permissions.set(
        Group.objects.get(name=rights.EDITOR).permissions.filter(codename__endswith="_workflow")
    )
    client = Client()
    client.force_login(user)
    data = {"seen_revision": 1, "step": step_of(row, "A").pk, "to": 1, "label": "C", "type": "FORM"}
    for name in ("add", "move", "duplicate", "remove"):
        assert client.post(address(row), {**data, "act": name}).status_code == 403
    assert labels(row) == ["A", "B"]


def test_pages_ask_few_queries(editor: Client, django_assert_max_num_queries: Any) -> None:
    row = imported(workflow(*(form(at, label=f"S{at}") for at in range(20))))
    publishing.publish(row.pk, by="pia")
    for one in rows_of(row)[:2]:
        with django_assert_max_num_queries(12):
            editor.get(address(one))


# --- hostile text ---------------------------------------------------------------------------------


def hostile(value: JsonValue) -> JsonValue:
    return {SCRIPT: [value, SCRIPT]}


def test_stored_text_is_shown_as_text(editor: Client) -> None:
    fields: JsonValue = [{"name": SCRIPT, "label": SCRIPT, "help": SCRIPT, "kind": SCRIPT}]
    schema: JsonObject = {"properties": {SCRIPT: {"enum": [SCRIPT]}}}
    step = server(
        0, columns={"label": SCRIPT, "triggerEndpoint": SCRIPT}, title=SCRIPT, message=SCRIPT, when=SCRIPT,
        proceedWhen=f"'{SCRIPT}'", connection=SCRIPT, headers={SCRIPT: SCRIPT}, formId=SCRIPT, fields=fields,
        inputSchema=schema, app=hostile(1), requestMapping=hostile("a"), status={"endpoint": SCRIPT},
        compensation={"endpoint": SCRIPT},
    )  # fmt: skip
    row = imported(
        workflow(step, form(1, label="B"), name=SCRIPT, sensitive=[SCRIPT], requiredScopes=[SCRIPT],
                 initialContextSchema=schema, apiMapping=hostile("a"), finalApi={"endpoint": SCRIPT})
    )  # fmt: skip
    one = row.steps.get(order=0)
    pages = [editor.get(address(each)).content.decode() for each in (row, one, step_of(row, "B"))]
    pages.append(
        looked(editor, one, order="0", sample=json.dumps({SCRIPT: SCRIPT})).content.decode()
    )
    pages.append(change(editor, one, timeout_ms=SCRIPT, headers=SCRIPT).content.decode())
    pages.append(act(editor, row, "remove", step=one.pk).content.decode())
    for page in pages:
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


def test_forms_send_what_they_show(editor: Client) -> None:
    row = imported(EVERYTHING)
    sent = shown(editor, step_of(row, "Call"))
    assert (sent["retry_backoff_multiplier"], sent["headers"]) == ("1.5", "X-A: ${a.x}\r\nX-B:  b")
    assert (sent["connection"], sent["method"], sent["order"]) == ("gone", "PUT", "7")
