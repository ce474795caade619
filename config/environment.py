"""Reads settings from the environment and notes every wrong value instead of raising.

A wrong value must end in one clear sentence, never in a traceback: so a reader that cannot use a
value notes a SettingProblem and answers the default. `config/checks.py` turns the notes into system
checks, which stop every command and the server. Leaf: imports nothing of ours.
"""

import os
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import environ

TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS = frozenset({"0", "false", "no", "off"})
DATABASE_SCHEMES = ("postgres", "postgresql", "psql", "pgsql", "sqlite")


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """A setting that cannot be used: its name, what is wrong, and what to do about it."""

    name: str
    message: str
    hint: str


def split_url(url: str) -> SplitResult:
    """The URL's parts; empty ones for what is no URL, which the checks then tell."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


class Environment:
    """Typed access to the environment's variables; one that is set but empty counts as unset."""

    def __init__(self, variables: MutableMapping[str, str] | None = None) -> None:
        self.variables = os.environ if variables is None else variables
        self.problems: list[SettingProblem] = []

    def load_file(self, path: Path) -> None:
        """Take the variables of an env file; those of the real environment win."""
        if path.is_file():
            environ.Env.read_env(path)

    def note(self, name: str, message: str, hint: str) -> None:
        self.problems.append(SettingProblem(name, message, hint))

    def text(self, name: str, default: str, *, choices: Sequence[str] = ()) -> str:
        # Not through environ.Env.str: it takes a value that begins with `$` for the name of another
        # variable.
        value = self.variables.get(name, "").strip() or default
        if choices and value not in choices:
            self.note(name, f"{name} is {value!r}.", f"Use one of {', '.join(choices)}.")
            return default
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.text(name, "").lower()
        if not value:
            return default
        if value not in TRUE_WORDS | FALSE_WORDS:
            self.note(name, f"{name} is {value!r}, which is neither yes nor no.", "Use 1 or 0.")
            return default
        return value in TRUE_WORDS

    def integer(self, name: str, default: int, *, at_least: int, at_most: int) -> int:
        value = self.text(name, "")
        if not value:
            return default
        hint = f"Use a whole number from {at_least} to {at_most}."
        try:
            number = int(value)
        except ValueError:
            self.note(name, f"{name} is {value[:40]!r}, which is no whole number.", hint)
            return default
        if not at_least <= number <= at_most:
            self.note(name, f"{name} is {number}, which is out of range.", hint)
            return default
        return number

    def items(self, name: str, default: Sequence[str] = ()) -> list[str]:
        """A comma-separated list; spaces around the items and empty items do not count."""
        given = [item.strip() for item in self.text(name, "").split(",")]
        return [item for item in given if item] or list(default)

    def database(self, name: str, default: str, *, base: Path) -> dict[str, Any]:
        """Django's settings for a database URL; a problem's message never holds the password.

        A SQLite file is looked for from `base`, and its folder is made.
        """
        url = self.text(name, default)
        hint = f"Use postgres://user:password@host:5432/name or {default}."
        if url.partition(":")[0] not in DATABASE_SCHEMES:
            self.note(name, f"{name} is no PostgreSQL or SQLite URL.", hint)
            url = default
        try:
            database = dict(environ.Env.db_url_config(url))
        except ValueError:
            self.note(name, f"{name} cannot be read as a URL.", hint)
            database = dict(environ.Env.db_url_config(default))
        if url.startswith("sqlite") and database["NAME"] != ":memory:":
            database["NAME"] = str(base / database["NAME"])
            self._make_folder(name, Path(database["NAME"]).parent)
        return database

    def _make_folder(self, name: str, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            hint = "Name a file in a folder that can be written to."
            self.note(name, f"{name}: its folder cannot be made ({error.strerror}).", hint)
