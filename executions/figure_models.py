"""The rows of the back office's figures: counts of executions and runs by day, without a person.

`rollups.py` writes them, `statistics.py` reads them. A day is a UTC day, and an execution belongs
to the day that its id tells, when it was started. Figures outlive the executions they count.
"""

from django.db import models

from config.jsonfields import ExactJSONField
from executions.enums import DropCause


class FigureDay(models.Model):
    """One day that was rolled up; whoever rolls it up holds this row's lock.

    Counted are the executions before `until_id`. `executions` says how many there were: where there
    are fewer now, retention has begun to delete, and the day's figures stay as they are.
    """

    day = models.DateField(primary_key=True)
    until_id = models.UUIDField()
    executions = models.PositiveIntegerField(default=0)
    rolled_up_at = models.DateTimeField()

    class Meta:
        app_label = "executions"

    def __str__(self) -> str:
        return str(self.day)


class ExecutionFigures(models.Model):
    """How many executions of one day and version stand so: outcome, position, why no further.

    `outcome` is that of WorkflowExecution, "" while they live. `durations` counts the completed by
    how long they took (`durations.py`).
    """

    day = models.ForeignKey(FigureDay, models.CASCADE, related_name="+", db_index=False)
    version = models.ForeignKey(
        "workflows.WorkflowVersion", models.CASCADE, related_name="+", db_index=False
    )
    outcome = models.CharField(max_length=32, blank=True)
    position = models.PositiveSmallIntegerField()
    cause = models.CharField(max_length=16, choices=DropCause, blank=True)
    executions = models.PositiveIntegerField()
    durations = ExactJSONField(default=dict)

    class Meta:
        app_label = "executions"
        constraints = (
            # Its index also serves a period of days, and a version's part of it.
            models.UniqueConstraint(
                fields=["day", "version", "outcome", "position", "cause"],
                name="execution_figures_unique",
            ),
        )

    def __str__(self) -> str:
        return f"{self.day_id}: {self.executions} {self.outcome or 'live'}"


class RunFigures(models.Model):
    """How many partner calls of one day's executions and one version's step ended so.

    `step_index` is SUBMISSION for the submission. `error_code` is "" for a success, and the status
    of a run that failed without a code. `connection` is "" where the run does not name it.
    """

    SUBMISSION = -1

    day = models.ForeignKey(FigureDay, models.CASCADE, related_name="+", db_index=False)
    version = models.ForeignKey(
        "workflows.WorkflowVersion", models.CASCADE, related_name="+", db_index=False
    )
    step_index = models.SmallIntegerField()
    error_code = models.CharField(max_length=32, blank=True)
    connection = models.CharField(max_length=100, blank=True)
    runs = models.PositiveIntegerField()

    class Meta:
        app_label = "executions"
        constraints = (
            # Its index also serves a period of days, and a version's part of it.
            models.UniqueConstraint(
                fields=["day", "version", "step_index", "error_code", "connection"],
                name="run_figures_unique",
            ),
        )

    def __str__(self) -> str:
        return f"{self.day_id}: {self.runs} {self.error_code or 'succeeded'}"


class RollUp(models.Model):
    """The one row that says how far the roll-up has come, and when the next one is due.

    What ended before `seen_until` is in the figures.
    """

    THE_ONE = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=THE_ONE)
    seen_until = models.DateTimeField()
    due_at = models.DateTimeField()

    class Meta:
        app_label = "executions"

    def __str__(self) -> str:
        return f"rolled up until {self.seen_until}"
