"""Why the demo ends: each error's text is one sentence for the person at the terminal."""

from collections.abc import Mapping
from typing import Any


class DemoFailed(Exception):
    """The demo cannot go on."""


class NotAsExpected(DemoFailed):
    """Something came out otherwise than it must."""


def expect(found: object, wanted: object, what: str) -> None:
    """Raise NotAsExpected, naming both, when they differ."""
    if found != wanted:
        raise NotAsExpected(f"{what}: expected {wanted!r}, found {found!r}.")


def expect_success(answer: Mapping[str, Any], what: str) -> None:
    """Raise NotAsExpected, with what the server said, unless the call succeeded and the flow goes on."""
    if not (answer["success"] and answer.get("shouldProceed", True)):
        said = " ".join(str(answer[name]) for name in ("errorCode", "error") if answer.get(name))
        raise NotAsExpected(f"{what} did not succeed: {said}")
