"""What a page must not do while somebody uses it: ask another site, break its policy, or stumble."""

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, WebError

_OWN_SCHEMES = frozenset({"data", "blob", "about"})


@dataclass  # without slots: Playwright writes on whom it tells
class Watch:
    """What was seen of all pages of a browser context since it began."""

    site: str
    complaints: list[str] = field(default_factory=list)
    _expected: list[str] = field(default_factory=list)

    @classmethod
    def over(cls, context: BrowserContext, site: str) -> Self:
        """Look at everything that the context does; `site` is the only one it may ask."""
        watch = cls(urlsplit(site).netloc)
        context.on("request", watch._asked)
        context.on("console", watch._told)
        context.on("weberror", watch._stumbled)
        return watch

    def expect(self, text: str) -> None:
        """Leave out what holds this text: a refusal that the test provokes is told in the console."""
        self._expected.append(text)

    def _asked(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in _OWN_SCHEMES and address.netloc != self.site:
            self._note(f"left the site for {request.url}")

    def _told(self, message: ConsoleMessage) -> None:
        # A broken policy is told here as an error, too.
        if message.type in ("error", "warning"):
            self._note(f"{message.type}: {message.text} ({message.location['url']})")

    def _stumbled(self, error: WebError) -> None:
        page: Page | None = error.page
        self._note(f"error: {error.error} ({page.url if page else 'no page'})")

    def _note(self, text: str) -> None:
        if not any(expected in text for expected in self._expected):
            self.complaints.append(text)
