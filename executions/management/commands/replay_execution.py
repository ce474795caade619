"""`replay_execution`: sends again what failed: submissions, steps, and what undoes steps."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from config.commands import HouseCommand
from config.jsonvalues import JsonObject
from executions import executor
from executions.command_line import (
    beside_progress,
    operator_name,
    printable,
    progress,
    seconds,
)
from executions.enums import ErrorCode, OperatorOutcome, RunKind, WorkflowExecutionStatus
from executions.models import StepRun, WorkflowExecution
from executions.replaying import PlannedRequest, Replayed, plan_replay, plan_settlement
from executions.surroundings import get_surroundings
from workflows.errors import WorkflowError
from workflows.models import Workflow

REFUSED = "REFUSED"
WOULD_BE_SENT = "WOULD_BE_SENT"
WOULD_BE_SETTLED = "WOULD_BE_SETTLED"
POLL_SECONDS = 0.5

_AGO = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Item:
    """What is told of one execution."""

    execution_id: UUID
    outcome: str
    status: str = ""
    error: str = ""
    requests: tuple[PlannedRequest, ...] = ()
    replayed: Replayed | None = None

    def to_json(self) -> JsonObject:
        """For machines."""
        return {
            "id": str(self.execution_id),
            "outcome": self.outcome,
            "status": self.status or None,
            "error": self.error or None,
            "requests": [request.to_json() for request in self.requests],
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        status = f" (now {self.status})" if self.status else ""
        error = f": {self.error}" if self.error else ""
        yield f"{self.execution_id} {self.outcome}{status}{error}"
        for request in self.requests:
            yield f"  {request.method} {request.url} (connection {request.connection})"
            yield f"  Idempotency-Key: {request.idempotency_key}"
            shown = {"query": request.query, "headers": request.headers, "body": request.payload}
            for name, value in shown.items():
                if value is not None:
                    yield f"  {name}: {printable(json.dumps(value, ensure_ascii=False))}"


class Command(HouseCommand):
    """One execution at a time; may be killed in the middle and run again."""

    help = (
        "Sends failed submissions again, under the same Idempotency-Key unless the partner refused;"
        " with --from-step calls a failed, unknown or parked step's trigger again; with --compensation"
        " lets workers undo a step again. --settled sends nothing and records that staff put it right"
        " outside. What has succeeded is refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="*", type=_uuid, metavar="ID", help="executions")
        parser.add_argument(
            "--failed-since",
            type=_moment,
            metavar="T",
            help="everything that failed since then: 90m, 12h, 7d, or 2026-01-31T12:00Z",
        )
        parser.add_argument("--workflow", metavar="W", help="of this workflow only: its id or name")
        parser.add_argument(
            "--from-step", metavar="S", help="call this step again: its id, order or label"
        )
        parser.add_argument(
            "--compensation", action="store_true", help="undo the step whose undoing failed, again"
        )
        parser.add_argument(
            "--settled", action="store_true", help="send nothing: staff put it right outside"
        )
        parser.add_argument(
            "--wait",
            type=seconds,
            default=0.0,
            metavar="SECONDS",
            help="wait for what workers make of it",
        )
        parser.add_argument("--dry-run", action="store_true", help="show what would be sent")
        parser.add_argument("--reason", default="", help="why; required, and kept in the record")
        parser.add_argument("--by", help="who does it (default: the user of this machine)")
        parser.add_argument("--yes", action="store_true", help="replay more than one")
        parser.add_argument("--json", action="store_true", help="JSON for machines")

    def handle(self, *_args: Any, **options: Any) -> None:
        _check_usage(options)
        ids = list(dict.fromkeys(options["ids"])) or list(dict.fromkeys(_failed(options)))
        items = self._shown(ids, options) if options["dry_run"] else self._done(ids, options)
        if not items and not options["json"]:
            what = "compensation" if options["compensation"] else "submission"
            self.stdout.write(f"No {what} has failed.")
        missed = sum(item.outcome not in _wanted(options) for item in items)
        if missed:
            done = "could not be sent" if options["dry_run"] else "did not succeed"
            raise CommandError(f"{missed} of {len(items)} {done}.", returncode=1)

    def _shown(self, ids: list[UUID], options: dict[str, Any]) -> list[Item]:
        items = list(_plans(ids, options))
        self._tell_radius(items)
        if options["json"]:
            self._tell_items(items, options)
        else:
            self._say(*items)
        return items

    def _done(self, ids: list[UUID], options: dict[str, Any]) -> list[Item]:
        """Do it, and tell of each what came of it as soon as that is known."""
        if len(ids) > 1:
            self._tell_radius(list(_plans(ids, options)))
            if not options["yes"]:
                raise CommandError("Nothing was sent. Add --yes to replay them.", returncode=2)
        items: list[Item] = []
        waited: set[UUID] = set()
        try:
            for each in progress(ids, unit="executions", total=len(ids)):
                items.append(_replayed(each, options))
                if _is_queued(items[-1]) and options["wait"]:
                    waited.add(each)
                elif not options["json"]:
                    self._say(items[-1])
            items = _waited_for(items, seconds=options["wait"])
        finally:
            # Also of a replay that somebody stopped: what was sent was sent.
            if options["json"]:
                self._tell_items(items, options)
            else:
                self._say(*(item for item in items if item.execution_id in waited))
        return items

    def _tell_radius(self, planned: list[Item]) -> None:
        """Print what a bulk replay would reach, before anything is sent."""
        if len(planned) < 2:
            return
        calls = Counter(request.connection for item in planned for request in item.requests)
        told = ", ".join(f"{name} {count}" for name, count in sorted(calls.items())) or "none"
        refused = sum(item.outcome == REFUSED for item in planned)
        self.stderr.write(
            f"Blast radius: {len(planned)} executions; calls per connection: {told};"
            f" refused: {refused}."
        )

    def _tell_items(self, items: list[Item], options: dict[str, Any]) -> None:
        self.tell({"dryRun": options["dry_run"], "items": [item.to_json() for item in items]})

    def _say(self, *items: Item) -> None:
        with beside_progress():
            for item in items:
                for line in item.lines():
                    self.say(line)


def _check_usage(options: dict[str, Any]) -> None:
    selects = options["failed_since"] is not None or options["workflow"] is not None
    if bool(options["ids"]) is selects:
        raise CommandError(
            "Name executions, or select with --failed-since or --workflow.", returncode=2
        )
    if selects and options["from_step"] is not None:
        raise CommandError("--from-step needs executions by their ids.", returncode=2)
    if options["compensation"] and options["from_step"] is not None:
        raise CommandError("--compensation and --from-step exclude each other.", returncode=2)
    if selects and options["settled"]:
        raise CommandError("--settled needs executions by their ids.", returncode=2)
    if not options["dry_run"] and not options["reason"].strip():
        raise CommandError("--reason is required: it is kept in the record.", returncode=2)
    if len(options["reason"]) > executor.MAX_REASON_LENGTH:
        raise CommandError(
            f"--reason has at most {executor.MAX_REASON_LENGTH} characters.", returncode=2
        )


def _failed(options: dict[str, Any]) -> Iterator[UUID]:
    """The executions of which what was asked for failed, the longest ago first."""
    if options["compensation"]:
        yield from _failed_undoings(options)
        return
    rows = WorkflowExecution.objects.filter(
        status=WorkflowExecutionStatus.FAILED,
        error_code=ErrorCode.SUBMISSION_FAILED,
        completed_at__isnull=False,
    )
    if options["failed_since"] is not None:
        rows = rows.filter(completed_at__gte=options["failed_since"])
    if options["workflow"] is not None:
        rows = rows.filter(workflow_id__in=_workflows(options["workflow"]))
    yield from rows.order_by("completed_at", "id").values_list("id", flat=True)


def _workflows(name: str) -> list[UUID]:
    try:
        found = Workflow.objects.filter(pk=UUID(name))
    except ValueError:
        found = Workflow.objects.filter(name=name)
    ids = list(found.values_list("id", flat=True))
    if not ids:
        raise CommandError(f"There is no workflow {name}.", returncode=2)
    return ids


def _failed_undoings(options: dict[str, Any]) -> Iterator[UUID]:
    """The executions of which a compensation failed for good, the longest ago first."""
    runs = StepRun.objects.filter(kind=RunKind.COMPENSATION, needs_attention=True)
    if options["failed_since"] is not None:
        runs = runs.filter(finished_at__gte=options["failed_since"])
    if options["workflow"] is not None:
        runs = runs.filter(execution__workflow_id__in=_workflows(options["workflow"]))
    yield from runs.order_by("finished_at", "id").values_list("execution_id", flat=True)


def _wanted(options: dict[str, Any]) -> tuple[str, ...]:
    """The outcomes with which nothing is left to do. What is waited for has to have come."""
    done = (WOULD_BE_SENT, WOULD_BE_SETTLED, OperatorOutcome.SUCCEEDED, OperatorOutcome.SETTLED)
    return done if options["wait"] else (*done, OperatorOutcome.QUEUED)


def _plans(ids: list[UUID], options: dict[str, Any]) -> Iterator[Item]:
    for each in progress(ids, unit="looked at", total=len(ids)):
        yield _plan(each, options)


def _plan(execution_id: UUID, options: dict[str, Any]) -> Item:
    from_step, compensation = options["from_step"], options["compensation"]
    try:
        if options["settled"]:
            plan_settlement(execution_id, from_step=from_step, compensation=compensation)
            return Item(execution_id, WOULD_BE_SETTLED)
        plan = plan_replay(
            execution_id, from_step=from_step, compensation=compensation, world=get_surroundings()
        )
    except WorkflowError as error:
        return Item(execution_id, REFUSED, error=error.message)
    return Item(execution_id, WOULD_BE_SENT, requests=plan.requests)


def _replayed(execution_id: UUID, options: dict[str, Any]) -> Item:
    do = executor.settle if options["settled"] else executor.replay
    try:
        replayed = do(
            execution_id,
            by=operator_name(options["by"]),
            reason=options["reason"],
            from_step=options["from_step"],
            compensation=options["compensation"],
            now=timezone.now(),
        )
    except WorkflowError as error:
        return Item(execution_id, REFUSED, error=error.message)
    return _told(replayed)


def _told(replayed: Replayed) -> Item:
    row = replayed.row
    return Item(row.pk, replayed.outcome.value, row.status, replayed.error, replayed=replayed)


def _waited_for(items: list[Item], *, seconds: float) -> list[Item]:
    """The items as they stand once workers are done with them, or once the time is over."""
    deadline = monotonic() + seconds
    while any(map(_is_queued, items)) and monotonic() < deadline:
        sleep(POLL_SECONDS)
        items = [_read_again(item) if _is_queued(item) else item for item in items]
    return items


def _is_queued(item: Item) -> bool:
    return item.outcome == OperatorOutcome.QUEUED


def _read_again(item: Item) -> Item:
    return item if item.replayed is None else _told(executor.verified(item.replayed))


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no execution's id") from None


def _moment(text: str) -> datetime:
    try:
        if ago := _AGO.fullmatch(text):
            return timezone.now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # no time, or one before the year 1
        raise argparse.ArgumentTypeError("use 90m, 12h, 7d, or 2026-01-31T12:00Z") from None
