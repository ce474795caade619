"""Signing in to the back office: as often as RATE_LIMIT_SIGN_IN says, per address and per name.

Tries are counted before the password is looked at, right ones too, and a name that nobody has is
counted like any other: a refusal says nothing about who exists. Whoever is signed in tries their own
old password no more often: a session that was left open or stolen must not find it out.
"""

import math
import unicodedata
from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.forms import AuthenticationForm

from config import rate_limits
from config.addresses import client_address


class SignInForm(AuthenticationForm):  # type: ignore[misc]  # Unfold has no types
    """Name and password; `wait_seconds` is how long a refused try has to wait, else None."""

    wait_seconds: int | None = None

    def clean(self) -> dict[str, Any]:
        wait = self._wait()
        if wait is None:
            cleaned: dict[str, Any] = super().clean()
            return cleaned
        self.wait_seconds = max(1, math.ceil(wait))
        raise ValidationError(
            f"There were too many tries to sign in. Please try again in {_words(self.wait_seconds)}.",
            code="throttled",
        )

    def _wait(self) -> float | None:
        name = unicodedata.normalize("NFKC", str(self.data.get("username", ""))).strip().casefold()
        waits = (
            rate_limits.sign_in_wait("address", rate_limits.network(client_address(self.request))),
            rate_limits.sign_in_wait("name", name),
        )
        return max((wait for wait in waits if wait is not None), default=None)


def too_many_passwords(request: HttpRequest) -> str:
    """Count a try of who is signed in to give their old password; the refusal, "" when it may be."""
    wait = rate_limits.sign_in_wait("password", str(request.user.pk))
    if wait is None:
        return ""
    return f"There were too many tries. Please try again in {_words(max(1, math.ceil(wait)))}."


def _words(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    return f"{math.ceil(seconds / 60)} minutes"
