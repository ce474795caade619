"""`replay_execution`: sends failed submissions again, or calls a failed step's trigger again."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from config.jsonvalues import JsonObject
from executions import executor
from executions.command_line import operator_name, progress
from executions.enums import ErrorCode, OperatorOutcome, WorkflowExecutionStatus
from executions.models import WorkflowExecution
from executions.replaying import PlannedRequest, ReplayPlan, plan_replay
from executions.surroundings import get_surroundings
from workflows.errors import WorkflowError
from workflows.models import Workflow

REFUSED = "REFUSED"
WOULD_BE_SENT = "WOULD_BE_SENT"

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
                    yield f"  {name}: {json.dumps(value, ensure_ascii=False)}"


class Command(BaseCommand):
    """One execution at a time; may be killed in the middle and run again."""

    help = (
        "Sends failed submissions again, under the same Idempotency-Key unless the partner refused;"
        " with --from-step calls a failed or unknown step's trigger again. What has succeeded is"
        " refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="*", type=_uuid, metavar="ID", help="executions")
        parser.add_argument(
            "--failed-since",
            type=_moment,
            metavar="T",
            help="every submission that failed since then: 90m, 12h, 7d, or 2026-01-31T12:00Z",
        )
        parser.add_argument("--workflow", metavar="W", help="of this workflow only: its id or name")
        parser.add_argument(
            "--from-step", metavar="S", help="call this step again: its id, order or label"
        )
        parser.add_argument("--dry-run", action="store_true", help="show what would be sent")
        parser.add_argument("--reason", default="", help="why; required, and kept in the record")
        parser.add_argument("--by", help="who does it (default: the user of this machine)")
        parser.add_argument("--yes", action="store_true", help="replay more than one")
        parser.add_argument("--json", action="store_true", help="JSON for machines")

    def handle(self, *_args: Any, **options: Any) -> None:
        _check_usage(options)
        ids = list(dict.fromkeys(options["ids"])) or list(_failed(options))
        if options["dry_run"]:
            items = [_planned(each, options["from_step"]) for each in ids]
        else:
            self._check_radius(ids, options)
            items = [
                _replayed(each, options)
                for each in progress(ids, unit="executions", total=len(ids))
            ]
        self._tell(items, options)
        wanted = (WOULD_BE_SENT, OperatorOutcome.SUCCEEDED)
        missed = sum(item.outcome not in wanted for item in items)
        if missed:
            done = "could not be sent" if options["dry_run"] else "did not succeed"
            raise CommandError(f"{missed} of {len(items)} {done}.", returncode=1)

    def _check_radius(self, ids: list[UUID], options: dict[str, Any]) -> None:
        """Print what a bulk replay would reach, before anything is sent; stop it without --yes."""
        if len(ids) < 2:
            return
        planned = [_planned(each, options["from_step"]) for each in ids]
        calls = Counter(request.connection for item in planned for request in item.requests)
        told = ", ".join(f"{name} {count}" for name, count in sorted(calls.items())) or "none"
        refused = sum(item.outcome == REFUSED for item in planned)
        self.stderr.write(
            f"Blast radius: {len(ids)} executions; calls per connection: {told}; refused: {refused}."
        )
        if not options["yes"]:
            raise CommandError("Nothing was sent. Add --yes to replay them.", returncode=2)

    def _tell(self, items: list[Item], options: dict[str, Any]) -> None:
        if options["json"]:
            told = {"dryRun": options["dry_run"], "items": [item.to_json() for item in items]}
            self.stdout.write(json.dumps(told, ensure_ascii=False))
            return
        for item in items:
            for line in item.lines():
                self.stdout.write(line)
        if not items:
            self.stdout.write("No submission has failed.")


def _check_usage(options: dict[str, Any]) -> None:
    selects = options["failed_since"] is not None or options["workflow"] is not None
    if bool(options["ids"]) is selects:
        raise CommandError(
            "Name executions, or select with --failed-since or --workflow.", returncode=2
        )
    if selects and options["from_step"] is not None:
        raise CommandError("--from-step needs executions by their ids.", returncode=2)
    if not options["dry_run"] and not options["reason"].strip():
        raise CommandError("--reason is required: it is kept in the record.", returncode=2)
    if len(options["reason"]) > executor.MAX_REASON_LENGTH:
        raise CommandError(
            f"--reason has at most {executor.MAX_REASON_LENGTH} characters.", returncode=2
        )


def _failed(options: dict[str, Any]) -> Iterator[UUID]:
    """The executions whose submission failed, the longest ago first."""
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


def _planned(execution_id: UUID, from_step: str | None) -> Item:
    try:
        plan: ReplayPlan = plan_replay(execution_id, from_step=from_step, world=get_surroundings())
    except WorkflowError as error:
        return Item(execution_id, REFUSED, error=error.message)
    return Item(execution_id, WOULD_BE_SENT, requests=plan.requests)


def _replayed(execution_id: UUID, options: dict[str, Any]) -> Item:
    try:
        replayed = executor.replay(
            execution_id,
            by=operator_name(options["by"]),
            reason=options["reason"],
            from_step=options["from_step"],
            now=timezone.now(),
        )
    except WorkflowError as error:
        return Item(execution_id, REFUSED, error=error.message)
    return Item(execution_id, replayed.outcome.value, replayed.row.status, replayed.error)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no execution's id") from None


def _moment(text: str) -> datetime:
    ago = _AGO.fullmatch(text)
    if ago:
        return timezone.now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("use 90m, 12h, 7d, or 2026-01-31T12:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
