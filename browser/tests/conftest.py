"""A signed-in person before a real browser, a partner, and a watch over what the pages do."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import axe_playwright_python
import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, Page, expect
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from browser.chromium import NoBrowser, running_chromium
from browser.watching import Watch
from config import rate_limits
from executions.http_client import HttpClient
from executions.surroundings import get_surroundings
from sandbox.testing import FakePartner
from workflows.connections import forget_connections
from workflows.versions import forget_everything

Theme: TypeAlias = Literal["light", "dark"]
WIDE, NARROW = 1360, 390
PASSWORD = "the password of tests"
_AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
_ASK_AXE = """
(colours) => axe.run({
  resultTypes: ["violations"],
  runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
  rules: {"color-contrast": {enabled: colours}},
}).then((found) => JSON.stringify(found.violations))
"""
_PATIENCE_MS = 15_000
expect.set_options(timeout=_PATIENCE_MS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A Chromium; where there is none, the tests do not run, and the run says so at its end."""
    with pytest.MonkeyPatch.context() as patch:
        # Playwright has a loop running in this thread; the database is never called from in it.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        try:
            with running_chromium() as browser:
                yield browser
        except NoBrowser as error:
            pytest.skip(str(error))


@pytest.fixture
def partner(settings: Settings) -> Iterator[FakePartner]:
    """The sandbox bank, as the default connection."""
    with FakePartner() as partner:
        settings.TRIGGER_BASE_URL = partner.url
        forget_connections()
        yield partner
    forget_connections()
    client = get_surroundings().client
    if isinstance(client, HttpClient):
        client.close()


@pytest.fixture(autouse=True)
def _fresh(settings: Settings) -> Iterator[None]:
    """No rates, closed breakers, no definitions of another test."""
    settings.RATE_LIMIT_USER = settings.RATE_LIMIT_ADDRESS = "1000000/minute"
    settings.RATE_LIMIT_SIGN_IN = "1000/minute"
    rate_limits.forget()
    yield
    rate_limits.forget()
    get_surroundings().breakers.forget()
    forget_everything()


@dataclass(frozen=True, slots=True)
class Screen:
    """One window of a browser, and what it must not do."""

    page: Page
    watch: Watch

    def sign_in(self, name: str, password: str = PASSWORD) -> None:
        """As a person does, by the form."""
        self.page.goto("/admin/login/")
        self.page.get_by_label("Username").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url("**/admin/")

    def violations(self, *, colours: bool = True) -> list[str]:
        """What axe finds serious or critical on the page as it stands; colours are half its work."""
        self.page.evaluate(_AXE)
        found = self.page.evaluate(_ASK_AXE, colours)
        return [
            f"{rule['id']} ({rule['impact']}): {node['target']} {node['html'][:160]}"
            for rule in json.loads(found)
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]


class OpenScreen(Protocol):
    """Opens a window of this width, whose system asks for a theme."""

    def __call__(self, width: int, theme: Theme = ...) -> Screen: ...


@pytest.fixture
def open_screen(chromium: Browser, live_server: LiveServer) -> Iterator[OpenScreen]:
    """Opens windows of a width; at the end none of them may have done what no page may do."""
    opened: list[Screen] = []

    def open_one(width: int, theme: Theme = "light") -> Screen:
        context = chromium.new_context(
            base_url=live_server.url,
            viewport={"width": width, "height": 800},
            reduced_motion="reduce",
            color_scheme=theme,
            accept_downloads=True,
        )
        context.set_default_timeout(_PATIENCE_MS)
        screen = Screen(context.new_page(), Watch.over(context, live_server.url))
        opened.append(screen)
        return screen

    yield open_one
    for screen in opened:
        screen.page.context.close()
    assert [complaint for screen in opened for complaint in screen.watch.complaints] == []


@pytest.fixture
def screen(open_screen: OpenScreen) -> Screen:
    """A window as wide as a laptop's, nobody signed in."""
    return open_screen(WIDE)


@pytest.fixture
def mara(transactional_db: None) -> User:
    """A superuser."""
    return User.objects.create_superuser("mara", password=PASSWORD)
