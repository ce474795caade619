"""Our calls against the sandbox partner, which plays each fault and counts the effects."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from config.jsonvalues import dump_compact
from executions.enums import AttemptOutcome, ErrorCode
from executions.http_client import HttpClient
from executions.outcomes import CallResult, Certainty
from executions.partner_calls import PartnerCall
from executions.surroundings import ConnectionCaps, Surroundings, get_surroundings
from executions.triggers import Happened, StatusAnswer, ask_status, call_partner
from sandbox.testing import FakePartner
from workflows.connections import ConnectionValue
from workflows.enums import AuthKind
from workflows.retry import RetryPolicy

PATH = "/api/transactions/transfer"
BODY = dump_compact({"recipientAccount": "9876543210", "amount": 5000})
KEY = "7c6f1ab5-0b5c-4f3c-8a5b-0d6a3f7d3e10"
ONE_RETRY = RetryPolicy(max_retries=1, initial_delay_ms=0)


@pytest.fixture
def partner() -> Iterator[FakePartner]:
    with FakePartner() as partner:
        yield partner


@pytest.fixture
def world() -> Iterator[Surroundings]:
    client = HttpClient(pool_size=4)
    yield replace(
        get_surroundings(), client=client, caps=ConnectionCaps(4), sleep=lambda _seconds: None
    )
    client.close()


def call_to(partner: FakePartner) -> PartnerCall:
    return PartnerCall(
        connection=ConnectionValue(name="bank", base_url=partner.url, allow_private=True),
        method="POST",
        url=partner.url + PATH,
        body=BODY,
        timeout_ms=10_000,
        idempotency_key=KEY,
        execution_id="execution-1",
        step_id="step-1",
        trace_id="0af7651916cd43dd8448eb211c80319c",
    )


def transfer(
    partner: FakePartner,
    world: Surroundings,
    *,
    connection: ConnectionValue | None = None,
    timeout_ms: int = 10_000,
) -> CallResult:
    call = replace(call_to(partner), timeout_ms=timeout_ms)
    if connection is not None:
        call = replace(call, connection=connection)
    return call_partner(call, policy=ONE_RETRY, world=world)


def look_up(partner: FakePartner, world: Surroundings) -> StatusAnswer:
    call = replace(
        call_to(partner), method="GET", url=f"{partner.url}/api/effects/{KEY}", body=None
    )
    return ask_status(call, expect=lambda body: isinstance(body, dict), world=world)


def outcomes(result: CallResult) -> list[AttemptOutcome]:
    return [attempt.outcome for attempt in result.attempts]


def test_transfer_is_done_once(partner: FakePartner, world: Surroundings) -> None:
    result = transfer(partner, world)
    assert (outcomes(result), result.certainty) == ([AttemptOutcome.ANSWERED], Certainty.ANSWERED)
    assert len(partner.effects(PATH)) == 1


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("cut_before", AttemptOutcome.LINE_CUT),
        ("cut_after", AttemptOutcome.LINE_CUT),
        ("cut_middle", AttemptOutcome.LINE_CUT),
        ("hang", AttemptOutcome.TIMED_OUT),
        ("drip", AttemptOutcome.TIMED_OUT),
        ("drip_headers", AttemptOutcome.TIMED_OUT),
    ],
)
def test_fault_that_is_tried_again_has_one_effect(
    partner: FakePartner,
    world: Surroundings,
    kind: str,
    outcome: AttemptOutcome,
) -> None:
    """Whether the first attempt was acted on or not, the second has the same key."""
    partner.fault(PATH, kind)
    result = transfer(partner, world, timeout_ms=1_500)
    assert outcomes(result) == [outcome, AttemptOutcome.ANSWERED]
    assert result.certainty is Certainty.ANSWERED
    assert len(partner.effects(PATH)) == 1
    assert len(partner.calls(PATH)) == 2


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("garbage", AttemptOutcome.NOT_JSON),
        ("html", AttemptOutcome.NOT_JSON),
        ("huge", AttemptOutcome.TOO_LARGE),
        ("gzip_bomb", AttemptOutcome.TOO_LARGE),
        ("redirect", AttemptOutcome.REDIRECTED),
        ("invalid_utf8", AttemptOutcome.NOT_JSON),
        ("deep_json", AttemptOutcome.NOT_JSON),
        ("bad_head", AttemptOutcome.NOT_JSON),
    ],
)
def test_unreadable_answer_is_not_tried_again_and_stays_unknown(
    partner: FakePartner, world: Surroundings, kind: str, outcome: AttemptOutcome
) -> None:
    partner.fault(PATH, kind)
    result = transfer(partner, world)
    assert outcomes(result) == [outcome]
    assert (result.certainty, result.error_code) == (
        Certainty.UNKNOWN,
        ErrorCode.TRIGGER_BAD_RESPONSE,
    )
    assert len(partner.calls()) == 1


@pytest.mark.parametrize("kind", ["empty", "content_type", "early_hints", "duplicate_headers"])
def test_odd_answer_is_an_answer(partner: FakePartner, world: Surroundings, kind: str) -> None:
    partner.fault(PATH, kind)
    result = transfer(partner, world)
    assert (outcomes(result), result.certainty) == ([AttemptOutcome.ANSWERED], Certainty.ANSWERED)


def test_status_endpoint_tells_what_an_unknown_outcome_was(
    partner: FakePartner, world: Surroundings
) -> None:
    assert look_up(partner, world).happened is Happened.NO
    partner.fault(PATH, "garbage")
    assert transfer(partner, world).certainty is Certainty.UNKNOWN
    assert look_up(partner, world).happened is Happened.YES
    assert len(partner.effects(PATH)) == 1


def test_partner_that_stops_is_not_reached(partner: FakePartner, world: Surroundings) -> None:
    """The kept connection is noticed to be closed, and a new one is refused: nothing was sent."""
    call = call_to(partner)
    call_partner(call, policy=ONE_RETRY, world=world)
    partner.stop()
    result = call_partner(call, policy=ONE_RETRY, world=world)
    assert outcomes(result) == [AttemptOutcome.CONNECT_FAILED] * 2
    assert (result.certainty, result.error_code) == (
        Certainty.NOT_SENT,
        ErrorCode.TRIGGER_UNAVAILABLE,
    )


@pytest.mark.parametrize(
    ("require", "auth_kind", "username", "header_name"),
    [
        ("bearer:s3cret", AuthKind.BEARER, "", ""),
        ("basic:alice:s3cret", AuthKind.BASIC, "alice", ""),
        ("api-key:X-Api-Key:s3cret", AuthKind.API_KEY, "", "X-Api-Key"),
        ("hmac:s3cret", AuthKind.HMAC, "", ""),
    ],
)
def test_partner_accepts_the_right_credentials_only(
    world: Surroundings, require: str, auth_kind: AuthKind, username: str, header_name: str
) -> None:
    with FakePartner(require=require) as partner:
        right = ConnectionValue(
            name="bank",
            base_url=partner.url,
            allow_private=True,
            auth_kind=auth_kind,
            username=username,
            secret="s3cret",
            header_name=header_name,
        )
        wrong = replace(right, secret="another")
        accepted = transfer(partner, world, connection=right)
        refused = transfer(partner, world, connection=wrong)
    assert accepted.certainty is Certainty.ANSWERED
    assert (refused.http_status, refused.certainty) == (401, Certainty.REFUSED)
