"""The settings, their example file and their page in the docs name the same things in the same order."""

import ast
import re
from pathlib import Path

from django.conf import settings

ROOT = Path(__file__).resolve().parent.parent.parent
READERS = {"text", "flag", "integer", "items", "database"}


def calls_of_settings() -> list[tuple[str, ast.Call]]:
    """Every reading of the environment in settings.py, by the variable's name."""
    tree = ast.parse((ROOT / "config" / "settings.py").read_text())
    calls = [
        (str(node.args[0].value), node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "env"
        and node.func.attr in READERS
        and isinstance(node.args[0], ast.Constant)
    ]
    return sorted(calls, key=lambda call: call[1].lineno)


def rows_of_example() -> list[tuple[str, str, str]]:
    """Name, default and the sentence above it, of every setting in the example."""
    example = (ROOT / ".env.example").read_text()
    rows = re.findall(r"^# (?!---)(.+)\n([A-Z_]+)=(.*)$", example, re.MULTILINE)
    return [(name, default, words) for words, name, default in rows]


def test_example_names_every_setting_in_order() -> None:
    assert [name for name, _, _ in rows_of_example()] == [name for name, _ in calls_of_settings()]


def test_example_has_the_defaults() -> None:
    defaults = {name: default for name, default, _ in rows_of_example()}
    for name, call in calls_of_settings():
        if len(call.args) > 1 and not any(map(_is_worked_out, ast.walk(call.args[1]))):
            expression = ast.Expression(call.args[1])
            assert defaults[name] == str(eval(compile(expression, name, "eval")))


def _is_worked_out(node: ast.AST) -> bool:
    """Of another setting: the example then says how, in words."""
    return isinstance(node, ast.Name)


def test_page_of_the_docs_says_the_same() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    told = re.findall(r"^\| `([A-Z_]+)` \| `?(.+?)`? \| (.+) \|$", page, re.MULTILINE)
    assert [(name, default, words.replace("`", "")) for name, default, words in told] == [
        (name, default or "unset", words) for name, default, words in rows_of_example()
    ]


def test_sections_are_the_same() -> None:
    in_settings = re.findall(
        r"^# --- (.+?) -+$", (ROOT / "config/settings.py").read_text(), re.MULTILINE
    )
    in_example = re.findall(r"^# --- (.+?) ---$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert in_example == in_settings


def test_nothing_from_redis_is_unpickled() -> None:
    for cache in settings.CACHES.values():
        if "redis" in cache["BACKEND"]:
            assert cache["OPTIONS"]["SERIALIZER"].endswith("JSONSerializer")
