"""`erase_user`: removes a person's data from executions and sessions."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from executions.command_line import progress, seconds
from executions.erasing import Erased, ErasureOutcome, erase_executions
from executions.models import WorkflowExecution


class Command(BaseCommand):
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
        erased = list(progress(items, unit="executions", total=total))
        failed = [one for one in erased if one.outcome is ErasureOutcome.FAILED]
        if options["json"]:
            self.stdout.write(json.dumps(_told(erased, dry_run=options["dry_run"])))
        else:
            for line in _lines(erased, dry_run=options["dry_run"]):
                self.stdout.write(line)
        if failed:
            raise CommandError(
                f"{len(failed)} of {len(erased)} executions still hold the person's data;"
                " run it again.",
                returncode=1,
            )


def _told(erased: list[Erased], *, dry_run: bool) -> dict[str, Any]:
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


def _lines(erased: list[Erased], *, dry_run: bool) -> list[str]:
    if not erased:
        return ["There is nothing of this person."]
    lines = []
    for one in erased:
        done = "would be erased" if dry_run else one.outcome.value.lower()
        first = " (live: cancelled first)" if one.was_live else ""
        reason = f": {one.error}" if one.error else ""
        if one.lost:
            reason += f" ({one.lost} of its runs cannot be mended once they are erased)"
        lines.append(f"{one.execution_id} {done}{first}{reason}")
    count = sum(one.outcome is not ErasureOutcome.FAILED for one in erased)
    would = "would be erased" if dry_run else "erased"
    return [*lines, f"{count} executions {would}, with their sessions."]
