"""The engine against the model of running a flow (`model.py`): random walks over random small workflows.

After every operation answer, next step, status, position, context, calls and effects are compared.
The fast walks have sessions and partner in memory; the others run over PostgreSQL, Redis and the
sandbox's HTTP. A part's seed is its number, so a failure repeats itself; MODEL_WALKS sets how many
fast walks there are in all, e.g. for a long night: MODEL_WALKS=50000.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import ClassVar, Final, TypeVar
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from pytest_django import Settings

from config.ids import new_id
from config.jsonvalues import JsonObject, JsonValue
from executions import executor, session_store
from executions.answers import StepAnswer
from executions.errors import ExecutionError
from executions.http_client import HttpClient
from executions.models import WorkflowExecution
from executions.reading import ExecutionView
from executions.session_store import get_session_store
from executions.standing import find_standing
from executions.surroundings import ConnectionCaps, Surroundings
from executions.tests.fakes import MemorySessionStore
from executions.tests.model import (
    AFTER,
    BEFORE,
    Behaviour,
    Brief,
    CallPlan,
    Condition,
    FlowPlan,
    Key,
    Kind,
    Model,
    Raised,
    Said,
    Source,
    StepPlan,
)
from executions.tests.model_partners import (
    STATUS_PATH,
    HttpPartner,
    MemoryPartner,
    PlayedPartner,
    path_of,
)
from executions.tests.phone import published
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow
from workflows.connections import forget_connections
from workflows.enums import TriggerTiming
from workflows.models import Workflow, WorkflowVersion
from workflows.versions import compiled_version

OPERATIONS: Final = 30
IS_EMBEDDED: Final = "sqlite" in django_settings.DATABASES["default"]["ENGINE"]
# Over another database they prove little more, and take longer.
FAST_WALKS: Final = int(os.environ.get("MODEL_WALKS", "300" if IS_EMBEDDED else "25"))
FAST_PARTS: Final = max(1, FAST_WALKS // 100)
SERVER_WALKS: Final = 60
SERVER_PARTS: Final = 4

# --- random workflows -----------------------------------------------------------------------------

MAX_STEPS: Final = 6
POOL: Final = 127
_Made = TypeVar("_Made")
_KEYS = [f"d{index}" for index in range(MAX_STEPS)]
_CONTEXT_PATHS: list[tuple[str, ...]] = [
    ("flag",),
    *((key, "a") for key in _KEYS),
    *((f"{key}Result", "n") for key in _KEYS),
    *((key, "valid") for key in _KEYS[:3]),
]
_EQUALS: list[JsonValue] = [1, 1, 2, None]
_WHEN = [None] * 200 + [Condition(path, value) for path in _CONTEXT_PATHS for value in _EQUALS]
_PROCEED_PATHS: list[tuple[str, ...]] = [
    ("input", "a"),
    ("result", "n"),
    ("context", "d0", "a"),
    ("context", "flag"),
]
_PROCEED_WHEN = [None] * 40 + [
    *(Condition(path, value) for path in _PROCEED_PATHS for value in (1, 2)),
    Condition(("result", "ok")),
    Condition(("input", "accepted")),
]
_EXPECTS = [None, None, Condition(("result", "accepted")), Condition(("result", "n"), 2)]
_TYPES = ["FORM", "FORM", "VALIDATION", *(["CONFIRMATION"] * 2), "API_CALL", "API_CALL", "INFO"]


def _call(chance: Random, *, is_fast: bool, sources: Sequence[tuple[str, ...]]) -> CallPlan:
    path = chance.choice(sources) if chance.random() < 0.25 else None
    return CallPlan(
        mapping=None if path is None else Source(path, has_default=chance.random() < 0.7),
        max_retries=chance.randint(0, 2),
        timeout_ms=chance.choice([1_000, 25_000]) if is_fast else 200,
        max_delay_ms=chance.choice([150, 5_000]),
    )


def _step(chance: Random, *, index: int, is_fast: bool) -> StepPlan:
    sources = [("input",), ("input", "a"), *((key, "a") for key in _KEYS[: index + 1])]
    is_server = chance.random() < 0.7
    asks_status = is_server and chance.random() < 0.3
    return StepPlan(
        index=index,
        type=chance.choice(_TYPES),
        call=_call(chance, is_fast=is_fast, sources=sources) if is_server else None,
        is_validation=is_server and chance.random() < 0.4,
        timing=chance.choice([BEFORE, AFTER, AFTER, "BOTH"]) if is_server else AFTER,
        optional=chance.random() < 0.35,
        reversible=chance.choice([None, None, True, False, False]),
        private=chance.random() < 0.2,
        has_schema=chance.random() < 0.2,
        when=chance.choice(_WHEN),
        proceed_when=chance.choice(_PROCEED_WHEN),
        asks_status=asks_status,
        expect=chance.choice(_EXPECTS) if asks_status else None,
    )


def _flow_frame(chance: Random, *, is_fast: bool) -> FlowPlan:
    sources = [("flag",), *((key, "a") for key in _KEYS)]
    has_mapping = chance.random() < 0.6
    return FlowPlan(
        steps=(),
        initial=chance.choice([{}, {"flag": 1}, {"flag": 2}]),
        api_mapping=Source(chance.choice(sources), chance.random() < 0.7) if has_mapping else None,
        final=_call(chance, is_fast=is_fast, sources=sources) if chance.random() < 0.7 else None,
    )


def flows(*, is_fast: bool) -> st.SearchStrategy[FlowPlan]:
    """Small workflows of every kind of step."""
    steps = [_pool(partial(_step, index=index, is_fast=is_fast)) for index in range(MAX_STEPS)]
    frames = _pool(partial(_flow_frame, is_fast=is_fast))
    chosen = st.integers(1, MAX_STEPS).flatmap(lambda count: st.tuples(*steps[:count]))
    return st.builds(lambda frame, steps: replace(frame, steps=steps), frames, chosen)


def _pool(make: Callable[[Random], _Made]) -> st.SearchStrategy[_Made]:
    """A choice of POOL values, always the same ones, with the plainest first to shrink to.

    One draw instead of a dozen, which would be half of a walk's time. Of larger pools Hypothesis
    would mostly draw the ends.
    """
    chance = Random(POOL)
    return st.sampled_from(
        sorted((make(chance) for _ in range(POOL)), key=lambda one: len(repr(one)))
    )


# --- random operations ----------------------------------------------------------------------------

_VALUES: list[JsonValue] = [
    {"a": 1, "accepted": True},
    {"a": 2, "accepted": True},
    {"a": 1},
    {"accepted": "true"},
    None,
    "text",
    [],
]
_BODIES: list[JsonValue] = [
    {"accepted": True},
    {"valid": True, "n": 1, "ok": True},
    {"valid": True, "n": 2},
    {"valid": False, "message": "no"},
    {"valid": "false"},
    None,
    [1],
]
_ANSWERS = [Behaviour(Kind.ANSWER, body=body) for body in _BODIES]
_FAULTS = [
    *(Behaviour(Kind.STATUS, status=status) for status in (302, 400, 401, 404, 408, 409, 422)),
    Behaviour(Kind.STATUS, status=429, retry_after=1),
    *(
        Behaviour(Kind.STATUS, status=500 + n, acts=acts)
        for n in (0, 1, 3)
        for acts in (False, True)
    ),
    *(Behaviour(kind, acts=acts) for kind in (Kind.TIMEOUT, Kind.CUT) for acts in (False, True)),
    Behaviour(Kind.GARBAGE, acts=True),
]
_NO_LINE = Behaviour(Kind.NO_LINE)
_QUESTION = [None, None, None, Behaviour(Kind.STATUS, status=503), Behaviour(Kind.TIMEOUT)]
_KEY_CHOICES = [None] * 6 + ["k1", "k2", "k3"]
_KINDS = (
    *(["go"] * 24),
    *(["again"] * 6),
    *(["back"] * 5),
    *(["past"] * 5),
    *(["any"] * 2),
    *(["complete"] * 4),
    *("cancel", "lose", "stranger", "unknown"),
)


@dataclass(frozen=True, repr=False)
class Operation(Brief):
    """One thing that a phone does; which fields count depends on its kind."""

    kind: str
    value: JsonValue = None
    key: str | None = None
    plan: tuple[Behaviour, ...] = ()
    question: Behaviour | None = None
    index: int = 0
    timing: str = AFTER


def operations(*, is_fast: bool) -> st.SearchStrategy[Operation]:
    """Mostly the sensible next call; else anything. Some plans are more than an operation needs."""
    faults = [*_FAULTS, _NO_LINE] if is_fast else _FAULTS
    plans = _pool(lambda chance: (_plan(chance, faults), chance.choice(_QUESTION)))
    return st.builds(
        lambda operation, played: replace(operation, plan=played[0], question=played[1]),
        _pool(_operation),
        plans,
    )


def _operation(chance: Random) -> Operation:
    kind = chance.choice(_KINDS)
    if kind in ("lose", "unknown"):
        return Operation(kind)
    key = chance.choice(_KEY_CHOICES)
    if kind in ("cancel", "stranger"):
        return Operation(kind, key=key, index=chance.randint(0, 2))
    if kind in ("complete", "again"):
        return Operation(kind, key=key)
    value = (
        _VALUES[0] if kind in ("go", "past") and chance.random() < 0.65 else chance.choice(_VALUES)
    )
    if kind == "go":
        return Operation(kind, value, key)
    index, timing = chance.randint(0, MAX_STEPS - 1), chance.choice([AFTER, BEFORE])
    return Operation(kind, value, key, index=index, timing=timing)


def _plan(chance: Random, faults: Sequence[Behaviour]) -> tuple[Behaviour, ...]:
    """Half of the calls succeed; the others meet faults, one after the other."""
    luck = chance.random()
    if luck < 0.25:
        return ()
    if luck < 0.5:
        return (chance.choice(_ANSWERS),)
    return (*(chance.choice(faults) for _ in range(chance.randint(1, 3))), chance.choice(_ANSWERS))


# --- one walk -------------------------------------------------------------------------------------


@dataclass
class Stage:
    """Where walks take place, and how many there were."""

    partner: PlayedPartner
    world: Surroundings
    publish: Callable[[FlowPlan], CompiledWorkflow]
    is_rolled_back: bool
    walks: int = 0
    operations: int = 0
    answered: Counter[str] = field(default_factory=Counter)


class Walk(RuleBasedStateMachine):
    """The engine and the model, side by side."""

    stage: ClassVar[Stage]

    def __init__(self) -> None:
        super().__init__()
        self.stage.walks += 1
        self.stage.partner.reset()
        self.transaction = transaction.atomic() if self.stage.is_rolled_back else None
        if self.transaction is not None:
            self.transaction.__enter__()
        self.last: Operation | None = None
        self.keys: dict[Key, str] = {}
        self.effects: dict[Key, JsonValue] = {}
        self.noes: Counter[tuple[str, int, str]] = Counter()

    def teardown(self) -> None:
        if self.transaction is not None:
            transaction.set_rollback(True)
            self.transaction.__exit__(None, None, None)

    def begin(self, flow: FlowPlan) -> None:
        self.flow = flow
        self.compiled = self.stage.publish(flow)
        self.start()

    def start(self) -> None:
        """A new execution; its key may be used again."""
        self.key = uuid4().hex
        self.row = self.started(self.flow.initial)
        self.model = Model(self.flow, str(self.row.id))
        self.last = None

    def started(self, initial: JsonObject) -> WorkflowExecution:
        return executor.start_execution(
            self.compiled.workflow_id,
            user_id="alice",
            scopes=frozenset(),
            page_id="home",
            initial_context=initial,
            idempotency_key=self.key,
            now=timezone.now(),
        )

    def operate(self, operation: Operation) -> None:
        self.stage.operations += 1
        self.model.seen = []
        self.stage.partner.plan(str(self.row.id), [])
        if operation.kind in ("go", "back") and not self.model.is_live:
            self.start()
        else:
            {
                "go": self._go,
                "again": self._again,
                "back": self._back,
                "past": self._past,
                "any": self.step,
                "complete": self._complete,
                "cancel": self._cancel,
                "lose": self._lose_session,
                "stranger": self._stranger,
                "unknown": self._unknown_step,
            }[operation.kind](operation)
        self.compare()

    def _go(self, operation: Operation) -> None:
        """The call that the next step waits for; the completion when there is none."""
        index = self.model.next_step
        if index is None:
            self._complete(operation)
            return
        timings = self.flow.steps[index].timings
        slots = [self.model.slots[index, timing] for timing in timings]
        timing = next((t for t, s in zip(timings, slots, strict=True) if s.answer is None), AFTER)
        self.step(replace(operation, index=index, timing=timing))

    def _back(self, operation: Operation) -> None:
        """The step at the position, or one or two before it."""
        self.step(replace(operation, index=max(0, self.model.position - operation.index % 3)))

    def _past(self, operation: Operation) -> None:
        """The step after the next one."""
        self.step(replace(operation, index=(self.model.next_step or 0) + 1))

    def _lose_session(self, operation: Operation) -> None:
        del operation
        get_session_store().clear_session(self.row.session_id)
        self.model.is_session_lost = True

    def _unknown_step(self, operation: Operation) -> None:
        said = self.model.execute(None, AFTER, None)
        self.check(said, lambda: self._execute(str(uuid4()), Operation(operation.kind)))

    def step(self, operation: Operation) -> None:
        self.last = operation
        index = operation.index % len(self.flow.steps)
        said = self.model.execute(
            index,
            operation.timing,
            operation.value,
            key=operation.key,
            plan=operation.plan,
            question=operation.question,
        )
        step_id = self.compiled.steps[index].id
        self.check(said, lambda: self._execute(step_id, operation))

    def _again(self, operation: Operation) -> None:
        """The last step call once more, under its own key or another one."""
        if self.last is None:
            assert self.started(self.flow.initial).id == self.row.id
            with pytest.raises(ExecutionError, match="idempotencyKey"):
                self.started({"flag": 3})
            return
        last = self.last
        key = last.key or operation.key
        self.step(replace(last, key=key, plan=operation.plan, question=operation.question))

    def _execute(
        self, step_id: str, operation: Operation, user_id: str = "alice"
    ) -> StepAnswer | str:
        return executor.execute_step(
            self.row.id,
            step_id=step_id,
            timing=TriggerTiming(operation.timing),
            value=operation.value,
            user_id=user_id,
            idempotency_key=operation.key,
            now=timezone.now(),
            world=self.stage.world,
        )

    def _complete(self, operation: Operation, user_id: str = "alice") -> None:
        said = self.model.complete(user=user_id, key=operation.key, plan=operation.plan)
        self.check(
            said,
            lambda: executor.complete_execution(
                self.row.id,
                user_id=user_id,
                idempotency_key=operation.key,
                now=timezone.now(),
                world=self.stage.world,
            ),
        )

    def _cancel(self, operation: Operation, user_id: str = "alice") -> None:
        reason = f"reason {operation.index}"
        said = self.model.cancel(reason, user=user_id, key=operation.key)
        self.check(
            said,
            lambda: executor.cancel_execution(
                self.row.id,
                user_id=user_id,
                reason=reason,
                idempotency_key=operation.key,
                now=timezone.now(),
            ),
        )

    def _stranger(self, operation: Operation) -> None:
        match operation.index:
            case 0:
                said = self.model.execute(0, AFTER, None, user="bob", key=operation.key)
                step_id = self.compiled.steps[0].id
                self.check(said, lambda: self._execute(step_id, operation, "bob"))
            case 1:
                self._complete(operation, "bob")
            case _:
                self._cancel(operation, "bob")

    # --- comparing --------------------------------------------------------------------------------

    def check(
        self, said: Said | Raised | None, act: Callable[[], StepAnswer | WorkflowExecution | str]
    ) -> None:
        """Act, and compare what came of it with what the model says."""
        self.stage.partner.plan(str(self.row.id), self.model.seen)
        if isinstance(said, Raised):
            with pytest.raises(ExecutionError) as raised:
                act()
            assert raised.value.code == said.code
            return
        answer = act()
        if not isinstance(answer, StepAnswer):
            assert said is None
            return
        self.stage.answered[answer.error_code or "success"] += 1
        if answer.error_code == "VALIDATION_REJECTED" and self.model.seen:
            self.noes[self.model.seen[-1].key[:3]] += 1
        assert said == Said(
            success=answer.success,
            should_proceed=answer.should_proceed,
            result=answer.result,
            code=answer.error_code,
            retryable=answer.retryable,
            retry_after_ms=answer.retry_after_ms,
        )
        standing = answer.standing
        shown = None if standing is None else standing.next_step
        assert self.model.next_step == (None if shown is None else shown.index)

    def compare(self) -> None:
        self._compare_record()
        self._compare_calls()
        self._compare_effects()

    def _compare_record(self) -> None:
        model = self.model
        *record, sequence, lease_holder = WorkflowExecution.objects.values_list(
            "status", "position", "error_code", "sequence", "lease_holder"
        ).get(pk=self.row.id)
        assert record == [model.status, model.position, model.error_code]
        assert lease_holder is None
        if not model.is_live or model.is_session_lost:
            return
        standing = find_standing(self.row.id)
        assert standing is not None
        assert dict(standing.context) == model.context
        assert (standing.sequence, standing.progress.position) == (sequence, model.position)
        view = ExecutionView(self.row, is_staff=False, is_owner=True, standing=standing)
        assert view.context == model.shown_context
        current = view.current_step
        assert (None if current is None else current.index) == model.next_step

    def _compare_calls(self) -> None:
        seen, asked = self.model.seen, self.stage.partner.asked()
        assert len(asked) == len(seen)
        for expected, call in zip(seen, asked, strict=True):
            assert self.keys.setdefault(expected.key, call.key) == call.key
            if expected.is_question:
                assert call.path == STATUS_PATH + call.key
                continue
            assert call.path == path_of(str(self.row.id), expected.key[1])
            if isinstance(call.body, dict):
                call.body.pop("execution", None)
            is_unread = expected.behaviour.kind is Kind.CUT and not expected.behaviour.acts
            assert call.body == expected.body or (is_unread and call.body is None)
        assert len(set(self.keys.values())) == len(self.keys)

    def _compare_effects(self) -> None:
        self.effects |= self.model.effects
        effects = self.stage.partner.effects(len(self.effects))
        assert effects == {self.keys[key]: body for key, body in self.effects.items()}
        self._check_nothing_was_paid_twice(effects)

    def _check_nothing_was_paid_twice(self, effects: Mapping[str, JsonValue]) -> None:
        """One submission; of what cannot be undone one effect, and one for each "no" besides."""
        done = Counter(key[:3] for key, sent in self.keys.items() if sent in effects)
        submitted = done.pop((str(self.row.id), -1, ""), 0)
        assert submitted <= 1
        if self.model.status == "COMPLETED" and self.flow.final is not None:
            assert submitted == 1
        for slot, count in done.items():
            assert not self.flow.steps[slot[1]].is_final or count <= 1 + self.noes[slot]


# --- the walks ------------------------------------------------------------------------------------


def _walks(stage: Stage, *, count: int, number: int, is_fast: bool) -> None:
    """That many walks of OPERATIONS operations; the same ones for the same number."""
    on_stage = stage

    @seed(number)
    class _Walk(Walk):
        stage = on_stage

        @initialize(flow=flows(is_fast=is_fast))
        def begins(self, flow: FlowPlan) -> None:
            self.begin(flow)

        @rule(operation=operations(is_fast=is_fast))
        def does(self, operation: Operation) -> None:
            self.operate(operation)

    run_state_machine_as_test(
        _Walk,
        settings=settings(
            max_examples=count,
            stateful_step_count=OPERATIONS + 1,  # the first one begins
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
        ),
    )
    assert stage.walks >= count
    # Hypothesis ends a walk early once in 65,536 operations, and one that took it too many draws:
    # among a hundred walks, of which a version of it makes its own, one in twenty.
    assert stage.operations >= 0.9 * OPERATIONS * count
    # A hundred walks come across nearly all of these, or they are not what they should be.
    missed = _ANSWERS_OF_A_STEP - stage.answered.keys()
    assert count < 100 or len(missed) <= 3, missed


_ANSWERS_OF_A_STEP = frozenset(
    {"success", "STEP_OUT_OF_ORDER", "STEP_LOCKED", "STEP_UNKNOWN", "TIMING_NOT_CONFIGURED"}
    | {"INPUT_INVALID", "NOT_ACCEPTED", "VALIDATION_REJECTED", "TRIGGER_REJECTED"}
    | {"TRIGGER_UNAVAILABLE", "TRIGGER_TIMEOUT", "TRIGGER_BAD_RESPONSE", "MAPPING_INCOMPLETE"}
    | {"STEPS_INCOMPLETE", "SUBMISSION_FAILED", "EXECUTION_ENDED", "SESSION_EXPIRED"}
    | {"IDEMPOTENCY_CONFLICT"}
)


def _put_live(flow: FlowPlan) -> CompiledWorkflow:
    """The document as a live version; what publishing checks besides is not what is tested here."""
    workflow = Workflow.objects.create(name="Walk")
    version = WorkflowVersion.objects.create(
        workflow=workflow,
        number=1,
        name=workflow.name,
        published_at=timezone.now(),
        document=flow.document,
        step_ids=[str(new_id()) for _ in flow.steps],
    )
    Workflow.objects.filter(pk=workflow.pk).update(live_version=version)
    return compiled_version(version.id)


@pytest.fixture
def memory_stage(db: None, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Sessions and partner in memory, the records in one transaction."""
    settings.TRIGGER_BASE_URL = "http://partner.test"
    forget_connections()
    store = MemorySessionStore()
    monkeypatch.setattr(session_store, "_session_store", lambda _url: store)
    partner = MemoryPartner()
    world = Surroundings(
        client=partner,
        caps=ConnectionCaps(4),
        clock=lambda: partner.clock_ms,
        now=lambda: datetime.now(UTC),
        sleep=partner.sleep,
        jitter=lambda: 1.0,
        new_span_id=lambda: "0" * 16,
    )
    yield Stage(partner, world, _put_live, is_rolled_back=True)
    forget_connections()


@pytest.mark.timeout(900)  # a deviation takes long to shrink
@pytest.mark.parametrize("part", range(FAST_PARTS))
def test_engine_does_what_the_model_says(part: int, memory_stage: Stage) -> None:
    _walks(memory_stage, count=FAST_WALKS // FAST_PARTS, number=part, is_fast=True)


@pytest.mark.timeout(900)
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("part", range(SERVER_PARTS))
def test_engine_on_real_servers_does_what_the_model_says(part: int, partner: FakePartner) -> None:
    if connection.vendor != "postgresql" or not django_settings.REDIS_URL:
        pytest.skip("walks over PostgreSQL and Redis, which this pass does not have")
    world = Surroundings(
        client=HttpClient(pool_size=4),
        caps=ConnectionCaps(4),
        clock=lambda: time.monotonic() * 1000,
        now=lambda: datetime.now(UTC),
        sleep=lambda _seconds: None,
        jitter=lambda: 1.0,
        new_span_id=lambda: "0" * 16,
    )
    stage = Stage(
        HttpPartner(partner), world, lambda flow: published(flow.document), is_rolled_back=False
    )
    _walks(stage, count=SERVER_WALKS // SERVER_PARTS, number=part, is_fast=False)
