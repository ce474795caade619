"""Every limit at the engine's door and at HTTP: up to it all is well, beyond it nothing is stored."""

import json
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from config import rate_limits
from config.jsonvalues import JsonObject, JsonValue, dump_compact
from executions.enums import RunStatus
from executions.errors import InputRefused
from executions.models import WorkflowExecution
from executions.tests.app import App
from executions.tests.evidence import nothing_happens
from executions.tests.phone import Phone, flow, form, published, server_step
from sandbox.testing import FakePartner
from workflows.drafts import import_document
from workflows.errors import DocumentInvalid

pytestmark = pytest.mark.django_db

ASK = "/api/ask"


def text_of(size: int) -> str:
    """A text whose JSON has so many bytes."""
    return "x" * (size - 2)


# --- what is stored -------------------------------------------------------------------------------


@pytest.fixture
def phone(partner: FakePartner) -> Phone:
    """A form, and a question that stores its answer."""
    return Phone(published(flow(form(0), server_step(1, type="INFO", triggerEndpoint=ASK))))


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (text_of(100), 100),
        # bytes count, not characters
        ("é" * 49, 100),
        ({"a": [1, 2, 3], "b": text_of(82)}, 100),
    ],
)
def test_an_input_has_its_bytes(
    phone: Phone, partner: FakePartner, settings: Settings, value: JsonValue, size: int
) -> None:
    assert len(dump_compact(value)) == size
    settings.MAX_INPUT_BYTES = size - 1
    for index in (0, 1):
        with nothing_happens(partner), pytest.raises(InputRefused) as refused:
            phone.step(index, value)
        assert refused.value.message == f"The input may have {size - 1} bytes of JSON."
    settings.MAX_INPUT_BYTES = size
    assert phone.step(0, value).success


@pytest.mark.parametrize("name", ["MAX_INPUT_BYTES", "MAX_CONTEXT_BYTES"])
def test_an_initial_context_has_its_bytes(phone: Phone, settings: Settings, name: str) -> None:
    phone.initial = {"a": text_of(94)}
    setattr(settings, name, 99)
    with nothing_happens(), pytest.raises(InputRefused) as refused:
        phone.start()
    assert refused.value.message == "The initialContext may have 99 bytes of JSON."
    setattr(settings, name, 100)
    assert phone.start().pk


def test_values_have_their_depth(phone: Phone, partner: FakePartner, settings: Settings) -> None:
    settings.MAX_JSON_DEPTH = 3
    with nothing_happens(partner):
        with pytest.raises(InputRefused, match="nested deeper than 3 levels"):
            phone.step(0, [[{"a": []}]])
        phone.initial = {"a": [[[]]]}
        with pytest.raises(InputRefused, match="nested deeper than 3 levels"):
            phone.start()
    assert phone.step(0, [[{"a": 1}]]).success


def test_a_session_has_its_bytes(partner: FakePartner, settings: Settings) -> None:
    settings.MAX_CONTEXT_BYTES = 3000
    phone = Phone(published(flow(form(0), form(1), form(2))))
    assert phone.step(0, text_of(1300)).success
    assert phone.step(1, text_of(1300)).success
    with nothing_happens(), pytest.raises(InputRefused) as refused:
        phone.step(2, text_of(1300))
    assert refused.value.message == "The session may hold 3000 bytes; this input is too much."
    assert phone.step(2, text_of(100)).success


def test_what_is_replaced_makes_room(partner: FakePartner, settings: Settings) -> None:
    settings.MAX_CONTEXT_BYTES = 3000
    phone = Phone(published(flow(form(0), form(1))))
    for size in (2000, 2500, 2000):
        assert phone.step(0, text_of(size)).success
    with nothing_happens(), pytest.raises(InputRefused):
        phone.step(0, text_of(3100))


def test_going_back_makes_room(partner: FakePartner, settings: Settings) -> None:
    settings.MAX_CONTEXT_BYTES = 3000
    partner.answer(ASK, text_of(2000))
    question = server_step(1, type="INFO", triggerEndpoint=ASK)
    phone = Phone(published(flow(form(0), question, form(2))))
    phone.step(0, text_of(500))
    assert phone.step(1).success
    assert phone.step(0, text_of(2500)).success
    # and now the answer has no room
    assert phone.step(1).error_code == "TRIGGER_BAD_RESPONSE"


def test_an_answer_that_cannot_be_kept_is_no_answer(
    phone: Phone, partner: FakePartner, settings: Settings
) -> None:
    settings.MAX_CONTEXT_BYTES = 3000
    partner.answer(ASK, text_of(2500))
    phone.step(0, text_of(1000))
    before = phone.context
    answer = phone.step(1)
    assert (answer.success, answer.error_code) == (False, "TRIGGER_BAD_RESPONSE")
    assert answer.error == "The partner's answer is too large to keep."
    assert phone.context == before
    assert phone.runs[-1].status == RunStatus.UNKNOWN
    # under the same key, because it may have acted
    settings.MAX_CONTEXT_BYTES = 6000
    assert phone.step(1).success
    assert len({call.key for call in partner.calls()}) == 1


def test_a_workflow_has_its_steps(db: None, settings: Settings) -> None:
    settings.MAX_STEPS = 3
    with pytest.raises(DocumentInvalid) as refused:
        import_document(flow(*(form(order) for order in range(4))))
    assert [str(problem) for problem in refused.value.problems] == [
        "steps: must have at most 3 steps, not 4"
    ]
    assert published(flow(*(form(order) for order in range(3))))


def test_two_hundred_steps_can_be_walked(partner: FakePartner) -> None:
    phone = Phone(published(flow(*(form(order) for order in range(200)))))
    for index in (0, 1, 2):
        assert phone.step(index, {"n": index}).success
    assert phone.step(199, {}).error_code == "STEP_OUT_OF_ORDER"


# --- requests -------------------------------------------------------------------------------------

CANCEL = 'cancelWorkflowExecution(executionId: "%s")'


def post(body: Any, **extra: Any) -> HttpResponse:
    data = body if isinstance(body, str) else json.dumps(body)
    given: dict[str, Any] = {"content_type": "application/json", **extra}
    response: Any = Client().post("/graphql", data, headers=App("alice").headers, **given)
    return response  # type: ignore[no-any-return]  # of Django's test client


def code_of(response: HttpResponse) -> str:
    code: str = json.loads(response.content)["errors"][0]["extensions"]["code"]
    return code


def doubling(levels: int) -> str:
    """Fragments that double with each level; 250 tokens ask for two to the power of levels."""
    fragments = [
        f"fragment F{level} on WorkflowExecution {{ ...F{level + 1} ...F{level + 1} }}"
        for level in range(levels)
    ]
    return " ".join([*fragments, f"fragment F{levels} on WorkflowExecution {{ id }}"])


ALIASES = " ".join(f"a{number}: id" for number in range(30))
CIRCLE = """fragment A on WorkflowExecution { ...B }
fragment B on WorkflowExecution { ...A }"""


@pytest.mark.parametrize(
    ("query", "code"),
    [
        # 30 aliases
        (f"mutation {{ one: CANCEL {{ {ALIASES} }} }}", "QUERY_TOO_COMPLEX"),
        # 20 root fields, each of which would do something
        (f"mutation {{ {'CANCEL { id } ' * 21} }}", "QUERY_TOO_COMPLEX"),
        # 15 levels
        (f"mutation {{ CANCEL {{ {'a { ' * 15} id {'} ' * 15} }} }}", "QUERY_TOO_COMPLEX"),
        # 2000 tokens
        (f"mutation {{ CANCEL {{ {'id ' * 2000} }} }}", "QUERY_TOO_COMPLEX"),
        # 1000 fields, counted after fragments are expanded
        (f"mutation {{ CANCEL {{ ...F0 }} }} {doubling(10)}", "QUERY_TOO_COMPLEX"),
        (f"mutation {{ CANCEL {{ ...F0 }} }} {doubling(40)}", "QUERY_TOO_COMPLEX"),
        # fragments that go round in a circle
        (f"mutation {{ CANCEL {{ ...A }} }} {CIRCLE}", None),
        # introspection and hints
        ("{ __schema { types { name } } }", None),
        ('{ __type(name: "Query") { name } }', None),
    ],
    ids=["aliases", "roots", "depth", "tokens", "fields", "bomb", "circle", "schema", "type"],
)
def test_a_document_has_its_bounds(phone: Phone, query: str, code: str | None) -> None:
    text = query.replace("CANCEL", CANCEL % phone.execution_id)
    with nothing_happens():
        response = post({"query": text})
    assert response.status_code == 400
    assert code_of(response) == (code or "BAD_USER_INPUT")
    assert b"Did you mean" not in response.content


@pytest.mark.parametrize(
    ("body", "extra", "status"),
    [
        # one operation a request
        ([{"query": "mutation { CANCEL { id } }"}], {}, 400),
        # JSON only
        ({"query": "mutation { CANCEL { id } }"}, {"content_type": "text/plain"}, 415),
        ("query=mutation", {"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"query": "mutation { CANCEL { id } }"}, {"content_type": "multipart/form-data"}, 415),
        # the body's size, before it is parsed
        ({"query": "mutation { CANCEL { id } }", "x": "y" * 5000}, {}, 413),
        ("{" * 5000, {}, 413),
    ],
    ids=["batch", "text", "form", "multipart", "large", "large and broken"],
)
def test_a_request_has_its_shape(
    phone: Phone, settings: Settings, body: Any, extra: dict[str, Any], status: int
) -> None:
    settings.MAX_BODY_BYTES = 4000
    text = json.dumps(body) if not isinstance(body, str) else body
    with nothing_happens():
        response = post(text.replace("CANCEL", CANCEL % phone.execution_id), **extra)
    assert response.status_code == status


def test_a_mutation_comes_by_post(phone: Phone) -> None:
    query = f"mutation {{ {CANCEL % phone.execution_id} {{ id }} }}"
    with nothing_happens():
        response = Client().get("/graphql", {"query": query}, headers=App("alice").headers)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")


# --- rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RATE_LIMIT_USER", "RATE_LIMIT_ADDRESS"])
def test_rates_have_a_wait(phone: Phone, settings: Settings, name: str) -> None:
    setattr(settings, name, "3/minute")
    rate_limits.forget()
    start: JsonObject = {
        "query": "mutation ($w: ID!) { startWorkflowExecution(workflowId: $w, pageId: 1) { id } }",
        "variables": {"w": phone.compiled.workflow_id},
    }
    assert [post(start).status_code for _ in range(3)] == [200, 200, 200]
    with nothing_happens():
        response = post(start)
    assert response.status_code == 429
    (error,) = json.loads(response.content)["errors"]
    wait = error["extensions"].pop("retryAfterMs")
    assert error["extensions"] == {"code": "RATE_LIMITED", "retryable": True}
    assert 0 < wait <= 60_000
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert WorkflowExecution.objects.count() == 4
