"""What the benchmark runs: stores, partner and web server, as processes that end with it."""

import base64
import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from bench import usage
from bench.database import Database
from config.testing.servers import private_servers

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 30.0
LIMITLESS = "1000000000/minute"


class BenchFailed(Exception):
    """The benchmark cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Stores:
    """PostgreSQL and Redis; a pid is None where somebody else started the server."""

    database_url: str
    redis_url: str
    superuser_url: str
    postgresql_pid: int | None
    redis_pid: int | None


@dataclass(frozen=True, slots=True)
class Published:
    """A published workflow, and its steps in order."""

    id: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """A running process that listens."""

    pid: int
    port: int
    start_seconds: float = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_ms(self) -> float:
        return usage.cpu_ms(self.pid)


class House:
    """Everything the scenarios need, with one set of keys. `open_house` makes and ends it."""

    def __init__(self, stores: Stores, folder: Path) -> None:
        self.stores = stores
        self.folder = folder
        self.database = Database(stores.superuser_url)
        self._jwt_secret = secrets.token_urlsafe(48)
        self._environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME")},
            "ENV_FILE": "",
            "DEBUG": "0",
            "SECRET_KEY": secrets.token_urlsafe(48),
            "SECURE_SSL": "0",
            "JWT_SECRET": self._jwt_secret,
            "FIELD_ENCRYPTION_KEYS": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            "METRICS_TOKEN": secrets.token_urlsafe(32),
            "DATABASE_URL": stores.database_url,
            "REDIS_URL": stores.redis_url,
            "RATE_LIMIT_USER": LIMITLESS,
            "RATE_LIMIT_ADDRESS": LIMITLESS,
        }

    def token(self, user_id: str, *, scope: str = "") -> str:
        """A bearer token for the length of the benchmark."""
        claims = {"sub": user_id, "scope": scope, "exp": int(time.time()) + 4 * 3600}
        return jwt.encode(claims, self._jwt_secret, algorithm="HS256")

    def manage(self, *arguments: str, **environment: str) -> str:
        """The output of a management command. Raises BenchFailed when it fails."""
        return self._output(["manage.py", *arguments], environment)

    def ask(self, module: str, **environment: str) -> str:
        """The output of a module's `main` in a process with Handrail's settings. Raises BenchFailed."""
        code = f"import django; django.setup(); from {module} import main; main()"
        environment["DJANGO_SETTINGS_MODULE"] = "config.settings"
        return self._output(["-c", code], environment)

    def _output(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={**self._environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            name = " ".join(command[:2])
            raise BenchFailed(f"{name} failed: {done.stderr.strip()[-500:]}")
        return done.stdout

    def publish(self, document: Mapping[str, Any]) -> Published:
        """The document as a new published workflow."""
        file = self.folder / "workflow.json"
        file.write_text(json.dumps(document))
        # Publishing asks only that there is a partner; which one, each server is told.
        told = self.manage(
            *("import_workflow", "--publish", "--new", "--json", str(file)),
            TRIGGER_BASE_URL="http://127.0.0.1:1",
        )
        imported = json.loads(told)[0]
        return Published(imported["id"], tuple(step["id"] for step in imported["steps"]))

    @contextlib.contextmanager
    def partner(self, *, latency_ms: int = 0) -> Iterator[Server]:
        """The sandbox partner."""
        port = free_port()
        command = ["manage.py", "sandbox_partner", "--json", "--port", str(port)]
        command += ["--latency-ms", str(latency_ms)]
        environment = {**self._environment, "DEBUG": "1"}
        with self._running("partner", command, environment) as pid:
            yield _once_up(Server(pid, port), self.folder / "partner.log", _accepts)

    @contextlib.contextmanager
    def web(
        self, partner: Server | None, *, workers: int, threads: int, **settings: str
    ) -> Iterator[Server]:
        """Handrail's server, as `script/server` starts it."""
        environment = {**self._environment, **settings}
        if partner is not None:
            environment["TRIGGER_BASE_URL"] = partner.url
        metrics = self.folder / "metrics"
        if workers > 1:
            metrics.mkdir(exist_ok=True)
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
        with self._served("config.wsgi:application", environment, workers, threads) as server:
            yield server

    @contextlib.contextmanager
    def worker(self, partner: Server, *, threads: int, **settings: str) -> Iterator[int]:
        """A worker for async steps; its process id, once it works."""
        command = ["manage.py", "run_worker", "--threads", str(threads)]
        environment = {**self._environment, "TRIGGER_BASE_URL": partner.url, **settings}
        log = self.folder / "worker.log"
        log.unlink(missing_ok=True)
        with self._running("worker", command, environment) as pid:
            begun = time.monotonic()
            while "worker started" not in log.read_text():
                if time.monotonic() - begun > START_SECONDS or not Path(f"/proc/{pid}").exists():
                    raise BenchFailed(f"no worker: {log.read_text()[-500:].strip()}")
                time.sleep(0.02)
            yield pid

    @contextlib.contextmanager
    def floor(self, *, workers: int, threads: int) -> Iterator[Server]:
        """The empty view under the same server."""
        with self._served("bench.floor:application", self._environment, workers, threads) as server:
            yield server

    @contextlib.contextmanager
    def _served(
        self, application: str, environment: Mapping[str, str], workers: int, threads: int
    ) -> Iterator[Server]:
        port = free_port()
        name = application.partition(".")[0]
        command = [
            *("-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", str(workers), "--blocking-threads", str(threads)),
            *("--backpressure", str(threads * 4), "--backlog", "1024", application),
        ]
        with self._running(name, command, environment) as pid:
            yield _once_up(Server(pid, port), self.folder / f"{name}.log", _is_ready)

    @contextlib.contextmanager
    def _running(
        self, name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> Iterator[int]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process.pid
        finally:
            _end(process)


@contextlib.contextmanager
def open_house() -> Iterator[House]:
    """The stores, migrated; private ones unless DATABASE_URL and REDIS_URL name some."""
    database_url, redis_url = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    with (
        private_servers(postgresql=not database_url, valkey=not redis_url, durable=True) as (
            postgresql,
            valkey,
        ),
        tempfile.TemporaryDirectory(prefix="handrail-bench-") as folder,
    ):
        superuser_url = database_url or ""
        if postgresql is not None:
            database_url = postgresql.url
            superuser_url = database_url.replace("//handrail@", "//postgres@", 1)
        stores = Stores(
            database_url=database_url or "",
            redis_url=valkey.url if valkey else redis_url or "",
            superuser_url=superuser_url,
            postgresql_pid=postgresql.pid if postgresql else None,
            redis_pid=valkey.pid if valkey else None,
        )
        house = House(stores, Path(folder))
        try:
            house.manage("migrate", "--verbosity", "0")
            yield house
        finally:
            house.database.close()


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _once_up(server: Server, log: Path, is_up: Callable[[int], bool]) -> Server:
    """The server when it answers, with the time this took."""
    started = time.monotonic()
    while not is_up(server.port):
        if time.monotonic() - started > START_SECONDS or not Path(f"/proc/{server.pid}").exists():
            raise BenchFailed(f"{log.stem} did not start: {log.read_text()[-500:].strip()}")
        time.sleep(0.02)
    return Server(server.pid, server.port, time.monotonic() - started)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to end, and see to it that nothing of it is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
