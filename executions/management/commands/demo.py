"""`demo`: the main job end to end on real HTTP, printed step by step."""

import argparse
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from demo.errors import DemoFailed
from demo.run import Options, run
from demo.telling import LinesForMachines, LinesForPeople, Telling


class Command(BaseCommand):
    """Uses no setting but, if asked, the stores: server, worker, partner and database are its own."""

    help = "Walks the example flows over HTTP against a server, a worker and a partner of its own."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own declaration is no ClassVar

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="end after the walks; 0 if all went well"
        )
        parser.add_argument(
            "--port", type=_port, metavar="N", help="where to serve (8000, or a free one)"
        )
        parser.add_argument(
            "--folder",
            type=Path,
            default=settings.BASE_DIR / "var" / "demo",
            help="for database and logs (var/demo)",
        )
        parser.add_argument(
            "--given-stores",
            action="store_true",
            help="use DATABASE_URL, which has to be empty, and REDIS_URL, not a SQLite file",
        )
        parser.add_argument("--json", action="store_true", help="one JSON object a line")

    def handle(self, *_args: Any, **options: Any) -> None:
        chosen = Options(
            root=settings.BASE_DIR,
            folder=options["folder"],
            port=options["port"],
            stays=not options["once"],
            given_stores=options["given_stores"],
        )
        tell = self._telling(as_json=options["json"])
        try:
            run(chosen, tell)
        except DemoFailed as error:
            if options["json"]:
                tell.verdict(str(error), is_good=False)
            raise CommandError(str(error), returncode=1) from error

    def _telling(self, *, as_json: bool) -> Telling:
        def write(line: str) -> None:
            self.stdout.write(line)
            self.stdout.flush()

        if as_json:
            return LinesForMachines(write)
        encoding = getattr(self.stdout, "encoding", None) or "utf-8"
        is_coloured = self.style.SUCCESS("x") != "x"
        return LinesForPeople(write, is_coloured=is_coloured, encoding=encoding)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError("must be a whole number between 1 and 65535")
    return int(text)
