"""Settings that a step has no use for, each with its path."""

from config.jsonvalues import JsonObject
from workflows.documents import parse_document
from workflows.step_rules import CALL_PATHS, useless_settings
from workflows.tests.samples import form, server, workflow

EVERYTHING: JsonObject = {
    **form(),
    "triggerTiming": "BOTH",
    "triggerEndpoint": "/x",
    "timeoutMs": 500,
    "retryConfig": {},
    "config": {
        "connection": "c",
        "method": "GET",
        "headers": {},
        "requestMapping": {},
        "status": {"endpoint": "/s"},
        "compensation": {"endpoint": "/u"},
        "title": "T",
        "proceedWhen": "input.a",
    },
}


def useless(step: JsonObject) -> list[str]:
    return [one.path for one in useless_settings(parse_document(workflow(step)).steps[0])]


def test_step_that_calls_nobody_has_no_use_for_a_call() -> None:
    assert useless(EVERYTHING) == [*CALL_PATHS, "triggerTiming"]
    assert useless(form(title="T")) == []


def test_server_step_has_use_for_everything() -> None:
    assert useless({**EVERYTHING, "executionMode": "SERVER_SYNC"}) == []
    assert useless(server()) == []
