"""What every test run tells at its end: on which stores it ran, and which parts could not run.

`--stores-only` leaves out the tests that go the same on every store, for the pass that follows one
on other stores: those that open no database and whose module never speaks of Redis, those that bring
their own (`own_stores`), and the browser's. What is left out is told as deselected.

Long tests go first, so that no process is left alone with one at the end: those that were given more
time than usual, and those with a browser or stores of their own.
"""

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

# How fast a machine is says nothing of what is tested; one that others use too may be very slow.
hypothesis_settings.register_profile(
    "house", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stores-only", action="store_true", help="only tests that other stores may make fail"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--stores-only"):
        left_out = [item for item in items if not _depends_on_stores(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _depends_on_stores(item)]
    items.sort(key=_is_short)


def _is_short(item: pytest.Item) -> bool:
    return not any(map(item.get_closest_marker, ("timeout", "browser", "own_stores")))


def _depends_on_stores(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    if "given_stores" in fixtures:
        return True
    if item.get_closest_marker("browser") or item.get_closest_marker("own_stores"):
        return False
    opens_database = item.get_closest_marker("django_db") is not None or "db" in fixtures
    return opens_database or "transactional_db" in fixtures or _speaks_of_redis(item.path)


@cache
def _speaks_of_redis(module: Path) -> bool:
    return "redis" in module.read_text().lower()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    store = "Redis" if settings.REDIS_URL else "the database"
    terminalreporter.write_line(f"ran on {connection.vendor}, sessions in {store}")
    reasons: Counter[str] = Counter(
        report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in terminalreporter.stats.get("skipped", [])
    )
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"COULD NOT RUN: {count} tests: {reason}", red=True)
