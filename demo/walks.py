"""The walks of payments: what a person does with a phone, and what has to come of it.

The money transfer speaks the seed's own operations, byte for byte; the bill payment ours, which tell
the phone everything it needs in one answer.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from demo.backoffice import read_execution_row
from demo.bank import Bank
from demo.errors import NotAsExpected, expect, expect_success
from demo.phone import AnswerLost, Phone
from demo.stage import PASSWORD, USERNAME, Flow
from demo.telling import Telling

ACCOUNT = "1234567890"
TRANSFER = "/api/transactions/transfer"
PAY, SUBMIT = "/api/bills/pay", "/api/payments/submit"
CHECK, UNDO_CHECK = "/api/kyc/checks", "/api/kyc/checks/cancel"
OPEN_ACCOUNT = "/api/accounts"
EXPECTED_EFFECTS = {TRANSFER: 1, PAY: 1, SUBMIT: 1, CHECK: 2, UNDO_CHECK: 1, OPEN_ACCOUNT: 1}

_BUSY_TRIES = 40
_LOST_AFTER_SECONDS = 0.3
_PARTNER_TAKES_MS = 900


def read_operations(root: Path, folder: str) -> dict[str, str]:
    """The GraphQL texts of a folder by their names."""
    return {path.stem: path.read_text() for path in sorted((root / folder).glob("*.graphql"))}


@dataclass(frozen=True, slots=True)
class Walk:
    """One person walking one flow."""

    flow: Flow
    phone: Phone
    bank: Bank
    seed: Mapping[str, str]
    ours: Mapping[str, str]
    tell: Telling

    # --- the seed's operations --------------------------------------------------------------------

    def seed_step(self, execution: str, label: str, timing: str, value: Any = None) -> Any:
        return self.phone.send(
            self.seed["execute-step"],
            executionId=execution,
            stepId=self.flow.steps[label],
            timing=timing,
            input=value,
        )

    def tell_answer(self, label: str, words: str, answer: Mapping[str, Any]) -> None:
        said_no = answer["success"] and answer.get("shouldProceed", True) is False
        mark = "good" if answer["success"] and not said_no else "bad"
        self.tell.request(label, words, mark=mark, answer=answer)

    # --- ours -------------------------------------------------------------------------------------

    def step(
        self, execution: str, label: str, timing: str, value: Any = None, **how: Any
    ) -> dict[str, Any]:
        answer: dict[str, Any] = self.phone.send(
            self.ours["step"],
            executionId=execution,
            stepId=self.flow.steps[label],
            timing=timing,
            input=value,
            **how,
        )
        return answer

    def show(self, step: Mapping[str, Any] | None) -> None:
        """What the phone shows of a step: its title and message, rendered by the server."""
        config = (step or {}).get("config") or {}
        if config.get("message") or config.get("title"):
            self.tell.screen(config.get("title", ""), config.get("message", ""))

    # --- what came of it --------------------------------------------------------------------------

    def tell_effect(self, path: str, name: str, *, execution: str) -> dict[str, Any]:
        """The execution's one effect at a path, and the calls that led to it. Raises NotAsExpected."""
        seen = self.bank.seen_at(path, execution=execution)
        expect(len(seen.effects), 1, f"Effects at {path}")
        effect = seen.effects[0]
        keys = {call["key"] for call in seen.calls}
        expect(keys, {effect["key"]}, f"Idempotency-Keys of the calls to {path}")
        self.tell.fact(
            name,
            f"POST {path}: {_times(len(seen.calls), 'call')}, one effect, "
            f"Idempotency-Key {effect['key']}",
            calls=len(seen.calls),
            effects=len(seen.effects),
        )
        return effect

    def tell_record(self, execution: str) -> None:
        """The final record, by the API and by the admin. Raises NotAsExpected unless COMPLETED."""
        record = self.phone.send(self.ours["record"], id=execution)
        expect(record["status"], "COMPLETED", f"Status of the {self.flow.name}")
        expect(record["context"], None, "The context after the end")
        attempts = sum(len(run["attempts"]) for run in record["runs"])
        self.tell.fact(
            "the record",
            f"{record['status']}, {_times(len(record['runs']), 'run')} with "
            f"{_times(attempts, 'partner call')}, session cleared",
            record=record,
        )
        row = read_execution_row(self.phone.server, execution, username=USERNAME, password=PASSWORD)
        expect(row["status"], "Completed", "The status in the admin")
        shown = " · ".join(f"{name} {text}" for name, text in row.items() if text not in ("", "-"))
        self.tell.fact("its row in the admin", shown, row=row)


def walk_money_transfer(walk: Walk) -> None:
    """Send 5000 to John Doe: at first to an account that does not exist. Raises DemoFailed."""
    seed, tell = walk.seed, walk.tell
    tell.chapter(walk.flow.name, "the seed's operations, byte for byte")
    execution = _start_transfer(walk)
    details = {"amount": 5000, "recipientAccount": "0000000000", "recipientName": "John Doe"}
    _enter_transfer(walk, execution, details)
    answer = walk.seed_step(execution, "Validate Account", "BEFORE_STEP")
    walk.tell_answer("Validate Account", f"the partner says no: {answer['error']}", answer)
    expect((answer["success"], answer["shouldProceed"]), (True, False), "A recipient nobody knows")
    tell.note("back to the form, with the right account")
    details["recipientAccount"] = "9876543210"
    _enter_transfer(walk, execution, details)
    answer = walk.seed_step(execution, "Validate Account", "BEFORE_STEP")
    expect_success(answer, "The right recipient")
    walk.tell_answer("Validate Account", f"valid, token {answer['result']['token']}", answer)
    _confirm_transfer(walk, execution)
    tell.note("the partner will be down for one call; the step may be retried three times")
    walk.bank.fail_next(TRANSFER, kind="status", status=503)
    answer = walk.seed_step(execution, "Process Transfer", "AFTER_STEP")
    expect_success(answer, "The transfer")
    result = answer["result"]
    walk.tell_answer("Process Transfer", f"{result['status']}, {result['transferId']}", answer)
    answer = walk.phone.send(seed["complete"], executionId=execution)
    walk.tell_answer("complete", "COMPLETED, the final result mapped:", answer)
    tell.document("", answer["result"])
    expect(answer["result"], _transfer_result(details), "The mapped result")
    effect = walk.tell_effect(TRANSFER, "the partner saw", execution=execution)
    tell.document("its payload", effect["body"])
    expect(effect["body"]["context"]["transferDetails"], details, "What the partner received")
    _read_back_by_the_seed(walk, execution)
    walk.tell_record(execution)


def _start_transfer(walk: Walk) -> str:
    started = walk.phone.send(walk.seed["start"], workflowId=walk.flow.id, pageId="home")
    labels = [step["label"] for step in started["workflow"]["steps"]]
    expect(labels, list(walk.flow.steps), "The steps of the flow")
    words = f"execution {started['id']}, {len(labels)} steps"
    walk.tell.request("start", words, answer=started)
    execution: str = started["id"]
    return execution


def _enter_transfer(walk: Walk, execution: str, details: Mapping[str, Any]) -> None:
    answer = walk.seed_step(execution, "Enter Transfer Details", "AFTER_STEP", dict(details))
    expect_success(answer, "The form")
    words = "{amount} to {recipientName}, account {recipientAccount}".format_map(details)
    walk.tell_answer("Enter Transfer Details", words, answer)


def _confirm_transfer(walk: Walk, execution: str) -> None:
    step = walk.phone.send(walk.ours["record"], id=execution)["currentStep"]
    expect(step["config"]["message"], "Send 5000 to John Doe?", "The confirmation's text")
    walk.show(step)
    answer = walk.seed_step(execution, "Confirm Transfer", "AFTER_STEP", {"accepted": True})
    expect_success(answer, "The confirmation")
    walk.tell_answer("Confirm Transfer", "accepted", answer)


def _transfer_result(details: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "amount": details["amount"],
        "senderAccount": ACCOUNT,
        "recipientAccount": details["recipientAccount"],
        "recipientName": details["recipientName"],
        "validationToken": "abc123xyz",
    }


def _read_back_by_the_seed(walk: Walk, execution: str) -> None:
    """The seed's own two queries tell the same."""
    record = walk.phone.send(walk.seed["execution"], id=execution)
    expect(record["status"], "COMPLETED", "workflowExecution of the seed")
    own = walk.phone.send(
        walk.seed["user-executions"], userId=walk.phone.user_id, status="COMPLETED", limit=10
    )
    if execution not in {one["id"] for one in own}:
        raise NotAsExpected("The person's own list does not hold the execution.")


def walk_bill_payment(walk: Walk) -> None:
    """Pay a bill with its late fee, after two changes of mind and a lost answer. Raises DemoFailed."""
    tell = walk.tell
    tell.chapter(walk.flow.name, "richer operations: examples/operations/")
    started = walk.phone.send(
        walk.ours["start"],
        workflowId=walk.flow.id,
        pageId="bills",
        initialContext={"userAccount": ACCOUNT},
        idempotencyKey=str(uuid4()),
    )
    execution: str = started["id"]
    tell.request("start", f"execution {execution}", answer=started)
    walk.show(started["currentStep"])
    _mistype_the_bill(walk, execution)
    _try_a_paid_bill(walk, execution)
    _decline_the_wrong_bill(walk, execution)
    _confirm_the_overdue_bill(walk, execution)
    _pay_with_a_lost_answer(walk, execution)
    answer = walk.phone.send(
        walk.ours["complete"], executionId=execution, idempotencyKey=str(uuid4())
    )
    expect_success(answer, "The completion")
    words = f"COMPLETED, submitted as {answer['result']['paymentId']}"
    walk.tell_answer("complete", words, answer)
    walk.tell_effect(PAY, "the partner saw", execution=execution)
    effect = walk.tell_effect(SUBMIT, "and at the end", execution=execution)
    tell.document("its payload", effect["body"])
    expect(effect["body"]["amount"], "126.00", "The amount submitted")
    walk.tell_record(execution)


def _enter_bill(walk: Walk, execution: str, number: str, **more: Any) -> dict[str, Any]:
    bill = {"billerId": "city-power", "billNumber": number, **more}
    return walk.step(execution, "Enter Bill", "AFTER_STEP", bill)


def _look_up(walk: Walk, execution: str, number: str) -> dict[str, Any]:
    entered = _enter_bill(walk, execution, number)
    expect_success(entered, "The form")
    walk.tell_answer("Enter Bill", f"bill {number} of city-power", entered)
    return walk.step(execution, "Look Up Bill", "BEFORE_STEP")


def _mistype_the_bill(walk: Walk, execution: str) -> None:
    answer = _enter_bill(walk, execution, "12")
    expect(answer["errorCode"], "INPUT_INVALID", "A bill number that is too short")
    wrong = "; ".join(f"{one['path']} {one['message']}" for one in answer["fieldErrors"])
    walk.tell_answer("Enter Bill", f"INPUT_INVALID: {wrong}", answer)


def _try_a_paid_bill(walk: Walk, execution: str) -> None:
    answer = _look_up(walk, execution, "2024000099")
    expect(answer["errorCode"], "VALIDATION_REJECTED", "A bill that is paid already")
    words = f"VALIDATION_REJECTED: the bill is {answer['result']['status']} already"
    walk.tell_answer("Look Up Bill", words, answer)
    walk.tell.note("back to the form, with another bill")


def _decline_the_wrong_bill(walk: Walk, execution: str) -> None:
    answer = _look_up(walk, execution, "2024000117")
    expect(answer["nextStep"]["label"], "Confirm Payment", "The step after a bill without a fee")
    walk.tell_answer("Look Up Bill", "open, not overdue: the late fee's step is skipped", answer)
    walk.show(answer["nextStep"])
    answer = walk.step(execution, "Confirm Payment", "AFTER_STEP", {"accepted": False})
    expect(answer["errorCode"], "NOT_ACCEPTED", "A confirmation that was declined")
    walk.tell_answer("Confirm Payment", "declined: NOT_ACCEPTED", answer)
    walk.tell.note("back to the form again")


def _confirm_the_overdue_bill(walk: Walk, execution: str) -> None:
    answer = _look_up(walk, execution, "2024000042")
    walk.tell_answer("Look Up Bill", "open and overdue: a step more", answer)
    wanted = {
        "Accept Late Fee": "It was due on 2024-12-31. City Power charges a late fee of 6.00 USD.",
        "Confirm Payment": "Pay 126.00 USD to City Power from account 1234567890?",
    }
    for label, message in wanted.items():
        expect(answer["nextStep"]["label"], label, "The next step")
        expect(answer["nextStep"]["config"]["message"], message, "Its text")
        walk.show(answer["nextStep"])
        answer = walk.step(execution, label, "AFTER_STEP", {"accepted": True})
        walk.tell_answer(label, "accepted", answer)


def _pay_with_a_lost_answer(walk: Walk, execution: str) -> None:
    """The phone loses the answer to the payment, and repeats the call under its idempotencyKey."""
    walk.tell.note("the line will break while the bill is being paid")
    walk.bank.fail_next(PAY, kind="latency", ms=_PARTNER_TAKES_MS)
    key = str(uuid4())
    try:
        walk.step(
            execution,
            "Pay Bill",
            "AFTER_STEP",
            idempotencyKey=key,
            gives_up_after=_LOST_AFTER_SECONDS,
        )
    except AnswerLost:
        walk.tell.request("Pay Bill", "no answer: paid or not?", mark="odd")
    else:
        raise NotAsExpected("The answer that the demo wanted to lose arrived.")
    answer = _repeat_until_answered(walk, execution, key)
    expect_success(answer, "The repeated payment")
    words = f"the same call again: paid once, receipt {answer['result']['paymentId']}"
    walk.tell_answer("Pay Bill", words, answer)
    walk.show(answer["nextStep"])


def _repeat_until_answered(walk: Walk, execution: str, key: str) -> dict[str, Any]:
    for number in range(_BUSY_TRIES):
        answer = walk.step(execution, "Pay Bill", "AFTER_STEP", idempotencyKey=key)
        if answer["errorCode"] != "EXECUTION_BUSY":
            return answer
        if number == 0:
            words = "the same call again: EXECUTION_BUSY, the first one is still at work"
            walk.tell.request("Pay Bill", words, mark="odd", answer=answer)
        time.sleep(0.2)
    raise NotAsExpected("The repeated payment stayed EXECUTION_BUSY.")


def check_effects(bank: Bank) -> int:
    """How many effects there were, no more and no fewer than wanted. Raises NotAsExpected."""
    for path, wanted in EXPECTED_EFFECTS.items():
        expect(len(bank.seen_at(path).effects), wanted, f"Effects at {path}")
    found = bank.count_of_effects()
    expect(found, sum(EXPECTED_EFFECTS.values()), "Effects at the partner")
    return found


def _times(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
