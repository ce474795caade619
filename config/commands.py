"""What our commands have in common when they fail: one sentence, and JSON where a machine listens.

Leaf: the commands of every app stand on it.
"""

import gc
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError, OperationalError

from config.jsonvalues import JsonRefused, JsonValue, check_storable

STOPPED = 130
"""The exit code after Ctrl-C: 128 and the signal's number."""

_NOT_THERE = frozenset({"UndefinedTable", "UndefinedColumn"})


class HouseCommand(BaseCommand):
    """A command that fails with one sentence, whatever its user or the database did.

    With `--json` standard output has one JSON value in any case: what `tell` wrote, or
    `{"error": …}` where it came to nothing.
    """

    paths: Sequence[str] = ()
    """Arguments that name files, which need not be text."""

    _has_told = False

    def tell(self, value: JsonValue) -> None:
        """Write what a machine gets to read, once."""
        self._has_told = True
        self.stdout.write(json.dumps(value))

    def say(self, line: str) -> None:
        """Write a line for people, at once: it is there when the command is killed after it."""
        self.stdout.write(line)
        self.stdout.flush()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        # argparse would print the usage, ten lines of it, before the sentence.
        parser.error = partial(self._refuse, parser)  # type: ignore[method-assign]  # argparse asks for it
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        # A full look at all that was imported takes a fifth of a second on a busy machine, and
        # comes when it likes: while rows are locked, or a partner waits.
        gc.freeze()
        try:
            super().run_from_argv(argv)
        except KeyboardInterrupt:
            self.stderr.write("Stopped.")
            sys.exit(STOPPED)

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            self._check_texts(options)
            return super().execute(*args, **options)
        except CommandError as error:
            self._tell_failure(error, options)
            raise
        except (DatabaseError, InterfaceError) as error:
            sentence = _sentence(error)
            if sentence is None:
                raise
            failure = CommandError(sentence, returncode=1)
            self._tell_failure(failure, options)
            raise failure from error

    def _refuse(self, parser: CommandParser, message: str) -> NoReturn:
        if not parser.called_from_command_line:
            raise CommandError(f"Error: {message}", returncode=2)
        if "--json" in sys.argv:
            self.tell({"error": message})
        parser.exit(2, f"{parser.prog}: {message}; see --help\n")

    def _check_texts(self, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            texts = value if isinstance(value, list) else [value]
            if name not in self.paths and not all(map(_is_storable, texts)):
                raise CommandError("An argument is no text: it is not valid UTF-8.", returncode=2)

    def _tell_failure(self, error: CommandError, options: Mapping[str, Any]) -> None:
        if options.get("json") and not self._has_told:
            self.tell({"error": str(error)})


def _is_storable(text: object) -> bool:
    try:
        check_storable(text if isinstance(text, str) else "")
    except JsonRefused:
        return False
    return True


def _sentence(error: Exception) -> str | None:
    """Why the database does not serve, in one line; None for a bug of ours."""
    first, *_ = str(error).strip().splitlines() or [type(error).__name__]
    if type(error.__cause__).__name__ in _NOT_THERE or first.startswith("no such "):
        return f"The database is not migrated ({first}): run manage.py migrate."
    if isinstance(error, OperationalError | InterfaceError):
        return f"The database does not serve: {first}."
    return None
