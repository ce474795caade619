"""By which plans PostgreSQL answers; imported once Django is set up."""

import re
from typing import Any

from django.db import connection

BIG_TABLES = frozenset(
    {"executions_workflowexecution", "executions_steprun", "executions_stepattempt"}
)
_SCAN = re.compile(r"((?:Seq|Index Only|Index|Bitmap Index|Bitmap Heap) Scan)(.*?) on (\w+)")
_USING = re.compile(r"using (\w+)")
WHOLE_TABLE = "Seq Scan on"
"""How a node begins that reads a whole table: of the big ones, the others' are left out."""


def nodes_of(sql: str, params: Any = None) -> set[str]:
    """The nodes of a question's plan, with the tables and indexes that are read."""
    if not sql.lstrip(" (").upper().startswith(("SELECT", "WITH")):
        return set()
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}", params)
        lines = [row[0] for row in cursor.fetchall()]
    nodes = set()
    for line in lines:
        scan = _SCAN.search(line)
        if scan is None or (scan[1] == "Seq Scan" and scan[3] not in BIG_TABLES):
            continue
        using = _USING.search(scan[2])
        nodes.add(f"{scan[1]} on {scan[3]}" if using is None else f"{scan[1]} {using[1]}")
    return nodes
