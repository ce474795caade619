"""What every test run tells at its end: on which stores it ran, and which parts could not run."""

from collections import Counter

import pytest
from django.conf import settings
from django.db import connection


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
