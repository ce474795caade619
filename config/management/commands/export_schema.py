"""`export_schema`: the API's SDL, committed as `schema.graphql`."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.module_loading import import_string

from config.graphql_sdl import sdl_of


class Command(BaseCommand):
    help = "Writes the GraphQL schema to schema.graphql; with --check only says whether it differs."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="write nothing; 1 when it differs")
        parser.add_argument(
            "--out",
            type=Path,
            default=settings.BASE_DIR / settings.GRAPHENE["SCHEMA_OUTPUT"],
            help="the file (default schema.graphql)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        path: Path = options["out"]
        sdl = sdl_of(import_string(settings.GRAPHENE["SCHEMA"]).graphql_schema)
        if options["check"]:
            if not path.exists() or path.read_text(encoding="utf-8") != sdl:
                raise CommandError(f"{path.name} is not the schema; run manage.py export_schema.")
            self.stdout.write(f"{path.name} is the schema.")
            return
        path.write_text(sdl, encoding="utf-8")
        self.stdout.write(f"Wrote {path.name}.")
