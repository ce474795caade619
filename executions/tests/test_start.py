"""Starting: what an initial context may hold, whose key it is, and which version runs."""

import threading
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connections
from django.utils import timezone
from pytest_django import Settings

from config.jsonvalues import JsonObject
from executions import executor
from executions.enums import WorkflowExecutionStatus
from executions.errors import IdempotencyConflict, InputRefused
from executions.models import SessionRecord, WorkflowExecution
from executions.session_store import get_session_store
from executions.tests.evidence import nothing_happens
from executions.tests.phone import Phone, flow, form, published, server_step
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow
from workflows.drafts import archive_workflow, create_workflow, import_document
from workflows.errors import DefinitionNotFound, WorkflowArchived
from workflows.publishing import publish
from workflows.versions import compiled_version, forget_everything

pytestmark = pytest.mark.django_db

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"account": {"type": "string", "minLength": 3}},
    "required": ["account"],
}


@pytest.fixture
def compiled(db: None, partner: FakePartner) -> CompiledWorkflow:
    """A form, a form that asks a partner, and a call."""
    asking = server_step(1, type="FORM", config={"dataKey": "details"})
    return published(flow(form(0), asking, server_step(2)))


def start(compiled: CompiledWorkflow, **changes: Any) -> WorkflowExecution:
    """Alice starts the workflow from her home page."""
    arguments: dict[str, Any] = {
        "user_id": "alice",
        "scopes": frozenset(),
        "page_id": "home",
        "initial_context": {"account": "1234"},
        "idempotency_key": None,
        "now": timezone.now(),
        **changes,
    }
    workflow_id = arguments.pop("workflow_id", compiled.workflow_id)
    return executor.start_execution(workflow_id, **arguments)


def context_of(row: WorkflowExecution) -> dict[str, Any]:
    snapshot = get_session_store().get_context(row.session_id)
    assert snapshot is not None
    return dict(snapshot.context)


# --- what is written ------------------------------------------------------------------------------


def test_a_start_is_a_pending_row_with_its_session(compiled: CompiledWorkflow) -> None:
    row = WorkflowExecution.objects.get(pk=start(compiled).pk)
    assert (row.status, row.sequence, row.position) == (WorkflowExecutionStatus.PENDING, 0, 0)
    assert (row.user_id, row.page_id, str(row.version_id)) == ("alice", "home", compiled.version_id)
    assert (row.completed_at, row.lease_holder, row.result, row.error_code) == (
        None,
        None,
        None,
        "",
    )
    assert row.runs.count() == 0
    assert context_of(row) == {"account": "1234", "userId": "alice"}


@pytest.mark.parametrize(
    ("of_workflow", "expected"),
    [
        # the setting's
        (None, 900),
        # the workflow's own
        (120, 120),
    ],
)
def test_the_session_lives_as_long_as_the_workflow_says(
    settings: Settings, of_workflow: int | None, expected: int
) -> None:
    settings.SESSION_TTL_SECONDS = 900
    config = {} if of_workflow is None else {"sessionTtlSeconds": of_workflow}
    row = WorkflowExecution.objects.get(pk=start(published(flow(form(), **config))).pk)
    assert round((row.expires_at - row.started_at).total_seconds()) == expected
    assert get_session_store().get_session_ttl(row.session_id) == expected


@pytest.mark.parametrize(
    "value",
    [
        # beyond 64 bits, and what a faster parser would make a float of
        {"n": 2**70, "m": -(10**400)},
        # text that looks like a number
        {"code": "0012"},
        # fractions, and one that is whole
        {"a": 0.1, "b": 1.0},
        # other scripts, an emoji beyond the basic plane
        {"name": "Zoë 中文 🚀"},
        # false things are values too
        {"a": None, "b": False, "c": 0, "d": "", "e": [], "f": {}},
        # names that look like ours inside a value
        {"account": {"userId": "bob", "context": 1}},
        {},
    ],
)
def test_the_initial_context_is_kept_exactly(compiled: CompiledWorkflow, value: JsonObject) -> None:
    context = context_of(start(compiled, initial_context=value))
    assert context == {**value, "userId": "alice"}
    kinds = {key: type(item) for key, item in context.items() if key != "userId"}
    assert kinds == {key: type(item) for key, item in value.items()}


def test_no_initial_context_is_an_empty_one(compiled: CompiledWorkflow) -> None:
    assert context_of(start(compiled, initial_context=None)) == {"userId": "alice"}


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        # who somebody is, the token says
        "userId",
        # the context's own name, and the other names of expressions
        "context",
        "input",
        "result",
        "execution",
        # a form's data
        "form0",
        # a form that asks a partner: its data and the answer
        "details",
        "detailsResult",
        # a partner's answer
        "call2",
    ],
)
def test_what_the_server_finds_out_cannot_be_brought(compiled: CompiledWorkflow, key: str) -> None:
    with nothing_happens(), pytest.raises(InputRefused) as refused:
        start(compiled, initial_context={"account": "1234", key: {"valid": True}})
    assert refused.value.message == (
        f"initialContext cannot hold {key}: the server finds these out itself."
    )
    assert refused.value.code == "BAD_USER_INPUT"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # no object
        ({"initial_context": []}, "initialContext has to be an object."),
        ({"initial_context": "text"}, "initialContext has to be an object."),
        ({"initial_context": False}, "initialContext has to be an object."),
        # nothing that a store can keep
        (
            {"initial_context": {"a": "b\x00"}},
            "The initialContext cannot be stored: /a: NUL characters cannot be stored",
        ),
        (
            {"initial_context": {"a\x00": 1}},
            "The initialContext cannot be stored: /: NUL characters cannot be stored",
        ),
        (
            {"initial_context": {"a": "\ud800"}},
            "The initialContext cannot be stored: /a: lone surrogates cannot be stored",
        ),
        (
            {"initial_context": {"a": float("nan")}},
            "The initialContext cannot be stored: /a: NaN and infinite numbers are not JSON",
        ),
        (
            {"initial_context": {"a": 10**4300}},
            "The initialContext cannot be stored: /a: an integer may have 4300 digits",
        ),
        # a name that no store takes
        ({"initial_context": {"k" * 251: 1}}, "A key of the context may have 250 characters."),
        # a page has a name
        ({"page_id": ""}, "pageId has 1 to 255 characters."),
        ({"page_id": "p" * 256}, "pageId has 1 to 255 characters."),
        (
            {"page_id": "\x00"},
            "The pageId cannot be stored: /: NUL characters cannot be stored",
        ),
        # keys are short and can be printed
        ({"idempotency_key": ""}, "An idempotencyKey has 1 to 255 printable characters."),
        ({"idempotency_key": "k" * 256}, "An idempotencyKey has 1 to 255 printable characters."),
        ({"idempotency_key": "a\nb"}, "An idempotencyKey has 1 to 255 printable characters."),
        ({"idempotency_key": "\x00"}, "An idempotencyKey has 1 to 255 printable characters."),
    ],
)
def test_what_cannot_be_kept_is_refused(
    compiled: CompiledWorkflow, changes: dict[str, Any], message: str
) -> None:
    with nothing_happens(), pytest.raises(InputRefused) as refused:
        start(compiled, **changes)
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "initialContext does not fit the workflow: /account: is required"),
        (
            {"account": 5},
            "initialContext does not fit the workflow: /account: must be of type string",
        ),
        (
            {"account": "1"},
            "initialContext does not fit the workflow: /account: must have at least 3 characters",
        ),
    ],
)
def test_the_workflows_schema_decides(value: JsonObject, message: str) -> None:
    compiled = published(flow(form(), initialContextSchema=SCHEMA))
    with nothing_happens(), pytest.raises(InputRefused) as refused:
        start(compiled, initial_context=value)
    assert refused.value.message == message
    assert start(compiled, initial_context={"account": "123"}).pk


# --- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "is_allowed"),
    [
        (frozenset(), False),
        # one of two is not enough
        (frozenset({"loans"}), False),
        # the admin scope opens records, not flows
        (frozenset({"workflows:admin"}), False),
        (frozenset({"loans", "adults"}), True),
        (frozenset({"loans", "adults", "more"}), True),
    ],
)
def test_required_scopes(scopes: frozenset[str], is_allowed: bool) -> None:
    compiled = published(flow(form(), requiredScopes=["loans", "adults"]))
    if is_allowed:
        assert start(compiled, scopes=scopes).user_id == "alice"
        return
    with nothing_happens(), pytest.raises(DefinitionNotFound):
        start(compiled, scopes=scopes)


@pytest.mark.parametrize(
    "workflow_id", ["0195d3a0-0000-7000-8000-000000000000", "17", "", "x" * 10_000, "\x00", "🚀"]
)
def test_an_unknown_workflow_is_not_found(compiled: CompiledWorkflow, workflow_id: str) -> None:
    for key in (None, "k"):
        with nothing_happens(), pytest.raises(DefinitionNotFound):
            start(compiled, workflow_id=workflow_id, idempotency_key=key)


def test_a_draft_is_not_there() -> None:
    draft = create_workflow(flow(form()))
    compiled = published(flow(form()))
    with nothing_happens(), pytest.raises(DefinitionNotFound):
        start(compiled, workflow_id=str(draft.pk))


@pytest.mark.parametrize("is_fresh", [True, False], ids=["another process", "the same process"])
def test_an_archived_workflow_takes_no_new_ones(is_fresh: bool) -> None:
    phone = Phone(published(flow(form(0))))
    archive_workflow(UUID(phone.compiled.workflow_id))
    if is_fresh:
        forget_everything()
    with nothing_happens(), pytest.raises(WorkflowArchived):
        start(phone.compiled)
    assert phone.step(0, {"a": 1}).success
    assert phone.complete().success


# --- keys -----------------------------------------------------------------------------------------


def test_the_same_start_again_is_the_same_execution(compiled: CompiledWorkflow) -> None:
    first = start(compiled, idempotency_key="k")
    with nothing_happens():
        again = start(compiled, idempotency_key="k")
    assert again.pk == first.pk


def test_without_a_key_every_start_is_another(compiled: CompiledWorkflow) -> None:
    assert start(compiled).pk != start(compiled).pk


@pytest.mark.parametrize(
    "changes",
    [
        {"page_id": "other"},
        {"initial_context": {"account": "12345"}},
        {"initial_context": {}},
        # 1 and 1.0, and true and 1, are different values
        {"initial_context": {"account": "1234", "n": 1.0}},
        {"initial_context": {"account": "1234", "n": True}},
    ],
)
def test_the_same_key_for_another_start_is_a_conflict(
    compiled: CompiledWorkflow, changes: dict[str, Any]
) -> None:
    start(compiled, idempotency_key="k", initial_context={"account": "1234", "n": 1})
    with nothing_happens(), pytest.raises(IdempotencyConflict) as refused:
        start(compiled, **{"idempotency_key": "k", **changes})
    assert refused.value.code == "IDEMPOTENCY_CONFLICT"


def test_the_order_of_keys_does_not_matter(compiled: CompiledWorkflow) -> None:
    first = start(compiled, idempotency_key="k", initial_context={"a": 1, "b": {"c": 2, "d": 3}})
    again = start(compiled, idempotency_key="k", initial_context={"b": {"d": 3, "c": 2}, "a": 1})
    assert again.pk == first.pk


def test_a_key_belongs_to_the_person_and_the_workflow(compiled: CompiledWorkflow) -> None:
    other = published(flow(form(0)))
    started = [
        start(compiled, idempotency_key="k"),
        start(compiled, idempotency_key="k", user_id="bob", page_id="other"),
        start(other, idempotency_key="k", page_id="third"),
    ]
    assert len({row.pk for row in started}) == 3


def test_a_repeated_start_is_answered_whatever_became_of_the_workflow() -> None:
    document: JsonObject = {**flow(form(0)), "name": "Changing"}
    compiled = published(document)
    first = start(compiled, idempotency_key="k")
    stricter: JsonObject = {
        **document,
        "config": {"initialContextSchema": {"required": ["new"]}, "requiredScopes": ["adults"]},
    }
    workflow, _ = import_document(stricter)
    publish(workflow.pk, by="operator")
    forget_everything()
    assert start(compiled, idempotency_key="k").pk == first.pk
    archive_workflow(workflow.pk)
    forget_everything()
    assert start(compiled, idempotency_key="k").pk == first.pk
    with pytest.raises(IdempotencyConflict):
        start(compiled, idempotency_key="k", page_id="other")


@pytest.mark.django_db(transaction=True)
def test_of_starts_at_once_with_one_key_one_starts() -> None:
    compiled = published(flow(form(0)))
    together = threading.Barrier(6)
    started: list[UUID] = []

    def one() -> None:
        together.wait()
        try:
            started.append(start(compiled, idempotency_key="k").pk)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 6
    (row,) = WorkflowExecution.objects.all()
    assert set(started) == {row.pk}
    assert context_of(row) == {"account": "1234", "userId": "alice"}
    assert SessionRecord.objects.exclude(session_id=row.session_id).count() == 0


# --- versions -------------------------------------------------------------------------------------


def test_new_executions_run_the_newest_version_and_running_ones_keep_theirs() -> None:
    document: JsonObject = {**flow(form(0)), "name": "Growing"}
    old = Phone(published(document))
    workflow, _ = import_document({**document, "steps": [form(0), form(1)]})
    newest = compiled_version(publish(workflow.pk, by="operator").pk)
    row = start(old.compiled)
    assert (str(row.version_id), newest.number) == (newest.version_id, 2)
    new = Phone(newest)
    assert old.step(0, {}).success
    assert new.step(0, {}).success
    assert old.complete().success
    assert new.complete().error_code == "STEPS_INCOMPLETE"
    assert str(old.row.version_id) == old.compiled.version_id


def test_a_session_never_outlives_a_day_after_the_start() -> None:
    phone = Phone(published(flow(form(0), form(1), sessionTtlSeconds=86_400)))
    begun = timezone.now() - timedelta(hours=23)
    WorkflowExecution.objects.filter(pk=phone.execution_id).update(started_at=begun)
    assert phone.step(0, {}).success
    assert round((phone.row.expires_at - begun).total_seconds()) == 86_400
