"""README.md and docs/app-guide.md hold: every `sh` block runs, and prints what the page says."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from config.identity import issue_token
from config.jsonvalues import JsonValue
from executions.enums import ErrorCode
from executions.http_client import HttpClient
from executions.surroundings import get_surroundings
from executions.tests.phone import ROOT, published
from executions.worker_loop import WorkerLoop
from sandbox.testing import FakePartner

README = ROOT / "README.md"
APP_GUIDE = ROOT / "docs" / "app-guide.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.json"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
END = "--- end of block ---"


@pytest.fixture(autouse=True)
def _hang_up() -> Iterator[None]:
    """The server's threads kept connections to a partner that is gone."""
    yield
    client = get_surroundings().client
    assert isinstance(client, HttpClient)
    client.close()


@pytest.fixture
def worker_beside(live_server: LiveServer) -> Iterator[None]:
    """A worker in a thread of its own, as `run_worker` starts it."""
    loop = WorkerLoop(threads=1)
    thread = threading.Thread(target=loop.run, kwargs={"sweeps": False})
    thread.start()
    yield
    loop.stop()
    thread.join()


def promised(page: Path) -> list[tuple[str, JsonValue]]:
    """Each `sh` block with what the `json` block behind it says, None where there is none."""
    found = [(match[1], match[2]) for match in BLOCK.finditer(page.read_text())]
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


def run_page(page: Path, url: str) -> list[str]:
    """What each `sh` block of the page printed, all of them run in one shell."""
    token = issue_token("alice", ttl_seconds=600, now=timezone.now())
    script = "".join(f"{text}\necho '{END}'\n" for text, _ in promised(page))
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env={"PATH": _path(), "URL": url, "TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    return ran.stdout.split(END)[:-1]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("page", "effects"),
    [
        (README, ["/api/transactions/transfer"]),
        (
            APP_GUIDE,
            ["/api/bills/pay", "/api/payments/submit", "/api/kyc/checks", "/api/accounts"],
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_the_page_runs_as_it_stands(
    page: Path,
    effects: list[str],
    live_server: LiveServer,
    partner: FakePartner,
    settings: Settings,
    worker_beside: None,
) -> None:
    settings.PUBLIC_BASE_URL = live_server.url
    partner.callback_fault("/api/kyc/checks", delay_ms=8_000)
    for example in EXAMPLES:
        published(json.loads(example.read_text()))
    for (text, shown), output in zip(promised(page), run_page(page, live_server.url), strict=True):
        if shown is None:
            assert output.strip() == "", text
        else:
            assert holds(shown, json.loads(output)), f"{text}\nprinted {output}"
    assert [effect.path for effect in partner.effects()] == effects


def _path() -> str:
    """The programs of the page (bash, curl, python3), and the interpreter of the tests first."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def test_the_page_tells_of_every_error_code() -> None:
    rows = [line for line in APP_GUIDE.read_text().splitlines() if line.startswith("| ")]
    told = {word for row in rows for word in re.findall(r"[A-Z_]{4,}", row.split("|")[1])}
    assert set(ErrorCode.values) <= told


@pytest.mark.parametrize(("page", "shown"), [(README, 3), (APP_GUIDE, 10)])
def test_the_page_has_something_to_show(page: Path, shown: int) -> None:
    assert len([one for _, one in promised(page) if one is not None]) >= shown
