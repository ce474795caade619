"""Proof that a refused call changed nothing: rows, sessions and the partner's ledger, before and after."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.models import Model

from executions.models import StepAttempt, StepRun, WorkflowExecution
from executions.session_store import get_session_store
from sandbox.testing import FakePartner

RECORDS: tuple[type[Model], ...] = (WorkflowExecution, StepRun, StepAttempt)


def everything_stored() -> dict[str, Any]:
    """Every record with all its columns, and what every execution's session says."""
    rows = {
        model.__name__: list(model._default_manager.order_by("pk").values()) for model in RECORDS
    }
    store = get_session_store()
    sessions = {}
    for execution in WorkflowExecution.objects.all():
        snapshot = store.get_context(execution.session_id)
        if snapshot is not None:
            read = (snapshot.sequence, snapshot.state, dict(snapshot.context))
            sessions[str(execution.id)] = read
    return {**rows, "sessions": sessions}


@contextmanager
def nothing_happens(partner: FakePartner | None = None) -> Iterator[None]:
    """Nothing is stored inside the block, and nothing is sent."""
    stored = everything_stored()
    calls = 0 if partner is None else len(partner.calls())
    yield
    assert everything_stored() == stored
    assert partner is None or len(partner.calls()) == calls
