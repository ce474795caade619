"""The settings under pytest: development secrets, no `.env` file, and a database of their own.

DATABASE_URL and REDIS_URL of the environment hold here too: that is how one suite runs embedded and
against PostgreSQL and Redis.
"""

import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

os.environ["ENV_FILE"] = ""  # a developer's own settings must not steer the tests
os.environ.setdefault("DEBUG", "1")
if os.environ.get("REDIS_URL") and "PYTEST_XDIST_WORKER" in os.environ:
    # A Redis database for each worker, so that none flushes another's sessions.
    _number = 1 + int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    os.environ["REDIS_URL"] = (
        urlsplit(os.environ["REDIS_URL"])._replace(path=f"/{_number}").geturl()
    )

from config.settings import *  # noqa: F403 - the environment has to be set first
from config.settings import DATABASES

if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A file, because threads that share a database in memory lock each other out instead of
    # waiting.
    _name = f"handrail-test-{os.getpid()}.sqlite3"
    DATABASES["default"]["TEST"] = {"NAME": str(Path(tempfile.gettempdir()) / _name)}
    DATABASES["default"]["OPTIONS"]["init_command"] = (
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
    )

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
