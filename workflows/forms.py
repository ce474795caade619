"""The forms of the admin: they try the edit that saving will make, and show its problems at their fields.

They know no rule: the edit is a call of `drafts.py` or `connections.py`, as from the API and the commands.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.db import transaction

from config.jsonvalues import JsonValue
from workflows import drafts
from workflows.connections import set_connection
from workflows.document_text import read_json
from workflows.documents import as_changes, attribute_at
from workflows.enums import AuthKind
from workflows.errors import DefinitionError, DraftChanged
from workflows.models import Connection, Workflow, WorkflowStep

STEP_FIELDS: Final = (
    "type",
    "label",
    "order",
    "execution_mode",
    "trigger_timing",
    "trigger_endpoint",
    "timeout_ms",
    "retry_config",
    "config",
)


class IndentedJSONField(forms.JSONField):
    """JSON as people edit it: indented, and refused for what an import would be refused for."""

    widget = forms.Textarea(attrs={"rows": 16, "class": "hr-input hr-code", "spellcheck": "false"})

    def to_python(self, value: Any) -> Any:
        if value in self.empty_values:
            return None
        try:
            return read_json(str(value).encode(errors="surrogatepass"))
        except DefinitionError as error:
            raise ValidationError(error.message) from error

    def bound_data(self, data: Any, initial: Any) -> Any:  # noqa: ARG002 - Django's signature
        return forms.fields.InvalidJSONInput(data or "")  # shown again as it was typed

    def prepare_value(self, value: Any) -> Any:
        if value is None or isinstance(value, forms.fields.InvalidJSONInput):
            return value
        return json.dumps(value, ensure_ascii=False, indent=2)


if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[Any]
else:  # generic in its stubs only
    _ModelForm = forms.ModelForm


class _EditForm(_ModelForm):
    """A form whose saving is one function call, `edit`; validation tries it and takes it back."""

    def edit(self) -> Any:
        """Make the edit and return the row. Raises DefinitionError and DraftChanged."""
        raise NotImplementedError

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if not self.errors:
            self._try()
        return cleaned

    def _try(self) -> None:
        try:
            with transaction.atomic():
                self.edit()
                transaction.set_rollback(True)
        except DraftChanged as error:
            self.add_error(None, error.message)
        except DefinitionError as error:
            for problem in error.problems:
                field = self.field_at(problem.path)
                self.add_error(field if field in self.fields else None, str(problem))

    def field_at(self, path: str) -> str:
        """The field that a problem's path leads to."""
        return attribute_at(path)

    def _post_clean(self) -> None:
        """The edit has checked everything; the model's own checks would say it again, worse."""


class _DraftForm(_EditForm):
    """A form on a draft; `seen_revision` is the one that the person has looked at."""

    seen_revision = forms.IntegerField(required=False, widget=forms.HiddenInput, label="")

    def changes(self, *names: str) -> dict[str, JsonValue]:
        """What was entered, as changes to the document."""
        return as_changes({name: self.cleaned_data.get(name) for name in names})


class WorkflowForm(_DraftForm):
    """A draft's name, description and config."""

    config = IndentedJSONField(required=False)

    class Meta:
        model = Workflow
        fields = ("name", "description", "config")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding:  # noqa: SLF001 - Django's documented attribute
            self.initial["seen_revision"] = self.instance.revision

    def edit(self) -> Workflow:
        changes = self.changes("name", "description", "config")
        if self.instance._state.adding:  # noqa: SLF001 - Django's documented attribute
            return drafts.create_workflow(changes)
        revision = self.cleaned_data.get("seen_revision")
        return drafts.update_workflow(self.instance.pk, changes, revision=revision)


class WorkflowStepForm(_DraftForm):
    """One step of a draft; an empty field is not in the document, so that its default holds."""

    retry_config = IndentedJSONField(required=False)
    config = IndentedJSONField(required=False)
    order = forms.IntegerField(
        required=False,
        help_text="Empty for a new last step.",
        widget=forms.NumberInput(attrs={"class": "hr-input"}),
    )

    class Meta:
        model = WorkflowStep
        fields = ("workflow", *STEP_FIELDS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding:  # noqa: SLF001 - Django's documented attribute
            self.initial["seen_revision"] = self.instance.workflow.revision

    def edit(self) -> WorkflowStep:
        changes = self.changes(*STEP_FIELDS)
        if self.instance._state.adding:  # noqa: SLF001 - Django's documented attribute
            return drafts.create_step(self.cleaned_data["workflow"].pk, changes)
        revision = self.cleaned_data.get("seen_revision")
        return drafts.update_step(self.instance.pk, changes, revision=revision)


class ConnectionForm(_EditForm):
    """A partner system. The secrets go in and are never shown again."""

    new_secret = forms.CharField(
        label="Secret",
        required=False,
        strip=False,
        widget=forms.PasswordInput(
            render_value=False, attrs={"class": "hr-input", "autocomplete": "new-password"}
        ),
        help_text="Empty keeps the one there is.",
    )
    new_callback_secret = forms.CharField(
        label="Callback secret",
        required=False,
        strip=False,
        widget=forms.PasswordInput(
            render_value=False, attrs={"class": "hr-input", "autocomplete": "new-password"}
        ),
        help_text="What the partner signs its callbacks with. Empty keeps the one there is; "
        "where there is none, callbacks need no signature.",
    )

    class Meta:
        model = Connection
        fields = ("name", "base_url", "auth_kind", "username", "header_name", "allow_private")

    def edit(self) -> Connection:
        connection, _ = set_connection(
            name=self._entered("name"),
            base_url=self._entered("base_url"),
            auth_kind=AuthKind(self._entered("auth_kind")),
            secret=self.cleaned_data.get("new_secret") or None,
            username=self._entered("username"),
            header_name=self._entered("header_name"),
            allow_private=self._entered("allow_private"),
            callback_secret=self.cleaned_data.get("new_callback_secret") or None,
        )
        return connection

    def field_at(self, path: str) -> str:
        return f"new_{path}" if path in ("secret", "callback_secret") else path

    def _entered(self, name: str) -> Any:
        """What was entered, or what is there where the person may not change it."""
        return self.cleaned_data.get(name, getattr(self.instance, name))
