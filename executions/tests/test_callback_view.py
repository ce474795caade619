"""`POST /callbacks/<token>`: statuses, sentences and headers; what becomes of a step that answers later."""

import http.client
import io
import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import OperationalError
from django.test import Client
from prometheus_client import REGISTRY
from pytest_django import DjangoAssertNumQueries
from structlog.testing import capture_logs

from config import rate_limits
from config.jsonvalues import JsonObject
from executions import callback_tokens, callbacks, worker
from executions.callback_tokens import new_token, open_callback
from executions.callback_view import STATUSES
from executions.enums import ErrorCode, RunStatus, WorkflowExecutionStatus
from executions.models import StepRun
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.servers import WebServer
from executions.tests.waiting import HOUR, SECRET, signed, waiting_run
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow
from workflows.connections import forget_connections, set_connection

pytestmark = pytest.mark.django_db

KYC = "/api/kyc/checks"
BODY = b'{"verified": true, "checkId": "c-1"}'
OTHER = b'{"verified": false}'
RESULT: JsonObject = {"verified": True, "checkId": "c-1"}
PERSON: JsonObject = {"fullName": "Ada", "dateOfBirth": "1990-01-01", "documentNumber": "X1234567"}
SUCCEEDED, UNKNOWN, WAITING = RunStatus.SUCCEEDED, RunStatus.UNKNOWN, RunStatus.WAITING


@pytest.fixture(autouse=True)
def _fresh_connections() -> Iterator[None]:
    yield
    forget_connections()


@pytest.fixture
def unapplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker applies what is kept: these runs have nothing behind them."""
    monkeypatch.setattr(worker, "work_off", lambda _run_id: False)


def post(path: str, body: bytes = BODY, **headers: Any) -> Any:
    strict = Client(enforce_csrf_checks=True, raise_request_exception=False)
    return strict.post(path, body, content_type="application/json", **headers)


def told(response: Any) -> tuple[int, Any]:
    return response.status_code, json.loads(response.content)


def refused(response: Any) -> tuple[int, str]:
    status, body = told(response)
    (sentence,) = body.values()
    assert list(body) == ["error"]
    return status, sentence


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("handrail_callbacks_total", {"outcome": outcome}) or 0.0


# --- the door -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unapplied")
@pytest.mark.parametrize("slash", ["", "/"])
def test_taken(slash: str) -> None:
    waiting = waiting_run(callback_secret=SECRET)
    path = waiting.path + slash
    accepted, repeated = counted("ACCEPTED"), counted("REPEATED")
    for _ in range(2):
        response = post(path, HTTP_X_HANDRAIL_SIGNATURE=signed(BODY))
        assert told(response) == (200, {"status": "accepted"})
    assert open_callback(waiting.row) == RESULT
    assert (counted("ACCEPTED"), counted("REPEATED")) == (accepted + 1, repeated + 1)


@pytest.mark.usefixtures("unapplied")
def test_answers_are_data_without_cookies() -> None:
    for path in (waiting_run().path, f"/callbacks/{new_token().token}"):
        response = post(path, HTTP_COOKIE="sessionid=x")
        assert response["Content-Type"] == "application/json"
        assert response["Cache-Control"] == "no-store"
        assert response["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["Referrer-Policy"] == "same-origin"
        assert response.cookies == {}
        assert "Set-Cookie" not in response


@pytest.mark.usefixtures("unapplied")
def test_each_refusal_has_its_status_and_sentence() -> None:
    unknown = f"/callbacks/{new_token().token}"
    guarded = waiting_run(callback_secret=SECRET).path
    open_ = waiting_run().path
    over = waiting_run(callback_expires_at="2020-01-01T00:00:00Z").path
    ended = waiting_run(SUCCEEDED).path
    taken = waiting_run().path
    post(taken)
    large = b" " * (callbacks.MAX_CALLBACK_BYTES + 1)
    table = [
        (post(unknown), 404, "There is no such callback."),
        (post("/callbacks/1"), 404, "There is no such callback."),
        (post(open_, b"{"), 400, "The body is not JSON that can be kept."),
        (post(open_, large), 413, "The body may have 1048576 bytes."),
        (post(open_, HTTP_CONTENT_ENCODING="gzip"), 415, "Send the body as it is, not packed."),
        (post(open_, CONTENT_LENGTH="x"), 400, "Content-Length is not a number."),
        (post(over), 410, "Nobody waits for this callback any more."),
        (post(ended), 409, "Another answer was taken before this one."),
        (post(taken, OTHER), 409, "Another answer was taken before this one."),
    ]
    for response, status, sentence in table:
        assert refused(response) == (status, sentence)
    set_connection(name="bank", base_url="https://bank.example.com", callback_secret=SECRET)
    sentence = "The callback needs a good signature, made within the last five minutes."
    assert refused(post(guarded)) == (401, sentence)
    StepRun.objects.update(connection="gone")
    gone = post(guarded)
    sentence = "The signature cannot be checked at the moment; post the same again later."
    assert refused(gone) == (503, sentence)
    assert gone["Retry-After"] == "60"


def test_every_refusal_of_the_engine_has_a_status() -> None:
    assert set(STATUSES) == set(callbacks.CallbackRefused.__subclasses__())


def chunked(sent: bytes, **environment: Any) -> dict[str, Any]:
    """A body without a length, as far as it came."""
    return {
        "CONTENT_LENGTH": "",
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input": io.BytesIO(sent),
        **environment,
    }


@pytest.mark.usefixtures("unapplied")
@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        # the line was cut: what came reads like another answer
        ({"CONTENT_LENGTH": "3", "wsgi.input": io.BytesIO(b"")}, "The body ended early."),
        ({"CONTENT_LENGTH": "3", "wsgi.input": io.BytesIO(b"12")}, "The body ended early."),
        # nobody can tell whether it was
        (chunked(b"", **{"wsgi.input_terminated": True}), "Send such a body with its length."),
        (chunked(b" \n", **{"wsgi.input_terminated": True}), "Send such a body with its length."),
        (chunked(b"12", **{"wsgi.input_terminated": True}), "Send such a body with its length."),
        # the server leaves its end to us
        (chunked(b""), "Send the body with its length."),
    ],
)
def test_part_of_an_answer_is_none(environment: dict[str, Any], sentence: str) -> None:
    waiting = waiting_run()
    before = waiting.columns
    assert refused(post(waiting.path, **environment)) == (400, sentence)
    assert waiting.columns == before


@pytest.mark.usefixtures("unapplied")
@pytest.mark.parametrize("body", [b'{"a": 1}\n', b"[1]", b'"x"', b"true", b"12 "])
def test_what_ends_by_itself_needs_no_length(body: bytes) -> None:
    waiting = waiting_run()
    response = post(waiting.path, **chunked(body, **{"wsgi.input_terminated": True}))
    assert response.status_code == 200
    assert open_callback(waiting.row) == json.loads(body)


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
def test_callbacks_are_posted(
    method: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    path = waiting_run().path
    with django_assert_num_queries(0):
        response = getattr(Client(), method)(path)
    assert (response.status_code, response["Allow"]) == (405, "POST")


def test_what_is_no_token_costs_no_query(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    with django_assert_num_queries(0):
        assert post("/callbacks/" + "x" * 44).status_code == 404


def test_an_address_has_its_rate(
    settings: Any, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    path = waiting_run().path
    settings.RATE_LIMIT_ADDRESS = "2/minute"
    rate_limits.forget()
    for _ in range(2):
        assert post("/callbacks/x", REMOTE_ADDR="203.0.113.9").status_code == 404
    with django_assert_num_queries(0):
        response = post(path, REMOTE_ADDR="203.0.113.9")
    assert refused(response) == (429, "Too many requests; wait.")
    assert 1 <= int(response["Retry-After"]) <= 60


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [(OperationalError("secret away"), 503, "1"), (ZeroDivisionError("secret"), 500, None)],
    ids=["database away", "fault of ours"],
)
def test_our_faults_are_masked_and_hold_no_token(
    error: Exception,
    status: int,
    retry_after: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise error

    waiting = waiting_run()
    monkeypatch.setattr(callbacks, "_persist", fail)
    failed = counted("FAILED")
    with capture_logs() as lines, caplog.at_level(logging.INFO):
        response = post(waiting.path)
    code, sentence = refused(response)
    assert (code, response.headers.get("Retry-After")) == (status, retry_after)
    assert "secret" not in sentence
    assert counted("FAILED") == failed + 1
    printed = capsys.readouterr()
    assert waiting.token.token not in printed.out + printed.err + repr(lines)
    (line,) = [line for line in lines if line["event"] == "request"]
    assert line["route"] == "callbacks/<token>"


@pytest.mark.usefixtures("unapplied")
def test_token_is_in_no_log_and_no_metric() -> None:
    waiting = waiting_run()
    with capture_logs() as lines:
        post(waiting.path)
        post(waiting.path, OTHER)
        Client().get(waiting.path + "/more")
    assert [line["route"] for line in lines] == ["callbacks/<token>", "callbacks/<token>", "-"]
    assert waiting.token.token not in repr(lines)
    assert waiting.token.token.encode() not in Client().get("/metrics").content


# --- the whole way --------------------------------------------------------------------------------


def kyc(**config: Any) -> CompiledWorkflow:
    """An identity check that answers later, a form, and a final payload."""
    step = server_step(
        0,
        executionMode="SERVER_ASYNC",
        triggerEndpoint=KYC,
        config={"dataKey": "kyc", "requestMapping": {"documentNumber": "input.documentNumber"}, **config},
    )  # fmt: skip
    return published(flow(step, form(1), apiMapping={"check": "kyc.checkId"}))


def callback_path(partner: FakePartner) -> str:
    """Where the partner was told to post."""
    url = partner.calls(KYC)[-1].headers["x-callback-url"]
    assert url.startswith("http://localhost:8000/callbacks/")
    return urlsplit(url).path


def waiting_phone(partner: FakePartner, **config: Any) -> Phone:
    """Somebody whose check the partner has accepted, with a 202."""
    partner.callback_fault(KYC, timing="never", times=None)
    phone = Phone(kyc(**config))
    assert phone.step(0, PERSON).should_proceed
    assert worker.work_off(phone.runs[0].id) is True
    assert phone.runs[0].status == WAITING
    return phone


def test_accepted_awaited_called_back(partner: FakePartner) -> None:
    phone = waiting_phone(partner)
    path = callback_path(partner)
    assert phone.step(1, {"a": 1}).success
    assert phone.complete().error_code == ErrorCode.STEPS_PENDING

    assert told(post(path)) == (200, {"status": "accepted"})

    run = phone.runs[0]
    assert (run.status, run.result) == (SUCCEEDED, RESULT)
    assert (run.lease_holder, run.lease_until) == (None, None)
    assert phone.complete().result == {"check": "c-1"}
    assert phone.row.status == WorkflowExecutionStatus.COMPLETED
    assert len(partner.calls(KYC)) == 1
    assert told(post(path)) == (200, {"status": "accepted"})
    assert post(path, OTHER).status_code == 409


def test_answer_that_says_no_is_judged_as_one_at_once(partner: FakePartner) -> None:
    phone = waiting_phone(partner, proceedWhen="result.verified")
    assert post(callback_path(partner), OTHER).status_code == 200
    run = phone.runs[0]
    assert (run.should_proceed, run.result) == (False, {"verified": False})
    assert phone.complete().success is False


def test_answer_before_our_own_commit_is_not_lost(
    partner: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partner posts before it answers our call: the worker still holds the run."""
    partner.callback_fault(KYC, timing="never", times=None)
    phone = Phone(kyc())
    phone.step(0, PERSON)
    run_id = phone.runs[0].id
    answers: list[Any] = []
    take = worker._Work._take

    def called_back_first(work: Any, *args: Any) -> None:
        answers.append(post(callback_path(partner)))
        take(work, *args)

    monkeypatch.setattr(worker._Work, "_take", called_back_first)
    worker.work_off(run_id)

    assert [response.status_code for response in answers] == [200]
    worker.work_off(run_id)
    assert (phone.runs[0].status, phone.runs[0].result) == (SUCCEEDED, RESULT)
    assert len(partner.calls(KYC)) == 1


def test_answer_after_its_time_is_refused_and_the_run_unknown(partner: FakePartner) -> None:
    phone = waiting_phone(partner)
    past = StepRun.objects.get().started_at - HOUR
    StepRun.objects.update(callback_expires_at=past, due_at=past)
    assert post(callback_path(partner)).status_code == 410
    worker.work_off(phone.runs[0].id)
    assert phone.runs[0].status == UNKNOWN
    assert post(callback_path(partner)).status_code == 410
    assert phone.runs[0].status == UNKNOWN


def test_late_answer_settles_what_nobody_knew(partner: FakePartner) -> None:
    """The line to the partner was cut, no attempt is left; then it posts what it did."""
    partner.fault(KYC, "status", status=503, effect="before")
    phone = Phone(kyc())
    phone.step(0, PERSON)
    worker.work_off(phone.runs[0].id)
    assert phone.runs[0].status == UNKNOWN
    assert post(callback_path(partner)).status_code == 200
    assert (phone.runs[0].status, phone.runs[0].result) == (SUCCEEDED, RESULT)
    assert len(partner.calls(KYC)) == 1


@pytest.mark.parametrize("status", [200, 422])
def test_partner_that_repeats_the_address_brings_it_into_no_record(
    status: int, partner: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = new_token()
    monkeypatch.setattr(callback_tokens, "new_token", lambda: token)
    partner.answer(KYC, {"verified": True, "message": f"see {token.url}"}, status=status)
    phone = Phone(kyc())
    phone.step(0, PERSON)
    worker.work_off(phone.runs[0].id)
    run = phone.runs[0]
    told = run.error if status == 422 else run.result["message"]
    assert told == "see http://localhost:8000/callbacks/[redacted]"
    assert token.token not in f"{run.error}{run.result}"


# --- over the network -----------------------------------------------------------------------------


def signed_check(bank: FakePartner) -> Phone:
    """Somebody whose check waits for a callback that has to be signed."""
    set_connection(name="bank", base_url=bank.url, allow_private=True, callback_secret=SECRET)
    return waiting_phone(bank, connection="bank")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("server_output")
def test_partner_posts_to_a_server(bank: FakePartner) -> None:
    phone = signed_check(bank)
    with WebServer(partner_url=bank.url) as server:
        url = f"http://127.0.0.1:{server.port}{callback_path(bank)}"
        for signature in ("missing", "bad", "old"):
            assert bank.send_callback(url, BODY, signature=signature, secret=SECRET).status == 401
        assert phone.runs[0].status == WAITING
        for status in (200, 200):
            assert bank.send_callback(url, BODY, secret=SECRET).status == status
        assert bank.send_callback(url, OTHER, secret=SECRET).status == 409
        chunks = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        headers = {"X-Handrail-Signature": signed(BODY)}
        chunks.request("POST", callback_path(bank), iter([BODY]), headers, encode_chunked=True)
        assert chunks.getresponse().status == 200
        chunks.close()
        assert urlsplit(url).path.rpartition("/")[2] not in server.output
    assert (phone.runs[0].status, phone.runs[0].result) == (SUCCEEDED, RESULT)
    assert phone.step(1, {"a": 1}).success
    assert phone.complete().result == {"check": "c-1"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("server_output")
def test_answer_that_was_kept_outlives_its_server(bank: FakePartner) -> None:
    phone = signed_check(bank)
    run_id = phone.runs[0].id
    with WebServer(partner_url=bank.url, kill_point="after-callback-record") as dying:
        url = f"http://127.0.0.1:{dying.port}{callback_path(bank)}"
        with pytest.raises((OSError, http.client.HTTPException)):
            bank.send_callback(url, BODY, secret=SECRET)
        dying.wait_until_dead()
    kept = phone.runs[0]
    assert (kept.status, open_callback(kept)) == (WAITING, RESULT)

    assert [claim.run_id for claim in work_off_due()] == [run_id]

    assert (phone.runs[0].status, phone.runs[0].result) == (SUCCEEDED, RESULT)
    assert len(bank.calls(KYC)) == 1
    response = post(callback_path(bank), HTTP_X_HANDRAIL_SIGNATURE=signed(BODY))
    assert told(response) == (200, {"status": "accepted"})


def work_off_due() -> list[worker.Claim]:
    """What a worker finds by its own look."""
    claims = worker.claim_due(10)
    for claim in claims:
        worker.work(claim)
    return claims
