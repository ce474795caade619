"""The attempt loop: policy, client, clocks and chance are passed in; it asks, waits, records.

Every attempt of a call carries the same Idempotency-Key. Before it waits for the next one it tells
its caller how the last one ended, so a row is written and the lease renewed while the partner
rests.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from config.jsonvalues import JsonValue
from executions.breaking import Ending, Permit, ending_of
from executions.enums import ErrorCode
from executions.outcomes import (
    AttemptRecord,
    CallResult,
    Certainty,
    ExchangeFailed,
    TriggerResponse,
    Verdict,
    default_message,
    fold_certainty,
    judge_failure,
    judge_status,
    partner_message,
)
from executions.partner_calls import PartnerCall
from executions.surroundings import Surroundings
from workflows.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class _Attempt:
    record: AttemptRecord
    verdict: Verdict
    response: TriggerResponse | None


def _keep_silent(_record: AttemptRecord) -> None:
    return


def _always() -> bool:
    return True


def call_partner(
    call: PartnerCall,
    *,
    policy: RetryPolicy,
    world: Surroundings,
    deadline_ms: float | None = None,
    on_failed_attempt: Callable[[AttemptRecord], None] = _keep_silent,
    may_send: Callable[[], bool] = _always,
) -> CallResult:
    """What the partner answered, after as many attempts as policy and time allow.

    `deadline_ms` is on the scale of `world.clock`. The first attempt's timeout is cut to the time
    that is left; a further one starts only when the wait and its whole timeout fit in.
    `on_failed_attempt` gets each attempt that is to be followed by another, before the wait; what
    it raises ends the call. The last one is in the result only. Each attempt asks `may_send`, which
    is whether the caller still has the right to call, and the connection's breaker; a "no" ends the
    call at once.
    """
    with world.caps.slot(call.connection.name) as is_free:
        if not is_free:
            return _not_tried(ErrorCode.TRIGGER_UNAVAILABLE)
        timeout_ms = _first_timeout(call, deadline_ms, clock=world.clock)
        if timeout_ms < 1:
            return _not_tried(ErrorCode.TRIGGER_TIMEOUT)
        attempts: list[_Attempt] = []
        while True:
            if not may_send():
                return _cut_off(attempts, rest_ms=0)
            permit = world.breakers.ask(call.connection.name, lasting_ms=timeout_ms)
            if not permit.is_granted:
                return _cut_off(attempts, rest_ms=permit.retry_after_ms or 0)
            attempt = _try_once(
                call, permit, number=len(attempts) + 1, timeout_ms=timeout_ms, world=world
            )
            attempts.append(attempt)
            delay_ms = _delay_before_next(attempt, policy=policy, jitter=world.jitter)
            if delay_ms is None or not _fits(call, delay_ms, deadline_ms, clock=world.clock):
                return _conclude(attempts)
            rest_ms = world.breakers.look(call.connection.name).rest_ms
            if rest_ms > delay_ms:
                return _held_back(_conclude(attempts), rest_ms)
            on_failed_attempt(attempt.record)
            world.sleep(delay_ms / 1000)
            timeout_ms = call.timeout_ms


def _first_timeout(
    call: PartnerCall, deadline_ms: float | None, *, clock: Callable[[], float]
) -> int:
    if deadline_ms is None:
        return call.timeout_ms
    return min(call.timeout_ms, int(deadline_ms - clock()))


def _fits(
    call: PartnerCall, delay_ms: int, deadline_ms: float | None, *, clock: Callable[[], float]
) -> bool:
    return deadline_ms is None or clock() + delay_ms + call.timeout_ms <= deadline_ms


def _delay_before_next(
    attempt: _Attempt, *, policy: RetryPolicy, jitter: Callable[[], float]
) -> int | None:
    if not attempt.verdict.is_retried:
        return None
    return policy.next_delay_ms(
        attempt=attempt.record.number,
        jitter=jitter(),
        retry_after_ms=attempt.record.retry_after_ms,
    )


def _try_once(
    call: PartnerCall, permit: Permit, *, number: int, timeout_ms: int, world: Surroundings
) -> _Attempt:
    """One attempt, and the breaker told of it; when it ends by an exception of ours, of nothing."""
    ending = Ending.NOTHING
    try:
        attempt = _exchange(call, number=number, timeout_ms=timeout_ms, world=world)
        ending = ending_of(attempt.verdict.error_code)
        return attempt
    finally:
        world.breakers.end(call.connection.name, permit, ending)


def _exchange(call: PartnerCall, *, number: int, timeout_ms: int, world: Surroundings) -> _Attempt:
    started_at, started_ms = world.now(), world.clock()
    response: TriggerResponse | None = None
    status: int | None = None
    try:
        request = call.request(timeout_ms=timeout_ms, span_id=world.new_span_id(), now=started_at)
        response = world.client.send(request)
        status = response.status
        verdict = judge_status(status)
    except ExchangeFailed as failure:
        verdict = judge_failure(failure.outcome)
        status = failure.status
    record = AttemptRecord(
        number=number,
        outcome=verdict.outcome,
        http_status=status,
        error_code=verdict.error_code.value if verdict.error_code else "",
        started_at=started_at,
        duration_ms=round(world.clock() - started_ms),
        retry_after_ms=response.retry_after_ms if response else None,
    )
    return _Attempt(record, verdict, response)


def _conclude(attempts: list[_Attempt]) -> CallResult:
    last = attempts[-1]
    code = last.verdict.error_code
    return CallResult(
        response=last.response,
        attempts=tuple(attempt.record for attempt in attempts),
        certainty=fold_certainty(attempt.verdict.certainty for attempt in attempts),
        error_code=code,
        retryable=last.verdict.is_retryable,
        retry_after_ms=last.record.retry_after_ms if last.verdict.is_retryable else None,
        message=_message(last),
    )


def _message(attempt: _Attempt) -> str:
    code = attempt.verdict.error_code
    if code is None:
        return ""
    if attempt.verdict.certainty is Certainty.REFUSED and attempt.response is not None:
        return partner_message(attempt.response.body) or default_message(code)
    return default_message(code)


def _cut_off(attempts: list[_Attempt], *, rest_ms: int) -> CallResult:
    """The call ends when its next attempt was to begin: the last one was told already."""
    if not attempts:
        return replace(_not_tried(ErrorCode.TRIGGER_UNAVAILABLE), retry_after_ms=rest_ms)
    return replace(_held_back(_conclude(attempts), rest_ms), is_last_told=True)


def _held_back(result: CallResult, rest_ms: int) -> CallResult:
    return replace(result, retry_after_ms=max(result.retry_after_ms or 0, rest_ms))


def _not_tried(code: ErrorCode) -> CallResult:
    return CallResult(
        response=None,
        attempts=(),
        certainty=Certainty.NOT_SENT,
        error_code=code,
        retryable=True,
        message=default_message(code),
    )


class Happened(StrEnum):
    """What a status endpoint says about an effect."""

    YES = "YES"
    NO = "NO"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """Whether the call had its effect; if so, `result` is what the partner says of it."""

    happened: Happened
    result: JsonValue = None
    attempt: AttemptRecord | None = None
    retry_after_ms: int | None = None


def ask_status(
    call: PartnerCall,
    *,
    expect: Callable[[JsonValue], bool],
    world: Surroundings,
    deadline_ms: float | None = None,
) -> StatusAnswer:
    """Ask once whether a call had its effect; `expect` judges the body of a 2xx answer.

    UNKNOWN at once when the breaker is open, the cap is reached, or no time is left.
    """
    with world.caps.slot(call.connection.name) as is_free:
        timeout_ms = _first_timeout(call, deadline_ms, clock=world.clock)
        if not is_free or timeout_ms < 1:
            return StatusAnswer(Happened.UNKNOWN)
        permit = world.breakers.ask(call.connection.name, lasting_ms=timeout_ms)
        if not permit.is_granted:
            return StatusAnswer(Happened.UNKNOWN, retry_after_ms=permit.retry_after_ms)
        attempt = _try_once(call, permit, number=1, timeout_ms=timeout_ms, world=world)
    answer = attempt.response
    if answer is None or attempt.verdict.error_code is not None:
        is_absent = answer is not None and answer.status == 404
        return StatusAnswer(Happened.NO if is_absent else Happened.UNKNOWN, None, attempt.record)
    if expect(answer.body):
        return StatusAnswer(Happened.YES, answer.body, attempt.record)
    return StatusAnswer(Happened.NO, None, attempt.record)
