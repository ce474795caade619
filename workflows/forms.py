"""How the admin's forms try the edit that saving will make, and the form of a connection.

They know no rule: the edit is a call of `drafts.py` or `connections.py`, as from the API and the commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django import forms
from django.db import transaction

from workflows.connections import set_connection
from workflows.enums import AuthKind
from workflows.errors import DefinitionError
from workflows.models import Connection

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[Any]
else:  # generic in its stubs only
    _ModelForm = forms.ModelForm


@contextmanager
def tried() -> Iterator[None]:
    """What is done within it is taken back: all that is asked is whether it can be done."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def _secret_field(*, label: str, help_text: str) -> forms.CharField:
    widget = forms.PasswordInput(
        render_value=False, attrs={"class": "hr-input", "autocomplete": "new-password"}
    )
    return forms.CharField(
        label=label, required=False, strip=False, widget=widget, help_text=help_text
    )


class ConnectionForm(_ModelForm):
    """A partner system. The secrets go in and are never shown again."""

    new_secret = _secret_field(label="Secret", help_text="Empty keeps the one there is.")
    new_callback_secret = _secret_field(
        label="Callback secret",
        help_text="What the partner signs its callbacks with. Empty keeps the one there is; "
        "where there is none, callbacks need no signature.",
    )

    class Meta:
        model = Connection
        fields = ("name", "base_url", "auth_kind", "username", "header_name", "allow_private")

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if not self.errors:
            try:
                with tried():
                    self.edit()
            except DefinitionError as error:
                for problem in error.problems:
                    field = self.field_at(problem.path)
                    self.add_error(field if field in self.fields else None, str(problem))
        return cleaned

    def edit(self) -> Connection:
        """Make the edit. Raises DefinitionError."""
        connection, _ = set_connection(
            name=self._entered("name"),
            base_url=self._entered("base_url"),
            auth_kind=AuthKind(self._entered("auth_kind")),
            secret=self.cleaned_data.get("new_secret") or None,
            username=self._entered("username"),
            header_name=self._entered("header_name"),
            allow_private=self._entered("allow_private"),
            callback_secret=self.cleaned_data.get("new_callback_secret") or None,
            only_new=self.instance._state.adding,  # noqa: SLF001 - Django has no public name for it
        )
        return connection

    def field_at(self, path: str) -> str:
        """The field that a problem's path leads to."""
        return f"new_{path}" if path in ("secret", "callback_secret") else path

    def _entered(self, name: str) -> Any:
        """What was entered, or what is there where the person may not change it."""
        return self.cleaned_data.get(name, getattr(self.instance, name))

    def _post_clean(self) -> None:
        """The edit has checked everything; the model's own checks would say it again, worse."""
