"""The command: `python -m bench`, run by script/bench. docs/performance.md explains it."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from bench.async_steps import async_steps
from bench.backoffice import backoffice
from bench.cleanup import cleanup
from bench.house import BenchFailed, open_house
from bench.report import Result
from bench.scenarios import SCENARIOS as WALKED
from bench.scenarios import Options
from config.testing.servers import ServersUnavailable

# What fills the database comes last, and what would clean that up again before it.
_LAST = {"lists": WALKED["lists"], "backoffice": backoffice}
_WALKED = {name: scenario for name, scenario in WALKED.items() if name not in _LAST}
SCENARIOS = {"async": async_steps, **_WALKED, "cleanup": cleanup, **_LAST}


def main(arguments: Sequence[str]) -> int:
    given = _parser().parse_args(arguments)
    options = Options(
        phones=given.phones,
        flows=given.flows,
        seconds=given.seconds,
        workers=given.workers,
        threads=given.threads,
        scale=given.scale,
        memory_flows=given.memory_flows,
        say=_say,
    )
    results: list[Result] = []
    try:
        with open_house() as house:
            for name in given.only or SCENARIOS:
                _say(name)
                results.append(SCENARIOS[name](house, options))
                if not given.json:
                    print("\n".join(results[-1].lines()), flush=True)
    except (BenchFailed, ServersUnavailable) as failure:
        print(f"The benchmark ended early: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    if given.json:
        told = {result.scenario: result.to_json() for result in results}
        print(json.dumps({"machine": _machine(), "results": told}, indent=2))
    else:
        print(" · ".join(f"{name}: {value}" for name, value in _machine().items()))
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="script/bench",
        description="Measures Handrail on a real PostgreSQL and Redis; see docs/performance.md.",
        epilog="DATABASE_URL and REDIS_URL name the servers; without them private ones are started."
        " The database gets workflows, executions and a superuser: name an empty one.",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SCENARIOS,
        metavar="SCENARIO",
        help=f"some of: {', '.join(SCENARIOS)} (all)",
    )
    for name, default, most, told in (
        ("phones", 8, 1024, "phones that walk at a time"),
        ("flows", 2000, 1_000_000, "flows of a measurement, at most"),
        ("seconds", 40, 3600, "seconds of a measurement, at most"),
        ("workers", 1, 64, "processes of the server"),
        ("threads", 32, 1024, "threads of a process"),
        (
            "scale",
            1_000_000,
            10_000_000,
            "executions in lists, back office and, up to 100,000, cleanup",
        ),
        ("memory-flows", 10_000, 1_000_000, "flows of the memory measurement"),
    ):
        parser.add_argument(
            f"--{name}",
            type=_number_up_to(most),
            default=default,
            metavar="N",
            help=f"{told} ({default})",
        )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _number_up_to(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most}")
        return int(text)

    return number


def _machine() -> dict[str, str]:
    return {
        "Python": platform.python_version(),
        "processors": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
