"""`import_workflow`: workflow documents in, all or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from config.actors import command_line
from config.commands import HouseCommand
from config.jsonvalues import JsonObject, JsonValue
from workflows.document_text import read_json
from workflows.errors import DefinitionError
from workflows.importing import Imported, ImportRefused, import_documents


class Command(HouseCommand):
    """A document whose name exists changes that workflow's draft."""

    help = "Imports workflow documents; one whose name exists changes that workflow's draft."
    paths = ("files",)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", help="a workflow document (JSON)")
        parser.add_argument("--publish", action="store_true", help="publish each draft as well")
        parser.add_argument(
            "--accept-failing-golden-runs", action="store_true",
            help="publish even where a golden run fails",
        )  # fmt: skip
        parser.add_argument("--new", action="store_true", help="make another workflow of the name")
        parser.add_argument("--json", action="store_true", help="JSON for machines")

    def handle(self, *_args: Any, **options: Any) -> None:
        files: list[str] = options["files"]
        documents = _read_all(files)
        try:
            imported = import_documents(
                documents,
                as_new=options["new"],
                publishes=options["publish"],
                by=command_line(),
                accepts_failing=options["accept_failing_golden_runs"],
            )
        except ImportRefused as refused:
            raise _refusal(files[refused.index], refused.cause) from refused
        for one in imported:
            for warning in one.warnings:
                self.stderr.write(f"{one.workflow.name}: {warning}", self.style.WARNING)
        if options["json"]:
            self.tell([_told(one) for one in imported])
        else:
            for one in imported:
                self.stdout.write(_sentence(one, publishes=options["publish"]))


def _read_all(files: list[str]) -> list[JsonValue]:
    documents = []
    for file in files:
        try:
            documents.append(read_json(Path(file).read_bytes()))
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror or error}.", returncode=1) from error
        except DefinitionError as error:
            raise _refusal(file, error) from error
    return documents


def _refusal(file: str, error: DefinitionError) -> CommandError:
    lines = [f"{file}: {problem}" for problem in error.problems] or [f"{file}: {error.message}"]
    return CommandError("\n".join([*lines, "Nothing was imported."]), returncode=1)


def _told(one: Imported) -> JsonObject:
    return {
        "id": str(one.workflow.id),
        "name": one.workflow.name,
        "version": one.version,
        "steps": [
            {"id": str(step.id), "order": step.order, "label": step.label} for step in one.steps
        ],
    }


def _sentence(one: Imported, *, publishes: bool) -> str:
    done = "Imported" if one.is_new else "Changed the draft of the existing"
    if not publishes:
        ending = " (draft)"
    elif one.is_published:
        ending = f", published as version {one.version}"
    else:
        ending = f": unchanged, version {one.version} stays live"
    return f"{done} workflow {one.workflow.name} {one.workflow.id}{ending}."
