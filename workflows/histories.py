"""That a definition keeps its history: what simple-history is told for each model.

The changer is text (a username, the subject of a token, the command line): histories outlive users,
and not every changer is one. Only `save()` and `delete()` are seen, never `QuerySet.update()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import models
from simple_history.models import HistoricalRecords

from config.actors import MAX_LENGTH, acting


def kept_history(*, excluded_fields: Sequence[str] = ()) -> HistoricalRecords:
    """The `history` of a model; excluded fields are not in it, not even sealed."""
    return HistoricalRecords(
        excluded_fields=list(excluded_fields),
        history_user_id_field=models.CharField(max_length=MAX_LENGTH),
        history_user_getter=_changer,
        history_user_setter=_set_changer,
        get_user=_acting,
    )


def _changer(record: Any) -> str:
    return str(record.history_user_id)


def _set_changer(record: Any, who: str) -> None:
    record.history_user_id = who


def _acting(**_kwargs: Any) -> str:
    return acting()
