"""Handrail on a free port over a database that is thrown away, as the pictures see it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import django


@contextmanager
def live_site() -> Iterator[str]:
    """The address of a server whose database has our tables and nothing else, until the block ends.

    Its settings are the tests'. One to a process: Django is set up for it.
    """
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.testing.settings"
    os.environ["DATABASE_URL"] = os.environ["REDIS_URL"] = ""
    # Playwright has a loop running in this thread; what we call in it does not.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    django.setup()
    from django.conf import settings  # noqa: PLC0415 - Django's parts can be imported only now
    from django.contrib.staticfiles.handlers import StaticFilesHandler  # noqa: PLC0415 - the same
    from django.test.testcases import LiveServerThread  # noqa: PLC0415 - the same
    from django.test.utils import get_runner, setup_test_environment  # noqa: PLC0415 - the same

    setup_test_environment()
    settings.BREAKER_COOLDOWN_MS = 3_600_000  # an open breaker is still open in its picture
    runner = get_runner(settings)(verbosity=0, interactive=False)
    databases = runner.setup_databases()
    server = LiveServerThread("127.0.0.1", StaticFilesHandler)
    server.daemon = True
    server.start()
    try:
        server.is_ready.wait()
        if server.error:
            raise server.error
        yield f"http://{server.host}:{server.port}"
    finally:
        server.terminate()
        runner.teardown_databases(databases)
