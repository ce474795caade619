"""What operators configure: drafts with their steps, published versions, connections."""

from __future__ import annotations

from typing import Any, Self

from django.db import models
from django.db.models import Q
from django.utils import timezone

from config.ids import new_id
from config.jsonfields import ExactJSONField
from workflows.document_shape import LIMITS
from workflows.documents import StepDocument, WorkflowDocument
from workflows.enums import AuthKind, StepExecutionMode, StepType, TriggerTiming
from workflows.histories import kept_history


class VersionIsImmutable(TypeError):
    """Code tried to change a published version."""


class WorkflowQuerySet(models.QuerySet["Workflow"]):
    """Workflows by what one may do with them."""

    def active(self) -> Self:
        """Those that are not archived."""
        return self.filter(archived_at=None)

    def published(self) -> Self:
        """Those that apps may see: not archived, with a live version."""
        return self.active().exclude(live_version=None)


class Workflow(models.Model):
    """The editable definition: a draft. `live_version` is what new executions run."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.CharField(max_length=LIMITS.name)
    description = models.TextField(null=True, blank=True)  # noqa: DJ001 - NULL: not in the document
    config = ExactJSONField(null=True, blank=True)
    revision = models.PositiveIntegerField(default=1, editable=False)
    live_version = models.ForeignKey(
        "WorkflowVersion",
        on_delete=models.PROTECT,
        related_name="+",
        null=True,
        blank=True,
        editable=False,
    )
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = WorkflowQuerySet.as_manager()
    history = kept_history()

    class Meta:
        ordering = ("name", "id")
        permissions = (
            ("publish_workflow", "Can publish workflow"),
            ("archive_workflow", "Can archive workflow"),
        )
        constraints = (
            models.CheckConstraint(condition=~Q(name=""), name="workflow_has_a_name"),
            models.CheckConstraint(condition=Q(revision__gte=1), name="workflow_revision_from_one"),
        )
        indexes = (
            # The list of workflows by name, and import_workflow looking for the draft to change.
            models.Index(fields=("name", "id"), name="workflow_by_name"),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def is_archived(self) -> bool:
        return self.archived_at is not None

    def document(self) -> WorkflowDocument:
        """The draft as a document. One query for the steps unless they are prefetched."""
        return WorkflowDocument(
            name=self.name,
            description=self.description,
            config=self.config,
            steps=tuple(step.document() for step in self.steps_in_order()),
        )

    def steps_in_order(self) -> list[WorkflowStep]:
        """The draft's steps as they run. One query unless they are prefetched."""
        return sorted(self.steps.all(), key=lambda step: step.order)


class WorkflowStep(models.Model):
    """One step of a draft. Empty text and NULL are "not in the document", unlike a default."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, related_name="steps")
    order = models.PositiveIntegerField()
    type = models.CharField(max_length=20, choices=StepType.choices)
    label = models.CharField(max_length=LIMITS.label)
    execution_mode = models.CharField(
        max_length=20, choices=StepExecutionMode.choices, blank=True, default=""
    )
    trigger_timing = models.CharField(
        max_length=20, choices=TriggerTiming.choices, blank=True, default=""
    )
    trigger_endpoint = models.CharField(max_length=LIMITS.endpoint, blank=True, default="")
    timeout_ms = models.PositiveIntegerField(null=True, blank=True)
    retry_config = ExactJSONField(null=True, blank=True)
    config = ExactJSONField(null=True, blank=True)

    history = kept_history()

    class Meta:
        ordering = ("workflow", "order")
        constraints = (
            # Its index also serves reading a draft's steps in their order.
            models.UniqueConstraint(fields=("workflow", "order"), name="step_order_is_unique"),
            models.CheckConstraint(
                condition=Q(type__in=StepType.values), name="step_type_is_known"
            ),
            models.CheckConstraint(
                condition=Q(execution_mode__in=["", *StepExecutionMode.values]),
                name="step_mode_is_known",
            ),
            models.CheckConstraint(
                condition=Q(trigger_timing__in=["", *TriggerTiming.values]),
                name="step_timing_is_known",
            ),
            models.CheckConstraint(
                condition=Q(timeout_ms=None) | Q(timeout_ms__range=LIMITS.timeout_ms),
                name="step_timeout_in_range",
            ),
        )

    def __str__(self) -> str:
        return f"{self.order}. {self.label}"

    def document(self) -> StepDocument:
        """The step as it stands in the workflow document."""
        return StepDocument(
            type=StepType(self.type),
            label=self.label,
            order=self.order,
            execution_mode=StepExecutionMode(self.execution_mode) if self.execution_mode else None,
            trigger_timing=TriggerTiming(self.trigger_timing) if self.trigger_timing else None,
            trigger_endpoint=self.trigger_endpoint or None,
            timeout_ms=self.timeout_ms,
            retry_config=self.retry_config,
            config=self.config,
        )

    def take(self, document: StepDocument) -> None:
        """Set every column from the document; nothing is saved."""
        self.order = document.order
        self.type = document.type.value
        self.label = document.label
        self.execution_mode = document.execution_mode.value if document.execution_mode else ""
        self.trigger_timing = document.trigger_timing.value if document.trigger_timing else ""
        self.trigger_endpoint = document.trigger_endpoint or ""
        self.timeout_ms = document.timeout_ms
        self.retry_config = document.retry_config
        self.config = document.config


class WorkflowVersionQuerySet(models.QuerySet["WorkflowVersion"]):
    """Versions: they can be added and read."""

    def update(self, **kwargs: Any) -> int:
        raise VersionIsImmutable(f"a version is never changed ({', '.join(kwargs)})")


class WorkflowVersion(models.Model):
    """An immutable, numbered snapshot made by publishing a draft; what executions run.

    Saving an existing row raises VersionIsImmutable. Deleting is refused by the database while an
    execution or a workflow refers to the version.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    workflow = models.ForeignKey(Workflow, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    name = models.CharField(max_length=LIMITS.name)
    required_scopes = ExactJSONField(default=list)
    document = ExactJSONField()
    step_ids = ExactJSONField()
    content_hash = models.CharField(max_length=64)
    published_at = models.DateTimeField()
    published_by = models.CharField(max_length=255, blank=True, default="")
    note = models.TextField(blank=True, default="")
    changes = ExactJSONField(default=list)

    objects = WorkflowVersionQuerySet.as_manager()

    class Meta:
        ordering = ("workflow", "-number")
        constraints = (
            # Its index also serves "the newest version of a workflow".
            models.UniqueConstraint(fields=("workflow", "number"), name="version_number_is_unique"),
            models.CheckConstraint(condition=Q(number__gte=1), name="version_number_from_one"),
        )

    def __str__(self) -> str:
        return f"{self.name} v{self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        # The one save() override: what executions run must not change under them.
        if not self._state.adding:
            raise VersionIsImmutable("a version is never changed")
        super().save(*args, **kwargs)


class GoldenRun(models.Model):
    """A made-up context and the final payload that it has to give: what publishing a draft is checked by.

    Part of its workflow, whose permissions guard it. Without a history: a context that was not made up
    after all has to be gone when it is deleted.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    workflow = models.ForeignKey(
        Workflow, on_delete=models.CASCADE, related_name="golden_runs", db_index=False
    )
    name = models.CharField(max_length=LIMITS.name)
    context = ExactJSONField()
    expected = ExactJSONField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.CharField(max_length=255, blank=True, default="")
    updated_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_by = models.CharField(max_length=255, blank=True, default="")

    class Meta:
        ordering = ("workflow", "name")
        default_permissions = ()
        constraints = (
            # Its index also serves reading a workflow's golden runs by name.
            models.UniqueConstraint(fields=("workflow", "name"), name="golden_run_name_is_unique"),
            models.CheckConstraint(condition=~Q(name=""), name="golden_run_has_a_name"),
        )

    def __str__(self) -> str:
        return self.name


class Connection(models.Model):
    """A partner system: base URL, credentials sealed with its id, network permission."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.CharField(max_length=100, unique=True)
    base_url = models.CharField(max_length=500)
    # Derived from base_url, so that an absolute endpoint finds its connection.
    origin = models.CharField(max_length=300, editable=False)
    auth_kind = models.CharField(
        max_length=10, choices=AuthKind.choices, default=AuthKind.NONE.value
    )
    username = models.CharField(max_length=200, blank=True, default="")
    header_name = models.CharField(max_length=100, blank=True, default="")
    secret = models.BinaryField(null=True, blank=True, editable=False)
    # What the partner signs its callbacks with; NULL asks for no signature.
    callback_secret = models.BinaryField(null=True, blank=True, editable=False)
    allow_private = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    history = kept_history(excluded_fields=("secret", "callback_secret"))

    class Meta:
        ordering = ("name",)
        permissions = (("test_connection", "Can call a connection to test it"),)
        constraints = (
            models.CheckConstraint(
                condition=Q(auth_kind__in=AuthKind.values), name="connection_auth_kind_is_known"
            ),
            models.CheckConstraint(
                condition=Q(auth_kind=AuthKind.NONE.value, secret=None)
                | (~Q(auth_kind=AuthKind.NONE.value) & Q(secret__isnull=False)),
                name="connection_secret_fits_auth_kind",
            ),
            models.CheckConstraint(
                condition=~Q(auth_kind=AuthKind.BASIC.value) | ~Q(username=""),
                name="connection_basic_has_username",
            ),
            models.CheckConstraint(
                condition=~Q(auth_kind=AuthKind.API_KEY.value) | ~Q(header_name=""),
                name="connection_api_key_has_header",
            ),
        )
        indexes = (
            # An absolute endpoint asking which connection it belongs to.
            models.Index(fields=("origin",), name="connection_by_origin"),
        )

    def __str__(self) -> str:
        return self.name
