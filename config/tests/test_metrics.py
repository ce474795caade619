"""Who may see the figures, and that each function counts what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from prometheus_client import REGISTRY

from config import metrics

TOKEN = "a-token-of-enough-characters"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "deployment.md"


@pytest.fixture
def house(settings: Any) -> Client:
    settings.ROOT_URLCONF = "config.tests.house_urls"
    settings.SECURE_SSL_REDIRECT = False
    settings.DEBUG = False
    settings.METRICS_TOKEN = ""
    return Client()


def test_without_a_token_nobody_in_production_sees_them(house: Client) -> None:
    assert house.get("/metrics").status_code == 404


def test_without_a_token_debug_shows_them(house: Client, settings: Any) -> None:
    settings.DEBUG = True
    response = house.get("/metrics")
    assert response.status_code == 200
    assert b"handrail_http_requests_total" in response.content


@pytest.mark.parametrize(
    "given",
    ["", TOKEN, "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"],
)
def test_wrong_token_is_refused_also_in_debug(house: Client, settings: Any, given: str) -> None:
    settings.METRICS_TOKEN = TOKEN
    settings.DEBUG = True
    response = house.get("/metrics", HTTP_AUTHORIZATION=given)
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"


def test_token_opens_them(house: Client, settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN
    assert house.get("/metrics", HTTP_AUTHORIZATION=f"Bearer {TOKEN}").status_code == 200


def test_figures_are_made_fresh_and_shown_although_some_cannot_be(
    house: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DEBUG = True
    monkeypatch.setattr(metrics, "_refreshers", [])

    def away() -> None:
        raise ConnectionError

    metrics.before_each_look(away)
    metrics.before_each_look(lambda: metrics.breaker_changed(connection="fresh", state=2))
    content = house.get("/metrics").content
    assert b'handrail_breaker_state{connection="fresh"} 2.0' in content


@pytest.mark.parametrize(
    ("count", "sample", "labels"),
    [
        (
            lambda: metrics.callback_answered(outcome="ACCEPTED"),
            "handrail_callbacks_total",
            {"outcome": "ACCEPTED"},
        ),
        (
            lambda: metrics.step_executed(
                workflow="w", mode="SERVER_SYNC", outcome="SUCCEEDED", seconds=0.1
            ),
            "handrail_step_runs_total",
            {"workflow": "w", "mode": "SERVER_SYNC", "outcome": "SUCCEEDED"},
        ),
        (
            lambda: metrics.trigger_attempted(connection="bank", outcome="ANSWERED", seconds=0.1),
            "handrail_trigger_attempts_total",
            {"connection": "bank", "outcome": "ANSWERED"},
        ),
        (
            lambda: metrics.execution_started(workflow="w"),
            "handrail_executions_started_total",
            {"workflow": "w"},
        ),
        (
            lambda: metrics.execution_ended(workflow="w", status="COMPLETED"),
            "handrail_executions_ended_total",
            {"workflow": "w", "status": "COMPLETED"},
        ),
        (
            lambda: metrics.session_expired(workflow="w"),
            "handrail_sessions_expired_total",
            {"workflow": "w"},
        ),
        (
            lambda: metrics.request_answered(
                route="graphql", method="BREW", status=405, seconds=0.1
            ),
            "handrail_http_requests_total",
            {"route": "graphql", "method": "other", "status": "405"},
        ),
    ],
)
def test_counted_once(count: Callable[[], None], sample: str, labels: dict[str, str]) -> None:
    before = REGISTRY.get_sample_value(sample, labels) or 0
    count()
    assert REGISTRY.get_sample_value(sample, labels) == before + 1


def test_page_of_the_docs_names_every_metric() -> None:
    named = PAGE.read_text()
    ours = [one.name for one in REGISTRY.collect() if one.name.startswith("handrail_")]
    assert len(ours) > 10
    assert [name for name in ours if f"`{name}" not in named] == []
