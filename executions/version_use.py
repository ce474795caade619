"""Whether executions run on versions: existence only, read off the index of executions by version."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from django.db.models import Exists, OuterRef

from executions.models import WorkflowExecution
from workflows.models import WorkflowVersion
from workflows.version_use import VersionUse


def uses_of_versions(versions: Sequence[UUID]) -> Mapping[UUID, VersionUse]:
    """The use of each version; one query, whose cost does not grow with the executions."""
    executions = WorkflowExecution.objects.filter(version=OuterRef("pk")).order_by()
    rows = (
        WorkflowVersion.objects.filter(pk__in=versions)
        .annotate(is_used=Exists(executions), is_running=Exists(executions.filter(outcome="")))
        .values_list("pk", "is_used", "is_running")
    )
    return {pk: VersionUse(is_used, is_running) for pk, is_used, is_running in rows}
