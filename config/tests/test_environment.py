"""Reading settings: a wrong value becomes a problem and the default, never an exception."""

from pathlib import Path

import pytest

from config.environment import Environment

DEFAULT = "sqlite:///var/x.sqlite3"


def messages(env: Environment) -> list[str]:
    return [problem.message for problem in env.problems]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("1", True), ("TRUE", True), ("on", True), ("0", False), ("no", False), ("", True)],
)
def test_flag(given: str, expected: bool) -> None:
    env = Environment({"FLAG": given})
    assert env.flag("FLAG", default=True) is expected
    assert env.problems == []


def test_flag_that_is_neither_is_a_problem() -> None:
    env = Environment({"FLAG": "ture"})
    assert env.flag("FLAG", default=False) is False
    assert messages(env) == ["FLAG is 'ture', which is neither yes nor no."]


@pytest.mark.parametrize(
    ("given", "expected", "problems"),
    [
        ("5", 5, []),
        (" 5 ", 5, []),
        ("", 7, []),
        ("0", 7, ["N is 0, which is out of range."]),
        ("11", 7, ["N is 11, which is out of range."]),
        ("5.5", 7, ["N is '5.5', which is no whole number."]),
        ("many", 7, ["N is 'many', which is no whole number."]),
    ],
)
def test_integer(given: str, expected: int, problems: list[str]) -> None:
    env = Environment({"N": given})
    assert env.integer("N", 7, at_least=1, at_most=10) == expected
    assert messages(env) == problems


def test_text_that_begins_with_a_dollar_is_itself() -> None:
    assert Environment({"SECRET": "$HOME"}).text("SECRET", "default") == "$HOME"


def test_text_outside_the_choices_is_a_problem() -> None:
    env = Environment({"LOG_FORMAT": "xml"})
    assert env.text("LOG_FORMAT", "json", choices=("json", "console")) == "json"
    assert messages(env) == ["LOG_FORMAT is 'xml'."]


def test_items_lose_spaces_and_gaps() -> None:
    env = Environment({"HOSTS": " a.example , ,b.example,"})
    assert env.items("HOSTS") == ["a.example", "b.example"]
    assert env.items("OTHERS", ["c.example"]) == ["c.example"]


def test_sqlite_file_is_found_from_the_base_and_its_folder_made(tmp_path: Path) -> None:
    env = Environment({})
    database = env.database("DATABASE_URL", DEFAULT, base=tmp_path)
    assert database["NAME"] == str(tmp_path / "var" / "x.sqlite3")
    assert (tmp_path / "var").is_dir()
    assert env.problems == []


def test_postgresql_socket_is_kept_as_an_option(tmp_path: Path) -> None:
    env = Environment({"DATABASE_URL": "postgres://handrail@/handrail?host=/run/pg"})
    database = env.database("DATABASE_URL", DEFAULT, base=tmp_path)
    assert database["ENGINE"] == "django.db.backends.postgresql"
    assert (database["USER"], database["NAME"]) == ("handrail", "handrail")
    assert database["OPTIONS"] == {"host": "/run/pg"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:secret@h/x", "DATABASE_URL is no PostgreSQL or SQLite URL."),
        ("secret", "DATABASE_URL is no PostgreSQL or SQLite URL."),
        ("postgres://u:secret@h:99999999/x", "DATABASE_URL cannot be read as a URL."),
    ],
)
def test_database_that_cannot_be_read_tells_no_password(
    url: str, message: str, tmp_path: Path
) -> None:
    env = Environment({"DATABASE_URL": url})
    assert env.database("DATABASE_URL", DEFAULT, base=tmp_path)["ENGINE"].endswith("sqlite3")
    assert messages(env) == [message]
    assert "secret" not in repr(env.problems)


def test_folder_that_cannot_be_made_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file is in the way")
    env = Environment({})
    env.database("DATABASE_URL", DEFAULT, base=tmp_path)
    assert messages(env) == ["DATABASE_URL: its folder cannot be made (File exists)."]
