"""The worker's loop in a thread of ours: what it takes, keeps and lets go of when something fails.

Workers as processes, killed and ended, are in `test_workers.py`.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from executions import sweeping
from executions.enums import RunStatus
from executions.tests.phone import Phone, flow, form, published, server_step
from executions.tests.records import strand
from executions.tests.servers import wait_until
from executions.worker_loop import WorkerLoop
from sandbox.testing import FakePartner

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def at_work(loop: WorkerLoop, *, sweeps: bool = False) -> Iterator[None]:
    """The loop runs in the block."""
    thread = threading.Thread(target=loop.run, kwargs={"sweeps": sweeps})
    thread.start()
    try:
        yield
    finally:
        loop.stop()
        thread.join()
        for sweeper in threading.enumerate():
            if sweeper.name == "sweeper":
                sweeper.join(20)


def test_a_dead_call_is_not_waited_for_until_all_that_expired_is_ended(
    partner: FakePartner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes minutes, when 100,000 expire at once."""
    begun, over = threading.Event(), threading.Event()

    def many(_page: int, **_named: Any) -> Iterator[UUID]:
        begun.set()
        over.wait(60)
        yield from ()

    monkeypatch.setattr(sweeping, "_sessionless", many)
    phone = Phone(published(flow(form(0), server_step(1))))
    phone.step(0, {"a": 1})
    with at_work(WorkerLoop(threads=1), sweeps=True):
        try:
            assert begun.wait(10)
            strand(phone)
            wait_until(lambda: phone.row.lease_holder is None, seconds=10)
        finally:
            over.set()
    assert phone.runs[-1].status == RunStatus.UNKNOWN
