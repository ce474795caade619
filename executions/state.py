"""Where an execution stands, and what may happen next. Pure rules, and nothing else.

    PENDING ──first accepted step──> IN_PROGRESS ──complete──> COMPLETED
       │                                │   ^
       │                                │   └─ repeated complete ─┐
       ├──────────── cancel ────────────┼──> CANCELLED            │
       └────── expiry, submission ──────┴──> FAILED ──────────────┘

The *position* is the first step not yet passed or skipped. A *mark* is what is known of one timing
of a step that must not be forgotten: how often it was decided anew (its *visit*, which makes the
partner's Idempotency-Key) and whether it succeeded or has an unknown outcome. Position and marks are
the *progress*; it is kept in the session and can be folded again from the runs.

An async step is gone past while it is QUEUED. What came of it is laid over the progress later
(`with_outcomes`). One that has *fallen* (failed, said no, unknown) is called again where it stands,
which is no going back: nothing was built on it, and nothing after it runs until it is mended.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from config.jsonvalues import JsonObject
from executions.enums import ErrorCode, RunStatus
from executions.errors import StepLocked, StepOutOfOrder, StepsPending, TimingNotConfigured
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
    def is_async(self) -> bool: ...
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
    QUEUED = "Q"
    SUCCEEDED = "S"
    SAID_NO = "N"
    FAILED = "F"
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
    NOT_SENT means that nobody acted on it; UNKNOWN that nobody knows; QUEUED that a worker will
    find out.
    """

    QUEUED = "QUEUED"
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
        anew = self.is_going_back(step) or mark.status in _CALLED
        return mark.visit + 1 if anew else mark.visit

    def is_going_back(self, step: Step) -> bool:
        """Whether a call of this step comes before what was passed or called already.

        A step that was gone past at first counts, too: what a later one was told is outdated. An
        async step that has fallen does not.
        """
        if self.has_fallen(step):
            return False
        return step.index < self.position or any(
            marked > step.index and mark.is_touched for (marked, _), mark in self.marks.items()
        )

    def has_fallen(self, step: Step) -> bool:
        """Whether it is an async step whose last call brought no success."""
        return step.is_async and any(
            self.mark(step.index, at).status in _FALLEN for at in step.timings
        )

    @property
    def queued(self) -> Mapping[tuple[int, TriggerTiming], Mark]:
        """What a worker or a partner is still busy with."""
        return {at: mark for at, mark in self.marks.items() if mark.status is MarkStatus.QUEUED}

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


_CALLED = frozenset({MarkStatus.SUCCEEDED, MarkStatus.QUEUED})
_FALLEN = frozenset({MarkStatus.SAID_NO, MarkStatus.FAILED, MarkStatus.UNKNOWN})


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
    StepOutOfOrder (an earlier step is open, its own BEFORE_STEP is, or its `when` is false), or
    StepsPending (its own BEFORE_STEP is still being worked off).
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
        before = progress.mark(index, BEFORE).status
        if before is MarkStatus.QUEUED:
            raise StepsPending
        going_back = index < progress.position and not progress.has_fallen(step)
        if going_back or before is not MarkStatus.SUCCEEDED:
            raise StepOutOfOrder


_SENT = frozenset({MarkStatus.SUCCEEDED, MarkStatus.UNKNOWN, MarkStatus.QUEUED})


def _may_pass(
    progress: Progress, steps: Sequence[Step], *, until: int, is_skipped: IsSkipped
) -> bool:
    open_ones = range(progress.position, until)
    fallen = (index for index in _fallen(progress, steps) if index < until)
    return all(
        is_skipped(index) or _is_passable(progress, steps[index])
        for each in (open_ones, fallen)
        for index in each
    )


def _fallen(progress: Progress, steps: Sequence[Step]) -> list[int]:
    """The async steps that were gone past and have fallen since, in their order."""
    behind = {index for index, _ in progress.marks if index < progress.position}
    return sorted(index for index in behind if progress.has_fallen(steps[index]))


def _is_passable(progress: Progress, step: Step) -> bool:
    return step.may_be_passed_by and not _holds(progress, step)


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
    is_going_back = progress.is_going_back(step)
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
    has_fallen = progress.has_fallen(step)
    position = progress.position if has_fallen else min(progress.position, step.index)
    return replace(progress, position=position, marks=marks)


def settle(progress: Progress, step: Step, timing: TriggerTiming, verdict: Verdict) -> Progress:
    """The progress once an accepted call, already begun, has come to its verdict.

    A definite answer closes the visit. NOT_SENT and UNKNOWN keep it, so a repeat has the same key.
    """
    mark = progress.mark(step.index, timing)
    settled = _settled_async(mark, verdict) if step.is_async else _settled(mark, verdict)
    marks = {**progress.marks, (step.index, timing): settled}
    if verdict not in (Verdict.PROCEED, Verdict.QUEUED):
        return replace(progress, marks=marks)
    if not step.is_server and step.reversible:
        del marks[step.index, timing]  # nothing about it need be remembered: sessions stay small
    if timing is step.timings[-1]:
        position = max(progress.position, step.index + 1)
        return replace(progress, position=position, marks=marks)
    return replace(progress, marks=marks)


_OPEN_ENDED = frozenset({MarkStatus.QUEUED, MarkStatus.UNKNOWN})


def may_have_outcomes(progress: Progress, steps: Sequence[Step]) -> bool:
    """Whether rows may know more of an async step than this progress."""
    return any(
        mark.status in _OPEN_ENDED and steps[index].is_async
        for (index, _), mark in progress.marks.items()
    )


def with_outcomes(progress: Progress, ended: Iterable["PastRun"]) -> Progress:
    """The progress once these async runs, oldest first, have come to where they stand.

    Only what is queued or unknown under a run's visit learns of it: the rest is settled, and going
    back has outdated what it left behind. What was unknown may be found out, or queued again.
    """
    marks = dict(progress.marks)
    for run in ended:
        at = (run.step_index, run.timing)
        mark = marks.get(at, _NO_MARK)
        if mark.status in _OPEN_ENDED and mark.visit == run.visit:
            marks[at] = _settled_async(mark, _verdict_of(run))
    return replace(progress, marks=marks) if marks != progress.marks else progress


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
        case Verdict.QUEUED:
            return Mark(mark.visit, MarkStatus.QUEUED)
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


def _settled_async(mark: Mark, verdict: Verdict) -> Mark:
    """The same for what was gone past: a call without success must stay visible as such."""
    settled = _settled(mark, verdict)
    is_open = settled.status is MarkStatus.OPEN
    return replace(settled, status=MarkStatus.FAILED) if is_open else settled


def results_to_drop(
    progress: Progress, steps: Sequence[Step], *, index: int, timing: TriggerTiming
) -> frozenset[str]:
    """The context keys of server results that a call of this step makes worthless.

    Going back: its own and every later one's. Calling a step anew from its first timing: its own.
    """
    first = index if timing is steps[index].timings[0] else index + 1
    last = len(steps) if progress.is_going_back(steps[index]) else index + 1
    return frozenset(step.result_key for step in steps[first:last] if step.is_server)


def results_after_recovery(progress: Progress, steps: Sequence[Step]) -> frozenset[str]:
    """The context keys of server results that no settled run stands behind."""
    return frozenset(
        step.result_key
        for step in steps
        if step.is_server
        and (step.index >= progress.position or progress.has_fallen(step))
        and progress.mark(step.index, BEFORE).status is not MarkStatus.SUCCEEDED
    )


def next_step(progress: Progress, steps: Sequence[Step], *, is_skipped: IsSkipped) -> int | None:
    """The index of the step to show next, or None when the rest is passed or skipped.

    An async step that has fallen comes first, unless it may be gone past.
    """
    fallen = [i for i in _fallen(progress, steps) if not _is_passable(progress, steps[i])]
    ahead = range(progress.position, len(steps))
    return next((i for each in (fallen, ahead) for i in each if not is_skipped(i)), None)


def is_ready_to_complete(
    progress: Progress, steps: Sequence[Step], *, is_skipped: IsSkipped
) -> bool:
    """Whether every step is passed, skipped, or may be gone past."""
    return _may_pass(progress, steps, until=len(steps), is_skipped=is_skipped)


def is_pending(progress: Progress) -> bool:
    """Whether an async step is still being worked off; the completion waits for it."""
    return any(mark.status is MarkStatus.QUEUED for mark in progress.marks.values())


@dataclass(frozen=True, slots=True)
class PastRun:
    """What a StepRun row says of one call: enough to fold the progress again."""

    step_index: int
    timing: TriggerTiming
    visit: int
    status: RunStatus
    error_code: str
    started_at: datetime
    finished_at: datetime | None
    was_queued: bool = False


def rebuild(runs: Iterable[PastRun], steps: Sequence[Step]) -> Progress:
    """The progress that these runs, oldest first, led to: the rows are the truth behind the session."""
    *_, progress = history(runs, steps)
    return progress


def history(runs: Iterable[PastRun], steps: Sequence[Step]) -> Iterator[Progress]:
    """The progress that each of these runs found, oldest first, and last the one they led to.

    What came of an async run counts from its end on: calls in between found it queued.
    """
    progress = Progress()
    queued: list[PastRun] = []
    for run in runs:
        step = steps[run.step_index]
        ended = [each for each in queued if _has_ended_before(each, run.started_at)]
        progress = with_outcomes(progress, ended)
        yield progress
        begun = begin(progress, step, run.timing, visit=run.visit)
        verdict = _verdict_of(run)
        if step.is_async and run.was_queued:
            queued.append(run)
            verdict = Verdict.QUEUED
        progress = settle(begun, step, run.timing, verdict)
    yield with_outcomes(progress, queued)


def _has_ended_before(run: PastRun, moment: datetime) -> bool:
    return run.finished_at is not None and run.finished_at <= moment


def _verdict_of(run: PastRun) -> Verdict:
    match run.status:
        case RunStatus.QUEUED | RunStatus.WAITING:
            return Verdict.QUEUED
        case RunStatus.RUNNING if run.was_queued:
            return Verdict.QUEUED
        case RunStatus.SUCCEEDED:
            return Verdict.PROCEED
        case RunStatus.REJECTED:
            is_refusal = run.error_code == ErrorCode.TRIGGER_REJECTED
            return Verdict.REFUSED if is_refusal else Verdict.STOP
        case RunStatus.FAILED | RunStatus.CANCELLED:
            return Verdict.NOT_SENT
        case RunStatus.UNKNOWN | RunStatus.RUNNING | RunStatus.PARKED | RunStatus.SETTLED:
            return Verdict.UNKNOWN
