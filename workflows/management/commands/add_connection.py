"""`add_connection`: register or change a partner system."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import CommandError, CommandParser

from config.commands import HouseCommand
from workflows.connections import set_connection
from workflows.enums import AuthKind
from workflows.errors import DefinitionError


class Command(HouseCommand):
    """Safe to repeat: the connection of that name is changed to what is given."""

    help = "Registers a partner system, or changes the one of that name."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what workflows call it: letters, digits, . _ -")
        parser.add_argument("base_url", help="https://partner.example/api")
        parser.add_argument(
            "--auth", default="NONE", choices=[kind.lower() for kind in AuthKind.values],
            type=str.lower, help="how it is shown who is calling (default: none)",
        )  # fmt: skip
        parser.add_argument(
            "--secret-from-env", metavar="VAR", help="the environment variable with the secret"
        )
        parser.add_argument("--username", default="", help="for --auth basic")
        parser.add_argument("--header", default="", help="the key's header, for --auth api_key")
        parser.add_argument(
            "--allow-private", action="store_true", help="its address may be a private one"
        )
        callbacks = parser.add_mutually_exclusive_group()
        callbacks.add_argument(
            "--callback-secret-from-env", metavar="VAR",
            help="the environment variable with the secret that signs the partner's callbacks",
        )  # fmt: skip
        callbacks.add_argument(
            "--no-callback-secret", action="store_true", help="its callbacks need no signature"
        )
        parser.add_argument("--json", action="store_true", help="one line of JSON for machines")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            connection, is_new = set_connection(
                name=options["name"],
                base_url=options["base_url"],
                auth_kind=AuthKind(options["auth"].upper()),
                secret=_secret(options["secret_from_env"]),
                username=options["username"],
                header_name=options["header"],
                allow_private=options["allow_private"],
                callback_secret=_callback_secret(options),
            )
        except DefinitionError as error:
            raise CommandError("\n".join(map(str, error.problems)), returncode=1) from error
        if options["json"]:
            self.tell({"id": str(connection.id), "name": connection.name, "created": is_new})
        else:
            done = "Added" if is_new else "Changed"
            self.stdout.write(f"{done} connection {connection.name} ({connection.base_url}).")


def _callback_secret(options: dict[str, Any]) -> str | None:
    return "" if options["no_callback_secret"] else _secret(options["callback_secret_from_env"])


def _secret(variable: str | None) -> str | None:
    """Never an argument: those are in the shell's history and in the list of processes."""
    if variable is None:
        return None
    secret = os.environ.get(variable)
    if not secret:
        raise CommandError(f"The environment variable {variable} is not set.", returncode=2)
    return secret
