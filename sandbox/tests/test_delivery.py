"""Every fault as the caller sees it on the line."""

import gzip
import json
import socket
import time
from contextlib import suppress

import pytest

from config.jsonvalues import JsonObject, JsonValue
from sandbox.delivery import deliver
from sandbox.faults import make_fault
from sandbox.messages import json_answer
from sandbox.testing import FakePartner

from .conftest import ORDER, TRANSFER, VALIDATE, Ask, connect, exchange, raw_request


def test_status_with_retry_after_and_then_the_answer(partner: FakePartner, ask: Ask) -> None:
    partner.fault(TRANSFER, "status", status=429, retry_after=7, times=2)

    got = [ask("POST", TRANSFER, ORDER, idempotency_key="k") for _ in range(3)]

    assert [answer.status for answer in got] == [429, 429, 200]
    assert [answer.headers.get("retry-after") for answer in got] == ["7", "7", None]
    assert len(partner.effects()) == 1
    assert [call.fault for call in partner.calls()] == ["status", "status", ""]


def test_status_after_the_effect(partner: FakePartner, ask: Ask) -> None:
    partner.fault(TRANSFER, "status", status=500, effect="before")

    got = [ask("POST", TRANSFER, ORDER, idempotency_key="k") for _ in range(2)]

    assert [answer.status for answer in got] == [500, 200]
    assert got[1].headers["idempotency-replayed"] == "true"
    assert len(partner.effects()) == 1


def test_fault_over_http_until_reset(partner: FakePartner, ask: Ask) -> None:
    document: JsonObject = {
        "path": TRANSFER,
        "times": None,
        "fault": {"kind": "status", "status": 503, "retryAfter": 1},
    }
    queued: JsonValue = {"faults": [{"path": TRANSFER, "times": None, "kind": "status"}]}

    added = ask("POST", "/_sandbox/faults", document)

    assert (added.status, added.json) == (201, queued)
    assert ask("GET", "/_sandbox/faults").json == queued
    assert [ask("POST", TRANSFER, ORDER, idempotency_key="k").status for _ in range(2)] == [503] * 2
    assert ask("DELETE", "/_sandbox/faults").json == {"faults": []}
    assert ask("POST", TRANSFER, ORDER, idempotency_key="k").status == 200


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"path": 5, "fault": {"kind": "hang"}}, "path: must be a text"),
        ({"path": "api", "fault": {"kind": "hang"}}, "path: must start with a slash"),
        ({"path": "/api/a", "fault": {"kind": "?"}}, "fault.kind: must be one of latency"),
        ({"path": "/api/a", "times": "2", "fault": {"kind": "hang"}}, "times: must be a whole"),
        ({"path": "/api/a", "times": 0, "fault": {"kind": "hang"}}, "times: must be between"),
        ({"path": "/api/a", "time": 1, "fault": {"kind": "hang"}}, "time: unknown"),
        ([], "the body must be a JSON object"),
    ],
)
def test_fault_that_makes_no_sense(ask: Ask, document: JsonValue, message: str) -> None:
    got = ask("POST", "/_sandbox/faults", document)
    assert got.status == 400
    assert isinstance(got.json, dict)
    assert str(got.json["message"]).startswith(message)
    assert ask("GET", "/_sandbox/faults").json == {"faults": []}


@pytest.mark.parametrize("reset", [False, True])
def test_cut_before_reading_has_no_effect(partner: FakePartner, *, reset: bool) -> None:
    partner.fault(TRANSFER, "cut_before", reset=reset)
    with connect(partner) as line:
        line.sendall(raw_request(TRANSFER, ORDER))
        if reset:
            with pytest.raises(ConnectionResetError):
                line.recv(100)
        else:
            with suppress(ConnectionResetError):  # the body may not have been read
                assert line.recv(100) == b""
    assert partner.effects() == []
    assert [call.status for call in partner.calls()] == [None]


def test_cut_after_the_effect(partner: FakePartner, ask: Ask) -> None:
    partner.fault(TRANSFER, "cut_after")
    assert exchange(partner, raw_request(TRANSFER, ORDER)) == b""
    assert [effect.key for effect in partner.effects()] == ["k"]
    assert ask("POST", TRANSFER, ORDER, idempotency_key="k").status == 200
    assert [call.status for call in partner.calls()] == [None, 200]


def test_cut_in_the_middle_of_the_body(partner: FakePartner) -> None:
    partner.fault(TRANSFER, "cut_middle")
    head, _, body = exchange(partner, raw_request(TRANSFER, ORDER)).partition(b"\r\n\r\n")
    assert b"Content-Length: 127" in head
    assert len(body) == 64
    assert len(partner.effects()) == 1


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("kind", "start", "body"),
    [
        ("garbage", b"HTTP/1.1 200 OK\r\nContent-Type: application/json", b'}{ "this is"'),
        ("html", b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8", b"<!doctype html>"),
        ("empty", b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", b""),
        ("content_type", b"HTTP/1.1 200 OK\r\nContent-Type: text/plain", b'{"transferId":'),
        ("invalid_utf8", b"HTTP/1.1 200 OK", b'{"message": "\xff\xfe'),
        ("bad_head", b"BANANA/9.9 yes\r\n", b"{}"),
    ],
)
def test_odd_answers(partner: FakePartner, kind: str, start: bytes, body: bytes) -> None:
    partner.fault(TRANSFER, kind)
    answer = exchange(partner, raw_request(TRANSFER, ORDER))
    assert answer.startswith(start)
    assert body_of(answer).startswith(body)
    assert len(partner.effects()) == 1


def test_redirect(partner: FakePartner, ask: Ask) -> None:
    partner.fault(TRANSFER, "redirect", status=307, location="http://elsewhere.example/")
    got = ask("POST", TRANSFER, ORDER, idempotency_key="k")
    assert (got.status, got.headers["location"]) == (307, "http://elsewhere.example/")
    assert partner.effects() == []


def test_early_hints_come_before_the_answer(partner: FakePartner) -> None:
    partner.fault(TRANSFER, "early_hints")
    hints, _, answer = exchange(partner, raw_request(TRANSFER, ORDER)).partition(b"\r\n\r\n")
    assert hints.startswith(b"HTTP/1.1 103 Early Hints\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_duplicate_headers(partner: FakePartner) -> None:
    partner.fault(TRANSFER, "duplicate_headers")
    head = exchange(partner, raw_request(TRANSFER, ORDER)).partition(b"\r\n\r\n")[0]
    assert head.count(b"Content-Length: 127") == 2
    assert head.count(b"Content-Type: ") == 2


def test_deep_json_and_big_integers(partner: FakePartner) -> None:
    partner.fault(TRANSFER, "deep_json", size=3)
    partner.fault(TRANSFER, "big_integers", size=25)
    assert body_of(exchange(partner, raw_request(TRANSFER, ORDER))) == b"[[[]]]"
    record = json.loads(body_of(exchange(partner, raw_request(TRANSFER, ORDER))))
    assert record["bigInteger"] == 10**25 - 1
    assert record["status"] == "EXECUTED"


@pytest.mark.parametrize("chunked", [False, True])
def test_huge_answer(partner: FakePartner, *, chunked: bool) -> None:
    partner.fault(VALIDATE, "huge", size=3_000_000, chunked=chunked)
    answer = exchange(partner, raw_request(VALIDATE, ORDER))
    head = answer.partition(b"\r\n\r\n")[0]
    assert answer.count(b"x" * 1000) >= 2_900
    assert (b"Transfer-Encoding: chunked" in head) is chunked
    assert (b"Content-Length: 3000014" in head) is not chunked


def test_gzip_bomb_is_small_on_the_line(partner: FakePartner) -> None:
    partner.fault(VALIDATE, "gzip_bomb", size=2_000_000)
    answer = exchange(partner, raw_request(VALIDATE, ORDER))
    assert b"Content-Encoding: gzip\r\n" in answer
    assert len(answer) < 10_000
    assert len(gzip.decompress(body_of(answer))) == 2_000_014


@pytest.mark.parametrize(("kind", "first_piece"), [("drip", None), ("drip_headers", 1)])
def test_drip_comes_byte_by_byte(kind: str, first_piece: int | None) -> None:
    pieces: list[bytes] = []
    pauses: list[float] = []
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        with suppress(BlockingIOError):
            pieces.append(receiver.recv(65_536, socket.MSG_DONTWAIT))
        return False

    with sender, receiver:
        answer, fault = json_answer({"ok": True}), make_fault(kind, ms=20)
        assert deliver(sender, answer, fault, pause=pause, keeps_alive=True) is True
        pause(0)

    pieces = [piece for piece in pieces if piece]
    whole = b"".join(pieces)
    head, _, body = whole.partition(b"\r\n\r\n")
    assert len(pieces[0]) == (first_piece or len(head) + 4)
    assert {len(piece) for piece in pieces[1:]} == {1}
    assert set(pauses[:-1]) == {0.02}
    assert b"Content-Length: 600" in head
    assert (len(body), json.loads(body)) == (600, {"ok": True})


def test_drip_ends_when_the_server_stops() -> None:
    sender, receiver = socket.socketpair()
    with sender, receiver:
        fault = make_fault("drip_headers")
        answer = json_answer({})
        assert not deliver(sender, answer, fault, pause=lambda _: True, keeps_alive=True)


def test_latency_delays_the_answer_not_the_effect(partner: FakePartner, ask: Ask) -> None:
    partner.fault(TRANSFER, "latency", ms=150)
    started = time.monotonic()
    assert ask("POST", TRANSFER, ORDER, idempotency_key="k").status == 200
    assert time.monotonic() - started >= 0.15
    effect, call = partner.effects()[0], partner.calls()[0]
    assert effect.at - call.received_at < 0.1


def test_custom_answer_counts_effects_like_any_other(partner: FakePartner, ask: Ask) -> None:
    partner.answer("/api/loans/apply", {"loanId": "L-1"}, headers={"X-Bank": "ours"})

    got = [ask("POST", "/api/loans/apply", {"a": 1}, idempotency_key="k") for _ in range(2)]
    other = ask("POST", "/api/loans/apply", {"a": 2}, idempotency_key="k")
    looked = ask("GET", "/api/loans/apply", idempotency_key="l")

    assert [(answer.status, answer.json) for answer in got] == [(200, {"loanId": "L-1"})] * 2
    assert got[0].headers["x-bank"] == "ours"
    assert got[1].headers["idempotency-replayed"] == "true"
    assert other.status == 422
    assert looked.json == {"loanId": "L-1"}
    assert [(effect.key, effect.path) for effect in partner.effects()] == [
        ("k", "/api/loans/apply")
    ]


def test_custom_refusal_is_no_effect(partner: FakePartner, ask: Ask) -> None:
    partner.answer(TRANSFER, {"message": "no"}, status=409, times=1)
    assert ask("POST", TRANSFER, ORDER, idempotency_key="k").json == {"message": "no"}
    assert partner.effects() == []
    assert ask("POST", TRANSFER, ORDER, idempotency_key="k").status == 200


def test_custom_null_answer(partner: FakePartner, ask: Ask) -> None:
    partner.answer(VALIDATE, None)
    assert ask("POST", VALIDATE, ORDER).json is None


@pytest.mark.parametrize(
    ("path", "number", "statuses"),
    [
        (TRANSFER, "5030000002", [503, 503, 200, 200]),
        (TRANSFER, "4220000000", [422, 422, 422, 422]),
        (TRANSFER, "1503000002", [200, 200, 200, 200]),
        (VALIDATE, "1503000001", [503, 200, 200, 200]),
        (VALIDATE, "5030000000", [200, 200, 200, 200]),
        (TRANSFER, "6070000001", [200, 200, 200, 200]),
    ],
)
def test_magic_accounts(partner: FakePartner, path: str, number: str, statuses: list[int]) -> None:
    data = raw_request(path, {"amount": 5, "recipientAccount": number})
    answers = [exchange(partner, data) for _ in statuses]
    assert [int(answer.split()[1]) for answer in answers] == statuses
    if number == "6070000001":
        assert [b"<!doctype html>" in answer for answer in answers] == [True, False, False, False]


def test_magic_in_handrails_default_body_and_in_a_bill_number(ask: Ask) -> None:
    body: JsonObject = {
        "input": {},
        "context": {"transferDetails": {"amount": 5, "recipientAccount": "5030000001"}},
    }
    got = [ask("POST", TRANSFER, body, idempotency_key="k").status for _ in range(2)]
    assert got == [503, 200]
    assert ask("POST", TRANSFER, body, idempotency_key="other").status == 503
    bills = [ask("GET", "/api/bills/city-power/1500000001").status for _ in range(2)]
    assert bills == [500, 200]
