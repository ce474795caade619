"""Lines are JSON with the request's id, and tracebacks hold no values."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = """
import logging
import django
django.setup()
from config.logs import get_logger, request_id
request_id.set("abc-1")
get_logger("handrail.test").info("said", count=2)
get_logger("handrail.test").debug("not said")
logging.getLogger("elsewhere").warning("told %s", "so")
logging.getLogger("django.request").error("Service Unavailable: %s", "/callbacks/s3cr3t/")
pin = "1234"
try:
    raise ValueError("no")
except ValueError:
    get_logger("handrail.test").exception("broke")
one, two, three = "alice", "bob", "carol"  # tracebacks show the lines that raise
try:
    try:
        raise ValueError(f"duplicate key\\nDETAIL:  Key (user_id)=({one}\\n\\n{two}) exists.")
    except ValueError as error:
        raise RuntimeError(f"row\\nDETAIL:  Failing row contains ({three}).") from error
except RuntimeError:
    logging.getLogger("elsewhere").exception("refused")
"""


def lines(log_format: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DEBUG": "1",
            "ENV_FILE": "",
            "LOG_FORMAT": log_format,
            "DATABASE_URL": "sqlite://:memory:",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ended.stdout == ""  # which belongs to commands
    return ended.stderr.splitlines()


def assert_no_details(trace: str) -> None:
    """What failed is told in full, but for the row that it failed for."""
    assert not [name for name in ("alice", "bob", "carol") if name in trace]
    for kept in (
        "ValueError: duplicate key\nDETAIL: [left out]\n",
        "direct cause",
        "RuntimeError: row\nDETAIL: [left out]",
    ):
        assert kept in trace, trace


def test_json_lines() -> None:
    events: list[dict[str, Any]] = [json.loads(line) for line in lines("json")]
    for event in events:
        assert event.pop("timestamp").endswith("Z")
    refused = events.pop()
    assert refused["event"] == "refused"
    assert_no_details(refused["exception"])
    trace = events[3].pop("exception")
    assert "ValueError: no" in trace
    assert "1234" not in trace
    assert events == [
        {
            "component": "handrail.test",
            "event": "said",
            "count": 2,
            "level": "info",
            "request_id": "abc-1",
        },
        {
            "component": "elsewhere",
            "event": "told so",
            "level": "warning",
            "request_id": "abc-1",
        },
        {
            "component": "django.request",
            "event": "Service Unavailable: /callbacks/[token]/",
            "level": "error",
            "request_id": "abc-1",
        },
        {
            "component": "handrail.test",
            "event": "broke",
            "level": "error",
            "request_id": "abc-1",
        },
    ]


def test_console_lines_hold_the_fields_and_no_local_variables() -> None:
    told = "\n".join(lines("console"))
    assert "said" in told
    assert "count=2" in told
    assert "ValueError: no" in told
    assert_no_details(told)
    assert "1234" not in told
