"""What the demo prints: short lines for people, or one JSON object a line for machines."""

import json
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Protocol

_LABEL_WIDTH = 24
_STYLES = {"good": "32", "bad": "31", "odd": "33", "shown": "36", "dim": "2", "strong": "1"}


class Telling(Protocol):
    """Every line is an event: its kind, its words, and what a machine may want besides."""

    def fact(self, name: str, words: str, **data: Any) -> None:
        """Something that is so: an address, a version."""

    def chapter(self, title: str, note: str = "") -> None:
        """A new part begins."""

    def request(self, label: str, words: str, *, mark: str = "good", **data: Any) -> None:
        """One request of the phone and what came of it."""

    def screen(self, title: str, message: str) -> None:
        """What the phone shows next: texts that the server rendered."""

    def note(self, words: str) -> None:
        """Why the next thing happens."""

    def document(self, name: str, value: object) -> None:
        """A JSON value, in full."""

    def verdict(self, words: str, *, is_good: bool) -> None:
        """How it all ended."""


class LinesForPeople:
    """A terminal's lines, coloured if it likes that."""

    def __init__(self, write: Callable[[str], object], *, is_coloured: bool, encoding: str) -> None:
        self._write_line = write
        self._is_coloured = is_coloured
        self._encoding = encoding

    def fact(self, name: str, words: str, **_data: Any) -> None:
        self._row(name, words)

    def chapter(self, title: str, note: str = "") -> None:
        self._say("")
        self._say(f"{self._style('strong', title)}  {self._style('dim', note)}".rstrip())

    def request(self, label: str, words: str, *, mark: str = "good", **_data: Any) -> None:
        signs = {"good": "✓", "bad": "✗", "odd": "…"}
        self._row(label, f"{self._style(mark, signs[mark])} {words}")

    def screen(self, title: str, message: str) -> None:
        text = ": ".join(part for part in (title, message and f"“{message}”") if part)
        self._row("  the phone shows", self._style("shown", text))

    def note(self, words: str) -> None:
        self._say("  " + self._style("dim", words))

    def document(self, name: str, value: object) -> None:
        told = json.dumps(value, ensure_ascii=False)
        lines = textwrap.wrap(told, 88, break_long_words=False, break_on_hyphens=False)
        for index, line in enumerate(lines):
            self._row(name if index == 0 else "", line)

    def verdict(self, words: str, *, is_good: bool) -> None:
        self._say("")
        self._say(self._style("good" if is_good else "bad", words))

    def _row(self, label: str, words: str) -> None:
        self._say(f"  {label:<{_LABEL_WIDTH}}  {words}")

    def _style(self, name: str, words: str) -> str:
        return f"\x1b[{_STYLES[name]}m{words}\x1b[0m" if self._is_coloured and words else words

    def _say(self, line: str) -> None:
        # A terminal that cannot show a sign gets another one, not an error.
        self._write_line(line.encode(self._encoding, "replace").decode(self._encoding))


class LinesForMachines:
    """One JSON object a line; `event` says what it is."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write_line = write

    def fact(self, name: str, words: str, **data: Any) -> None:
        self._event("fact", {"name": name, "text": words, **data})

    def chapter(self, title: str, note: str = "") -> None:
        self._event("chapter", {"title": title, "note": note})

    def request(self, label: str, words: str, *, mark: str = "good", **data: Any) -> None:
        self._event("request", {"label": label, "text": words, "mark": mark, **data})

    def screen(self, title: str, message: str) -> None:
        self._event("screen", {"title": title, "message": message})

    def note(self, words: str) -> None:
        self._event("note", {"text": words})

    def document(self, name: str, value: object) -> None:
        self._event("document", {"name": name, "value": value})

    def verdict(self, words: str, *, is_good: bool) -> None:
        self._event("verdict", {"text": words, "ok": is_good})

    def _event(self, kind: str, data: Mapping[str, object]) -> None:
        self._write_line(json.dumps({"event": kind, **data}))
