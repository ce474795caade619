"""The attempt loop with a clock that is set, no waiting, and a partner that follows a script."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import pytest

from config.jsonvalues import JsonValue
from executions.breakers import Breakers
from executions.breaking import Phase, Policy
from executions.enums import AttemptOutcome, ErrorCode
from executions.http_client import HttpClient
from executions.outcomes import (
    AttemptRecord,
    CallResult,
    Certainty,
    ExchangeFailed,
    TriggerRequest,
    TriggerResponse,
)
from executions.partner_calls import PartnerCall
from executions.surroundings import ConnectionCaps, Surroundings, get_surroundings
from executions.tests.raw_partner import RawPartner, answer, says
from executions.triggers import Happened, StatusAnswer, ask_status, call_partner
from workflows.connections import ConnectionValue
from workflows.enums import AuthKind
from workflows.retry import RetryPolicy

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
CALL = PartnerCall(
    connection=ConnectionValue(name="bank", base_url="https://bank.test", allow_private=True),
    method="POST",
    url="https://bank.test/pay",
    body=b"{}",
    timeout_ms=1_000,
    idempotency_key="key-1",
    execution_id="execution-1",
    step_id="step-1",
    trace_id="0af7651916cd43dd8448eb211c80319c",
)
THREE_RETRIES = RetryPolicy(max_retries=3, initial_delay_ms=100, max_delay_ms=5_000)
OK = TriggerResponse(200, {"id": 7})
BREAKER_FAILURES = 5

Act = TriggerResponse | AttemptOutcome


@dataclass
class Stage:
    """A partner with a script, and the world around it. Every answer takes `answer_ms`."""

    script: list[Act]
    answer_ms: int = 10
    jitter: float = 1.0
    time_ms: float = 0.0
    requests: list[TriggerRequest] = field(default_factory=list)
    sleeps_ms: list[float] = field(default_factory=list)
    caps: ConnectionCaps = field(default_factory=lambda: ConnectionCaps(1))
    breakers: Breakers = field(init=False)

    def __post_init__(self) -> None:
        self.breakers = Breakers(
            clock_ms=lambda: self.time_ms, policy=lambda: Policy(BREAKER_FAILURES, 30_000)
        )

    def send(self, request: TriggerRequest) -> TriggerResponse:
        self.requests.append(request)
        self.time_ms += self.answer_ms
        act = self.script.pop(0)
        if isinstance(act, AttemptOutcome):
            raise ExchangeFailed(act, "as the script says")
        return act

    def sleep(self, seconds: float) -> None:
        self.sleeps_ms.append(round(seconds * 1000))
        self.time_ms += seconds * 1000

    @property
    def world(self) -> Surroundings:
        return Surroundings(
            client=self,
            caps=self.caps,
            clock=lambda: self.time_ms,
            now=lambda: START + timedelta(milliseconds=self.time_ms),
            sleep=self.sleep,
            jitter=lambda: self.jitter,
            new_span_id=lambda: f"{len(self.requests) + 1:016x}",
            breakers=self.breakers,
        )

    def call(
        self,
        *,
        policy: RetryPolicy = THREE_RETRIES,
        deadline_ms: float | None = None,
        on_failed_attempt: Callable[[AttemptRecord], None] = lambda _record: None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> CallResult:
        return call_partner(
            CALL,
            policy=policy,
            world=self.world,
            deadline_ms=deadline_ms,
            on_failed_attempt=on_failed_attempt,
            may_send=may_send,
        )


def test_result_of_the_first_attempt() -> None:
    stage = Stage([OK])
    assert stage.call() == CallResult(
        response=OK,
        attempts=(
            AttemptRecord(
                number=1,
                outcome=AttemptOutcome.ANSWERED,
                http_status=200,
                error_code="",
                started_at=START,
                duration_ms=10,
            ),
        ),
        certainty=Certainty.ANSWERED,
    )
    assert stage.sleeps_ms == []


@pytest.mark.parametrize(
    "act",
    [
        AttemptOutcome.CONNECT_FAILED,
        AttemptOutcome.TLS_FAILED,
        AttemptOutcome.TIMED_OUT,
        AttemptOutcome.LINE_CUT,
        *[TriggerResponse(status, None) for status in (408, 425, 429, 500, 502, 503, 504)],
    ],
    ids=str,
)
def test_is_tried_again(act: Act) -> None:
    stage = Stage([act, act, OK])
    result = stage.call()
    assert result.certainty is Certainty.ANSWERED
    assert len(result.attempts) == 3
    assert stage.sleeps_ms == [100, 200]


@pytest.mark.parametrize(
    "act",
    [
        AttemptOutcome.FORBIDDEN,
        AttemptOutcome.TOO_LARGE,
        AttemptOutcome.NOT_JSON,
        *[TriggerResponse(status, None) for status in (301, 400, 401, 404, 409, 422, 501, 505)],
    ],
    ids=str,
)
def test_is_not_tried_again(act: Act) -> None:
    stage = Stage([act, OK])
    result = stage.call()
    assert len(result.attempts) == 1
    assert stage.sleeps_ms == []


@pytest.mark.parametrize(
    ("jitter", "sleeps_ms"), [(0.0, [50, 100, 200]), (1.0, [100, 200, 400]), (0.5, [75, 150, 300])]
)
def test_waits_grow_and_jitter(jitter: float, sleeps_ms: list[float]) -> None:
    stage = Stage([AttemptOutcome.LINE_CUT] * 4, jitter=jitter)
    stage.call()
    assert stage.sleeps_ms == sleeps_ms


def test_retries_used_up_leave_the_outcome_unknown() -> None:
    stage = Stage([TriggerResponse(503, {"message": "internal: db-7 is down"}, 250)] * 4)
    result = stage.call()
    assert [attempt.number for attempt in result.attempts] == [1, 2, 3, 4]
    assert {attempt.error_code for attempt in result.attempts} == {"TRIGGER_UNAVAILABLE"}
    assert (result.certainty, result.error_code) == (
        Certainty.UNKNOWN,
        ErrorCode.TRIGGER_UNAVAILABLE,
    )
    assert (result.retryable, result.retry_after_ms, result.http_status) == (True, 250, 503)
    # a failing partner's own words are for its operators
    assert result.message == "The partner is not available at the moment."


def test_every_attempt_has_the_same_key_and_trace_and_its_own_span() -> None:
    stage = Stage([AttemptOutcome.TIMED_OUT, OK])
    stage.call()
    sent = [dict(request.headers) for request in stage.requests]
    assert [headers["Idempotency-Key"] for headers in sent] == ["key-1", "key-1"]
    assert [headers["traceparent"] for headers in sent] == [
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000002-01",
    ]
    assert stage.requests[0].body == stage.requests[1].body == b"{}"


def test_every_attempt_is_signed_anew() -> None:
    stage = Stage([AttemptOutcome.TIMED_OUT, OK])
    signing = replace(CALL.connection, auth_kind=AuthKind.HMAC, secret="s3cret")  # type: ignore[type-var]
    policy = RetryPolicy(max_retries=1, initial_delay_ms=2_000)
    call_partner(replace(CALL, connection=signing), policy=policy, world=stage.world)
    times = [
        dict(request.headers)["X-Handrail-Signature"].partition(",")[0]
        for request in stage.requests
    ]
    assert times == ["t=1772366400", "t=1772366402"]


def test_timeout_then_refusal_is_a_refusal() -> None:
    refusal = TriggerResponse(422, {"message": "Account closed"})
    result = Stage([AttemptOutcome.TIMED_OUT, refusal]).call()
    assert (result.certainty, result.error_code) == (Certainty.REFUSED, ErrorCode.TRIGGER_REJECTED)
    assert (result.message, result.retryable) == ("Account closed", False)
    assert result.response == refusal


def test_timeout_then_no_connection_stays_unknown() -> None:
    result = Stage([AttemptOutcome.TIMED_OUT, *[AttemptOutcome.CONNECT_FAILED] * 3]).call()
    assert result.certainty is Certainty.UNKNOWN
    assert result.error_code is ErrorCode.TRIGGER_UNAVAILABLE


def test_never_connected_is_not_sent() -> None:
    result = Stage([AttemptOutcome.CONNECT_FAILED] * 4).call()
    assert (result.certainty, result.response) == (Certainty.NOT_SENT, None)


def test_refusal_without_words_gets_the_general_ones() -> None:
    result = Stage([TriggerResponse(403, None)]).call()
    assert result.message == "The partner refused the request."


def test_header_that_cannot_be_sent_is_an_attempt_that_was_forbidden() -> None:
    stage = Stage([])
    call = replace(CALL, headers=(("X-Name", "a\r\nb"),))
    result = call_partner(call, policy=THREE_RETRIES, world=stage.world)
    assert [attempt.outcome for attempt in result.attempts] == [AttemptOutcome.FORBIDDEN]
    assert (result.certainty, result.error_code, result.retryable) == (
        Certainty.NOT_SENT,
        ErrorCode.ENDPOINT_FORBIDDEN,
        False,
    )
    assert stage.requests == []


# Retry-After


def test_retry_after_is_the_least_wait() -> None:
    stage = Stage([TriggerResponse(429, None, 3_000), OK])
    stage.call()
    assert stage.sleeps_ms == [3_000]


def test_retry_after_beyond_the_longest_wait_ends_the_call() -> None:
    stage = Stage([TriggerResponse(429, None, 6_000), OK])
    result = stage.call()
    assert stage.sleeps_ms == []
    assert (result.certainty, result.error_code) == (
        Certainty.NOT_SENT,
        ErrorCode.TRIGGER_UNAVAILABLE,
    )
    assert (result.retryable, result.retry_after_ms) == (True, 6_000)


# What the caller hears meanwhile


def test_caller_hears_of_each_failed_attempt_before_the_wait() -> None:
    heard: list[tuple[int, float]] = []
    stage = Stage([AttemptOutcome.LINE_CUT, AttemptOutcome.TIMED_OUT, OK])
    result = stage.call(
        on_failed_attempt=lambda record: heard.append((record.number, stage.time_ms))
    )
    assert heard == [(1, 10), (2, 120)]
    assert result.attempts[-1].started_at == START + timedelta(milliseconds=320)


def test_last_attempt_is_in_the_result_only() -> None:
    heard: list[AttemptRecord] = []
    result = Stage([AttemptOutcome.LINE_CUT] * 2).call(
        policy=RetryPolicy(max_retries=1, initial_delay_ms=0), on_failed_attempt=heard.append
    )
    assert heard == [result.attempts[0]]


def test_caller_that_lost_its_lease_ends_the_call() -> None:
    class LeaseLost(Exception):
        pass

    def lose(_record: AttemptRecord) -> None:
        raise LeaseLost

    stage = Stage([AttemptOutcome.LINE_CUT, OK, OK])
    with pytest.raises(LeaseLost):
        stage.call(on_failed_attempt=lose)
    assert len(stage.requests) == 1
    assert stage.call().certainty is Certainty.ANSWERED  # its slot was given back


# The budget of a synchronous call


@pytest.mark.parametrize(
    ("deadline_ms", "timeouts_ms"),
    [
        (None, [1_000, 1_000]),
        (400, [400]),  # the first attempt gets what is left
        (1_109, [1_000]),  # 10 for the first, 100 of waiting, and 999 are too few for the second
        (1_110, [1_000, 1_000]),
    ],
)
def test_no_attempt_starts_that_cannot_end_in_time(
    deadline_ms: float | None, timeouts_ms: list[int]
) -> None:
    stage = Stage([AttemptOutcome.LINE_CUT, OK])
    stage.call(deadline_ms=deadline_ms)
    assert [request.timeout_ms for request in stage.requests] == timeouts_ms


def test_nothing_is_sent_when_no_time_is_left() -> None:
    stage = Stage([OK], time_ms=500)
    result = stage.call(deadline_ms=500.9)
    assert result == CallResult(
        response=None,
        attempts=(),
        certainty=Certainty.NOT_SENT,
        error_code=ErrorCode.TRIGGER_TIMEOUT,
        retryable=True,
        message="The partner did not answer in time.",
    )
    assert stage.requests == []


# The cap


def test_call_beyond_the_cap_is_answered_at_once() -> None:
    stage = Stage([OK])
    with stage.caps.slot("bank"):
        result = stage.call()
    assert result == CallResult(
        response=None,
        attempts=(),
        certainty=Certainty.NOT_SENT,
        error_code=ErrorCode.TRIGGER_UNAVAILABLE,
        retryable=True,
        message="The partner is not available at the moment.",
    )
    assert (stage.requests, stage.sleeps_ms) == ([], [])


def test_cap_is_each_connections_own() -> None:
    stage = Stage([OK])
    with stage.caps.slot("another"):
        assert stage.call().certainty is Certainty.ANSWERED


def test_cap_counts_calls_that_are_under_way() -> None:
    caps = ConnectionCaps(2)
    with caps.slot("bank") as first, caps.slot("bank") as second, caps.slot("bank") as third:
        assert (first, second, third) == (True, True, False)
    with caps.slot("bank") as again:
        assert again


def test_one_slow_partner_takes_its_slots_and_no_more() -> None:
    entered, release = Event(), Event()

    class Slow(Stage):
        def send(self, request: TriggerRequest) -> TriggerResponse:
            entered.set()
            release.wait(20)
            return super().send(request)

    slow = Slow([OK])
    thread = Thread(target=slow.call)
    thread.start()
    assert entered.wait(10)
    second = Stage([OK], caps=slow.caps).call()
    release.set()
    thread.join(10)
    assert second.error_code is ErrorCode.TRIGGER_UNAVAILABLE
    assert len(slow.requests) == 1


# The breaker

DOWN = AttemptOutcome.CONNECT_FAILED
TEN_RETRIES = RetryPolicy(max_retries=10, initial_delay_ms=100, backoff_multiplier=1)


def opened(stage: Stage) -> Stage:
    """The stage after five calls that failed just now."""
    stage.script[:0] = [DOWN] * BREAKER_FAILURES
    for _ in range(BREAKER_FAILURES):
        stage.call(policy=RetryPolicy())
    stage.requests.clear()
    assert stage.breakers.look("bank").phase is Phase.OPEN
    return stage


def test_open_breaker_answers_at_once() -> None:
    stage = opened(Stage([OK]))
    stage.time_ms += 12_000
    assert stage.call() == CallResult(
        response=None,
        attempts=(),
        certainty=Certainty.NOT_SENT,
        error_code=ErrorCode.TRIGGER_UNAVAILABLE,
        retryable=True,
        retry_after_ms=18_000,
        message="The partner is not available at the moment.",
    )
    assert (stage.requests, stage.sleeps_ms) == ([], [])


def test_breaker_is_each_connections_own() -> None:
    stage = opened(Stage([OK]))
    other = replace(CALL, connection=replace(CALL.connection, name="another"))  # type: ignore[type-var]
    result = call_partner(other, policy=THREE_RETRIES, world=stage.world)
    assert result.certainty is Certainty.ANSWERED


def test_who_may_not_send_any_more_sends_nothing() -> None:
    stage = Stage([OK])
    result = stage.call(may_send=lambda: False)
    assert (result.certainty, result.attempts) == (Certainty.NOT_SENT, ())
    assert (result.error_code, result.retryable) == (ErrorCode.TRIGGER_UNAVAILABLE, True)
    assert stage.requests == []


def test_right_to_send_is_asked_for_before_each_attempt() -> None:
    told: list[AttemptRecord] = []
    stage = Stage([AttemptOutcome.TIMED_OUT, OK])
    result = stage.call(on_failed_attempt=told.append, may_send=lambda: not told)
    assert (result.certainty, result.is_last_told) == (Certainty.UNKNOWN, True)
    assert told == list(result.attempts)
    assert len(stage.requests) == 1


def test_attempt_that_opens_it_ends_the_call_without_a_wait() -> None:
    told: list[AttemptRecord] = []
    stage = Stage([DOWN] * 11)
    result = stage.call(policy=TEN_RETRIES, on_failed_attempt=told.append)
    assert [attempt.number for attempt in result.attempts] == [1, 2, 3, 4, 5]
    assert stage.sleeps_ms == [100] * 4
    assert told == list(result.attempts[:4])
    assert (result.retryable, result.retry_after_ms, result.is_last_told) == (True, 30_000, False)


def test_breaker_that_opens_during_a_wait_ends_the_call() -> None:
    told: list[AttemptRecord] = []

    class Meanwhile(Stage):
        """The same world, in which others fail while we wait."""

        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            others = Stage([DOWN] * 4)
            others.breakers, others.time_ms = self.breakers, self.time_ms
            for _ in range(4):
                others.call(policy=RetryPolicy())

    stage = Meanwhile([AttemptOutcome.TIMED_OUT, OK])
    result = stage.call(on_failed_attempt=told.append)
    assert told == list(result.attempts)
    assert (len(stage.requests), result.is_last_told) == (1, True)
    assert (result.certainty, result.error_code) == (
        Certainty.UNKNOWN,
        ErrorCode.TRIGGER_TIMEOUT,
    )
    assert (result.retryable, result.retry_after_ms) == (True, 30_000)


def test_wait_beyond_the_cooldown_is_worth_it() -> None:
    stage = opened(Stage([DOWN, OK]))
    stage.time_ms += 30_000
    slow = RetryPolicy(max_retries=1, initial_delay_ms=30_000, max_delay_ms=30_000)
    result = stage.call(policy=slow)
    assert (len(result.attempts), result.certainty) == (2, Certainty.ANSWERED)
    assert stage.breakers.look("bank").phase is Phase.CLOSED


@pytest.mark.parametrize(
    ("act", "phase"),
    [
        (OK, Phase.CLOSED),
        (TriggerResponse(422, None), Phase.CLOSED),
        (TriggerResponse(302, None), Phase.CLOSED),
        (AttemptOutcome.NOT_JSON, Phase.CLOSED),
        (AttemptOutcome.FORBIDDEN, Phase.HALF_OPEN),
        (TriggerResponse(429, None), Phase.OPEN),
        (TriggerResponse(501, None), Phase.OPEN),
        (AttemptOutcome.TIMED_OUT, Phase.OPEN),
        (AttemptOutcome.TLS_FAILED, Phase.OPEN),
    ],
    ids=str,
)
def test_what_a_probe_tells(act: Act, phase: Phase) -> None:
    stage = opened(Stage([act, OK]))
    stage.time_ms += 30_000
    stage.call()
    assert len(stage.requests) == 1
    assert stage.breakers.look("bank").phase is phase


def test_call_that_broke_gives_its_probe_back() -> None:
    class Broken(Stage):
        def send(self, request: TriggerRequest) -> TriggerResponse:
            if len(self.script) == 1:
                raise MemoryError
            return super().send(request)

    stage = opened(Broken([OK, OK]))
    stage.time_ms += 30_000
    stage.script.pop()
    with pytest.raises(MemoryError):
        stage.call()
    assert stage.breakers.ask("bank", lasting_ms=1).is_granted


def test_call_beyond_the_cap_takes_no_probe() -> None:
    stage = opened(Stage([OK]))
    stage.time_ms += 30_000
    with stage.caps.slot("bank"):
        assert stage.call().error_code is ErrorCode.TRIGGER_UNAVAILABLE
    assert stage.call().certainty is Certainty.ANSWERED


# The status endpoint


def _is_done(body: JsonValue) -> bool:
    return isinstance(body, dict) and body.get("done") is True


@pytest.mark.parametrize(
    ("act", "happened", "result"),
    [
        (TriggerResponse(200, {"done": True}), Happened.YES, {"done": True}),
        (TriggerResponse(200, {"done": False}), Happened.NO, None),
        (TriggerResponse(204, None), Happened.NO, None),
        (TriggerResponse(404, {"done": True}), Happened.NO, None),
        (TriggerResponse(400, None), Happened.UNKNOWN, None),
        (TriggerResponse(410, None), Happened.UNKNOWN, None),
        (TriggerResponse(429, None), Happened.UNKNOWN, None),
        (TriggerResponse(302, None), Happened.UNKNOWN, None),
        (TriggerResponse(500, None), Happened.UNKNOWN, None),
        (AttemptOutcome.NOT_JSON, Happened.UNKNOWN, None),
        (AttemptOutcome.TIMED_OUT, Happened.UNKNOWN, None),
        (AttemptOutcome.FORBIDDEN, Happened.UNKNOWN, None),
    ],
    ids=str,
)
def test_what_a_status_endpoint_says(act: Act, happened: Happened, result: JsonValue) -> None:
    stage = Stage([act])
    status = ask_status(CALL, expect=_is_done, world=stage.world)
    assert (status.happened, status.result) == (happened, result)
    assert status.attempt is not None
    assert len(stage.requests) == 1


def test_status_is_asked_once_within_cap_and_time() -> None:
    stage = Stage([])
    with stage.caps.slot("bank"):
        capped = ask_status(CALL, expect=_is_done, world=stage.world)
    late = ask_status(CALL, expect=_is_done, world=stage.world, deadline_ms=0)
    assert capped == late == StatusAnswer(Happened.UNKNOWN)


def test_status_is_not_asked_while_the_breaker_is_open() -> None:
    stage = opened(Stage([]))
    status = ask_status(CALL, expect=_is_done, world=stage.world)
    assert status == StatusAnswer(Happened.UNKNOWN, retry_after_ms=30_000)
    assert stage.requests == []


def test_status_question_can_be_the_probe() -> None:
    stage = opened(Stage([TriggerResponse(404, None)]))
    stage.time_ms += 30_000
    assert ask_status(CALL, expect=_is_done, world=stage.world).happened is Happened.NO
    assert stage.breakers.look("bank").phase is Phase.CLOSED


# With a real partner


def _really(caps: ConnectionCaps, client: HttpClient, sleeps: list[float]) -> Surroundings:
    return replace(get_surroundings(), client=client, caps=caps, sleep=sleeps.append)


@pytest.fixture
def client() -> Iterable[HttpClient]:
    client = HttpClient(pool_size=2)
    yield client
    client.close()


def test_faults_of_a_real_partner_until_it_answers(client: HttpClient) -> None:
    sleeps: list[float] = []
    faults = says(
        answer(b"", b"Retry-After: 2", status=b"429 Slow Down"),
        answer(b"", status=b"503 Busy"),
        answer(b'{"id": 7}'),
    )
    with RawPartner(faults) as partner:
        result = call_partner(
            replace(CALL, url=partner.url()),
            policy=THREE_RETRIES,
            world=_really(ConnectionCaps(1), client, sleeps),
        )
    assert (result.response, result.certainty) == (OK, Certainty.ANSWERED)
    assert [attempt.http_status for attempt in result.attempts] == [429, 503, 200]
    assert sleeps[0] == 2
    assert 0.1 <= sleeps[1] <= 0.2
    keys = [
        request.split(b"Idempotency-Key: ")[1].split(b"\r\n")[0] for request in partner.requests
    ]
    assert keys == [b"key-1"] * 3
    spans = {request.split(b"traceparent: ")[1].split(b"\r\n")[0] for request in partner.requests}
    assert len(spans) == 3


def test_partner_that_cuts_the_line_each_time_leaves_it_unknown(client: HttpClient) -> None:
    with RawPartner(lambda _line, _number: False) as partner:
        result = call_partner(
            replace(CALL, url=partner.url()),
            policy=RetryPolicy(max_retries=1, initial_delay_ms=0),
            world=_really(ConnectionCaps(1), client, []),
        )
    assert [attempt.outcome for attempt in result.attempts] == [AttemptOutcome.LINE_CUT] * 2
    assert (result.certainty, result.error_code) == (
        Certainty.UNKNOWN,
        ErrorCode.TRIGGER_UNAVAILABLE,
    )
    assert len(partner.requests) == 2
