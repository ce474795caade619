"""The settings, their example file and their page in the docs name the same things in the same order."""

import ast
import re
from pathlib import Path

from django.conf import settings

ROOT = Path(__file__).resolve().parent.parent.parent
READERS = {"text", "flag", "integer", "items", "database"}


def read_by_settings() -> list[str]:
    tree = ast.parse((ROOT / "config" / "settings.py").read_text())
    calls = [
        (node.lineno, str(node.args[0].value))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "env"
        and node.func.attr in READERS
        and isinstance(node.args[0], ast.Constant)
    ]
    return [name for _line, name in sorted(calls)]


def test_example_names_every_setting_in_order() -> None:
    example = (ROOT / ".env.example").read_text()
    assert re.findall(r"^([A-Z_]+)=", example, re.MULTILINE) == read_by_settings()


def test_page_of_the_docs_names_every_setting_in_order() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert re.findall(r"^\| `([A-Z_]+)`", page, re.MULTILINE) == read_by_settings()


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
