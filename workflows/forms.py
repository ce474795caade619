"""The forms of the admin: they try the edit that saving will make, and show its problems at their fields.

They know no rule: the edit is a call of `drafts.py` or `connections.py`, as from the API and the commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.db import transaction

from workflows.connections import set_connection
from workflows.enums import AuthKind
from workflows.errors import DefinitionError, DraftChanged
from workflows.models import Connection

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
        return path

    def _post_clean(self) -> None:
        """The edit has checked everything; the model's own checks would say it again, worse."""


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
