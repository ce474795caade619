"""The servers for tests: they serve, they end with their starter, and our pool survives their restart."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from config.testing.servers import ServersUnavailable, private_servers

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = [sys.executable, "-m", "config.testing.servers"]
WITHOUT_URLS = {
    name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}
}

pytestmark = pytest.mark.own_stores

# A process of its own: the settings, and with them the pool, are read once.
ASK = """
import sys
import django
django.setup()
from django.db import OperationalError, connection

for _line in sys.stdin:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        print("answered", flush=True)
    except OperationalError:
        print("away", flush=True)
    finally:
        connection.close()
connection.close_pool()
"""


@pytest.fixture(autouse=True, scope="module")
def _servers_can_run() -> None:
    try:
        with private_servers(postgresql=False):
            pass
    except ServersUnavailable as error:
        pytest.skip(f"the servers' wheels cannot run here: {error}")


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for does not."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_command_gets_both_urls_and_its_exit_code_is_ours() -> None:
    told = (
        "import os; print(os.environ['DATABASE_URL'], os.environ['REDIS_URL']); raise SystemExit(7)"
    )
    ended = subprocess.run(
        [*RUN, sys.executable, "-c", told],
        cwd=ROOT,
        env=WITHOUT_URLS,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ended.returncode == 7
    database, store = ended.stdout.split()
    assert database.startswith("postgres://handrail@/handrail?host=/")
    assert store.startswith("redis://127.0.0.1:")
    assert not Path(database.partition("host=")[2]).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_servers_end_with_their_starter(number: signal.Signals) -> None:
    told = "import os, time; print(os.environ['DATABASE_URL'], flush=True); time.sleep(60)"
    starter = subprocess.Popen(
        [*RUN, sys.executable, "-c", told],
        cwd=ROOT,
        env=WITHOUT_URLS,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    folder = Path(starter.stdout.readline().strip().partition("host=")[2]).parent
    pids: list[int] = json.loads((folder / "pids.json").read_text())
    child = int(
        subprocess.run(
            ["pgrep", "-P", str(starter.pid), "-f", "time.sleep"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert [is_alive(pid) for pid in pids] == [True, True]
    starter.send_signal(number)
    starter.wait(30)
    if number == signal.SIGKILL:
        os.kill(child, signal.SIGKILL)  # which nobody is left to stop
    starter.stdout.close()
    deadline = time.monotonic() + 30
    while (folder.exists() or any(map(is_alive, pids))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [is_alive(pid) for pid in pids] == [False, False]
    assert not folder.exists()


def test_pool_survives_a_restart_and_an_outage_is_told_in_bounded_time() -> None:
    with private_servers(valkey=False, durable=True) as (database, _store):
        assert database is not None
        environment = {
            **WITHOUT_URLS,
            "DATABASE_URL": database.url,
            "DEBUG": "1",
            "ENV_FILE": "",
            "DJANGO_SETTINGS_MODULE": "config.settings",
        }
        asker = subprocess.Popen(
            [sys.executable, "-c", ASK],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def ask() -> str:
            assert asker.stdin is not None
            assert asker.stdout is not None
            asker.stdin.write("\n")
            asker.stdin.flush()
            return asker.stdout.readline().strip()

        try:
            assert ask() == "answered"
            database.stop()
            database.start()
            assert ask() == "answered"
            database.stop()
            began = time.monotonic()
            assert ask() == "away"
            assert time.monotonic() - began < 6
            database.start()
            assert ask() == "answered"
        finally:
            asker.communicate(timeout=20)
