"""The in-process wrapper: holding calls, waiting for them, and stopping whatever is under way."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox.testing import FakePartner

from .conftest import ORDER, TRANSFER, VALIDATE, Ask, Got, connect, raw_request, request


def sandbox_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sandbox")]


@pytest.mark.parametrize(("effect", "while_held"), [("before", 1), ("after", 0)])
def test_held_call_answers_when_released(
    partner: FakePartner, ask: Ask, effect: str, while_held: int
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with partner.hold(TRANSFER, effect=effect):
            waiting = pool.submit(ask, "POST", TRANSFER, ORDER, idempotency_key="k")
            partner.wait_for_calls(1, TRANSFER)
            if while_held:
                wait_until(lambda: len(partner.effects()) == 1)
            assert waiting.done() is False
            assert len(partner.effects()) == while_held
        got: Got = waiting.result(5)
    assert got.status == 200
    assert len(partner.effects()) == 1


def test_effect_after_the_caller_has_gone(partner: FakePartner) -> None:
    with partner.hold(TRANSFER, effect="after"):
        with connect(partner) as line:
            line.sendall(raw_request(TRANSFER, ORDER))
            partner.wait_for_calls(1)
        assert partner.effects() == []
    wait_until(lambda: len(partner.effects()) == 1)


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def test_waiting_for_calls_that_do_not_come(partner: FakePartner, ask: Ask) -> None:
    ask("POST", VALIDATE, ORDER)
    with pytest.raises(AssertionError, match=r"0 of 1 calls arrived within 0\.01 s"):
        partner.wait_for_calls(1, TRANSFER, timeout=0.01)


@pytest.mark.parametrize("kind", ["hang", "latency", "drip", "drip_headers"])
def test_stopping_ends_what_is_under_way(kind: str) -> None:
    with FakePartner() as partner, connect(partner) as idle, connect(partner) as busy:
        partner.fault(TRANSFER, kind, ms=600_000)
        busy.sendall(raw_request(TRANSFER, ORDER))
        partner.wait_for_calls(1)
        started = time.monotonic()
        partner.stop()
        assert time.monotonic() - started < 1
        assert idle.recv(100) == b""
        assert sandbox_threads() == []


def test_partner_that_is_down_refuses_connections() -> None:
    with FakePartner() as partner:
        url = partner.url
        partner.stop()
        with pytest.raises(ConnectionRefusedError):
            request(url, "GET", VALIDATE)
    assert sandbox_threads() == []


def test_partner_that_never_started_leaves_nothing() -> None:
    partner = FakePartner()
    port = int(partner.url.rpartition(":")[2])
    partner.stop()
    with FakePartner(port=port) as again:
        assert again.url == partner.url
        assert request(again.url, "GET", "/_sandbox/health").json == {"status": "ok"}


def test_many_callers_wait_together() -> None:
    with FakePartner(latency_ms=300) as partner, ThreadPoolExecutor(100) as pool:
        started = time.monotonic()
        answers = list(
            pool.map(
                lambda n: request(partner.url, "POST", TRANSFER, ORDER, idempotency_key=str(n)),
                range(100),
            )
        )
        assert time.monotonic() - started < 5
        assert {answer.status for answer in answers} == {200}
        assert len(partner.effects(TRANSFER)) == 100
