"""`erase_user`: removes a person's data from executions and sessions."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from config.commands import HouseCommand
from config.jsonvalues import JsonObject
from executions.command_line import beside_progress, progress, seconds
from executions.erasing import Erased, ErasureOutcome, erase_executions
from executions.models import WorkflowExecution


class Command(HouseCommand):
    """Safe to run twice at once, and to kill in the middle. What it prints names nobody."""

    help = (
        "Removes a person's data from executions and sessions; live executions are cancelled first,"
        " and what was done in them is undone before the requests for it are erased."
        " Statuses, times and counts stay, under a random name that leads back to nobody."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user_id", metavar="USER_ID", help="the person: `sub` of the tokens")
        parser.add_argument("--dry-run", action="store_true", help="say what would be erased")
        parser.add_argument(
            "--wait",
            type=seconds,
            default=0.0,
            metavar="SECONDS",
            help="wait for workers to undo what has to be undone",
        )
        parser.add_argument(
            "--force", action="store_true", help="erase also what failed to be undone"
        )
        parser.add_argument("--json", action="store_true", help="JSON for machines")

    def handle(self, *_args: Any, **options: Any) -> None:
        user_id: str = options["user_id"]
        if not user_id:
            raise CommandError("USER_ID is empty.", returncode=2)
        total = WorkflowExecution.objects.owned_by(user_id).count()
        items = erase_executions(
            user_id,
            dry_run=options["dry_run"],
            force=options["force"],
            wait_seconds=options["wait"],
        )
        erased = []
        try:
            for one in progress(items, unit="executions", total=total):
                erased.append(one)
                if not options["json"]:
                    with beside_progress():
                        self.say(_line(one, dry_run=options["dry_run"]))
        finally:
            # Also of an erasure that somebody stopped: what is done is done.
            if options["json"]:
                self.tell(_told(erased, dry_run=options["dry_run"]))
        failed = sum(one.outcome is ErasureOutcome.FAILED for one in erased)
        if not options["json"]:
            self.stdout.write(_sum(erased, failed=failed, dry_run=options["dry_run"]))
        if failed:
            raise CommandError(
                f"{failed} of {len(erased)} executions still hold the person's data; run it again.",
                returncode=1,
            )


def _told(erased: list[Erased], *, dry_run: bool) -> JsonObject:
    return {
        "dryRun": dry_run,
        "executions": [
            {
                "id": str(one.execution_id),
                "wasLive": one.was_live,
                "outcome": one.outcome.value,
                "error": one.error or None,
                "lost": one.lost,
            }
            for one in erased
        ],
    }


def _line(one: Erased, *, dry_run: bool) -> str:
    done = "would be erased" if dry_run else one.outcome.value.lower()
    first = " (live: cancelled first)" if one.was_live else ""
    reason = f": {one.error}" if one.error else ""
    if one.lost:
        reason += f" ({one.lost} of its runs cannot be mended once they are erased)"
    return f"{one.execution_id} {done}{first}{reason}"


def _sum(erased: list[Erased], *, failed: int, dry_run: bool) -> str:
    if not erased:
        return "There is nothing of this person."
    would = "would be erased" if dry_run else "erased"
    return f"{len(erased) - failed} executions {would}, with their sessions."
