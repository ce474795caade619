"""The demo from its first line to its last: set the stage, walk the flows, stay or end."""

import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from demo import stage as stages
from demo.account import walk_account_opening, walk_cancelled_opening
from demo.bank import Bank
from demo.children import Children
from demo.errors import DemoFailed
from demo.phone import Phone
from demo.stage import PASSWORD, PERSON, USERNAME, Stage
from demo.telling import Telling
from demo.walks import (
    Walk,
    check_effects,
    read_operations,
    walk_bill_payment,
    walk_money_transfer,
)

_WATCH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller chose. `port` of None takes 8000, or a free one when that is taken."""

    root: Path
    folder: Path
    port: int | None
    stays: bool
    given_stores: bool = False


def run(options: Options, tell: Telling, *, environment: Mapping[str, str] | None = None) -> None:
    """Run the demo; returns when it is over and everything came out as it must. Raises DemoFailed.

    A signal that asks to stop raises SystemExit. No child process outlives this call.
    """
    port = stages.choose_port(options.port)
    with stages.held_port(port):
        _run(options, port, tell, environment)


def _run(options: Options, port: int, tell: Telling, environment: Mapping[str, str] | None) -> None:
    started = time.monotonic()
    given = os.environ if environment is None else environment
    with stages.own_folder(options.folder) as folder:
        variables = stages.environment(folder, port, given=given, given_stores=options.given_stores)
        with Children(root=options.root, logs=folder, environment=variables) as children:
            tell.chapter("Handrail", "the demo: one server, one worker, one partner, one phone")
            database = _words_for_stores(folder, variables, given=options.given_stores)
            stage = stages.set_stage(children, port=port, database=database)
            _introduce(stage, tell)
            try:
                _walk(stage, options.root, tell)
            except DemoFailed:
                _check_children(stage)  # the better explanation, where there is one
                raise
            seconds = time.monotonic() - started
            tell.verdict(
                f"Three flows ended COMPLETED, with one effect for each payment, and a fourth was"
                f" cancelled and undone ({seconds:.1f} s).",
                is_good=True,
            )
            if options.stays:
                _invite(stage, tell)
                _stay(stage)


def _words_for_stores(folder: Path, variables: Mapping[str, str], *, given: bool) -> str:
    if not given:
        return f"SQLite in {folder}, sessions too"
    kind = variables["DATABASE_URL"].partition(":")[0]  # the rest may hold a password
    return f"{kind} of DATABASE_URL, sessions {'in Redis' if 'REDIS_URL' in variables else 'too'}"


def _introduce(stage: Stage, tell: Telling) -> None:
    tell.fact("database", stage.database)
    tell.fact("sandbox partner", stage.partner, url=stage.partner)
    tell.fact("server", stage.server, url=stage.server)
    for flow in stage.flows:
        tell.fact("published", f"{flow.name}, version {flow.version}", workflowId=flow.id)


def _walk(stage: Stage, root: Path, tell: Telling) -> None:
    transfer, bill, account = stage.flows
    phone = Phone(stage.server, PERSON, stage.token)
    bank = Bank(stage.partner)
    seed = read_operations(root, "contract/operations")
    ours = read_operations(root, "examples/operations")
    walk_money_transfer(Walk(transfer, phone, bank, seed, ours, tell))
    walk_bill_payment(Walk(bill, phone, bank, seed, ours, tell))
    opening = Walk(account, phone, bank, seed, ours, tell)
    walk_account_opening(opening)
    walk_cancelled_opening(opening)
    check_effects(bank)


def _check_children(stage: Stage) -> None:
    for child in stage.children:
        child.check()


def _invite(stage: Stage, tell: Telling) -> None:
    query = '{"query": "{ workflows { id name steps { id label } } }"}'
    curl = (
        f"curl -s {stage.server}/graphql -H 'Content-Type: application/json' "
        f"-H 'Authorization: Bearer {stage.token}' -d {shlex.quote(query)}"
    )
    tell.chapter("Yours now", "Ctrl-C ends everything")
    tell.fact("GraphiQL", f"{stage.server}/graphql")
    tell.fact("admin", f"{stage.server}/admin/")
    tell.fact("sign-in", f"{USERNAME} / {PASSWORD}", username=USERNAME, password=PASSWORD)
    tell.fact("partner's ledger", f"{stage.partner}/_sandbox/ledger")
    tell.fact(f"token of {PERSON}", stage.token, token=stage.token)
    tell.fact("try", curl, command=curl)


def _stay(stage: Stage) -> NoReturn:
    """Until a signal asks us to stop, or a child ends."""
    while True:
        time.sleep(_WATCH_SECONDS)
        _check_children(stage)
