"""Whether executions run on a version: one query, however many there are."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from config.ids import new_id
from executions.enums import WorkflowExecutionStatus
from executions.models import WorkflowExecution
from workflows import drafts, publishing
from workflows.models import WorkflowVersion
from workflows.tests.samples import form, workflow
from workflows.version_use import VersionUse, uses_of


def execution(version: WorkflowVersion, *, is_live: bool) -> None:
    now = timezone.now()
    status = WorkflowExecutionStatus.IN_PROGRESS if is_live else WorkflowExecutionStatus.COMPLETED
    WorkflowExecution.objects.create(
        workflow=version.workflow, version=version, user_id="alice", started_at=now,
        expires_at=now, status=status, completed_at=None if is_live else now,
    )  # fmt: skip


@pytest.mark.django_db
def test_uses_are_told_of_each_version_in_one_query() -> None:
    row = drafts.import_document(workflow(form()))[0]
    versions = []
    for at in range(3):
        drafts.update_workflow(row.pk, {"description": f"{at}"})
        versions.append(publishing.publish(row.pk, by="operator"))
    execution(versions[1], is_live=False)
    for is_live in (True, False, True):
        execution(versions[2], is_live=is_live)
    wanted = [version.pk for version in versions]
    with CaptureQueriesContext(connection) as captured:
        uses = uses_of([*wanted, new_id()])
    assert len(captured) == 1
    assert uses == {
        wanted[0]: VersionUse(),
        wanted[1]: VersionUse(is_used=True),
        wanted[2]: VersionUse(is_used=True, is_running=True),
    }
