"""Definitions over GraphQL: what apps see, what staff see, and what staff change."""

from datetime import UTC, datetime
from typing import Any

import graphene
import pytest
from django.http import HttpRequest

from config.graphql import RequestContext, format_error
from config.identity import ADMIN_SCOPE, Identity
from config.ids import new_id
from config.jsonvalues import JsonObject
from workflows import drafts, publishing
from workflows.golden import save_golden_run
from workflows.models import Workflow, WorkflowVersion
from workflows.schema import Mutation, Query
from workflows.tests.samples import form, server, workflow

pytestmark = pytest.mark.django_db

schema = graphene.Schema(query=Query, mutation=Mutation)

ALICE = Identity("alice", frozenset({"transfers"}))
OPERATOR = Identity("operator", frozenset({ADMIN_SCOPE}))
VIEWER = Identity(
    "staff:vera", frozenset(), frozenset({"workflows.view_workflow"}), by_session=True
)

WORKFLOW = """query ($id: ID!, $draft: Boolean) { workflow(id: $id, draft: $draft) {
  id name description version config revision archived publishedAt
  steps { id type label order dataKey executionMode triggerTiming timings triggerEndpoint timeoutMs
    retryConfig config state } } }"""
LIST = """query ($search: String, $limit: Int, $offset: Int) {
  workflows(search: $search, limit: $limit, offset: $offset) { name version } }"""
CREATE = """mutation ($input: CreateWorkflowInput!) {
  createWorkflow(input: $input) { id name revision version } }"""
UPDATE = """mutation ($id: ID!, $input: UpdateWorkflowInput!) {
  updateWorkflow(id: $id, input: $input) { name description config revision } }"""
CREATE_STEP = """mutation ($workflowId: ID!, $input: CreateWorkflowStepInput!) {
  createWorkflowStep(workflowId: $workflowId, input: $input) { id order executionMode config } }"""
UPDATE_STEP = """mutation ($id: ID!, $input: UpdateWorkflowStepInput!) {
  updateWorkflowStep(id: $id, input: $input) { label timeoutMs triggerTiming retryConfig } }"""
DELETE_STEP = (
    "mutation ($id: ID!, $revision: Int) { deleteWorkflowStep(id: $id, revision: $revision) }"
)
PUBLISH = (
    "mutation ($id: ID!, $note: String) { publishWorkflow(id: $id, note: $note) { version name } }"
)


def ask(
    query: str, identity: Identity | None = OPERATOR, **variables: Any
) -> tuple[Any, list[Any]]:
    """The data and the errors as a client sees them."""
    context = RequestContext(identity=identity, request=HttpRequest(), now=datetime.now(UTC))
    result = schema.execute(query, variables=variables, context=context)
    return result.data, [format_error(error) for error in result.errors or ()]


def data(query: str, identity: Identity | None = OPERATOR, **variables: Any) -> Any:
    told, errors = ask(query, identity, **variables)
    assert errors == []
    return told


def code(query: str, identity: Identity | None = OPERATOR, **variables: Any) -> str:
    """The code of the one error."""
    [error] = ask(query, identity, **variables)[1]
    found: str = error["extensions"]["code"]
    return found


def published(document: JsonObject) -> Workflow:
    row, _ = drafts.import_document(document)
    publishing.publish(row.pk, by="operator")
    return row


def test_app_sees_the_published_version_without_the_servers_side(
    money_transfer: JsonObject,
) -> None:
    row = published(money_transfer)
    drafts.update_workflow(row.pk, {"name": "Draft name"})
    seen = data(WORKFLOW, ALICE, id=str(row.pk))["workflow"]
    assert (seen["name"], seen["version"]) == ("Money Transfer", 1)
    assert (seen["config"], seen["revision"], seen["archived"]) == ({}, None, None)
    step = seen["steps"][1]
    assert step == {
        "id": str(row.steps.get(order=1).pk),
        "type": "VALIDATION",
        "label": "Validate Account",
        "order": 1,
        "dataKey": "validation",
        "executionMode": "SERVER_VALIDATION",
        "triggerTiming": "BEFORE_STEP",
        "timings": ["BEFORE_STEP"],
        "triggerEndpoint": None,
        "timeoutMs": None,
        "retryConfig": None,
        "config": {"dataKey": "validation"},
        "state": None,
    }
    assert seen["steps"][3]["config"] == {}


def test_staff_see_the_whole_version(money_transfer: JsonObject) -> None:
    row = published(money_transfer)
    seen = data(WORKFLOW, VIEWER, id=str(row.pk))["workflow"]
    assert seen["config"] == money_transfer["config"]
    assert (seen["version"], seen["revision"], seen["archived"]) == (1, 1, False)
    assert seen["publishedAt"] == WorkflowVersion.objects.get().published_at.isoformat()
    step = seen["steps"][3]
    assert (step["triggerEndpoint"], step["timeoutMs"], step["config"]) == (
        "/api/transactions/transfer",
        30_000,
        {"method": "POST"},
    )
    assert step["retryConfig"] == {"maxRetries": 3, "initialDelayMs": 1000}


def test_draft_is_for_staff() -> None:
    row = published(workflow(form(), name="Live"))
    drafts.update_workflow(row.pk, {"name": "Draft"})
    seen = data(WORKFLOW, VIEWER, id=str(row.pk), draft=True)["workflow"]
    assert (seen["name"], seen["version"], seen["revision"]) == ("Draft", None, 2)
    assert data(WORKFLOW, VIEWER, id=str(row.pk))["workflow"]["name"] == "Live"
    assert code(WORKFLOW, ALICE, id=str(row.pk), draft=True) == "NOT_FOUND"


def test_what_an_app_may_not_see_is_not_there() -> None:
    unpublished, _ = drafts.import_document(workflow(form(), name="Unpublished"))
    archived = published(workflow(form(), name="Archived"))
    drafts.archive_workflow(archived.pk)
    scoped = published(workflow(form(), name="Scoped", requiredScopes=["loans"]))
    answers = [
        ask(WORKFLOW, ALICE, id=str(wanted))
        for wanted in (unpublished.pk, archived.pk, scoped.pk, new_id(), "no id")
    ]
    assert all(told == {"workflow": None} for told, _ in answers)
    assert {(error["message"], error["extensions"]["code"]) for _, [error] in answers} == {
        ("There is no such workflow, step, version or connection.", "NOT_FOUND")
    }
    with_scope = Identity("bob", frozenset({"loans"}))
    assert data(WORKFLOW, with_scope, id=str(scoped.pk))["workflow"]["name"] == "Scoped"
    assert data(WORKFLOW, VIEWER, id=str(archived.pk))["workflow"]["archived"] is True
    assert code(WORKFLOW, None, id=str(scoped.pk)) == "UNAUTHENTICATED"


def test_app_sees_a_publish_and_an_archiving_at_once() -> None:
    row = published(workflow(form(), name="One"))
    assert data(WORKFLOW, ALICE, id=str(row.pk))["workflow"]["version"] == 1
    drafts.update_workflow(row.pk, {"description": "second"})
    publishing.publish(row.pk, by="operator")
    assert data(WORKFLOW, ALICE, id=str(row.pk))["workflow"]["version"] == 2
    drafts.archive_workflow(row.pk)
    assert code(WORKFLOW, ALICE, id=str(row.pk)) == "NOT_FOUND"


def test_list_is_by_name_and_in_pages() -> None:
    for name in ("Beta", "Alpha", "Gamma"):
        published(workflow(form(), name=name))
    published(workflow(form(), name="Delta", requiredScopes=["loans"]))
    drafts.import_document(workflow(form(), name="Epsilon"))

    def names(identity: Identity = ALICE, **variables: Any) -> list[tuple[str, int | None]]:
        seen = data(LIST, identity, **variables)["workflows"]
        return [(one["name"], one["version"]) for one in seen]

    assert names() == [("Alpha", 1), ("Beta", 1), ("Gamma", 1)]
    assert names(limit=2, offset=1) == [("Beta", 1), ("Gamma", 1)]
    assert names(search="AMM") == [("Gamma", 1)]
    assert names(search="%") == []
    assert names(VIEWER, search="e", limit=2) == [("Beta", 1), ("Delta", 1)]
    assert names(VIEWER, search="eps") == [("Epsilon", None)]


def test_app_finds_a_workflow_by_its_published_name_only() -> None:
    row = published(workflow(form(), name="Published"))
    drafts.update_workflow(row.pk, {"name": "Secret plan"})
    assert data(LIST, ALICE, search="secret")["workflows"] == []
    assert len(data(LIST, ALICE, search="published")["workflows"]) == 1


@pytest.mark.parametrize(
    "variables",
    [{"limit": 0}, {"limit": 101}, {"offset": -1}, {"search": "\x00"}, {"search": "x" * 201}],
)
def test_page_that_cannot_be_is_refused(variables: JsonObject) -> None:
    assert code(LIST, ALICE, **variables) == "BAD_USER_INPUT"


def test_list_costs_the_same_however_many_there_are(django_assert_num_queries: Any) -> None:
    for name in ("A", "B", "C"):
        published(workflow(form(), name=name))
    data(LIST, ALICE)
    with django_assert_num_queries(1):
        data(LIST, ALICE)
    with django_assert_num_queries(2):
        data(LIST, VIEWER)


def test_staff_build_and_publish_a_workflow() -> None:
    created = data(CREATE, input={"name": "Loan"})["createWorkflow"]
    assert (created["name"], created["revision"], created["version"]) == ("Loan", 1, None)
    identifier = created["id"]
    step = data(
        CREATE_STEP,
        workflowId=identifier,
        input={"type": "FORM", "label": "Ask", "config": {"dataKey": "ask"}, "revision": 1},
    )["createWorkflowStep"]
    assert (step["order"], step["executionMode"], step["config"]) == (
        0,
        "CLIENT_ONLY",
        {"dataKey": "ask"},
    )
    changed = {"executionMode": "SERVER_SYNC", "triggerEndpoint": "/ask", "timeoutMs": 500}
    changed = {**changed, "label": "Ask again", "retryConfig": {"maxRetries": 1}}
    assert data(UPDATE_STEP, id=step["id"], input=changed)["updateWorkflowStep"] == {
        "label": "Ask again",
        "timeoutMs": 500,
        "triggerTiming": "AFTER_STEP",
        "retryConfig": {"maxRetries": 1},
    }
    updated = data(UPDATE, id=identifier, input={"description": "d", "config": {}})
    assert updated["updateWorkflow"] == {
        "name": "Loan",
        "description": "d",
        "config": {},
        "revision": 4,
    }
    assert data(PUBLISH, id=identifier, note="first")["publishWorkflow"] == {
        "version": 1,
        "name": "Loan",
    }
    version = WorkflowVersion.objects.get()
    assert (version.published_by, version.note) == ("operator", "first")
    assert data(DELETE_STEP, id=step["id"], revision=4) == {"deleteWorkflowStep": True}
    assert Workflow.objects.get().steps.count() == 0


def test_null_takes_a_column_out_of_the_document() -> None:
    row, _ = drafts.import_document(workflow(server(columns={"timeoutMs": 500})))
    step = row.steps.get()
    data(UPDATE_STEP, id=str(step.pk), input={"timeoutMs": None, "label": "L"})
    step.refresh_from_db()
    assert (step.timeout_ms, step.label, step.trigger_endpoint) == (None, "L", "/pay")


def test_every_problem_is_told_with_its_path() -> None:
    row, _ = drafts.import_document(workflow(form(when="("), server(1, connection="nobody")))
    _, [error] = ask(PUBLISH, id=str(row.pk))
    assert error["extensions"] == {
        "code": "BAD_USER_INPUT",
        "problems": [
            {
                "path": "steps[0].config.when",
                "message": "does not parse: it ends too early",
            },
            {"path": "steps[1].config.connection", "message": "there is no connection nobody"},
        ],
    }
    _, [error] = ask(UPDATE, id=str(row.pk), input={"config": {"colour": 1}})
    assert error["extensions"]["problems"][0]["path"] == "config.colour"
    assert Workflow.objects.get(pk=row.pk).revision == 1


def test_stale_edit_is_refused() -> None:
    row, _ = drafts.import_document(workflow(form()))
    drafts.update_workflow(row.pk, {"description": "new"})
    stale = {"description": "old", "revision": 1}
    _, [error] = ask(UPDATE, id=str(row.pk), input=stale)
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert error["message"].startswith("The draft has been changed by someone else")
    assert Workflow.objects.get(pk=row.pk).description == "new"


def test_only_staff_with_the_permission_change_definitions() -> None:
    row, _ = drafts.import_document(workflow(form()))
    step, workflow_id = str(row.steps.get().pk), str(row.pk)
    calls: list[tuple[str, dict[str, Any]]] = [
        (CREATE, {"input": {"name": "X"}}),
        (UPDATE, {"id": workflow_id, "input": {"name": "X"}}),
        (CREATE_STEP, {"workflowId": workflow_id, "input": {"type": "FORM", "label": "X"}}),
        (UPDATE_STEP, {"id": step, "input": {"label": "X"}}),
        (DELETE_STEP, {"id": step}),
        (PUBLISH, {"id": workflow_id}),
    ]
    for query, variables in calls:
        assert code(query, ALICE, **variables) == "FORBIDDEN"
        assert code(query, VIEWER, **variables) == "FORBIDDEN"
        assert code(query, None, **variables) == "UNAUTHENTICATED"
    row.refresh_from_db()
    assert (row.name, row.revision, row.live_version_id) == ("Flow", 1, None)
    assert Workflow.objects.count() == 1


def test_a_session_needs_the_permission_of_each_mutation() -> None:
    row, _ = drafts.import_document(workflow(form()))
    editor = Identity(
        "staff:ed", frozenset(), frozenset({"workflows.change_workflow"}), by_session=True
    )
    assert (
        data(UPDATE, editor, id=str(row.pk), input={"name": "X"})["updateWorkflow"]["name"] == "X"
    )
    assert code(PUBLISH, editor, id=str(row.pk)) == "FORBIDDEN"
    publisher = Identity(
        "staff:pat", frozenset(), frozenset({"workflows.publish_workflow"}), by_session=True
    )
    assert data(PUBLISH, publisher, id=str(row.pk))["publishWorkflow"]["version"] == 1
    assert WorkflowVersion.objects.get().published_by == "staff:pat"


def test_failing_golden_runs_are_accepted_by_an_argument() -> None:
    row, _ = drafts.import_document(workflow(form()))
    save_golden_run(row.pk, name="Small", context={}, expected={"sum": 1}, by="eve")
    _, [error] = ask(PUBLISH, id=str(row.pk))
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert error["message"] == "Small: the payload is another one than expected"
    accepting = "mutation ($id: ID!) { publishWorkflow(id: $id, acceptFailingGoldenRuns: true) { version } }"
    assert data(accepting, id=str(row.pk))["publishWorkflow"] == {"version": 1}
    # The same again is the same version: a repeated call does no harm.
    assert data(accepting, id=str(row.pk))["publishWorkflow"] == {"version": 1}
