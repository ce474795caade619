"""`run_worker` as processes: killed, hanging, poisoned, ended, and two at once.

Everything else about workers is told without processes in `test_async_steps.py` and its neighbours.
"""

import statistics
import time
from collections.abc import Sequence
from uuid import UUID

import pytest
from django.db import connection
from pytest_django import Settings

from config.jsonvalues import JsonObject
from executions.enums import RunStatus
from executions.management.commands.run_worker import Command
from executions.models import StepRun
from executions.tests.phone import Phone, flow, published
from executions.tests.servers import (
    LEASE_SECONDS,
    PAYMENT,
    TRANSFER,
    WorkerProcess,
    wait_until,
)
from executions.tests.test_async_steps import async_step
from executions.worker import Claim, Found, Share
from sandbox.testing import FakePartner
from workflows.compiled import CompiledWorkflow
from workflows.connections import set_connection

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("server_output"),
    pytest.mark.timeout(240),
]

PICKED_UP_SECONDS = 30
POISON = "/api/anything/poison"
SUCCEEDED, QUEUED, RUNNING = RunStatus.SUCCEEDED, RunStatus.QUEUED, RunStatus.RUNNING


def transfers(path: str = TRANSFER, **config: str) -> CompiledWorkflow:
    """One step: a transfer by a worker, of what is entered."""
    mapping: JsonObject = {"amount": "input.amount", "recipientAccount": "input.recipientAccount"}
    step = async_step(
        0,
        triggerEndpoint=path,
        timeoutMs=60_000,
        config={"requestMapping": mapping, "reversible": False, **config},
    )
    return published(flow(step))


def queued(count: int, compiled: CompiledWorkflow) -> list[Phone]:
    """So many people, whose transfers wait for a worker."""
    phones = [Phone(compiled, user_id=f"alice-{number}") for number in range(count)]
    for phone in phones:
        assert phone.step(0, PAYMENT).success
    return phones


def statuses(phones: Sequence[Phone]) -> list[str]:
    """How the one run of each stands."""
    found = dict(StepRun.objects.values_list("execution_id", "status"))
    return [found[phone.execution_id] for phone in phones]


def wait_for(
    phones: Sequence[Phone], status: RunStatus = SUCCEEDED, *, seconds: float = 60
) -> None:
    wait_until(lambda: set(statuses(phones)) == {status}, seconds=seconds)


# --- killed ---------------------------------------------------------------------------------------


def test_runs_of_killed_workers_are_picked_up(bank: FakePartner) -> None:
    """With default settings: a lease of 15 s, renewed every five."""
    phones = queued(8, transfers())
    with bank.hold(TRANSFER, times=8):
        # two of three threads for one connection
        victims = [_launched(bank, threads=3) for _ in range(4)]
        try:
            bank.wait_for_calls(8, TRANSFER, timeout=60)
            with WorkerProcess(partner_url=bank.url, lease_seconds=None):
                time.sleep(3)  # the leases have been renewed at different moments
                killed_at = time.time()
                for victim in victims:
                    victim.kill()
                wait_for(phones, seconds=60)
        finally:
            for victim in victims:
                victim.end()
    again = [call.received_at for call in bank.calls(TRANSFER)][8:]
    waits = sorted(at - killed_at for at in again)
    print(f"{connection.vendor}: median {statistics.median(waits):.1f} s of {waits}")  # noqa: T201

    assert len(again) == 8
    assert waits[-1] <= PICKED_UP_SECONDS
    assert waits[0] > 5  # no second call while a lease lived
    assert len(bank.effects(TRANSFER)) == 8
    assert {effect.replays for effect in bank.effects(TRANSFER)} == {1}
    assert [run.attempts.count() for run in StepRun.objects.all()] == [1] * 8


def _launched(bank: FakePartner, *, threads: int) -> WorkerProcess:
    worker = WorkerProcess(partner_url=bank.url, lease_seconds=None, threads=threads)
    worker.launch()
    return worker


def test_a_run_that_kills_its_workers_is_parked_and_the_others_go_on(bank: FakePartner) -> None:
    (poison,) = queued(1, transfers(POISON))
    others = queued(3, transfers())
    with bank.hold(POISON, times=None, effect="after"):
        for deaths in range(1, 6):
            with WorkerProcess(partner_url=bank.url) as worker:
                bank.wait_for_calls(deaths, POISON, timeout=30)
                worker.kill()
        with WorkerProcess(partner_url=bank.url):
            wait_for([poison], RunStatus.PARKED, seconds=30)
            wait_for(others)
            wait_for(queued(1, transfers()))
    run = poison.runs[0]
    assert len(bank.calls(POISON)) == 5
    assert {call.key for call in bank.calls(POISON)} == {str(run.trigger_key)}
    assert (run.needs_attention, run.lease_holder, run.claims) == (True, None, 5)
    assert run.error == "The workers that took this run died of it; it is held for operators."
    assert len(bank.effects(TRANSFER)) == 4
    assert poison.complete().error_code == "STEPS_INCOMPLETE"


# --- a partner that hangs -------------------------------------------------------------------------


def test_a_partner_that_hangs_leaves_threads_to_the_others(bank: FakePartner) -> None:
    """It hangs until the others' runs have ended: they do not wait for it at all."""
    with FakePartner() as slow:
        set_connection(name="slow", base_url=slow.url, allow_private=True)
        hanging = queued(12, transfers(connection="slow"))
        with WorkerProcess(partner_url=bank.url, threads=4):
            with slow.hold(TRANSFER, times=None):
                slow.wait_for_calls(3, TRANSFER, timeout=30)
                wait_for(queued(20, transfers()))
                assert sorted(statuses(hanging)) == [QUEUED] * 9 + [RUNNING] * 3
                assert len(slow.calls(TRANSFER)) == 3
            wait_for(hanging)
        assert len(slow.effects(TRANSFER)) == len(slow.calls(TRANSFER)) == 12
    assert len(bank.effects(TRANSFER)) == 20


# --- what is taken together -----------------------------------------------------------------------


def found(*connections: str, claims: int = 0) -> list[Found]:
    return [Found(UUID(int=n), name, claims) for n, name in enumerate(connections)]


def test_one_look_takes_no_more_than_a_connections_share() -> None:
    share = Share(3, {"bank": 2})
    assert [run.connection for run in share.of(found("bank", "bank", "post", "bank"))] == [
        "bank",
        "post",
    ]
    assert Share(3, {"bank": 3, "post": 1}).full == ["bank"]


def test_runs_of_which_workers_died_are_taken_one_at_a_time() -> None:
    """What was beside a poisonous run is then worked off without it."""
    suspects = found("bank", "bank", claims=3)
    fresh = found("post", "post", claims=2)
    share = Share(8, {})
    assert share.of([*suspects, *fresh]) == [suspects[0], *fresh]
    assert Share(8, {}, has_suspect=True).of([*suspects, *fresh]) == fresh
    left = share.less([Claim(UUID(int=1), UUID(int=2), "bank", is_suspect=True)])
    assert (left.busy, left.has_suspect, left.most) == ({"bank": 1}, True, 8)


# --- ended ----------------------------------------------------------------------------------------


def test_sigterm_ends_what_was_begun_and_begins_nothing(bank: FakePartner) -> None:
    (begun,) = queued(1, transfers())
    with bank.hold(TRANSFER) as gate, WorkerProcess(partner_url=bank.url, threads=2) as worker:
        bank.wait_for_calls(1, TRANSFER, timeout=30)
        worker.terminate()
        time.sleep(1)  # the signal has to arrive
        (left,) = queued(1, transfers())
        time.sleep(1)  # it would have been taken after 0.05 s
        assert worker.is_alive
        gate.set()
        assert worker.exit_code() == 0
        assert statuses([begun, left]) == [SUCCEEDED, QUEUED]
    assert [run.lease_holder for run in StepRun.objects.all()] == [None, None]
    assert len(bank.calls(TRANSFER)) == 1


@pytest.mark.parametrize("times", [1, 2], ids=["its time is over", "told twice"])
def test_a_worker_that_waits_no_longer_hands_its_runs_back(bank: FakePartner, times: int) -> None:
    """It ends although its call does not; the next one makes that again, under its key."""
    (phone,) = queued(1, transfers())
    grace = ["--grace", "1" if times == 1 else "600"]
    with bank.hold(TRANSFER), WorkerProcess(partner_url=bank.url, arguments=grace) as worker:
        bank.wait_for_calls(1, TRANSFER, timeout=30)
        worker.terminate()
        if times == 2:
            time.sleep(1.5)  # within a second it would be the same wish
            assert worker.is_alive
            worker.terminate()
        assert worker.exit_code() == 1
        assert worker.output.strip().splitlines()[-1] == (
            "Calls were still under way; another worker makes them again."
        )
        run = phone.runs[0]
        assert (run.status, run.in_doubt, run.claims) == (QUEUED, True, 0)
        with WorkerProcess(partner_url=bank.url):
            wait_for([phone])
    first, again = bank.calls(TRANSFER)
    assert again.key == first.key
    assert again.received_at - first.received_at > LEASE_SECONDS
    (effect,) = bank.effects(TRANSFER)
    assert effect.replays == 1


def test_two_workers_call_once_each(bank: FakePartner) -> None:
    compiled = transfers()
    with (
        WorkerProcess(partner_url=bank.url, threads=8, lease_seconds=None),
        WorkerProcess(partner_url=bank.url, threads=8, lease_seconds=None),
    ):
        phones = queued(200, compiled)
        wait_for(phones, seconds=120)
    keys = [call.key for call in bank.calls(TRANSFER)]
    assert (len(keys), len(set(keys))) == (200, 200)
    assert {effect.replays for effect in bank.effects(TRANSFER)} == {0}
    assert len(bank.effects(TRANSFER)) == 200
    runs = StepRun.objects.prefetch_related("attempts")
    assert [len(run.attempts.all()) for run in runs] == [1] * 200


# --- wrong usage ----------------------------------------------------------------------------------


def test_wrong_arguments_end_the_process_with_2() -> None:
    worker = WorkerProcess(partner_url="http://127.0.0.1:1", threads=513)
    worker.launch()
    try:
        assert worker.exit_code(seconds=30) == 2
        assert worker.output == "CommandError: --threads has to be between 1 and 512.\n"
    finally:
        worker.end()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--threads", "0"], "CommandError: --threads has to be between 1 and 512."),
        (["--threads", "513"], "CommandError: --threads has to be between 1 and 512."),
        (["--grace", "-1"], "CommandError: --grace has to be between 0 and 3600 seconds."),
        (
            ["--threads", "many"],
            "manage.py run_worker: argument --threads: invalid int value: 'many'; see --help",
        ),
        (["--fast"], "manage.py run_worker: unrecognized arguments: --fast; see --help"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    arguments: list[str],
    sentence: str,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings.DEBUG = True  # the keys are those of development
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "run_worker", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == sentence
