"""Commands that fail: one sentence, the right exit code, and JSON where a machine listens."""

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command, load_command_class
from django.core.management.base import CommandParser
from django.db import DataError, OperationalError, ProgrammingError

from config.commands import HouseCommand
from config.tests.test_docs import OURS

ROOT = Path(__file__).resolve().parents[2]
USAGE, FAILED = 2, 1


class Sample(HouseCommand):
    """Does what it is told to."""

    paths = ("file",)

    def __init__(self, does: Any) -> None:
        super().__init__()
        self._does = does

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true")
        parser.add_argument("--name")
        parser.add_argument("--file")
        parser.add_argument("--count", type=int)

    def handle(self, *_args: Any, **_options: Any) -> None:
        self._does(self)


def failure(does: Any, *words: str) -> tuple[str, int, str]:
    """The sentence, the exit code, and what stands on standard output."""
    out = StringIO()
    with pytest.raises(CommandError) as error:
        call_command(Sample(does), *words, stdout=out)
    return str(error.value), error.value.returncode, out.getvalue()


def raising(error: BaseException) -> Any:
    def does(_command: Sample) -> None:
        raise error

    return does


def test_failure_is_json_for_machines_and_nothing_else_for_people() -> None:
    does = raising(CommandError("It did not work.", returncode=FAILED))
    assert failure(does) == ("It did not work.", FAILED, "")
    sentence, code, out = failure(does, "--json")
    assert (sentence, code, json.loads(out)) == (
        "It did not work.",
        FAILED,
        {"error": "It did not work."},
    )


def test_a_report_is_all_that_a_machine_gets() -> None:
    def does(command: Sample) -> None:
        command.tell({"items": []})
        raise CommandError("One failed.", returncode=FAILED)

    assert failure(does, "--json") == ("One failed.", FAILED, '{"items": []}\n')


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OperationalError("connection refused\nis it running?"),
            "The database does not serve: connection refused.",
        ),
        (
            OperationalError("no such table: x"),
            "The database is not migrated (no such table: x): run manage.py migrate.",
        ),
    ],
)
def test_database_that_does_not_serve_is_one_sentence(error: Exception, sentence: str) -> None:
    told, code, out = failure(raising(error), "--json")
    assert (told, code, json.loads(out)) == (sentence, FAILED, {"error": sentence})


@pytest.mark.parametrize("error", [ProgrammingError("syntax"), DataError("too long"), KeyError(1)])
def test_a_bug_of_ours_is_not_hidden(error: Exception) -> None:
    with pytest.raises(type(error)):
        call_command(Sample(raising(error)), stdout=StringIO())


def test_arguments_have_to_be_text_unless_they_name_a_file() -> None:
    sentence = "An argument is no text: it is not valid UTF-8."
    called: list[str] = []
    assert failure(called.append, "--name", "a\udcff", "--json")[:2] == (sentence, USAGE)
    assert called == []
    call_command(Sample(called.append), "--file", "a\udcff")
    assert len(called) == 1


def test_wrong_usage_within_a_process_has_its_code() -> None:
    sentence, code, _ = failure(raising(AssertionError()), "--count", "x")
    assert (sentence, code) == ("Error: argument --count: invalid int value: 'x'", USAGE)


@pytest.mark.parametrize(("name", "app"), OURS)
def test_every_command_that_speaks_json_keeps_that_promise(name: str, app: str) -> None:
    command = load_command_class(app, name)
    has_json = "--json" in command.create_parser("manage.py", name)._option_string_actions
    if app != "sandbox" and name != "demo" and has_json:  # they stand alone, and stay
        assert isinstance(command, HouseCommand)


def manage(*words: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env={**os.environ, "DEBUG": "1", "ENV_FILE": "", "LOG_FORMAT": "console", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_from_the_command_line(tmp_path: Path) -> None:
    """Wrong usage, and a database without tables."""
    code, out, err = manage("cleanup_executions", "--batch", "x", "--json")
    told = "argument --batch: invalid int value: 'x'"
    assert (code, json.loads(out)) == (USAGE, {"error": told})
    assert err == f"manage.py cleanup_executions: {told}; see --help\n"
    empty = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    code, out, err = manage("erase_user", "alice", "--json", DATABASE_URL=empty, REDIS_URL="")
    sentence = json.loads(out)["error"]
    assert code == FAILED
    assert sentence.startswith("The database is not migrated (no such table: ")
    assert err == f"CommandError: {sentence}\n"
