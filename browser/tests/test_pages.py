"""Every page, wide and light, narrow and dark: nothing serious for axe, no other site, nothing cut off."""

from urllib.parse import urlsplit

import pytest
from django.contrib import admin
from django.urls import resolve

from browser.pages import pages_of
from browser.screenshots import FOLDER, MAX_BYTES
from browser.tests.conftest import NARROW, WIDE, OpenScreen, Theme
from browser.world import PASSWORD, STAFF, make_world
from sandbox.testing import FakePartner

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

_TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_pictures_are_small_and_shown() -> None:
    words = (FOLDER / "README.md").read_text()
    pictures = sorted(FOLDER.glob("*.webp"))
    assert [one.name for one in pictures if one.stat().st_size > MAX_BYTES] == []
    assert [one.name for one in pictures if f"({one.name})" not in words] == []


def own_pages() -> set[str]:
    """The pages of rows that our admin classes serve; a download is no page."""
    return {
        f"{model._meta.app_label}_{model._meta.model_name}_{name}"
        for model, model_admin in admin.site._registry.items()
        for name in getattr(model_admin, "pages", ())
        if name != "download"
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("width", "theme"), [(WIDE, "light"), (NARROW, "dark")])
def test_every_page_is_usable_by_everybody(
    width: int, theme: Theme, open_screen: OpenScreen, partner: FakePartner
) -> None:
    pages = pages_of(make_world(partner, days=2))
    visited = {resolve(urlsplit(each.address).path).url_name for each in pages}
    assert own_pages() - visited == set()
    assert [each.name for each in pages if not (FOLDER / f"{each.name}.webp").exists()] == []
    screen = open_screen(width, theme)  # a theme's colours are the same at every width
    screen.page.goto("/admin/login/")
    found = [f"sign-in: {one}" for one in screen.violations()]
    screen.sign_in(STAFF, PASSWORD)
    for each in pages:
        answer = screen.page.goto(each.address)
        assert answer is not None
        assert (each.name, answer.status) == (each.name, 200)
        if each.press:
            screen.page.get_by_role("button", name=each.press).click()
            screen.page.wait_for_load_state()
        found += [f"{each.name}: {one}" for one in screen.violations()]
        if screen.page.evaluate(_TOO_WIDE) > 0:
            found.append(f"{each.name}: wider than the window")
    assert not found, "\n".join(found)
