"""Readiness names the part that fails, in bounded time, and collects no threads."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from config import health


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[dict[str, Any]]:
    """A registry of the test's own, and a short patience."""
    settings.ROOT_URLCONF = "config.tests.house_urls"
    settings.SECURE_SSL_REDIRECT = False
    registry: dict[str, Any] = {}
    monkeypatch.setattr(health, "_probes", registry)
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.3)
    yield registry
    monkeypatch.undo()


def broken() -> None:
    raise ConnectionError("redis://user:secret@host is away")


def test_healthz_asks_nobody(probes: dict[str, Any]) -> None:
    health.register_probe("broken", broken)
    assert Client().get("/healthz").content == b"ok\n"


@pytest.mark.django_db(transaction=True)
def test_database_is_probed() -> None:
    health._database()


def test_ready_when_every_part_is(probes: dict[str, Any]) -> None:
    health.register_probe("one", lambda: None)
    health.register_probe("two", lambda: False)  # only an exception means that a part is away
    response = Client().get("/readyz")
    assert response.status_code == 200
    assert json.loads(response.content) == {"ready": True, "parts": {"one": "ok", "two": "ok"}}


def test_failing_part_is_named_and_nothing_else_told(probes: dict[str, Any]) -> None:
    health.register_probe("database", lambda: None)
    health.register_probe("session store", broken)
    response = Client().get("/readyz")
    assert response.status_code == 503
    assert json.loads(response.content) == {
        "ready": False,
        "parts": {"database": "ok", "session store": "failed"},
    }


def test_hanging_part_is_a_timeout_and_started_once(probes: dict[str, Any]) -> None:
    let_go = threading.Event()
    started: list[int] = []

    def hang() -> None:
        started.append(1)
        let_go.wait(20)

    health.register_probe("partner", hang)
    began = time.monotonic()
    assert health.run_probes() == {"partner": "timeout"}
    assert health.run_probes() == {"partner": "timeout"}
    assert time.monotonic() - began < 2
    assert started == [1]
    let_go.set()
    deadline = time.monotonic() + 5
    while health._hanging and time.monotonic() < deadline:
        time.sleep(0.01)
    assert health.run_probes() == {"partner": "ok"}
    assert started == [1, 1]
