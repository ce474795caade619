"""The command: `python -m chaos`, run by script/chaos. docs/reliability.md explains it."""

import argparse
import importlib
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import django
from django.core.management import call_command

from config.testing.servers import ServersUnavailable, private_servers


def main(arguments: Sequence[str]) -> int:
    """0 when every promise was kept, 1 when one was broken or nothing could be run, 2 wrong usage."""
    given = _parser().parse_args(arguments)
    try:
        with private_servers(durable=True) as (database, store):
            assert database is not None
            assert store is not None
            os.environ |= {
                "DJANGO_SETTINGS_MODULE": "config.settings",
                "ENV_FILE": "",
                "DEBUG": "1",
                "DATABASE_URL": database.url,
                "REDIS_URL": store.url,
                # Publishing asks only that there is a partner; the processes are told which one.
                "TRIGGER_BASE_URL": "http://127.0.0.1:1",
                "LOG_FORMAT": "json",
            }
            django.setup()
            call_command("migrate", verbosity=0)
            # Only now: what it imports needs the settings of the servers that have just started.
            campaign = importlib.import_module("chaos.campaign")
            plan = campaign.Plan(
                executions=given.executions,
                kills=given.kills,
                web_kills=given.web_kills,
                redis_faults=given.redis_faults,
                minutes=given.minutes,
                seed=given.seed,
            )
            report = campaign.run(campaign.Stage(plan, database, store, _say))
    except ServersUnavailable as failure:
        print(f"The campaign could not be run: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    print(report.to_json() if given.json else "\n".join(report.lines()), flush=True)
    return 1 if report.violations else 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="script/chaos",
        description="Kills and breaks a Handrail under load, on a private PostgreSQL and Valkey,"
        " and checks what is left; see docs/reliability.md.",
    )
    for name, default, most, told in (
        ("kills", 300, 100_000, "kills of workers"),
        ("web-kills", 300, 100_000, "kills of web servers"),
        ("executions", 5000, 1_000_000, "people, at least"),
        ("redis-faults", 100, 100_000, "faults of Redis"),
        ("minutes", 60, 1440, "minutes, at most; what is broken is spread over them"),
        ("seed", random.SystemRandom().randrange(10**6), 10**9, "of everything random"),
    ):
        parser.add_argument(
            f"--{name}", type=_number_up_to(most), default=default, metavar="N", help=told
        )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _number_up_to(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) > most:
            raise argparse.ArgumentTypeError(f"must be a whole number up to {most}")
        return int(text)

    return number


def _say(text: str) -> None:
    line = f"{time.strftime('%H:%M:%S')} {text}"
    if sys.stderr.isatty():
        # One line that changes, where somebody watches.
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
