"""A person's app at the HTTP door."""

import json
from typing import Any

from django.test import Client
from django.utils import timezone

from config.identity import issue_token
from executions.tests.phone import ROOT

OPERATIONS = {
    path.stem: path.read_text() for path in (ROOT / "contract" / "operations").glob("*.graphql")
}


class App:
    """A person's app: GraphQL over HTTP with a bearer token."""

    def __init__(self, user_id: str, *scopes: str) -> None:
        token = issue_token(user_id, scopes=scopes, ttl_seconds=600, now=timezone.now())
        self.headers = {"Authorization": f"Bearer {token}"}

    def send(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = Client().post(
            "/graphql",
            json.dumps({"query": query, "variables": variables}),
            content_type="application/json",
            headers=self.headers,
        )
        assert answer.status_code == 200, answer.content
        body: dict[str, Any] = answer.json()
        return body

    def data(self, query: str, **variables: Any) -> Any:
        body = self.send(query, **variables)
        assert "errors" not in body, body
        (value,) = body["data"].values()
        return value

    def code(self, query: str, **variables: Any) -> str:
        (error,) = self.send(query, **variables)["errors"]
        code: str = error["extensions"]["code"]
        return code
