"""The partner over real HTTP: effects, replays, credentials, ledger, limits of the server."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.jsonvalues import JsonValue
from sandbox.credentials import sign
from sandbox.messages import Request
from sandbox.partner import Partner
from sandbox.testing import FakePartner

from .conftest import ORDER, TRANSFER, VALIDATE, Ask, connect, exchange, raw_request, request


def test_transfer_is_done_once_and_its_repeat_answered_alike(
    partner: FakePartner, ask: Ask
) -> None:
    first = ask("POST", TRANSFER, ORDER, idempotency_key="k")
    again = ask("POST", TRANSFER, dict(reversed(ORDER.items())), idempotency_key="k")

    assert (again.status, again.json) == (first.status, first.json)
    assert first.status == 200
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    [effect] = partner.effects()
    assert (effect.key, effect.path, effect.replays) == ("k", TRANSFER, 1)
    assert (effect.json, effect.result) == (ORDER, first.json)
    assert [call.replayed for call in partner.calls()] == [False, True]
    balance = ask("GET", "/api/accounts/9876543210").json
    assert balance == {
        "accountNumber": "9876543210",
        "accountName": "John Doe",
        "balance": "1005000.00",
        "currency": "USD",
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (TRANSFER, {**ORDER, "amount": 5001}),
        (TRANSFER, {**ORDER, "amount": 5000.0}),
        ("/api/payments/submit", ORDER),
    ],
)
def test_changed_request_under_the_same_key_is_refused(
    partner: FakePartner, ask: Ask, path: str, body: JsonValue
) -> None:
    ask("POST", TRANSFER, ORDER, idempotency_key="k")

    got = ask("POST", path, body, idempotency_key="k")

    assert (got.status, got.json) == (
        422,
        {
            "message": "This Idempotency-Key was used for another request; "
            "a repeat must be the same request.",
            "code": "IDEMPOTENCY_KEY_REUSED",
        },
    )
    assert len(partner.effects()) == 1


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [
        ("/api/accounts", 201, {"accountNumber": "2063151144", "status": "OPEN"}),
        ("/api/kyc/checks/cancel", 200, {"status": "CANCELLED"}),
        ("/api/transactions/reverse", 200, {"status": "REVERSED"}),
    ],
)
def test_steps_and_their_undoing_are_done_once(
    partner: FakePartner, ask: Ask, path: str, status: int, answer: JsonValue
) -> None:
    assert ask("POST", path, {}).status == 400
    answers = [ask("POST", path, {}, idempotency_key="k") for _ in range(2)]

    assert [(one.status, one.json) for one in answers] == [(status, answer)] * 2
    [effect] = partner.effects(path)
    assert (effect.key, effect.result, effect.replays) == ("k", answer, 1)


def test_custom_answer_has_its_headers_once(partner: FakePartner, ask: Ask) -> None:
    partner.answer("/api/loans/apply", {}, headers={"X-Loan": "1"})
    answers = [ask("POST", "/api/loans/apply", {}, idempotency_key="k") for _ in range(2)]
    assert [one.headers["x-loan"] for one in answers] == ["1", "1"]
    raw = exchange(partner, raw_request("/api/loans/apply", {}, key="other"))
    assert raw.count(b"X-Loan: 1\r\n") == 1


def test_refusal_is_answered_alike_and_is_no_effect(partner: FakePartner, ask: Ask) -> None:
    order = {**ORDER, "senderAccount": "1000000001"}

    answers = [ask("POST", TRANSFER, order, idempotency_key="k") for _ in range(2)]

    assert [answer.status for answer in answers] == [422, 422]
    assert (
        answers[0].json
        == answers[1].json
        == {
            "status": "REJECTED",
            "message": "The funds of the account are not sufficient.",
        }
    )
    assert partner.effects() == []
    assert ask("GET", "/api/effects/k").status == 404


def test_effect_without_a_key_is_refused(partner: FakePartner, ask: Ask) -> None:
    got = ask("POST", TRANSFER, ORDER)
    assert (got.status, got.json) == (400, {"message": "The header Idempotency-Key is missing."})
    assert partner.effects() == []


def test_many_calls_at_once_with_one_key_have_one_effect(partner: FakePartner, ask: Ask) -> None:
    barrier = threading.Barrier(20)

    def transfer(_: int) -> str:
        barrier.wait(5)
        return json.dumps(ask("POST", TRANSFER, ORDER, idempotency_key="k").json)

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(transfer, range(20)))

    assert len(answers) == 1
    assert [effect.replays for effect in partner.effects()] == [19]


def test_status_endpoint_tells_what_was_done(ask: Ask) -> None:
    assert ask("GET", "/api/effects/k").json == {
        "status": "REJECTED",
        "message": "Nothing was done under this key.",
    }
    answer = ask("POST", TRANSFER, ORDER, idempotency_key="k")
    assert ask("GET", "/api/effects/k").json == answer.json


def test_every_path_of_the_bank(ask: Ask) -> None:
    transfer = ask("POST", TRANSFER, ORDER, idempotency_key="1").json
    assert isinstance(transfer, dict)
    transfer_path = f"/api/transactions/{transfer['transferId']}"
    assert ask("GET", transfer_path).json == transfer
    reversed_ = ask("POST", f"{transfer_path}/reverse", idempotency_key="2")
    assert reversed_.json == {**transfer, "status": "REVERSED"}
    assert ask("GET", f"{VALIDATE}?recipientAccount=9876543210").json == {
        "valid": True,
        "token": "abc123xyz",
        "accountName": "John Doe",
    }
    bill = ask("GET", "/api/bills/city-power/2024000117").json
    assert isinstance(bill, dict)
    assert (bill["totalDue"], bill["status"]) == ("84.50", "OPEN")
    paid = ask(
        "POST",
        "/api/bills/pay",
        {"billerId": "city-power", "billNumber": "2024000117", "amount": "84.50"},
        idempotency_key="3",
    )
    assert paid.status == 200
    submitted = ask("POST", "/api/payments/submit", {"any": 1}, idempotency_key="4").json
    assert isinstance(submitted, dict)
    assert submitted["status"] == "ACCEPTED"
    assert ask("PUT", "/api/anything/at/all", {}, idempotency_key="5").json == {"accepted": True}
    assert ask("GET", "/api/anything/at/all?a=b%20c").json == {"received": {"a": "b c"}}


def test_wrong_path_and_method(ask: Ask) -> None:
    assert ask("GET", "/api/nothing").json == {"message": "The partner has no /api/nothing."}
    got = ask("GET", "/api/bills/pay")
    assert (got.status, got.headers["allow"]) == (405, "POST")
    assert ask("POST", "/_sandbox/ledger").status == 404
    assert ask("HEAD", "/api/nothing").json is None


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"amount": NaN}', b"[" * 5000, b'{"a": "\\ud800"}', b"\xff\xfe"]
)
def test_body_that_is_no_json_object_is_refused(
    partner: FakePartner, ask: Ask, body: bytes
) -> None:
    got = ask("POST", TRANSFER, body, idempotency_key="k")
    assert got.status == (422 if body == b"" else 400)
    assert partner.effects() == []


def test_connection_is_kept(partner: FakePartner) -> None:
    with connect(partner) as line:
        for key in ("a", "b"):
            line.sendall(raw_request(TRANSFER, ORDER, key=key, close=False))
            assert line.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")
    assert [effect.key for effect in partner.effects()] == ["a", "b"]


def test_request_that_is_no_http_ends_the_connection(partner: FakePartner) -> None:
    answer = exchange(partner, b"hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Connection: close\r\n" in answer


@pytest.mark.parametrize(
    ("require", "headers"),
    [
        ("bearer:tok", {"authorization": "Bearer tok"}),
        ("basic:bank:pass", {"authorization": "Basic YmFuazpwYXNz"}),
        ("api-key:X-Key:k", {"x_key": "k"}),
    ],
)
def test_credentials_are_checked(require: str, headers: dict[str, str]) -> None:
    with FakePartner(require=require) as partner:
        refused = request(partner.url, "POST", TRANSFER, ORDER, idempotency_key="k")
        assert refused.status == 401
        assert partner.effects() == []
        accepted = request(partner.url, "POST", TRANSFER, ORDER, idempotency_key="k", **headers)
        assert accepted.status == 200
        assert request(partner.url, "GET", "/_sandbox/ledger").status == 200


def test_signature_is_checked_over_the_bytes_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.partner.time.time", lambda: 1_800_000_000.0)
    with FakePartner(require="hmac:secret") as partner:
        body = b'{"recipientAccount":  "9876543210"}'
        signed = sign("secret", body, signed_at=1_800_000_000)
        assert request(partner.url, "POST", VALIDATE, body).status == 401
        assert (
            request(partner.url, "POST", VALIDATE, body, x_handrail_signature=signed).status == 200
        )
        other = request(partner.url, "POST", VALIDATE, body + b" ", x_handrail_signature=signed)
        assert other.json == {"message": "Unauthorized: the signature is wrong."}


def test_ledger_shows_calls_and_effects(ask: Ask) -> None:
    ask("POST", VALIDATE, ORDER, idempotency_key="a", authorization="Bearer secret")
    ask("POST", TRANSFER, ORDER, idempotency_key="b", traceparent="00-1-2-01")
    ask("POST", TRANSFER, ORDER, idempotency_key="b")

    ledger = ask("GET", "/_sandbox/ledger").json
    assert isinstance(ledger, dict)
    calls, effects = ledger["calls"], ledger["effects"]
    assert isinstance(calls, list)
    assert isinstance(effects, list)
    assert ledger["callsPerKey"] == {"a": 1, "b": 2}
    assert [(call["path"], call["status"], call["body"]) for call in calls] == [  # type: ignore[call-overload,index]
        (VALIDATE, 200, ORDER),
        (TRANSFER, 200, ORDER),
        (TRANSFER, 200, ORDER),
    ]
    assert calls[0]["headers"]["authorization"] == "Bearer [hidden]"  # type: ignore[call-overload,index]
    assert calls[1]["headers"]["traceparent"] == "00-1-2-01"  # type: ignore[call-overload,index]
    assert [(effect["key"], effect["replays"]) for effect in effects] == [("b", 1)]  # type: ignore[call-overload,index]
    assert ask("GET", "/_sandbox/effects?key=a").json == {"effects": []}
    assert ask("GET", f"/_sandbox/effects?path={TRANSFER}").json == {"effects": effects}


def test_reset_forgets_everything(partner: FakePartner, ask: Ask) -> None:
    ask("POST", TRANSFER, ORDER, idempotency_key="k")
    partner.fault(TRANSFER, "garbage")

    assert ask("POST", "/_sandbox/reset").json == {"reset": True}

    assert (partner.effects(), partner.calls()) == ([], [])
    fresh = ask("POST", TRANSFER, {**ORDER, "amount": 1}, idempotency_key="k")
    assert fresh.status == 200
    balance = ask("GET", "/api/accounts/9876543210").json
    assert isinstance(balance, dict)
    assert balance["balance"] == "1000001.00"


_NAMES = st.sampled_from(["amount", "recipientAccount", "input", "context", "billerId", "x"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)
_PATHS = st.sampled_from(
    [TRANSFER, VALIDATE, "/api/bills/pay", "/api/payments/submit", "/api/anything/x", "/api/%ff/x"]
)


@given(path=_PATHS, body=st.binary() | _JSON.map(lambda value: json.dumps(value).encode()))
def test_no_body_is_too_much(path: str, body: bytes) -> None:
    partner = Partner()
    call = Request("POST", path, "", {"idempotency-key": "k"}, body)
    answer, _ = partner.answer(call)
    again, _ = partner.answer(call)
    assert answer.status in (200, 400, 404, 422)
    assert (again.status, again.body) == (answer.status, answer.body)
    assert isinstance(json.loads(answer.body), dict)


@pytest.mark.parametrize(("rate", "least", "most"), [(0.0, 0, 0), (0.5, 60, 140), (1.0, 200, 200)])
def test_faults_by_chance_are_repeatable(rate: float, least: int, most: int) -> None:
    call = Request("POST", TRANSFER, "", {"idempotency-key": "k"}, b"{}")
    first, second = (Partner(fault_rate=rate, seed=7) for _ in range(2))

    faults = [first.fault_of(call) for _ in range(200)]

    assert faults == [second.fault_of(call) for _ in range(200)]
    assert least <= sum(fault is not None for fault in faults) <= most
