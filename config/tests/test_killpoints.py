"""A kill point kills at its name and its turn, and does nothing where nobody asked for it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from config import killpoints

ROOT = Path(__file__).resolve().parent.parent.parent
VISIT = (
    "from config.killpoints import reached\n"
    "for name in ('before-intent', 'after-intent', 'before-intent'):\n"
    "    reached(name)\n"
    "    print(name, flush=True)\n"
)


def visit(wanted: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", VISIT],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HANDRAIL_KILL_POINT": wanted},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("wanted", "code", "printed"),
    [
        ("", 0, ["before-intent", "after-intent", "before-intent"]),
        ("before-intent", -signal.SIGKILL, []),
        ("after-intent", -signal.SIGKILL, ["before-intent"]),
        ("before-intent:2", -signal.SIGKILL, ["before-intent", "after-intent"]),
        ("after-send", 0, ["before-intent", "after-intent", "before-intent"]),
    ],
)
def test_dies_at_the_point(wanted: str, code: int, printed: list[str]) -> None:
    ended = visit(wanted)
    assert (ended.returncode, ended.stdout.split()) == (code, printed)


def test_unknown_point_is_refused_at_the_start() -> None:
    ended = visit("after-lunch")
    assert ended.returncode == 1
    assert "there is no point 'after-lunch'" in ended.stderr


def test_nothing_happens_in_this_process() -> None:
    for point in killpoints.POINTS:
        killpoints.reached(point)
