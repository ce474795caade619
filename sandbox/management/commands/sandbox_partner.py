"""`manage.py sandbox_partner`: a bank-like partner API to play against."""

import argparse
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from sandbox.callback_sender import USUAL_DELAY_MS
from sandbox.credentials import Requirement, parse_requirement
from sandbox.faults import FaultKind, magic_values
from sandbox.partner import Partner
from sandbox.routes import ROUTES
from sandbox.server import PartnerServer

_MAGIC_ROWS = (
    ("recipientAccount 9876543210", "valid: John Doe, token abc123xyz"),
    ("recipientAccount 0000000000, …1", "validation says no: unknown, closed"),
    ("recipientAccount 0000000002", "validation says no with a 422"),
    ("recipientAccount 0000000003, …4, …5", 'valid is "false", null, absent'),
    ("userAccount 1000000001", "has 100.00, more is refused"),
    ("amount above 1000000", "refused"),
    ("billNumber 2024000042, 2024000099", "overdue with a late fee; paid already"),
    ("documentNumber 0000000000", "the check of a person ends with verified false"),
    ("CCC000000N", "where money moves: status CCC for the first N calls of a key, 0 always"),
    ("1CCC00000N", "the same at validations and lookups"),
)


class Command(BaseCommand):
    """Starts the partner and stays until it is told to end."""

    help = "Runs a partner API to play against: accounts, transfers, bills, and faults on request."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own declaration is no ClassVar

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
        parser.add_argument("--port", type=_port, default=9090, help="0 takes a free one (9090)")
        parser.add_argument(
            "--latency-ms", type=_milliseconds, default=0, help="every answer takes so long (0)"
        )
        parser.add_argument(
            "--fault-rate",
            type=_rate,
            default=0.0,
            help="share of calls that fail by chance, with or without their effect, 0 to 1 (0)",
        )
        parser.add_argument("--seed", type=int, default=0, help="makes the chance repeatable (0)")
        parser.add_argument(
            "--require",
            type=_requirement,
            metavar="KIND:…",
            help="bearer:TOKEN, basic:USER:PASSWORD, api-key:HEADER:VALUE or hmac:SECRET",
        )
        parser.add_argument(
            "--callback-delay-ms",
            type=_milliseconds,
            default=USUAL_DELAY_MS,
            help="a result that is called back comes so long after the 202 (200)",
        )
        parser.add_argument(
            "--callback-secret", metavar="SECRET", help="signs callbacks, as --require hmac:… wants"
        )
        parser.add_argument("--json", action="store_true", help="print one line of JSON, no table")

    def handle(self, *_args: object, **options: Any) -> None:
        partner = Partner(
            requirement=options["require"],
            latency_ms=options["latency_ms"],
            fault_rate=options["fault_rate"],
            seed=options["seed"],
            callback_secret=options["callback_secret"],
            callback_delay_ms=options["callback_delay_ms"],
        )
        host, port = options["host"], options["port"]
        try:
            server = PartnerServer(partner, host=host, port=port)
        except OSError as error:
            # Python adds the address to its text; a name that does not resolve has a negative number.
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or str(error)
            message = f"Cannot listen on {host}:{port} ({reason}); choose another --port."
            raise CommandError(message, returncode=1) from error
        with suppress(KeyboardInterrupt):
            # SIGTERM ends the waiting below just as Ctrl-C does.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            server.start()
            self._announce(server.url, as_json=options["json"])
            while True:
                time.sleep(3600)
        server.stop()

    def _announce(self, url: str, *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps({"url": url}))
        else:
            self.stdout.write("\n".join(_description(url)))
        self.stdout.flush()


def _description(url: str) -> list[str]:
    codes = ", ".join(f"{code} {word}" for code, word in magic_values())
    return [
        f"The sandbox partner listens on {url} (Ctrl-C ends it)",
        "",
        "Paths (* one effect per Idempotency-Key)",
        *(f"  {methods:22} {path:36} {meaning}" for methods, path, meaning in _path_rows()),
        "",
        "Magic values",
        *(f"  {value:36} {meaning}" for value, meaning in _MAGIC_ROWS),
        f"  CCC may also be: {codes}",
        "",
        f"Kinds of faults: {', '.join(FaultKind)}",
        "More in docs/sandbox.md",
    ]


def _path_rows() -> Iterator[tuple[str, str, str]]:
    for route in ROUTES:
        mark = "* " if route.has_effect else ""
        yield "/".join(route.methods), route.path, f"{mark}{route.summary}"
    yield "GET", "/_sandbox/ledger", "what was asked and done (?key=, ?path=)"
    yield "GET", "/_sandbox/effects", "what was done (?key=, ?path=)"
    yield "GET/POST/DELETE", "/_sandbox/faults", "faults on request"
    yield "GET", "/_sandbox/callbacks", "what was called back (?key=, ?path=)"
    yield "GET/POST/DELETE", "/_sandbox/callback-faults", "odd callbacks on request"
    yield "POST", "/_sandbox/reset", "forgets everything"


def _port(text: str) -> int:
    return _number(text, 0, 65_535)


def _milliseconds(text: str) -> int:
    return _number(text, 0, 600_000)


def _number(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"must be a whole number between {least} and {most}")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise argparse.ArgumentTypeError("must be between 0 and 1")
    return rate


def _requirement(text: str) -> Requirement:
    try:
        return parse_requirement(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
