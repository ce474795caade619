"""docs/workflow-document.md holds: it names every key there is, and its examples give what it says."""

import json
import re
from pathlib import Path

import pytest

from config.jsonvalues import JsonObject
from workflows import documents
from workflows.document_shape import document_problems
from workflows.expressions import compile_expression
from workflows.interpolation import compile_endpoint, compile_text
from workflows.mapping import compile_mapping
from workflows.retry import RetryPolicy

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "workflow-document.md").read_text()
CONTEXT: JsonObject = json.loads(re.findall(r"Over the context `(.*?)`:", PAGE)[0])


def rows(heading: str) -> list[tuple[str, str]]:
    """The rows of the first table below a heading: what stands in backquotes in its two columns."""
    table = PAGE.split(f"\n## {heading}\n")[1].split("\n|---|---|\n")[1].split("\n\n")[0]
    cells = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return [(_unquoted(first), _unquoted(second)) for first, second in cells]


def _unquoted(cell: str) -> str:
    return cell[2:-2] if cell.startswith("``") else cell[1:-1]


@pytest.mark.parametrize(("text", "given"), rows("Expressions"))
def test_expressions_give_what_the_page_says(text: str, given: str) -> None:
    assert compile_expression(text).evaluate(CONTEXT) == json.loads(given)


@pytest.mark.parametrize(("text", "given"), rows("Mappings"))
def test_mappings_give_what_the_page_says(text: str, given: str) -> None:
    assert compile_mapping(json.loads(text)).apply(CONTEXT) == json.loads(given)


@pytest.mark.parametrize(("text", "given"), rows("Templates"))
def test_templates_give_what_the_page_says(text: str, given: str) -> None:
    assert compile_text(text).render(CONTEXT) == given


def test_endpoints_encode_as_the_page_says() -> None:
    assert compile_endpoint("/x/${v}").render({"v": "a/b"}) == "/x/a%2Fb"


def test_the_page_names_every_key() -> None:
    # An unknown key is refused with the list of those there are.
    shapes: tuple[tuple[JsonObject, str], ...] = (
        ({"zz": 1}, "zz"),
        ({"config": {"zz": 1}}, "config.zz"),
        ({"config": {"finalApi": {"endpoint": "/", "zz": 1}}}, "config.finalApi.zz"),
        ({"steps": [{"zz": 1}]}, "steps[0].zz"),
        ({"steps": [{"config": {"zz": 1}}]}, "steps[0].config.zz"),
        ({"steps": [{"retryConfig": {"zz": 1}}]}, "steps[0].retryConfig.zz"),
        (
            {"steps": [{"config": {"compensation": {"endpoint": "/", "zz": 1}}}]},
            "steps[0].config.compensation.zz",
        ),
    )
    for shape, path in shapes:
        (problem,) = (one for one in document_problems(shape) if one.path == path)
        known = problem.message.removeprefix("unknown key; known are ").split(", ")
        assert [key for key in known if not re.search(rf"\b{key}\b", PAGE)] == []


def test_the_page_has_the_defaults() -> None:
    policy = RetryPolicy()
    assert f"| `maxRetries` | 0 to 10, after the first call | `{policy.max_retries}` |" in PAGE
    assert f"| `initialDelayMs` | 0 to 60000 | `{policy.initial_delay_ms}` |" in PAGE
    undoing = documents.COMPENSATION_RETRIES
    first = f"{undoing.initial_delay_ms} ms before the first"
    assert f"without one {undoing.max_retries} retries, {first} |" in PAGE
    assert f"| `backoffMultiplier` | 1 to 10 | `{policy.backoff_multiplier:.0f}` |" in PAGE
    assert f"| `maxDelayMs` | 0 to 3600000 | `{policy.max_delay_ms}` |" in PAGE
    assert f"to the last byte | `{documents.DEFAULT_TIMEOUT_MS}` |" in PAGE
