"""Wake-ups: with the row or not at all, each to one worker, gone when taken; lost ones hurt nobody."""

import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from django.db import connection, connections, transaction
from django.test import Client
from django.utils import timezone
from django_tasks_db.models import DBTaskResult

from config import health, task_api
from executions import tasks

DUMMY = "django_tasks.backends.dummy.DummyBackend"
IMMEDIATE = "django_tasks.backends.immediate.ImmediateBackend"


class BrokenBackend(task_api.BaseTaskBackend):
    """A backend whose server is away."""

    supports_get_result = True

    def enqueue(self, *args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("redis://user:secret@host is away")

    def get_result(self, result_id: str) -> Any:
        raise ConnectionError("redis://user:secret@host is away")


BROKEN = f"{__name__}.BrokenBackend"


@pytest.fixture
def backend(settings: Any) -> Any:
    """Chooses the backend by its dotted path."""

    def choose(path: str) -> Any:
        settings.TASKS = {"default": {"BACKEND": path, "QUEUES": [tasks.QUEUE]}}
        return task_api.task_backends["default"]

    return choose


@pytest.fixture
def worked_off(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """The runs that the worker was told, in order."""
    told: list[UUID] = []
    stand_in(monkeypatch, told.append)
    return told


def stand_in(monkeypatch: pytest.MonkeyPatch, work_off: Callable[[UUID], object]) -> None:
    """Put a function in the worker's place."""
    worker = ModuleType("executions.worker")
    worker.work_off = work_off  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, worker.__name__, worker)


def wake(*run_ids: UUID) -> None:
    """One transaction for each, as the engine has it."""
    for run_id in run_ids:
        with transaction.atomic():
            tasks.wake(run_id)


def wake_and_roll_back() -> None:
    with transaction.atomic():
        tasks.wake(uuid4())
        raise RuntimeError


@pytest.mark.django_db(transaction=True)
def test_wake_ups_are_taken_once_and_in_order() -> None:
    runs = [uuid4() for _ in range(5)]
    wake(*runs)
    assert set(tasks.take_woken(3)) == set(runs[:3])
    assert set(tasks.take_woken(3)) == set(runs[3:])
    assert tasks.take_woken(3) == []
    assert DBTaskResult.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_wake_up_of_a_rolled_back_run_never_was() -> None:
    with pytest.raises(RuntimeError):
        wake_and_roll_back()
    assert tasks.take_woken(1) == []
    assert DBTaskResult.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_wake_up_is_seen_by_others_with_the_commit() -> None:
    seen: list[list[UUID]] = []

    def look() -> None:
        # On SQLite a second writer would have to wait; looking needs no lock.
        seen.append(list(DBTaskResult.objects.values_list("id", flat=True)))
        connections.close_all()

    with transaction.atomic():
        tasks.wake(run := uuid4())
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == [[]]
    assert tasks.take_woken(1) == [run]


@pytest.mark.django_db(transaction=True)
def test_wake_up_is_what_the_backend_would_have_left() -> None:
    wake(run := uuid4())
    tasks.work_off_run.enqueue(str(run))
    left, enqueued = map(dict[str, Any], DBTaskResult.objects.order_by("enqueued_at").values())
    for each in (left, enqueued):
        assert timezone.now() - each.pop("enqueued_at") < timedelta(seconds=60)
        assert isinstance(each.pop("id"), UUID)
    assert left == enqueued


@pytest.mark.django_db(transaction=True)
def test_duplicates_are_told_twice_and_leave_nothing() -> None:
    run = uuid4()
    wake(run, run)
    assert tasks.take_woken(5) == [run, run]
    assert DBTaskResult.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_what_names_no_run_is_dropped() -> None:
    with structlog.testing.capture_logs() as lines:
        tasks.work_off_run.enqueue("no uuid")
        wake(run := uuid4())
        assert tasks.take_woken(5) == [run]
    assert [line["event"] for line in lines] == ["wake-up for no run"]
    assert DBTaskResult.objects.count() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "other",
    [
        {"queue_name": "default"},  # another application's queue
        {"task_path": "billing.tasks.send_invoice"},
        {"status": "RUNNING"},
        {"status": "SUCCESSFUL"},
    ],
)
def test_tasks_of_others_are_left_alone(other: dict[str, str]) -> None:
    wake(uuid4())
    DBTaskResult.objects.update(**other)
    assert tasks.take_woken(5) == []
    assert DBTaskResult.objects.filter(**other).count() == 1


@pytest.mark.django_db(transaction=True)
def test_many_workers_never_take_the_same() -> None:
    runs = [uuid4() for _ in range(60)]
    wake(*runs)
    taken: list[UUID] = []
    begin = threading.Barrier(4)

    def work() -> None:
        begin.wait()
        while got := tasks.take_woken(2):
            taken.extend(got)
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rest = tasks.take_woken(60)  # who found only locked rows went home
    assert sorted(taken + rest) == sorted(runs)


@pytest.mark.django_db(transaction=True)
def test_idle_poll_is_one_look(django_assert_num_queries: Any) -> None:
    # the statement on PostgreSQL goes past Django's wrapper, which would count it
    with django_assert_num_queries(0 if connection.vendor == "postgresql" else 1):
        assert tasks.take_woken(8) == []


@pytest.mark.django_db(transaction=True)
def test_poll_finds_its_index_among_tasks_of_others() -> None:
    now = timezone.now()
    DBTaskResult.objects.bulk_create(
        DBTaskResult(
            args_kwargs={"args": [], "kwargs": {}},
            task_path="billing.tasks.send_invoice",
            status="SUCCESSFUL" if number % 2 else "READY",
            run_after=now + timedelta(seconds=number),
            backend_name="default",
        )
        for number in range(4000)
    )
    wake(run := uuid4())
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE django_tasks_database_dbtaskresult")
            cursor.execute(f"EXPLAIN {tasks._take_sql(8)}")
            plan = "\n".join(row[0] for row in cursor.fetchall())
            assert "Seq Scan" not in plan
        else:
            cursor.execute(f"EXPLAIN QUERY PLAN {tasks._look_sql()}")
            plan = "\n".join(row[-1] for row in cursor.fetchall())
            assert "(queue_name=?)" in plan
            assert "(queue_name=?)" in tasks._waiting().explain()
    assert tasks.take_woken(8) == [run]


@pytest.mark.django_db(transaction=True)
def test_another_backend_hears_of_it_after_the_commit(backend: Any, worked_off: list[UUID]) -> None:
    backend(IMMEDIATE)
    run = uuid4()
    with transaction.atomic():
        tasks.wake(run)
        assert worked_off == []
    assert worked_off == [run]
    assert tasks.take_woken(5) == []
    assert not tasks.uses_database()


@pytest.mark.django_db(transaction=True)
def test_another_backend_hears_nothing_of_a_rollback(backend: Any) -> None:
    dummy = backend(DUMMY)
    with pytest.raises(RuntimeError):
        wake_and_roll_back()
    assert dummy.results == []


@pytest.mark.django_db(transaction=True)
def test_backend_that_is_away_is_logged_by_type_only(backend: Any) -> None:
    backend(BROKEN)
    run = uuid4()
    with structlog.testing.capture_logs() as lines:
        wake(run)
    assert lines == [
        {
            "component": "handrail.tasks",
            "event": "wake-up not sent",
            "error": "ConnectionError",
            "run": str(run),
            "log_level": "warning",
        }
    ]


def test_failing_work_is_no_failed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_run_id: UUID) -> bool:
        raise ValueError("4111 1111 1111 1111")

    stand_in(monkeypatch, fail)
    with structlog.testing.capture_logs() as lines:
        tasks.work_off_run.call(str(uuid4()))
    assert [(line["event"], line["error"]) for line in lines] == [
        ("woken worker failed", "ValueError")
    ]
    assert "4111" not in str(lines)


def test_database_backend_is_the_default() -> None:
    assert tasks.uses_database()


@pytest.fixture
def _plain_http(settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = False


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_plain_http")
@pytest.mark.parametrize(
    ("path", "answer"),
    [("django_tasks_db.DatabaseBackend", "ok"), (DUMMY, "ok"), (BROKEN, "failed")],
)
def test_readiness_asks_the_backend(
    backend: Any, monkeypatch: pytest.MonkeyPatch, path: str, answer: str
) -> None:
    monkeypatch.setattr(health, "_probes", {"tasks": health._probes["tasks"]})
    backend(path)
    response = Client().get("/readyz")
    assert response.json() == {"ready": answer == "ok", "parts": {"tasks": answer}}
