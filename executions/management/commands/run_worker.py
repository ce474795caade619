"""`run_worker`: works async steps, callbacks and compensations off, and sweeps."""

from __future__ import annotations

import signal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.logs import get_logger
from executions.worker_loop import GRACE_SECONDS, WorkerLoop

MAX_THREADS = 512
DEFAULT_THREADS = 8

_log = get_logger("handrail.worker")


class Command(BaseCommand):
    """Any number of them may run on any number of machines."""

    help = (
        "Works async steps, callbacks and compensations off, N partner calls at a time, and sweeps:"
        " takes over what dead processes held, ends expired executions. SIGTERM ends it cleanly."
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
            "--no-sweep",
            action="store_true",
            help="only work runs off; other workers, or cleanup_executions, sweep",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        threads: int = options["threads"]
        if not 1 <= threads <= MAX_THREADS:
            raise CommandError(f"--threads has to be between 1 and {MAX_THREADS}.", returncode=2)
        loop = WorkerLoop(threads=threads)

        def stop(_number: int, _frame: object) -> None:
            loop.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        _log.info("worker started", threads=threads)
        self.stderr.write(f"Working with {threads} threads; SIGTERM or Ctrl-C ends it.")
        if not loop.run(sweeps=not options["no_sweep"]):
            raise CommandError(
                f"Calls were still under way after {GRACE_SECONDS:.0f} s; their leases run out and"
                " another worker takes them.",
                returncode=1,
            )
        _log.info("worker stopped")
