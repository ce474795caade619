"""A JSON column that gives back exactly what was put in.

PostgreSQL's jsonb sorts keys and turns 1e23 into an integer; a published document, its hash and
a mapped payload must not change by being stored. So the column is text on every database. It
cannot be queried by key: what is searched for has a column of its own.
"""

from __future__ import annotations

import json
from typing import Any

from django.db import models

from config.jsonvalues import JsonValue


class ExactJSONField(models.JSONField):
    """JSON kept as text: key order and number types survive. None is SQL NULL."""

    def get_internal_type(self) -> str:
        return "TextField"

    def get_db_prep_value(
        self,
        value: JsonValue,
        connection: Any,  # noqa: ARG002 - Django's signature
        prepared: bool = False,  # noqa: ARG002, FBT001, FBT002 - Django's signature
    ) -> str | None:
        if value is None:
            return None
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
