"""A simple model of running a flow: what one execution ought to do, over plain dictionaries.

Written from the specification's words and not from the engine; nothing of the engine is imported.
A *slot* is one timing of one step. `Model` is told every operation and every way the partner is
going to behave, and says what the app is answered and what the partner must have seen. Where the
specification leaves room, the reading that the product settled on is marked with "reading:".
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeAlias

from config.jsonvalues import JsonObject, JsonValue

BEFORE, AFTER = "BEFORE_STEP", "AFTER_STEP"
BUDGET_MS = 60_000
DONE_UNSEEN: JsonObject = {"accepted": True}
"""What the partner records for an effect whose answer nobody got to see."""


class Brief:
    """A dataclass that shows only what is not the default: walks are long to read anyway."""

    def __repr__(self) -> str:
        shown = [
            f"{part.name}={value!r}"
            for part in fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
            if (value := getattr(self, part.name)) != part.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """The same for Hypothesis."""
        printer.text(repr(self))


# --- what an operator wrote -----------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Condition(Brief):
    """A dotted path, or its comparison with a literal: as an expression and as a value."""

    path: tuple[str, ...]
    equals: JsonValue = None

    @property
    def text(self) -> str:
        path = ".".join(self.path)
        return path if self.equals is None else f"{path} == `{json.dumps(self.equals)}`"

    def value(self, scope: JsonObject) -> JsonValue:
        found: JsonValue = scope
        for name in self.path:
            found = found.get(name) if isinstance(found, dict) else None
        if self.equals is None:
            return found
        return found == self.equals and type(found) is type(self.equals)  # true is not 1


@dataclass(frozen=True, repr=False)
class Source(Brief):
    """A mapping with one field, `v`."""

    path: tuple[str, ...]
    has_default: bool

    @property
    def mapping(self) -> JsonObject:
        text = ".".join(self.path)
        return {"v": {"$from": text, "$default": 0} if self.has_default else text}

    def apply(self, scope: JsonObject) -> JsonObject | None:
        """The payload; None when it is incomplete."""
        value = Condition(self.path).value(scope)
        if value is not None:
            return {"v": value}
        return {"v": 0} if self.has_default else None


@dataclass(frozen=True, repr=False)
class CallPlan(Brief):
    """How a call is made; without a `mapping` the default body is sent."""

    mapping: Source | None = None
    max_retries: int = 0
    timeout_ms: int = 1_000
    max_delay_ms: int = 500


@dataclass(frozen=True, repr=False)
class StepPlan(Brief):
    """One step. `call` is there for server modes only; `asks_status` gives it a `status`."""

    index: int
    type: str
    call: CallPlan | None = None
    is_validation: bool = False
    timing: str = AFTER
    optional: bool = False
    reversible: bool | None = None
    private: bool = False
    has_schema: bool = False
    when: Condition | None = None
    proceed_when: Condition | None = None
    asks_status: bool = False
    expect: Condition | None = None

    @property
    def key(self) -> str:
        return f"d{self.index}"

    @property
    def stores_input(self) -> bool:
        return self.type in ("FORM", "CONFIRMATION") or self.call is None

    @property
    def result_key(self) -> str:
        return f"{self.key}Result" if self.stores_input else self.key

    @property
    def calls_at(self) -> tuple[str, ...]:
        if self.call is None:
            return ()
        return (BEFORE, AFTER) if self.timing == "BOTH" else (self.timing,)

    @property
    def timings(self) -> tuple[str, ...]:
        """FORM and CONFIRMATION collect input: they are passed by AFTER_STEP."""
        if self.call is None:
            return (AFTER,)
        collects = self.type in ("FORM", "CONFIRMATION")
        return (BEFORE, AFTER) if collects and self.timing == BEFORE else self.calls_at

    @property
    def is_final(self) -> bool:
        """Whether it cannot be undone."""
        return not (self.type != "API_CALL" if self.reversible is None else self.reversible)

    @property
    def may_be_gone_past(self) -> bool:
        return self.optional or self.type == "INFO"

    @property
    def document(self) -> JsonObject:
        config: JsonObject = {"dataKey": self.key, "optional": self.optional}
        config["private"] = self.private
        if self.reversible is not None:
            config["reversible"] = self.reversible
        if self.has_schema:
            properties: JsonObject = {"a": {"type": "integer"}}
            config["inputSchema"] = {
                "type": "object",
                "required": ["a"],
                "properties": properties,
            }
        if self.when is not None:
            config["when"] = self.when.text
        if self.proceed_when is not None:
            config["proceedWhen"] = self.proceed_when.text
        step: JsonObject = {"type": self.type, "label": f"Step {self.index}", "order": self.index}
        if self.call is not None:
            step |= {
                "executionMode": "SERVER_VALIDATION" if self.is_validation else "SERVER_SYNC",
                "triggerTiming": self.timing,
                "triggerEndpoint": f"/api/anything/${{execution.id}}/{self.key}",
                **_call_document(self.call),
            }
            if self.call.mapping is not None:
                config["requestMapping"] = self.call.mapping.mapping
            if self.asks_status:
                status: JsonObject = {"endpoint": "/api/effects/${execution.idempotencyKey}"}
                if self.expect is not None:
                    status["expect"] = self.expect.text
                config["status"] = status
        return {**step, "config": config}


@dataclass(frozen=True, repr=False)
class FlowPlan(Brief):
    """A workflow, with what it is started with."""

    steps: tuple[StepPlan, ...]
    initial: JsonObject = field(default_factory=dict)
    api_mapping: Source | None = None
    final: CallPlan | None = None

    @property
    def document(self) -> JsonObject:
        config: JsonObject = {}
        if self.api_mapping is not None:
            config["apiMapping"] = self.api_mapping.mapping
        if self.final is not None:
            endpoint = "/api/anything/${execution.id}/final"
            config["finalApi"] = {"endpoint": endpoint, **_call_document(self.final)}
        steps: list[JsonValue] = [step.document for step in self.steps]
        return {"name": "Walk", "config": config, "steps": steps}


def _call_document(call: CallPlan) -> JsonObject:
    return {
        "timeoutMs": call.timeout_ms,
        "retryConfig": {
            "maxRetries": call.max_retries,
            "initialDelayMs": 100,
            "backoffMultiplier": 2,
            "maxDelayMs": call.max_delay_ms,
        },
    }


# --- the partner ----------------------------------------------------------------------------------


class Kind(StrEnum):
    """What one HTTP call comes to."""

    ANSWER = "ANSWER"
    STATUS = "STATUS"
    TIMEOUT = "TIMEOUT"
    CUT = "CUT"
    NO_LINE = "NO_LINE"
    GARBAGE = "GARBAGE"


@dataclass(frozen=True, repr=False)
class Behaviour(Brief):
    """How the partner takes one call; `acts`: the effect happens although nobody hears of it.

    It is honest: what was done under a key is answered again, not refused; but it may be busy with
    it (409), overloaded or broken at any time.
    """

    kind: Kind
    status: int = 200
    body: JsonValue = None
    acts: bool = False
    retry_after: int | None = None


Slot: TypeAlias = "tuple[int, str]"
Key: TypeAlias = "tuple[str, int, str, int]"
"""Execution, step index (-1: the submission), timing, visit: what an Idempotency-Key stands for."""

_BUSY = frozenset({408, 409, 425, 429})
_TELLING = frozenset({400, 402, 410, 422})  # reading: other refusals say nothing of a call before
_NOT_ACTED_ON = frozenset({408, 425, 429})
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_NO_OF_A_VALIDATION = frozenset({400, 404, 409, 422})
_TRY_LATER = frozenset({"TRIGGER_UNAVAILABLE", "TRIGGER_TIMEOUT", "TRIGGER_BAD_RESPONSE"})


@dataclass(frozen=True)
class Seen:
    """One call that the partner must have got. `is_replay`: its key had its effect before."""

    key: Key
    behaviour: Behaviour
    is_question: bool = False
    body: JsonValue = None
    is_replay: bool = False


class Known(StrEnum):
    """What is known of the effect after a call."""

    DONE = "DONE"
    REFUSED = "REFUSED"
    NOT_SENT = "NOT_SENT"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Heard:
    """What one call, or several attempts of it, came to."""

    known: Known
    code: str | None = None
    status: int | None = None
    body: JsonValue = None
    is_retried: bool = False
    retry_after_ms: int | None = None

    @property
    def retryable(self) -> bool:
        return self.known is Known.UNKNOWN or self.is_retried or self.code in _TRY_LATER


# --- the execution --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What the app is answered."""

    success: bool
    should_proceed: bool
    result: JsonValue = None
    code: str | None = None
    retryable: bool = False
    retry_after_ms: int | None = None


@dataclass(frozen=True)
class Raised:
    """A GraphQL error, by its code."""

    code: str


@dataclass(frozen=True)
class Doubt:
    """A request whose outcome nobody knows."""

    input: JsonValue
    body: JsonValue


@dataclass
class SlotState:
    """What happened at one timing of a step in its present visit."""

    visit: int = 0
    answer: Said | None = None
    said_no: bool = False
    doubt: Doubt | None = None

    @property
    def is_touched(self) -> bool:
        return self.answer is not None or self.said_no or self.doubt is not None

    def reopen(self) -> None:
        """Going back: whatever stood here is worth nothing, and the next call is another one."""
        self.visit += 1
        self.answer, self.said_no, self.doubt = None, False, None


def _yes(result: JsonValue = None) -> Said:
    return Said(success=True, should_proceed=True, result=result)


def _no(code: str, result: JsonValue = None) -> Said:
    return Said(success=True, should_proceed=False, result=result, code=code)


def _refusal(code: str) -> Said:
    return Said(success=False, should_proceed=False, code=code)


class Model:
    """One execution: its status, position, context, slots and recorded answers."""

    def __init__(self, flow: FlowPlan, name: str) -> None:
        self.flow = flow
        self.name = name
        self.status = "PENDING"
        self.error_code = ""
        self.position = 0
        self.context: JsonObject = {**flow.initial, "userId": "alice"}
        self.is_session_lost = False
        self.slots = {
            (step.index, timing): SlotState() for step in flow.steps for timing in step.timings
        }
        self.recorded: dict[str, tuple[JsonValue, Said | None]] = {}
        self.completion: Said | None = None
        self.submission_visit = 0
        self.is_submission_in_doubt = False
        self.kept_payload: JsonValue = None
        self.seen: list[Seen] = []
        self.effects: dict[Key, JsonValue] = {}
        self._plan: Iterator[Behaviour] = iter(())
        self._question: Behaviour | None = None
        self._elapsed_ms = 0

    # --- what an observer sees --------------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        return self.status in ("PENDING", "IN_PROGRESS")

    @property
    def next_step(self) -> int | None:
        """The first step that is neither passed nor skipped."""
        if not self.is_live or self.is_session_lost:
            return None
        rest = self.flow.steps[self.position :]
        return next((step.index for step in rest if not self._is_skipped(step)), None)

    @property
    def shown_context(self) -> JsonObject:
        """What the app sees: nothing of private steps."""
        private = [step for step in self.flow.steps if step.private]
        hidden = {key for step in private for key in (step.key, step.result_key)}
        return {key: value for key, value in self.context.items() if key not in hidden}

    # --- the operations ---------------------------------------------------------------------------

    def execute(
        self,
        index: int | None,
        timing: str,
        value: JsonValue,
        *,
        user: str = "alice",
        key: str | None = None,
        plan: Sequence[Behaviour] = (),
        question: Behaviour | None = None,
    ) -> Said | Raised:
        """`executeWorkflowStep`; an index of None is a step that the workflow does not have."""
        self._expect_calls(plan, question)
        if user != "alice":
            return Raised("NOT_FOUND")
        arguments: JsonValue = ["step", index, timing, value]
        repeated = self._repeated(key, arguments)
        if repeated is not None:
            return repeated
        if not self._is_at_work():
            return self._ended()
        if index is None:
            return _refusal("STEP_UNKNOWN")
        step = self.flow.steps[index]
        slot = self.slots.get((index, timing))
        if slot is None:
            return _refusal("TIMING_NOT_CONFIGURED")
        if step.is_final and slot.answer is not None:
            return slot.answer
        refused = self._refused(step, timing, slot, value)
        if refused is not None:
            return _refusal(refused)
        said, is_definite = self._run(step, timing, slot, value)
        if key is not None and is_definite:
            self.recorded[key] = (arguments, said)
        return said

    def complete(
        self, *, user: str = "alice", key: str | None = None, plan: Sequence[Behaviour] = ()
    ) -> Said | Raised:
        """`completeWorkflowExecution`."""
        self._expect_calls(plan, None)
        if user != "alice":
            return Raised("NOT_FOUND")
        repeated = self._repeated(key, ["complete"])
        if repeated is not None:
            return repeated
        if self.completion is not None:
            return self.completion
        said = self._complete()
        if self.completion is not None and key is not None:
            self.recorded[key] = (["complete"], said)
        return said

    def cancel(self, reason: str, *, user: str = "alice", key: str | None = None) -> Raised | None:
        """`cancelWorkflowExecution`; None: the execution, cancelled."""
        if user != "alice":
            return Raised("NOT_FOUND")
        if self._is_conflict(key, ["cancel", reason]):
            return Raised("IDEMPOTENCY_CONFLICT")
        if self.status == "CANCELLED":
            return None
        if not self._is_at_work():
            return Raised("EXECUTION_ENDED")
        self.status = "CANCELLED"
        if key is not None:
            self.recorded[key] = (["cancel", reason], None)
        return None

    # --- keys and the end -------------------------------------------------------------------------

    def _is_conflict(self, key: str | None, arguments: JsonValue) -> bool:
        return key is not None and self.recorded.get(key, (arguments,))[0] != arguments

    def _repeated(self, key: str | None, arguments: JsonValue) -> Said | None:
        """The same key with the same arguments gets the first answer, with others a conflict."""
        if self._is_conflict(key, arguments):
            return _refusal("IDEMPOTENCY_CONFLICT")
        return None if key is None or key not in self.recorded else self.recorded[key][1]

    def _is_at_work(self) -> bool:
        """A session that is gone ends the execution at the next call."""
        if self.is_live and self.is_session_lost:
            self.status, self.error_code = "FAILED", "SESSION_EXPIRED"
        return self.is_live

    def _ended(self) -> Said:
        is_expired = self.error_code == "SESSION_EXPIRED"
        return _refusal("SESSION_EXPIRED" if is_expired else "EXECUTION_ENDED")

    # --- may this step be run? --------------------------------------------------------------------

    def _refused(
        self, step: StepPlan, timing: str, slot: SlotState, value: JsonValue
    ) -> str | None:
        """Why the call is not accepted; reading: the first of these reasons is told."""
        if any(self._is_sent(later) for later in self.flow.steps[step.index + 1 :]):
            return "STEP_LOCKED"
        if not self._is_reachable(step):
            return "STEP_OUT_OF_ORDER"
        if timing == AFTER and BEFORE in step.timings:
            is_back = step.index < self.position
            if is_back or self.slots[step.index, BEFORE].answer is None:
                return "STEP_OUT_OF_ORDER"
        if timing == step.timings[-1] and not _fits(step, value):
            return "INPUT_INVALID"
        # reading: another input is no repeat of what may have happened and cannot be undone
        if step.is_final and slot.doubt is not None and slot.doubt.input != value:
            return "STEP_LOCKED"
        return None

    def _is_sent(self, step: StepPlan) -> bool:
        """Whether it cannot be undone and has happened, or may have."""
        slots = [self.slots[step.index, timing] for timing in step.timings]
        return step.is_final and any(s.answer is not None or s.doubt is not None for s in slots)

    def _is_reachable(self, step: StepPlan) -> bool:
        between = self.flow.steps[self.position : step.index]
        return not self._is_skipped(step) and all(map(self._may_go_past, between))

    def _may_go_past(self, step: StepPlan) -> bool:
        """Nothing skips a validation that said no, nor (reading) a payment that may be made."""
        if self._is_skipped(step):
            return True
        slots = [self.slots[step.index, timing] for timing in step.timings]
        said_no = any(slot.said_no for slot in slots)
        in_doubt = step.is_final and any(slot.doubt is not None for slot in slots)
        return step.may_be_gone_past and not said_no and not in_doubt

    def _is_skipped(self, step: StepPlan) -> bool:
        if step.when is None:
            return False
        value = step.when.value(self.context)
        return value is None or value is False or value in ("", [], {})

    # --- running it -------------------------------------------------------------------------------

    def _run(
        self, step: StepPlan, timing: str, slot: SlotState, value: JsonValue
    ) -> tuple[Said, bool]:
        """The answer to an accepted call, and whether it is the answer to every repeat."""
        self.status = "IN_PROGRESS"
        self._go_back(step, timing, slot, value)
        is_last = timing == step.timings[-1]
        stored: JsonObject = {}
        if is_last and step.stores_input and value is not None:
            stored = {step.key: value}
        scope = {**self.context, **stored}
        if timing not in step.calls_at or (is_last and _declines(step, value)):
            said = self._without_partner(step, value, scope)
            self.context |= stored
            slot.doubt = None
        else:
            heard = self._call_of_step(step, timing, slot, value, scope)
            if heard is None:
                return _refusal("MAPPING_INCOMPLETE"), False
            said = self._judged(step, heard, value, scope)
            if heard.known in (Known.NOT_SENT, Known.UNKNOWN):
                return said, False
            slot.doubt = None
            if said.should_proceed:
                self.context |= {**stored, step.result_key: heard.body}
        said = Said(**{**vars(said), "result": None}) if step.private else said
        if said.should_proceed:
            slot.answer, slot.said_no = said, False
            self.position = step.index + 1 if is_last else self.position
        else:
            slot.visit += 1
            slot.said_no = slot.said_no or said.success
        return said, True

    def _go_back(self, step: StepPlan, timing: str, slot: SlotState, value: JsonValue) -> None:
        """A call before others that were made opens those again, and their results go.

        reading: an earlier step that was gone past at first is "running an earlier step", too.
        """
        later = [s for (index, _), s in self.slots.items() if index > step.index]
        is_back = step.index < self.position or any(s.is_touched for s in later)
        if timing == step.timings[0]:
            self._drop_result(step)
        if is_back:
            slot.reopen()
            for after in later:
                after.reopen()
            for gone in self.flow.steps[step.index + 1 :]:
                self._drop_result(gone)
        if timing == BEFORE and (step.index, AFTER) in self.slots:
            own_after = self.slots[step.index, AFTER]
            if is_back:
                own_after.reopen()
            elif own_after.doubt is not None:
                own_after.doubt, own_after.visit = None, own_after.visit + 1
        if slot.answer is not None:
            slot.answer, slot.visit = None, slot.visit + 1
        self.position = min(self.position, step.index)

    def _drop_result(self, step: StepPlan) -> None:
        if step.call is not None:
            self.context.pop(step.result_key, None)

    def _without_partner(self, step: StepPlan, value: JsonValue, scope: JsonObject) -> Said:
        if _declines(step, value):
            return _no("NOT_ACCEPTED")
        if not self._proceeds(step, None, value, scope):
            return _no("VALIDATION_REJECTED")
        return _yes()

    def _proceeds(
        self, step: StepPlan, result: JsonValue, value: JsonValue, scope: JsonObject
    ) -> bool:
        if step.proceed_when is not None:
            names: JsonObject = {"result": result, "input": value, "context": scope}
            return step.proceed_when.value(names) is True
        if step.is_validation and isinstance(result, dict) and "valid" in result:
            return result["valid"] is True
        return True

    def _judged(self, step: StepPlan, heard: Heard, value: JsonValue, scope: JsonObject) -> Said:
        if heard.known is Known.DONE:
            if self._proceeds(step, heard.body, value, scope):
                return _yes(heard.body)
            return _no("VALIDATION_REJECTED", heard.body)
        is_no = step.is_validation and heard.status in _NO_OF_A_VALIDATION
        if heard.known is Known.REFUSED and is_no:
            return _no("VALIDATION_REJECTED")
        return Said(
            success=False,
            should_proceed=False,
            code=heard.code,
            retryable=heard.retryable,
            retry_after_ms=heard.retry_after_ms,
        )

    # --- calling the partner ----------------------------------------------------------------------

    def _expect_calls(self, plan: Sequence[Behaviour], question: Behaviour | None) -> None:
        self.seen = []
        self._plan = iter(plan)
        self._question = question
        self._elapsed_ms = 0

    def _call_of_step(
        self, step: StepPlan, timing: str, slot: SlotState, value: JsonValue, scope: JsonObject
    ) -> Heard | None:
        """What is heard, None when the request cannot be composed. Keeps the doubt, if any."""
        assert step.call is not None
        is_repeat = slot.doubt is not None and slot.doubt.input == value
        if is_repeat and slot.doubt is not None:
            body = slot.doubt.body
        else:
            composed = _step_body(step.call, value, scope)
            if composed is None:
                return None
            body = composed
            if slot.doubt is not None:  # reading: another request needs another key
                slot.doubt, slot.visit = None, slot.visit + 1
        key = (self.name, step.index, timing, slot.visit)
        heard = self._ask(step, key) if is_repeat and step.asks_status else None
        if heard is None:
            heard = self._call(
                key, step.call, body, was_unknown=is_repeat, is_guarded=step.is_final
            )
        if heard.known is Known.UNKNOWN:
            slot.doubt = Doubt(value, body)
        return heard

    def _ask(self, step: StepPlan, key: Key) -> Heard | None:
        """The status endpoint's word on a doubt; None when nothing has happened."""
        assert step.call is not None
        if self._question is not None:
            self.seen.append(Seen(key, self._question, is_question=True))
            if self._question.kind is Kind.TIMEOUT:
                self._elapsed_ms += step.call.timeout_ms
            return Heard(Known.UNKNOWN, "TRIGGER_UNAVAILABLE")
        self.seen.append(Seen(key, Behaviour(Kind.ANSWER), is_question=True))
        if key not in self.effects:
            return None
        recorded = told_of(self.effects[key])
        names: JsonObject = {"result": recorded}
        is_expected = step.expect is None or step.expect.value(names) is True
        return Heard(Known.DONE, body=recorded) if is_expected else None

    def _call(
        self, key: Key, call: CallPlan, body: JsonValue, *, was_unknown: bool, is_guarded: bool
    ) -> Heard:
        """All attempts of a call, within the policy and the budget."""
        known = Known.UNKNOWN if was_unknown else Known.NOT_SENT
        for number in range(1, call.max_retries + 2):
            behaviour = next(self._plan, Behaviour(Kind.ANSWER, body=DONE_UNSEEN))
            heard = self._attempt(key, behaviour, call, body)
            is_refusal = 400 <= (heard.status or 0) < 500
            tells_nothing = is_refusal and heard.status not in _TELLING
            is_busy = tells_nothing and is_guarded and known is Known.UNKNOWN
            if heard.known is not Known.NOT_SENT and not is_busy:
                known = heard.known
            delay_ms = max(min(100 * 2 ** (number - 1), call.max_delay_ms), 0)
            delay_ms = max(delay_ms, heard.retry_after_ms or 0)
            if (heard.retry_after_ms or 0) > call.max_delay_ms or not heard.is_retried:
                break
            if self._elapsed_ms + delay_ms + call.timeout_ms > BUDGET_MS:
                break
            if number <= call.max_retries:
                self._elapsed_ms += delay_ms
        code = heard.code
        if known is Known.UNKNOWN and code == "TRIGGER_REJECTED":
            code = "TRIGGER_UNAVAILABLE"  # reading: a refusal would say that nothing was done
        return Heard(known, code, heard.status, heard.body, heard.is_retried, heard.retry_after_ms)

    def _attempt(self, key: Key, behaviour: Behaviour, call: CallPlan, body: JsonValue) -> Heard:
        is_replay = key in self.effects
        self.seen.append(Seen(key, behaviour, body=body, is_replay=is_replay))
        status = behaviour.status
        match behaviour.kind:
            case Kind.ANSWER:
                return Heard(Known.DONE, status=200, body=self._effect(key, behaviour.body))
            case Kind.STATUS if 400 <= status < 500:
                if is_replay and status not in _BUSY:
                    return Heard(Known.DONE, status=200, body=self.effects[key])
                is_late = status in _NOT_ACTED_ON
                return Heard(
                    Known.NOT_SENT if is_late else Known.REFUSED,
                    "TRIGGER_UNAVAILABLE" if status == 429 else "TRIGGER_REJECTED",
                    status,
                    is_retried=is_late,
                    retry_after_ms=None
                    if behaviour.retry_after is None
                    else behaviour.retry_after * 1000,
                )
            case Kind.NO_LINE:
                return Heard(Known.NOT_SENT, "TRIGGER_UNAVAILABLE", is_retried=True)
        if behaviour.acts:
            self._effect(key, DONE_UNSEEN)
        match behaviour.kind:
            case Kind.TIMEOUT:
                self._elapsed_ms += call.timeout_ms
                return Heard(Known.UNKNOWN, "TRIGGER_TIMEOUT", is_retried=True)
            case Kind.CUT:
                return Heard(Known.UNKNOWN, "TRIGGER_UNAVAILABLE", is_retried=True)
            case Kind.STATUS if status >= 500:
                is_retried = status in _RETRIED
                return Heard(Known.UNKNOWN, "TRIGGER_UNAVAILABLE", status, is_retried=is_retried)
        return Heard(Known.UNKNOWN, "TRIGGER_BAD_RESPONSE", status)

    def _effect(self, key: Key, body: JsonValue) -> JsonValue:
        """One effect per key: a repeat gets the first answer."""
        return self.effects.setdefault(key, body)

    # --- completing -------------------------------------------------------------------------------

    def _complete(self) -> Said:
        flow = self.flow
        if self.error_code == "SUBMISSION_FAILED":
            return self._submit(self.kept_payload)
        if not self._is_at_work():
            return self._ended()
        if not all(map(self._may_go_past, flow.steps[self.position :])):
            return _refusal("STEPS_INCOMPLETE")
        payload: JsonValue = dict(self.context) if flow.final is not None else None
        if flow.api_mapping is not None:
            payload = flow.api_mapping.apply(self.context)
            if payload is None:
                return _refusal("MAPPING_INCOMPLETE")
        if flow.final is None:
            return self._completed(payload)
        return self._submit(payload)

    def _submit(self, payload: JsonValue) -> Said:
        """Submit, again after a failure: with the payload that was kept."""
        assert self.flow.final is not None
        heard = self._call(
            (self.name, -1, "", self.submission_visit),
            self.flow.final,
            payload,
            was_unknown=self.is_submission_in_doubt,
            is_guarded=True,
        )
        if heard.known is Known.DONE:
            self.error_code = ""
            return self._completed(heard.body)
        self.status, self.error_code = "FAILED", "SUBMISSION_FAILED"
        self.kept_payload = payload
        self.is_submission_in_doubt = heard.known is Known.UNKNOWN
        if heard.known is Known.REFUSED:
            self.submission_visit += 1
        return Said(
            success=False,
            should_proceed=False,
            code="SUBMISSION_FAILED",
            retryable=heard.retryable,
            retry_after_ms=heard.retry_after_ms,
        )

    def _completed(self, result: JsonValue) -> Said:
        self.status, self.position = "COMPLETED", len(self.flow.steps)
        self.completion = _yes(result)
        return self.completion


def told_of(recorded: JsonValue) -> JsonObject:
    """What the partner's status endpoint says of an effect."""
    return recorded if isinstance(recorded, dict) else {"answer": recorded}


def _fits(step: StepPlan, value: JsonValue) -> bool:
    if step.type == "FORM" and value is None:
        return False
    if not step.has_schema:
        return True
    return isinstance(value, dict) and isinstance(value.get("a"), int)


def _declines(step: StepPlan, value: JsonValue) -> bool:
    is_accepted = isinstance(value, dict) and value.get("accepted") is True
    return step.type == "CONFIRMATION" and not is_accepted


def _step_body(call: CallPlan, value: JsonValue, scope: JsonObject) -> JsonValue:
    """The request's body; None when a source has no value."""
    if call.mapping is None:
        return {"input": value, "context": scope}
    return call.mapping.apply({**scope, "input": value})
