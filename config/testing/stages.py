"""What script/test runs, stage after stage; a failing stage does not stop the later ones.

The tests run twice: embedded (SQLite, no Redis), and against PostgreSQL and Redis, which are those
of DATABASE_URL and REDIS_URL or else private ones from development wheels. The closing lines tell
what ran, what failed, and what could not run here.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from config.testing.servers import EXIT_NO_SERVERS

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Stage:
    """One command, and what its environment has beyond ours; an empty value unsets a variable."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """How a stage ended: `passed`, `FAILED` or `NOT RUN`, and after how long."""

    name: str
    verdict: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.verdict:8} {self.name} ({self.seconds:.1f} s)"


def stages(pytest_arguments: Sequence[str]) -> list[Stage]:
    """Every stage, in order: the quick ones first."""
    python = sys.executable
    tools = Path(python).parent
    embedded = {"DATABASE_URL": "", "REDIS_URL": "", "DEBUG": "1", "ENV_FILE": ""}
    # Three for the two cores there are at least: many tests wait for processes, leases and partners. A
    # later -n wins, -n 0 is one process. Who has nothing left to do takes from another: some tests are
    # a hundred times longer than most.
    tests = [python, "-m", "pytest", "-n", "3", "--dist", "worksteal", *pytest_arguments]
    return [
        Stage("lint", [str(tools / "ruff"), "check", "."]),
        Stage("format", [str(tools / "ruff"), "format", "--check", "."]),
        Stage("types", [str(tools / "mypy"), "."], embedded),
        Stage("imports", [str(tools / "lint-imports")], embedded),
        Stage("settings", [python, "manage.py", "check"], embedded),
        Stage(
            "migrations",
            [python, "manage.py", "makemigrations", "--check", "--dry-run"],
            embedded,
        ),
        Stage("tests, embedded", tests, embedded),
        Stage(
            "tests, PostgreSQL and Redis",
            [python, "-m", "config.testing.servers", *tests, "--stores-only"],
            {"DEBUG": "1", "ENV_FILE": ""},
        ),
    ]


def run_stage(stage: Stage) -> Result:
    """The stage's result; its output goes where ours goes."""
    _say(f"\n=== {stage.name}")
    started = time.monotonic()
    # Hundreds of processes start, and each would compile everything anew without its byte code.
    usual = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": ""}
    environment = {**os.environ, **usual, **stage.environment}
    code = subprocess.run(stage.command, cwd=ROOT, env=environment, check=False).returncode  # noqa: S603 - listed above
    verdicts = {0: "passed", EXIT_NO_SERVERS: "NOT RUN"}
    result = Result(stage.name, verdicts.get(code, "FAILED"), time.monotonic() - started)
    _say(f"=== {result}")
    return result


def main(pytest_arguments: Sequence[str]) -> int:
    results = [run_stage(stage) for stage in stages(pytest_arguments)]
    _say("\n=== summary")
    for result in results:
        _say(f"  {result}")
    missing = [result.name for result in results if result.verdict == "NOT RUN"]
    failed = [result.name for result in results if result.verdict == "FAILED"]
    if missing:
        _say(
            f"!!! DID NOT RUN: {'; '.join(missing)}. The servers cannot be started here: see above."
        )
    ran = len(results) - len(missing)
    _say(
        f"script/test: {ran} of {len(results)} stages ran on Python {sys.version.split()[0]}; "
        + (f"FAILED: {'; '.join(failed)}" if failed else "all that ran passed")
        + (f"; NOT RUN: {'; '.join(missing)}" if missing else "")
    )
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
