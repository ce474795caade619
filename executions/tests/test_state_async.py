"""The rules of async steps on plain values: gone past while queued, called again where they fell."""

from datetime import UTC, datetime, timedelta

import pytest

from executions import state
from executions.enums import ErrorCode, RunStatus
from executions.errors import StepLocked, StepOutOfOrder, StepsPending
from executions.state import AFTER, BEFORE, Mark, MarkStatus, PastRun, Progress, Verdict
from executions.tests.test_state import Step, after, nothing_skipped

FORM = Step(0)
CHECK = Step(1, is_server=True, is_async=True)
DETAILS = Step(2)
PAY = Step(3, is_server=True, reversible=False)
FLOW = (FORM, CHECK, DETAILS, PAY)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def past(
    step: Step,
    status: RunStatus = RunStatus.SUCCEEDED,
    *,
    visit: int = 0,
    code: str = "",
    at: int = 0,
    ended: int | None = 0,
) -> PastRun:
    """A run accepted `at` seconds past noon and `ended` then, or not yet."""
    return PastRun(
        step_index=step.index,
        timing=AFTER,
        visit=visit,
        status=status,
        error_code=code,
        started_at=NOON + timedelta(seconds=at),
        finished_at=None if ended is None else NOON + timedelta(seconds=ended),
        was_queued=step.is_async,
    )


def queued() -> Progress:
    """The form is passed, the check is with a worker."""
    return after(after(Progress(), FORM, AFTER, Verdict.PROCEED), CHECK, AFTER, Verdict.QUEUED)


def test_a_queued_step_is_gone_past() -> None:
    progress = queued()
    assert progress.position == 2
    state.check_callable(progress, FLOW, index=2, timing=AFTER, is_skipped=nothing_skipped)
    assert state.is_pending(progress)
    assert state.next_step(progress, FLOW, is_skipped=nothing_skipped) == 2


@pytest.mark.parametrize(
    ("status", "code", "mark"),
    [
        (RunStatus.SUCCEEDED, "", Mark(0, MarkStatus.SUCCEEDED)),
        # a definite no: the next call has a key of its own
        (RunStatus.REJECTED, ErrorCode.VALIDATION_REJECTED, Mark(1, MarkStatus.SAID_NO)),
        (RunStatus.REJECTED, ErrorCode.TRIGGER_REJECTED, Mark(1, MarkStatus.FAILED)),
        # nobody acted, or nobody knows: the key stays
        (RunStatus.FAILED, ErrorCode.TRIGGER_UNAVAILABLE, Mark(0, MarkStatus.FAILED)),
        (RunStatus.CANCELLED, "", Mark(0, MarkStatus.FAILED)),
        (RunStatus.UNKNOWN, ErrorCode.TRIGGER_TIMEOUT, Mark(0, MarkStatus.UNKNOWN)),
        (RunStatus.PARKED, "", Mark(0, MarkStatus.UNKNOWN)),
        # still under way
        (RunStatus.QUEUED, "", Mark(0, MarkStatus.QUEUED)),
        (RunStatus.RUNNING, "", Mark(0, MarkStatus.QUEUED)),
        (RunStatus.WAITING, "", Mark(0, MarkStatus.QUEUED)),
    ],
)
def test_what_came_of_it_is_laid_over_the_progress(
    status: RunStatus, code: str, mark: Mark
) -> None:
    progress = state.with_outcomes(queued(), [past(CHECK, status, code=code)])
    assert progress.mark(1, AFTER) == mark
    assert progress.position == 2


def test_an_outcome_of_another_visit_is_not_heard() -> None:
    progress = after(queued(), FORM, AFTER, Verdict.PROCEED)
    assert state.with_outcomes(progress, [past(CHECK)]) is progress


def test_what_was_unknown_may_be_found_out() -> None:
    unknown = state.with_outcomes(queued(), [past(CHECK, RunStatus.UNKNOWN)])
    assert state.may_have_outcomes(unknown, FLOW)
    found_out = state.with_outcomes(unknown, [past(CHECK)])
    assert found_out.mark(1, AFTER).status is MarkStatus.SUCCEEDED
    assert not state.may_have_outcomes(found_out, FLOW)


def fallen(status: RunStatus = RunStatus.FAILED) -> Progress:
    """The check has fallen while the details were filled in."""
    progress = after(queued(), DETAILS, AFTER, Verdict.PROCEED)
    return state.with_outcomes(progress, [past(CHECK, status, code=ErrorCode.TRIGGER_TIMEOUT)])


def test_nothing_goes_past_a_fallen_step() -> None:
    assert state.next_step(fallen(), FLOW, is_skipped=nothing_skipped) == 1
    with pytest.raises(StepOutOfOrder):
        state.check_callable(fallen(), FLOW, index=3, timing=AFTER, is_skipped=nothing_skipped)


def test_it_is_called_again_where_it_fell() -> None:
    again = after(fallen(), CHECK, AFTER, Verdict.QUEUED)
    assert again.position == 3
    assert again.mark(1, AFTER) == Mark(0, MarkStatus.QUEUED)
    state.check_callable(again, FLOW, index=3, timing=AFTER, is_skipped=nothing_skipped)


def test_calling_it_again_in_vain_leaves_it_fallen() -> None:
    again = after(fallen(), CHECK, AFTER, Verdict.NOT_SENT)
    assert again.mark(1, AFTER).status is MarkStatus.FAILED
    assert again.position == 3


def test_an_optional_one_that_failed_may_be_gone_past() -> None:
    optional = Step(1, is_server=True, is_async=True, may_be_passed_by=True)
    steps = (FORM, optional, DETAILS)
    progress = after(Progress(position=1), optional, AFTER, Verdict.QUEUED)
    failed = state.with_outcomes(progress, [past(optional, RunStatus.FAILED)])
    assert state.next_step(failed, steps, is_skipped=nothing_skipped) == 2
    state.check_callable(failed, steps, index=2, timing=AFTER, is_skipped=nothing_skipped)


def test_going_back_before_it_opens_it() -> None:
    back = after(fallen(), FORM, AFTER, Verdict.PROCEED)
    assert back.position == 1
    assert back.mark(1, AFTER) == Mark(1, MarkStatus.OPEN)
    assert state.next_step(back, FLOW, is_skipped=nothing_skipped) == 1


def test_what_cannot_be_undone_locks_while_it_is_queued() -> None:
    sending = Step(1, is_server=True, is_async=True, reversible=False)
    progress = after(Progress(position=1), sending, AFTER, Verdict.QUEUED)
    with pytest.raises(StepLocked):
        state.check_callable(
            progress, (FORM, sending), index=0, timing=AFTER, is_skipped=nothing_skipped
        )


def test_after_step_waits_for_before_step() -> None:
    both = Step(0, (BEFORE, AFTER), is_server=True, is_async=True)
    progress = after(Progress(), both, BEFORE, Verdict.QUEUED)
    with pytest.raises(StepsPending):
        state.check_callable(progress, (both,), index=0, timing=AFTER, is_skipped=nothing_skipped)


def test_the_rows_fold_into_the_same_progress() -> None:
    runs = [
        past(FORM),
        past(CHECK, RunStatus.FAILED, at=1, ended=5),
        past(DETAILS, at=2, ended=2),
    ]
    assert state.rebuild(runs, FLOW) == fallen()


def test_a_call_before_the_failure_was_going_back_and_one_after_it_is_not() -> None:
    def led_to(failed_at: int) -> Progress:
        runs = [
            past(FORM),
            past(CHECK, RunStatus.REJECTED, code=ErrorCode.TRIGGER_REJECTED, at=1, ended=failed_at),
            past(DETAILS, at=2, ended=2),
            past(CHECK, RunStatus.QUEUED, visit=1, at=6, ended=None),
        ]
        return state.rebuild(runs, FLOW)

    assert led_to(failed_at=5).position == 3
    assert led_to(failed_at=9).position == 2


def test_progress_with_a_queued_mark_survives_the_session() -> None:
    assert Progress.from_json(queued().to_json()) == queued()
