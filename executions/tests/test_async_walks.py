"""Random walks through durable flows with async steps: the session always says what the rows say.

Whatever a person, the workers and a flushed store do in whatever order, the progress and context
that a call would find are those that the rows alone lead to, and the partner sees one effect a key.
"""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executions import callbacks, recovery, state, worker
from executions.callbacks import CallbackConflict, CallbackExpired
from executions.enums import RunKind, RunStatus, WorkflowExecutionStatus
from executions.models import StepRun
from executions.session_store import get_session_store
from executions.standing import find_standing
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.test_async_steps import async_step
from executions.worker import Claim
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow

pytestmark = pytest.mark.django_db

CHECK, SCORE, PAY = "/api/check", "/api/score", "/api/pay"
EXAMPLES = int(os.environ.get("WALKS", "60"))
OPERATIONS: Final = (
    *(f"step {index} {value}" for index in range(6) for value in "ab"),
    *("take", "work", "work", "work", "lose session", "callback"),
)
FAULTS: Final = ("", "", "", "no", "refuse", "doubt", "later", "later")


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    check = async_step(1, triggerEndpoint=CHECK, config={"proceedWhen": "result.ok"})
    score = async_step(3, type="FORM", triggerEndpoint=SCORE)
    pay = async_step(4, triggerEndpoint=PAY, config={"reversible": False})
    document = flow(
        form(0),
        check,
        form(2),
        score,
        pay,
        server_step(5, triggerEndpoint=CHECK),
        durableSession=True,
    )
    return published(document)


class Walk:
    """One person, and workers that take runs and take their time."""

    def __init__(self, compiled: CompiledWorkflow, partner: FakePartner) -> None:
        partner.reset()
        for path in (CHECK, SCORE, PAY):
            partner.answer(path, {"ok": True})
        self.partner = partner
        self.phone = Phone(compiled)
        self.held: list[Claim] = []

    def do(self, operation: str, *, fault: str) -> None:
        name, *arguments = operation.split()
        acts: dict[str, Callable[[], object]] = {
            "step": lambda: self.phone.step(int(arguments[0]), {"value": arguments[1]}),
            "take": lambda: self.held.extend(worker.claim_due(1)),
            "work": self._work,
            "lose": lambda: get_session_store().clear_session(self.phone.row.session_id),
            "callback": self._call_back,
        }
        if name == "work" and fault:
            self._spoil(fault)
        acts[name]()

    def _spoil(self, fault: str) -> None:
        for path in (CHECK, SCORE, PAY):
            if fault == "no":
                self.partner.fault(path, "answer", status=200, body={"ok": False})
            elif fault == "later":
                self.partner.fault(path, "answer", status=202, body={"status": "PENDING"})
            elif fault == "refuse":
                self.partner.fault(path, "answer", status=422, body={"message": "no"})
            else:
                self.partner.fault(path, "status", status=500, effect="before")

    def _call_back(self) -> None:
        """The partner answers the latest call that it has taken for later, perhaps once more."""
        taken = [call for call in self.partner.calls() if call.status == 202 and call.callback_url]
        if taken:
            token = taken[-1].callback_url.rpartition("/")[2]
            body = b'{"ok":true}'
            with suppress(CallbackExpired, CallbackConflict):
                callbacks.receive(token, body=body, signature=None, now=timezone.now())

    def _work(self) -> None:
        if not self.held:
            self.held.extend(worker.claim_due(1))
        if self.held:
            worker.work(self.held.pop(0))

    def check(self) -> None:
        """The session says what the rows say, once it is there again."""
        recovery.mend(self.phone.execution_id)
        row = self.phone.row
        assert row.status in (
            WorkflowExecutionStatus.PENDING,
            WorkflowExecutionStatus.IN_PROGRESS,
        )
        standing = find_standing(row.id)
        assert standing is not None
        progress, context = recovery.read_from_rows(row)
        assert standing.sequence == row.sequence
        assert standing.progress.position == progress.position
        assert known(standing.progress) == known(progress)
        assert visible(standing.context) == visible(context)
        self._check_partner()

    def _check_partner(self) -> None:
        effects = Counter(effect.key for effect in self.partner.effects())
        assert all(count == 1 for count in effects.values())
        succeeded = StepRun.objects.filter(
            execution_id=self.phone.execution_id, kind=RunKind.STEP, status=RunStatus.SUCCEEDED
        )
        keys = [str(run.trigger_key) for run in succeeded if run.trigger_key]
        assert set(keys) <= set(effects)
        assert len(keys) == len(set(keys))


def known(progress: state.Progress) -> dict[object, state.Mark]:
    """The marks that say anything."""
    return {at: mark for at, mark in progress.marks.items() if mark != state.Mark()}


def visible(context: object) -> dict[str, object]:
    return dict(context)  # type: ignore[call-overload,no-any-return]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    operations=st.lists(
        st.tuples(st.sampled_from(OPERATIONS), st.sampled_from(FAULTS)),
        min_size=5,
        max_size=25,
    )
)
def test_the_session_says_what_the_rows_say(
    compiled: CompiledWorkflow,
    partner: FakePartner,
    operations: list[tuple[str, str]],
) -> None:
    walk = Walk(compiled, partner)
    for operation, fault in operations:
        walk.do(operation, fault=fault)
        walk.check()
