"""A partner that hangs, cuts, drips, lies or is gone: what the app is told, in time, and one effect.

Every fault meets a transfer that cannot be undone, and a submission. The app then repeats the same
call, and the partner behaves.
"""

from collections.abc import Iterator

import pytest

from config.jsonvalues import JsonValue
from executions.enums import AttemptOutcome, ErrorCode, RunStatus, WorkflowExecutionStatus
from executions.tests.phone import flow, form, published, server_step
from executions.tests.servers import (
    PAYMENT,
    SUBMIT,
    TRANSFER,
    RemotePhone,
    WebServer,
    alice_at_completion,
    alice_at_transfer,
    calls_of,
)
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("server_output")]

TIMEOUT_MS = 500
BOUND_SECONDS = TIMEOUT_MS / 1000 + 1.0
SUCCEEDED, UNKNOWN = RunStatus.SUCCEEDED, RunStatus.UNKNOWN

CUT = (ErrorCode.TRIGGER_UNAVAILABLE, AttemptOutcome.LINE_CUT)
LATE = (ErrorCode.TRIGGER_TIMEOUT, AttemptOutcome.TIMED_OUT)
BAD = ErrorCode.TRIGGER_BAD_RESPONSE
# The fault, what it does, the app's error code, the record's outcome, whether the partner acted.
FAULTS: list[tuple[str, dict[str, object], ErrorCode, AttemptOutcome, bool]] = [
    ("hang", {}, *LATE, False),
    ("latency", {"ms": 3000}, *LATE, True),
    ("drip", {}, *LATE, True),
    ("drip_headers", {}, *LATE, True),
    ("cut_before", {}, *CUT, False),
    ("cut_before", {"reset": True}, *CUT, False),
    ("cut_after", {}, *CUT, True),
    ("cut_middle", {}, *CUT, True),
    ("garbage", {}, BAD, AttemptOutcome.NOT_JSON, True),
    ("html", {}, BAD, AttemptOutcome.NOT_JSON, True),
    ("invalid_utf8", {}, BAD, AttemptOutcome.NOT_JSON, True),
    ("bad_head", {}, BAD, AttemptOutcome.NOT_JSON, True),
    ("deep_json", {}, BAD, AttemptOutcome.NOT_JSON, True),
    ("huge", {}, BAD, AttemptOutcome.TOO_LARGE, True),
    ("huge", {"chunked": True}, BAD, AttemptOutcome.TOO_LARGE, True),
    ("gzip_bomb", {}, BAD, AttemptOutcome.TOO_LARGE, True),
    ("redirect", {}, BAD, AttemptOutcome.REDIRECTED, False),
    ("status", {"status": 503}, ErrorCode.TRIGGER_UNAVAILABLE, AttemptOutcome.SERVER_ERROR, False),
    (
        "status",
        {"status": 500, "effect": "before"},
        ErrorCode.TRIGGER_UNAVAILABLE,
        AttemptOutcome.SERVER_ERROR,
        True,
    ),
]
every_fault = pytest.mark.parametrize(
    ("kind", "details", "code", "outcome", "acted"),
    FAULTS,
    ids=["-".join([kind, *map(str, details.values())]) for kind, details, *_ in FAULTS],
)


@pytest.fixture(scope="module")
def web(django_db_setup: None, bank_server: FakePartner) -> Iterator[WebServer]:
    with WebServer(partner_url=bank_server.url) as server:
        yield server


def hasty_payment() -> CompiledWorkflow:
    """A transfer and a submission that wait half a second for an answer and are tried once."""
    transfer = server_step(1, timeoutMs=TIMEOUT_MS)
    final_api = {"endpoint": SUBMIT, "timeoutMs": TIMEOUT_MS}
    return published(flow(form(0), transfer, finalApi=final_api))


@every_fault
def test_transfer_is_made_once(
    web: WebServer,
    bank: FakePartner,
    kind: str,
    details: dict[str, object],
    code: ErrorCode,
    outcome: AttemptOutcome,
    acted: bool,
) -> None:
    alice = alice_at_transfer(web, hasty_payment())
    bank.fault(TRANSFER, kind, **details)  # type: ignore[arg-type]

    reply = alice.step(1, PAYMENT, key="k-1")

    assert (reply.code, reply.is_retryable) == (code, True)
    assert (reply.data["success"], reply.data["shouldProceed"]) == (False, False)
    assert reply.seconds < BOUND_SECONDS
    assert len(bank.effects(TRANSFER)) == int(acted)
    assert_last_run(alice, UNKNOWN, code, outcome)
    assert alice.row.position == 1
    alice.assert_at_rest()
    # Nobody goes past it, or back behind it, while it may have been made.
    assert alice.step(0, PAYMENT).code == "STEP_LOCKED"
    assert alice.complete().code == "STEPS_INCOMPLETE"

    answer = alice.step(1, PAYMENT, key="k-1").data

    assert (answer["success"], answer["result"]) == (True, asked_twice(alice, bank, TRANSFER))
    assert alice.statuses == [SUCCEEDED, UNKNOWN, SUCCEEDED]
    alice.assert_at_rest()
    assert alice.complete().data["success"] is True


@every_fault
def test_submission_is_made_once(
    web: WebServer,
    bank: FakePartner,
    kind: str,
    details: dict[str, object],
    code: ErrorCode,
    outcome: AttemptOutcome,
    acted: bool,
) -> None:
    alice = alice_at_completion(web, hasty_payment())
    bank.fault(SUBMIT, kind, **details)  # type: ignore[arg-type]

    reply = alice.complete("k-1")

    assert (reply.code, reply.is_retryable) == ("SUBMISSION_FAILED", True)
    assert reply.data["success"] is False
    assert reply.seconds < BOUND_SECONDS
    assert len(bank.effects(SUBMIT)) == int(acted)
    assert_last_run(alice, UNKNOWN, code, outcome)
    row = alice.row
    assert (row.status, row.error_code) == (
        WorkflowExecutionStatus.FAILED,
        ErrorCode.SUBMISSION_FAILED,
    )
    alice.assert_at_rest()

    answer = alice.complete("k-1").data

    result = asked_twice(alice, bank, SUBMIT)
    assert (answer["success"], answer["result"]) == (True, result)
    assert (alice.row.status, alice.row.result) == (WorkflowExecutionStatus.COMPLETED, result)
    assert alice.statuses == [SUCCEEDED, SUCCEEDED, UNKNOWN, SUCCEEDED]
    assert not alice.has_session
    alice.assert_at_rest()


def assert_last_run(
    alice: RemotePhone, status: RunStatus, code: ErrorCode, outcome: AttemptOutcome
) -> None:
    run = alice.runs[-1]
    assert (run.status, run.error_code) == (status, code)
    assert [attempt.outcome for attempt in run.attempts.all()] == [outcome]


def asked_twice(alice: RemotePhone, bank: FakePartner, path: str) -> JsonValue:
    """What the partner answered to the two calls that asked for the very same, acting once."""
    first, second = calls_of(bank, path, alice)
    assert first.key == second.key
    if first.fault != "cut_before":  # then the partner did not read the body
        assert first.body == second.body
    (effect,) = bank.effects(path)
    assert effect.key == first.key
    return effect.result


def test_partner_that_is_gone_was_sent_nothing(web: WebServer, bank: FakePartner) -> None:
    """Nobody listens: that is no unknown outcome, and the person may go back."""
    with FakePartner() as gone:
        pass
    with WebServer(partner_url=gone.url) as server:
        alice = alice_at_transfer(server, hasty_payment())
        reply = alice.step(1, PAYMENT)
    assert (reply.code, reply.is_retryable) == ("TRIGGER_UNAVAILABLE", True)
    assert reply.seconds < BOUND_SECONDS
    assert_last_run(
        alice, RunStatus.FAILED, ErrorCode.TRIGGER_UNAVAILABLE, AttemptOutcome.CONNECT_FAILED
    )
    alice.assert_at_rest()

    alice = alice.via(web)
    assert alice.step(0, PAYMENT).data["success"] is True
    assert alice.step(1, PAYMENT).data["success"] is True
    assert len(bank.effects(TRANSFER)) == 1


def test_retries_are_one_effect(web: WebServer, bank: FakePartner) -> None:
    """Three attempts of one call: cut after the effect, hung up, answered."""
    retries = {"maxRetries": 3, "initialDelayMs": 0}
    transfer = server_step(1, timeoutMs=TIMEOUT_MS, retryConfig=retries)
    alice = alice_at_transfer(web, published(flow(form(0), transfer)))
    bank.fault(TRANSFER, "cut_after")
    bank.fault(TRANSFER, "status", status=503)

    answer = alice.step(1, PAYMENT).data

    (effect,) = bank.effects(TRANSFER)
    assert (answer["success"], answer["result"]) == (True, effect.result)
    assert {call.key for call in bank.calls(TRANSFER)} == {effect.key}
    assert [attempt.outcome for attempt in alice.runs[1].attempts.order_by("number")] == [
        AttemptOutcome.LINE_CUT,
        AttemptOutcome.SERVER_ERROR,
        AttemptOutcome.ANSWERED,
    ]
    alice.assert_at_rest()


# --- lies that can be read ------------------------------------------------------------------------


@pytest.mark.parametrize("valid", ["false", "true", None, 0, 1, [], {}], ids=repr)
def test_only_true_is_valid(web: WebServer, bank: FakePartner, valid: JsonValue) -> None:
    """A validation that answers anything but true has not said yes."""
    bank.answer("/api/accounts/validate", {"valid": valid, "message": "who knows"})
    alice = RemotePhone.started(web, published(flow(validation(), form(1))))

    answer = alice.step(0, PAYMENT).data

    assert (answer["success"], answer["shouldProceed"]) == (True, False)
    assert (answer["errorCode"], answer["error"]) == ("VALIDATION_REJECTED", "who knows")
    assert alice.step(1, PAYMENT).code == "STEP_OUT_OF_ORDER"
    assert alice.statuses == [RunStatus.REJECTED]
    bank.reset()
    assert alice.step(0, PAYMENT).data["shouldProceed"] is True


def validation() -> dict[str, JsonValue]:
    return server_step(
        0,
        type="VALIDATION",
        executionMode="SERVER_VALIDATION",
        triggerEndpoint="/api/accounts/validate",
    )


def test_still_working_after_an_unknown_outcome_is_no_refusal(
    web: WebServer, bank: FakePartner
) -> None:
    """A 409 to the repeat may mean the first call, which is not done yet: the key stays."""
    alice = alice_at_transfer(web, hasty_payment())
    bank.fault(TRANSFER, "cut_after")
    assert alice.step(1, PAYMENT).code == "TRIGGER_UNAVAILABLE"
    bank.fault(TRANSFER, "status", status=409, body={"message": "in progress"})

    reply = alice.step(1, PAYMENT)

    assert (reply.code, reply.is_retryable) == ("TRIGGER_UNAVAILABLE", True)
    assert alice.statuses == [SUCCEEDED, UNKNOWN, UNKNOWN]
    answer = alice.step(1, PAYMENT).data
    (effect,) = bank.effects(TRANSFER)
    assert (answer["success"], answer["result"]) == (True, effect.result)
    assert {call.key for call in bank.calls(TRANSFER)} == {effect.key}
