"""The watch sees what it is there for."""

import pytest
from playwright.sync_api import Browser
from pytest_django.live_server_helper import LiveServer

from browser.watching import Watch

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

INLINE = "document.body.append(Object.assign(document.createElement('script'), {text: '1'}))"
MISDEEDS = [
    ("fetch('http://127.0.0.2:9/').catch(() => 0)", "http://127.0.0.2:9/"),
    (INLINE, "Content Security Policy"),
    ("setTimeout(() => { throw new Error('oops') })", "oops"),
    ("console.error('oops')", "error: oops"),
]


@pytest.mark.parametrize(("script", "told"), MISDEEDS)
def test_misdeeds_are_seen(
    script: str, told: str, chromium: Browser, live_server: LiveServer
) -> None:
    context = chromium.new_context(base_url=live_server.url)
    watch = Watch.over(context, live_server.url)
    page = context.new_page()
    page.goto("/admin/login/")
    assert watch.complaints == []
    page.evaluate(f"() => {{ {script} }}")
    page.wait_for_timeout(200)
    context.close()
    assert [told in complaint for complaint in watch.complaints[:1]] == [True]


def test_expected_is_left_out() -> None:
    watch = Watch("localhost:8000")
    watch.expect("400")
    watch._note("error: the server responded with a status of 400")
    watch._note("error: the server responded with a status of 500")
    assert watch.complaints == ["error: the server responded with a status of 500"]
