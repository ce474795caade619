"""A compiled version: what the engine asks of a step is answered before it asks."""

from collections.abc import Iterator, Mapping

import pytest

from config.jsonvalues import JsonObject, JsonValue
from workflows.compiled import compile_workflow
from workflows.documents import parse_document
from workflows.enums import TriggerTiming
from workflows.errors import ExpressionInvalid
from workflows.retry import RetryPolicy
from workflows.tests.samples import compiled, compiled_step, form, seed_document, server

BEFORE, AFTER = TriggerTiming.BEFORE_STEP, TriggerTiming.AFTER_STEP


@pytest.mark.parametrize(
    ("step_type", "mode", "timing", "timings", "trigger_timings"),
    [
        ("FORM", "CLIENT_ONLY", None, (AFTER,), ()),
        ("INFO", "CLIENT_ONLY", None, (AFTER,), ()),
        # What collects input is always passed by AFTER_STEP, whenever its trigger is called.
        ("FORM", "SERVER_SYNC", "BEFORE_STEP", (BEFORE, AFTER), (BEFORE,)),
        ("CONFIRMATION", "SERVER_SYNC", "AFTER_STEP", (AFTER,), (AFTER,)),
        ("FORM", "SERVER_VALIDATION", "BOTH", (BEFORE, AFTER), (BEFORE, AFTER)),
        ("VALIDATION", "SERVER_VALIDATION", "BEFORE_STEP", (BEFORE,), (BEFORE,)),
        ("API_CALL", "SERVER_SYNC", None, (AFTER,), (AFTER,)),
        ("API_CALL", "SERVER_SYNC", "BOTH", (BEFORE, AFTER), (BEFORE, AFTER)),
    ],
)
def test_timings(
    step_type: str,
    mode: str,
    timing: str | None,
    timings: tuple[TriggerTiming, ...],
    trigger_timings: tuple[TriggerTiming, ...],
) -> None:
    columns: JsonObject = {"type": step_type, "executionMode": mode, "triggerTiming": timing}
    step = compiled_step(server(columns=columns))
    assert step.timings == timings
    assert step.trigger_timings == frozenset(trigger_timings)


@pytest.mark.parametrize(
    ("columns", "stores_input", "result_key", "written_keys"),
    [
        ({"type": "FORM", "executionMode": "CLIENT_ONLY"}, True, "aResult", ("a",)),
        ({"type": "FORM"}, True, "aResult", ("a", "aResult")),
        ({"type": "VALIDATION"}, False, "a", ("a",)),
        ({"type": "INFO", "executionMode": "CLIENT_ONLY"}, True, "aResult", ("a",)),
    ],
)
def test_keys(
    columns: JsonObject, stores_input: bool, result_key: str, written_keys: tuple[str, ...]
) -> None:
    step = compiled_step(server(columns=columns, dataKey="a"))
    assert (step.data_key, step.stores_input, step.result_key) == ("a", stores_input, result_key)
    assert step.written_keys == written_keys


def test_reserved_and_hidden_keys_are_those_that_steps_write() -> None:
    workflow = compiled(
        form(dataKey="a"), server(1, columns={"type": "FORM"}, dataKey="b", private=True), form(2)
    )
    built_in = {"userId", "context", "input", "result", "execution"}
    assert workflow.reserved_keys == built_in | {"a", "b", "bResult", "step2"}
    assert workflow.hidden_keys == {"b", "bResult"}
    assert workflow.index_by_id == {"s0": 0, "s1": 1, "s2": 2}


def test_info_and_optional_steps_may_be_passed_by() -> None:
    workflow = compiled(form(optional=True), form(1), server(2, columns={"type": "INFO"}))
    assert [step.may_be_passed_by for step in workflow.steps] == [True, False, True]


@pytest.mark.parametrize(
    ("step", "roots"),
    [
        (server(), None),
        (server(method="GET"), frozenset()),
        (server(requestMapping={"x": "a.b", "y": "input.c", "z": "context.d"}), {"a", "d"}),
        (server(requestMapping={"x": "keys(@)"}), None),
        (server(columns={"triggerEndpoint": "/p/${a.id}"}, requestMapping={}), {"a"}),
        (server(headers={"X-A": "${b.c} ${execution.id}"}, requestMapping={}), {"b"}),
        (server(status={"endpoint": "/s/${c.id}"}, requestMapping={}), {"c"}),
    ],
)
def test_roots_are_what_building_the_request_reads(
    step: JsonObject, roots: frozenset[str] | None
) -> None:
    trigger = compiled_step(step).trigger
    assert trigger is not None
    assert trigger.roots == roots


@pytest.mark.parametrize(
    ("proceed_when", "roots"),
    [
        (None, frozenset()),
        ("result.ok", frozenset()),
        ("result.limit >= input.amount", frozenset()),
        ("result.name == context.person.name && context.a[0]", {"person", "a"}),
        # Nobody can say what it reads: all of it has to be there.
        ("length(keys(context)) > `1`", None),
        ("contains(values(@), 'x')", None),
    ],
)
def test_proceed_roots_are_what_judging_reads_of_the_context(
    proceed_when: str | None, roots: frozenset[str] | None
) -> None:
    config: JsonObject = {} if proceed_when is None else {"proceedWhen": proceed_when}
    assert compiled_step({**server(), "config": config}).proceed_roots == roots


def test_async_steps_are_known() -> None:
    workflow = compiled(form(), server(1, columns={"executionMode": "SERVER_ASYNC"}), server(2))
    assert [step.is_async for step in workflow.steps] == [False, True, False]
    assert (workflow.has_async, compiled(server()).has_async) == (True, False)


def test_compensation_is_compiled_where_a_partner_is_called() -> None:
    undo: JsonObject = {"endpoint": "/undo"}
    workflow = compiled(form(compensation=undo), server(1, compensation=undo), server(2))
    assert [step.compensation is not None for step in workflow.steps] == [False, True, False]
    assert (workflow.has_compensation, compiled(server()).has_compensation) == (True, False)


def test_compensation_has_its_steps_connection_and_timeout() -> None:
    step = server(
        columns={"timeoutMs": 500},
        connection="bank",
        compensation={"endpoint": "/undo/${result.id}"},
    )
    call = compiled_step(step).compensation
    assert call is not None
    assert (call.connection, call.method, call.timeout_ms) == ("bank", "POST", 500)
    assert call.endpoint.render({"result": {"id": "p/1"}}) == "/undo/p%2F1"
    assert (call.headers, call.status, call.roots) == ((), None, frozenset())


@pytest.mark.parametrize(
    ("step_retries", "own_retries", "policy"),
    [
        (None, None, RetryPolicy(max_retries=5, initial_delay_ms=1000)),
        ({"maxRetries": 2}, None, RetryPolicy(max_retries=2)),
        (None, {"maxRetries": 0}, RetryPolicy()),
        ({"maxRetries": 2}, {"initialDelayMs": 10}, RetryPolicy(initial_delay_ms=10)),
    ],
)
def test_compensation_retries_by_its_own_policy_then_the_steps_then_five_times(
    step_retries: JsonObject | None, own_retries: JsonObject | None, policy: RetryPolicy
) -> None:
    undo: JsonObject = {"endpoint": "/undo"}
    if own_retries is not None:
        undo["retryConfig"] = own_retries
    call = compiled_step(
        server(columns={"retryConfig": step_retries}, compensation=undo)
    ).compensation
    assert call is not None
    assert call.retry == policy


def test_compensation_says_what_it_undoes_and_not_the_whole_context() -> None:
    call = compiled_step(server(compensation={"endpoint": "/undo"})).compensation
    assert call is not None
    assert call.body is not None
    execution: JsonObject = {"id": "e", "idempotencyKey": "k"}
    scope: JsonObject = {"result": {"id": "p1"}, "execution": execution, "pin": "1234"}
    assert call.body.apply(scope) == {
        "input": None, "result": {"id": "p1"}, "execution": execution
    }  # fmt: skip


def test_compensation_sends_its_own_mapping() -> None:
    undo: JsonObject = {
        "endpoint": "/undo", "method": "DELETE", "requestMapping": {"id": "result.id", "who": "a.b"}
    }  # fmt: skip
    call = compiled_step(server(compensation=undo)).compensation
    assert call is not None
    assert call.body is not None
    assert (call.method, call.roots) == ("DELETE", frozenset({"a"}))
    assert call.body.apply({"result": {"id": 1}, "a": {"b": 2}}) == {"id": 1, "who": 2}


def test_compensation_by_get_has_no_body_of_its_own() -> None:
    call = compiled_step(server(compensation={"endpoint": "/undo", "method": "GET"})).compensation
    assert call is not None
    assert (call.body, call.roots) == (None, frozenset())


def test_app_sees_no_server_side_keys() -> None:
    config: JsonObject = {
        "dataKey": "a", "title": "T", "method": "PUT", "headers": {}, "connection": "bank",
        "requestMapping": {}, "proceedWhen": "result", "status": {"endpoint": "/s"}, "when": "b",
    }  # fmt: skip
    step = compiled_step({**server(), "config": config})
    assert step.view_config(None, staff=False) == {"dataKey": "a", "title": "T", "when": "b"}
    assert step.view_config(None, staff=True) == config


def test_texts_are_rendered_where_there_is_a_scope_and_nothing_else_is() -> None:
    config: JsonObject = {
        "message": "Send ${a.amount}?",
        "formId": "${a}",
        "app": {"hint": ["$${a} is ${a}"], "n": 1},
    }
    step = compiled_step({**form(), "config": config})
    assert step.view_config({"a": {"amount": 5000}}, staff=False) == {
        "message": "Send 5000?",
        "formId": "${a}",
        "app": {"hint": ['${a} is {"amount":5000}'], "n": 1},
    }
    assert step.view_config(None, staff=False) == config


def test_seed_confirmation_is_rendered() -> None:
    document = parse_document(seed_document())
    workflow = compile_workflow(
        version_id="v", workflow_id="w", number=1, document=document, step_ids=list("abcd")
    )
    scope: JsonObject = {"transferDetails": {"amount": 5000, "recipientName": "John Doe"}}
    config = workflow.steps[2].view_config(scope, staff=False)
    assert config is not None
    assert config["message"] == "Send 5000 to John Doe?"


class LazyScope(Mapping[str, JsonValue]):
    """A scope that notes which of its values were opened."""

    def __init__(self, values: JsonObject) -> None:
        self.values_ = values
        self.opened: list[str] = []

    def __getitem__(self, name: str) -> JsonValue:
        value = self.values_[name]
        self.opened.append(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


def test_private_data_is_in_no_text() -> None:
    workflow = compiled(
        form(dataKey="risk", private=True),
        form(1, title="${risk.score}${name}", message="${to_string(@)}"),
    )
    scope = LazyScope({"risk": {"score": 7}, "name": "Ann"})
    config = workflow.steps[1].view_config(scope, staff=False)
    assert config == {"title": "Ann", "message": '{"name":"Ann"}'}
    assert "risk" not in scope.opened


def test_rendering_opens_only_what_the_texts_read() -> None:
    scope = LazyScope({"a": "A", "b": "B"})
    step = compiled_step(form(title="${a}"))
    assert step.view_config(scope, staff=False) == {"title": "A"}
    assert set(scope.opened) == {"a"}


def test_workflow_config_hides_where_the_server_submits() -> None:
    config: JsonObject = {
        "apiMapping": {"u": "userId"},
        "finalApi": {"endpoint": "/final"},
        "sessionTtlSeconds": 60,
    }
    workflow = compiled(form(), **config)
    assert workflow.view_config(staff=False) == {"sessionTtlSeconds": 60}
    assert workflow.view_config(staff=True) == config
    assert workflow.final_api is not None
    assert workflow.final_api.body is not None
    assert workflow.final_api.body.apply({"userId": "alice"}) == {"u": "alice"}


def test_what_does_not_compile_is_refused() -> None:
    with pytest.raises(ExpressionInvalid):
        compiled(form(when="a =="))
