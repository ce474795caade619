"""The rules of position, going back and completing, on plain values."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from executions import state
from executions.enums import ErrorCode, RunStatus
from executions.errors import StepLocked, StepOutOfOrder, TimingNotConfigured
from executions.state import AFTER, BEFORE, Mark, MarkStatus, PastRun, Progress, Verdict
from workflows.enums import TriggerTiming


@dataclass(frozen=True)
class Step:
    index: int
    timings: tuple[TriggerTiming, ...] = (AFTER,)
    is_server: bool = False
    is_async: bool = False
    may_be_passed_by: bool = False
    reversible: bool = True

    @property
    def result_key(self) -> str:
        return f"result{self.index}"


FORM = Step(0)
CHECK = Step(1, (BEFORE,), is_server=True)
CONFIRM = Step(2)
PAY = Step(3, is_server=True, reversible=False)
FLOW = (FORM, CHECK, CONFIRM, PAY)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def nothing_skipped(_index: int) -> bool:
    return False


def after(progress: Progress, step: Step, timing: TriggerTiming, verdict: Verdict) -> Progress:
    return state.settle(state.begin(progress, step, timing), step, timing, verdict)


def walked(*steps: Step) -> Progress:
    progress = Progress()
    for step in steps:
        for timing in step.timings:
            progress = after(progress, step, timing, Verdict.PROCEED)
    return progress


def check(
    progress: Progress, index: int, timing: TriggerTiming, steps: tuple[Step, ...] = FLOW
) -> None:
    state.check_callable(progress, steps, index=index, timing=timing, is_skipped=nothing_skipped)


def test_passing_each_step_moves_the_position() -> None:
    assert walked(*FLOW).position == 4


def test_a_step_beyond_the_position_is_out_of_order() -> None:
    with pytest.raises(StepOutOfOrder):
        check(Progress(), 1, BEFORE)


def test_a_timing_that_is_not_configured_is_refused() -> None:
    with pytest.raises(TimingNotConfigured):
        check(walked(FORM), 1, AFTER)


def test_going_back_returns_the_position_and_opens_a_new_visit() -> None:
    progress = after(walked(FORM, CHECK, CONFIRM), FORM, AFTER, Verdict.PROCEED)
    assert progress.position == 1
    assert progress.mark(1, BEFORE) == Mark(1, MarkStatus.OPEN)


@pytest.mark.parametrize("verdict", [Verdict.PROCEED, Verdict.UNKNOWN])
def test_going_back_past_what_cannot_be_undone_is_locked(verdict: Verdict) -> None:
    progress = after(walked(FORM, CHECK, CONFIRM), PAY, AFTER, verdict)
    with pytest.raises(StepLocked):
        check(progress, 0, AFTER)


@pytest.mark.parametrize("verdict", [Verdict.REFUSED, Verdict.NOT_SENT])
def test_what_was_not_acted_on_locks_nothing(verdict: Verdict) -> None:
    progress = after(walked(FORM, CHECK, CONFIRM), PAY, AFTER, verdict)
    check(progress, 0, AFTER)
    assert progress.position == 3


@pytest.mark.parametrize(
    ("verdict", "visit"),
    [
        (Verdict.UNKNOWN, 0),  # the same key: the partner may have acted
        (Verdict.NOT_SENT, 0),  # the same key is as good as another
        (Verdict.REFUSED, 1),  # a definite no: a new key
        (Verdict.STOP, 1),  # a definite no: the answer must be asked for anew
        (Verdict.PROCEED, 1),  # a repeat of what succeeded is a new call
    ],
)
def test_the_visit_changes_with_definite_answers_only(verdict: Verdict, visit: int) -> None:
    progress = after(walked(FORM), CHECK, BEFORE, verdict)
    assert progress.visit_of(CHECK, BEFORE) == visit


def test_a_payment_in_doubt_keeps_its_visit_whatever_happens_around_it() -> None:
    optional_pay = Step(1, is_server=True, reversible=False, may_be_passed_by=True)
    progress = after(walked(FORM), optional_pay, AFTER, Verdict.UNKNOWN)
    assert Progress(position=3, marks=progress.marks).visit_of(optional_pay, AFTER) == 0


def test_nothing_goes_past_a_payment_in_doubt_or_a_check_that_said_no() -> None:
    for verdict, reversible in ((Verdict.UNKNOWN, False), (Verdict.STOP, True)):
        optional = Step(1, is_server=True, reversible=reversible, may_be_passed_by=True)
        progress = after(walked(FORM), optional, AFTER, verdict)
        with pytest.raises(StepOutOfOrder):
            check(progress, 2, AFTER, (FORM, optional, CONFIRM))


def test_both_needs_before_to_have_succeeded() -> None:
    both = Step(0, (BEFORE, AFTER), is_server=True)
    with pytest.raises(StepOutOfOrder):
        check(Progress(), 0, AFTER, (both,))
    progress = after(Progress(), both, BEFORE, Verdict.PROCEED)
    check(progress, 0, AFTER, (both,))
    assert progress.position == 0


def test_going_back_to_both_starts_with_before() -> None:
    both = Step(0, (BEFORE, AFTER), is_server=True)
    progress = after(walked(both, Step(1)), both, BEFORE, Verdict.STOP)
    assert progress.position == 0
    with pytest.raises(StepOutOfOrder):
        check(progress, 0, AFTER, (both, Step(1)))


def test_going_back_drops_the_results_of_server_steps_from_there_on() -> None:
    progress = walked(FORM, CHECK, CONFIRM)
    assert state.results_to_drop(progress, FLOW, index=0, timing=AFTER) == {"result1", "result3"}
    assert state.results_to_drop(progress, FLOW, index=2, timing=AFTER) == {"result3"}
    assert state.results_to_drop(progress, FLOW, index=3, timing=AFTER) == {"result3"}


def test_skipped_and_passable_steps_are_gone_past() -> None:
    info = Step(0, may_be_passed_by=True)
    steps = (info, Step(1), Step(2))
    state.check_callable(
        Progress(), steps, index=2, timing=AFTER, is_skipped=lambda index: index == 1
    )
    assert state.next_step(Progress(position=1), steps, is_skipped=lambda index: index == 1) == 2
    assert not state.is_ready_to_complete(Progress(), steps, is_skipped=nothing_skipped)
    assert state.is_ready_to_complete(Progress(position=3), steps, is_skipped=nothing_skipped)


def test_a_skipped_step_cannot_be_called() -> None:
    with pytest.raises(StepOutOfOrder):
        state.check_callable(
            Progress(), (FORM,), index=0, timing=AFTER, is_skipped=lambda _index: True
        )


def test_only_what_cannot_be_undone_is_settled_for_good() -> None:
    progress = walked(*FLOW)
    assert state.is_settled_for_good(progress, PAY, AFTER)
    assert not state.is_settled_for_good(progress, CHECK, BEFORE)


def test_progress_survives_the_session() -> None:
    progress = after(walked(FORM, CHECK, CONFIRM), PAY, AFTER, Verdict.UNKNOWN)
    assert Progress.from_json(progress.to_json()) == progress


@pytest.mark.parametrize(
    "broken", [{}, {"position": "1", "marks": {}}, {"position": 1, "marks": []}]
)
def test_a_broken_progress_is_no_progress(broken: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Progress.from_json(broken)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (RunStatus.SUCCEEDED, "", Verdict.PROCEED),
        (RunStatus.REJECTED, ErrorCode.VALIDATION_REJECTED, Verdict.STOP),
        (RunStatus.REJECTED, ErrorCode.TRIGGER_REJECTED, Verdict.REFUSED),
        (RunStatus.FAILED, ErrorCode.TRIGGER_UNAVAILABLE, Verdict.NOT_SENT),
        (RunStatus.UNKNOWN, ErrorCode.TRIGGER_TIMEOUT, Verdict.UNKNOWN),
        (RunStatus.RUNNING, "", Verdict.UNKNOWN),
    ],
)
def test_runs_fold_into_the_progress_they_led_to(
    status: RunStatus, code: str, verdict: Verdict
) -> None:
    runs = [
        PastRun(0, AFTER, 0, RunStatus.SUCCEEDED, "", NOON, NOON),
        PastRun(1, BEFORE, 0, status, code, NOON, NOON),
    ]
    assert state.rebuild(runs, FLOW) == after(walked(FORM), CHECK, BEFORE, verdict)


def test_results_that_no_run_stands_behind_are_dropped_in_recovery() -> None:
    assert state.results_after_recovery(walked(FORM), FLOW) == {"result1", "result3"}
    assert state.results_after_recovery(walked(FORM, CHECK), FLOW) == {"result3"}
