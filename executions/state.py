"""Where an execution stands, and what may happen next. The rules of SPEC 5.1, and nothing else.

    PENDING ──first accepted step──> IN_PROGRESS ──complete──> COMPLETED
       │                                │   ^
       │                                │   └─ repeated complete ─┐
       ├──────────── cancel ────────────┼──> CANCELLED            │
       └────── expiry, submission ──────┴──> FAILED ──────────────┘

The *position* is the first step not yet passed or skipped. A *mark* is what is known of one timing
of a step that must not be forgotten: how often it was decided anew (its *visit*, which makes the
partner's Idempotency-Key) and whether it succeeded or has an unknown outcome. Position and marks are
the *progress*; it is kept in the session and can be folded again from the runs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from config.jsonvalues import JsonObject
from executions.enums import ErrorCode, RunStatus
from executions.errors import StepLocked, StepOutOfOrder, TimingNotConfigured
from workflows.enums import TriggerTiming

BEFORE = TriggerTiming.BEFORE_STEP
AFTER = TriggerTiming.AFTER_STEP

class Step(Protocol):
    """What the rules need to know of a step; `workflows.compiled.CompiledStep` is one."""

    @property
    def index(self) -> int: ...
    @property
    def timings(self) -> tuple[TriggerTiming, ...]: ...
    @property
    def is_server(self) -> bool: ...
    @property
    def may_be_passed_by(self) -> bool: ...
    @property
    def reversible(self) -> bool: ...
    @property
    def result_key(self) -> str: ...


IsSkipped = Callable[[int], bool]
"""Whether the `when` of the step at an index is false at the moment."""


class MarkStatus(StrEnum):
    """What is known of one timing of a step."""

    OPEN = "O"
    SUCCEEDED = "S"
    SAID_NO = "N"
    UNKNOWN = "U"


@dataclass(frozen=True, slots=True)
class Mark:
    """One timing of one step: `visit` counts the definite answers and goings-back so far."""

    visit: int = 0
    status: MarkStatus = MarkStatus.OPEN


_NO_MARK = Mark()


class Verdict(StrEnum):
    """What came of one accepted call of a step.

    STOP is a "no" (a validation's, a person's); REFUSED a partner's refusal of the request;
    NOT_SENT means that nobody acted on it; UNKNOWN that nobody knows.
    """

    PROCEED = "PROCEED"
    STOP = "STOP"
    REFUSED = "REFUSED"
    NOT_SENT = "NOT_SENT"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a person has come. A value: every change makes a new one."""

    position: int = 0
    marks: Mapping[tuple[int, TriggerTiming], Mark] = field(default_factory=dict)

    def mark(self, index: int, timing: TriggerTiming) -> Mark:
        """What is known of that timing of that step."""
        return self.marks.get((index, timing), _NO_MARK)

    def visit_of(self, step: Step, timing: TriggerTiming) -> int:
        """The visit that a call of this step at this timing belongs to.

        What may have happened and cannot be undone keeps its visit, whatever happens around it.
        """
        mark = self.mark(step.index, timing)
        if mark.status is MarkStatus.UNKNOWN and not step.reversible:
            return mark.visit
        anew = step.index < self.position or mark.status is MarkStatus.SUCCEEDED
        return mark.visit + 1 if anew else mark.visit

    def to_json(self) -> JsonObject:
        """The progress as the session keeps it."""
        marks: JsonObject = {
            f"{index}{timing[0]}": [mark.visit, mark.status.value]
            for (index, timing), mark in self.marks.items()
        }
        return {"position": self.position, "marks": marks}

    @classmethod
    def from_json(cls, state: JsonObject) -> "Progress":
        """The progress that `to_json` wrote; KeyError, TypeError or ValueError for anything else."""
        position, marks = state["position"], state["marks"]
        if not isinstance(position, int) or not isinstance(marks, dict):
            raise TypeError("not a progress")
        return cls(position=position, marks=dict(map(_mark_from_json, marks.items())))


def _mark_from_json(item: tuple[str, object]) -> tuple[tuple[int, TriggerTiming], Mark]:
    name, value = item
    if not isinstance(value, list):
        raise TypeError("not a mark")
    timing = {"B": BEFORE, "A": AFTER}[name[-1]]
    return (int(name[:-1]), timing), Mark(int(value[0]), MarkStatus(value[1]))


def check_callable(
    progress: Progress,
    steps: Sequence[Step],
    *,
    index: int,
    timing: TriggerTiming,
    is_skipped: IsSkipped,
) -> None:
    """Raise the refusal when the step at `index` may not be called at `timing` now.

    TimingNotConfigured, StepLocked (a later step that cannot be undone was sent, or may have been),
    or StepOutOfOrder (an earlier step is open, its own BEFORE_STEP is, or its `when` is false).
    """
    step = steps[index]
    if timing not in step.timings:
        raise TimingNotConfigured
    for (marked, _), mark in progress.marks.items():
        if marked > index and not steps[marked].reversible and mark.status in _SENT:
            raise StepLocked
    if is_skipped(index) or not _may_pass(progress, steps, until=index, is_skipped=is_skipped):
        raise StepOutOfOrder
    if timing is AFTER and BEFORE in step.timings:
        going_back = index < progress.position
        if going_back or progress.mark(index, BEFORE).status is not MarkStatus.SUCCEEDED:
            raise StepOutOfOrder


_SENT = frozenset({MarkStatus.SUCCEEDED, MarkStatus.UNKNOWN})


def _may_pass(
    progress: Progress, steps: Sequence[Step], *, until: int, is_skipped: IsSkipped
) -> bool:
    return all(
        is_skipped(index) or (steps[index].may_be_passed_by and not _holds(progress, steps[index]))
        for index in range(progress.position, until)
    )


def _holds(progress: Progress, step: Step) -> bool:
    """Nothing goes past a validation that said no, or a payment that may have been made."""
    statuses = {progress.mark(step.index, timing).status for timing in step.timings}
    in_doubt = MarkStatus.UNKNOWN in statuses and not step.reversible
    return in_doubt or MarkStatus.SAID_NO in statuses


def is_settled_for_good(progress: Progress, step: Step, timing: TriggerTiming) -> bool:
    """Whether this timing has succeeded and may not run again: a repeat gets the recorded answer."""
    status = progress.mark(step.index, timing).status
    return not step.reversible and status is MarkStatus.SUCCEEDED


def begin(
    progress: Progress, step: Step, timing: TriggerTiming, *, visit: int | None = None
) -> Progress:
    """The progress once a call of the step is accepted: going back returns the position there.

    Going back opens everything from the step on under new visits. `visit` overrides the one that
    `visit_of` gives.
    """
    own = progress.mark(step.index, timing)
    visit = progress.visit_of(step, timing) if visit is None else visit
    marks = dict(progress.marks)
    if step.index < progress.position:
        for (marked, at), mark in progress.marks.items():
            if marked >= step.index:
                marks[marked, at] = Mark(mark.visit + 1)
    in_doubt = own.status is MarkStatus.UNKNOWN and own.visit == visit
    marks[step.index, timing] = Mark(visit, MarkStatus.UNKNOWN if in_doubt else MarkStatus.OPEN)
    return replace(progress, position=min(progress.position, step.index), marks=marks)


def settle(progress: Progress, step: Step, timing: TriggerTiming, verdict: Verdict) -> Progress:
    """The progress once an accepted call, already begun, has come to its verdict.

    A definite answer closes the visit. NOT_SENT and UNKNOWN keep it, so a repeat has the same key.
    """
    mark = progress.mark(step.index, timing)
    marks = {**progress.marks, (step.index, timing): _settled(mark, verdict)}
    if verdict is not Verdict.PROCEED:
        return replace(progress, marks=marks)
    if not step.is_server and step.reversible:
        del marks[step.index, timing]  # nothing about it need be remembered: sessions stay small
    if timing is step.timings[-1]:
        return replace(progress, position=step.index + 1, marks=marks)
    return replace(progress, marks=marks)


def _settled(mark: Mark, verdict: Verdict) -> Mark:
    match verdict:
        case Verdict.PROCEED:
            return Mark(mark.visit, MarkStatus.SUCCEEDED)
        case Verdict.STOP:
            return Mark(mark.visit + 1, MarkStatus.SAID_NO)
        case Verdict.REFUSED:
            return Mark(mark.visit + 1)
        case Verdict.UNKNOWN:
            return Mark(mark.visit, MarkStatus.UNKNOWN)
        case Verdict.NOT_SENT:
            return mark


def results_to_drop(
    progress: Progress, steps: Sequence[Step], *, index: int, timing: TriggerTiming
) -> frozenset[str]:
    """The context keys of server results that a call of this step makes worthless.

    Going back: its own and every later one's. Calling a step anew from its first timing: its own.
    """
    if index < progress.position:
        return frozenset(step.result_key for step in steps[index:] if step.is_server)
    step = steps[index]
    is_anew = step.is_server and timing is step.timings[0]
    return frozenset({step.result_key}) if is_anew else frozenset()


def results_after_recovery(progress: Progress, steps: Sequence[Step]) -> frozenset[str]:
    """The context keys of server results that no settled run stands behind."""
    return frozenset(
        step.result_key
        for step in steps[progress.position :]
        if step.is_server and progress.mark(step.index, BEFORE).status is not MarkStatus.SUCCEEDED
    )


def next_step(progress: Progress, count: int, *, is_skipped: IsSkipped) -> int | None:
    """The index of the step to show next, or None when the rest is passed or skipped."""
    return next((i for i in range(progress.position, count) if not is_skipped(i)), None)


def is_ready_to_complete(
    progress: Progress, steps: Sequence[Step], *, is_skipped: IsSkipped
) -> bool:
    """Whether every step is passed, skipped, or may be gone past."""
    return _may_pass(progress, steps, until=len(steps), is_skipped=is_skipped)


@dataclass(frozen=True, slots=True)
class PastRun:
    """What a StepRun row says of one call: enough to fold the progress again."""

    step_index: int
    timing: TriggerTiming
    visit: int
    status: RunStatus
    error_code: str


def rebuild(runs: Iterable[PastRun], steps: Sequence[Step]) -> Progress:
    """The progress that these runs, oldest first, led to: the rows are the truth behind the session."""
    progress = Progress()
    for run in runs:
        step = steps[run.step_index]
        begun = begin(progress, step, run.timing, visit=run.visit)
        progress = settle(begun, step, run.timing, _verdict_of(run))
    return progress


def _verdict_of(run: PastRun) -> Verdict:
    match run.status:
        case RunStatus.SUCCEEDED:
            return Verdict.PROCEED
        case RunStatus.REJECTED:
            is_refusal = run.error_code == ErrorCode.TRIGGER_REJECTED
            return Verdict.REFUSED if is_refusal else Verdict.STOP
        case RunStatus.FAILED:
            return Verdict.NOT_SENT
        case RunStatus.UNKNOWN | RunStatus.RUNNING:
            return Verdict.UNKNOWN
