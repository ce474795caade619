"""`run_worker`: works async steps, callbacks and compensations off, and sweeps."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from config.commands import HouseCommand
from config.logs import get_logger
from config.postgresql import bound_statements
from executions.worker_loop import GRACE_SECONDS, WorkerLoop

MAX_THREADS = 512
DEFAULT_THREADS = 8
MAX_GRACE_SECONDS = 3_600

_log = get_logger("handrail.worker")


class Command(HouseCommand):
    """Any number of them may run on any number of machines."""

    help = (
        "Works async steps, callbacks and compensations off, N partner calls at a time, and sweeps:"
        " takes over what dead processes held, ends expired executions. SIGTERM ends it cleanly,"
        " a second one at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--threads",
            type=int,
            default=DEFAULT_THREADS,
            metavar="N",
            help=f"partner calls at a time, 1 to {MAX_THREADS} (default {DEFAULT_THREADS})",
        )
        parser.add_argument(
            "--grace",
            type=int,
            default=GRACE_SECONDS,
            metavar="SECONDS",
            help="so long it waits at its end for the calls that it has begun, 0 to"
            f" {MAX_GRACE_SECONDS} (default {GRACE_SECONDS}); then they are handed back",
        )
        parser.add_argument(
            "--no-sweep",
            action="store_true",
            help="only work runs off; other workers, or cleanup_executions, sweep",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        threads: int = options["threads"]
        if not 1 <= threads <= MAX_THREADS:
            raise CommandError(f"--threads has to be between 1 and {MAX_THREADS}.", returncode=2)
        grace: int = options["grace"]
        if not 0 <= grace <= MAX_GRACE_SECONDS:
            raise CommandError(
                f"--grace has to be between 0 and {MAX_GRACE_SECONDS} seconds.", returncode=2
            )
        bound_statements(settings.DATABASE_STATEMENT_SECONDS)
        loop = WorkerLoop(threads=threads, grace_seconds=grace)

        def stop(_number: int, _frame: object) -> None:
            loop.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        _log.info("worker started", threads=threads)
        self.stderr.write(f"Working with {threads} threads; SIGTERM or Ctrl-C ends it.")
        if not loop.run(sweeps=not options["no_sweep"]):
            self.stderr.write("Calls were still under way; another worker makes them again.")
            _end_at_once()
        _log.info("worker stopped")


def _end_at_once() -> NoReturn:
    """End without the threads: as any other way out, sys.exit would wait for their calls."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
