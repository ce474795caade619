"""The rows of the database session store: one record per session, one row per sealed field.

A record carries what the database has to compare (sequence, expiry); everything a person entered
stands sealed in the fields, under the same names as in a Redis hash. Only
`session_store_database.py` touches these rows: whoever changes fields holds the record's lock.
"""

from django.db import models


class SessionRecord(models.Model):
    """One session: where it stands and how long it lives. Past `expires_at` it counts as gone."""

    session_id = models.CharField(max_length=64, primary_key=True)
    sequence = models.BigIntegerField()
    expires_at = models.DateTimeField()

    class Meta:
        app_label = "executions"
        indexes = (
            # delete_expired(): the longest dead first.
            models.Index(fields=["expires_at"], name="executions_session_expires"),
        )

    def __str__(self) -> str:
        return f"session at {self.sequence}"


class SessionField(models.Model):
    """One sealed value of a session: its state, or one key of its context."""

    session = models.ForeignKey(
        SessionRecord,
        on_delete=models.CASCADE,
        related_name="fields",
        # The unique constraint's index serves lookups by session already.
        db_index=False,
    )
    name = models.CharField(max_length=255)
    sealed = models.BinaryField()

    class Meta:
        app_label = "executions"
        constraints = (
            models.UniqueConstraint(fields=["session", "name"], name="executions_session_field"),
        )

    def __str__(self) -> str:
        return self.name
