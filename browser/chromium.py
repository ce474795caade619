"""The browser that tests and pictures are made with: a Chromium that is there already, or none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Playwright, sync_playwright

_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")


class NoBrowser(Exception):
    """There is no Chromium here; the message says where one was looked for."""


def find_chromium(own: str) -> str:
    """CHROMIUM of the environment, else the system's, else Playwright's `own`. Raises NoBrowser."""
    given = os.environ.get("CHROMIUM")
    if given:
        return given
    for name in _PROGRAMS:
        found = shutil.which(name)
        if found:
            return found
    if Path(own).exists():
        return own
    raise NoBrowser(
        "no browser: there is no Chromium on the path, none of Playwright's, and CHROMIUM is not set"
    )


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """A Chromium without a window, until the block ends. Raises NoBrowser."""
    with sync_playwright() as playwright:
        browser = _launched(playwright)
        try:
            yield browser
        finally:
            browser.close()


def _launched(playwright: Playwright) -> Browser:
    # Root has no sandbox to put it into; it opens our own pages only.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(
        executable_path=find_chromium(playwright.chromium.executable_path),
        args=[*arguments, "--disable-dev-shm-usage", "--font-render-hinting=none"],
    )
