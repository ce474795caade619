"""The demo fails when something is not as it must be."""

import pytest
import requests

from demo.bank import Bank
from demo.errors import DemoFailed, NotAsExpected, expect, expect_success
from demo.phone import Phone
from demo.walks import EXPECTED_EFFECTS, check_effects
from sandbox.testing import FakePartner


def cause(partner: FakePartner, path: str, key: str) -> None:
    partner.answer(path, {"done": True}, times=1)
    requests.post(partner.url + path, json={}, headers={"Idempotency-Key": key}, timeout=5)


def test_exactly_the_expected_effects_are_right() -> None:
    with FakePartner() as partner:
        for path, count in EXPECTED_EFFECTS.items():
            for number in range(count):
                cause(partner, path, f"key {number} of {path}")
        assert check_effects(Bank(partner.url)) == 7


@pytest.mark.parametrize(
    ("causes", "sentence"),
    [
        ({}, "Effects at /api/transactions/transfer: expected 1, found 0."),
        (
            {**EXPECTED_EFFECTS, "/api/bills/pay": 2},
            "Effects at /api/bills/pay: expected 1, found 2.",
        ),
        (
            {**EXPECTED_EFFECTS, "/api/loans/apply": 1},
            "Effects at the partner: expected 7, found 8.",
        ),
    ],
)
def test_any_other_effects_are_wrong(causes: dict[str, int], sentence: str) -> None:
    with FakePartner() as partner:
        for path, count in causes.items():
            for number in range(count):
                cause(partner, path, f"{path} {number}")
        with pytest.raises(NotAsExpected) as raised:
            check_effects(Bank(partner.url))
    assert str(raised.value) == sentence


def test_an_executions_calls_and_effects_are_told_from_anothers() -> None:
    path = "/api/kyc/checks"
    with FakePartner() as partner:
        for execution in ("one", "other"):
            partner.answer(path, {"done": True}, times=1)
            headers = {"Idempotency-Key": f"of {execution}", "X-Workflow-Execution-Id": execution}
            requests.post(partner.url + path, json={}, headers=headers, timeout=5)
        seen = Bank(partner.url).seen_at(path, execution="other")
    assert [call["key"] for call in seen.calls] == ["of other"]
    assert [effect["key"] for effect in seen.effects] == ["of other"]


def test_what_differs_is_named() -> None:
    expect(1, 1, "One")
    with pytest.raises(NotAsExpected, match=r"^Status: expected 'COMPLETED', found 'FAILED'\.$"):
        expect("FAILED", "COMPLETED", "Status")


def test_a_refusal_where_success_is_wanted_is_told_with_its_code() -> None:
    expect_success({"success": True}, "The completion")
    refused = {
        "success": False,
        "shouldProceed": False,
        "errorCode": "STEP_LOCKED",
        "error": "Too late.",
    }
    with pytest.raises(NotAsExpected) as raised:
        expect_success(refused, "The form")
    assert str(raised.value) == "The form did not succeed: STEP_LOCKED Too late."


def test_a_server_that_is_away_is_a_sentence() -> None:
    phone = Phone("http://127.0.0.1:1", "alice", "token")
    with pytest.raises(DemoFailed, match=r"^The server does not answer \(ConnectionError\)\.$"):
        phone.send("{ workflows { id } }")
