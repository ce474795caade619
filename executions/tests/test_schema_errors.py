"""What a client can get wrong over HTTP: each error with its code and status, and never one of ours."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from graphql import FieldNode, NameNode, OperationDefinitionNode, SelectionSetNode, parse, visit
from graphql.language import Visitor, print_ast
from hypothesis import HealthCheck, given
from hypothesis import settings as fuzz_settings
from hypothesis import strategies as st

from config.jsonvalues import JsonObject
from executions import executor
from executions.answers import StepAnswer
from executions.enums import ErrorCode
from executions.errors import SessionUnavailable
from executions.models import WorkflowExecution
from executions.session_store import get_session_store
from executions.tests.app import OPERATIONS, App
from executions.tests.evidence import nothing_happens
from executions.tests.phone import (
    MONEY_TRANSFER,
    TRANSFER_INPUT,
    Phone,
    flow,
    form,
    published,
    server_step,
)
from sandbox.testing import FakePartner
from workflows.drafts import archive_workflow

pytestmark = pytest.mark.django_db

START = """mutation ($w: ID!, $p: ID!, $c: JSON, $k: String) {
  startWorkflowExecution(workflowId: $w, pageId: $p, initialContext: $c, idempotencyKey: $k) { id status }
}"""
STEP = """mutation ($e: ID!, $s: ID!, $v: JSON, $t: TriggerTiming!, $k: String) {
  executeWorkflowStep(executionId: $e, stepId: $s, input: $v, timing: $t, idempotencyKey: $k) {
    success result shouldProceed error errorCode retryable retryAfterMs
    fieldErrors { path message } nextStep { id config } execution { id status context }
  }
}"""
COMPLETE = """mutation ($e: ID!, $k: String) {
  completeWorkflowExecution(executionId: $e, idempotencyKey: $k) {
    success result error errorCode executionId execution { status }
  }
}"""
CANCEL = """mutation ($e: ID!, $r: String, $k: String) {
  cancelWorkflowExecution(executionId: $e, reason: $r, idempotencyKey: $k) { id status }
}"""
SHOW = "query ($e: ID!) { workflowExecution(id: $e) { id } }"


@pytest.fixture
def phone(partner: FakePartner) -> Phone:
    """A form and a call to a partner."""
    return Phone(published(flow(form(0), server_step(1, triggerEndpoint="/api/anything/x"))))


@pytest.fixture
def me() -> App:
    return App("alice")


def post(query: str, variables: Any, *, app: App | None = None) -> HttpResponse:
    """Alice's request, of whatever shape."""
    body = json.dumps({"query": query, "variables": variables})
    headers = (app or App("alice")).headers
    response: Any = Client().post(
        "/graphql", body, content_type="application/json", headers=headers
    )
    return response  # type: ignore[no-any-return]  # of Django's test client


# --- the seed's operations, as Apollo sends them --------------------------------------------------


class _Typenames(Visitor):
    """Apollo adds `__typename` to every selection set below the operation's own."""

    def leave_selection_set(
        self, node: SelectionSetNode, _key: Any, parent: Any, *_rest: Any
    ) -> SelectionSetNode | None:
        if isinstance(parent, OperationDefinitionNode):
            return None
        typename = FieldNode(name=NameNode(value="__typename"), arguments=[], directives=[])
        return SelectionSetNode(selections=(*node.selections, typename))


APOLLO = {name: print_ast(visit(parse(text), _Typenames())) for name, text in OPERATIONS.items()}


def test_apollos_documents_walk_the_seeds_flow(partner: FakePartner, me: App) -> None:
    compiled = published(MONEY_TRANSFER)
    started = me.data(APOLLO["start"], workflowId=compiled.workflow_id, pageId=7)
    assert started["__typename"] == "WorkflowExecution"
    steps = started["workflow"]["steps"]
    assert {step["__typename"] for step in steps} == {"WorkflowStep"}
    calls: list[tuple[int, dict[str, Any], str]] = [
        (0, {"input": TRANSFER_INPUT}, "AFTER_STEP"),
        # an absent input, and a null one
        (1, {}, "BEFORE_STEP"),
        (2, {"input": {"accepted": True}}, "AFTER_STEP"),
        (3, {"input": None}, "AFTER_STEP"),
    ]
    for index, given_input, timing in calls:
        answer = me.data(
            APOLLO["execute-step"],
            executionId=started["id"],
            stepId=steps[index]["id"],
            timing=timing,
            **given_input,
        )
        assert answer == {
            "success": True,
            "shouldProceed": True,
            "error": None,
            "result": answer["result"],
            "__typename": "StepExecutionResponse",
        }
    shown = me.data(APOLLO["execution"], id=started["id"])
    assert (shown["__typename"], shown["currentStep"]) == ("WorkflowExecution", None)
    done = me.data(APOLLO["complete"], executionId=started["id"])
    assert (done["success"], done["__typename"]) == (True, "WorkflowCompletionResult")
    (listed,) = me.data(APOLLO["user-executions"], userId="alice")
    assert listed["workflow"] == {"name": "Money Transfer", "__typename": "Workflow"}


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        # absent and null are the same
        ({}, 2),
        ({"status": None, "limit": None}, 2),
        ({"status": "PENDING"}, 1),
        ({"limit": 1}, 1),
    ],
)
def test_variables_of_the_list_may_be_null_or_absent(
    phone: Phone, me: App, variables: JsonObject, count: int
) -> None:
    Phone(phone.compiled).cancel()
    listed = me.data(APOLLO["user-executions"], userId="alice", **variables)
    assert len(listed) == count


@pytest.mark.parametrize("variables", [{}, {"reason": None}, {"reason": ""}])
def test_a_cancellation_needs_no_reason(phone: Phone, me: App, variables: JsonObject) -> None:
    cancelled = me.data(APOLLO["cancel"], executionId=str(phone.execution_id), **variables)
    assert cancelled["status"] == "CANCELLED"
    assert phone.row.cancel_reason == ""


# --- refusals are answers -------------------------------------------------------------------------


def test_a_refusal_is_an_answer_with_all_that_is_needed_next(phone: Phone, me: App) -> None:
    ids = [step.id for step in phone.compiled.steps]
    execution_id = str(phone.execution_id)
    body = me.send(STEP, e=execution_id, s=ids[1], t="AFTER_STEP")
    assert body == {
        "data": {
            "executeWorkflowStep": {
                "success": False,
                "result": None,
                "shouldProceed": False,
                "error": "An earlier step, or this step's BEFORE_STEP, has to be passed first.",
                "errorCode": "STEP_OUT_OF_ORDER",
                "retryable": False,
                "retryAfterMs": None,
                "fieldErrors": [],
                "nextStep": {"id": ids[0], "config": {"dataKey": "form0"}},
                "execution": {
                    "id": execution_id,
                    "status": "PENDING",
                    "context": {"userId": "alice"},
                },
            }
        }
    }


@pytest.mark.parametrize("code", ErrorCode.values)
def test_every_error_code_can_be_told(
    phone: Phone, me: App, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def answered(*_args: Any, **_kwargs: Any) -> Any:
        return StepAnswer(phone.execution_id, success=False, should_proceed=False, error_code=code)

    monkeypatch.setattr(executor, "execute_step", answered)
    step = phone.compiled.steps[0].id
    answer = me.data(STEP, e=str(phone.execution_id), s=step, t="AFTER_STEP")
    assert answer["errorCode"] == code


# --- GraphQL errors -------------------------------------------------------------------------------

NO_EXECUTION = "There is no such execution."
NO_WORKFLOW = "There is no such workflow, step, version or connection."
STRANGE_IDS = ["", "17", str(UUID(int=7)), "x" * 5000, "🚀", "{", "../x", "\u0661"]


@pytest.mark.parametrize("execution_id", STRANGE_IDS)
@pytest.mark.parametrize(
    ("query", "variables"),
    [(STEP, {"s": "x", "t": "AFTER_STEP"}), (COMPLETE, {}), (CANCEL, {}), (SHOW, {})],
)
def test_what_is_not_there_is_not_found(
    phone: Phone, query: str, variables: JsonObject, execution_id: str
) -> None:
    with nothing_happens():
        response = post(query, {"e": execution_id, **variables})
    assert response.status_code == 200
    (error,) = json.loads(response.content)["errors"]
    assert (error["message"], error["extensions"]) == (NO_EXECUTION, {"code": "NOT_FOUND"})


def test_a_strangers_answer_is_nobodys_answer(phone: Phone) -> None:
    bob = App("bob")
    step = phone.compiled.steps[0].id
    for query, variables in (
        (STEP, {"s": step, "t": "AFTER_STEP", "v": {}}),
        (COMPLETE, {}),
        (CANCEL, {}),
        (SHOW, {}),
    ):
        with nothing_happens():
            theirs = post(query, {"e": str(phone.execution_id), **variables}, app=bob)
            nobodys = post(query, {"e": str(uuid4()), **variables}, app=bob)
        assert theirs.content == nobodys.content


@pytest.mark.parametrize(
    ("changes", "message", "code"),
    [
        ({"w": str(UUID(int=7))}, NO_WORKFLOW, "NOT_FOUND"),
        ({"w": "17"}, NO_WORKFLOW, "NOT_FOUND"),
        (
            {"c": {"userId": "bob"}},
            "initialContext cannot hold userId: the server finds these out itself.",
            "BAD_USER_INPUT",
        ),
        ({"c": [1]}, "initialContext has to be an object.", "BAD_USER_INPUT"),
        ({"p": ""}, "pageId has 1 to 255 characters.", "BAD_USER_INPUT"),
        ({"k": ""}, "An idempotencyKey has 1 to 255 printable characters.", "BAD_USER_INPUT"),
        (
            {"k": "used"},
            "This idempotencyKey was used before with other arguments.",
            "IDEMPOTENCY_CONFLICT",
        ),
    ],
)
def test_refused_starts(phone: Phone, changes: JsonObject, message: str, code: str) -> None:
    phone.start("used")
    with nothing_happens():
        response = post(START, {"w": phone.compiled.workflow_id, "p": "other", **changes})
    assert response.status_code == 200
    (error,) = json.loads(response.content)["errors"]
    assert (error["message"], error["extensions"]) == (message, {"code": code})
    assert error["path"] == ["startWorkflowExecution"]


def test_an_archived_workflow_is_not_there(phone: Phone, me: App) -> None:
    archive_workflow(UUID(phone.compiled.workflow_id))
    assert me.code(START, w=phone.compiled.workflow_id, p="home") == "NOT_FOUND"


def busy(phone: Phone) -> None:
    WorkflowExecution.objects.update(
        lease_holder=uuid4(), lease_until=timezone.now() + timedelta(seconds=60)
    )


def completed(phone: Phone) -> None:
    phone.step(0, {})
    phone.step(1, {})
    assert phone.complete().success


def expired(phone: Phone) -> None:
    get_session_store().clear_session(phone.row.session_id)


@pytest.mark.parametrize(
    ("before", "extensions"),
    [
        (busy, {"code": "EXECUTION_BUSY", "retryable": True}),
        (completed, {"code": "EXECUTION_ENDED"}),
        (expired, {"code": "EXECUTION_ENDED"}),
    ],
)
def test_refused_cancellations_are_errors(
    phone: Phone, me: App, before: Any, extensions: JsonObject
) -> None:
    before(phone)
    (error,) = me.send(CANCEL, e=str(phone.execution_id))["errors"]
    assert error["extensions"] == extensions


def test_without_sessions_a_start_is_unavailable(
    phone: Phone, me: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: Any, **_kwargs: Any) -> None:
        raise SessionUnavailable

    monkeypatch.setattr(type(get_session_store()), "set_context", away)
    with nothing_happens():
        (error,) = me.send(START, w=phone.compiled.workflow_id, p="home")["errors"]
    assert error["extensions"] == {"code": "SERVICE_UNAVAILABLE", "retryable": True}


def test_a_fault_of_ours_is_masked_and_in_the_log(
    phone: Phone, me: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_args: Any, **_kwargs: Any) -> None:
        raise ZeroDivisionError("secret internals")

    monkeypatch.setattr(executor, "complete_execution", broken)
    body = me.send(COMPLETE, e=str(phone.execution_id))
    (error,) = body["errors"]
    error_id = error["extensions"]["errorId"]
    assert error["extensions"] == {"code": "INTERNAL", "errorId": error_id}
    assert error["message"] == f"Something went wrong on our side. The error id is {error_id}."
    assert "secret" not in json.dumps(body)
    (record,) = [record for record in caplog.records if error_id in record.getMessage()]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_definitions_are_changed_by_staff_only(phone: Phone, me: App) -> None:
    create = 'mutation { createWorkflow(input: {name: "Mine"}) { id } }'
    assert me.code(create) == "FORBIDDEN"
    assert me.code(f'mutation {{ publishWorkflow(id: "{uuid4()}") {{ id }} }}') == "FORBIDDEN"


# --- documents and variables that cannot be -------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        # required variables
        (STEP, {}),
        (STEP, {"e": None, "s": "x", "t": "AFTER_STEP"}),
        (STEP, {"e": "x", "s": "x"}),
        # values of the wrong kind
        (STEP, {"e": "x", "s": "x", "t": "AFTER"}),
        (STEP, {"e": "x", "s": "x", "t": 1}),
        (STEP, {"e": {}, "s": "x", "t": "AFTER_STEP"}),
        (STEP, {"e": "x", "s": "x", "t": "AFTER_STEP", "k": 5}),
        (CANCEL, {"e": "x", "r": ["why"]}),
        (START, {"w": "x", "p": "y", "c": {"a": "\u0000"}}),
        (START, {"w": "x", "p": "y", "c": {"a": "\ud800"}}),
        ("query ($n: Int) { userWorkflowExecutions(userId: 1, limit: $n) { id } }", {"n": 2**31}),
        # no such fields, arguments, operations
        ("{ workflowExecution { id } }", {}),
        ('mutation { startWorkflowExecution(workflowId: "x", pageId: "y") }', {}),
        ('mutation { executeWorkflowStep(executionId: "x") { success } }', {}),
        ("subscription { workflowExecution { id } }", {}),
        ("mutation { deleteEverything }", {}),
        (START, []),
        (START, "x"),
    ],
)
def test_what_cannot_be_is_400(phone: Phone, query: str, variables: Any) -> None:
    with nothing_happens():
        response = post(query, variables)
    assert response.status_code == 400
    errors = json.loads(response.content)["errors"]
    assert {error["extensions"]["code"] for error in errors} == {"BAD_USER_INPUT"}


INLINE = [
    ("mutation", 'startWorkflowExecution(workflowId: "W", pageId: "X")'),
    ("mutation", 'startWorkflowExecution(workflowId: "X", pageId: "a")'),
    ("mutation", 'startWorkflowExecution(workflowId: "W", pageId: "a", initialContext: {a: "X"})'),
    ("mutation", 'startWorkflowExecution(workflowId: "W", pageId: "a", idempotencyKey: "X")'),
    ("mutation", 'executeWorkflowStep(executionId: "X", stepId: "a", timing: AFTER_STEP)'),
    ("mutation", 'executeWorkflowStep(executionId: "E", stepId: "X", timing: AFTER_STEP)'),
    (
        "mutation",
        'executeWorkflowStep(executionId: "E", stepId: "S", timing: AFTER_STEP, input: "X")',
    ),
    ("mutation", 'completeWorkflowExecution(executionId: "E", idempotencyKey: "X")'),
    ("mutation", 'cancelWorkflowExecution(executionId: "E", reason: "X")'),
    ("query", 'workflowExecution(id: "X")'),
    ("query", 'userWorkflowExecutions(userId: "X")'),
    ("query", 'workflow(id: "X")'),
    ("query", 'workflows(search: "X")'),
]


@pytest.mark.parametrize(("operation", "field"), INLINE)
@pytest.mark.parametrize("scopes", [(), ("workflows:admin",)], ids=["person", "staff"])
def test_characters_that_no_database_takes(
    phone: Phone, operation: str, field: str, scopes: tuple[str, ...]
) -> None:
    ids = {
        '"W"': f'"{phone.compiled.workflow_id}"',
        '"E"': f'"{phone.execution_id}"',
        '"S"': f'"{phone.compiled.steps[0].id}"',
    }
    for name, value in ids.items():
        field = field.replace(name, value)
    for character in ("\\u0000", "\\ud800", "\\u{0}", "\\u{10ffff}"):
        query = f"{operation} {{ {field.replace('X', character)} {{ __typename }} }}"
        response = post(query, {}, app=App("alice", *scopes))
        assert response.status_code in (200, 400), query
        body = json.loads(response.content)
        codes = {error["extensions"]["code"] for error in body.get("errors", ())}
        assert codes <= {"BAD_USER_INPUT", "NOT_FOUND", "FORBIDDEN"}, (query, body)


def test_nobody_without_a_token(phone: Phone) -> None:
    body = json.dumps({"query": SHOW, "variables": {"e": str(phone.execution_id)}})
    response = Client().post("/graphql", body, content_type="application/json")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}


# --- anything at all ------------------------------------------------------------------------------

KNOWN_CODES = {
    "BAD_USER_INPUT",
    "NOT_FOUND",
    "FORBIDDEN",
    "EXECUTION_BUSY",
    "EXECUTION_ENDED",
    "SESSION_EXPIRED",
    "IDEMPOTENCY_CONFLICT",
    "QUERY_TOO_COMPLEX",
}
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**400), max_value=10**400)
    | st.floats()
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
KEYS = st.none() | st.text(max_size=300) | JSON_VALUES
TIMINGS = st.sampled_from(["BEFORE_STEP", "AFTER_STEP", "BOTH"]) | JSON_VALUES
ANY = JSON_VALUES | st.uuids().map(str)


def fuzzed(**arguments: st.SearchStrategy[Any]) -> Any:
    """Fuzz a mutation's variables; `own` draws whether the ids are real ones."""

    def decorate(test: Any) -> Any:
        limited = fuzz_settings(
            max_examples=50,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        )
        return limited(given(**arguments)(test))

    return decorate


def check(response: HttpResponse) -> None:
    assert response.status_code in (200, 400)
    text = response.content.decode()
    body = json.loads(text)
    codes = {error["extensions"]["code"] for error in body.get("errors", ())}
    assert codes <= KNOWN_CODES, text
    for tell in ("Traceback", "Error(", "Exception", "django", "psycopg", "sqlite", "object at 0x"):
        assert tell not in json.dumps(body.get("errors", [])), text


@fuzzed(own=st.booleans(), w=ANY, p=ANY, c=JSON_VALUES, k=KEYS)
def test_no_start_makes_a_500(phone: Phone, own: bool, w: Any, p: Any, c: Any, k: Any) -> None:
    workflow = phone.compiled.workflow_id if own else w
    check(post(START, {"w": workflow, "p": "p" if own else p, "c": c, "k": k}))


@fuzzed(own=st.booleans(), index=st.integers(0, 1), e=ANY, s=ANY, v=JSON_VALUES, t=TIMINGS, k=KEYS)
def test_no_step_makes_a_500(
    phone: Phone, own: bool, index: int, e: Any, s: Any, v: Any, t: Any, k: Any
) -> None:
    ids = (str(phone.execution_id), phone.compiled.steps[index].id) if own else (e, s)
    check(post(STEP, {"e": ids[0], "s": ids[1], "v": v, "t": t, "k": k}))


@fuzzed(own=st.booleans(), e=ANY, k=KEYS)
def test_no_completion_makes_a_500(phone: Phone, own: bool, e: Any, k: Any) -> None:
    check(post(COMPLETE, {"e": str(phone.execution_id) if own else e, "k": k}))


@fuzzed(own=st.booleans(), e=ANY, r=KEYS, k=KEYS)
def test_no_cancellation_makes_a_500(phone: Phone, own: bool, e: Any, r: Any, k: Any) -> None:
    check(post(CANCEL, {"e": str(phone.execution_id) if own else e, "r": r, "k": k}))
