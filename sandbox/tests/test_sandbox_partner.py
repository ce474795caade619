"""The command, run as its user runs it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.credentials import sign
from sandbox.management.commands.sandbox_partner import Command
from sandbox.testing import FakePartner

from .conftest import ORDER, TRANSFER, request

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def command(*arguments: str) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, "manage.py", "sandbox_partner", *arguments],
        cwd=ROOT,
        env={**os.environ, "DEBUG": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_serves_until_it_is_told_to_end(ending: signal.Signals) -> None:
    with command("--port", "0", "--json", "--require", "bearer:t") as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert request(url, "POST", TRANSFER, ORDER, idempotency_key="k").status == 401
        process.send_signal(ending)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")


def test_prints_address_paths_and_magic_values() -> None:
    with command("--port", "0", "--fault-rate", "1", "--seed", "7") as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        url = first.split()[5]
        lines = [first]
        while not lines[-1].startswith("More in"):
            lines.append(process.stdout.readline())
        assert request(url, "GET", "/_sandbox/health").status == 200
    text = "".join(lines)
    assert text.startswith("The sandbox partner listens on http://127.0.0.1:")
    assert "/api/transactions/transfer           * moves money\n" in text
    assert "601 cut_before, 602 cut_after" in text


def test_callbacks_are_signed_with_the_secret_of_the_command_line() -> None:
    options = ("--callback-secret", "s3cret", "--callback-delay-ms", "0")
    with FakePartner() as inbox, command("--port", "0", "--json", *options) as process:
        inbox.answer("/api/inbox", {})
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        headers = {"idempotency_key": "k", "x_callback_url": f"{inbox.url}/api/inbox"}
        assert request(url, "POST", "/api/kyc/checks", {}, **headers).status == 202
        inbox.wait_for_calls(1)
        [call] = inbox.calls()
    signature = call.headers["x-handrail-signature"]
    signed_at = int(signature.split(",")[0].removeprefix("t="))
    assert signature == sign("s3cret", call.body, signed_at=signed_at)


def test_port_taken_is_one_sentence() -> None:
    with FakePartner() as other:
        port = other.url.rpartition(":")[2]
        with command("--port", port) as process:
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert err == (
        f"CommandError: Cannot listen on 127.0.0.1:{port} (Address already in use); "
        "choose another --port.\n"
    )


def test_wrong_usage_ends_the_process_with_2() -> None:
    with command("--port", "65536") as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "must be a whole number between 0 and 65535" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "-1"], "must be a whole number between 0 and 65535"),
        (["--latency-ms", "-1"], "must be a whole number between 0 and 600000"),
        (["--callback-delay-ms", "x"], "must be a whole number between 0 and 600000"),
        (["--fault-rate", "2"], "must be between 0 and 1"),
        (["--fault-rate", "x"], "must be between 0 and 1"),
        (["--require", "magic"], "must be bearer:TOKEN, basic:USER:PASSWORD,"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "sandbox_partner", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
