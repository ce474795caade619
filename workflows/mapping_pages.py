"""The mapping configurator: a mapping of a draft as rows, with what it gives for a sample beside it.

The page and its previews are one address: a preview is the same form, answered with JSON. Texts of
numbers never become numbers in the browser, so integers of any size stay as they are.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from django.contrib import messages
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.shortcuts import redirect

from config.back_office import ObjectPage
from config.jsonvalues import JsonObject, JsonValue, dump_compact
from workflows import drafts
from workflows.connections import connection_facts
from workflows.document_text import read_json, write_json
from workflows.enums import StepExecutionMode
from workflows.errors import DefinitionError, WorkflowError
from workflows.mapping_preview import preview_of
from workflows.mapping_rows import (
    SHAPES,
    BuiltMapping,
    MappingRow,
    RowKind,
    RowProblem,
    mapping_of,
    nested,
    restored,
    rows_of,
)
from workflows.mapping_targets import (
    API_MAPPING,
    COMPENSATION_MAPPING,
    REQUEST_MAPPING,
    MappingTarget,
)
from workflows.models import Workflow, WorkflowStep

MAX_ROWS: Final = 500
"""Above it the JSON is edited, as a whole."""

_MAX_DEPTH: Final = 64
_SPARE_ROWS: Final = 3
_SHOWN_CHARACTERS: Final = 120
_KIND_VALUES: Final = frozenset(kind.value for kind in RowKind)
_FIELDS: Final = ("origin", "shape", "depth", "kind", "name", "text", "default")

_NO_MAPPING: Final = mapping_of(rows_of(None))

KINDS: Final = (
    (RowKind.SOURCE, "Expression"),
    (RowKind.TEXT, "Text"),
    (RowKind.LITERAL, "Literal"),
    (RowKind.OBJECT, "Object"),
    (RowKind.LIST, "List"),
)


@dataclass(frozen=True, slots=True)
class Entered:
    """What the form holds: the rows, or the JSON, and the sample, each with what is wrong with it."""

    rows: tuple[MappingRow, ...]
    opened: str
    text: str
    text_error: str
    sample: str
    is_json: bool
    built: BuiltMapping


class MappingPage(ABC, ObjectPage):
    """The base: `target_of` says which mapping of the row it is about."""

    icon = "conversion_path"
    template_name = "workflows/mapping.html"
    lead: ClassVar[str] = ""
    without: ClassVar[str] = ""  # what happens when there is no mapping

    @abstractmethod
    def target(self) -> MappingTarget:
        """The mapping that the page is about."""

    @abstractmethod
    def revision(self) -> int:
        """The revision of the draft that is shown."""

    @abstractmethod
    def save(self, config: JsonObject | None, *, revision: int) -> None:
        """Write the config. Raises DefinitionError and DraftChanged."""

    def hint(self) -> str:
        """Why a mapping would have no effect, if it would have none: then it is not saved."""
        return ""

    def may_save(self) -> bool:
        """Whether this person may change the draft."""
        allowed: bool = self.model_admin.has_change_permission(self.request, self.object)
        return allowed

    def get(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> HttpResponse:  # noqa: ARG002 - Django's signature
        target = self.target()
        return self._shown(target, opened_form(target), revision=self.revision())

    def post(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> HttpResponse:
        """A preview (JSON for the script), a row nested, or the draft saved."""
        target = self.target()
        do = request.POST.get("do", "show")
        entered = entered_form(request.POST, is_json=do == "save-json")
        if do.startswith("nest:"):
            entered = nested_form(entered, do)
        if request.headers.get("Accept") == "application/json":
            return JsonResponse(answer_of(target, entered))
        if not do.startswith("save"):
            return self._shown(target, entered, revision=self._seen())
        if not self.may_save():
            raise PermissionDenied
        return self._saved(target, entered)

    def _saved(self, target: MappingTarget, entered: Entered) -> HttpResponse:
        built = entered.built
        if entered.text_error or built.problems or not target.is_there:
            error = "Not saved: mend the rows that are marked, then save again."
            return self._shown(target, entered, revision=self._seen(), error=error)
        if dump_compact(built.mapping) == dump_compact(target.mapping):
            messages.info(self.request, "Nothing has changed.")
            return redirect(self.request.path)
        useless = "" if built.mapping is None else self.hint()
        if useless:
            return self._shown(
                target, entered, revision=self._seen(), error=f"Not saved: {useless}"
            )
        try:
            self.save(target.config_with(built.mapping), revision=self._seen())
        except WorkflowError as error:
            return self._shown(target, entered, revision=self._seen(), error=error.message)
        messages.success(self.request, "The draft is saved.")
        found = target.check(built.leaves, connections=connection_facts())
        if found.problems:
            count = len(found.problems)
            text = "One row stops" if count == 1 else f"{count} rows stop"
            messages.warning(self.request, f"{text} the draft from being published.")
        return redirect(self.request.path)

    def _seen(self) -> int:
        try:
            return int(self.request.POST.get("seen_revision", ""))
        except ValueError:
            raise SuspiciousOperation("seen_revision is no number") from None

    def _shown(
        self, target: MappingTarget, entered: Entered, *, revision: int, error: str = ""
    ) -> HttpResponse:
        answer = answer_of(target, entered)
        return self.render_to_response(
            self.get_context_data(
                target=target,
                entered=entered,
                rows=shown_rows(entered, answer),
                spare_rows=[row_fields(MappingRow(1, RowKind.SOURCE))] * _SPARE_ROWS,
                blank_row=row_fields(MappingRow(1, RowKind.SOURCE)),
                answer=answer,
                paths=target.paths(),
                kinds=KINDS,
                seen_revision=revision,
                error=error,
                may_save=self.may_save(),
                has_rows=len(entered.rows) <= MAX_ROWS,
                max_rows=MAX_ROWS,
                hint=self.hint(),
                lead=self.lead,
                without=self.without,
            ),
            status=409 if error else 200,
        )


class ApiMappingPage(MappingPage):
    """`apiMapping` of a workflow: what the final API is sent."""

    title = "Mapping"
    lead = "What the final API is sent, or kept as the result, when a person completes the flow."
    without = "Without a mapping the final API gets the whole context."
    object: Workflow

    def target(self) -> MappingTarget:
        return MappingTarget(self.object.document(), None, API_MAPPING)

    def revision(self) -> int:
        return self.object.revision

    def save(self, config: JsonObject | None, *, revision: int) -> None:
        drafts.update_workflow(self.object.pk, {"config": config}, revision=revision)


class _StepMappingPage(MappingPage):
    keys: ClassVar[tuple[str, ...]]
    object: WorkflowStep

    def target(self) -> MappingTarget:
        index = self.object.workflow.steps_in_order().index(self.object)
        return MappingTarget(self.object.workflow.document(), index, self.keys)

    def revision(self) -> int:
        return self.object.workflow.revision

    def save(self, config: JsonObject | None, *, revision: int) -> None:
        drafts.update_step(self.object.pk, {"config": config}, revision=revision)

    def hint(self) -> str:
        if self.object.document().mode is StepExecutionMode.CLIENT_ONLY:
            return (
                "the step calls nobody (its execution mode is CLIENT_ONLY), so no request is made."
            )
        return ""

    @classmethod
    def is_offered(cls, row: WorkflowStep) -> bool:
        return row.document().mode is not StepExecutionMode.CLIENT_ONLY


class RequestMappingPage(_StepMappingPage):
    """`requestMapping` of a step: the body of its trigger."""

    title = "Request mapping"
    keys = REQUEST_MAPPING
    lead = "The body of the step's trigger; the query, for a GET."
    without = (
        "Without a mapping the partner gets { input, context, execution }; a GET has no query."
    )


class CompensationMappingPage(_StepMappingPage):
    """`compensation.requestMapping` of a step: the body of the call that undoes it."""

    title = "Compensation mapping"
    icon = "undo"
    keys = COMPENSATION_MAPPING
    lead = "The body of the call that undoes the step."
    without = "Without a mapping the partner gets { input, result, execution }."

    @classmethod
    def is_offered(cls, row: WorkflowStep) -> bool:
        return super().is_offered(row) and "compensation" in (row.config or {})


# What comes in.


def opened_form(target: MappingTarget) -> Entered:
    """The form as it is opened."""
    rows = rows_of(target.mapping)
    return Entered(
        rows=rows,
        opened=_text_or_nothing(target.mapping, dump=_compact_text),
        text=_text_or_nothing(target.mapping, dump=write_json),
        text_error="",
        sample=write_json(target.sample()),
        is_json=len(rows) > MAX_ROWS,
        built=mapping_of(rows),
    )


def entered_form(data: QueryDict, *, is_json: bool) -> Entered:
    """What was sent: the rows count, or the JSON where it was edited."""
    opened, text = data.get("opened", ""), data.get("text", "")
    sample = data.get("sample", "")
    if is_json or data.get("from") == "text":
        mapping, error = _read(text)
        rows = rows_of(mapping)
        built = mapping_of(rows)
        # These rows are of this text, not of what was opened.
        opened = opened if error else _text_or_nothing(mapping, dump=_compact_text)
        return Entered(rows, opened, text, error, sample, is_json=True, built=built)
    base, _ = _read(opened)
    rows = restored(sent_rows(data), rows_of(base))
    built = mapping_of(rows)
    if not built.problems:
        text = _text_or_nothing(built.mapping, dump=write_json)
    return Entered(rows, opened, text, "", sample, is_json=False, built=built)


def nested_form(entered: Entered, do: str) -> Entered:
    """The form with a row's dotted name made into objects."""
    index = _number(do.partition(":")[2])
    if not 0 <= index < len(entered.rows):
        raise SuspiciousOperation("no such row")
    rows = nested(entered.rows, index)
    built = mapping_of(rows)
    text = entered.text if built.problems else _text_or_nothing(built.mapping, dump=write_json)
    return Entered(rows, entered.opened, text, "", entered.sample, is_json=False, built=built)


def sent_rows(data: QueryDict) -> list[MappingRow]:
    """The rows, as one JSON list (from the script) or as fields of a form. Bad ones are 400."""
    if "rows" in data:
        sent = _read(data.get("rows", ""))[0]
        fields = sent if isinstance(sent, list) else [None]
        return [_sent_row(one if isinstance(one, dict) else {}) for one in fields]
    columns = [data.getlist(f"row_{name}") for name in _FIELDS]
    if len({len(column) for column in columns}) != 1:
        raise SuspiciousOperation("the rows came incomplete")
    return [_sent_row(dict(zip(_FIELDS, row, strict=True))) for row in zip(*columns, strict=True)]


def _sent_row(fields: Mapping[str, Any]) -> MappingRow:
    texts = {name: fields.get(name) for name in _FIELDS}
    if not all(isinstance(text, str) for text in texts.values()):
        raise SuspiciousOperation("a row came incomplete")
    if texts["kind"] not in _KIND_VALUES or texts["shape"] not in SHAPES:
        raise SuspiciousOperation("a row of no known kind")
    return MappingRow(
        depth=min(max(_number(str(texts["depth"])), 0), _MAX_DEPTH),
        kind=RowKind(texts["kind"]),
        name=str(texts["name"]),
        text=str(texts["text"]),
        default=str(texts["default"]),
        shape=str(texts["shape"]),
        origin=_number(str(texts["origin"])) if texts["origin"] else None,
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise SuspiciousOperation("a number was expected")
    return int(text)


def _read(text: str) -> tuple[JsonValue, str]:
    """The JSON of a text, None for no text; and why not, if not."""
    if not text.strip():
        return None, ""
    try:
        return read_json(text.encode(errors="surrogatepass")), ""
    except DefinitionError as error:
        return None, error.message


# What goes out.


def answer_of(target: MappingTarget, entered: Entered) -> JsonObject:
    """What the page shows of the rows: their values and problems, and the payload as text."""
    sample, sample_error = _read(entered.sample)
    if not sample_error and not isinstance(sample, dict):
        sample_error = "The sample must be an object: names and their values."
    preview = preview_of(entered.built, sample if isinstance(sample, dict) else {})
    found = target.check(entered.built.leaves, connections=connection_facts())
    known = {*entered.built.problems, *found.problems}
    of_sample = () if sample_error else [one for one in preview.problems if one not in known]
    problems = dict.fromkeys((*entered.built.problems, *found.problems, *of_sample))
    return {
        "rows": [*map(_row_json, entered.rows)] if len(entered.rows) <= MAX_ROWS else None,
        "opened": entered.opened,
        "text": entered.text,
        "textError": entered.text_error,
        "sampleError": sample_error,
        "isBuilt": not (entered.built.problems or entered.text_error),
        "isNone": entered.built == _NO_MAPPING and not entered.text_error,
        "payload": write_json(preview.payload)
        if preview.has_payload and not sample_error
        else None,
        "values": {} if sample_error else _value_texts(preview.values),
        "problems": _by_row(problems),
        "warnings": _by_row(found.warnings),
        "general": [*preview.general] if not sample_error else [],
    }


def shown_rows(entered: Entered, answer: JsonObject) -> list[dict[str, Any]]:
    """The rows for the template, each with what is to be said at it."""
    if len(entered.rows) > MAX_ROWS:
        return []
    noted = {key: answer[key] for key in ("values", "problems", "warnings")}
    return [
        {
            **row_fields(row),
            "index": index,
            "is_root": index == 0,
            "number": index + 1,
            **{
                key: by_row.get(str(index)) if isinstance(by_row, dict) else None
                for key, by_row in noted.items()
            },
        }
        for index, row in enumerate(entered.rows)
    ]


def row_fields(row: MappingRow) -> dict[str, Any]:
    """A row's fields as a page writes them."""
    return {
        "origin": "" if row.origin is None else str(row.origin),
        "shape": row.shape,
        "depth": row.depth,
        "kind": row.kind.value,
        "name": row.name,
        "text": row.text,
        "default": row.default,
    }


def _row_json(row: MappingRow) -> JsonObject:
    return {**row_fields(row), "depth": str(row.depth)}


def _by_row(found: Iterable[RowProblem]) -> JsonObject:
    messages_at: dict[str, list[JsonValue]] = {}
    for problem in found:
        messages_at.setdefault(str(problem.index), []).append(problem.message)
    return {**messages_at}


def _value_texts(values: Mapping[int, JsonValue]) -> JsonObject:
    return {str(index): _short(_compact_text(value)) for index, value in values.items()}


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _compact_text(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False)


def _text_or_nothing(value: JsonValue, *, dump: Any) -> str:
    return "" if value is None else str(dump(value))
