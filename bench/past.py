"""Ninety days of a busy house: executions, runs and attempts by the million, straight into the tables."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from bench.database import Database

DAYS = 90
RUNS_EACH = 5
CHUNK = 50_000

# Of 20 executions 14 completed, 3 expired, 1 failed to submit, 1 was cancelled and 1 completed late;
# of the last half hour's every second one still lives. An id tells when it was made.
_EXECUTIONS = """
INSERT INTO executions_workflowexecution (
    id, workflow_id, version_id, user_id, page_id, status, sequence, position,
    started_at, completed_at, expires_at, error_code, error, cancel_reason)
SELECT (lpad(to_hex(floor(extract(epoch FROM began) * 1000)::bigint), 12, '0') || '70008000'
           || lpad(to_hex(n), 12, '0'))::uuid,
       v.workflow_id, v.id, 'user' || n / 50, 'home',
       CASE WHEN lives THEN 'IN_PROGRESS' WHEN shape IN (14, 15, 16, 17) THEN 'FAILED'
            WHEN shape = 18 THEN 'CANCELLED' ELSE 'COMPLETED' END,
       9, CASE WHEN lives OR shape IN (14, 15, 16) THEN n %% 4 WHEN shape = 18 THEN 2 ELSE 4 END,
       began,
       CASE WHEN lives THEN NULL ELSE began + (30 + n * 37 %% 600) * interval '1 second' END,
       began + interval '1 hour',
       CASE WHEN lives THEN '' WHEN shape IN (14, 15, 16) THEN 'SESSION_EXPIRED'
            WHEN shape = 17 THEN 'SUBMISSION_FAILED' ELSE '' END, '', ''
FROM (SELECT n, n * 7 %% 20 AS shape, began,
             began > %(now)s::timestamptz - interval '30 minutes' AND n %% 2 = 0 AS lives
      FROM (SELECT n, %(now)s::timestamptz - (%(count)s - n)::double precision / %(count)s
                          * %(days)s * interval '1 day' - interval '20 seconds' AS began
            FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) AS numbers) AS executions
JOIN (SELECT id, workflow_id, row_number() OVER (ORDER BY number, id) - 1 AS place,
             count(*) OVER () AS versions FROM workflows_workflowversion) AS v
  ON v.place = n / 20 %% v.versions
"""

# The last run of an execution that did not complete says why; a few hundred are in doubt or held.
_RUNS = """
INSERT INTO executions_steprun (
    id, execution_id, kind, step_id, step_index, timing, mode, status, sequence, visit,
    should_proceed, trigger_key, error_code, error, started_at, finished_at, duration_ms,
    connection, needs_attention)
SELECT (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008000'
           || lpad(to_hex(n * 8 + k), 12, '0'))::uuid,
       execution_id, CASE WHEN ends THEN 'SUBMISSION' ELSE 'STEP' END,
       NULL, CASE WHEN ends THEN NULL WHEN k = 5 THEN position ELSE k - 1 END,
       CASE WHEN ends THEN '' ELSE 'AFTER_STEP' END,
       CASE WHEN k IN (2, 4, 5) THEN 'SERVER_SYNC' ELSE 'CLIENT_ONLY' END,
       CASE WHEN code = '' THEN 'SUCCEEDED' WHEN n %% 500 = 17 THEN 'UNKNOWN' ELSE 'FAILED' END,
       k, 0, code = '', CASE WHEN k IN (2, 4, 5) THEN gen_random_uuid() END, code, '',
       at, at + interval '80 milliseconds', 80, CASE WHEN k IN (2, 4, 5) THEN 'default' ELSE '' END,
       n %% 50000 = 17 AND k = 5
FROM (SELECT e.id AS execution_id, e.position, k, ('x' || right(e.id::text, 12))::bit(48)::bigint AS n,
             e.started_at + k * interval '5 seconds' AS at,
             k = 5 AND e.position = 4 AS ends,
             CASE WHEN k < 5 OR e.outcome IN ('', 'COMPLETED', 'CANCELLED') THEN ''
                  WHEN e.outcome = 'SUBMISSION_FAILED' THEN 'TRIGGER_UNAVAILABLE'
                  ELSE (ARRAY['', 'VALIDATION_REJECTED', 'TRIGGER_TIMEOUT', 'TRIGGER_UNAVAILABLE'])
                       [1 + e.position] END AS code
      FROM made e, generate_series(1, %(runs)s) k) AS runs
"""

# What the partner did not answer was tried three times.
_ATTEMPTS = """
INSERT INTO executions_stepattempt (
    run_id, number, outcome, http_status, error_code, started_at, duration_ms)
SELECT r.id, n, CASE r.error_code WHEN '' THEN 'ANSWERED' WHEN 'VALIDATION_REJECTED' THEN 'ANSWERED'
                     WHEN 'TRIGGER_TIMEOUT' THEN 'TIMED_OUT' ELSE 'CONNECT_FAILED' END,
       CASE WHEN r.error_code IN ('', 'VALIDATION_REJECTED') THEN 200 END,
       CASE WHEN r.error_code LIKE 'TRIGGER%%' THEN r.error_code ELSE '' END,
       r.started_at, 80 / n
FROM added r, generate_series(1, CASE WHEN r.error_code LIKE 'TRIGGER%%' THEN 3 ELSE 1 END) n
WHERE r.trigger_key IS NOT NULL
"""

# Staff did something to one of 200.
_ACTIONS = """
INSERT INTO executions_operatoraction (id, execution_id, action, by, reason, about, at, outcome)
SELECT gen_random_uuid(), e.id, (ARRAY['REPLAY_SUBMISSION', 'CANCEL', 'REVEAL_VALUE'])[1 + n %% 3],
       'operator' || n %% 20, 'The person called.', '', e.started_at + interval '1 day', 'SUCCEEDED'
FROM (SELECT id, started_at, row_number() OVER () AS n FROM made) e
WHERE n %% 200 = 0
"""

# In one statement, so that what was there before gets none of it.
_FILL = f"""
WITH made AS ({_EXECUTIONS} RETURNING id, position, outcome, started_at),
added AS ({_RUNS} RETURNING id, trigger_key, error_code, started_at),
tried AS ({_ATTEMPTS})
{_ACTIONS}
"""

_VERSIONS = """
INSERT INTO workflows_workflowversion (
    id, workflow_id, number, name, required_scopes, document, step_ids, content_hash,
    published_at, published_by, note, changes)
SELECT gen_random_uuid(), workflow_id, n, name, required_scopes, document, step_ids, content_hash,
       published_at, published_by, note, changes
FROM workflows_workflowversion, generate_series(2, %s) n WHERE number = 1
"""


def add_versions(database: Database, count: int) -> None:
    """Give every workflow so many versions, all like its first one."""
    database.execute(_VERSIONS, [count])


def fill(database: Database, count: int, *, now: datetime, say: Callable[[str], None]) -> float:
    """So many executions up to now, five runs each, their attempts and what staff did; the seconds."""
    begun = time.monotonic()
    database.execute("SET synchronous_commit = off")
    values: dict[str, Any] = {"now": now, "count": count, "days": DAYS, "runs": RUNS_EACH}
    for first in range(1, count + 1, CHUNK):
        last = min(first + CHUNK - 1, count)
        say(f"executions {first:,} to {last:,} of {count:,}")
        database.execute(_FILL, {**values, "first": first, "last": last})
    database.execute("VACUUM ANALYZE")
    return time.monotonic() - begun
