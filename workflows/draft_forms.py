"""The forms of drafts: every setting a field, every problem at its field, nothing else touched.

They know no rule: they try the edit that saving will make, a call of `drafts.py` as from the API and the
commands, and show what it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from django import forms
from django.core.exceptions import ValidationError

from config.display import in_words
from config.jsonvalues import JsonObject, JsonValue
from workflows import drafts
from workflows.document_shape import METHODS
from workflows.documents import (
    StepDocument,
    WorkflowDocument,
    WorkflowSettings,
    dump_document,
    dump_step,
)
from workflows.draft_parts import (
    ChoicePart,
    FlagPart,
    HeadersPart,
    IntegerPart,
    JsonPart,
    ListPart,
    NumberPart,
    Part,
    TextPart,
    YesNoPart,
    value_at,
    with_value,
)
from workflows.enums import StepExecutionMode, StepType, TriggerTiming
from workflows.errors import DefinitionError, DraftChanged, Problem
from workflows.forms import tried
from workflows.models import Workflow, WorkflowStep
from workflows.rows_editor import AS_ROWS, RowsEditor, problems_of
from workflows.step_rules import useless_settings

_STEP_PREFIX = re.compile(r"steps\[\d+\]\.")
_METHODS: Final = [(one, one) for one in METHODS]


def _words(values: Iterable[str]) -> list[tuple[str, str]]:
    return [(one, f"{in_words(one)} ({one})") for one in values]


def retry_parts(name: str, path: str) -> dict[str, Part]:
    """The four settings of a retry policy as fields."""
    return {
        f"{name}_max_retries": IntegerPart(
            f"{path}.maxRetries",
            label="Retries",
            help_text="After the first call: 0 to 10. Empty: 0.",
        ),
        f"{name}_initial_delay_ms": IntegerPart(
            f"{path}.initialDelayMs", label="First wait (ms)", help_text="Up to 60000. Empty: 1000."
        ),
        f"{name}_backoff_multiplier": NumberPart(
            f"{path}.backoffMultiplier",
            label="Each further wait times",
            help_text="1 to 10. Empty: 2.",
        ),
        f"{name}_max_delay_ms": IntegerPart(
            f"{path}.maxDelayMs", label="Longest wait (ms)", help_text="Empty: 30000."
        ),
    }


class DraftForm(forms.Form):
    """A part of a draft. `before` is its JSON; `seen_revision` the revision that the person looks at.

    What the check of the whole draft says of a field is in its `notes`: shown beside it, in no one's way.
    """

    seen_revision = forms.IntegerField(widget=forms.HiddenInput)
    schema_field: ClassVar[str] = ""  # the field that holds the schema as JSON

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        before: JsonObject,
        revision: int,
        connections: Sequence[str] = (),
        may_change: bool = True,
    ) -> None:
        self.before = before
        self._is_trying = True
        self.may_change = may_change
        super().__init__(data, initial={"seen_revision": revision})
        for name, part in self.parts().items():
            self.initial[name] = value_at(before, part.path)
            part.notes = []
        for name, field in self.fields.items():
            field.disabled = not may_change and name != "seen_revision"
            if name.endswith("connection"):
                self._offer_connections(name, connections)
        self.editor = self._make_editor(data)

    def edit(self) -> Any:
        """Make the edit. Raises DefinitionError and DraftChanged."""
        raise NotImplementedError

    def schema_and_fields(self) -> tuple[JsonValue, JsonValue]:
        """What the field editor edits."""
        raise NotImplementedError

    def parts(self) -> dict[str, Part]:
        """The fields that stand for something in the document."""
        return {name: field for name, field in self.fields.items() if isinstance(field, Part)}

    def after(self) -> JsonObject:
        """The JSON with what was changed, as far as it could be read. Nothing else is touched."""
        after = self.before
        for name, part in self.parts().items():
            if name in self.cleaned_data and self._is_changed(name):
                after = with_value(after, part.path, self.cleaned_data[name])
        return self._with_rows(after)

    def changes(self) -> JsonObject:
        """What was changed, by key; None leaves the key out."""
        after = self.after()
        keys = dict.fromkeys((*self.before, *after))
        same = {key for key in keys if _is_identical(self.before.get(key), after.get(key))}
        return {key: after.get(key) for key in keys if key not in same}

    def read(self) -> None:
        """Read what was entered without trying the edit. Raises DefinitionError for what is unreadable."""
        self._is_trying = False
        self.full_clean()
        said = [
            Problem(".".join(part.path), str(message))
            for name, part in self.parts().items()
            for message in self.errors.get(name, ())
        ]
        if said:
            raise DefinitionError(said)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if self._is_trying and not self.errors and self._rows_are_right():
            self._try()
        return cleaned

    def take(self, problems: Iterable[Problem]) -> None:
        """Show the problems, each at the field where it was made."""
        for problem in problems:
            if self._is_about_rows(problem.path):
                self.editor.take([problem])
                self.add_error(None, ValidationError("The fields have problems.", code="rows"))
            else:
                self.add_error(self.field_at(problem.path), problem.message)

    def note(self, problems: Iterable[Problem]) -> list[Problem]:
        """Put the problems beside their fields; returns those that belong to none."""
        homeless = []
        for problem in problems:
            name = self.field_at(problem.path)
            if name is None:
                homeless.append(problem)
            elif name in self._editors_fields() and self.editor.mode == AS_ROWS:
                self.editor.take([problem])
            else:
                self.parts()[name].notes.append(problem)
        return homeless

    def said(self) -> list[tuple[forms.BoundField, list[Problem]]]:
        """The fields that the check of the draft says something of."""
        return [(self[name], part.notes) for name, part in self.parts().items() if part.notes]

    def field_at(self, path: str) -> str | None:
        """The field that a problem's path leads to: into it, or the first that is inside the path."""
        inner = _STEP_PREFIX.sub("", path)
        found, length = None, -1
        for name, part in self.parts().items():
            own = ".".join(part.path)
            if inner == own or (inner.startswith((f"{own}.", f"{own}["))):
                if len(own) > length:
                    found, length = name, len(own)
            elif found is None and inner and own.startswith(f"{inner}."):
                found, length = name, 0
        return found

    def _try(self) -> None:
        try:
            with tried():
                self.edit()
        except DraftChanged as error:
            self.add_error(None, error.message)
        except DefinitionError as error:
            self.take(problems_of(error))

    def _is_changed(self, name: str) -> bool:
        """Whether the person changed it; what was not sent at all was not changed, but for ticks."""
        field = self.fields[name]
        sent = field.widget.value_from_datadict(self.data, self.files, self.add_prefix(name))
        if sent is None and not isinstance(field, FlagPart):
            return False
        if name in self._editors_fields() and (
            not self.editor.is_posted or self.editor.mode == AS_ROWS
        ):
            return False
        return not field.disabled and field.has_changed(self.initial.get(name), sent)

    def _make_editor(self, data: Mapping[str, Any] | None) -> RowsEditor:
        schema, fields = self.schema_and_fields()
        return RowsEditor("rows", schema=schema, fields=fields, data=data)

    def _editors_fields(self) -> tuple[str, ...]:
        return (self.schema_field,)

    def _with_rows(self, after: JsonObject) -> JsonObject:
        if not self.editor.is_posted or self.editor.mode != AS_ROWS or not self.may_change:
            return after
        parts = self.parts()
        for name, before, value in zip(
            self._editors_fields(), self.schema_and_fields(), self.editor.written(), strict=False
        ):
            if not _is_identical(before, value):
                after = with_value(after, parts[name].path, value)
        return after

    def _rows_are_right(self) -> bool:
        if not self.editor.is_posted or self.editor.mode != AS_ROWS:
            return True
        try:
            self.editor.written()
        except DefinitionError as error:
            self.editor.take(problems_of(error))
            self.add_error(None, ValidationError("The fields have problems.", code="rows"))
            return False
        return True

    def _is_about_rows(self, path: str) -> bool:
        is_rows = self.editor.is_posted and self.editor.mode == AS_ROWS
        return is_rows and self.field_at(path) in self._editors_fields()

    def _offer_connections(self, name: str, connections: Sequence[str]) -> None:
        field = self.fields[name]
        known = [(one, one) for one in connections]
        written = self.initial.get(name)
        if isinstance(written, str) and written not in connections:
            known.append((written, f"{written} (not registered)"))
        if isinstance(field, ChoicePart):
            field.choices = [("", "Default"), *known]


class WorkflowForm(DraftForm):
    """A draft's name, description and config."""

    schema_field = "initial_context_schema"

    name = TextPart("name", label="Name", required=True)
    description = TextPart("description", rows=3, label="Description")
    session_ttl_seconds = IntegerPart(
        "config.sessionTtlSeconds",
        label="Session lives for (seconds)",
        help_text="Every accepted call renews it: 60 to 86400. Empty: the setting SESSION_TTL_SECONDS.",
    )
    durable_session = FlagPart(
        "config.durableSession",
        label="Durable session",
        help_text="A lost session is rebuilt from sealed rows instead of ended.",
    )
    sensitive = ListPart(
        "config.sensitive",
        label="Sensitive paths",
        help_text="One a line, as card.number or pin: never shown in records, admin, logs or metrics.",
    )
    required_scopes = ListPart(
        "config.requiredScopes",
        label="Required scopes",
        help_text="One a line: what a person's token needs to see and start the flow.",
    )
    final_endpoint = TextPart(
        "config.finalApi.endpoint",
        label="Endpoint",
        code=True,
        help_text="Where the final request goes. Empty: completion calls nobody.",
    )
    final_method = ChoicePart(
        "config.finalApi.method", _METHODS, default="Default (POST)", label="Method"
    )
    final_connection = ChoicePart(
        "config.finalApi.connection", (), default="Default", label="Connection"
    )
    final_timeout_ms = IntegerPart(
        "config.finalApi.timeoutMs",
        label="Timeout (ms)",
        help_text="One whole attempt: 100 to 120000. Empty: 10000.",
    )
    api_mapping = JsonPart(
        "config.apiMapping",
        rows=12,
        label="Mapping (JSON)",
        help_text="The final payload: its texts are expressions over the context.",
    )
    initial_context_schema = JsonPart(
        "config.initialContextSchema", rows=12, label="Initial context (JSON Schema)"
    )

    def __init__(
        self, data: Mapping[str, Any] | None = None, *, workflow: Workflow, **kwargs: Any
    ) -> None:
        self.workflow = workflow
        before = {
            key: value
            for key, value in dump_document(workflow.document()).items()
            if key != "steps"
        }
        super().__init__(data, before=before, revision=workflow.revision, **kwargs)

    def edit(self) -> Workflow:
        revision = self.cleaned_data["seen_revision"]
        return drafts.update_workflow(self.workflow.pk, self.changes(), revision=revision)

    def schema_and_fields(self) -> tuple[JsonValue, JsonValue]:
        config = self.before.get("config")
        return (config.get("initialContextSchema") if isinstance(config, dict) else None), None

    def _make_editor(self, data: Mapping[str, Any] | None) -> RowsEditor:
        schema, _ = self.schema_and_fields()
        return RowsEditor("rows", schema=schema, data=data, has_texts=False)


class StepForm(DraftForm):
    """One step of a draft, every key of its config included."""

    schema_field = "input_schema"

    label = TextPart(
        "label",
        label="Label",
        required=True,
        help_text="What operators see; the app shows the title.",
    )
    type = ChoicePart("type", _words(StepType.values), label="Type", required=True)
    order = IntegerPart(
        "order", label="Order", required=True, help_text="Steps run by rising order."
    )
    execution_mode = ChoicePart(
        "executionMode",
        _words(StepExecutionMode.values),
        default="Default (client only)",
        label="Execution mode",
    )
    trigger_timing = ChoicePart(
        "triggerTiming",
        _words(TriggerTiming.values),
        default="Default (after step)",
        label="Trigger timing",
    )
    connection = ChoicePart("config.connection", (), default="Default", label="Connection")
    trigger_endpoint = TextPart(
        "triggerEndpoint",
        code=True,
        label="Endpoint",
        help_text="A path below the connection's address, or a whole URL of it. ${…} puts a value in.",
    )
    method = ChoicePart("config.method", _METHODS, default="Default (POST)", label="Method")
    timeout_ms = IntegerPart(
        "timeoutMs",
        label="Timeout (ms)",
        help_text="One whole attempt: 100 to 120000. Empty: 10000.",
    )
    headers = HeadersPart(
        "config.headers", label="Headers", help_text="One a line: Name: text. ${…} puts a value in."
    )
    request_mapping = JsonPart(
        "config.requestMapping",
        label="Request mapping (JSON)",
        help_text="The request's body. Empty: input, context and execution.",
    )
    data_key = TextPart(
        "config.dataKey",
        code=True,
        label="Data key",
        help_text="Where the step's data lands in the context. Empty: step and its order.",
    )
    form_id = TextPart("config.formId", label="Form id", help_text="For the app.")
    input_schema = JsonPart("config.inputSchema", rows=14, label="Input (JSON Schema)")
    fields_json = JsonPart("config.fields", rows=10, label="Fields for the app (JSON)")
    title = TextPart("config.title", label="Title")
    message = TextPart("config.message", rows=3, label="Message")
    app = JsonPart(
        "config.app",
        rows=6,
        label="More for the app (JSON)",
        help_text="Handed on as it is; texts may hold ${…}.",
    )
    when = TextPart(
        "config.when",
        code=True,
        label="Only when",
        help_text="An expression over the context. When it is false the step is skipped.",
    )
    proceed_when = TextPart(
        "config.proceedWhen",
        code=True,
        label="Goes on when",
        help_text="An expression over result, input and context: exactly true goes on.",
    )
    optional = FlagPart(
        "config.optional", label="Optional", help_text="The app may go past it without a call."
    )
    private = FlagPart(
        "config.private", label="Private", help_text="Its data never goes to the app."
    )
    reversible = YesNoPart(
        "config.reversible",
        default="Default (yes, but no for an API call)",
        label="Reversible",
        help_text="May be run again after it has succeeded.",
    )
    status_endpoint = TextPart(
        "config.status.endpoint",
        code=True,
        label="Status endpoint",
        help_text="Asked after an unknown outcome, before the trigger is sent again.",
    )
    status_method = ChoicePart(
        "config.status.method", _METHODS, default="Default (GET)", label="Status method"
    )
    status_expect = TextPart(
        "config.status.expect",
        code=True,
        label="It has happened when",
        help_text="An expression over result.",
    )
    compensation_endpoint = TextPart(
        "config.compensation.endpoint",
        code=True,
        label="Compensation endpoint",
        help_text="Undoes the step's effect when the execution is cancelled, expires or fails for good.",
    )
    compensation_method = ChoicePart(
        "config.compensation.method",
        _METHODS,
        default="Default (POST)",
        label="Compensation method",
    )
    compensation_request_mapping = JsonPart(
        "config.compensation.requestMapping",
        rows=6,
        label="Compensation mapping (JSON)",
        help_text="Empty: input, result and execution.",
    )

    def __init__(
        self, data: Mapping[str, Any] | None = None, *, step: WorkflowStep, **kwargs: Any
    ) -> None:
        self.step = step
        before = dump_step(step.document())
        super().__init__(data, before=before, revision=step.workflow.revision, **kwargs)

    @property
    def sensitive_paths(self) -> list[str]:
        """What the workflow never shows."""
        return list(
            WorkflowSettings.of(WorkflowDocument("", config=self.step.workflow.config)).sensitive
        )

    def edit(self) -> WorkflowStep:
        revision = self.cleaned_data["seen_revision"]
        row = drafts.update_step(self.step.pk, self.changes(), revision=revision)
        problems = list(self._new_useless(row.document()))
        if problems:
            raise DefinitionError(problems)
        return row

    def schema_and_fields(self) -> tuple[JsonValue, JsonValue]:
        config = self.before.get("config")
        if not isinstance(config, dict):
            return None, None
        return config.get("inputSchema"), config.get("fields")

    def _editors_fields(self) -> tuple[str, ...]:
        return (self.schema_field, "fields_json")

    def _new_useless(self, after: StepDocument) -> Iterator[Problem]:
        """What has no use after the edit and was not so before it: an import's stays as it is."""
        before = set(useless_settings(self.step.document()))
        is_same_mode = after.mode is self.step.document().mode
        for problem in useless_settings(after):
            if not is_same_mode or problem not in before:
                yield problem


class NewWorkflowForm(forms.Form):
    """A new draft: its name, and what it is for."""

    name = TextPart("name", label="Name", required=True)
    description = TextPart("description", rows=3, label="Description")

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if not self.errors:
            try:
                with tried():
                    self.edit()
            except DefinitionError as error:
                for problem in problems_of(error):
                    self.add_error(
                        problem.path if problem.path in self.fields else None, problem.message
                    )
        return cleaned

    def edit(self) -> Workflow:
        """Make the workflow. Raises DefinitionError."""
        entered = {name: self.cleaned_data.get(name) for name in ("name", "description")}
        return drafts.create_workflow(entered)


class NewStepForm(forms.Form):
    """A new last step: what to call it, and what it is."""

    label = TextPart("label", label="Label", required=True)
    type = ChoicePart("type", _words(StepType.values), label="Type", required=True)
    execution_mode = ChoicePart(
        "executionMode",
        _words(StepExecutionMode.values),
        default="Default (client only)",
        label="Execution mode",
    )
    trigger_endpoint = TextPart(
        "triggerEndpoint", code=True, label="Endpoint", help_text="For a server mode; may wait."
    )

    def __init__(self, *args: Any, chooses_workflow: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if chooses_workflow:
            self.fields["workflow"] = forms.ModelChoiceField(
                Workflow.objects.active(), widget=forms.Select({"class": "hr-input"})
            )
            self.order_fields(["workflow"])

    def fields_of_step(self) -> JsonObject:
        """What was entered, as a step of the document."""
        parts = {name: part for name, part in self.fields.items() if isinstance(part, Part)}
        entered = {part.path[0]: self.cleaned_data.get(name) for name, part in parts.items()}
        return {key: value for key, value in entered.items() if value is not None}


for _name, _part in retry_parts("final_retry", "config.finalApi.retryConfig").items():
    WorkflowForm.base_fields[_name] = _part
for _name, _part in retry_parts("retry", "retryConfig").items():
    StepForm.base_fields[_name] = _part
for _name, _part in retry_parts("compensation_retry", "config.compensation.retryConfig").items():
    StepForm.base_fields[_name] = _part


def _is_identical(one: JsonValue, other: JsonValue) -> bool:
    """As text: to Python, true is 1 and 1.0 as well, and the order of keys is nothing."""
    return repr(one) == repr(other)
