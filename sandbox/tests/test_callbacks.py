"""Results that come later, over real HTTP: a partner that calls back, and who receives it."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from config.jsonvalues import JsonObject, JsonValue
from sandbox.callbacks import (
    CallbackFault,
    CallbackSignature,
    CallbackTiming,
    parse_callback_fault,
    with_wrong_token,
)
from sandbox.credentials import sign
from sandbox.messages import is_callback_url
from sandbox.testing import FakePartner

from .conftest import ORDER, TRANSFER, Ask, connect, raw_request, read_all, request

CHECKS = "/api/kyc/checks"
APPLY = "/api/loans/apply"
LOAN: JsonObject = {"loanId": "L-1"}
SECRET = "shared-secret"
# The check under the key "k": its parts follow from the key alone.
CHECK: JsonObject = {
    "checkId": "KYC-8254c329a928",
    "verified": True,
    "riskScore": 21,
    "status": "DONE",
}
A_100_TIMES = "2816597888e4a0d3a36b82b83316ab32680eb8f00f8cd3b904d681246d285a0e"  # its SHA-256
PENDING: JsonObject = {"checkId": "KYC-8254c329a928", "status": "PENDING"}


@dataclass(frozen=True, slots=True)
class Received:
    path: str
    body: bytes
    content_type: str
    signature: str | None
    at: float

    @property
    def json(self) -> JsonValue:
        value: JsonValue = json.loads(self.body)
        return value


class Receiver(ThreadingHTTPServer):
    """Who receives callbacks: keeps them, and answers each from a list of statuses, then 200."""

    daemon_threads = True
    request_queue_size = 1024  # the usual five turn callers away

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.received: list[Received] = []
        self.statuses: list[int] = []
        self.on_callback: Callable[[], None] = lambda: None
        self.url = f"http://127.0.0.1:{self.server_address[1]}/callbacks/token"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def bodies(self) -> list[JsonValue]:
        return [one.json for one in self.received]


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        received = Received(
            path=self.path,
            body=body,
            content_type=self.headers["Content-Type"],
            signature=self.headers["X-Handrail-Signature"],
            at=time.time(),
        )
        self.server.received.append(received)
        self.server.on_callback()
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.end_headers()
        self.wfile.write(b'{"taken":true}')

    def log_message(self, *_arguments: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running
        running.shutdown()


@pytest.fixture
def partner() -> Iterator[FakePartner]:
    with FakePartner(callback_delay_ms=0, callback_pauses=(0.01, 0.01, 0.01)) as running:
        yield running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


# The check of a person.


def test_check_is_acknowledged_and_its_result_called_back(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    got = ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=receiver.url)
    partner.wait_for_callbacks(1)

    assert (got.status, got.json) == (202, PENDING)
    [received] = receiver.received
    assert (received.path, received.json) == ("/callbacks/token", CHECK)
    assert (received.content_type, received.signature) == ("application/json", None)
    [callback] = partner.callbacks()
    assert (callback.idempotency_key, callback.path, callback.url) == ("k", CHECKS, receiver.url)
    assert (callback.json, callback.statuses, callback.ended) == (CHECK, (200,), True)
    [effect] = partner.effects()
    assert (effect.key, effect.path, effect.result) == ("k", CHECKS, PENDING)


def test_callback_url_may_be_in_the_body(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    body = {"input": {"documentNumber": "0000000000"}, "callbackUrl": receiver.url}
    ask("POST", CHECKS, body, idempotency_key="k")
    partner.wait_for_callbacks(1)

    assert receiver.bodies() == [{**CHECK, "verified": False}]
    assert partner.calls()[0].callback_url == receiver.url


def test_header_goes_before_the_body(partner: FakePartner, ask: Ask, receiver: Receiver) -> None:
    body = {"callbackUrl": "http://127.0.0.1:1/nobody"}
    ask("POST", CHECKS, body, idempotency_key="k", x_callback_url=receiver.url)
    partner.wait_for_callbacks(1)
    assert [callback.url for callback in partner.callbacks()] == [receiver.url]


def test_check_without_callback_url_has_its_result_at_once(partner: FakePartner, ask: Ask) -> None:
    got = ask("POST", CHECKS, {}, idempotency_key="k")
    assert (got.status, got.json) == (200, CHECK)
    assert partner.callbacks() == []


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/x", "http:///x", "http://u:p@127.0.0.1/", "http://h:0/", "/relative"]
)
def test_unusable_callback_url_is_refused(partner: FakePartner, ask: Ask, url: str) -> None:
    got = ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=url)
    assert got.status == 400
    assert got.json == {"message": "The callback URL is no http or https URL."}
    assert (partner.effects(), partner.callbacks()) == ([], [])


@pytest.mark.parametrize(
    ("url", "is_usable"),
    [
        ("http://127.0.0.1:8000/callbacks/t", True),
        ("https://handrail.example/t?x=1", True),
        ("http://[::1]:80/t", True),
        ("http://host:port/t", False),
        ("http://host/a b", False),
        ("http://host\\@other/", False),
        ("http://host/\r\nX: y", False),
        ("file:///etc/passwd", False),
    ],
)
def test_urls_that_are_posted_to(url: str, *, is_usable: bool) -> None:
    assert is_callback_url(url) is is_usable


def test_repeat_gets_the_same_and_is_called_back_where_it_says(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    other = receiver.url.replace("token", "other")
    body = {"name": "Ann"}
    first = ask("POST", CHECKS, {**body, "callbackUrl": receiver.url}, idempotency_key="k")
    partner.wait_for_callbacks(1)
    again = ask("POST", CHECKS, {**body, "callbackUrl": other}, idempotency_key="k")
    partner.wait_for_callbacks(2)

    assert (again.status, again.json) == (first.status, first.json) == (202, PENDING)
    assert again.headers["idempotency-replayed"] == "true"
    assert receiver.bodies() == [CHECK, CHECK]
    assert [one.path for one in receiver.received] == ["/callbacks/token", "/callbacks/other"]
    [effect] = partner.effects()
    assert effect.replays == 1


def test_other_request_under_the_key_is_refused_and_not_called_back(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    ask("POST", CHECKS, {"name": "Ann"}, idempotency_key="k", x_callback_url=receiver.url)
    got = ask("POST", CHECKS, {"name": "Bob"}, idempotency_key="k", x_callback_url=receiver.url)
    partner.wait_for_callbacks(1)
    assert got.status == 422
    assert len(partner.callbacks()) == 1


def test_many_callers_at_once_are_one_effect_a_key(
    partner: FakePartner, receiver: Receiver
) -> None:
    def check(number: int) -> int:
        headers = {"idempotency_key": f"k{number % 16}", "x_callback_url": receiver.url}
        return request(partner.url, "POST", CHECKS, {}, **headers).status

    with ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(check, range(320)))
    partner.wait_for_callbacks(320)

    assert statuses == [202] * 320
    effects = partner.effects(CHECKS)
    assert sorted(effect.key for effect in effects) == sorted(f"k{n}" for n in range(16))
    assert sum(effect.replays for effect in effects) == 304
    per_key = Counter(callback.idempotency_key for callback in partner.callbacks())
    assert per_key == {f"k{n}": 20 for n in range(16)}
    assert Counter(one.body for one in receiver.received) == {
        callback.body: 20 for callback in partner.callbacks()
    }
    assert all(callback.statuses == (200,) for callback in partner.callbacks())


# Any path, answered later.


def test_any_path_can_be_answered_later(partner: FakePartner, ask: Ask, receiver: Receiver) -> None:
    partner.answer_later(APPLY, LOAN, ack={"queued": 1})
    calls = [
        ask("POST", APPLY, {}, idempotency_key="k", x_callback_url=receiver.url) for _ in range(2)
    ]
    partner.wait_for_callbacks(2)

    assert [(call.status, call.json) for call in calls] == [(202, {"queued": 1})] * 2
    assert receiver.bodies() == [LOAN, LOAN]
    [effect] = partner.effects()
    assert (effect.result, effect.replays) == ({"queued": 1}, 1)


def test_bank_does_its_work_and_answers_later(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    partner.answer_later(TRANSFER)
    got = ask("POST", TRANSFER, ORDER, idempotency_key="k", x_callback_url=receiver.url)
    partner.wait_for_callbacks(1)

    assert (got.status, got.json) == (202, {"status": "PENDING"})
    assert receiver.bodies() == [
        {
            "transferId": "TR-8254c329a928",
            "status": "EXECUTED",
            "amount": 5000,
            "senderAccount": "1234567890",
            "recipientAccount": "9876543210",
        }
    ]
    account = ask("GET", "/api/accounts/9876543210").json
    assert isinstance(account, dict)
    assert account["balance"] == "1005000.00"


def test_refusal_of_the_bank_is_said_at_once(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    partner.answer_later(TRANSFER)
    order = {**ORDER, "amount": 0}
    got = ask("POST", TRANSFER, order, idempotency_key="k", x_callback_url=receiver.url)
    assert got.status == 422
    assert (partner.effects(), partner.callbacks()) == ([], [])


def test_later_answer_without_callback_url_comes_at_once(partner: FakePartner, ask: Ask) -> None:
    partner.answer_later(APPLY, LOAN)
    got = ask("POST", APPLY, {}, idempotency_key="k")
    assert (got.status, got.json) == (200, LOAN)


def test_result_comes_after_the_delay(partner: FakePartner, ask: Ask, receiver: Receiver) -> None:
    partner.answer_later(APPLY, LOAN, delay_ms=150)
    started_at = time.time()
    ask("POST", APPLY, {}, idempotency_key="k", x_callback_url=receiver.url)
    partner.wait_for_callbacks(1)
    assert receiver.received[0].at - started_at >= 0.15


def test_result_waits_until_the_call_is_answered(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    partner.answer_later(APPLY, LOAN)
    headers = {"idempotency_key": "k", "x_callback_url": receiver.url}
    with ThreadPoolExecutor(1) as pool:
        with partner.hold(APPLY) as gate:
            is_released: list[bool] = []
            receiver.on_callback = lambda: is_released.append(gate.is_set())
            waiting = pool.submit(ask, "POST", APPLY, {}, **headers)
            wait_until(lambda: len(partner.callbacks()) == 1)
            time.sleep(0.05)  # a callback that does not wait would come now
        assert waiting.result(5).status == 202
    partner.wait_for_callbacks(1)
    assert is_released == [True]


@pytest.mark.parametrize("kind", ["cut_after", "garbage", "cut_middle"])
def test_caller_that_hears_nothing_is_called_back(
    partner: FakePartner, receiver: Receiver, kind: str
) -> None:
    partner.answer_later(APPLY, LOAN)
    partner.fault(APPLY, kind)
    body: JsonObject = {"callbackUrl": receiver.url}
    with connect(partner) as line:
        line.sendall(raw_request(APPLY, body))
        assert b"PENDING" not in read_all(line)
    partner.wait_for_callbacks(1)
    assert receiver.bodies() == [LOAN]
    assert len(partner.effects()) == 1


def test_failure_without_effect_is_not_called_back(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    partner.answer_later(APPLY, LOAN, times=1)
    partner.fault(APPLY, "status", status=503)
    calls = [
        ask("POST", APPLY, {}, idempotency_key="k", x_callback_url=receiver.url) for _ in range(2)
    ]
    partner.wait_for_callbacks(1)
    assert [call.status for call in calls] == [503, 202]
    assert len(partner.callbacks()) == 1


# Odd callbacks.


def test_early_callback_is_answered_before_the_call(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    statuses_meanwhile: list[int | None] = []
    receiver.on_callback = lambda: statuses_meanwhile.append(len(partner.callbacks()[0].statuses))
    partner.callback_fault(CHECKS, timing="early", copies=2)
    got = ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=receiver.url)

    assert got.status == 202
    assert receiver.bodies() == [CHECK, CHECK]
    assert [callback.statuses for callback in partner.callbacks()] == [(200,), (200,)]
    assert statuses_meanwhile == [0, 1]


def test_early_callback_that_is_not_taken_is_tried_again_later(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    receiver.statuses = [503]
    partner.callback_fault(CHECKS, timing="early")
    ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=receiver.url)
    assert len(receiver.received) >= 1
    partner.wait_for_callbacks(1)
    assert partner.callbacks()[0].statuses == (503, 200)


def test_late_callback_keeps_its_call_waiting(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    partner.callback_fault(CHECKS, delay_ms=600_000)
    ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=receiver.url)
    with pytest.raises(AssertionError, match=r"0 of 1 callbacks ended within 0\.05 s"):
        partner.wait_for_callbacks(1, timeout=0.05)
    [callback] = partner.callbacks()
    assert (callback.statuses, callback.status, callback.ended) == ((), None, False)
    assert receiver.received == []


def test_callback_that_never_comes(partner: FakePartner, ask: Ask, receiver: Receiver) -> None:
    partner.callback_fault(CHECKS, timing="never")
    for key in ("k", "other"):
        ask("POST", CHECKS, {}, idempotency_key=key, x_callback_url=receiver.url)
    partner.wait_for_callbacks(1)
    assert [callback.idempotency_key for callback in partner.callbacks()] == ["other"]


def test_conflicting_bodies_go_out_in_their_order(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    receiver.statuses = [200, 200, 409, 409]
    partner.callback_fault(CHECKS, bodies=[{"verified": True}, {"verified": False}], copies=2)
    ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=receiver.url)
    partner.wait_for_callbacks(4)
    assert receiver.bodies() == [{"verified": True}] * 2 + [{"verified": False}] * 2
    assert [one.statuses for one in partner.callbacks()] == [(200,), (200,), (409,), (409,)]


def test_changes_are_laid_over_the_result(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    partner.callback_fault("/api/kyc/*", changes={"verified": False})
    ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=receiver.url)
    partner.wait_for_callbacks(1)
    assert receiver.bodies() == [{**CHECK, "verified": False}]


def test_wrong_token_has_the_length_of_the_right_one(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    receiver.statuses = [404]
    partner.callback_fault(CHECKS, wrong_token=True)
    ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=receiver.url)
    partner.wait_for_callbacks(1)
    assert [one.path for one in receiver.received] == ["/callbacks/3c469"]
    assert partner.callbacks()[0].statuses == (404,)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("http://h/cb/token/?a=1", "http://h/cb/3c469/?a=1"),
        ("http://h", "http://h/e"),
        (
            f"http://h/{'a' * 100}",
            f"http://h/{A_100_TIMES}{A_100_TIMES[:36]}",
        ),
    ],
)
def test_wrong_tokens(url: str, wrong: str) -> None:
    assert with_wrong_token(url) == wrong
    assert len(wrong) == max(len(url), len("http://h/e"))


@pytest.mark.parametrize(
    ("signature", "secret", "age"),
    [
        (CallbackSignature.GOOD, SECRET, 0),
        (CallbackSignature.OLD, SECRET, 3600),
        (CallbackSignature.BAD, "not the secret of this connection", 0),
    ],
)
def test_callback_is_signed(
    receiver: Receiver, signature: CallbackSignature, secret: str, age: int
) -> None:
    with FakePartner(callback_secret=SECRET, callback_delay_ms=0) as partner:
        partner.callback_fault(CHECKS, signature=signature)
        headers = {"idempotency_key": "k", "x_callback_url": receiver.url}
        request(partner.url, "POST", CHECKS, {}, **headers)
        partner.wait_for_callbacks(1)
    [received] = receiver.received
    assert received.signature is not None
    signed_at = int(received.signature.split(",")[0].removeprefix("t="))
    assert abs(received.at - age - signed_at) < 3
    assert received.signature == sign(secret, received.body, signed_at=signed_at)


def test_missing_signature(receiver: Receiver) -> None:
    with FakePartner(callback_secret=SECRET, callback_delay_ms=0) as partner:
        partner.callback_fault(CHECKS, signature="missing")
        headers = {"idempotency_key": "k", "x_callback_url": receiver.url}
        request(partner.url, "POST", CHECKS, {}, **headers)
        partner.wait_for_callbacks(1)
    assert [one.signature for one in receiver.received] == [None]


# Tries.


@pytest.mark.parametrize("status", [503, 500, 429, 408, 425])
def test_callback_is_posted_again(
    partner: FakePartner, ask: Ask, receiver: Receiver, status: int
) -> None:
    receiver.statuses = [status, status]
    ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=receiver.url)
    partner.wait_for_callbacks(1)
    assert partner.callbacks()[0].statuses == (status, status, 200)
    assert receiver.bodies() == [CHECK] * 3


@pytest.mark.parametrize("status", [204, 302, 400, 401, 404, 409, 410])
def test_other_answers_end_it(
    partner: FakePartner, ask: Ask, receiver: Receiver, status: int
) -> None:
    receiver.statuses = [status]
    ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=receiver.url)
    partner.wait_for_callbacks(1)
    assert partner.callbacks()[0].statuses == (status,)
    assert len(receiver.received) == 1


def test_callback_nobody_takes_is_given_up(partner: FakePartner, ask: Ask) -> None:
    url = f"http://127.0.0.1:{free_port()}/callbacks/token"
    ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=url)
    partner.wait_for_callbacks(1)
    [callback] = partner.callbacks()
    assert (callback.statuses, callback.ended) == ((None,) * 4, True)


def test_callback_arrives_after_its_receiver_was_started_again(ask: Ask) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/callbacks/token"
    with FakePartner(callback_delay_ms=0, callback_pauses=[0.02] * 500) as partner:
        request(partner.url, "POST", CHECKS, {}, idempotency_key="k", x_callback_url=url)
        wait_until(lambda: len(partner.callbacks()[0].statuses) >= 2)
        with Receiver(port) as receiver:
            partner.wait_for_callbacks(1)
            receiver.shutdown()
    assert receiver.bodies() == [CHECK]
    statuses = partner.callbacks()[0].statuses
    assert statuses == (None,) * (len(statuses) - 1) + (200,)


def test_one_slow_receiver_does_not_hold_up_the_others(
    partner: FakePartner, ask: Ask, receiver: Receiver
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = f"http://127.0.0.1:{silent.getsockname()[1]}/callbacks/token"
        ask("POST", CHECKS, {}, idempotency_key="slow", x_callback_url=slow)
        for key in ("a", "b", "c"):
            ask("POST", CHECKS, {}, idempotency_key=key, x_callback_url=receiver.url)
        partner.wait_for_callbacks(3, timeout=5)
        assert partner.callbacks()[0].ended is False
        assert len(receiver.received) == 3


@pytest.mark.parametrize("timing", ["usual", "early"])
def test_stopping_ends_callbacks_under_way(timing: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        FakePartner(callback_delay_ms=0) as partner,
        connect(partner) as line,
    ):
        partner.callback_fault(CHECKS, timing=timing)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/callbacks/token"
        line.sendall(raw_request(CHECKS, {"callbackUrl": url}, close=False))
        taken, _ = silent.accept()
        with taken:
            taken.recv(100)
            started = time.monotonic()
            partner.stop()
            assert time.monotonic() - started < 1
        names = [thread.name for thread in threading.enumerate()]
        assert [name for name in names if name.startswith("sandbox")] == []
        assert [callback.statuses for callback in partner.callbacks()] == [()]


def test_reset_drops_callbacks_to_come(partner: FakePartner, ask: Ask, receiver: Receiver) -> None:
    partner.callback_fault(CHECKS, delay_ms=100)
    ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=receiver.url)
    partner.callback_fault(CHECKS, timing="never")
    partner.reset()
    assert partner.callbacks() == []
    ask("POST", CHECKS, {}, idempotency_key="k", x_callback_url=receiver.url)
    partner.wait_for_callbacks(1)
    time.sleep(0.15)  # proves an absence: the dropped one would have come by now
    assert len(receiver.received) == 1


# By hand, and by HTTP.


def test_callbacks_by_hand_from_many_threads(partner: FakePartner, receiver: Receiver) -> None:
    receiver.statuses = [410]
    first = partner.send_callback(receiver.url, LOAN)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: partner.send_callback(receiver.url, n), range(64)))

    assert (first.status, first.json) == (410, {"taken": True})
    assert {answer.status for answer in answers} == {200}
    assert [one.json for one in receiver.received[:1]] == [LOAN]
    assert sorted(map(str, receiver.bodies()[1:])) == sorted(map(str, range(64)))
    assert partner.callbacks() == []


def test_callback_by_hand_is_signed_and_sent_as_it_is(
    partner: FakePartner, receiver: Receiver
) -> None:
    partner.send_callback(receiver.url, b"no json", secret=SECRET)
    partner.send_callback(receiver.url, b"no json", secret=SECRET, signature="missing")
    signed, unsigned = receiver.received
    assert signed.signature is not None
    signed_at = int(signed.signature.split(",")[0].removeprefix("t="))
    assert signed.signature == sign(SECRET, b"no json", signed_at=signed_at)
    assert (signed.body, unsigned.signature) == (b"no json", None)


def test_callback_by_hand_to_nobody(partner: FakePartner) -> None:
    with pytest.raises(ConnectionRefusedError):
        partner.send_callback(f"http://127.0.0.1:{free_port()}/", {})


def test_control_interface(partner: FakePartner, ask: Ask, receiver: Receiver) -> None:
    order = {"path": APPLY, "fault": {"kind": "answer_later", "body": LOAN, "ms": 0, "ack": 1}}
    assert ask("POST", "/_sandbox/faults", order).status == 201
    odd = {"path": APPLY, "times": 2, "fault": {"timing": "early", "changes": {"x": 1}}}
    queued = ask("POST", "/_sandbox/callback-faults", odd)
    got = ask("POST", APPLY, {}, idempotency_key="k", x_callback_url=receiver.url)

    assert queued.status == 201
    assert (got.status, got.json) == (202, 1)
    assert ask("GET", "/_sandbox/callbacks?key=k").json == {
        "callbacks": [
            {
                "number": 1,
                "key": "k",
                "path": APPLY,
                "url": receiver.url,
                "body": {"loanId": "L-1", "x": 1},
                "statuses": [200],
                "ended": True,
            }
        ]
    }
    assert ask("GET", "/_sandbox/callbacks?key=other").json == {"callbacks": []}
    assert ask("GET", "/_sandbox/callback-faults").json == {
        "faults": [
            {
                "path": APPLY,
                "times": 1,
                "timing": "early",
                "delayMs": None,
                "copies": 1,
                "bodies": [],
                "changes": {"x": 1},
                "wrongToken": False,
                "signature": "good",
            }
        ]
    }
    assert ask("DELETE", "/_sandbox/callback-faults").json == {"faults": []}


def test_document_becomes_a_callback_fault() -> None:
    document: JsonObject = {
        "timing": "never",
        "delayMs": 5,
        "copies": 3,
        "bodies": [1, None],
        "wrongToken": True,
        "signature": "old",
    }
    fault = parse_callback_fault(document)
    assert fault == CallbackFault(
        timing=CallbackTiming.NEVER,
        delay_ms=5,
        copies=3,
        bodies=(1, None),
        wrong_token=True,
        signature=CallbackSignature.OLD,
    )
    assert fault.document() == {**document, "changes": None}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (None, "fault: must be an object"),
        ({"late": True}, "fault.late: unknown; there are timing, delayMs, copies,"),
        ({"copies": True}, "fault.copies: has the wrong type"),
        ({"bodies": {}}, "fault.bodies: has the wrong type"),
        ({"timing": "soon"}, "fault.timing: must be one of usual, early, never"),
        ({"signature": "odd"}, "fault.signature: must be one of good, bad, old, missing"),
        ({"copies": 0}, "fault.copies: must be between 1 and 100"),
        ({"delayMs": -1}, "fault.delayMs: must be between 0 and 600000"),
        ({"bodies": [1], "changes": {}}, "fault.changes: cannot be together with bodies"),
    ],
)
def test_callback_fault_that_makes_no_sense(document: JsonValue, problem: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        parse_callback_fault(document)
    assert str(caught.value).startswith(problem)


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)
