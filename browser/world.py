"""A bank in the middle of its day: flows, connections, and executions in every state there is.

What is shown of people is made up. Everything happened through the engine's own door, but for the
figures of earlier days, which are rows.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from config.actors import acting_as
from config.ids import new_id
from config.jsonvalues import JsonObject
from executions import operating, worker
from executions.enums import ErrorCode, OperatorActionKind, RunStatus
from executions.models import WorkflowExecution
from executions.reading import read_execution
from executions.rollups import roll_up
from executions.tests.past import COMPLETED, FAILED, call, execution
from executions.tests.phone import BEFORE, Phone, walk_money_transfer
from executions.tests.records import let_expire
from sandbox.testing import FakePartner
from workflows import drafts, golden
from workflows.compiled import CompiledWorkflow
from workflows.connections import set_connection
from workflows.enums import AuthKind
from workflows.models import Connection, Workflow, WorkflowVersion
from workflows.publishing import publish
from workflows.versions import compiled_version

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
STAFF = "mara"
PASSWORD = "handrail-pictures"  # noqa: S105 - of a database that is thrown away
KYC, KYC_UNDO = "/api/kyc/checks", "/api/kyc/checks/cancel"
SUBMIT, TRANSFER, CARDS = "/api/payments/submit", "/api/transactions/transfer", "/api/cards"
APPLICANT: JsonObject = {
    "fullName": "Ada Okafor",
    "dateOfBirth": "1991-04-12",
    "nationalId": "QX2209417",
}
BILL: JsonObject = {"billerId": "city-power", "billNumber": "4711000001"}


@dataclass(frozen=True, slots=True)
class World:
    """What the pages of the pictures are about."""

    staff: User
    transfer: Workflow
    version: WorkflowVersion
    broken: Workflow
    bills: Workflow
    accounts: Workflow
    connection: Connection
    cards: Connection
    completed: WorkflowExecution
    failed: WorkflowExecution
    masked: WorkflowExecution
    undoing: WorkflowExecution


def make_world(partner: FakePartner, *, days: int) -> World:
    """Fill an empty database; `days` of figures lie behind today."""
    staff = User.objects.create_superuser(STAFF, password=PASSWORD, first_name="Mara")
    with acting_as(STAFF):
        return _filled(partner, staff, days)


def _filled(partner: FakePartner, staff: User, days: int) -> World:
    _connections(partner)
    transfer = _published("money-transfer.json", note="The first version")
    bills = _published("bill-payment.json", note="Late fees are asked about")
    accounts = _published("account-opening.json", note="Identity checks by the new partner")
    with transaction.atomic():
        _earlier_days([transfer, bills, accounts], days)
    completed, failed = _transfers(transfer, partner)
    _bills(bills, partner)
    masked, undoing = _accounts(accounts, partner)
    _cards(partner)
    list(roll_up())
    draft = _drafts(transfer)
    return World(
        staff=staff,
        transfer=draft,
        version=draft.versions.latest("number"),
        broken=_broken_draft(),
        accounts=Workflow.objects.get(pk=accounts.workflow_id),
        bills=Workflow.objects.get(pk=bills.workflow_id),
        connection=Connection.objects.get(name="core-banking"),
        cards=Connection.objects.get(name="cards"),
        completed=completed.row,
        failed=failed.row,
        masked=masked.row,
        undoing=undoing.row,
    )


def _connections(partner: FakePartner) -> None:
    set_connection(name="sandbox", base_url=partner.url, allow_private=True)
    for name, kind, header_name, callback_secret in (
        ("core-banking", AuthKind.BEARER, "", None),
        ("identity", AuthKind.HMAC, "", "made up as well"),
        ("cards", AuthKind.API_KEY, "X-Cards-Key", None),
    ):
        set_connection(
            name=name,
            base_url=partner.url,
            auth_kind=kind,
            secret="made up, and sent to the sandbox only",  # noqa: S106 - that is what it is
            allow_private=True,
            header_name=header_name,
            callback_secret=callback_secret,
        )


def _published(file: str, *, note: str) -> CompiledWorkflow:
    workflow, _ = drafts.import_document(json.loads((EXAMPLES / file).read_text()))
    return compiled_version(publish(workflow.id, by=STAFF, note=note).id)


# --- today ----------------------------------------------------------------------------------------


def _transfers(compiled: CompiledWorkflow, partner: FakePartner) -> tuple[Phone, Phone]:
    def person(name: str) -> Phone:
        return Phone(compiled, user_id=name, initial={"userAccount": "1234567890"})

    completed = person("ada.okafor")
    walk_money_transfer(completed)
    completed.complete()
    failed = person("liam.berg")
    # Garbage for an answer: the partner was there, and nobody knows what it did.
    partner.fault(TRANSFER, "garbage")
    walk_money_transfer(failed)
    called = person("noor.haddad")
    operating.perform(
        called.execution_id,
        operating.StaffAction(OperatorActionKind.CANCEL),
        by=STAFF,
        reason="The person called: it was started twice.",
        action_id=new_id(),
        now=timezone.now(),
    )
    left = person("tomas.vega")
    left.step(0, {"amount": 120, "recipientAccount": "9876543210", "recipientName": "Ines"})
    changed_mind = person("yuki.sato")
    changed_mind.step(0, {"amount": 9, "recipientAccount": "9876543210", "recipientName": "Io"})
    changed_mind.cancel("The person called: the amount was wrong.")
    late = person("emil.novak")
    let_expire(late)
    read_execution(late.execution_id, user_id=late.user_id, sees_all=False)
    return completed, failed


def _bills(compiled: CompiledWorkflow, partner: FakePartner) -> None:
    partner.fault(SUBMIT, "answer", status=409, body={"message": "Booking day is closed"})
    phone = Phone(compiled, user_id="sofia.lindt", initial={"userAccount": "1234567890"})
    phone.step(0, BILL)
    phone.step(1, timing=BEFORE)
    phone.step(3, {"accepted": True})
    phone.step(4)
    phone.step(5)
    phone.complete()


def _accounts(compiled: CompiledWorkflow, partner: FakePartner) -> tuple[Phone, Phone]:
    verified: JsonObject = {"checkId": "chk_81", "verified": True, "riskScore": 7}

    def checked(name: str) -> Phone:
        partner.answer(KYC, verified, times=1)
        phone = Phone(compiled, user_id=name)
        phone.step(0, APPLICANT)
        phone.step(1)
        _work_off()
        return phone

    partner.answer(KYC_UNDO, {"message": "The check is closed"}, status=409)
    undoing = checked("lena.fischer")
    undoing.cancel("Found a better offer")
    _work_off()
    masked = checked("ravi.patel")
    queued = Phone(compiled, user_id="mia.rossi")
    queued.step(0, APPLICANT)
    queued.step(1)
    return masked, undoing


def _work_off() -> None:
    while claims := worker.claim_due(10):
        for claim in claims:
            worker.work(claim)


def _cards(partner: FakePartner) -> None:
    """Five failures in a row: the breaker of its connection opens."""
    document: JsonObject = {
        "name": "Card Order",
        "description": "Order a card to the account",
        "steps": [
            {
                "type": "API_CALL",
                "label": "Order Card",
                "order": 0,
                "executionMode": "SERVER_SYNC",
                "triggerEndpoint": CARDS,
                "retryConfig": {"maxRetries": 0},
                "config": {"connection": "cards", "dataKey": "card"},
            }
        ],
    }
    workflow, _ = drafts.import_document(document)
    compiled = compiled_version(publish(workflow.id, by=STAFF).id)
    partner.fault(CARDS, "status", status=503, times=5)
    for name in ("kofi.mensah", "anna.kovacs", "jonas.eriksen", "priya.nair", "paul.meyer"):
        Phone(compiled, user_id=name).step(0)


# --- drafts ---------------------------------------------------------------------------------------


def _drafts(compiled: CompiledWorkflow) -> Workflow:
    """The live transfer with a second version, and changes that wait to be published."""
    workflow = Workflow.objects.get(pk=compiled.workflow_id)
    first, validation, confirm, _ = workflow.steps.order_by("order")
    drafts.update_step(validation.pk, {"timeoutMs": 8000})
    publish(workflow.pk, by=STAFF, note="The partner asked for more time")
    drafts.update_step(
        first.pk,
        {
            "config": {
                **first.config,
                "title": "Send money",
                "inputSchema": {
                    "type": "object",
                    "properties": {
                        "amount": {"type": "number", "exclusiveMinimum": 0, "maximum": 10000},
                        "recipientAccount": {"type": "string", "pattern": "^[0-9]{10}$"},
                        "recipientName": {"type": "string", "minLength": 2, "maxLength": 70},
                    },
                    "required": ["amount", "recipientAccount", "recipientName"],
                    "additionalProperties": False,
                },
            }
        },
    )
    drafts.update_step(
        confirm.pk,
        {"config": {**confirm.config, "message": "Send ${transferDetails.amount} EUR to "
                    "${transferDetails.recipientName}?"}},
    )  # fmt: skip
    golden.save_golden_run(
        workflow.pk,
        name="A usual transfer",
        context={
            "userAccount": "1234567890",
            "transferDetails": {
                "amount": 5000,
                "recipientAccount": "9876543210",
                "recipientName": "John Doe",
            },
            "validation": {"token": "v_1"},
        },
        by=STAFF,
    )
    workflow.refresh_from_db()
    return workflow


def _broken_draft() -> Workflow:
    """A draft that cannot be published yet."""
    document: JsonObject = {
        "name": "Savings Plan",
        "description": "Put money aside every month",
        "config": {"apiMapping": {"amount": "plan.monthlyAmount", "account": "plan account"}},
        "steps": [
            {
                "type": "FORM",
                "label": "Your Plan",
                "order": 0,
                "executionMode": "CLIENT_ONLY",
                "config": {"dataKey": "plan"},
            },
            {
                "type": "API_CALL",
                "label": "Set Up Plan",
                "order": 1,
                "executionMode": "SERVER_SYNC",
                "triggerEndpoint": "/api/plans",
                "config": {"connection": "savings"},
            },
        ],
    }
    workflow, _ = drafts.import_document(document)
    return workflow


# --- earlier days ---------------------------------------------------------------------------------


def _earlier_days(flows: list[CompiledWorkflow], days: int) -> None:
    chance = random.Random(7)  # noqa: S311 - the same pictures each time
    now = timezone.now()
    for ago in range(1, days + 1):
        started = (now - timedelta(days=ago)).replace(hour=8, minute=0)
        for number in range(chance.randint(8, 20)):
            compiled = flows[min(int(chance.expovariate(1.2)), len(flows) - 1)]
            _one_of_earlier(compiled, started + timedelta(minutes=37 * number), chance)


def _one_of_earlier(compiled: CompiledWorkflow, at: datetime, chance: random.Random) -> None:
    fate = chance.random()
    seconds = chance.uniform(40, 400)
    stopped = chance.randrange(len(compiled.steps))
    status, code = COMPLETED, ""
    if fate > 0.75:
        status, code = FAILED, ErrorCode.SESSION_EXPIRED
    elif fate > 0.7:
        status, code, stopped = FAILED, ErrorCode.SUBMISSION_FAILED, len(compiled.steps)
    position = len(compiled.steps) if status == COMPLETED else stopped
    row = execution(
        compiled, started=at, status=status, seconds=seconds, position=position, code=code,
        user_id=f"person-{chance.randrange(400)}",
    )  # fmt: skip
    for sequence, (index, run, error) in enumerate(_calls(position, chance), start=1):
        step = compiled.steps[index]
        call(
            row, index=index, status=run, code=error, sequence=sequence, step_id=UUID(step.id),
            connection="core-banking" if step.trigger else "", calls_partner=bool(step.trigger),
        )  # fmt: skip


def _calls(position: int, chance: random.Random) -> Iterator[tuple[int, RunStatus, str]]:
    for index in range(position):
        if chance.random() > 0.93:
            yield index, RunStatus.FAILED, ErrorCode.TRIGGER_TIMEOUT
        yield index, RunStatus.SUCCEEDED, ""
