"""Takes the pictures of docs/operators/: python -m browser.screenshots [NAME…]

Every page as wide as a laptop, the main ones as wide as a phone, and a few in the dark, too. A picture
over MAX_BYTES, and a page that stumbles or asks another site, fails the command.
"""

from __future__ import annotations

import argparse
import base64
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from playwright.sync_api import Browser, Page

from browser.chromium import NoBrowser, running_chromium
from browser.site import live_site
from browser.watching import Watch

if TYPE_CHECKING:  # it needs Django to be set up
    from browser.pages import BackOfficePage

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "operators"
WIDE, NARROW, HEIGHT = 1360, 390, 800


@dataclass(frozen=True, slots=True)
class _Look:
    """A window, and how the names of its pictures end."""

    width: int
    theme: Literal["light", "dark"]
    ending: str

    def shows(self, page: BackOfficePage) -> bool:
        """Whether the page has a picture like this."""
        if self.theme == "dark":
            return page.is_dark
        return self.width == WIDE or page.is_main


_LOOKS: Final = (
    _Look(WIDE, "light", ""),
    _Look(NARROW, "light", "-narrow"),
    _Look(WIDE, "dark", "-dark"),
)
MAX_BYTES: Final = 80_000
# The quality and the height of a picture; the next one is for pages that are still too large.
_SHAPES: Final = ((55, 2000), (40, 2000), (40, 1400), (30, 1000))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m browser.screenshots", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these pages")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pictures go")
    options = parser.parse_args()
    try:
        with live_site() as site, running_chromium() as browser:
            problems = take_pictures(browser, site, options.folder, frozenset(options.names))
    except NoBrowser as error:
        sys.stderr.write(f"No picture was taken: {error}.\n")
        return 69
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


def take_pictures(browser: Browser, site: str, folder: Path, only: frozenset[str]) -> list[str]:
    """Take them; what was wrong with each."""
    from django.conf import settings  # noqa: PLC0415 - only now is Django set up

    from browser.pages import pages_of  # noqa: PLC0415 - the same
    from browser.world import PASSWORD, STAFF, make_world  # noqa: PLC0415 - the same
    from sandbox.testing import FakePartner  # noqa: PLC0415 - the same

    folder.mkdir(parents=True, exist_ok=True)
    problems = []
    with FakePartner() as partner:
        settings.TRIGGER_BASE_URL = partner.url
        pages = pages_of(make_world(partner, days=30))
        for look in _LOOKS:
            context = browser.new_context(
                base_url=site,
                viewport={"width": look.width, "height": HEIGHT},
                reduced_motion="reduce",
                color_scheme=look.theme,
            )
            watch = Watch.over(context, site)
            page = context.new_page()
            page.goto("/admin/login/")
            if not look.ending and not (only and "sign-in" not in only):
                problems += _take(page, folder / "sign-in.webp")
            page.get_by_label("Username").fill(STAFF)
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Log in").click()
            for each in pages:
                if (only and each.name not in only) or not look.shows(each):
                    continue
                page.goto(each.address)
                if each.press:
                    page.get_by_role("button", name=each.press).click()
                    page.wait_for_load_state()
                problems += _take(page, folder / f"{each.name}{look.ending}.webp")
            context.close()
            problems += watch.complaints
    return problems


def _take(page: Page, file: Path) -> list[str]:
    page.evaluate("document.fonts.ready")
    width = page.viewport_size["width"] if page.viewport_size else WIDE
    wanted, height = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )
    for quality, highest in _SHAPES:
        picture = _picture(page, width, min(height, highest), quality)
        if len(picture) <= MAX_BYTES:
            break
    file.write_bytes(picture)
    problems = []
    if wanted > width:
        problems.append(f"{file.name}: the page is {wanted} px wide, not {width}")
    if len(picture) > MAX_BYTES:
        problems.append(f"{file.name}: {len(picture)} bytes")
    return problems


def _picture(page: Page, width: int, height: int, quality: int) -> bytes:
    # As high as the page: what sticks to an edge of the window stands at the edge of the picture.
    page.set_viewport_size({"width": width, "height": height})
    session = page.context.new_cdp_session(page)
    answer = session.send("Page.captureScreenshot", {"format": "webp", "quality": quality})
    page.set_viewport_size({"width": width, "height": HEIGHT})
    return base64.b64decode(answer["data"])


if __name__ == "__main__":
    sys.exit(main())
