"""Gives every page of the back office something to show, and signs people in; tells the pages as JSON.

`House.ask` runs it in Handrail's settings.
"""

import json
import sys

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.test import Client

from browser.more_pages import SUPERUSER, every_page, who_sees_most
from browser.world import make_world
from config import rights
from sandbox.testing import FakePartner


def main() -> None:
    """Make the world of the documentation's pictures among the rows there are."""
    with FakePartner() as partner:
        settings.TRIGGER_BASE_URL = partner.url
        world = make_world(partner, days=0)
        pages = [
            {
                "name": page.name,
                "address": page.address,
                "posted": dict(page.posted),
                "who": who_sees_most(page),
            }
            for page in every_page(world)
        ]
    sessions = {SUPERUSER: _signed_in(world.staff), **_groups()}
    json.dump({"pages": pages, "sessions": sessions}, sys.stdout)


def _groups() -> dict[str, str]:
    """Somebody of each group."""
    sessions = {}
    for name in rights.GROUPS:
        user = User.objects.create_user(name.lower(), is_staff=True)
        user.groups.add(Group.objects.get(name=name))
        sessions[name] = _signed_in(user)
    return sessions


def _signed_in(user: User) -> str:
    """The cookie of a session."""
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value
