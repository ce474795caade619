"""Every page, wide and narrow: nothing serious for axe, no request to others, nothing cut off."""

from collections.abc import Callable

import pytest

from browser.pages import pages_of
from browser.tests.conftest import NARROW, WIDE, Screen
from browser.world import PASSWORD, STAFF, make_world
from sandbox.testing import FakePartner

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

_TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_page_is_usable_by_everybody(
    width: int, open_screen: Callable[[int], Screen], partner: FakePartner
) -> None:
    pages = pages_of(make_world(partner, days=2))
    screen = open_screen(width)
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
