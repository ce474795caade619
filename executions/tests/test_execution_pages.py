"""The pages on executions: what they show and to whom, and what their forms do once."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from config import rights
from config.ids import new_id
from executions.enums import RunStatus
from executions.models import OperatorAction, StepRun, WorkflowExecution
from executions.operating import ActionChanged
from executions.rollups import roll_up
from executions.tests.past import COMPLETED, FAILED, IN_PROGRESS, call, execution
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.test_async_steps import async_step, work_off_all
from executions.tests.test_compensation import HOLD, UNDO_HOLD, undoable, work_off_everything
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow
from workflows.connections import forget_connections
from workflows.versions import forget_everything

pytestmark = pytest.mark.django_db

SUBMIT = "/api/anything/submit"
CALL = "/api/anything/call"
SECRET = "918273"
REF = "hold-4711"
SCRIPT = "<script>alert('stored')</script>"
LIST = reverse("admin:executions_workflowexecution_changelist")
BULK = reverse("admin:executions_workflowexecution_bulk")
REASON = "the bank was down, INC-42"


def page(phone: Phone, name: str = "change") -> str:
    return reverse(f"admin:executions_workflowexecution_{name}", args=[phone.execution_id])


def staff(role: str, *permissions: str) -> Client:
    user = User.objects.create_user(role.lower() or "nobody", is_staff=True)
    if role:
        user.groups.add(Group.objects.get(name=role))
    for name in permissions:
        user.user_permissions.add(Permission.objects.get(codename=name))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator(db: None) -> Client:
    return staff(rights.OPERATOR)


@pytest.fixture
def compiled(partner: FakePartner) -> CompiledWorkflow:
    return published(
        flow(
            form(0),
            finalApi={"endpoint": SUBMIT, "timeoutMs": 300},
            apiMapping={"amount": "form0.amount", "card": {"pin": "form0.pin"}},
            sensitive=["pin"],
        )
    )


def filled_in(compiled: CompiledWorkflow, user_id: str = "alice") -> Phone:
    phone = Phone(compiled, user_id=user_id)
    assert phone.step(0, {"amount": 12, "pin": SECRET, "note": SCRIPT}).success
    return phone


@pytest.fixture
def live(compiled: CompiledWorkflow) -> Phone:
    return filled_in(compiled)


@pytest.fixture
def failed(compiled: CompiledWorkflow, partner: FakePartner) -> Phone:
    """Its submission got a 500: nobody knows whether the partner acted."""
    partner.fault(SUBMIT, "status", status=500)
    phone = filled_in(compiled)
    phone.complete()
    assert phone.row.status == "FAILED"
    return phone


def text(answer: Any) -> str:
    shown: str = answer.content.decode()
    return shown


def hidden(client: Client, address: str) -> dict[str, str]:
    """What the form of an action carries."""
    initial = client.get(address).context["form"].initial
    return {name: str(value) for name, value in initial.items()}


def act(client: Client, phone: Phone, kind: str, step: str = "", **posted: Any) -> Any:
    address = f"{page(phone, 'act')}?do={kind}&step={step}"
    sent = {"reason": REASON, **hidden(client, address), **posted}
    return client.post(address, sent)


def acting(phone: Phone, kind: str = "REPLAY_SUBMISSION") -> str:
    return f"{page(phone, 'act')}?do={kind}&step="


def actions() -> list[tuple[Any, ...]]:
    fields = ("action", "by", "reason", "outcome", "about")
    return list(OperatorAction.objects.order_by("id").values_list(*fields))


# --- reading --------------------------------------------------------------------------------------


def test_story_tells_what_happened_in_order(failed: Phone, operator: Client) -> None:
    answer = operator.get(page(failed))
    told = [(one.told.kind, one.told.status) for one in answer.context["entries"]]
    assert told == [
        ("STARTED", ""),
        ("STEP", "SUCCEEDED"),
        ("SUBMISSION", "UNKNOWN"),
        ("ENDED", "FAILED"),
    ]
    shown = text(answer)
    assert str(failed.runs[-1].trigger_key) in shown
    assert "Submission failed" in shown
    assert "Trigger unavailable" in shown


@pytest.mark.parametrize("role", rights.GROUPS)
def test_nobody_sees_what_is_sensitive(role: str, failed: Phone, live: Phone) -> None:
    client = staff(role)
    for phone in (failed, live):
        for name in ("change", "context"):
            answer = client.get(page(phone, name))
            assert answer.status_code == 200
            assert SECRET not in text(answer)
    assert "[redacted]" in text(client.get(page(failed)))
    assert "[redacted]" in text(client.get(page(live, "context")))
    assert SECRET not in text(client.get(LIST))


def test_stored_text_stays_text(live: Phone, failed: Phone, operator: Client) -> None:
    WorkflowExecution.objects.update(error=SCRIPT, cancel_reason=SCRIPT, page_id=SCRIPT)
    addresses = [page(live), page(live, "context"), page(failed), page(failed, "context"), LIST]
    addresses.append(f"{page(failed, 'act')}?do=REPLAY_SUBMISSION")
    for address in addresses:
        assert "<script>alert" not in text(operator.get(address)), address
    assert "&lt;script&gt;alert" in text(operator.get(page(live, "context")))


def test_text_of_partners_and_forms_stays_text(operator: Client, partner: FakePartner) -> None:
    """What a partner answers, how a step is called and what staff write, in forms and outcomes."""
    called = server_step(0, triggerEndpoint=f"{CALL}/${{userId}}", label=SCRIPT)
    phone = Phone(published(flow(called, form(1)) | {"name": SCRIPT}), user_id=SCRIPT)
    partner.fault(f"{CALL}*", "status", status=500)
    phone.step(0)
    partner.answer(f"{CALL}*", {"message": SCRIPT}, status=422)
    chosen = [phone.execution_id]
    shown = [operator.post(BULK, {"action": "REPLAY_STEP", "ids": chosen})]
    sent = confirmed(operator, "REPLAY_STEP", chosen, reason=SCRIPT)
    shown.append(operator.post(BULK, sent | {"reason": SCRIPT + "x" * 1000}))
    shown.append(operator.post(BULK, sent))
    assert [line[1:] for line in lines(shown[-1])] == [(SCRIPT, "REJECTED")]
    shown.append(operator.get(page(phone)))
    shown.append(act(operator, phone, "CANCEL", reason=SCRIPT + "x" * 1000))
    act(operator, phone, "CANCEL", reason=SCRIPT)
    shown.append(operator.get(page(phone)))
    for number, answer in enumerate(shown):
        assert "<script>alert" not in text(answer), number
        assert "&lt;script&gt;alert" in text(answer), number


def test_offers_say_why_not(failed: Phone, live: Phone, operator: Client) -> None:
    def offers(phone: Phone) -> dict[str, str]:
        found = operator.get(page(phone)).context["offers"]
        return {offer.label: offer.reason for offer in found}

    assert offers(failed) == {
        "Replay the submission": "",
        "Settle the submission": "",
        "Cancel": "It has ended (FAILED).",
    }
    assert offers(live) == {
        "Replay the submission": "It has not ended: no submission of it has failed.",
        "Cancel": "",
    }


def test_offers_go_by_right(failed: Phone) -> None:
    found = staff(rights.VIEWER).get(page(failed)).context["offers"]
    assert [(offer.url, offer.reason) for offer in found[:2]] == [
        ("", "You have no permission for it.")
    ] * 2


# --- acting ---------------------------------------------------------------------------------------

MAY = {
    "REPLAY_SUBMISSION": "replay_execution",
    "SETTLE_SUBMISSION": "replay_execution",
    "REPLAY_COMPENSATION": "replay_execution",
    "SETTLE_COMPENSATION": "replay_execution",
    "REPLAY_STEP": "retry_step",
    "SETTLE_STEP": "retry_step",
    "CANCEL": "cancel_execution",
}
RIGHTS = sorted({*MAY.values(), "reveal_value"})


@pytest.mark.parametrize("kind", MAY)
def test_each_action_needs_its_own_right(kind: str, failed: Phone) -> None:
    others = [name for name in RIGHTS if name != MAY[kind]]
    without, having = staff(rights.VIEWER, *others), staff("", "view_workflowexecution", MAY[kind])
    address = f"{page(failed, 'act')}?do={kind}&step=0"
    assert [without.get(address).status_code, without.post(address).status_code] == [403, 403]
    refused = 404 if kind.startswith("SETTLE") else 403  # settled one by one only
    bulk = {"action": kind, "ids": [failed.execution_id]}
    assert without.post(BULK, bulk).status_code == refused
    assert having.get(address).status_code == 200
    assert actions() == []


@pytest.mark.parametrize("kind", ["", "DELETE", "REVEAL_VALUE"])
def test_there_is_no_other_action(kind: str, failed: Phone, operator: Client) -> None:
    assert operator.get(f"{page(failed, 'act')}?do={kind}").status_code == 404


def test_confirmation_shows_what_would_be_sent(
    failed: Phone, operator: Client, partner: FakePartner
) -> None:
    shown = text(operator.get(f"{page(failed, 'act')}?do=REPLAY_SUBMISSION"))
    assert f"POST {partner.url}{SUBMIT}" in shown
    assert str(failed.runs[-1].trigger_key) in shown
    assert SECRET not in shown
    assert len(partner.calls(SUBMIT)) == 1


def test_replay_sends_once_and_is_recorded(
    failed: Phone, operator: Client, partner: FakePartner
) -> None:
    address = f"{page(failed, 'act')}?do=REPLAY_SUBMISSION"
    sent = {"reason": REASON, **hidden(operator, address)}
    answers = [operator.post(address, sent) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [302, 302]
    assert [answer["Location"] for answer in answers] == [page(failed)] * 2
    assert len(partner.calls(SUBMIT)) == 2
    assert failed.row.status == "COMPLETED"
    assert actions() == [("REPLAY_SUBMISSION", "operator", REASON, "SUCCEEDED", "")]


def test_failed_replay_is_not_sent_again_by_the_same_form(
    failed: Phone, operator: Client, partner: FakePartner
) -> None:
    partner.fault(SUBMIT, "status", status=503)
    address = f"{page(failed, 'act')}?do=REPLAY_SUBMISSION"
    sent = {"reason": REASON, **hidden(operator, address)}
    for _ in range(2):
        operator.post(address, sent)
    assert len(partner.calls(SUBMIT)) == 2
    assert [action[3] for action in actions()] == ["UNKNOWN"]


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1001])
def test_without_a_reason_nothing_is_sent(
    reason: str, failed: Phone, operator: Client, partner: FakePartner
) -> None:
    assert act(operator, failed, "REPLAY_SUBMISSION", reason=reason).status_code == 400
    assert (len(partner.calls(SUBMIT)), actions()) == (1, [])


def test_what_has_changed_since_is_not_sent(
    failed: Phone, operator: Client, partner: FakePartner
) -> None:
    answer = act(operator, failed, "REPLAY_SUBMISSION", seen="0" * 32)
    assert answer.status_code == 409
    assert "nothing was sent" in text(answer)
    assert (len(partner.calls(SUBMIT)), actions()) == (1, [])


def test_nobody_chooses_the_id_of_an_action(
    failed: Phone, operator: Client, partner: FakePartner
) -> None:
    """Actions are listed by it: one with an id of long ago would be the last."""
    of_another = hidden(staff("", "view_workflowexecution", "replay_execution"), acting(failed))
    with time_machine.travel(timezone.now() - timedelta(hours=13), tick=False):
        of_yesterday = hidden(operator, acting(failed))
    made_up = {"once": "00000000-0000-7000-8000-000000000000"}
    for sent in (of_another, of_yesterday, made_up):
        answer = act(operator, failed, "REPLAY_SUBMISSION", once=sent["once"])
        assert answer.status_code == 409
        assert "nothing was done" in text(answer)
    assert (len(partner.calls(SUBMIT)), actions()) == (1, [])


def test_step_is_run_again(operator: Client, partner: FakePartner) -> None:
    phone = Phone(published(flow(server_step(0, triggerEndpoint=CALL), form(1))))
    partner.fault(CALL, "status", status=500)
    phone.step(0)
    assert act(operator, phone, "REPLAY_STEP", "0").status_code == 302
    first, second = partner.calls(CALL)
    assert first.key == second.key
    assert phone.row.position == 1
    assert [action[:4] for action in actions()] == [
        ("REPLAY_STEP", "operator", REASON, "SUCCEEDED")
    ]


def test_settling_sends_nothing(failed: Phone, operator: Client, partner: FakePartner) -> None:
    assert act(operator, failed, "SETTLE_SUBMISSION").status_code == 302
    assert failed.runs[-1].status == "SETTLED"
    assert len(partner.calls(SUBMIT)) == 1
    assert [action[0] for action in actions()] == ["SETTLE_SUBMISSION"]


def failed_undoing(partner: FakePartner) -> Phone:
    """Cancelled, and its booking could not be undone."""
    partner.answer(HOLD, {"ref": REF})
    phone = Phone(published(flow(undoable(0, HOLD), form(1), sensitive=["ref"])))
    assert phone.step(0).success
    partner.fault(UNDO_HOLD, "status", status=422)
    partner.answer(UNDO_HOLD, {"undone": True})
    phone.cancel()
    work_off_everything()
    assert phone.runs[-1].needs_attention
    return phone


def test_undoing_is_taken_up_again(operator: Client, partner: FakePartner) -> None:
    phone = failed_undoing(partner)
    labels = {offer.label: offer.reason for offer in operator.get(page(phone)).context["offers"]}
    assert (labels["Undo again"], labels["Settle the undoing"]) == ("", "")
    shown = text(operator.get(f"{page(phone, 'act')}?do=REPLAY_COMPENSATION"))
    assert f"POST {partner.url}{UNDO_HOLD}" in shown
    assert REF not in shown
    assert act(operator, phone, "REPLAY_COMPENSATION").status_code == 302
    work_off_everything()
    assert phone.runs[-1].status == "SUCCEEDED"
    assert [action[0] for action in actions()] == ["REPLAY_COMPENSATION"]


def test_undoing_is_settled(operator: Client, partner: FakePartner) -> None:
    phone = failed_undoing(partner)
    assert listed(operator, show="attention") == ["alice"]
    assert act(operator, phone, "SETTLE_COMPENSATION").status_code == 302
    assert phone.runs[-1].status == "SETTLED"
    assert listed(operator, show="attention") == []


def test_confirmation_of_a_cancellation_tells_what_is_undone(
    operator: Client, partner: FakePartner
) -> None:
    partner.answer(HOLD, {"ref": REF})
    phone = Phone(published(flow(undoable(0, HOLD), form(1))))
    assert phone.step(0).success
    asked = operator.get(f"{page(phone, 'act')}?do=CANCEL")
    assert asked.context["plan"].undone == (phone.compiled.steps[0].label,)
    assert "app can read the reason" in text(asked)
    bulk = operator.post(BULK, {"action": "CANCEL", "ids": [phone.execution_id]})
    assert bulk.context["radius"].undone == 1


def test_cancelling_keeps_the_reason(live: Phone, operator: Client) -> None:
    answer = act(operator, live, "CANCEL")
    assert answer.status_code == 302
    assert (live.row.status, live.row.cancel_reason) == ("CANCELLED", REASON)
    assert actions() == [("CANCEL", "operator", REASON, "SUCCEEDED", "")]
    again = operator.get(f"{page(live, 'act')}?do=CANCEL")
    assert again.context["refusal"] == "It was cancelled before."


def test_forms_need_their_token(failed: Phone) -> None:
    staff(rights.OPERATOR)
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="operator"))
    address = f"{page(failed, 'act')}?do=REPLAY_SUBMISSION"
    assert client.post(address, {"reason": REASON}).status_code == 403
    assert client.post(page(failed, "context"), {"reason": REASON}).status_code == 403


# --- revealing ------------------------------------------------------------------------------------


def revealed(client: Client, phone: Phone, **changed: str) -> Any:
    sent = {"source": "context", "place": "/form0/pin", "reason": REASON, **changed}
    return client.post(page(phone, "context"), sent)


def test_one_value_is_revealed_on_record(live: Phone, operator: Client) -> None:
    answer = revealed(operator, live)
    assert answer.status_code == 200
    assert answer.context["revealed"].value == SECRET
    assert "no-store" in answer["Cache-Control"]
    assert text(answer).count(SECRET) == 1
    assert actions() == [("REVEAL_VALUE", "operator", REASON, "SUCCEEDED", "context /form0/pin")]
    assert SECRET not in text(operator.get(page(live, "context")))


def test_kept_request_is_revealed_too(failed: Phone, operator: Client) -> None:
    run = failed.runs[-1]
    answer = revealed(operator, failed, source=str(run.id), place="/card/pin")
    assert answer.context["revealed"].value == SECRET
    assert [action[4] for action in actions()] == [f"{run.id} /card/pin"]


def test_address_of_a_callback_is_revealed_to_nobody(
    operator: Client, partner: FakePartner
) -> None:
    partner.answer_later("/api/check", {}, delay_ms=60_000)
    check = async_step(
        1, config={"requestMapping": {"to": "execution.callbackUrl", "pin": "form0.pin"}}
    )
    phone = Phone(published(flow(form(0), check, sensitive=["pin"])))
    phone.step(0, {"pin": SECRET})
    phone.step(1)
    work_off_all()
    run = phone.runs[1]
    assert run.status == "WAITING"
    token = partner.calls()[-1].headers["x-callback-url"].rpartition("/")[2]
    answer = revealed(operator, phone, source=str(run.id), place="/pin")
    assert answer.context["revealed"].value == SECRET
    for place in ("/to", ""):
        answer = revealed(operator, phone, source=str(run.id), place=place)
        assert answer.status_code in (400, 409)
        assert token not in text(answer)
    for name in ("change", "context"):
        assert token not in text(operator.get(page(phone, name)))


def test_every_place_that_is_offered_can_be_revealed(
    operator: Client, partner: FakePartner
) -> None:
    """Also a request that is nothing but the secret, and names with spaces, as a browser posts them."""
    bare = server_step(1, triggerEndpoint=CALL, config={"requestMapping": "form0.pin"})
    phone = Phone(published(flow(form(0), bare, form(2), sensitive=["pin"])))
    partner.fault(CALL, "status", status=500)
    phone.step(0, {"pin": SECRET, " a  b ": {"pin": "4711-0815"}})
    phone.step(1)
    page_of_data = operator.get(page(phone, "context"))
    (_, run_id, kept) = page_of_data.context["kept"][0]
    assert kept.places == ("",)
    for source, place, value in (
        (run_id, "", SECRET),
        ("context", "/form0/ a  b /pin", "4711-0815"),
    ):
        assert f'<option value="{place}">' in text(page_of_data)
        answer = revealed(operator, phone, source=source, place=place)
        assert answer.context["revealed"].value == value
    assert [action[4] for action in actions()] == [f"{run_id} ", "context /form0/ a  b /pin"]


@pytest.mark.parametrize("role", [rights.VIEWER, rights.EDITOR, rights.PUBLISHER])
def test_revealing_is_a_right_of_its_own(role: str, live: Phone) -> None:
    client = staff(role, *(name for name in RIGHTS if name != "reveal_value"))
    answer = revealed(client, live)
    assert (answer.status_code, SECRET in text(answer), actions()) == (403, False, [])


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"reason": " "}, 400),
        ({"place": "/form0/amount"}, 409),  # not masked: there is nothing to reveal
        ({"place": ""}, 409),  # all of it: only a part is masked
        ({"place": "/form0/pin" + "x" * 500}, 400),  # longer than the record can tell
        ({"place": "/form0/pin/0"}, 409),
        ({"source": "00000000-0000-0000-0000-000000000000"}, 409),
        ({"source": "nothing"}, 409),
    ],
)
def test_nothing_else_is_revealed(
    changed: dict[str, str], status: int, live: Phone, operator: Client
) -> None:
    answer = revealed(operator, live, **changed)
    assert (answer.status_code, SECRET in text(answer), actions()) == (status, False, [])


# --- many at once ---------------------------------------------------------------------------------


@pytest.fixture
def crowd(compiled: CompiledWorkflow, partner: FakePartner) -> list[Phone]:
    """Three failed submissions, and one that succeeded."""
    phones = []
    for number in range(4):
        if number < 3:
            partner.fault(SUBMIT, "status", status=500)
        phones.append(filled_in(compiled, f"person-{number}"))
        phones[-1].complete()
    return phones


def ids(phones: list[Phone]) -> list[UUID]:
    return [phone.execution_id for phone in phones]


def test_radius_comes_first(crowd: list[Phone], operator: Client, partner: FakePartner) -> None:
    answer = operator.post(BULK, {"action": "REPLAY_SUBMISSION", "ids": ids(crowd)})
    radius = answer.context["radius"]
    assert (len(radius.possible), radius.calls) == (3, (("default", 3),))
    assert [line.error for line in answer.context["refused"]] == [
        "It has succeeded: there is nothing to replay."
    ]
    assert (len(partner.calls(SUBMIT)), actions()) == (4, [])


def confirmed(client: Client, kind: str, chosen: list[UUID], **changed: Any) -> dict[str, Any]:
    """What the form under the blast radius sends, with a reason."""
    shown = client.post(BULK, {"action": kind, "ids": chosen})
    form = shown.context["form"]
    items = [item.sent for item in form.items]
    assert all(f'name="item" value="{escape(item)}"' in text(shown) for item in items)
    return {"action": kind, "item": items, "once": form.once, "reason": REASON, **changed}


def lines(answer: Any) -> list[tuple[str, str, str]]:
    assert answer.status_code == 200
    return [(line.id, line.step, line.outcome) for line in answer.context["lines"]]


def test_many_are_replayed_and_each_outcome_told(
    crowd: list[Phone], operator: Client, partner: FakePartner
) -> None:
    partner.fault(SUBMIT, "status", status=422)
    sent = confirmed(operator, "REPLAY_SUBMISSION", ids(crowd))
    first = operator.post(BULK, sent)
    outcomes = [
        (str(crowd[0].execution_id), "", "REJECTED"),
        (str(crowd[1].execution_id), "", "SUCCEEDED"),
        (str(crowd[2].execution_id), "", "SUCCEEDED"),
    ]
    assert lines(first) == outcomes
    assert first.context["is_over"] is True
    assert sorted(action[3] for action in actions()) == ["REJECTED", "SUCCEEDED", "SUCCEEDED"]
    assert lines(operator.post(BULK, sent)) == outcomes
    assert len(partner.calls(SUBMIT)) == 7


def test_what_has_changed_since_it_was_shown_is_refused(
    crowd: list[Phone], operator: Client, partner: FakePartner
) -> None:
    """One was completed by the person, one was refused to them and has another key now."""
    sent = confirmed(operator, "REPLAY_SUBMISSION", ids(crowd)[:3])
    crowd[0].complete()
    partner.fault(SUBMIT, "status", status=422)
    crowd[1].complete()
    calls = len(partner.calls(SUBMIT))
    answer = operator.post(BULK, sent)
    assert [outcome for _, _, outcome in lines(answer)] == ["REFUSED", "REFUSED", "SUCCEEDED"]
    assert [line.error for line in answer.context["lines"]] == [
        "It has succeeded: there is nothing to replay.",
        ActionChanged().message,
        "",
    ]
    assert len(partner.calls(SUBMIT)) == calls + 1
    assert [action[0] for action in actions()] == ["REPLAY_SUBMISSION"]


def test_work_goes_on_where_a_request_ended(
    crowd: list[Phone], operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executions.bulk_pages.CHUNK_SECONDS", 0)
    sent = confirmed(operator, "REPLAY_SUBMISSION", ids(crowd)[:3])
    done = []
    for _ in range(3):
        answer = operator.post(BULK, sent)
        sent["told"] = answer.context["form"].sealed
        done.append((len(answer.context["form"].told), answer.context["is_over"]))
    assert done == [(1, False), (2, False), (3, True)]
    assert [phone.row.status for phone in crowd] == ["COMPLETED"] * 4
    other = confirmed(operator, "CANCEL", ids(crowd)[:1], told=sent["told"], item=sent["item"])
    assert operator.post(BULK, other).status_code == 404  # told of another form


def failed_twice(partner: FakePartner) -> Phone:
    """Two calls that workers made have unknown outcomes; the second waits for the first one."""
    for path in ("/api/first", "/api/second"):
        partner.fault(path, "status", status=501)
        partner.answer(path, {"ok": True})
    first = async_step(0, triggerEndpoint="/api/first", label="1")
    phone = Phone(published(flow(first, async_step(1, triggerEndpoint="/api/second"), form(2))))
    assert phone.step(0).success
    assert phone.step(1).success
    assert work_off_all() == 2
    return phone


def test_steps_are_run_again_one_after_the_other(operator: Client, partner: FakePartner) -> None:
    phone = failed_twice(partner)
    chosen = [phone.execution_id]
    shown = operator.post(BULK, {"action": "REPLAY_STEP", "ids": chosen})
    radius = shown.context["radius"]
    assert (radius.executions, radius.calls) == (1, (("default", 1),))
    assert [(line.step, line.error) for line in shown.context["refused"]] == [
        ("Call 1", "An earlier step, or this step's BEFORE_STEP, has to be passed first.")
    ]
    sent = confirmed(operator, "REPLAY_STEP", chosen)
    queued = operator.post(BULK, sent)
    assert lines(queued) == [(str(phone.execution_id), "1", "QUEUED")]
    assert "See what workers made of it" in text(queued)
    work_off_all()
    sent["told"] = queued.context["form"].sealed
    assert lines(operator.post(BULK, sent)) == [(str(phone.execution_id), "1", "SUCCEEDED")]
    again = operator.post(BULK, confirmed(operator, "REPLAY_STEP", chosen))
    assert lines(again) == [(str(phone.execution_id), "Call 1", "QUEUED")]
    assert [len(partner.calls(path)) for path in ("/api/first", "/api/second")] == [2, 1]


def test_every_failed_step_that_can_be_is_run_again(operator: Client, partner: FakePartner) -> None:
    phone = failed_twice(partner)
    StepRun.objects.update(status=RunStatus.PARKED, needs_attention=True)
    sent = confirmed(operator, "REPLAY_STEP", [phone.execution_id])
    assert len(sent["item"]) == 2
    answer = operator.post(BULK, sent)
    assert [line[1:] for line in lines(answer)] == [("1", "QUEUED"), ("Call 1", "QUEUED")]
    work_off_all()
    assert [len(partner.calls(path)) for path in ("/api/first", "/api/second")] == [2, 2]
    assert [run.status for run in phone.runs] == ["SUCCEEDED"] * 2
    assert [action[0] for action in actions()] == ["REPLAY_STEP"] * 2


def test_too_many_are_sent_to_the_command(operator: Client) -> None:
    many = [new_id() for _ in range(51)]
    answer = operator.post(BULK, {"action": "REPLAY_SUBMISSION", "ids": many})
    assert answer.status_code == 400
    command = answer.context["command"]
    assert command.startswith(f"python manage.py replay_execution {many[0]} ")
    assert command.endswith(' --reason "…" --yes')


def test_many_need_a_reason_and_a_choice(crowd: list[Phone], operator: Client) -> None:
    live = [filled_in(crowd[0].compiled).execution_id]
    sent = confirmed(operator, "CANCEL", live, reason=" ")
    assert operator.post(BULK, sent).status_code == 400
    assert operator.post(BULK, sent | {"reason": "a\0b"}).status_code == 400
    assert operator.post(BULK, sent | {"reason": "x", "once": str(new_id())}).status_code == 400
    for item in ("x", f"{live[0]}:x:y:z", f"{live[0]}:1"):
        assert operator.post(BULK, sent | {"item": item}).status_code == 404
    assert operator.post(BULK, {"action": "CANCEL"}).status_code == 400
    assert operator.post(BULK, {"action": "CANCEL", "ids": ["x"]}).status_code == 404
    assert operator.post(BULK, sent | {"told": "forged"}).status_code == 404
    assert operator.get(BULK).status_code == 302
    assert actions() == []


# --- the list -------------------------------------------------------------------------------------


def listed(client: Client, **wanted: Any) -> list[str]:
    answer = client.get(LIST, wanted)
    assert answer.status_code == 200
    return [line.row.user_id for line in answer.context["lines"]]


def test_list_finds_and_filters(crowd: list[Phone], live: Phone, operator: Client) -> None:
    everybody = ["alice", "person-3", "person-2", "person-1", "person-0"]
    assert sorted(listed(operator)) == sorted(everybody)
    assert listed(operator, q="person-1") == ["person-1"]
    assert listed(operator, q=str(live.execution_id)) == ["alice"]
    assert listed(operator, q=live.row.session_id) == ["alice"]
    assert listed(operator, q="person") == []
    assert listed(operator, status="COMPLETED") == ["person-3"]
    assert sorted(listed(operator, code="SUBMISSION_FAILED")) == [
        "person-0",
        "person-1",
        "person-2",
    ]
    assert sorted(listed(operator, workflow=live.row.workflow_id)) == sorted(everybody)
    version = {"workflow": live.row.workflow_id, "version": live.row.version_id}
    assert sorted(listed(operator, **version)) == sorted(everybody)
    today = live.row.started_at.date()
    assert sorted(listed(operator, since=today, until=today)) == sorted(everybody)
    assert listed(operator, until="2020-01-01") == []
    assert listed(operator, show="attention") == []


def test_wrong_filters_are_told(live: Phone, operator: Client) -> None:
    for wanted in (
        {"status": "GONE"},
        {"since": "yesterday"},
        {"since": "9999-01-01"},
        {"until": "1970-01-01"},
        {"since": "2026-03-02", "until": "2026-03-01"},
        {"workflow": "x"},
        {"q": "\0"},
    ):
        answer = operator.get(LIST, wanted)
        assert (answer.status_code, answer.context["lines"]) == (200, [])
        assert answer.context["form"].errors
    both = operator.get(LIST, {"show": "abandoned-24", "status": "FAILED"})
    assert "clear the other filters" in text(both)


@pytest.mark.parametrize("way", ["older", "newer"])
@pytest.mark.parametrize("end", ["", "x", "0" * 32, "f" * 32])
def test_no_end_of_a_page_is_an_error(way: str, end: str, live: Phone, operator: Client) -> None:
    beyond = end == ("f" * 32 if way == "newer" else "0" * 32)
    assert listed(operator, **{way: end}) == ([] if beyond else ["alice"])


def test_who_stopped_lately_is_listed(live: Phone, operator: Client) -> None:
    assert listed(operator, show="abandoned-24") == []
    earlier = live.row.started_at - timedelta(hours=2)
    StepRun.objects.update(started_at=earlier)
    assert listed(operator, show="abandoned-24") == ["alice"]
    assert listed(operator, show="abandoned-24", workflow=live.row.workflow_id) == ["alice"]


def test_command_for_more_is_told(crowd: list[Phone], operator: Client) -> None:
    workflow = crowd[0].row.workflow_id
    wanted: dict[str, Any] = {
        "code": "SUBMISSION_FAILED",
        "since": "2026-01-31",
        "workflow": workflow,
    }
    assert operator.get(LIST, wanted).context["command"] == (
        "python manage.py replay_execution --failed-since 2026-01-31T00:00Z"
        f' --workflow {workflow} --reason "…" --dry-run'
    )
    assert operator.get(LIST).context["command"] == ""


# --- what it costs --------------------------------------------------------------------------------


def queries(client: Client, address: str) -> int:
    """Of the second look, when versions and connections are known to the process."""
    client.get(address)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


def crowded(compiled: CompiledWorkflow) -> None:
    for number in range(200):
        status = (COMPLETED, FAILED, IN_PROGRESS)[number % 3]
        code = "SUBMISSION_FAILED" if status is FAILED else ""
        row = execution(
            compiled,
            started=timezone.now() - timedelta(minutes=number + 1),
            status=status,
            code=code,
            user_id=f"person-{number}",
        )
        call(row)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?status=FAILED",
        "?show=attention",
        "?show=abandoned-24",
        "?q=person-7",
        "?since=2026-01-01",
    ],
    ids=["all", "status", "attention", "abandoned", "person", "days"],
)
def test_list_takes_few_queries(query: str, compiled: CompiledWorkflow, operator: Client) -> None:
    crowded(compiled)
    assert queries(operator, LIST + query) <= 12


def test_list_of_a_workflow_takes_few_queries(compiled: CompiledWorkflow, operator: Client) -> None:
    crowded(compiled)
    row = WorkflowExecution.objects.first()
    assert row is not None
    assert queries(operator, f"{LIST}?workflow={row.workflow_id}") <= 12
    assert queries(operator, f"{LIST}?workflow={row.workflow_id}&version={row.version_id}") <= 12


def test_overview_takes_few_queries(compiled: CompiledWorkflow, operator: Client) -> None:
    crowded(compiled)
    for _ in roll_up(now=timezone.now()):
        pass
    assert queries(operator, reverse("admin:index")) <= 12


def test_pages_of_one_execution_take_few_queries(
    failed: Phone, live: Phone, operator: Client, partner: FakePartner
) -> None:
    asked = Phone(published(flow(server_step(0, triggerEndpoint=CALL), form(1))))
    partner.fault(CALL, "status", status=500)
    asked.step(0)
    found = {
        (name, phone.row.status): queries(operator, page(phone, name))
        for phone in (failed, live, asked)
        for name in ("change", "context")
    }
    assert {key: count for key, count in found.items() if count > 12} == {}


def one_of_its_own(kind: str, partner: FakePartner) -> Phone:
    """An execution that this can be done to, of a workflow of its own."""
    if kind == "REPLAY_SUBMISSION":
        partner.fault(SUBMIT, "status", status=500)
        phone = filled_in(published(flow(form(0), finalApi={"endpoint": SUBMIT})))
        phone.complete()
        return phone
    if kind == "REPLAY_STEP":
        partner.fault(CALL, "status", status=500)
        phone = Phone(published(flow(server_step(0, triggerEndpoint=CALL), form(1))))
    else:
        partner.answer(HOLD, {"ref": REF})
        phone = Phone(published(flow(undoable(0, HOLD), form(1))))
    phone.step(0)
    if kind == "REPLAY_COMPENSATION":
        partner.fault(UNDO_HOLD, "status", status=422)
        phone.cancel()
        work_off_everything()
    return phone


@pytest.mark.parametrize(
    "kind", ["REPLAY_SUBMISSION", "REPLAY_STEP", "REPLAY_COMPENSATION", "CANCEL"]
)
def test_radius_takes_as_many_queries_for_one_as_for_many(
    kind: str, operator: Client, partner: FakePartner
) -> None:
    phones = [one_of_its_own(kind, partner) for _ in range(3)]
    counts = []
    for chosen in (phones[:1], phones):
        forget_everything()
        forget_connections()
        with CaptureQueriesContext(connection) as captured:
            answer = operator.post(BULK, {"action": kind, "ids": ids(chosen)})
        assert len(answer.context["radius"].possible) == len(chosen)
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 12
