"""`export_workflow`: a draft, or a published version, as its document."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from config.commands import HouseCommand
from config.jsonvalues import JsonObject
from workflows.document_text import write_json
from workflows.documents import dump_document
from workflows.errors import DefinitionNotFound
from workflows.models import Workflow, WorkflowVersion
from workflows.versions import as_uuid


class Command(HouseCommand):
    """What was imported comes out the same."""

    help = "Writes a workflow's document: the draft, or a published version of it."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        # Django gives every command a --version of its own; ours takes its place.
        return super().create_parser(prog_name, subcommand, conflict_handler="resolve", **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", help="the workflow's id")
        parser.add_argument(
            "--version", dest="number", type=int, metavar="N", help="a published version's number"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            document = _document(options["id"], options["number"])
        except DefinitionNotFound as error:
            raise CommandError(error.message, returncode=1) from error
        self.stdout.write(write_json(document), ending="")


def _document(text: str, number: int | None) -> JsonObject:
    workflow_id = as_uuid(text)
    if number is None:
        workflow = Workflow.objects.filter(pk=workflow_id).first()
        if workflow is None:
            raise DefinitionNotFound(f"There is no workflow {text}.")
        return dump_document(workflow.document())
    version = WorkflowVersion.objects.filter(workflow_id=workflow_id, number=number).first()
    if version is None:
        raise DefinitionNotFound(f"There is no version {number} of workflow {text}.")
    document: JsonObject = version.document
    return document
