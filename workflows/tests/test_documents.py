"""The workflow document: every problem at once with its path, and out as it came in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.jsonvalues import JsonObject, JsonValue
from workflows.document_shape import document_problems
from workflows.document_text import read_json, write_json
from workflows.documents import (
    StepSettings,
    WorkflowSettings,
    dump_document,
    parse_document,
    retry_policy,
    with_changes,
)
from workflows.enums import StepExecutionMode, StepType, TriggerTiming
from workflows.errors import DocumentInvalid
from workflows.retry import RetryPolicy
from workflows.tests.samples import SEED, form, seed_document, server, workflow

UNKNOWN_STEP_KEY = (
    "unknown key; known are config, executionMode, label, order, retryConfig, timeoutMs, "
    "triggerEndpoint, triggerTiming, type"
)


def problems(data: JsonValue) -> list[str]:
    return [str(problem) for problem in document_problems(data)]


def test_seed_document_comes_back_unchanged(money_transfer: JsonObject) -> None:
    assert dump_document(parse_document(money_transfer)) == money_transfer


def test_seed_document_comes_back_as_the_same_text() -> None:
    document = parse_document(read_json(SEED.read_bytes()))
    assert write_json(dump_document(document)).strip() == SEED.read_text().strip()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ([], ["must be an object, not a list"]),
        ({}, ["name: is required", "steps: is required"]),
        ({"name": " ", "steps": []}, ["name: must not be empty"]),
        ({"name": "n" * 201, "steps": []}, ["name: must have at most 200 characters"]),
        (
            {"name": 5, "steps": {}},
            ["name: must be text, not a number", "steps: must be a list, not an object"],
        ),
        ({"name": "a\x00", "steps": []}, ["/name: NUL characters cannot be stored"]),
        (
            {"name": "n", "description": None, "steps": []},
            ["description: must not be null; leave it out instead"],
        ),
        (
            {"name": "n", "steps": [], "config": None},
            ["config: must not be null; leave it out instead"],
        ),
        ({"name": "n", "steps": [5]}, ["steps[0]: must be an object, not a number"]),
        (
            workflow(sessionTtlSeconds=59),
            ["config.sessionTtlSeconds: must be between 60 and 86400"],
        ),
        (
            workflow(sessionTtlSeconds=True),
            ["config.sessionTtlSeconds: must be a whole number, not true or false"],
        ),
        (
            workflow(requiredScopes=["a", 1]),
            ["config.requiredScopes[1]: must be text, not a number"],
        ),
        (
            workflow(finalApi={"method": "TRACE"}),
            [
                "config.finalApi.endpoint: is required",
                "config.finalApi.method: must be one of GET, POST, PUT, PATCH, DELETE",
            ],
        ),
        (
            workflow(initialContextSchema=[]),
            ["config.initialContextSchema: must be a JSON Schema (an object), not a list"],
        ),
        (workflow({**form(), "colour": 1}), [f"steps[0].colour: {UNKNOWN_STEP_KEY}"]),
        (
            workflow({**form(), "type": "form"}),
            ["steps[0].type: must be one of FORM, VALIDATION, CONFIRMATION, API_CALL, INFO"],
        ),
        (workflow(form(1), form(1)), ["steps[1].order: is taken: another step has order 1"]),
        (workflow(form(2), form(1)), ["steps[1].order: must be above the step before it (2)"]),
        (workflow({**form(), "order": -1}), ["steps[0].order: must be between 0 and 100000"]),
        (
            workflow({**form(), "order": 1.0}),
            ["steps[0].order: must be a whole number, not a fraction"],
        ),
        (
            workflow(
                form(), server(1, columns={"timeoutMs": 0, "retryConfig": {"maxRetries": 11}})
            ),
            [
                "steps[1].timeoutMs: must be between 100 and 120000",
                "steps[1].retryConfig.maxRetries: must be between 0 and 10",
            ],
        ),
        (
            workflow(server(columns={"retryConfig": {"backoffMultiplier": 0.5, "tries": 1}})),
            [
                "steps[0].retryConfig.backoffMultiplier: must be between 1 and 10",
                (
                    "steps[0].retryConfig.tries: unknown key; known are "
                    "backoffMultiplier, initialDelayMs, maxDelayMs, maxRetries"
                ),
            ],
        ),
        (
            workflow({**form(), "triggerEndpoint": None}),
            ["steps[0].triggerEndpoint: must not be null; leave it out instead"],
        ),
        (
            workflow({**form(), "triggerEndpoint": ""}),
            ["steps[0].triggerEndpoint: must not be empty"],
        ),
        (
            workflow(form(optional="yes", app=None)),
            ["steps[0].config.optional: must be true or false, not text"],
        ),
        (
            workflow(form(dataKey="a b")),
            [
                (
                    "steps[0].config.dataKey: must start with a letter or _, go on with letters, digits, "
                    "_ or -, and have at most 100 characters"
                )
            ],
        ),
        (
            workflow(form(headers={"X-A": 1, "x y": 2})),
            [
                "steps[0].config.headers.X-A: must be text, not a number",
                'steps[0].config.headers["x y"]: must be text, not a number',
            ],
        ),
        (workflow(form(status={"expect": "a"})), ["steps[0].config.status.endpoint: is required"]),
        (
            workflow(form(when="x" * 501)),
            ["steps[0].config.when: must have at most 500 characters"],
        ),
    ],
)
def test_every_problem_has_its_path(data: JsonValue, found: list[str]) -> None:
    assert problems(data) == found


def test_too_many_steps_are_counted_and_not_looked_through() -> None:
    data: JsonObject = {"name": "Flow", "steps": [{"order": "wrong"} for _ in range(201)]}
    with pytest.raises(DocumentInvalid) as refused:
        parse_document(data, max_steps=200)
    assert [str(one) for one in refused.value.problems] == [
        "steps: must have at most 200 steps, not 201"
    ]


def test_absent_is_not_the_default() -> None:
    step = parse_document(workflow(form(3))).steps[0]
    assert (step.execution_mode, step.trigger_timing, step.config) == (None, None, None)
    assert step.mode is StepExecutionMode.CLIENT_ONLY
    assert step.timing is TriggerTiming.AFTER_STEP
    assert (step.own_data_key, step.data_key) == (None, "step3")


def test_settings_have_the_defaults_of_the_specification() -> None:
    document = parse_document(workflow(server(), form(1)))
    call, first = (StepSettings.of(step) for step in document.steps)
    assert (call.reversible, first.reversible) == (False, True)
    assert (call.optional, call.private, call.when, call.proceed_when) == (False, False, None, None)
    assert call.trigger is not None
    assert (call.trigger.method, call.trigger.timeout_ms, call.trigger.connection) == (
        "POST",
        10_000,
        "",
    )
    assert call.trigger.retry == RetryPolicy(
        max_retries=0, initial_delay_ms=1_000, backoff_multiplier=2, max_delay_ms=30_000
    )
    settings = WorkflowSettings.of(document)
    assert (settings.session_ttl_seconds, settings.durable_session) == (None, False)


def test_status_asks_with_get_on_the_steps_connection() -> None:
    document = parse_document(workflow(server(connection="bank", status={"endpoint": "/s"})))
    status = StepSettings.of(document.steps[0]).status
    assert status is not None
    assert (status.endpoint, status.method, status.connection) == ("/s", "GET", "bank")


def test_retry_policy_reads_every_key() -> None:
    config: JsonObject = {
        "maxRetries": 3,
        "initialDelayMs": 5,
        "backoffMultiplier": 1.5,
        "maxDelayMs": 9,
    }
    assert retry_policy(config) == RetryPolicy(3, 5, 1.5, 9)


def test_a_change_to_null_leaves_the_key_out() -> None:
    assert with_changes({"a": 1, "b": 2}, {"a": None, "c": 3}) == {"b": 2, "c": 3}


TEXT = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), min_size=1, max_size=20
).filter(lambda text: text.strip() != "")
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
STEP = st.fixed_dictionaries(
    {"type": st.sampled_from(StepType.values), "label": TEXT},
    optional={
        "executionMode": st.sampled_from(StepExecutionMode.values),
        "triggerTiming": st.sampled_from(TriggerTiming.values),
        "triggerEndpoint": TEXT,
        "timeoutMs": st.integers(100, 120_000),
        "retryConfig": st.fixed_dictionaries({}, optional={"maxRetries": st.integers(0, 10)}),
        "config": st.fixed_dictionaries(
            {},
            optional={
                "dataKey": st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True),
                "title": TEXT,
                "app": JSON_VALUES,
                "optional": st.booleans(),
                "requestMapping": JSON_VALUES.filter(lambda value: value is not None),
            },
        ),
    },
)
DOCUMENT = st.builds(
    lambda top, steps, orders: {
        **top,
        "steps": [
            {**step, "order": order} for step, order in zip(steps, sorted(orders), strict=False)
        ],
    },
    st.fixed_dictionaries(
        {"name": TEXT}, optional={"description": st.just("") | TEXT, "config": st.just({})}
    ),
    st.lists(STEP, max_size=4),
    st.sets(st.integers(0, 100_000), min_size=4, max_size=4),
)


@given(DOCUMENT)
def test_any_document_comes_back_unchanged(data: JsonObject) -> None:
    assert dump_document(parse_document(data)) == data


@given(JSON_VALUES)
def test_any_json_is_parsed_or_refused_with_problems(data: JsonValue) -> None:
    with pytest.raises(DocumentInvalid) as refused:
        parse_document(data)
    assert refused.value.problems


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a":1,"a":2}', 'it has the key "a" twice in one object'),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "-Infinity is not JSON"),
        (b'{"a":1e999}', "/a: NaN and infinite numbers are not JSON"),
        (b"\xef\xbb\xbf{}", "it begins with a byte order mark; save it as UTF-8 without one"),
        (b'{"a":"\xff"}', "it is not UTF-8 (byte 7)"),
        (b'{"a":"\\ud800"}', "/a: lone surrogates cannot be stored"),
        (b'{"a":"\\u0000"}', "/a: NUL characters cannot be stored"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64 levels"),
        (b"[" * 100_000 + b"]" * 100_000, "it is nested too deeply"),
        (b"1" * 5_000, "it holds a number with too many digits"),
        (b"", "it is not JSON: Expecting value (line 1, column 1)"),
        (
            b"{'a': 1}",
            "it is not JSON: Expecting property name enclosed in double quotes (line 1, column 2)",
        ),
    ],
    ids=range(13),
)
def test_text_that_is_read_differently_elsewhere_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(DocumentInvalid) as refused:
        read_json(raw)
    assert refused.value.message == message


def test_text_keeps_numbers_exactly() -> None:
    raw = b'{"big": 123456789012345678901234567890, "half": 0.5}'
    assert read_json(raw) == {"big": 123456789012345678901234567890, "half": 0.5}


def test_seed_document_has_four_steps() -> None:
    assert [step.type.value for step in parse_document(seed_document()).steps] == [
        "FORM",
        "VALIDATION",
        "CONFIRMATION",
        "API_CALL",
    ]
