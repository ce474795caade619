"""A long call keeps its lease; a holder that died, or left, does not."""

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from structlog.testing import capture_logs

from executions import leases
from executions.leases import Held, LeaseKeeper
from executions.models import WorkflowExecution
from workflows.models import Workflow, WorkflowVersion

pytestmark = pytest.mark.django_db(transaction=True)

LEASE_SECONDS = 1.0


@pytest.fixture(autouse=True)
def _short_leases(settings: Settings) -> None:
    settings.LEASE_SECONDS = LEASE_SECONDS


@pytest.fixture
def keeper() -> LeaseKeeper:
    return LeaseKeeper()


def leased(holder: UUID, *, seconds: float = LEASE_SECONDS) -> UUID:
    """An execution whose lease `holder` took just now."""
    workflow = Workflow.objects.create(name=f"Transfer {uuid4()}")
    version = WorkflowVersion.objects.create(
        workflow=workflow,
        number=1,
        name=workflow.name,
        document={},
        step_ids=[],
        content_hash="",
        published_at=timezone.now(),
    )
    execution = WorkflowExecution.objects.create(
        workflow=workflow,
        version=version,
        user_id="alice",
        started_at=timezone.now(),
        expires_at=timezone.now() + timedelta(hours=1),
        lease_holder=holder,
        lease_until=timezone.now() + timedelta(seconds=seconds),
    )
    return execution.id


def lives(execution_id: UUID) -> bool:
    """Whether the lease lives, as a caller who wants to take it over judges it."""
    return WorkflowExecution.objects.filter(id=execution_id, lease_until__gt=Now()).exists()


def wait_until(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_long_call_keeps_its_lease(keeper: LeaseKeeper) -> None:
    holder = uuid4()
    execution_id = leased(holder)
    with keeper.holding(execution_id, holder) as is_ours:
        ends = time.monotonic() + 3 * LEASE_SECONDS
        while time.monotonic() < ends:
            assert lives(execution_id)
            assert is_ours()
            time.sleep(0.05)


def test_who_stood_still_for_longer_is_told(keeper: LeaseKeeper) -> None:
    holder = uuid4()
    long_ago = time.monotonic() - LEASE_SECONDS
    with keeper.holding(leased(holder, seconds=-0.01), holder, since=long_ago) as is_ours:
        assert not is_ours()


def test_lease_that_was_taken_over_is_not_ours(keeper: LeaseKeeper) -> None:
    """Beside one that is renewed all the while."""
    holder, other = uuid4(), uuid4()
    kept, lost = leased(holder), leased(other)
    with keeper.holding(kept, holder) as is_ours, keeper.holding(lost, other) as is_still_ours:
        WorkflowExecution.objects.filter(id=lost).update(lease_holder=uuid4())
        wait_until(lambda: not is_still_ours())
        assert is_ours()


def test_lease_ends_when_the_call_is_left(keeper: LeaseKeeper) -> None:
    holder = uuid4()
    execution_id = leased(holder)
    with keeper.holding(execution_id, holder):
        assert lives(execution_id)
    wait_until(lambda: not lives(execution_id))
    wait_until(lambda: not keeper.is_running())


def test_call_that_raises_is_left_too(keeper: LeaseKeeper) -> None:
    holder = uuid4()
    with pytest.raises(ZeroDivisionError), keeper.holding(uuid4(), holder):
        raise ZeroDivisionError
    wait_until(lambda: not keeper.is_running())


DYING_HOLDER = """
import sys, time
from uuid import UUID
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
settings.LEASE_SECONDS = float(sys.argv[2])
import django
django.setup()
from executions.leases import lease_keeper
with lease_keeper.holding(UUID(sys.argv[3]), UUID(sys.argv[4])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lease_of_a_killed_process_ends() -> None:
    holder = uuid4()
    execution_id = leased(holder, seconds=30)
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", DYING_HOLDER),
            *(str(connection.settings_dict["NAME"]), str(LEASE_SECONDS)),
            *(str(execution_id), str(holder)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        # The process renews: from the 30 seconds given above to its own, shorter ones.
        wait_until(lambda: lease_seconds(execution_id) < 5)
        time.sleep(2 * LEASE_SECONDS)
        assert lives(execution_id)
        process.kill()
    wait_until(lambda: not lives(execution_id), seconds=3)


def lease_seconds(execution_id: UUID) -> float:
    until = WorkflowExecution.objects.get(id=execution_id).lease_until
    assert until is not None
    return (until - timezone.now()).total_seconds()


def test_lease_that_ran_out_is_not_revived() -> None:
    holder = uuid4()
    execution_id = leased(holder, seconds=-0.01)
    leases._renew(frozenset({Held(WorkflowExecution, execution_id, holder)}))
    assert not lives(execution_id)


def test_lease_taken_by_another_is_left_alone() -> None:
    execution_id = leased(uuid4(), seconds=30)
    leases._renew(frozenset({Held(WorkflowExecution, execution_id, uuid4())}))
    assert lease_seconds(execution_id) > 20


def test_a_lease_is_renewed_beside_one_of_its_row_that_is_over() -> None:
    """Another thread of the process has taken over what its own was too late for."""
    holders = [uuid4() for _ in range(8)]
    execution_id = leased(holders[3], seconds=0.5)
    held = [Held(WorkflowExecution, execution_id, holder) for holder in holders]
    assert leases._renew(frozenset(held)) == {held[3]}
    assert lease_seconds(execution_id) > 0.6


def test_all_leases_are_renewed_by_one_statement(settings: Settings) -> None:
    settings.LEASE_SECONDS = 300
    holders = [uuid4() for _ in range(3)]
    held = frozenset(
        Held(WorkflowExecution, leased(holder, seconds=30), holder) for holder in holders
    )
    with CaptureQueriesContext(
        connection,
    ) as queries:
        leases._renew(held)
    assert len([query for query in queries if query["sql"].startswith("UPDATE")]) == 1
    assert all(lease_seconds(each.row_id) > 200 for each in held)


@pytest.mark.skipif(
    connection.vendor != "postgresql", reason="SQLite has no locks of rows: needs PostgreSQL"
)
@pytest.mark.timeout(20)  # it would wait for ever
def test_a_row_that_somebody_has_locked_ends_no_other_lease(settings: Settings) -> None:
    """It is left for the next time; what only refers to the row keeps nothing."""
    settings.LEASE_SECONDS = 300
    locked, referred, free = holders = [uuid4() for _ in range(3)]
    held = {
        holder: Held(WorkflowExecution, leased(holder, seconds=30), holder) for holder in holders
    }
    other = connection.copy()
    other.set_autocommit(False)
    try:
        with other.cursor() as cursor:
            for holder, lock in ((locked, "UPDATE"), (referred, "KEY SHARE")):
                cursor.execute(
                    f"SELECT 1 FROM executions_workflowexecution WHERE id = %s FOR {lock}",
                    [held[holder].row_id],
                )
        renewed = leases._try_to_renew(frozenset(held.values()))
    finally:
        other.rollback()
        other.close()
    left = {holder: lease_seconds(each.row_id) for holder, each in held.items()}
    assert left[free] > 200
    assert left[referred] > 200
    assert left[locked] < 31
    assert renewed == {held[referred], held[free]}
    assert leases._try_to_renew(frozenset(held.values())) == set(held.values())
    assert lease_seconds(held[locked].row_id) > 200


def test_renewal_is_tried_again_after_an_error(
    keeper: LeaseKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew = leases._renew
    failures = [OperationalError("the database restarts"), ZeroDivisionError()]
    tries: list[int] = []

    def renew_after_failures(held: frozenset[Held]) -> frozenset[Held]:
        tries.append(len(held))
        if failures:
            raise failures.pop(0)
        return renew(held)

    monkeypatch.setattr(leases, "_renew", renew_after_failures)
    holder = uuid4()
    execution_id = leased(holder)
    with capture_logs() as lines, keeper.holding(execution_id, holder):
        wait_until(lambda: len(tries) >= 4)
        assert lives(execution_id)
    assert [(line["event"], line["error"]) for line in lines] == [
        ("leases were not renewed", "OperationalError"),
        ("leases were not renewed", "ZeroDivisionError"),
    ]
    wait_until(lambda: not keeper.is_running())


def test_many_short_calls_share_one_thread(keeper: LeaseKeeper) -> None:
    before = set(threading.enumerate())
    for _ in range(50):
        with keeper.holding(uuid4(), uuid4()):
            assert keeper.is_running()
    assert len(set(threading.enumerate()) - before) == 1
    wait_until(lambda: not keeper.is_running())


def test_forked_process_holds_nothing_of_its_parent(keeper: LeaseKeeper) -> None:
    with keeper.holding(uuid4(), uuid4()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
            child = os.fork()
        if child == 0:
            os._exit(0 if not keeper._held and not keeper.is_running() else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert keeper.is_running()
    wait_until(lambda: not keeper.is_running())
