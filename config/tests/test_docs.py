"""The pages hold together: links lead somewhere, and every command and option has its words."""

import re
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text()
SANDBOX_PAGE = (ROOT / "docs" / "sandbox.md").read_text()
OURS = sorted(
    (name, app)
    for name, app in get_commands().items()
    if app in ("config", "workflows", "executions", "sandbox")
)
PACKAGES = ("bench", "browser", "chaos", "config", "demo", "executions", "sandbox", "workflows")
_MODULE = re.compile(r"`([a-z_]+(?:/[a-z_]+)*\.py)`")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_module_that_is_named_is_there() -> None:
    """In pages and in the texts of modules: `drafts.py`, `executions/state.py`."""
    code = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    there = {f"/{path.relative_to(ROOT)}" for path in [*code, ROOT / "manage.py"]}
    named = {name for path in [*PAGES, *code] for name in _MODULE.findall(path.read_text())}
    gone = [name for name in named if not any(path.endswith(f"/{name}") for path in there)]
    assert sorted(gone) == []


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES[2:]]
    assert [page for page in pages if page != "README.md" and f"({page})" not in index] == []


@pytest.mark.parametrize(("name", "app"), OURS)
def test_every_command_and_option_has_its_words(name: str, app: str) -> None:
    assert f"\n## {name}" in COMMANDS_PAGE
    words = COMMANDS_PAGE.split(f"\n## {name}")[1].split("\n## ")[0]
    parser = load_command_class(app, name).create_parser("manage.py", name)
    base = {"help", "verbosity", "settings", "pythonpath", "traceback", "no_color"}
    base |= {"force_color", "skip_checks", "version"}
    options = [
        option
        for action in parser._actions
        if action.dest not in base
        for option in action.option_strings
    ]
    assert [option for option in options if option not in words] == []


def test_the_sandbox_page_has_its_options() -> None:
    parser = load_command_class("sandbox", "sandbox_partner").create_parser("manage.py", "x")
    ours = {"host", "port", "latency_ms", "fault_rate", "seed", "require", "json"}
    ours |= {"callback_delay_ms", "callback_secret"}
    options = [
        one for action in parser._actions if action.dest in ours for one in action.option_strings
    ]
    assert len(options) == len(ours)
    assert [option for option in options if option not in SANDBOX_PAGE] == []
