"""What lint and types are told to let pass says why, on its line."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bench", "browser", "chaos", "config", "demo", "executions", "sandbox", "workflows")
_SUPPRESSION = re.compile(r"#\s*(?:noqa\b(?::\s*[A-Z0-9]+(?:,\s*[A-Z0-9]+)*)?|type: ignore\S*)")


def test_every_suppression_has_its_reason() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if not {"tests", "migrations"} & {*path.parts}
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if _SUPPRESSION.search(line) and not re.search(r"[a-z]", _SUPPRESSION.split(line)[-1])
    ]
    assert bare == []
