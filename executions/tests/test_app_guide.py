"""docs/app-guide.md holds: every `sh` block runs as it stands, and prints what the page says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django.live_server_helper import LiveServer

from config.identity import issue_token
from config.jsonvalues import JsonValue
from executions.enums import ErrorCode
from executions.tests.phone import ROOT, published
from sandbox.testing import FakePartner

PAGE = ROOT / "docs" / "app-guide.md"
BILL_PAYMENT = ROOT / "examples" / "bill-payment.json"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
END = "--- end of block ---"


def blocks() -> list[tuple[str, str]]:
    """Each fenced block of the page: its language and text."""
    return [(match[1], match[2]) for match in BLOCK.finditer(PAGE.read_text())]


def promised() -> list[tuple[str, JsonValue]]:
    """Each `sh` block with what the `json` block behind it says, None where there is none."""
    found = blocks()
    following = [*found[1:], ("", "")]
    return [
        (text, json.loads(next_text) if next_language == "json" else None)
        for (language, text), (next_language, next_text) in zip(found, following, strict=True)
        if language == "sh"
    ]


def holds(shown: JsonValue, printed: JsonValue) -> bool:
    """Whether all that is shown was printed; what was printed may have more members."""
    if isinstance(shown, dict):
        return isinstance(printed, dict) and all(
            name in printed and holds(value, printed[name]) for name, value in shown.items()
        )
    if isinstance(shown, list):
        return (
            isinstance(printed, list)
            and len(shown) == len(printed)
            and all(map(holds, shown, printed))
        )
    return shown == printed


@pytest.mark.django_db(transaction=True)
def test_the_page_runs_as_it_stands(live_server: LiveServer, partner: FakePartner) -> None:
    published(json.loads(BILL_PAYMENT.read_text()))
    token = issue_token("alice", ttl_seconds=600, now=timezone.now())
    script = "".join(f"{text}\necho '{END}'\n" for text, _ in promised())
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env={"PATH": _path(), "URL": live_server.url, "TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    outputs = ran.stdout.split(END)[:-1]
    assert len(outputs) == len(promised())
    for (text, shown), output in zip(promised(), outputs, strict=True):
        if shown is None:
            assert output.strip() == "", text
        else:
            assert holds(shown, json.loads(output)), f"{text}\nprinted {output}"
    assert len(partner.effects("/api/bills/pay")) == 1
    assert len(partner.effects("/api/payments/submit")) == 1


def _path() -> str:
    """The programs of the page (bash, curl, python3), and the interpreter of the tests first."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def test_the_page_tells_of_every_error_code() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    told = {word for row in rows for word in re.findall(r"[A-Z_]{4,}", row.split("|")[1])}
    assert set(ErrorCode.values) <= told


def test_the_page_has_something_to_run() -> None:
    assert len([language for language, _ in blocks() if language == "sh"]) >= 10
    assert len([shown for _, shown in promised() if shown is not None]) >= 10
