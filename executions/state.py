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
    """One timing of one step: `visit` counts the definite answers and goings-back so far.

    `after_no`: a "no" came before, and what was called since has not lifted it.
    """

    visit: int = 0
    status: MarkStatus = MarkStatus.OPEN
    after_no: bool = False

    @property
    def is_touched(self) -> bool:
        """Whether anything came of it that going back makes worthless."""
        return self.status is not MarkStatus.OPEN or self.after_no


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
        anew = self.is_going_back(step.index) or mark.status is MarkStatus.SUCCEEDED
        return mark.visit + 1 if anew else mark.visit

    def is_going_back(self, index: int) -> bool:
        """Whether a call of this step comes before what was passed or called already.

        A step that was gone past at first counts, too: what a later one was told is outdated.
        """
        return index < self.position or any(
            marked > index and mark.is_touched for (marked, _), mark in self.marks.items()
        )

    def to_json(self) -> JsonObject:
        """The progress as the session keeps it."""
        marks: JsonObject = {
            f"{index}{timing[0]}": [mark.visit, mark.status.value, *([1] * mark.after_no)]
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
    mark = Mark(int(value[0]), MarkStatus(value[1]), after_no=len(value) > 2)
    return (int(name[:-1]), timing), mark


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
    marks = [progress.mark(step.index, timing) for timing in step.timings]
    in_doubt = not step.reversible and any(mark.status is MarkStatus.UNKNOWN for mark in marks)
    return in_doubt or any(map(_has_no, marks))


def is_settled_for_good(progress: Progress, step: Step, timing: TriggerTiming) -> bool:
    """Whether this timing has succeeded and may not run again: a repeat gets the recorded answer."""
    status = progress.mark(step.index, timing).status
    return not step.reversible and status is MarkStatus.SUCCEEDED


def begin(
    progress: Progress, step: Step, timing: TriggerTiming, *, visit: int | None = None
) -> Progress:
    """The progress once a call of the step is accepted: going back returns the position there.

    Going back opens everything after the call under new visits. `visit` overrides the one that
    `visit_of` gives.
    """
    own = progress.mark(step.index, timing)
    visit = progress.visit_of(step, timing) if visit is None else visit
    marks = dict(progress.marks)
    is_going_back = progress.is_going_back(step.index)
    if is_going_back:
        for (marked, at), mark in progress.marks.items():
            if marked > step.index or (marked == step.index and timing is BEFORE):
                marks[marked, at] = Mark(mark.visit + 1)
    elif timing is BEFORE and (step.index, AFTER) in marks:
        marks[step.index, AFTER] = _outdated(marks[step.index, AFTER])
    in_doubt = own.status is MarkStatus.UNKNOWN and own.visit == visit
    marks[step.index, timing] = Mark(
        visit,
        MarkStatus.UNKNOWN if in_doubt else MarkStatus.OPEN,
        after_no=not is_going_back and _has_no(own),
    )
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


def _has_no(mark: Mark) -> bool:
    return mark.after_no or mark.status is MarkStatus.SAID_NO


def _outdated(after: Mark) -> Mark:
    """AFTER_STEP once BEFORE_STEP runs again: its unanswered request is not the one to repeat."""
    if after.status is not MarkStatus.UNKNOWN:
        return after
    return Mark(after.visit + 1, MarkStatus.SAID_NO if after.after_no else MarkStatus.OPEN)


def _settled(mark: Mark, verdict: Verdict) -> Mark:
    still_open = MarkStatus.SAID_NO if mark.after_no else MarkStatus.OPEN
    match verdict:
        case Verdict.PROCEED:
            return Mark(mark.visit, MarkStatus.SUCCEEDED)
        case Verdict.STOP:
            return Mark(mark.visit + 1, MarkStatus.SAID_NO)
        case Verdict.REFUSED:
            return Mark(mark.visit + 1, still_open)
        case Verdict.UNKNOWN:
            return Mark(mark.visit, MarkStatus.UNKNOWN, after_no=mark.after_no)
        case Verdict.NOT_SENT:
            is_unknown = mark.status is MarkStatus.UNKNOWN
            return mark if is_unknown else Mark(mark.visit, still_open)


def results_to_drop(
    progress: Progress, steps: Sequence[Step], *, index: int, timing: TriggerTiming
) -> frozenset[str]:
    """The context keys of server results that a call of this step makes worthless.

    Going back: its own and every later one's. Calling a step anew from its first timing: its own.
    """
    first = index if timing is steps[index].timings[0] else index + 1
    last = len(steps) if progress.is_going_back(index) else index + 1
    return frozenset(step.result_key for step in steps[first:last] if step.is_server)


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
