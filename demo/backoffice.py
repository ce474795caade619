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
    """The execution's row in the admin's list, by the columns' headings. Raises DemoFailed."""
    session = requests.Session()
    session.trust_env = False
    try:
        _sign_in(session, server, username=username, password=password)
        page = session.get(server + _LIST, params={"q": execution_id}, timeout=_SECONDS)
        page.raise_for_status()
    except requests.RequestException as error:
        raise DemoFailed(f"The admin does not answer ({error}).") from error
    table = _TableParser()
    table.feed(page.text)
    if len(table.rows) != 1 or execution_id not in table.rows[0].get("execution", ""):
        raise DemoFailed("The admin's list does not show the execution.")
    return table.rows[0]


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
class _TableParser(HTMLParser):
    """Collects the rows of a page's table, each as texts by its columns' headings."""

    rows: list[dict[str, str]] = field(default_factory=list)
    _headings: list[str] = field(default_factory=list)
    _cells: list[list[str]] | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, _attributes: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self._cells = []
        elif tag in ("td", "th") and self._cells is not None:
            self._cells.append([])

    def handle_endtag(self, tag: str) -> None:
        if tag != "tr" or self._cells is None:
            return
        texts = [" ".join(parts) for parts in self._cells]
        if self._headings:
            named = zip(self._headings, texts, strict=True)
            self.rows.append({name: text for name, text in named if name})
        else:
            self._headings = [text.lower() for text in texts]
        self._cells = None

    def handle_data(self, data: str) -> None:
        if self._cells and data.strip():
            self._cells[-1].append(data.strip())
