"""The publish check: every problem at once, and warnings for what may be meant."""

from collections.abc import Mapping
from typing import cast

import pytest

from config.jsonvalues import JsonObject, JsonValue
from workflows.documents import parse_document
from workflows.draft_check import DraftReport, check_draft
from workflows.routing import ConnectionFacts
from workflows.tests.samples import form, server, workflow

CONNECTIONS: Mapping[str, ConnectionFacts] = {
    "default": ConnectionFacts("http://127.0.0.1:9000"),
    "bank": ConnectionFacts("https://bank.example/api", "X-Api-Key"),
    "twin-a": ConnectionFacts("https://twin.example/a"),
    "twin-b": ConnectionFacts("https://twin.example/b"),
}
OPEN = ": taken to come from the initial context"


def report(
    data: JsonObject, connections: Mapping[str, ConnectionFacts] = CONNECTIONS
) -> DraftReport:
    return check_draft(parse_document(data), connections=connections)


def problems(data: JsonObject) -> list[str]:
    return [str(problem) for problem in report(data).problems]


def warnings(data: JsonObject) -> list[str]:
    found = report(data)
    assert found.problems == ()
    return [str(warning) for warning in found.warnings]


def closed(**properties: str) -> JsonObject:
    return {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
    }


def test_seed_document_may_be_published(money_transfer: JsonObject) -> None:
    assert warnings(money_transfer) == [
        f"config.apiMapping.senderAccount: userAccount is no data key{OPEN}"
    ]


MODES_AND_TIMINGS = [
    (workflow(), ["steps: a workflow needs at least one step"]),
    (
        workflow(server(columns={"triggerEndpoint": None})),
        ["steps[0].triggerEndpoint: is required for SERVER_SYNC"],
    ),
    (
        workflow({**form(), "triggerEndpoint": "/pay"}),
        [
            (
                "steps[0].triggerEndpoint: has no use: CLIENT_ONLY calls nobody; "
                "choose a server mode or leave it out"
            )
        ],
    ),
    (
        workflow({**form(), "triggerTiming": "BOTH"}),
        [
            (
                "steps[0].triggerTiming: makes no sense with CLIENT_ONLY, "
                "which has nothing to do before the step"
            )
        ],
    ),
    (
        workflow(server(columns={"executionMode": "SERVER_ASYNC", "triggerEndpoint": None})),
        ["steps[0].triggerEndpoint: is required for SERVER_ASYNC"],
    ),
    (workflow(server(compensation={"endpoint": "/undo"}), durableSession=True), []),
    (
        workflow(form(compensation={"endpoint": "/undo"})),
        ["steps[0].config.compensation: has nothing to undo: CLIENT_ONLY calls nobody"],
    ),
]

COMPENSATIONS = [
    (
        workflow(
            form(dataKey="a"),
            server(
                1,
                dataKey="b",
                compensation={
                    "endpoint": "/undo/${result.id}/${execution.idempotencyKey}",
                    "requestMapping": {"i": "input.x", "a": "a.b", "r": "result", "own": "b.id"},
                },
            ),
        ),
        [],
    ),
    (
        workflow(server(connection="nobody", compensation={"endpoint": "/undo"})),
        ["steps[0].config.connection: there is no connection nobody"],
    ),
    (
        workflow(server(connection="bank", compensation={"endpoint": "https://evil.example/"})),
        ["steps[0].config.compensation.endpoint: the endpoint is not on its connection's origin"],
    ),
    # It is composed when its step succeeds.
    (
        workflow(
            server(
                compensation={
                    "endpoint": "/undo/${later.id}",
                    "requestMapping": {"bad": "a =="},
                }
            ),
            form(1, dataKey="later"),
        ),
        [
            "steps[0].config.compensation.endpoint: later is only there after a later step",
            "steps[0].config.compensation.requestMapping.bad: does not parse: it ends too early",
        ],
    ),
    (
        workflow(
            server(
                compensation={
                    "endpoint": "/undo",
                    "requestMapping": {"x": "later.a", "all": "@", "to": "execution.callbackUrl"},
                }
            ),
            form(1, dataKey="later"),
        ),
        [
            "steps[0].config.compensation.requestMapping.x: later is only there after a later step",
            (
                "steps[0].config.compensation.requestMapping.all: "
                "the whole context is no mapping source; name what is needed"
            ),
            (
                "steps[0].config.compensation.requestMapping.to: "
                "execution.callbackUrl is there for SERVER_ASYNC triggers only"
            ),
        ],
    ),
    (
        workflow(server(requestMapping={"x": "result.a"})),
        ["steps[0].config.requestMapping.x: result does not exist here"],
    ),
    (
        workflow(server(requestMapping={"to": " execution.callbackUrl "})),
        [
            (
                "steps[0].config.requestMapping.to: "
                "execution.callbackUrl is there for SERVER_ASYNC triggers only"
            )
        ],
    ),
]

DATA_KEYS = [
    (
        workflow(form(dataKey="a"), form(1, dataKey="a")),
        ["steps[1].config.dataKey: a is taken by steps[0]"],
    ),
    (
        workflow(form(dataKey="step1"), form(1)),
        ["steps[1].config.dataKey: step1 is taken by steps[0]"],
    ),
    (
        workflow(form(dataKey="userId"), form(1, dataKey="context")),
        [
            "steps[0].config.dataKey: userId is a reserved name",
            "steps[1].config.dataKey: context is a reserved name",
        ],
    ),
    # A step that keeps input and calls a partner writes <dataKey>Result too.
    (
        workflow(server(columns={"type": "FORM"}, dataKey="a"), form(1, dataKey="aResult")),
        ["steps[1].config.dataKey: aResult is taken by steps[0]"],
    ),
    (workflow(form(dataKey="a"), form(1, dataKey="aResult")), []),
    (
        workflow(form(dataKey="a"), initialContextSchema=closed(a="string", userId="string")),
        [
            (
                "config.initialContextSchema.properties.a: "
                "is not the initial context's to fill: a step's data key or a reserved name"
            ),
            (
                "config.initialContextSchema.properties.userId: "
                "is not the initial context's to fill: a step's data key or a reserved name"
            ),
        ],
    ),
]

EXPRESSIONS = [
    (
        workflow(form(when="a ==", inputSchema={"type": "what"})),
        [
            "steps[0].config.inputSchema.type: fits none of the allowed forms",
            "steps[0].config.when: does not parse: it ends too early",
        ],
    ),
    (
        workflow(form(inputSchema={"$ref": "https://evil.example/schema"})),
        [
            "steps[0].config.inputSchema.$ref: only references inside the schema (#/...) are followed"
        ],
    ),
    (
        workflow(server(proceedWhen="answer.ok")),
        [
            "steps[0].config.proceedWhen: answer does not exist here; there are result, input, context"
        ],
    ),
    (
        workflow(form(message="Hello ${name")),
        ["steps[0].config.message: ${ at position 7 is not closed within 500 characters"],
    ),
    (
        workflow(server(status={"endpoint": "/s/${execution.id}", "expect": "["})),
        ["steps[0].config.status.expect: does not parse: it ends too early"],
    ),
    (
        workflow(form(), sensitive=["pin", "card..number"]),
        ["config.sensitive[1]: must be names joined by single dots"],
    ),
]

SOURCES = [
    (
        workflow(form(dataKey="a"), apiMapping={"x": "a.b", "all": "context", "y": ["@"]}),
        [
            "config.apiMapping.all: the whole context is no mapping source; name what is needed",
            "config.apiMapping.y[0]: the whole context is no mapping source; name what is needed",
        ],
    ),
    (
        workflow(
            form(dataKey="a"),
            apiMapping={"x": "a.b", "y": "typo.b"},
            initialContextSchema=closed(c="string"),
        ),
        ["config.apiMapping.y: no step and no initial context produces typo"],
    ),
    (
        workflow(
            form(dataKey="a"),
            apiMapping={"u": "userId", "c": "c"},
            initialContextSchema=closed(c="string"),
        ),
        [],
    ),
    (
        workflow(form(dataKey="a"), apiMapping={"x": "input.a"}),
        ["config.apiMapping.x: input does not exist here"],
    ),
    (
        workflow(server(requestMapping={"x": "later.a"}), form(1, dataKey="later")),
        ["steps[0].config.requestMapping.x: later is only there after a later step"],
    ),
    (
        workflow(
            server(requestMapping={"x": {"$from": "later.a", "$default": 1}}),
            form(1, dataKey="later"),
        ),
        [],
    ),
    (workflow(server(requestMapping={"x": "input.a", "y": "execution.id"})), []),
    (workflow(form(dataKey="a", private=True), server(1, requestMapping={"x": "a.secret"})), []),
    (
        workflow(server(columns={"triggerEndpoint": "/pay/${later.id}"}), form(1, dataKey="later")),
        ["steps[0].triggerEndpoint: later is only there after a later step"],
    ),
]

ENDPOINTS = [
    (
        workflow(server(connection="nobody")),
        ["steps[0].config.connection: there is no connection nobody"],
    ),
    (workflow(server(columns={"triggerEndpoint": "https://bank.example/api/pay"})), []),
    (
        workflow(server(columns={"triggerEndpoint": "https://evil.example/pay"})),
        ["steps[0].triggerEndpoint: no connection is registered for https://evil.example"],
    ),
    (
        workflow(server(columns={"triggerEndpoint": "https://twin.example/a"})),
        [
            (
                "steps[0].triggerEndpoint: "
                "https://twin.example belongs to twin-a, twin-b: name the connection"
            )
        ],
    ),
    (
        workflow(
            server(columns={"triggerEndpoint": "https://evil.example/pay"}, connection="bank")
        ),
        ["steps[0].triggerEndpoint: the endpoint is not on its connection's origin"],
    ),
    (
        workflow(server(columns={"triggerEndpoint": "https://${input.host}/pay"})),
        ["steps[0].triggerEndpoint: no connection is registered for https://x"],
    ),
    (
        workflow(form(), finalApi={"endpoint": "//evil.example"}, apiMapping={"u": "userId"}),
        ["config.finalApi.endpoint: an endpoint that begins with // names another host"],
    ),
    (
        workflow(
            server(
                connection="bank",
                headers={"x-api-key": "1", "Host": "h", "X-Ok": "${a}", "x-ok": ""},
            )
        ),
        [
            "steps[0].config.headers.x-api-key: the header x-api-key carries the connection's credentials",
            "steps[0].config.headers.Host: the header Host is set by Handrail",
            "steps[0].config.headers.x-ok: is there twice: the case of a header's name does not matter",
        ],
    ),
    (
        workflow(server(status={"endpoint": "https://evil.example/"})),
        ["steps[0].config.status.endpoint: no connection is registered for https://evil.example"],
    ),
]


@pytest.mark.parametrize(
    ("data", "found"),
    [*MODES_AND_TIMINGS, *COMPENSATIONS, *DATA_KEYS, *EXPRESSIONS, *SOURCES, *ENDPOINTS],
)
def test_what_stops_publishing(data: JsonObject, found: list[str]) -> None:
    assert problems(data) == found


def test_relative_endpoint_without_any_connection_is_a_problem() -> None:
    found = report(workflow(server()), connections={})
    assert [str(problem) for problem in found.problems] == [
        "steps[0].triggerEndpoint: has no connection: name one, or set TRIGGER_BASE_URL"
    ]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (workflow(form(when="a.b")), [f"steps[0].config.when: a is no data key{OPEN}"]),
        (
            workflow(form(message="Hi ${nme}"), initialContextSchema=closed(name="string")),
            [
                "steps[0].config.message: nme is no data key, and the initial context has none of that name"
            ],
        ),
        # What a schema says by other keywords is not worked out: the names are open.
        (
            workflow(
                form(), apiMapping={"x": "a"}, initialContextSchema={"allOf": [closed(a="string")]}
            ),
            [f"config.apiMapping.x: a is no data key{OPEN}"],
        ),
        (
            workflow(form(dataKey="risk", private=True), form(1, title="${risk.score}")),
            ["steps[1].config.title: risk is private: nothing of it is shown"],
        ),
        (
            workflow(form(), finalApi={"endpoint": "/final"}),
            ["config.finalApi: sends the whole context: there is no config.apiMapping"],
        ),
        (
            workflow(form(method="POST")),
            ["steps[0].config.method: has no effect: the step calls nobody"],
        ),
        (
            workflow({**form(), "type": "API_CALL"}),
            ["steps[0].executionMode: an API_CALL that is CLIENT_ONLY calls nobody"],
        ),
    ],
)
def test_what_an_author_should_look_at(data: JsonObject, found: list[str]) -> None:
    assert warnings(data) == found


LATE = "kyc may not be there yet: steps[1] is SERVER_ASYNC, and only the completion waits for it"


def asynchronous(**config: JsonValue) -> JsonObject:
    """A FORM and an async step that writes `kyc`."""
    step = server(1, columns={"executionMode": "SERVER_ASYNC"}, dataKey="kyc")
    own = cast("JsonObject", step["config"])
    return {**step, "config": {**own, **config}}


@pytest.mark.parametrize(
    ("later", "path"),
    [
        (form(2, when="kyc.ok"), "steps[2].config.when"),
        (form(2, message="Hi ${kyc.name}"), "steps[2].config.message"),
        (server(2, requestMapping={"a": ["kyc.ok"]}), "steps[2].config.requestMapping.a[0]"),
        (server(2, headers={"X-A": "${context.kyc.ok}"}), "steps[2].config.headers.X-A"),
        (server(2, columns={"triggerEndpoint": "/pay/${kyc.id}"}), "steps[2].triggerEndpoint"),
        (server(2, proceedWhen="result.a == context.kyc.a"), "steps[2].config.proceedWhen"),
        (
            server(2, compensation={"endpoint": "/undo/${kyc.id}"}),
            "steps[2].config.compensation.endpoint",
        ),
    ],
)
def test_answer_of_an_async_step_may_not_be_there_yet(later: JsonObject, path: str) -> None:
    assert warnings(workflow(form(), asynchronous(), later)) == [f"{path}: {LATE}"]


def test_later_timing_of_an_async_step_does_not_find_its_earlier_answer() -> None:
    step = {**asynchronous(requestMapping={"first": "kyc.id"}), "triggerTiming": "BOTH"}
    assert warnings(workflow(form(), step)) == [f"steps[1].config.requestMapping.first: {LATE}"]


def test_answer_of_an_async_step_is_there_for_the_completion() -> None:
    data = workflow(
        form(dataKey="person", message="Hi"),
        asynchronous(
            requestMapping={"who": "person.name", "answerTo": "execution.callbackUrl"},
            proceedWhen="result.verified",
            compensation={"endpoint": "/undo/${result.id}"},
        ),
        # A default says that its author knows.
        server(2, requestMapping={"score": {"$from": "kyc.score", "$default": None}}),
        apiMapping={"score": "kyc.score"},
        finalApi={"endpoint": "/final/${kyc.id}"},
    )
    assert warnings(data) == []


def test_input_of_an_async_form_is_there_and_its_answer_is_not() -> None:
    columns: JsonObject = {"type": "FORM", "executionMode": "SERVER_ASYNC"}
    step = server(columns=columns, dataKey="kyc")
    data = workflow(step, form(1, title="${kyc.name}", message="${kycResult.ok}"))
    assert [warning.path for warning in report(data).warnings] == ["steps[1].config.message"]


def test_all_problems_come_at_once() -> None:
    data = workflow(
        form(dataKey="userId", when="("), server(1, connection="nobody"), sensitive=["a..b"]
    )
    assert [problem.path for problem in report(data).problems] == [
        "config.sensitive[0]",
        "steps[0].config.dataKey",
        "steps[0].config.when",
        "steps[1].config.connection",
    ]
