"""Workers and web servers killed at random moments while people walk: every promise still holds.

The kills are drawn from a seed, which a failure prints. `script/chaos` does the same for longer, and
breaks the stores as well.
"""

import os
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest
from pytest_django import Settings

from chaos.checker import check, unsettled
from chaos.evidence import Story
from chaos.fleet import Diary, Fleet, in_background, kill_at_random
from chaos.flows import document
from chaos.gathering import PartnersBook, gather
from chaos.people import Crowd, Door
from executions.tests.phone import published
from executions.tests.servers import WebServer, WorkerProcess, reserved_port
from sandbox.testing import FakePartner
from workflows.connections import forget_connections

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("server_output"),
    pytest.mark.timeout(400),
]

KILLS = 20
PEOPLE_AT_A_TIME = 6
SETTLED_SECONDS = 60


def test_kills_of_workers_and_servers_break_no_promise(settings: Settings) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"CHAOS_SEED={seed}")  # noqa: T201 - pytest shows it beside a failure
    diary, stories = Diary(), list[Story]()
    partner = FakePartner(latency_ms=40, callback_delay_ms=150, callback_pauses=(0.5,) * 120)
    with partner, reserved_port() as port:
        settings.TRIGGER_BASE_URL = partner.url
        forget_connections()
        given: dict[str, Any] = {
            "partner_url": partner.url,
            "lease_seconds": 2,
            "PUBLIC_BASE_URL": f"http://127.0.0.1:{port}",
        }
        book = PartnersBook(partner)
        with (
            Fleet(lambda: WebServer(port=port, threads=8, **given), size=3, diary=diary) as webs,
            Fleet(lambda: WorkerProcess(threads=4, **given), size=3, diary=diary) as workers,
        ):
            crowd = Crowd(
                door=Door(port),
                flows=[published(document(is_durable=durable)) for durable in (False, True)],
                seed=seed,
                patience_seconds=90,
            )

            def walk(stopping: threading.Event) -> None:
                first = 0
                while not stopping.is_set():
                    stories.extend(
                        crowd.walk(PEOPLE_AT_A_TIME, at_a_time=PEOPLE_AT_A_TIME, first=first)
                    )
                    first += PEOPLE_AT_A_TIME

            with in_background(walk):
                kill_at_random(
                    [webs, workers],
                    times=KILLS,
                    every_seconds=(0.1, 0.4),
                    chance=random.Random(seed),
                    is_over=lambda: False,
                )
            quiet = time.monotonic()
            while unsettled(gather(book)) and time.monotonic() < quiet + SETTLED_SECONDS:
                time.sleep(0.5)
            crowd.look_at_unended(stories)
        evidence = gather(book, stories=stories, disturbances=diary.entries)

    assert check(evidence) == []
    assert (diary.count("server"), diary.count("worker")) == (KILLS, KILLS)
    told = Counter(story.told for story in stories)
    print(told, len(evidence.effects), len(evidence.calls))  # noqa: T201
    assert told["COMPLETED"] >= 5, told
