"""What each answer means, row by row."""

from datetime import UTC, datetime

import pytest

from config.jsonvalues import JsonValue
from executions.enums import AttemptOutcome, ErrorCode
from executions.outcomes import (
    Certainty,
    TriggerRequest,
    TriggerResponse,
    default_message,
    fold_certainty,
    judge_failure,
    judge_status,
    parse_retry_after,
    partner_message,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

ANSWERED, REFUSED = Certainty.ANSWERED, Certainty.REFUSED
NOT_SENT, UNKNOWN = Certainty.NOT_SENT, Certainty.UNKNOWN
UNAVAILABLE, REJECTED = ErrorCode.TRIGGER_UNAVAILABLE, ErrorCode.TRIGGER_REJECTED
BAD_RESPONSE = ErrorCode.TRIGGER_BAD_RESPONSE


@pytest.mark.parametrize(
    ("status", "outcome", "certainty", "code", "is_retried", "is_retryable"),
    [
        (200, AttemptOutcome.ANSWERED, ANSWERED, None, False, False),
        (204, AttemptOutcome.ANSWERED, ANSWERED, None, False, False),
        (299, AttemptOutcome.ANSWERED, ANSWERED, None, False, False),
        # redirects are not followed
        (301, AttemptOutcome.REDIRECTED, UNKNOWN, BAD_RESPONSE, False, True),
        (304, AttemptOutcome.REDIRECTED, UNKNOWN, BAD_RESPONSE, False, True),
        # a definite no
        (400, AttemptOutcome.REFUSED, REFUSED, REJECTED, False, False),
        (401, AttemptOutcome.REFUSED, REFUSED, REJECTED, False, False),
        (404, AttemptOutcome.REFUSED, REFUSED, REJECTED, False, False),
        (409, AttemptOutcome.REFUSED, REFUSED, REJECTED, False, False),
        (422, AttemptOutcome.REFUSED, REFUSED, REJECTED, False, False),
        # not worked on: tried again under the same key
        (408, AttemptOutcome.REFUSED, NOT_SENT, REJECTED, True, True),
        (425, AttemptOutcome.REFUSED, NOT_SENT, REJECTED, True, True),
        (429, AttemptOutcome.REFUSED, NOT_SENT, UNAVAILABLE, True, True),
        # may have acted
        (500, AttemptOutcome.SERVER_ERROR, UNKNOWN, UNAVAILABLE, True, True),
        (502, AttemptOutcome.SERVER_ERROR, UNKNOWN, UNAVAILABLE, True, True),
        (503, AttemptOutcome.SERVER_ERROR, UNKNOWN, UNAVAILABLE, True, True),
        (504, AttemptOutcome.SERVER_ERROR, UNKNOWN, UNAVAILABLE, True, True),
        # outside the list: not tried again by the loop
        (501, AttemptOutcome.SERVER_ERROR, UNKNOWN, UNAVAILABLE, False, True),
        (505, AttemptOutcome.SERVER_ERROR, UNKNOWN, UNAVAILABLE, False, True),
        (599, AttemptOutcome.SERVER_ERROR, UNKNOWN, UNAVAILABLE, False, True),
        # no status that HTTP knows
        (101, AttemptOutcome.NOT_JSON, UNKNOWN, BAD_RESPONSE, False, True),
        (999, AttemptOutcome.NOT_JSON, UNKNOWN, BAD_RESPONSE, False, True),
    ],
)
def test_meaning_of_a_status(
    status: int,
    outcome: AttemptOutcome,
    certainty: Certainty,
    code: ErrorCode | None,
    is_retried: bool,
    is_retryable: bool,
) -> None:
    verdict = judge_status(status)
    assert (verdict.outcome, verdict.certainty, verdict.error_code) == (outcome, certainty, code)
    assert (verdict.is_retried, verdict.is_retryable) == (is_retried, is_retryable)


@pytest.mark.parametrize(
    ("outcome", "certainty", "code", "is_retried", "is_retryable"),
    [
        (AttemptOutcome.FORBIDDEN, NOT_SENT, ErrorCode.ENDPOINT_FORBIDDEN, False, False),
        (AttemptOutcome.CONNECT_FAILED, NOT_SENT, UNAVAILABLE, True, True),
        (AttemptOutcome.TLS_FAILED, NOT_SENT, UNAVAILABLE, True, True),
        (AttemptOutcome.TIMED_OUT, UNKNOWN, ErrorCode.TRIGGER_TIMEOUT, True, True),
        (AttemptOutcome.LINE_CUT, UNKNOWN, UNAVAILABLE, True, True),
        (AttemptOutcome.TOO_LARGE, UNKNOWN, BAD_RESPONSE, False, True),
        (AttemptOutcome.NOT_JSON, UNKNOWN, BAD_RESPONSE, False, True),
    ],
)
def test_meaning_of_no_answer(
    outcome: AttemptOutcome,
    certainty: Certainty,
    code: ErrorCode,
    is_retried: bool,
    is_retryable: bool,
) -> None:
    verdict = judge_failure(outcome)
    assert (verdict.outcome, verdict.certainty, verdict.error_code) == (outcome, certainty, code)
    assert (verdict.is_retried, verdict.is_retryable) == (is_retried, is_retryable)


def test_every_outcome_has_a_meaning() -> None:
    by_status = {judge_status(status).outcome for status in (200, 302, 404, 500)}
    for outcome in set(AttemptOutcome) - by_status:
        assert judge_failure(outcome).outcome is outcome


@pytest.mark.parametrize(
    ("certainties", "known"),
    [
        ([], NOT_SENT),
        ([NOT_SENT, NOT_SENT], NOT_SENT),
        ([UNKNOWN], UNKNOWN),
        ([UNKNOWN, NOT_SENT], UNKNOWN),  # the first one may have acted all the same
        ([NOT_SENT, UNKNOWN], UNKNOWN),
        ([UNKNOWN, ANSWERED], ANSWERED),
        ([UNKNOWN, UNKNOWN, REFUSED], REFUSED),
        ([NOT_SENT, REFUSED], REFUSED),
    ],
)
def test_certainty_of_several_attempts(certainties: list[Certainty], known: Certainty) -> None:
    assert fold_certainty(certainties) is known


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"message": "Not enough money"}, "Not enough money"),
        ({"error": "limit"}, "limit"),
        ({"detail": "closed"}, "closed"),
        ({"message": "first", "error": "second"}, "first"),
        ({"message": "", "error": "second"}, "second"),
        ({"error": {"code": 7, "message": "inner"}}, "inner"),
        ({"message": 5}, ""),
        ({"error": {"code": 7}}, ""),
        ({"other": "x"}, ""),
        ("text", ""),
        (None, ""),
        ({"message": "two\r\nlines\x1b[31m"}, "two lines [31m"),
        ({"message": "\u202egnp.exe"}, "gnp.exe"),  # turns the reading direction
        ({"message": "Zażółć 😀"}, "Zażółć 😀"),
        ({"message": "x" * 10_000}, "x" * 500),
    ],
)
def test_partners_own_words_are_made_safe(body: JsonValue, text: str) -> None:
    assert partner_message(body) == text


@pytest.mark.parametrize(
    ("header", "milliseconds"),
    [
        ("0", 0),
        ("120", 120_000),
        (" 5 ", 5_000),
        ("Sun, 01 Mar 2026 12:01:00 GMT", 60_000),
        ("Sunday, 01-Mar-26 12:01:00 GMT", 60_000),  # the old form of RFC 850
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),  # is over
        ("9" * 5_000, 10**12),
        ("1.5", None),
        ("-1", None),
        ("\u0665", None),  # a digit, but not to HTTP
        ("soon", None),
        ("", None),
        ("Sun, 32 Mar 2026 12:00:00 GMT", None),
        ("Sun, 01 Mar 2026 12:01:00", None),  # no zone
    ],
)
def test_retry_after(header: str, milliseconds: int | None) -> None:
    assert parse_retry_after(header, now=NOW) == milliseconds


def test_default_message_is_the_errors_own() -> None:
    assert default_message(ErrorCode.TRIGGER_TIMEOUT) == "The partner did not answer in time."


def test_secrets_and_persons_stay_out_of_reprs() -> None:
    request = TriggerRequest(
        method="POST",
        url="https://bank.test/accounts/4711",
        headers=(("Authorization", "Bearer s3cret"),),
        body=b'{"pin": "1234"}',
        timeout_ms=100,
        allow_private=False,
        connection="bank",
    )
    assert repr(request) == (
        "TriggerRequest(method='POST', timeout_ms=100, allow_private=False, connection='bank')"
    )
    assert repr(TriggerResponse(200, {"pin": "1234"})) == (
        "TriggerResponse(status=200, retry_after_ms=None)"
    )
