"""`cleanup_executions`: ends what is dead and deletes what is past its time. For cron."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from config.commands import HouseCommand
from config.jsonvalues import JsonObject
from executions import sweeping
from executions.command_line import progress
from executions.sweeping import DEFAULT_BATCH, SweepKind, SweepOutcome, Swept

MAX_BATCH = 1_000

_DONE = {
    SweepKind.TAKE_OVER: "Calls of dead processes taken over",
    SweepKind.PARK: "Runs that kill their workers parked",
    SweepKind.EXPIRE: "Executions without a session ended",
    SweepKind.UNDO: "Final failures whose steps are being undone",
    SweepKind.WAKE: "Forgotten runs handed to workers again",
    SweepKind.TELL: "Outcomes told of what staff left to workers",
    SweepKind.COUNT: "Days counted for the dashboard",
    SweepKind.DELETE_EXECUTIONS: "Executions past retention deleted",
    SweepKind.DELETE_TRIALS: "Records of trials past retention deleted",
    SweepKind.DELETE_SESSIONS: "Expired sessions deleted",
}
_KEPT = (SweepKind.DELETE_EXECUTIONS, SweepKind.DELETE_TRIALS)
"""What stays for ever without a retention."""


class Command(HouseCommand):
    """Safe to run twice at once, and to kill in the middle."""

    help = (
        "Takes over the calls of processes that died, parks runs that kill their workers, ends"
        " executions whose session is gone, undoes the steps of failures that are final, hands"
        " forgotten runs to workers again, counts days for the dashboard, and deletes records past"
        " retention and expired sessions."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say what would be done")
        parser.add_argument(
            "--retention-days",
            type=int,
            metavar="N",
            help="delete executions that ended, and records of trials that were made, N days ago or"
            " earlier (default: RETENTION_DAYS; 0 keeps them)",
        )
        parser.add_argument(
            "--batch",
            type=int,
            default=DEFAULT_BATCH,
            metavar="N",
            help=f"rows per page, and per transaction at most, 1 to {MAX_BATCH}"
            f" (default {DEFAULT_BATCH})",
        )
        parser.add_argument("--json", action="store_true", help="JSON for machines")

    def handle(self, *_args: Any, **options: Any) -> None:
        given, batch = options["retention_days"], options["batch"]
        days: int = settings.RETENTION_DAYS if given is None else given
        if not 0 <= days <= 36_500:
            raise CommandError("--retention-days has to be between 0 and 36500.", returncode=2)
        if not 1 <= batch <= MAX_BATCH:
            raise CommandError(f"--batch has to be between 1 and {MAX_BATCH}.", returncode=2)
        found = _sweep(days=days, batch=batch, dry_run=options["dry_run"])
        report = _Report(progress(found, unit="items"))
        if options["json"]:
            self.tell(report.told(dry_run=options["dry_run"], days=days))
        else:
            for line in report.lines(dry_run=options["dry_run"], days=days):
                self.stdout.write(line)
        if report.has_failures:
            raise CommandError("Not everything could be done; run it again.", returncode=1)


def _sweep(*, days: int, batch: int, dry_run: bool) -> Iterator[Swept]:
    """Sessions come last: the ends of executions are read from them. What is deleted was counted."""
    return chain(
        sweeping.take_over_stranded(dry_run=dry_run, page=batch),
        sweeping.park_poisonous(dry_run=dry_run, page=batch),
        sweeping.expire_overdue(dry_run=dry_run, asks_sessions=True, page=batch),
        sweeping.undo_final_failures(dry_run=dry_run, page=batch),
        sweeping.wake_lost(dry_run=dry_run, page=batch),
        sweeping.tell_outcomes(dry_run=dry_run, page=batch),
        sweeping.count_changed_days(dry_run=dry_run),
        *(
            delete(days=days, dry_run=dry_run, batch=batch)
            for delete in (sweeping.delete_past_retention, sweeping.delete_old_trials)
            if days
        ),
        sweeping.delete_expired_sessions(dry_run=dry_run, batch=batch),
    )


class _Report:
    """What was done, per kind: counts, the ids of the executions, and what failed."""

    def __init__(self, items: Iterable[Swept]) -> None:
        self._counts = {kind: dict.fromkeys(SweepOutcome, 0) for kind in SweepKind}
        self._ids: dict[tuple[SweepKind, SweepOutcome], list[str]] = {
            (kind, outcome): [] for kind in SweepKind for outcome in SweepOutcome
        }
        self._errors: dict[SweepKind, list[str]] = {kind: [] for kind in SweepKind}
        for one in items:
            self._add(one)

    def _add(self, one: Swept) -> None:
        self._counts[one.kind][one.outcome] += one.count
        self._ids[one.kind, one.outcome] += map(str, one.ids)
        if one.outcome is SweepOutcome.FAILED:
            self._errors[one.kind].append(
                one.error or f"execution {one.ids[0]} could not be mended"
            )

    @property
    def has_failures(self) -> bool:
        return any(self._errors.values())

    def told(self, *, dry_run: bool, days: int) -> JsonObject:
        """For machines."""
        done = SweepOutcome.WOULD_BE_DONE if dry_run else SweepOutcome.DONE
        kinds: JsonObject = {}
        for kind, counts in self._counts.items():
            told: JsonObject = {outcome.value: count for outcome, count in counts.items()}
            kinds[kind.value] = {
                **told,
                "ids": [*self._ids[kind, done]],
                "skippedIds": [*self._ids[kind, SweepOutcome.SKIPPED]],
                "errors": [*self._errors[kind]],
            }
        return {"dryRun": dry_run, "retentionDays": days, **kinds}

    def lines(self, *, dry_run: bool, days: int) -> Iterator[str]:
        """For people: a line a kind, and one for each execution but those that are gone."""
        for kind, counts in self._counts.items():
            if kind in _KEPT and not days:
                yield f"{_DONE[kind]}: none, they are kept for ever (RETENTION_DAYS is 0)"
                continue
            done = SweepOutcome.WOULD_BE_DONE if dry_run else SweepOutcome.DONE
            told = f"would be {counts[done]}" if dry_run else str(counts[done])
            if counts[SweepOutcome.SKIPPED]:
                told += f" ({counts[SweepOutcome.SKIPPED]} skipped: somebody else was at them)"
            yield f"{_DONE[kind]}: {told}"
            if dry_run or kind is not SweepKind.DELETE_EXECUTIONS:
                yield from (f"  {execution_id}" for execution_id in self._ids[kind, done])
            skipped = self._ids[kind, SweepOutcome.SKIPPED]
            yield from (f"  {execution_id} skipped" for execution_id in skipped)
            yield from (f"  failed: {error}" for error in self._errors[kind])
