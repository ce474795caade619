"""One setting of a draft as a form field: where it stands in the document, and how it is written back.

A field that was not changed is never written, so what stands in a document stays as it is, to the byte:
an absent key stays absent, an explicit default stays explicit. An empty field leaves its key out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError

from config.jsonvalues import JsonObject, JsonValue
from workflows.document_text import read_json
from workflows.errors import DefinitionError, Problem


class _Null:
    """JSON's null, written: None is "not there"."""


NULL: Final = _Null()

_WIDE: Final = {"class": "hr-input"}
_CODE: Final = {"class": "hr-input hr-code", "spellcheck": "false", "autocomplete": "off"}


def value_at(data: JsonObject, path: Sequence[str]) -> Any:
    """What stands at the path: None where nothing does, NULL for an explicit null."""
    value: JsonValue = data
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return NULL if value is None else value


def with_value(data: JsonObject, path: Sequence[str], value: Any) -> JsonObject:
    """The object with the value at the path, keys in their order; None leaves the key out.

    An object that has lost its last key is left out too.
    """
    name, rest = path[0], path[1:]
    if rest:
        inner = data.get(name)
        value = with_value(inner if isinstance(inner, dict) else {}, rest, value) or None
    if value is None:
        return {key: kept for key, kept in data.items() if key != name}
    return {**data, name: None if value is NULL else value}


class Part(forms.Field):
    """A field of the document. `path` leads to it from the workflow, or from the step.

    `notes` are what the check of the draft says of it; each form has its own.
    """

    def __init__(self, path: str, **kwargs: Any) -> None:
        self.notes: list[Problem] = []
        self.path = tuple(path.split("."))
        kwargs.setdefault("required", False)
        super().__init__(**kwargs)

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Whether another text was typed than the one that was shown."""
        return _lines(self.shown(initial)) != _lines("" if data is None else str(data))

    def shown(self, value: Any) -> str:
        """The value as it stands in the field."""
        return "" if value is None else str(value)


class TextPart(Part, forms.CharField):
    """Text, kept as it was typed but for the kind of its line breaks."""

    def __init__(self, path: str, *, rows: int = 0, code: bool = False, **kwargs: Any) -> None:
        self._is_one_line = not rows
        attrs = _CODE if code else _WIDE
        widget = forms.Textarea({**attrs, "rows": rows}) if rows else forms.TextInput(attrs)
        super().__init__(path, strip=False, widget=widget, **kwargs)

    def has_changed(self, initial: Any, data: Any) -> bool:
        if self._is_one_line:  # where browsers drop the line breaks of an imported text
            return in_one_line(self.shown(initial)) != in_one_line(data or "")
        return super().has_changed(initial, data)

    def to_python(self, value: Any) -> Any:
        return _lines(super().to_python(value) or "") or None


class IntegerPart(Part, forms.IntegerField):
    """A whole number. The document's own check says what is too small or too large."""

    def __init__(self, path: str, **kwargs: Any) -> None:
        widget = forms.NumberInput({"class": "hr-input hr-short", "inputmode": "numeric"})
        super().__init__(path, widget=widget, **kwargs)


class NumberPart(Part, forms.CharField):
    """A number, whole or not, as it was typed."""

    def __init__(self, path: str, **kwargs: Any) -> None:
        widget = forms.NumberInput({"class": "hr-input hr-short", "step": "any"})
        super().__init__(path, widget=widget, **kwargs)

    def to_python(self, value: Any) -> Any:
        text = (super().to_python(value) or "").strip()
        if not text:
            return None
        try:
            return int(text) if re.fullmatch(r"[+-]?[0-9]{1,30}", text) else _finite(text)
        except ValueError as error:
            raise ValidationError("Enter a number.") from error


class FlagPart(Part, forms.BooleanField):
    """A tick: true, or not there."""

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(path, widget=forms.CheckboxInput({"class": "hr-check"}), **kwargs)

    def has_changed(self, initial: Any, data: Any) -> bool:
        return (initial is True) is not bool(data)

    def clean(self, value: Any) -> Any:
        return True if super().clean(value) else None


class ChoicePart(Part, forms.ChoiceField):
    """One of several; `default` says in words what holds when none is written."""

    def __init__(
        self,
        path: str,
        choices: Sequence[tuple[str, str]],
        *,
        default: str | None = None,
        **kwargs: Any,
    ) -> None:
        empty = [] if default is None else [("", default)]
        super().__init__(
            path, choices=[*empty, *choices], widget=forms.Select({"class": "hr-input"}), **kwargs
        )

    def clean(self, value: Any) -> Any:
        return super().clean(value) or None


class YesNoPart(ChoicePart):
    """Yes, no, or what holds by default."""

    def __init__(self, path: str, *, default: str, **kwargs: Any) -> None:
        super().__init__(path, [("yes", "Yes"), ("no", "No")], default=default, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return self.shown(value)

    def shown(self, value: Any) -> str:
        return {True: "yes", False: "no"}.get(value, value or "")

    def clean(self, value: Any) -> Any:
        return {"yes": True, "no": False}.get(super().clean(value))


class ListPart(Part, forms.CharField):
    """Texts, one a line; empty lines are no texts."""

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(path, strip=False, widget=forms.Textarea({**_CODE, "rows": 3}), **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return self.shown(value)

    def shown(self, value: Any) -> str:
        return "\n".join(map(str, value)) if isinstance(value, list) else value or ""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        return [line.strip() for line in text.splitlines() if line.strip()] or None


class HeadersPart(Part, forms.CharField):
    """Headers, one a line: `Name: text`."""

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(path, strip=False, widget=forms.Textarea({**_CODE, "rows": 3}), **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return self.shown(value)

    def shown(self, value: Any) -> str:
        if not isinstance(value, dict):
            return value or ""
        return "\n".join(f"{name}: {text}" for name, text in value.items())

    def to_python(self, value: Any) -> Any:
        headers: JsonObject = {}
        for line in (super().to_python(value) or "").splitlines():
            name, colon, text = line.partition(":")
            if not line.strip():
                continue
            if not colon:
                raise ValidationError(f"A line is Name: text, unlike {line.strip()!r}.")
            if name.strip() in headers:
                raise ValidationError(f"{name.strip()} is there twice.")
            headers[name.strip()] = text.strip()
        return headers or None


class JsonPart(Part, forms.CharField):
    """JSON as people edit it: indented, and refused for what an import would be refused for."""

    def __init__(self, path: str, *, rows: int = 10, **kwargs: Any) -> None:
        super().__init__(
            path, strip=False, widget=forms.Textarea({**_CODE, "rows": rows}), **kwargs
        )

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, Typed) else self.shown(value)

    def bound_data(self, data: Any, initial: Any) -> Any:  # noqa: ARG002 - Django's signature
        return Typed(data or "")

    def shown(self, value: Any) -> str:
        if value is None:
            return ""
        return json.dumps(None if value is NULL else value, ensure_ascii=False, indent=2)

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        if not text.strip():
            return None
        try:
            read = read_json(text.encode(errors="surrogatepass"))
        except DefinitionError as error:
            raise ValidationError(error.message) from error
        return NULL if read is None else read


class Typed(str):
    """JSON as somebody typed it: shown again as it is."""

    __slots__ = ()


def in_one_line(text: str) -> str:
    """The text as an input of one line sends it."""
    return text.replace("\r", "").replace("\n", "")


def _lines(text: str) -> str:
    """Browsers send line breaks as two characters."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
