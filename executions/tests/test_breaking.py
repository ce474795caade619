"""The breaker's rules, one after the other, on a clock that is a number."""

from dataclasses import replace

import pytest

from executions.breaking import (
    PROBE_MARGIN_MS,
    RETRY_PROBED_MS,
    Breaker,
    Ending,
    Permit,
    Phase,
    Policy,
    ask,
    end,
    ending_of,
    later,
)
from executions.enums import ErrorCode

POLICY = Policy(failures=3, cooldown_ms=30_000)
OPENED = Breaker(generation=1, failures=3, open_until_ms=30_000)
PROBED = replace(OPENED, probe="p", probe_until_ms=42_000)
FIRST = Permit(is_granted=True)
PROBE = Permit(is_granted=True, generation=1, probe="p")
ANSWERED, FAILED, NOTHING = Ending.ANSWERED, Ending.FAILED, Ending.NOTHING


def asked(breaker: Breaker, *, at: float, token: str = "p") -> tuple[Breaker, Permit]:
    return ask(breaker, token=token, lasting_ms=10_000, policy=POLICY, now_ms=at)


def ended(breaker: Breaker, permit: Permit, ending: Ending, *, at: float = 0) -> Breaker:
    return end(breaker, permit, ending, policy=POLICY, now_ms=at)


@pytest.mark.parametrize(
    ("endings", "after"),
    [
        ([], Breaker()),
        ([FAILED, FAILED], Breaker(failures=2)),
        ([FAILED, FAILED, FAILED], OPENED),
        # in a row: an answer between them begins the count anew
        ([FAILED, FAILED, ANSWERED, FAILED, FAILED], Breaker(failures=2)),
        # what never left the house neither counts nor clears
        ([FAILED, FAILED, NOTHING], Breaker(failures=2)),
        ([FAILED, FAILED, NOTHING, FAILED], OPENED),
        # once open, what had begun before says nothing more: the cooldown is not prolonged
        ([FAILED] * 9, OPENED),
        ([FAILED] * 3 + [ANSWERED] * 3, OPENED),
    ],
)
def test_failures_in_a_row_open_it(endings: list[Ending], after: Breaker) -> None:
    breaker = Breaker()
    for ending in endings:
        breaker = ended(breaker, FIRST, ending)
    assert breaker == after


@pytest.mark.parametrize(
    ("breaker", "at", "phase", "rest_ms"),
    [
        (Breaker(), 0, Phase.CLOSED, 0),
        (Breaker(failures=2), 0, Phase.CLOSED, 0),
        (OPENED, 0, Phase.OPEN, 30_000),
        (OPENED, 29_999.2, Phase.OPEN, 1),
        (OPENED, 30_000, Phase.HALF_OPEN, 0),
        (PROBED, 31_000, Phase.HALF_OPEN, 0),
        # the clock was set back by two hours: the time it wrote counts as over
        (OPENED, -7_200_000, Phase.HALF_OPEN, 0),
        (PROBED, -7_200_000, Phase.HALF_OPEN, 0),
    ],
)
def test_phase_and_rest(breaker: Breaker, at: float, phase: Phase, rest_ms: int) -> None:
    assert breaker.phase(POLICY, now_ms=at) is phase
    assert breaker.rest_ms(POLICY, now_ms=at) == rest_ms


@pytest.mark.parametrize(
    ("breaker", "at", "after", "permit"),
    [
        (Breaker(), 0, Breaker(), FIRST),
        (Breaker(failures=2), 0, Breaker(failures=2), FIRST),
        (Breaker(generation=4), 0, Breaker(generation=4), Permit(is_granted=True, generation=4)),
        # open: the rest of the cooldown
        (OPENED, 0, OPENED, Permit(is_granted=False, retry_after_ms=30_000)),
        (OPENED, 12_345, OPENED, Permit(is_granted=False, retry_after_ms=17_655)),
        # half-open: the first one is the probe, for its timeout and a margin
        (OPENED, 30_000, replace(PROBED, probe_until_ms=40_000 + PROBE_MARGIN_MS), PROBE),
        # the probe that asks again is still the probe
        (PROBED, 31_000, PROBED, PROBE),
        # another one's probe is under way
        (
            replace(PROBED, probe="other"),
            31_000,
            replace(PROBED, probe="other"),
            Permit(is_granted=False, retry_after_ms=RETRY_PROBED_MS),
        ),
        # another one's probe never ended: its process died
        (replace(PROBED, probe="other"), 42_000, replace(PROBED, probe_until_ms=54_000), PROBE),
        # or a clock that was set back wrote its end
        (
            replace(PROBED, open_until_ms=-7_200_000, probe="other", probe_until_ms=8_000_000),
            0,
            replace(PROBED, open_until_ms=-7_200_000, probe_until_ms=12_000),
            PROBE,
        ),
    ],
)
def test_who_may_call(breaker: Breaker, at: float, after: Breaker, permit: Permit) -> None:
    assert asked(breaker, at=at) == (after, permit)


def test_nothing_new_is_the_very_same_breaker() -> None:
    for breaker in (Breaker(), OPENED):
        assert asked(breaker, at=0)[0] is breaker
        assert ended(breaker, FIRST, ANSWERED) is breaker
        assert ended(breaker, FIRST, NOTHING) is breaker


@pytest.mark.parametrize(
    ("breaker", "permit", "ending", "after"),
    [
        (PROBED, PROBE, ANSWERED, Breaker(generation=2)),
        (PROBED, PROBE, FAILED, Breaker(generation=2, failures=4, open_until_ms=61_000)),
        # given back: the next one may probe at once
        (PROBED, PROBE, NOTHING, replace(PROBED, probe="")),
        # nobody else's word counts while a probe is under way
        (PROBED, FIRST, ANSWERED, PROBED),
        (PROBED, replace(PROBE, probe="given up"), ANSWERED, PROBED),
        (PROBED, replace(PROBE, probe="given up"), FAILED, PROBED),
        # what timed out together must not open what the probe has closed
        (Breaker(generation=2, failures=2), FIRST, FAILED, Breaker(generation=2, failures=2)),
        (Breaker(generation=2, failures=2), FIRST, ANSWERED, Breaker(generation=2, failures=2)),
    ],
)
def test_how_a_probe_ends(breaker: Breaker, permit: Permit, ending: Ending, after: Breaker) -> None:
    assert ended(breaker, permit, ending, at=31_000) == after


def test_one_failure_is_enough_when_one_is_allowed() -> None:
    policy = Policy(failures=1, cooldown_ms=500)
    breaker = end(Breaker(), FIRST, FAILED, policy=policy, now_ms=100)
    assert breaker == Breaker(generation=1, failures=1, open_until_ms=600)


@pytest.mark.parametrize(
    ("ours", "theirs", "counts"),
    [
        (Breaker(), OPENED, OPENED),
        (OPENED, Breaker(), OPENED),
        (Breaker(failures=2), Breaker(failures=1), Breaker(failures=1)),
        (Breaker(generation=2), OPENED, Breaker(generation=2)),
        (OPENED, PROBED, PROBED),
    ],
)
def test_the_later_of_two(ours: Breaker, theirs: Breaker, counts: Breaker) -> None:
    assert later(ours, theirs) == counts


def test_what_each_error_says_about_the_partner() -> None:
    told = {code: ending_of(code) for code in (None, *ErrorCode)}
    assert [code for code, ending in told.items() if ending is FAILED] == [
        ErrorCode.TRIGGER_UNAVAILABLE,
        ErrorCode.TRIGGER_TIMEOUT,
    ]
    assert [code for code, ending in told.items() if ending is NOTHING] == [
        ErrorCode.ENDPOINT_FORBIDDEN
    ]
    assert told[None] is ANSWERED
    assert told[ErrorCode.TRIGGER_REJECTED] is ANSWERED
    assert told[ErrorCode.TRIGGER_BAD_RESPONSE] is ANSWERED
