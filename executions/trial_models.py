"""The record of trials: somebody of the staff sent a draft's request by hand."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from config.ids import new_id
from executions.enums import OperatorOutcome


class TriggerTrial(models.Model):
    """One trial, committed as STARTED before anything is sent. It holds nothing of what was sent.

    It names definitions without foreign keys, and as they were called: it outlives them.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    at = models.DateTimeField()
    by = models.CharField(max_length=255)
    # the trials of one workflow, when somebody asks who called its partners
    workflow_id = models.UUIDField(db_index=True)
    step_id = models.UUIDField(null=True, blank=True)
    what = models.CharField(max_length=500)
    connection = models.CharField(max_length=100)
    origin = models.CharField(max_length=500)
    is_sandbox = models.BooleanField()
    outcome = models.CharField(
        max_length=16, choices=OperatorOutcome, default=OperatorOutcome.STARTED
    )
    http_status = models.PositiveSmallIntegerField(null=True, blank=True)

    class Meta:
        verbose_name = "trial"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(outcome__in=OperatorOutcome.values), name="trial_outcome_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.what} to {self.connection} by {self.by} ({self.outcome})"
