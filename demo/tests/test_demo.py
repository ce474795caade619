"""`manage.py demo` as a person starts it: a process of its own, with servers of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
import requests
from psycopg import sql

import demo.run
from demo import stage
from demo.children import Children
from demo.errors import DemoFailed

ROOT = Path(__file__).resolve().parent.parent.parent
BOUND_SECONDS = 90

pytestmark = pytest.mark.own_stores


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "manage.py", "demo", "--folder", str(folder), *arguments]


def run(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(folder, *arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )


def events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def processes_of(folder: Path) -> list[str]:
    """The command lines that live with this folder's database, by what the kernel says."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        if f"DATABASE_URL=sqlite:///{folder}".encode() in environment and words:
            found.append(words.replace(b"\0", b" ").decode())
    return found


@contextmanager
def staying(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", dict[str, str]]]:
    """A demo that stays, once it invites: its process, and the addresses it printed."""
    process = subprocess.Popen(
        command(folder, "--json"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told: dict[str, str] = {}
    try:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            told[str(event.get("name"))] = str(event.get("text"))
            if event.get("name") == "try":
                break
        yield process, told
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@contextmanager
def starting(folder: Path, *, until: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A demo on its way: its first child runs, or it has told this."""
    with subprocess.Popen(
        command(folder, "--once"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            if until == "first child":
                while not processes_of(folder):
                    time.sleep(0.01)
            else:
                while until.encode() not in process.stdout.readline():
                    assert process.poll() is None
            yield process
        finally:
            process.terminate()


@dataclass(frozen=True)
class FirstRun:
    """A demo that ended by itself, in a folder that was empty."""

    folder: Path
    ended: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    folder = tmp_path_factory.mktemp("demo")
    # Settings of a real Handrail in the environment do not reach the demo.
    ended = run(
        folder, "--once", "--json", DEBUG="0", SECRET_KEY="x", REDIS_URL="redis://127.0.0.1:1/0"
    )
    return FirstRun(folder, ended)


def test_once_walks_every_flow_and_leaves_nothing_behind(first_run: FirstRun) -> None:
    ended = first_run.ended
    assert (ended.returncode, ended.stderr) == (0, "")
    told = events(ended.stdout)
    assert told[-1]["event"] == "verdict"
    assert told[-1]["ok"] is True
    screens = [event["message"] for event in told if event["event"] == "screen"]
    assert "Send 5000 to John Doe?" in screens
    assert "Pay 126.00 USD to City Power from account 1234567890?" in screens
    assert "Open a CURRENT account in EUR for Jane Roe?" in screens
    records = [event["record"] for event in told if event.get("name") == "the record"]
    assert [record["status"] for record in records] == [*["COMPLETED"] * 3, "CANCELLED"]
    assert records[0]["result"] == {
        "amount": 5000,
        "senderAccount": "1234567890",
        "recipientAccount": "9876543210",
        "recipientName": "John Doe",
        "validationToken": "abc123xyz",
    }
    effects = [(event["calls"], event["effects"]) for event in told if "effects" in event]
    assert effects == [(2, 1), *[(1, 1)] * 6]
    rows = [event["row"]["status"] for event in told if "row" in event]
    assert rows == ["Completed"] * 3
    assert processes_of(first_run.folder) == []


def test_the_async_step_is_accepted_waited_for_and_called_back(first_run: FirstRun) -> None:
    told = events(first_run.ended.stdout)
    checks = [one["answer"] for one in told if one.get("label") == "Check Identity"]
    assert [answer["result"]["status"] for answer in checks] == ["QUEUED", "QUEUED"]
    completions = [one["answer"].get("errorCode") for one in told if one.get("label") == "complete"]
    assert completions[-2:] == ["STEPS_PENDING", None]
    (callback,) = [one["callback"] for one in told if "callback" in one]
    assert callback["statuses"] == [200]
    undone = [
        run["status"]
        for one in told
        for run in one.get("record", {}).get("runs", [])
        if run["kind"] == "COMPENSATION"
    ]
    assert undone == ["SUCCEEDED"]


def test_again_it_stays_with_addresses_that_work_until_it_is_told_to_end(
    first_run: FirstRun,
) -> None:
    with staying(first_run.folder) as (process, told):
        assert told["published"].startswith("Account Opening, version ")
        page = requests.get(told["GraphiQL"], headers={"Accept": "text/html"}, timeout=10)
        assert "graphiql" in page.text
        answer = requests.post(
            told["server"] + "/graphql",
            json={"query": "{ workflows { name } }"},
            headers={"Authorization": f"Bearer {told['token of alice']}"},
            timeout=10,
        )
        names = [workflow["name"] for workflow in answer.json()["data"]["workflows"]]
        assert names == ["Account Opening", "Bill Payment", "Money Transfer"]
        curl = subprocess.run(told["try"], shell=True, capture_output=True, text=True, check=True)
        assert len(json.loads(curl.stdout)["data"]["workflows"]) == 3
        assert len(processes_of(first_run.folder)) >= 3
        check_that_a_second_one_is_refused(first_run.folder)
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 128 + signal.SIGHUP
    assert processes_of(first_run.folder) == []


def check_that_a_second_one_is_refused(folder: Path) -> None:
    ended = run(folder, "--once", "--json")
    sentence = f"Another demo is running in {folder}; end it first, or name another --folder."
    assert ended.returncode == 1
    assert events(ended.stdout) == [{"event": "verdict", "text": sentence, "ok": False}]
    assert ended.stderr == f"CommandError: {sentence}\n"


def test_a_child_that_dies_ends_it_with_a_sentence(first_run: FirstRun) -> None:
    with staying(first_run.folder) as (process, _told):
        (pid,) = _pids_of(first_run.folder, "run_worker")
        os.kill(pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1
        assert errors.startswith("CommandError: The worker ended by itself (signal SIGKILL).")
    assert processes_of(first_run.folder) == []


@pytest.mark.parametrize("name", ["server", "worker", "sandbox partner"])
def test_each_child_is_watched(tmp_path: Path, name: str) -> None:
    with Children(root=tmp_path, logs=tmp_path, environment=os.environ) as children:
        running = {
            one: children.start(one, ["sleep", "60"], speaks_to_us=False)
            for one in ("server", "worker", "sandbox partner")
        }
        running[name].process.kill()
        stayed = stage.Stage("", "", "", "", (), tuple(running.values()))
        with pytest.raises(DemoFailed, match=rf"^The {name} ended by itself \(signal SIGKILL\)\.$"):
            demo.run._stay(stayed)


def test_a_demo_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    with starting(tmp_path, until="published") as process:
        assert len(processes_of(tmp_path)) >= 3
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while processes_of(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert processes_of(tmp_path) == []


def _pids_of(folder: Path, word: str) -> list[int]:
    return [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if (process / "cmdline").exists()
        and word.encode() in (process / "cmdline").read_bytes()
        and f"DATABASE_URL=sqlite:///{folder}".encode() in (process / "environ").read_bytes()
    ]


@pytest.mark.parametrize("sign", ["first child", "published"])
def test_ctrl_c_on_the_way_leaves_nothing_behind(tmp_path: Path, sign: str) -> None:
    with starting(tmp_path, until=sign) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (128 + signal.SIGINT, b"")
        assert processes_of(tmp_path) == []


def test_a_stop_that_got_lost_in_a_finalizer_is_asked_for_again(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        _lose_the_first_stop(tmp_path)
    assert stopped.value.code == 128 + signal.SIGTERM


def _lose_the_first_stop(folder: Path) -> None:
    with Children(root=folder, logs=folder, environment={}):
        with suppress(SystemExit):  # as Python does in a finalizer
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)


@pytest.fixture
def given_stores() -> Iterator[dict[str, str]]:
    """A database for the demo beside that of the tests, on the same server."""
    given = os.environ.get("DATABASE_URL", "")
    if not given.startswith("postgres"):
        pytest.skip("needs PostgreSQL: script/test has it in its second pass")
    name = f"demo_{uuid4().hex}"
    with psycopg.connect(given, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        url = urlunsplit(urlsplit(given)._replace(path=f"/{name}"))
        yield {"DATABASE_URL": url, "REDIS_URL": os.environ.get("REDIS_URL", "")}
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_given_stores_are_used(tmp_path: Path, given_stores: dict[str, str]) -> None:
    ended = run(tmp_path, "--once", "--json", "--given-stores", **given_stores)
    assert (ended.returncode, ended.stderr) == (0, "")
    (database,) = [one for one in events(ended.stdout) if one.get("name") == "database"]
    kind = given_stores["DATABASE_URL"].partition(":")[0]
    sessions = "in Redis" if given_stores["REDIS_URL"] else "too"
    assert database["text"] == f"{kind} of DATABASE_URL, sessions {sessions}"
    assert not (tmp_path / "handrail.sqlite3").exists()


def test_without_given_stores_asking_for_them_is_one_sentence(tmp_path: Path) -> None:
    ended = run(tmp_path, "--once", "--given-stores", DATABASE_URL="")
    assert ended.returncode == 1
    assert ended.stderr == (
        "CommandError: --given-stores takes the database from DATABASE_URL; set it.\n"
    )


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run(tmp_path, "--once", "--port", str(port))
    assert ended.returncode == 1
    assert ended.stderr == (
        f"CommandError: Port {port} on 127.0.0.1 is taken; name another one with --port.\n"
    )
    assert ended.stdout == ""


def test_a_port_that_a_starting_demo_holds_is_taken() -> None:
    port = stage.choose_port(None)
    with stage.held_port(port), socket.socket() as server:
        with pytest.raises(DemoFailed, match=f"^Port {port} on 127.0.0.1 is taken"):
            stage.choose_port(port)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", port))
        server.listen()


@pytest.mark.parametrize(
    "arguments", [("--port", "0"), ("--port", "65536"), ("--port", "x"), ("--twice",)]
)
def test_wrong_arguments_are_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = run(tmp_path, *arguments)
    assert ended.returncode == 2
    assert "usage: manage.py demo" in ended.stderr
    assert not (tmp_path / "lock").exists()
