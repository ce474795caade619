"""replay_execution: what is sent again and under which key, what is refused, and what is recorded."""

import json
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from config.ids import new_id
from config.jsonvalues import JsonObject
from executions import executor, replaying
from executions.enums import OperatorOutcome, RunKind, RunStatus
from executions.errors import InputRefused
from executions.models import OperatorAction, StepRun, WorkflowExecution
from executions.replaying import ReplayRefused
from executions.session_store import get_session_store
from executions.tests.evidence import nothing_happens
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.records import CommandProcess, strand
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow

pytestmark = pytest.mark.django_db

SUBMIT = "/api/anything/submit"
CALL = "/api/anything/call"
FINAL: JsonObject = {"endpoint": SUBMIT, "timeoutMs": 300}


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    return published(
        flow(
            form(0),
            finalApi=FINAL,
            apiMapping={"amount": "form0.amount", "card": {"pin": "form0.pin"}},
            sensitive=["pin"],
        )
    )


def submitted(compiled: CompiledWorkflow) -> Phone:
    """Filled in and sent; whatever came of it."""
    phone = Phone(compiled)
    assert phone.step(0, {"amount": 12, "pin": "918273"}).success
    phone.complete()
    return phone


@pytest.fixture
def failed(compiled: CompiledWorkflow, partner: FakePartner) -> Phone:
    """Its submission got a 500: nobody knows whether the partner acted."""
    partner.fault(SUBMIT, "status", status=500)
    phone = submitted(compiled)
    assert phone.row.status == "FAILED"
    return phone


def replay(phone: Phone, **changed: Any) -> Any:
    return executor.replay(
        phone.execution_id,
        **{"by": "operator", "reason": "asked to", "now": timezone.now(), **changed},
    )


def run(*words: object) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("replay_execution", *map(str, words), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def missed(*words: object) -> tuple[str, int]:
    """The sentence and exit code of a command that did not do everything."""
    with pytest.raises(CommandError) as error:
        run(*words)
    return str(error.value), error.value.returncode


def keys(partner: FakePartner, path: str = SUBMIT) -> list[str | None]:
    return [call.key for call in partner.calls(path)]


# --- submissions ----------------------------------------------------------------------------------


def test_unknown_outcome_is_sent_again_under_its_key(failed: Phone, partner: FakePartner) -> None:
    replayed = replay(failed)
    assert (replayed.outcome, replayed.row.status, replayed.error) == ("SUCCEEDED", "COMPLETED", "")
    first, second = partner.calls(SUBMIT)
    assert first.key == second.key
    assert first.body == second.body
    assert len(partner.effects(SUBMIT)) == 1
    assert failed.row.status == "COMPLETED"


def test_definite_refusal_gets_a_new_key(compiled: CompiledWorkflow, partner: FakePartner) -> None:
    partner.fault(SUBMIT, "status", status=422)
    phone = submitted(compiled)
    assert replay(phone).outcome is OperatorOutcome.SUCCEEDED
    first, second = keys(partner)
    assert first != second


@pytest.mark.parametrize(
    ("status", "outcome"), [(422, "REJECTED"), (409, "UNKNOWN"), (503, "UNKNOWN")]
)
def test_failed_replay_is_read_back(
    failed: Phone, partner: FakePartner, status: int, outcome: str
) -> None:
    partner.fault(SUBMIT, "status", status=status)
    replayed = replay(failed)
    run = failed.runs[-1]
    assert (replayed.row.status, run.kind, run.status) == ("FAILED", RunKind.SUBMISSION, outcome)
    assert (replayed.outcome, OperatorAction.objects.get().outcome) == (outcome, outcome)
    assert replayed.error == run.error != ""


def test_who_did_it_and_why_is_recorded(failed: Phone) -> None:
    now = timezone.now()
    replay(failed, by="olga", reason="the bank was down", now=now)
    fields = ("execution_id", "action", "by", "reason", "at", "outcome")
    assert OperatorAction.objects.values(*fields).get() == {
        "execution_id": failed.execution_id,
        "action": "REPLAY_SUBMISSION",
        "by": "olga",
        "reason": "the bank was down",
        "at": now,
        "outcome": "SUCCEEDED",
    }


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001])
def test_without_a_usable_reason_nothing_is_sent(
    failed: Phone, partner: FakePartner, reason: str
) -> None:
    with nothing_happens(partner), pytest.raises(InputRefused):
        replay(failed, reason=reason)
    assert OperatorAction.objects.count() == 0


def refusal(phone: Phone, partner: FakePartner, **changed: Any) -> str:
    with nothing_happens(partner), pytest.raises(ReplayRefused) as error:
        replay(phone, **changed)
    assert OperatorAction.objects.count() == 0
    return error.value.message


def test_what_succeeded_is_refused(compiled: CompiledWorkflow, partner: FakePartner) -> None:
    phone = submitted(compiled)
    assert refusal(phone, partner) == "It has succeeded: there is nothing to replay."


def test_what_is_live_or_cancelled_is_refused(
    compiled: CompiledWorkflow, partner: FakePartner
) -> None:
    phone = Phone(compiled)
    assert refusal(phone, partner) == "It has not ended: no submission of it has failed."
    phone.cancel()
    assert refusal(phone, partner) == "It was cancelled: what a person called off is not sent."


def test_expired_execution_is_refused(compiled: CompiledWorkflow, partner: FakePartner) -> None:
    phone = Phone(compiled)
    get_session_store().clear_session(phone.row.session_id)
    phone.complete()
    told = "It ended with SESSION_EXPIRED before anything was submitted."
    assert refusal(phone, partner) == told


def test_submission_without_its_request_is_refused(failed: Phone, partner: FakePartner) -> None:
    StepRun.objects.update(sealed_request=None)
    assert refusal(failed, partner) == "Nothing that could be sent again is kept of it."


def test_call_at_work_is_refused(compiled: CompiledWorkflow, partner: FakePartner) -> None:
    phone = Phone(compiled)
    strand(phone, RunKind.SUBMISSION)
    told = (
        "A call of it is being worked off, or its process died: try again shortly, or run"
        " cleanup_executions first."
    )
    assert refusal(phone, partner) == told


def test_outpaced_replay_sends_nothing_and_says_so(
    failed: Phone, partner: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else repeats it between the look at the row and the intent."""
    looked = replaying.plan_replay

    def overtaken(execution_id: UUID, **changed: Any) -> Any:
        plan = looked(execution_id, **changed)
        assert failed.complete().success
        return plan

    monkeypatch.setattr(executor, "plan_replay", overtaken)
    replayed = replay(failed)
    assert len(partner.calls(SUBMIT)) == 2
    assert replayed.row.status == "COMPLETED"


# --- steps ----------------------------------------------------------------------------------------


@pytest.fixture
def in_doubt(partner: FakePartner) -> Phone:
    """A form whose partner call has an unknown outcome: its input is in no session yet."""
    step = server_step(0, type="FORM", triggerEndpoint=CALL, timeoutMs=300)
    phone = Phone(published(flow(step, form(1), sensitive=["pin"])))
    partner.fault(CALL, "status", status=500)
    assert phone.step(0, {"amount": 7, "pin": "918273"}).error_code == "TRIGGER_UNAVAILABLE"
    return phone


def test_step_is_called_again_with_its_input_and_key(in_doubt: Phone, partner: FakePartner) -> None:
    replayed = replay(in_doubt, from_step="0")
    assert (replayed.outcome, replayed.row.status) == ("SUCCEEDED", "IN_PROGRESS")
    first, second = partner.calls(CALL)
    assert (first.key, first.body) == (second.key, second.body)
    assert in_doubt.context["call0"] == {"amount": 7, "pin": "918273"}
    assert in_doubt.row.position == 1
    assert in_doubt.step(1, {"goes": "on"}).success
    assert OperatorAction.objects.get().action == "REPLAY_STEP"


def test_step_may_be_named_by_id_order_or_label(in_doubt: Phone) -> None:
    names = (in_doubt.compiled.steps[0].id, "0", "Call 0")
    for name in names:
        item = json.loads(run(in_doubt.execution_id, "--from-step", name, "--dry-run", "--json")[0])
        assert item["items"][0]["outcome"] == "WOULD_BE_SENT"


def test_an_order_is_not_taken_for_the_label_of_another_step(partner: FakePartner) -> None:
    first = server_step(0, triggerEndpoint="/api/anything/first", label="1")
    phone = Phone(published(flow(first, server_step(1, triggerEndpoint=CALL, label="Pay"))))
    assert phone.step(0).success
    partner.fault(CALL, "status", status=500)
    phone.step(1)
    assert replay(phone, from_step="1").outcome is OperatorOutcome.SUCCEEDED
    assert len(partner.calls(CALL)) == 2


def test_failed_step_is_called_again(partner: FakePartner) -> None:
    """Nobody was reached: the same key, composed from what the session says now."""
    phone = Phone(published(flow(server_step(0, triggerEndpoint=CALL), form(1))))
    partner.fault(CALL, "status", status=429)
    assert phone.step(0).error_code == "TRIGGER_UNAVAILABLE"
    assert phone.runs[-1].status == RunStatus.FAILED
    assert replay(phone, from_step="0").outcome is OperatorOutcome.SUCCEEDED
    first, second = keys(partner, CALL)
    assert first == second


def test_step_that_succeeded_is_refused(in_doubt: Phone, partner: FakePartner) -> None:
    replay(in_doubt, from_step="0")
    OperatorAction.objects.all().delete()
    told = refusal(in_doubt, partner, from_step="0")
    assert told == "The step has succeeded: there is nothing to replay."


def test_step_with_a_definite_answer_is_refused(partner: FakePartner) -> None:
    phone = Phone(published(flow(server_step(0, triggerEndpoint=CALL), form(1))))
    partner.fault(CALL, "status", status=422)
    phone.step(0)
    told = refusal(phone, partner, from_step="0")
    assert told == (
        "The step got a definite answer (TRIGGER_REJECTED): only the person can call it again."
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [("7", "Its workflow has no step 7."), ("Form 1", "The step has not been called yet.")],
)
def test_step_that_is_none_is_refused(
    in_doubt: Phone, partner: FakePartner, name: str, told: str
) -> None:
    assert refusal(in_doubt, partner, from_step=name) == told


def test_step_needs_its_session(in_doubt: Phone, partner: FakePartner) -> None:
    get_session_store().clear_session(in_doubt.row.session_id)
    told = refusal(in_doubt, partner, from_step="0")
    assert told == "Its session is gone: the step's answer could not be kept."
    in_doubt.step(0, {"amount": 7})
    told = refusal(in_doubt, partner, from_step="0")
    assert told == "It has ended (FAILED): its steps cannot be called any more."


def test_status_is_asked_before_anything_is_sent_again(partner: FakePartner) -> None:
    step = server_step(
        0,
        type="API_CALL",
        triggerEndpoint=CALL,
        config={"status": {"endpoint": "/api/anything/asked"}},
    )
    phone = Phone(published(flow(step, form(1))))
    partner.fault(CALL, "status", status=500)
    phone.step(0)
    [item] = json.loads(run(phone.execution_id, "--from-step", 0, "--dry-run", "--json")[0])[
        "items"
    ]
    asked, sent = item["requests"]
    assert (asked["method"], asked["url"]) == ("GET", f"{partner.url}/api/anything/asked")
    assert (sent["method"], sent["url"]) == ("POST", f"{partner.url}{CALL}")


# --- the dry run ----------------------------------------------------------------------------------


def test_dry_run_shows_what_is_then_sent(failed: Phone, partner: FakePartner) -> None:
    with nothing_happens(partner):
        out = run(failed.execution_id, "--dry-run", "--json")[0]
    [sent] = partner.calls(SUBMIT)
    assert json.loads(out) == {
        "dryRun": True,
        "items": [
            {
                "id": str(failed.execution_id),
                "outcome": "WOULD_BE_SENT",
                "status": None,
                "error": None,
                "requests": [
                    {
                        "connection": "default",
                        "method": "POST",
                        "url": f"{partner.url}{SUBMIT}",
                        "query": None,
                        "headers": None,
                        "idempotencyKey": sent.key,
                        "payload": {"amount": 12, "card": {"pin": "[redacted]"}},
                    }
                ],
            }
        ],
    }
    assert OperatorAction.objects.count() == 0


def test_nothing_sensitive_is_printed(partner: FakePartner) -> None:
    """Wherever it stands: in the path, the query, a header or the body, under any name."""
    secret = "s3cr/t 9"
    final: JsonObject = {"endpoint": "/api/anything/${form0.pin}/x", "method": "GET"}
    mapping: JsonObject = {"plain": "form0.pin", "list": ["form0.pin", "form0.amount"]}
    phone = Phone(
        published(flow(form(0), finalApi=final, apiMapping=mapping, sensitive=["form0.pin"]))
    )
    phone.step(0, {"pin": secret, "amount": 3})
    partner.fault("/api/anything/*", "status", status=500)
    phone.complete()
    [sent] = partner.calls()
    out, err = run(phone.execution_id, "--dry-run")
    assert "s3cr" not in out + err
    assert out.splitlines()[1:] == [
        f"  GET {partner.url}/api/anything/[redacted]/x (connection default)",
        f"  Idempotency-Key: {sent.key}",
        '  query: {"plain": "[redacted]", "list": ["[redacted]", "3"]}',
    ]


# --- the admin ------------------------------------------------------------------------------------


def test_admin_shows_actions_and_lets_nobody_change_them(
    failed: Phone, admin_client: Client
) -> None:
    replay(failed, by="olga", reason="the bank was down")
    action = OperatorAction.objects.get()
    listed = admin_client.get("/admin/executions/operatoraction/").content.decode()
    page = admin_client.get(f"/admin/executions/operatoraction/{action.pk}/change/")
    for text in (listed, page.content.decode()):
        assert "the bank was down" in text
        assert "olga" in text
    assert admin_client.post(page.request["PATH_INFO"], {"by": "eve"}).status_code == 403
    assert OperatorAction.objects.get().by == "olga"


# --- the command ----------------------------------------------------------------------------------


def test_command_tells_the_verified_outcome(failed: Phone) -> None:
    out, err = run(failed.execution_id, "--reason", "asked", "--by", "olga")
    assert out == f"{failed.execution_id} SUCCEEDED (now COMPLETED)\n"
    assert err == ""
    assert OperatorAction.objects.get().by == "olga"


def test_command_names_the_user_of_the_machine(
    failed: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "olga")
    run(failed.execution_id, "--reason", "asked")
    assert OperatorAction.objects.get().by == "command line (olga)"


def test_more_than_one_asks_for_yes(
    failed: Phone, compiled: CompiledWorkflow, partner: FakePartner
) -> None:
    partner.fault(SUBMIT, "status", status=500)
    other, done = submitted(compiled), submitted(compiled)
    ids = (failed.execution_id, other.execution_id, done.execution_id)
    words = (*ids, "--reason", "the bank was down")
    err = StringIO()
    with nothing_happens(partner), pytest.raises(CommandError) as error:
        call_command("replay_execution", *map(str, words), stderr=err)
    assert (str(error.value), error.value.returncode) == (
        "Nothing was sent. Add --yes to replay them.",
        2,
    )
    assert err.getvalue() == (
        "Blast radius: 3 executions; calls per connection: default 2; refused: 1.\n"
    )
    assert missed(*words, "--yes") == ("1 of 3 did not succeed.", 1)
    assert [phone.row.status for phone in (failed, other)] == ["COMPLETED", "COMPLETED"]
    assert OperatorAction.objects.count() == 2


def test_failed_ones_are_selected_by_time_and_workflow(
    failed: Phone, compiled: CompiledWorkflow, partner: FakePartner
) -> None:
    partner.fault(SUBMIT, "status", status=500, times=2)
    old = submitted(compiled)
    WorkflowExecution.objects.filter(pk=old.execution_id).update(
        completed_at=timezone.now() - timedelta(hours=3)
    )
    elsewhere = submitted(published(flow(form(0), finalApi=FINAL)))
    Phone(compiled).cancel()

    def selected(*words: str) -> list[str]:
        report = json.loads(run(*words, "--dry-run", "--json")[0])
        return [item["id"] for item in report["items"]]

    everything = [str(each.execution_id) for each in (old, failed, elsewhere)]
    assert selected("--failed-since", "1d") == everything
    assert selected("--failed-since", "2h") == everything[1:]
    assert selected("--workflow", compiled.workflow_id) == everything[:2]
    assert selected("--workflow", "Flow", "--failed-since", "90m") == everything[1:]
    since = (timezone.now() + timedelta(minutes=1)).isoformat()
    assert selected("--failed-since", since) == []


def test_unknown_execution_is_told(failed: Phone) -> None:
    words = (new_id(), failed.execution_id, "--reason", "asked", "--yes", "--json")
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("replay_execution", *map(str, words), stdout=out, stderr=StringIO())
    first, second = json.loads(out.getvalue())["items"]
    assert (first["outcome"], first["error"]) == ("REFUSED", "There is no such execution.")
    assert (second["outcome"], second["status"]) == ("SUCCEEDED", "COMPLETED")


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize("since", ["999999d", "0001-01-01T00:00+14:00", "0d", "yesterday", ""])
def test_a_time_that_is_none_is_refused(since: str) -> None:
    told, code = missed("--failed-since", since, "--dry-run")
    assert code == 2
    assert told.endswith("use 90m, 12h, 7d, or 2026-01-31T12:00Z")


def test_what_was_sent_is_told_when_somebody_stops_it(
    failed: Phone, compiled: CompiledWorkflow, partner: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner.fault(SUBMIT, "status", status=500)
    other = submitted(compiled)
    does = executor.replay

    def stopped(execution_id: UUID, **given: Any) -> Any:
        if execution_id == other.execution_id:
            raise KeyboardInterrupt
        return does(execution_id, **given)

    monkeypatch.setattr(executor, "replay", stopped)
    words = (failed.execution_id, other.execution_id, "--reason", "asked", "--yes", "--json")
    out = StringIO()
    with pytest.raises(KeyboardInterrupt):
        call_command("replay_execution", *map(str, words), stdout=out, stderr=StringIO())
    [item] = json.loads(out.getvalue())["items"]
    assert (item["id"], item["outcome"]) == (str(failed.execution_id), "SUCCEEDED")


def test_what_was_entered_does_not_steer_the_terminal(
    compiled: CompiledWorkflow, partner: FakePartner
) -> None:
    partner.fault(SUBMIT, "status", status=500)
    phone = Phone(compiled)
    phone.step(0, {"amount": "1\x1b[2J\x9b2Jé", "pin": "918273"})
    phone.complete()
    *_, body = run(phone.execution_id, "--dry-run")[0].split("\n")[:-1]
    assert body == ('  body: {"amount": "1\\u001b[2J\\u009b2Jé", "card": {"pin": "[redacted]"}}')


def test_dry_run_of_many_tells_the_blast_radius(
    failed: Phone, compiled: CompiledWorkflow, partner: FakePartner
) -> None:
    done = submitted(compiled)
    err = StringIO()
    words = (str(failed.execution_id), str(done.execution_id), "--dry-run")
    with nothing_happens(partner), pytest.raises(CommandError):
        call_command("replay_execution", *words, stdout=StringIO(), stderr=err)
    assert err.getvalue() == (
        "Blast radius: 2 executions; calls per connection: default 1; refused: 1.\n"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "Name executions, or select with --failed-since or --workflow."),
        (
            (str(new_id()), "--workflow", "Flow"),
            "Name executions, or select with --failed-since or --workflow.",
        ),
        (
            ("--workflow", "Flow", "--from-step", "1"),
            "--from-step needs executions by their ids.",
        ),
        ((str(new_id()),), "--reason is required: it is kept in the record."),
        (("--workflow", "None such", "--dry-run"), "There is no workflow None such."),
    ],
)
def test_wrong_usage_is_refused(db: None, words: tuple[str, ...], told: str) -> None:
    assert missed(*words) == (told, 2)


# --- twice at once, and killed --------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_twice_at_once_and_killed_at_the_partner_sends_each_once(
    compiled: CompiledWorkflow, partner: FakePartner
) -> None:
    partner.fault(SUBMIT, "status", status=500, times=4)
    phones = [submitted(compiled) for _ in range(4)]
    words = ("replay_execution", "--failed-since", "1h", "--reason", "bank was down", "--yes")
    with partner.hold(SUBMIT, effect="before"):
        killed = CommandProcess(*words, partner_url=partner.url)
        partner.wait_for_calls(5, SUBMIT, timeout=30)
        killed.kill()
    both = [CommandProcess(*words, "--json", partner_url=partner.url) for _ in range(2)]
    told = [json.loads(each.wait()[1]) for each in both]
    outcomes = {item["outcome"] for report in told for item in report["items"]}
    assert outcomes <= {"SUCCEEDED", "REFUSED", "NOT_SENT"}
    # What the killed one was at is let alone as long as its lease lives, and taken over then.
    held = WorkflowExecution.objects.filter(lease_holder__isnull=False)
    assert held.update(lease_until=timezone.now() - timedelta(seconds=1)) == 1
    call_command("cleanup_executions", stdout=StringIO())
    run(*words[1:])
    assert {phone.row.status for phone in phones} == {"COMPLETED"}
    # Four were refused with 500, and each was sent again; the killed one's twice, under its key.
    assert len(partner.calls(SUBMIT)) == 4 + 4 + 1
    effects = [effect.key for effect in partner.effects(SUBMIT)]
    assert len(effects) == len(set(effects)) == 4
    assert OperatorAction.objects.filter(outcome=OperatorOutcome.STARTED).count() == 1
