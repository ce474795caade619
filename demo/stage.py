"""Everything that has to stand before a phone can call: partner, database, flows, server, worker.

Each part is made by the command that a newcomer would use, with embedded defaults and a database of
the demo's own: what the environment says of a real Handrail stays outside, but for the stores where
the caller asks for them.
"""

import errno
import fcntl
import json
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from demo.children import Child, Children
from demo.errors import DemoFailed

HOST = "127.0.0.1"
DEFAULT_PORT = 8000
USERNAME = "admin"
PASSWORD = "handrail-demo"  # noqa: S105 - for a server that only this machine reaches
PERSON = "alice"
FLOWS = (
    "examples/money-transfer.json",
    "examples/bill-payment.json",
    "examples/account-opening.json",
)
START_SECONDS = 60.0
STORES = ("DATABASE_URL", "REDIS_URL")

_KEPT_VARIABLES = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_.*|TZ|TMPDIR|TERM|VIRTUAL_ENV|LD_LIBRARY_PATH|PYTHON.*"
)


@dataclass(frozen=True, slots=True)
class Flow:
    """A published workflow: its steps' ids by their labels."""

    id: str
    name: str
    version: int
    steps: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stage:
    """What the walks need, and what a visitor needs afterwards."""

    database: str
    server: str
    partner: str
    token: str
    flows: tuple[Flow, ...]
    children: tuple[Child, ...]


def choose_port(asked: int | None) -> int:
    """The port to serve on: the one asked for, else 8000, else a free one. Raises DemoFailed."""
    if asked is not None:
        if not _is_free(asked):
            raise DemoFailed(f"Port {asked} on {HOST} is taken; name another one with --port.")
        return asked
    return DEFAULT_PORT if _is_free(DEFAULT_PORT) else _free_port()


@contextmanager
def held_port(port: int) -> Iterator[None]:
    """Keep a free port from other demos until the server has it, too.

    The server shares its port with whoever asks for that, so two demos would answer in turns.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((HOST, port))
        yield


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """The folder of database and logs, for one demo at a time. Raises DemoFailed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise DemoFailed(f"{folder} cannot be used: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise DemoFailed(f"{folder} cannot be locked: {error.strerror}.") from error
            sentence = (
                f"Another demo is running in {folder}; end it first, or name another --folder."
            )
            raise DemoFailed(sentence) from error
        yield folder


def environment(
    folder: Path, port: int, *, given: Mapping[str, str], given_stores: bool
) -> dict[str, str]:
    """The environment of the demo's children. Raises DemoFailed when there are no given stores."""
    kept = {name: value for name, value in given.items() if _KEPT_VARIABLES.fullmatch(name)}
    stores = {"DATABASE_URL": f"sqlite:///{folder.resolve() / 'handrail.sqlite3'}"}
    if given_stores:
        stores = {name: given[name] for name in STORES if given.get(name)}
        if "DATABASE_URL" not in stores:
            raise DemoFailed("--given-stores takes the database from DATABASE_URL; set it.")
    return {
        **kept,
        **stores,
        "DEBUG": "1",
        "ENV_FILE": "",
        # Partners post late answers here, so it has to name the port.
        "PUBLIC_BASE_URL": f"http://{HOST}:{port}",
        "PYTHONUNBUFFERED": "1",
    }


def set_stage(children: Children, *, port: int, database: str) -> Stage:
    """Start and make everything; `database` are the words for it. Raises DemoFailed."""
    migrations = _manage(children, "migrations", "migrate", "--verbosity", "0")
    partner = _manage(children, "sandbox partner", "sandbox_partner", "--port", "0", "--json")
    partner_url = _announced_url(partner)
    migrations.output()
    points_at_partner = {"TRIGGER_BASE_URL": partner_url}
    server = _serve(children, port, points_at_partner)
    worker = _work(children, points_at_partner)
    imported = _manage(
        children, "import", "import_workflow", *FLOWS, "--publish", "--json", **points_at_partner
    )
    token = _manage(children, "token", "issue_token", PERSON)
    sign_in = _manage(
        children,
        "sign-in",
        *("createsuperuser", "--noinput", "--username", USERNAME, "--email", "admin@example.com"),
        DJANGO_SUPERUSER_PASSWORD=PASSWORD,
    )
    flows = tuple(_flow(told) for told in json.loads(imported.output()))
    _check_sign_in(sign_in)
    address = f"http://{HOST}:{port}"
    _wait_until_ready(address, server)
    running = (server, worker, partner)
    return Stage(database, address, partner_url, token.output().strip(), flows, running)


def _manage(children: Children, name: str, *arguments: str, **environment: str) -> Child:
    command = [sys.executable, "manage.py", *arguments]
    return children.start(name, command, speaks_to_us=True, environment=environment)


def _serve(children: Children, port: int, environment: Mapping[str, str]) -> Child:
    """The server as script/server runs it, with fewer threads."""
    command = [
        *(sys.executable, "-m", "granian", "--interface", "wsgi", "--host", HOST),
        *("--port", str(port), "--workers", "1", "--blocking-threads", "8"),
        *("--workers-kill-timeout", "5", "config.wsgi:application"),
    ]
    return children.start("server", command, speaks_to_us=False, environment=environment)


def _work(children: Children, environment: Mapping[str, str]) -> Child:
    """The worker for async steps, as in production."""
    command = [sys.executable, "manage.py", "run_worker", "--threads", "4"]
    return children.start("worker", command, speaks_to_us=False, environment=environment)


def _announced_url(partner: Child) -> str:
    line = b"" if partner.process.stdout is None else partner.process.stdout.readline()
    try:
        announced: dict[str, str] = json.loads(line)
    except ValueError:
        partner.process.wait()
        partner.check()
        raise
    return announced["url"]


def _flow(told: Mapping[str, Any]) -> Flow:
    steps = {str(step["label"]): str(step["id"]) for step in told["steps"]}
    return Flow(str(told["id"]), str(told["name"]), int(told["version"]), steps)


def _check_sign_in(command: Child) -> None:
    """The name is taken at every start but the first: then the sign-in is there already."""
    command.process.communicate()
    if command.process.returncode != 0 and "already taken" not in command.log.read_text():
        command.check()


def _wait_until_ready(address: str, server: Child) -> None:
    deadline = time.monotonic() + START_SECONDS
    with requests.Session() as session:
        session.trust_env = False
        while not _is_ready(session, address):
            server.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"The server was not ready after {START_SECONDS:.0f} s.")
            time.sleep(0.1)


def _is_ready(session: requests.Session, address: str) -> bool:
    try:
        return session.get(f"{address}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
