"""The walk of an account opening: a step that is answered later, and one that is undone.

The identity check is worked off by the worker while the person goes on; its result comes by a
callback to the server. The second person changes her mind when the check is done already.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from demo.errors import NotAsExpected, expect, expect_success
from demo.walks import CHECK, OPEN_ACCOUNT, UNDO_CHECK, Walk

_CHECK_TAKES_MS = 2500
_POLL_SECONDS = 0.25
_PATIENCE_SECONDS = 30.0
_HOLDER = {"fullName": "Jane Roe", "dateOfBirth": "1990-04-01", "nationalId": "X1234567"}
_WANTED = {
    "product": "CURRENT",
    "currency": "EUR",
    "address": {
        "street": "12 High Street",
        "postalCode": "10115",
        "city": "Berlin",
        "country": "DE",
    },
}


def walk_account_opening(walk: Walk) -> None:
    """Open an account, faster than the partner checks the person. Raises DemoFailed."""
    tell = walk.tell
    tell.chapter(walk.flow.name, "a step that nobody waits for, and a partner that calls back")
    walk.bank.call_back_after(CHECK, _CHECK_TAKES_MS)
    execution, following = _begin(walk)
    _go_on_meanwhile(walk, execution, following)
    _complete_too_early(walk, execution)
    _await_check(walk, execution)
    answer = walk.phone.send(
        walk.ours["complete"], executionId=execution, idempotencyKey=str(uuid4())
    )
    expect_success(answer, "The completion")
    words = f"COMPLETED, account {answer['result']['accountNumber']}"
    walk.tell_answer("complete", words, answer)
    check = walk.tell_effect(CHECK, "the partner saw", execution=execution)
    callback = _tell_callback(walk, check["key"])
    effect = walk.tell_effect(OPEN_ACCOUNT, "and at the end", execution=execution)
    tell.document("its payload", effect["body"])
    result = {name: callback["body"][name] for name in ("checkId", "verified", "riskScore")}
    expect(effect["body"]["identityCheck"], result, "The check in the payload")
    walk.tell_record(execution)


def walk_cancelled_opening(walk: Walk) -> None:
    """Cancel when the identity has been checked: the check is undone. Raises DemoFailed."""
    tell = walk.tell
    tell.chapter(f"{walk.flow.name}, cancelled", "what succeeded is undone")
    execution, _ = _begin(walk)
    _await_check(walk, execution)
    reason = "changed my mind"
    answer = walk.phone.send(
        walk.ours["cancel"],
        executionId=execution,
        reason=reason,
        idempotencyKey=str(uuid4()),
    )
    expect((answer["status"], answer["cancelReason"]), ("CANCELLED", reason), "The cancellation")
    tell.request("cancel", f"CANCELLED: {reason}", answer=answer)
    record = _await_record(walk, execution, _is_undone, "The check was not undone")
    check = walk.tell_effect(CHECK, "the partner saw", execution=execution)
    undone = walk.tell_effect(UNDO_CHECK, "and afterwards", execution=execution)
    if undone["key"] == check["key"]:
        raise NotAsExpected("The compensation has the Idempotency-Key of what it undoes.")
    (callback,) = walk.bank.callbacks_under(check["key"])
    expect(undone["body"], {"checkId": callback["body"]["checkId"]}, "What was undone")
    expect(_compensations(record), ["SUCCEEDED"], "The compensations on record")
    expect(walk.bank.seen_at(OPEN_ACCOUNT, execution=execution).effects, (), "Accounts opened")
    tell.fact("the record", "CANCELLED, compensation SUCCEEDED, no account opened", record=record)


def _begin(walk: Walk) -> tuple[str, dict[str, Any]]:
    """Start, enter the person, and have the check made: the execution, and the step to show next."""
    started = walk.phone.send(
        walk.ours["start"],
        workflowId=walk.flow.id,
        pageId="accounts",
        idempotencyKey=str(uuid4()),
    )
    execution: str = started["id"]
    walk.tell.request("start", f"execution {execution}", answer=started)
    walk.show(started["currentStep"])
    answer = walk.step(execution, "About You", "AFTER_STEP", _HOLDER)
    expect_success(answer, "The form")
    walk.tell_answer("About You", _HOLDER["fullName"], answer)
    walk.show(answer["nextStep"])
    answer = walk.step(execution, "Check Identity", "AFTER_STEP", idempotencyKey=str(uuid4()))
    expect_success(answer, "The check of the person")
    expect(answer["result"]["status"], "QUEUED", "The answer to an async step")
    words = f"QUEUED as run {answer['result']['runId']}; the flow goes on"
    walk.tell_answer("Check Identity", words, answer)
    following: dict[str, Any] = answer["nextStep"]
    return execution, following


def _go_on_meanwhile(walk: Walk, execution: str, following: Mapping[str, Any]) -> None:
    walk.show(following)
    record = walk.phone.send(walk.ours["record"], id=execution)
    expect(_state_of_check(record), "PENDING", "The check's state meanwhile")
    walk.tell.fact("its state", "PENDING, for as long as the partner takes")
    answer = walk.step(execution, "Your Account", "AFTER_STEP", _WANTED)
    expect_success(answer, "The second form")
    walk.tell_answer("Your Account", "a CURRENT account in EUR", answer)
    walk.show(answer["nextStep"])
    answer = walk.step(execution, "Confirm", "AFTER_STEP", {"accepted": True})
    expect_success(answer, "The confirmation")
    walk.tell_answer("Confirm", "accepted", answer)


def _complete_too_early(walk: Walk, execution: str) -> None:
    answer = walk.phone.send(walk.ours["complete"], executionId=execution)
    found = (answer["errorCode"], answer["retryable"])
    expect(found, ("STEPS_PENDING", True), "A completion before the check has ended")
    words = "STEPS_PENDING: the check is still under way; the app looks again"
    walk.tell.request("complete", words, mark="odd", answer=answer)


def _await_check(walk: Walk, execution: str) -> None:
    record = _await_record(
        walk, execution, lambda one: _state_of_check(one) != "PENDING", "The check stayed PENDING"
    )
    expect(_state_of_check(record), "PASSED", "The check's state at the end")
    (run,) = [run for run in record["runs"] if run["stepId"] == walk.flow.steps["Check Identity"]]
    words = f"PASSED: the partner answered 202 and called back ({run['durationMs']} ms of calls)"
    walk.tell.fact("its state", words, run=run)


def _await_record(
    walk: Walk, execution: str, is_there: Callable[[Mapping[str, Any]], bool], otherwise: str
) -> dict[str, Any]:
    """Look until the record is as wanted, as an app does. Raises NotAsExpected."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        record: dict[str, Any] = walk.phone.send(walk.ours["record"], id=execution)
        if is_there(record):
            return record
        time.sleep(_POLL_SECONDS)
    raise NotAsExpected(f"{otherwise} for {_PATIENCE_SECONDS:.0f} s.")


def _state_of_check(record: Mapping[str, Any]) -> str:
    states = {step["label"]: str(step["state"]) for step in record["steps"]}
    return states["Check Identity"]


def _is_undone(record: Mapping[str, Any]) -> bool:
    statuses = _compensations(record)
    return bool(statuses) and not {"QUEUED", "RUNNING"} & {*statuses}


def _compensations(record: Mapping[str, Any]) -> list[str]:
    return [run["status"] for run in record["runs"] if run["kind"] == "COMPENSATION"]


def _tell_callback(walk: Walk, key: str) -> dict[str, Any]:
    (callback,) = walk.bank.callbacks_under(key)
    expect(callback["statuses"], [200], "The answers to the callback")
    walk.tell.fact("and called back", "once, answered 200", callback=callback)
    walk.tell.document("its result", callback["body"])
    return callback
