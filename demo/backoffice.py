"""The admin as an operator's browser sees it: sign in, and read one row of a list."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

import requests

from demo.errors import DemoFailed

_SECONDS = 10.0
_LIST = "/admin/executions/workflowexecution/"


def read_execution_row(
    server: str, execution_id: str, *, username: str, password: str
) -> dict[str, str]:
    """The columns of the execution's row in the admin's list. Raises DemoFailed."""
    session = requests.Session()
    session.trust_env = False
    try:
        _sign_in(session, server, username=username, password=password)
        page = session.get(server + _LIST, params={"q": execution_id}, timeout=_SECONDS)
        page.raise_for_status()
    except requests.RequestException as error:
        raise DemoFailed(f"The admin does not answer ({error}).") from error
    rows = _RowParser()
    rows.feed(page.text)
    if len(rows.found) != 1 or rows.found[0].get("id") != execution_id:
        raise DemoFailed("The admin's list does not show the execution.")
    return rows.found[0]


def _sign_in(session: requests.Session, server: str, *, username: str, password: str) -> None:
    address = f"{server}/admin/login/"
    session.get(address, timeout=_SECONDS).raise_for_status()
    form = {
        "username": username,
        "password": password,
        "csrfmiddlewaretoken": session.cookies.get("csrftoken", ""),
        "next": _LIST,
    }
    answer = session.post(
        address, data=form, headers={"Referer": address}, timeout=_SECONDS, allow_redirects=False
    )
    if answer.status_code != 302:
        raise DemoFailed(f"{username} cannot sign in to the admin with the password of the demo.")


@dataclass
class _RowParser(HTMLParser):
    """Collects the cells of a list's rows: Django names each by a class `field-<column>`."""

    found: list[dict[str, str]] = field(default_factory=list)
    _column: str | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("td", "th"):
            return
        classes = (dict(attributes).get("class") or "").split()
        named = next((name for name in classes if name.startswith("field-")), None)
        if named is None:
            self._column = None
            if "action-checkbox" in classes:
                self.found.append({})
            return
        self._column = named.removeprefix("field-")
        if not self.found or self._column in self.found[-1]:
            self.found.append({})
        self.found[-1][self._column] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._column = None

    def handle_data(self, data: str) -> None:
        if self._column is not None:
            self.found[-1][self._column] += data.strip()
