"""What a partner receives, byte for byte, and under which Idempotency-Key it comes again."""

import json
import re
from typing import Any

import pytest
from django.utils import timezone

from config.jsonvalues import JsonObject, JsonValue, dump_compact
from executions.enums import RunStatus
from executions.models import StepRun
from executions.tests.evidence import nothing_happens
from executions.tests.phone import AFTER, BEFORE, Phone, flow, form, published, server_step
from sandbox.ledger import Call
from sandbox.testing import FakePartner
from workflows.connections import set_connection
from workflows.enums import AuthKind

pytestmark = pytest.mark.django_db

SEND = "/api/transactions/transfer"
TAKE = "/api/anything/x"
EFFECTS = "/api/effects/${execution.idempotencyKey}"
TRANSFER: JsonObject = {"amount": 10, "recipientAccount": "9876543210"}
ENTERED: JsonObject = {
    "n": 2**70,
    "code": "0012",
    "rate": 0.1,
    "whole": 1.0,
    "name": "Zoë & 中/文?",
    "list": ["a b", 2],
    "object": {"k": "v"},
    "yes": True,
    "nil": None,
    "empty": "",
    "path": "a/../b",
    "percent": "50%",
}


def sent(partner: FakePartner, step: JsonObject, value: JsonValue = None) -> tuple[Phone, Call]:
    """The only call of a step after a form with ENTERED."""
    phone = Phone(published(flow(form(0), step)), initial={"account": "1234"})
    phone.step(0, ENTERED)
    timing = BEFORE if step.get("triggerTiming") == "BEFORE_STEP" else AFTER
    assert phone.step(1, value, timing).success
    (call,) = partner.calls()
    return phone, call


# --- the whole request ----------------------------------------------------------------------------


def test_the_default_request(partner: FakePartner) -> None:
    phone, call = sent(partner, server_step(1, triggerEndpoint=TAKE), {"pin": "1"})
    execution_id = str(phone.execution_id)
    body = dump_compact(
        {
            "input": {"pin": "1"},
            "context": {"account": "1234", "form0": ENTERED, "userId": "alice"},
            "execution": {
                "id": execution_id,
                "workflow": "Flow",
                "step": "Call 1",
                "userId": "alice",
            },
        }
    )
    assert (call.method, call.path, call.query) == ("POST", TAKE, "")
    assert call.json == json.loads(body)
    traceparent = call.headers.pop("traceparent")
    assert re.fullmatch(f"00-{phone.execution_id.hex}-(?!0{{16}})[0-9a-f]{{16}}-01", traceparent)
    assert call.headers == {
        "host": partner.url.removeprefix("http://"),
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "user-agent": "handrail",
        "idempotency-key": str(phone.runs[-1].trigger_key),
        "x-workflow-execution-id": execution_id,
        "x-workflow-step-id": phone.compiled.steps[1].id,
    }


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_methods_with_a_body(partner: FakePartner, method: str) -> None:
    config = {"method": method, "requestMapping": {"a": "form0.code"}}
    _, call = sent(partner, server_step(1, triggerEndpoint=TAKE, config=config))
    assert (call.method, call.body) == (method, b'{"a":"0012"}')


@pytest.mark.parametrize(
    ("mapping", "body"),
    [
        # values as they are, in the mapping's order
        (
            {"n": "form0.n", "code": "form0.code", "rate": "form0.rate", "whole": "form0.whole"},
            b'{"n":1180591620717411303424,"code":"0012","rate":0.1,"whole":1.0}',
        ),
        # nesting, literals, JMESPath's own literals, a dot in a name
        (
            {"a": {"b": ["form0.yes", 1, None, {"c": "'USD'"}]}, "x.y": "`5`"},
            b'{"a":{"b":[true,1,null,{"c":"USD"}]},"x.y":5}',
        ),
        # defaults for what is absent or null; not for what is merely false or empty
        (
            {
                "a": {"$from": "form0.nil", "$default": None},
                "b": {"$from": "form0.gone", "$default": {"c": 1}},
                "d": {"$from": "form0.empty", "$default": "x"},
            },
            b'{"a":null,"b":{"c":1},"d":""}',
        ),
        # whole values, and the names beside the context's
        (
            {"o": "form0.object", "i": "input.x", "u": "userId", "a": "context.account"},
            b'{"o":{"k":"v"},"i":7,"u":"alice","a":"1234"}',
        ),
        ({"w": "execution.workflow", "s": "execution.step"}, b'{"w":"Flow","s":"Call 1"}'),
        # functions
        ({"j": "join('-', [form0.code, account])"}, b'{"j":"0012-1234"}'),
        # a payload that is no object
        (["form0.code"], b'["0012"]'),
        ("form0.list", b'["a b",2]'),
        # text is sent in UTF-8
        ({"name": "form0.name"}, '{"name":"Zoë & 中/文?"}'.encode()),
    ],
)
def test_request_mapping(partner: FakePartner, mapping: JsonValue, body: bytes) -> None:
    step = server_step(1, triggerEndpoint="/api/ask", config={"requestMapping": mapping})
    partner.answer("/api/ask", {})
    _, call = sent(partner, step, {"x": 7})
    assert call.body == body


@pytest.mark.parametrize(
    ("mapping", "query"),
    [
        (None, ""),
        ({"code": "form0.code", "n": "form0.n"}, "code=0012&n=1180591620717411303424"),
        ({"name": "form0.name"}, "name=Zo%C3%AB+%26+%E4%B8%AD%2F%E6%96%87%3F"),
        # lists repeat the name, objects are JSON, null is left out
        ({"l": "form0.list"}, "l=a+b&l=2"),
        ({"o": "form0.object", "y": "form0.yes"}, "o=%7B%22k%22%3A%22v%22%7D&y=true"),
        ({"a": {"$from": "form0.nil", "$default": None}, "b": "form0.empty"}, "b="),
    ],
)
def test_a_get_has_a_query_and_no_body(
    partner: FakePartner, mapping: JsonValue, query: str
) -> None:
    config: JsonObject = {"method": "GET"}
    if mapping is not None:
        config["requestMapping"] = mapping
    _, call = sent(partner, server_step(1, triggerEndpoint=TAKE, config=config))
    assert (call.method, call.query, call.body) == ("GET", query, b"")
    assert "content-type" not in call.headers


def test_a_get_joins_the_query_of_its_endpoint(partner: FakePartner) -> None:
    config = {"method": "GET", "requestMapping": {"b": "form0.code"}}
    step = server_step(1, triggerEndpoint=f"{TAKE}?a=${{form0.name}}", config=config)
    _, call = sent(partner, step)
    assert call.query == "a=Zo%C3%AB%20%26%20%E4%B8%AD%2F%E6%96%87%3F&b=0012"


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        # one path segment each: nothing a person enters makes another path
        ("/api/anything/${form0.name}", "Zo%C3%AB%20%26%20%E4%B8%AD%2F%E6%96%87%3F"),
        ("/api/anything/${form0.percent}", "50%25"),
        ("/api/anything/${form0.n}", "1180591620717411303424"),
        ("/api/anything/${form0.yes}", "true"),
        ("/api/anything/${form0.rate}-${form0.code}", "0.1-0012"),
        ("/api/anything/${userId}", "alice"),
        # a literal
        ("/api/anything/$${x}", "$%7Bx%7D"),
    ],
)
def test_endpoints_hold_values_as_segments(
    partner: FakePartner, endpoint: str, target: str
) -> None:
    _, call = sent(partner, server_step(1, triggerEndpoint=endpoint))
    assert call.path == f"/api/anything/{target}"


def test_headers_of_the_operator(partner: FakePartner) -> None:
    headers = {
        "X-Code": "${form0.code}",
        "X-Nothing": "<${form0.gone}>",
        "User-Agent": "mine/1",
        "Accept": "application/vnd.bank+json",
        "Content-Type": "application/vnd.bank+json",
    }
    _, call = sent(partner, server_step(1, triggerEndpoint=TAKE, config={"headers": headers}))
    given = {name: call.headers[name.lower()] for name in headers}
    assert given == {**headers, "X-Code": "0012", "X-Nothing": "<>"}


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\x7fb", "中"])
def test_a_value_makes_no_header_of_its_own(partner: FakePartner, value: str) -> None:
    step = server_step(1, triggerEndpoint=TAKE, config={"headers": {"X-Name": "${form0.name}"}})
    phone = Phone(published(flow(form(0), step)))
    phone.step(0, {"name": value})
    assert phone.step(1).error_code == "ENDPOINT_FORBIDDEN"
    assert partner.calls() == []


# --- credentials ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requirement", "connection"),
    [
        ("bearer:s3cret", {"auth_kind": AuthKind.BEARER, "secret": "s3cret"}),
        (
            "basic:handrail:pass:word",
            {"auth_kind": AuthKind.BASIC, "username": "handrail", "secret": "pass:word"},
        ),
        (
            "api-key:X-Api-Key:k-1",
            {"auth_kind": AuthKind.API_KEY, "header_name": "X-Api-Key", "secret": "k-1"},
        ),
        ("hmac:shared", {"auth_kind": AuthKind.HMAC, "secret": "shared"}),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_credentials_of_each_kind(
    db: None, requirement: str, connection: dict[str, Any], method: str
) -> None:
    with FakePartner(require=requirement) as partner:
        set_connection(name="bank", base_url=partner.url, allow_private=True, **connection)
        config = {"connection": "bank", "method": method}
        sent(partner, server_step(1, triggerEndpoint=TAKE, config=config))
        set_connection(
            name="bank",
            base_url=partner.url,
            allow_private=True,
            **{**connection, "secret": "wrong"},
        )
        phone = Phone(published(flow(server_step(0, triggerEndpoint=TAKE, config=config))))
        assert phone.step(0).error_code == "TRIGGER_REJECTED"


def test_every_attempt_is_signed_anew_and_traced(db: None) -> None:
    with FakePartner(require="hmac:shared") as partner:
        set_connection(
            name="bank",
            base_url=partner.url,
            allow_private=True,
            auth_kind=AuthKind.HMAC,
            secret="shared",
        )
        partner.fault(TAKE, "status", status=503, times=2)
        retry = {"maxRetries": 2, "initialDelayMs": 0}
        step = server_step(
            0, triggerEndpoint=TAKE, retryConfig=retry, config={"connection": "bank"}
        )
        assert Phone(published(flow(step))).step(0, {"a": 1}).success
        calls = partner.calls()
    assert len({call.headers["idempotency-key"] for call in calls}) == 1
    assert len({call.headers["traceparent"] for call in calls}) == 3
    assert len({call.body for call in calls}) == 1


def test_the_connection_of_an_absolute_endpoint(partner: FakePartner) -> None:
    with FakePartner(require="bearer:other") as other:
        set_connection(
            name="other",
            base_url=f"{other.url}/api",
            allow_private=True,
            auth_kind=AuthKind.BEARER,
            secret="other",
        )
        absolute = server_step(1, triggerEndpoint=f"{other.url}/api/anything/a")
        below = server_step(2, triggerEndpoint="/anything/b", config={"connection": "other"})
        phone = Phone(published(flow(form(0), absolute, below)))
        phone.step(0, {})
        assert phone.step(1, {}).success
        assert phone.step(2, {}).success
        assert [call.path for call in other.calls()] == ["/api/anything/a", "/api/anything/b"]
    assert partner.calls() == []


# --- keys -----------------------------------------------------------------------------------------


def keys_of(partner: FakePartner, path: str = SEND) -> list[str]:
    return [call.key for call in partner.calls(path)]


@pytest.mark.parametrize(
    ("fault", "is_same"),
    [
        # nobody knows, or nobody acted: the same key
        ({"kind": "cut_before"}, True),
        ({"kind": "cut_after"}, True),
        ({"kind": "hang"}, True),
        ({"kind": "garbage"}, True),
        ({"kind": "redirect"}, True),
        ({"kind": "status", "status": 500}, True),
        ({"kind": "status", "status": 503, "effect": "before"}, True),
        ({"kind": "status", "status": 429}, True),
        ({"kind": "status", "status": 408}, True),
        ({"kind": "status", "status": 425}, True),
        # a definite no: a new one
        ({"kind": "status", "status": 400}, False),
        ({"kind": "status", "status": 403}, False),
        ({"kind": "status", "status": 404}, False),
        ({"kind": "status", "status": 409}, False),
        ({"kind": "status", "status": 422}, False),
    ],
    ids=lambda value: (
        f"{value['kind']}{value.get('status', '')}" if isinstance(value, dict) else None
    ),
)
@pytest.mark.parametrize("reversible", [False, True])
def test_the_key_of_a_repeat(
    partner: FakePartner, fault: dict[str, Any], is_same: bool, reversible: bool
) -> None:
    faults = dict(fault)
    partner.fault(SEND, faults.pop("kind"), **faults)
    step = server_step(0, timeoutMs=300, config={"reversible": reversible})
    phone = Phone(published(flow(step)))
    assert not phone.step(0, TRANSFER).success
    assert phone.step(0, TRANSFER).success
    first, second = keys_of(partner)
    assert (first == second) is is_same
    assert len(partner.effects(SEND)) == 1


def test_retries_have_one_key_and_one_effect(partner: FakePartner) -> None:
    partner.fault(SEND, "cut_after")
    partner.fault(SEND, "status", status=503, effect="before")
    partner.fault(SEND, "status", status=502)
    retry = {"maxRetries": 3, "initialDelayMs": 0}
    phone = Phone(published(flow(server_step(0, retryConfig=retry))))
    assert phone.step(0, TRANSFER).success
    assert len(set(keys_of(partner))) == 1
    assert [call.status for call in partner.calls()] == [None, 503, 502, 200]
    assert len(partner.effects(SEND)) == 1
    attempts = phone.runs[0].attempts.order_by("number")
    assert [row.outcome for row in attempts] == [
        "LINE_CUT",
        "SERVER_ERROR",
        "SERVER_ERROR",
        "ANSWERED",
    ]


def test_keys_differ_by_execution_step_and_timing(partner: FakePartner) -> None:
    steps = [
        server_step(order, type="INFO", triggerEndpoint=TAKE, triggerTiming="BOTH")
        for order in range(2)
    ]
    compiled = published(flow(*steps))
    for phone in (Phone(compiled), Phone(compiled)):
        for index in range(2):
            assert phone.step(index, timing=BEFORE).success
            assert phone.step(index).success
    assert len(set(keys_of(partner, TAKE))) == 8


# --- after an unknown outcome ---------------------------------------------------------------------


@pytest.fixture
def unknown(partner: FakePartner) -> Phone:
    """The payment was made, and its answer was lost."""
    partner.fault(SEND, "cut_after")
    phone = Phone(published(flow(form(0), server_step(1), form(2))))
    phone.step(0, {"note": "first"})
    assert phone.step(1, TRANSFER).error_code == "TRIGGER_UNAVAILABLE"
    assert phone.runs[-1].status == RunStatus.UNKNOWN
    return phone


def test_the_same_bytes_are_sent_again(unknown: Phone, partner: FakePartner) -> None:
    # the order of the input's members is not the first call's, the bytes are
    answer = unknown.step(1, {"recipientAccount": "9876543210", "amount": 10})
    assert answer.success
    first, second = partner.calls()
    assert (first.key, first.body, first.path) == (second.key, second.body, second.path)
    assert second.replayed
    (effect,) = partner.effects(SEND)
    assert answer.result == effect.result
    assert [run.status for run in unknown.runs[1:]] == [RunStatus.UNKNOWN, RunStatus.SUCCEEDED]
    assert (
        StepRun.objects.filter(
            execution_id=unknown.execution_id,
            status=RunStatus.SUCCEEDED,
            sealed_request__isnull=False,
        ).count()
        == 0
    )


@pytest.mark.parametrize(
    "value", [{**TRANSFER, "amount": 11}, {**TRANSFER, "amount": 10.0}, None, {}, []]
)
def test_another_input_is_refused_where_nothing_can_be_undone(
    unknown: Phone, partner: FakePartner, value: JsonValue
) -> None:
    with nothing_happens(partner):
        answer = unknown.step(1, value)
    assert answer.error_code == "STEP_LOCKED"
    assert answer.error == (
        "An earlier call of this step has an unknown outcome; repeat it with the same input."
    )
    assert unknown.step(1, TRANSFER).success


def test_nobody_goes_past_or_around_it(unknown: Phone, partner: FakePartner) -> None:
    with nothing_happens(partner):
        assert unknown.step(0, {"note": "second"}).error_code == "STEP_LOCKED"
        assert unknown.step(2, {}).error_code == "STEP_OUT_OF_ORDER"
        assert unknown.complete().error_code == "STEPS_INCOMPLETE"


def test_an_optional_payment_in_doubt_is_not_gone_past(partner: FakePartner) -> None:
    partner.fault(SEND, "cut_after")
    phone = Phone(published(flow(server_step(0, config={"optional": True}), form(1))))
    phone.step(0, TRANSFER)
    with nothing_happens(partner):
        assert phone.step(1, {}).error_code == "STEP_OUT_OF_ORDER"
        assert phone.complete().error_code == "STEPS_INCOMPLETE"


def test_what_can_be_undone_may_be_tried_with_another_input(partner: FakePartner) -> None:
    partner.fault(SEND, "cut_after")
    phone = Phone(published(flow(server_step(0, config={"reversible": True}))))
    phone.step(0, TRANSFER)
    assert phone.step(0, {**TRANSFER, "amount": 11}).success
    first, second = keys_of(partner)
    assert first != second


@pytest.mark.parametrize(
    ("status", "code", "run", "is_settled"),
    [
        # the partner recorded its no: a replay of it is definite
        (422, "TRIGGER_REJECTED", RunStatus.REJECTED, True),
        (400, "TRIGGER_REJECTED", RunStatus.REJECTED, True),
        # expired credentials or a broken route refuse before anybody looks at the key
        (401, "TRIGGER_UNAVAILABLE", RunStatus.UNKNOWN, False),
        (403, "TRIGGER_UNAVAILABLE", RunStatus.UNKNOWN, False),
        (404, "TRIGGER_UNAVAILABLE", RunStatus.UNKNOWN, False),
        # a partner that still works on the first call answers so, too: nobody knows
        (409, "TRIGGER_UNAVAILABLE", RunStatus.UNKNOWN, False),
        (429, "TRIGGER_UNAVAILABLE", RunStatus.UNKNOWN, False),
        (503, "TRIGGER_UNAVAILABLE", RunStatus.UNKNOWN, False),
    ],
)
def test_a_refusal_after_an_unknown_outcome(
    unknown: Phone,
    partner: FakePartner,
    status: int,
    code: str,
    run: RunStatus,
    is_settled: bool,
) -> None:
    partner.fault(SEND, "status", status=status)
    answer = unknown.step(1, TRANSFER)
    assert (answer.success, answer.error_code, answer.retryable) == (False, code, not is_settled)
    assert unknown.runs[-1].status == run
    unknown.step(1, TRANSFER)
    first, second, third = keys_of(partner)
    assert first == second
    assert (third == first) is not is_settled


def test_a_replayed_refusal_is_the_refusal(partner: FakePartner) -> None:
    poor: JsonObject = {**TRANSFER, "amount": 2_000_000}
    partner.fault(SEND, "cut_after")
    phone = Phone(published(flow(server_step(0))))
    assert phone.step(0, poor).retryable
    answer = phone.step(0, poor)
    assert (answer.error_code, answer.retryable) == ("TRIGGER_REJECTED", False)
    assert partner.calls()[-1].replayed
    # the person corrects the amount, under a key of its own
    assert phone.step(0, TRANSFER).success
    first, second, third = keys_of(partner)
    assert first == second != third


# --- the status endpoint --------------------------------------------------------------------------


def asked_first(**status: Any) -> Phone:
    config = {"status": {"endpoint": EFFECTS, **status}}
    return Phone(published(flow(server_step(0, config=config), form(1))))


def test_the_status_endpoint_is_asked_first(partner: FakePartner) -> None:
    partner.fault(SEND, "cut_after")
    phone = asked_first()
    phone.step(0, TRANSFER)
    answer = phone.step(0, TRANSFER)
    assert answer.success
    key = keys_of(partner)[0]
    assert [(call.method, call.path) for call in partner.calls()] == [
        ("POST", SEND),
        ("GET", f"/api/effects/{key}"),
    ]
    question = partner.calls()[-1]
    assert (question.body, question.key) == (b"", key)
    (effect,) = partner.effects(SEND)
    assert answer.result == effect.result == phone.context["call0"]
    (run,) = [run for run in phone.runs if run.status == RunStatus.SUCCEEDED]
    assert [row.outcome for row in run.attempts.all()] == ["ANSWERED"]


def test_it_is_not_asked_before_a_first_call_or_after_a_no(partner: FakePartner) -> None:
    partner.fault(SEND, "status", status=403)
    phone = asked_first()
    phone.step(0, TRANSFER)
    assert phone.step(0, TRANSFER).success
    assert [call.path for call in partner.calls()] == [SEND, SEND]


def test_what_did_not_happen_is_sent_again(partner: FakePartner) -> None:
    partner.fault(SEND, "cut_before")
    phone = asked_first()
    phone.step(0, TRANSFER)
    assert phone.step(0, TRANSFER).success
    first, second = keys_of(partner)
    assert first == second
    assert [call.path for call in partner.calls()] == [SEND, f"/api/effects/{first}", SEND]
    assert len(partner.effects(SEND)) == 1


@pytest.mark.parametrize(
    ("expect", "body", "is_sent_again"),
    [
        ("result.status == 'EXECUTED'", {"status": "EXECUTED"}, False),
        ("result.status == 'EXECUTED'", {"status": "UNKNOWN"}, True),
        # exactly true
        ("result.done", {"done": "yes"}, True),
        ("result.done", {"done": True}, False),
        ("sum(result) > `1`", {"a": 1}, True),
    ],
)
def test_expect_decides(
    partner: FakePartner, expect: str, body: JsonObject, is_sent_again: bool
) -> None:
    partner.fault(SEND, "cut_after")
    partner.answer("/api/effects/*", body)
    phone = asked_first(expect=expect)
    phone.step(0, TRANSFER)
    answer = phone.step(0, TRANSFER)
    assert answer.success
    assert len(keys_of(partner)) == (2 if is_sent_again else 1)
    assert (answer.result == body) is not is_sent_again


@pytest.mark.parametrize(
    "fault", [{"kind": "status", "status": 500}, {"kind": "cut_before"}, {"kind": "garbage"}]
)
def test_a_status_endpoint_that_does_not_know_sends_nothing(
    partner: FakePartner, fault: dict[str, Any]
) -> None:
    partner.fault(SEND, "cut_after")
    kinds = dict(fault)
    partner.fault("/api/effects/*", kinds.pop("kind"), **kinds)
    phone = asked_first()
    phone.step(0, TRANSFER)
    answer = phone.step(0, TRANSFER)
    assert (answer.error_code, answer.retryable) == ("TRIGGER_UNAVAILABLE", True)
    assert answer.error == (
        "An earlier call has an unknown outcome, and the partner does not say which."
    )
    assert len(keys_of(partner)) == 1
    # the next call asks again, and hears of it
    assert phone.step(0, TRANSFER).success
    assert len(keys_of(partner)) == 1


# --- the submission -------------------------------------------------------------------------------


def test_the_final_request(partner: FakePartner) -> None:
    mapping = {"amount": "form0.n", "who": "userId", "rate": "form0.rate"}
    final = {"endpoint": "/api/payments/submit?for=${form0.code}", "method": "PUT"}
    partner.answer("/api/payments/submit", {"ok": True})
    compiled = published(flow(form(0), apiMapping=mapping, finalApi=final))
    phone = Phone(compiled)
    phone.step(0, ENTERED)
    assert phone.complete().success
    (call,) = partner.calls()
    assert (call.method, call.path, call.query) == ("PUT", "/api/payments/submit", "for=0012")
    assert call.body == b'{"amount":1180591620717411303424,"who":"alice","rate":0.1}'
    assert call.headers["x-workflow-execution-id"] == str(phone.execution_id)
    assert "x-workflow-step-id" not in call.headers
    assert call.key == str(phone.runs[-1].trigger_key)
    assert call.headers["traceparent"].startswith(f"00-{phone.execution_id.hex}-")
    assert phone.row.completed_at is not None
    assert phone.row.completed_at <= timezone.now()


def test_a_kept_request_that_cannot_be_opened_sends_nothing(
    unknown: Phone, partner: FakePartner
) -> None:
    StepRun.objects.filter(status=RunStatus.UNKNOWN).update(sealed_request=b"x" * 60)
    calls = len(partner.calls())
    answer = unknown.step(1, TRANSFER)
    assert (answer.error_code, answer.retryable) == ("SESSION_UNAVAILABLE", True)
    assert len(partner.calls()) == calls
