"""A partner that fails or hangs, as persons notice it: theirs is refused at once, the others walk on."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from config.jsonvalues import JsonObject
from executions import executor
from executions.answers import StepAnswer
from executions.breakers import Breakers
from executions.breaking import Ending, Phase, Policy
from executions.enums import RunStatus, WorkflowExecutionStatus
from executions.models import StepAttempt
from executions.surroundings import ConnectionCaps, get_surroundings
from executions.tests.fakes import MemorySharedBreakers
from executions.tests.phone import AFTER, Phone, flow, form, published, server_step
from sandbox.testing import FakePartner
from workflows.connections import set_connection

TRANSFER, SUBMIT = "/api/transactions/transfer", "/api/payments/submit"
PAYMENT: JsonObject = {"recipientAccount": "9876543210", "amount": 5000}
MAPPED: JsonObject = {"recipientAccount": "form0.recipientAccount", "amount": "form0.amount"}
COOLDOWN_MS = 30_000


@pytest.fixture
def alice(db: None, partner: FakePartner) -> Phone:
    """Alice, who has entered a payment and has to send it."""
    phone = Phone(published(payment()))
    assert phone.step(0, PAYMENT).success
    return phone


def payment(**changes: Any) -> JsonObject:
    config = {"requestMapping": MAPPED, **changes.pop("config", {})}
    return flow(form(0), server_step(1, config=config, **changes), finalApi={"endpoint": SUBMIT})


def fail_until_open(phone: Phone, partner: FakePartner) -> None:
    partner.fault(TRANSFER, "status", status=503, times=5)
    for _ in range(5):
        assert phone.step(1).error_code == "TRIGGER_UNAVAILABLE"
    assert get_surroundings().breakers.look("default").phase is Phase.OPEN


def end_cooldown(settings: Settings) -> None:
    """A rest longer than any cooldown counts as over."""
    settings.BREAKER_COOLDOWN_MS = 100


def test_sixth_call_is_refused_at_once_and_the_next_one_after_the_cooldown_has_one_effect(
    alice: Phone, partner: FakePartner, settings: Settings
) -> None:
    fail_until_open(alice, partner)
    refused = alice.step(1)
    assert (refused.success, refused.error_code, refused.retryable) == (
        False,
        "TRIGGER_UNAVAILABLE",
        True,
    )
    assert refused.retry_after_ms is not None
    assert 0 < refused.retry_after_ms <= COOLDOWN_MS
    assert len(partner.calls(TRANSFER)) == 5
    end_cooldown(settings)
    assert alice.step(1).success
    assert len({call.key for call in partner.calls(TRANSFER)}) == 1
    assert len(partner.effects(TRANSFER)) == 1
    assert get_surroundings().breakers.look("default").phase is Phase.CLOSED


def test_refused_call_of_another_person_is_recorded_as_not_sent(
    alice: Phone, partner: FakePartner
) -> None:
    fail_until_open(alice, partner)
    bob = Phone(alice.compiled, user_id="bob")
    bob.step(0, PAYMENT)
    assert bob.step(1).error_code == "TRIGGER_UNAVAILABLE"
    run = bob.runs[-1]
    assert (run.status, run.error_code) == (RunStatus.FAILED, "TRIGGER_UNAVAILABLE")
    assert StepAttempt.objects.filter(run=run).count() == 0
    assert bob.step(0, PAYMENT).success  # nothing was sent, so bob may go back and change it


def test_submission_while_the_breaker_is_open_can_be_completed_later(
    alice: Phone, partner: FakePartner, settings: Settings
) -> None:
    assert alice.step(1).success
    bob = Phone(alice.compiled, user_id="bob")
    bob.step(0, PAYMENT)
    fail_until_open(bob, partner)
    answer = alice.complete()
    assert (answer.error_code, answer.retryable) == ("SUBMISSION_FAILED", True)
    assert answer.retry_after_ms is not None
    assert partner.calls(SUBMIT) == []
    end_cooldown(settings)
    assert alice.complete().success
    assert alice.row.status == WorkflowExecutionStatus.COMPLETED
    assert len(partner.effects(SUBMIT)) == 1


def test_status_question_waits_for_the_breaker_too(db: None, partner: FakePartner) -> None:
    status = {"endpoint": "/api/effects/${execution.idempotencyKey}", "expect": "result.key"}
    phone = Phone(published(payment(config={"status": status})))
    phone.step(0, PAYMENT)
    breakers = get_surroundings().breakers
    partner.fault(TRANSFER, "garbage")
    assert phone.step(1).error_code == "TRIGGER_BAD_RESPONSE"
    for _ in range(5):
        breakers.end("default", breakers.ask("default", lasting_ms=1), Ending.FAILED)
    asked = len(partner.calls())
    refused = phone.step(1)
    assert (refused.error_code, refused.retryable) == ("TRIGGER_UNAVAILABLE", True)
    assert refused.retry_after_ms is not None
    assert phone.runs[-1].status == RunStatus.UNKNOWN
    assert len(partner.calls()) == asked


def test_each_attempt_is_one_row_also_when_the_breaker_opens_during_a_wait(
    alice: Phone, partner: FakePartner
) -> None:
    retried = Phone(published(payment(retryConfig={"maxRetries": 3, "initialDelayMs": 10})))
    retried.step(0, PAYMENT)
    partner.fault(TRANSFER, "status", status=503)
    breakers = get_surroundings().breakers

    def others_fail(_seconds: float) -> None:
        for _ in range(4):
            breakers.end("default", breakers.ask("default", lasting_ms=1), Ending.FAILED)

    answer = executor.execute_step(
        retried.execution_id,
        step_id=retried.compiled.steps[1].id,
        timing=AFTER,
        value=None,
        user_id="alice",
        idempotency_key=None,
        now=timezone.now(),
        world=replace(get_surroundings(), sleep=others_fail),
    )
    assert answer.error_code == "TRIGGER_UNAVAILABLE"
    run = retried.runs[-1]
    assert run.status == RunStatus.UNKNOWN
    attempts = StepAttempt.objects.filter(run=run)
    assert list(attempts.values_list("number", "http_status")) == [(1, 503)]


def test_whole_walks_of_a_healthy_partner_ask_the_shared_store_once(
    db: None, partner: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = MemorySharedBreakers(lambda: 0.0)
    breakers = Breakers(
        clock_ms=lambda: 0.0, policy=lambda: Policy(5, COOLDOWN_MS), shared=lambda: shared
    )
    world = replace(get_surroundings(), breakers=breakers)
    monkeypatch.setattr(executor, "get_surroundings", lambda: world)
    for number in range(3):
        phone = Phone(published(payment()), user_id=f"person{number}")
        assert phone.step(0, PAYMENT).success
        assert phone.step(1).success
        assert phone.complete().success
    assert len(partner.calls()) == 6
    assert shared.exchanges == 1


# --- a partner that hangs -------------------------------------------------------------------------

HELD = 4


@pytest.fixture
def shop() -> Iterator[FakePartner]:
    with FakePartner() as shop:
        yield shop


@pytest.mark.django_db(transaction=True)
def test_hanging_partner_does_not_slow_executions_of_another_connection(
    partner: FakePartner, shop: FakePartner
) -> None:
    """As many as may hang at the bank; the shop's customers, and the next one at the bank, do not wait."""
    set_connection(name="shop", base_url=shop.url, allow_private=True)
    at_bank = published(payment(timeoutMs=30_000))
    at_shop = published(payment(config={"connection": "shop"}))
    held = [Phone(at_bank, user_id=f"held{number}") for number in range(HELD)]
    for phone in held:
        assert phone.step(0, PAYMENT).success
    world = replace(get_surroundings(), caps=ConnectionCaps(HELD))

    def send(phone: Phone) -> StepAnswer:
        return executor.execute_step(
            phone.execution_id,
            step_id=phone.compiled.steps[1].id,
            timing=AFTER,
            value=None,
            user_id=phone.user_id,
            idempotency_key=None,
            now=timezone.now(),
            world=world,
        )

    def send_in_thread(phone: Phone) -> StepAnswer:
        try:
            return send(phone)
        finally:
            connection.close()

    with partner.hold(TRANSFER, times=HELD) as gate, ThreadPoolExecutor(HELD) as pool:
        hanging = [pool.submit(send_in_thread, phone) for phone in held]
        partner.wait_for_calls(HELD, TRANSFER, timeout=20)
        began = time.monotonic()
        for number in range(10):
            customer = Phone(at_shop, user_id=f"customer{number}")
            assert customer.step(0, PAYMENT).success
            assert send(customer).success
        next_one = Phone(at_bank, user_id="next")
        next_one.step(0, PAYMENT)
        assert send(next_one).error_code == "TRIGGER_UNAVAILABLE"
        assert time.monotonic() - began < 5
        assert not any(call.done() for call in hanging)
        gate.set()
        assert all(call.result(20).success for call in hanging)
    assert len(shop.effects(TRANSFER)) == 10
    assert len(partner.effects(TRANSFER)) == HELD


def test_full_cap_is_seen() -> None:
    caps = ConnectionCaps(1)
    assert not caps.is_full("bank")
    with caps.slot("bank"):
        assert caps.is_full("bank")
        assert not caps.is_full("shop")
        with caps.slot("bank") as second:
            assert not second
        assert caps.is_full("bank")
    assert not caps.is_full("bank")
