"""The phone: GraphQL over HTTP with a bearer token, as an app's client sends it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from demo.errors import DemoFailed

PATIENCE_SECONDS = 20.0


class AnswerLost(Exception):
    """The phone gave up before the answer came: it does not know what became of its call."""


@dataclass(frozen=True, slots=True)
class Phone:
    """One person's phone."""

    server: str
    user_id: str
    token: str
    _session: requests.Session = field(default_factory=requests.Session, init=False, repr=False)

    def __post_init__(self) -> None:
        self._session.trust_env = False  # no proxy of the environment for the loopback

    def send(
        self, operation: str, /, *, gives_up_after: float = PATIENCE_SECONDS, **variables: Any
    ) -> Any:
        """The value of the operation's one root field. Raises AnswerLost, or DemoFailed in words."""
        body = self._exchange(
            {"query": operation, "variables": variables}, gives_up_after=gives_up_after
        )
        if "errors" in body:
            raise DemoFailed(f"The server refused a request: {json.dumps(body['errors'])}.")
        (value,) = body["data"].values()
        return value

    def _exchange(self, body: Mapping[str, Any], *, gives_up_after: float) -> dict[str, Any]:
        try:
            answer = self._session.post(
                f"{self.server}/graphql",
                json=body,
                headers={"Authorization": f"Bearer {self.token}"},
                timeout=(5, gives_up_after),
            )
        except requests.Timeout as error:
            raise AnswerLost from error
        except requests.RequestException as error:
            raise DemoFailed(f"The server does not answer ({type(error).__name__}).") from error
        try:
            found: dict[str, Any] = answer.json()
        except ValueError as error:
            text = f"The server answered {answer.status_code} without JSON."
            raise DemoFailed(text) from error
        return found
