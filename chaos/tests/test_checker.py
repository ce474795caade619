"""The checker believes a true history, and finds every lie that is planted in it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chaos.checker import RULES, Book, Rule, Violation, check, unsettled
from chaos.evidence import (
    Attempt,
    Call,
    Disturbance,
    Effect,
    Evidence,
    Execution,
    FlowFacts,
    Run,
    Story,
)
from config.jsonvalues import JsonObject

FLOW = FlowFacts(
    data_keys={"form": "details", "pay": "transfer", "check": "check"},
    calling=frozenset({"pay", "check"}),
    undoable=frozenset({"pay", "check"}),
    is_durable=True,
)
DETAILS: JsonObject = {"amount": 5}
PAID: JsonObject = {"transferId": "t"}
CHECKED: JsonObject = {"verified": True}
TAKEN: JsonObject = {"paymentId": "p"}
PAYLOAD: JsonObject = {"details": DETAILS, "transfer": PAID, "check": CHECKED}
COMPENSATION, SUBMISSION, STEP = "COMPENSATION", "SUBMISSION", "STEP"


def run(name: str, execution: str, sequence: int, **changes: Any) -> Run:
    at = float(sequence)
    made = Run(name, execution, STEP, "SUCCEEDED", sequence, attempts=(Attempt(at, 0.5),))
    return replace(made, **changes)


def effect(key: str, path: str, body: JsonObject, result: JsonObject, at: float) -> Effect:
    return Effect(key, path, body, result, at)


def call(key: str, path: str, execution: str, at: float) -> Call:
    return Call(key, path, execution, b"{}", at)


def a_true_history() -> Evidence:
    """Alice has completed, bob has cancelled behind the check."""
    return Evidence(
        executions=(
            Execution("a", "alice", FLOW, "COMPLETED", result=TAKEN),
            Execution("b", "bob", FLOW, "CANCELLED", ended_at=5.0),
        ),
        runs=(
            run("a1", "a", 1, step_id="form", attempts=()),
            run("a2", "a", 2, step_id="pay", key="a-pay", result=PAID),
            run("a3", "a", 4, step_id="check", key="a-check", result=CHECKED),
            run("a4", "a", 6, kind=SUBMISSION, key="a-submit", result=TAKEN),
            run("b1", "b", 1, step_id="form", attempts=()),
            run("b2", "b", 2, step_id="pay", key="b-pay", result=PAID),
            run("b3", "b", 4, step_id="check", key="b-check", result=CHECKED),
            run("b4", "b", 5, kind="CANCELLATION", attempts=()),
            run("b5", "b", 6, kind=COMPENSATION, step_id="check", key="undo-c", compensates="b3"),
            run("b6", "b", 7, kind=COMPENSATION, step_id="pay", key="undo-p", compensates="b2"),
        ),
        effects=(
            effect("a-pay", "/pay", {}, PAID, 2.1),
            effect("a-check", "/check", {}, CHECKED, 4.1),
            effect("a-submit", "/submit", PAYLOAD, TAKEN, 6.1),
            effect("b-pay", "/pay", {}, PAID, 2.1),
            effect("b-check", "/check", {}, CHECKED, 4.1),
            effect("undo-c", "/uncheck", {}, {}, 6.1),
            effect("undo-p", "/unpay", {}, {}, 7.1),
        ),
        calls=(
            call("a-pay", "/pay", "a", 2.1),
            call("a-check", "/check", "a", 4.1),
            call("a-submit", "/submit", "a", 6.1),
            call("b-pay", "/pay", "b", 2.1),
            call("b-check", "/check", "b", 4.1),
            call("undo-c", "/uncheck", "b", 6.1),
            call("undo-p", "/unpay", "b", 7.1),
        ),
        stories=(
            Story(
                "alice",
                {"a"},
                acknowledged={"details": DETAILS},
                results={"pay": PAID},
                told="COMPLETED",
                told_result=TAKEN,
            ),
            Story("bob", {"b"}, results={"pay": PAID}, wanted_to_cancel=True, told="CANCELLED"),
        ),
    )


Lie = Callable[[Evidence], Evidence]


def without(collection: str, index: int) -> Lie:
    def lie(evidence: Evidence) -> Evidence:
        kept = list(getattr(evidence, collection))
        del kept[index]
        return replace(evidence, **{collection: tuple(kept)})

    return lie


def with_more(collection: str, *more: object) -> Lie:
    return lambda evidence: replace(
        evidence, **{collection: (*getattr(evidence, collection), *more)}
    )


def changed(collection: str, index: int, **changes: Any) -> Lie:
    def lie(evidence: Evidence) -> Evidence:
        found = list(getattr(evidence, collection))
        found[index] = replace(found[index], **changes)
        return replace(evidence, **{collection: tuple(found)})

    return lie


def both(*lies: Lie) -> Lie:
    def lie(evidence: Evidence) -> Evidence:
        for each in lies:
            evidence = each(evidence)
        return evidence

    return lie


ALIVE = changed("executions", 0, status="IN_PROGRESS", result=None)
NO_SUBMISSION = both(without("calls", 2), without("effects", 2), without("runs", 3))

LIES: dict[str, tuple[str, Lie]] = {
    "two effects under a key": (
        "one effect per key",
        with_more("effects", effect("a-pay", "/pay", {}, PAID, 3.0)),
    ),
    "one key for two requests": (
        "one effect per key",
        both(
            with_more("calls", replace(call("a-pay", "/pay", "a", 2.2), request=b"[]")),
            changed("runs", 1, attempts=(Attempt(2.0, 0.5), Attempt(2.0, 0.5))),
        ),
    ),
    "a key that the partner refuses": ("one effect per key", changed("calls", 0, was_refused=True)),
    "a second key for a step": (
        "one key per effect",
        both(
            with_more("effects", effect("a-pay-2", "/pay", {}, PAID, 3.1)),
            with_more("calls", call("a-pay-2", "/pay", "a", 3.1)),
            with_more(
                "runs", run("a9", "a", 3, step_id="pay", key="a-pay-2", visit=1, result=PAID)
            ),
        ),
    ),
    "a second key for a submission": (
        "one key per effect",
        both(
            with_more("effects", effect("a-submit-2", "/submit", PAYLOAD, TAKEN, 7.1)),
            with_more("calls", call("a-submit-2", "/submit", "a", 7.1)),
            with_more(
                "runs",
                run("a9", "a", 7, kind=SUBMISSION, status="UNKNOWN", key="a-submit-2", visit=1),
            ),
        ),
    ),
    "an effect that nobody recorded": (
        "effect has its record",
        with_more("effects", effect("ghost", "/pay", {}, PAID, 3.0)),
    ),
    "an effect that the record denies": (
        "effect has its record",
        both(
            changed("runs", 1, status="FAILED"),
            ALIVE,
            NO_SUBMISSION,
            changed("stories", 0, told="", results={}, context={"details": DETAILS}),
        ),
    ),
    "a success without an effect": ("success has its effect", without("effects", 0)),
    "a success with another answer": (
        "success has its effect",
        changed("effects", 0, result={"transferId": "other"}),
    ),
    "COMPLETED without a submission": (
        "COMPLETED has its proof",
        both(NO_SUBMISSION, changed("stories", 0, acknowledged={})),
    ),
    "COMPLETED without a step": (
        "COMPLETED has its proof",
        without("runs", 0),
    ),
    "submitted, and not COMPLETED": (
        "COMPLETED has its proof",
        both(
            ALIVE,
            changed("stories", 0, told="", context={"details": DETAILS}),
        ),
    ),
    "undone, and completed": (
        "undone once",
        both(
            with_more("effects", effect("undo-a", "/unpay", {}, {}, 8.1)),
            with_more("calls", call("undo-a", "/unpay", "a", 8.1)),
            with_more(
                "runs",
                run("a9", "a", 8, kind=COMPENSATION, step_id="pay", key="undo-a", compensates="a2"),
            ),
        ),
    ),
    "undone, and never known to be done": (
        "undone once",
        both(changed("runs", 5, status="UNKNOWN", result=None), changed("stories", 1, results={})),
    ),
    "undone before its turn": ("the last is undone first", changed("effects", 5, at=7.3)),
    "the first undone first": (
        "the last is undone first",
        both(
            changed("runs", 8, sequence=7),
            changed("runs", 9, sequence=6),
            changed("effects", 5, at=7.1),
            changed("effects", 6, at=6.1),
            changed("calls", 5, received_at=6.2),
        ),
    ),
    "cancelled, and not undone": (
        "ended is undone",
        both(without("runs", 9), without("effects", 6), without("calls", 6)),
    ),
    "undoing failed, and nobody is told": (
        "ended is undone",
        both(changed("runs", 9, status="FAILED"), without("effects", 6), without("calls", 6)),
    ),
    "two executions for a start": (
        "one execution per start",
        with_more("executions", Execution("c", "alice", FLOW, "IN_PROGRESS")),
    ),
    "a start that left no row": (
        "one execution per start",
        changed("stories", 1, execution_ids={"b", "never"}),
    ),
    "another input than was acknowledged": (
        "accepted input is kept",
        changed("stories", 0, acknowledged={"details": {"amount": 6}}),
    ),
    "an input that is shown to nobody": (
        "accepted input is kept",
        both(ALIVE, NO_SUBMISSION, changed("stories", 0, told="", context={})),
    ),
    "an input that is asked for again": (
        "accepted input is kept",
        changed("stories", 0, asked_again=["details"]),
    ),
    "a durable session that is lost": (
        "accepted input is kept",
        both(
            changed("executions", 1, status="FAILED", error_code="SESSION_EXPIRED"),
            changed("stories", 1, told="SESSION_EXPIRED"),
        ),
    ),
    "told COMPLETED, and is not": (
        "apps are told the truth",
        both(ALIVE, NO_SUBMISSION, changed("stories", 0, context={"details": DETAILS})),
    ),
    "told another result": (
        "apps are told the truth",
        changed("stories", 0, told_result={"paymentId": "q"}),
    ),
    "cancelled by nobody": (
        "apps are told the truth",
        changed("stories", 1, wanted_to_cancel=False),
    ),
    "a step told otherwise": (
        "apps are told the truth",
        changed("stories", 0, results={"pay": {"transferId": "u"}}),
    ),
    "a run that runs for ever": ("every state is true", changed("runs", 7, status="RUNNING")),
    "a run that waits for ever": ("every state is true", changed("runs", 7, status="WAITING")),
    "a lease of nobody": ("every state is true", changed("executions", 0, is_leased=True)),
    "a run's lease of nobody": ("every state is true", changed("runs", 7, is_leased=True)),
    "parked in silence": (
        "every state is true",
        changed("runs", 7, status="PARKED", needs_attention=False),
    ),
    "an attempt without a row": ("attempts are recorded", changed("runs", 1, attempts=())),
    "an attempt at another time": (
        "attempts are recorded",
        changed("runs", 1, attempts=(Attempt(90.0, 0.5),)),
    ),
    "one row for two attempts": (
        "attempts are recorded",
        with_more("calls", call("a-pay", "/pay", "a", 2.2)),
    ),
}


def rules(violations: list[Violation]) -> set[str]:
    return {violation.rule for violation in violations}


def test_a_true_history_breaks_nothing() -> None:
    assert check(a_true_history()) == []
    assert unsettled(a_true_history()) == []


@pytest.mark.parametrize("lie", LIES)
def test_a_planted_lie_is_found(lie: str) -> None:
    rule, plant = LIES[lie]
    assert rules(check(plant(a_true_history()))) == {rule}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_rule_finds_a_lie(rule: Rule) -> None:
    assert any(list(rule(Book(plant(a_true_history())))) for _, plant in LIES.values())


def test_undone_twice_is_found_by_key_and_by_run() -> None:
    plant = both(
        with_more("effects", effect("undo-p-2", "/unpay", {}, {}, 8.1)),
        with_more("calls", call("undo-p-2", "/unpay", "b", 8.1)),
        with_more(
            "runs",
            run("b7", "b", 8, kind=COMPENSATION, step_id="pay", key="undo-p-2", compensates="b2"),
        ),
    )
    found = rules(check(plant(a_true_history())))
    assert {"one key per effect", "undone once"} <= found


@pytest.mark.parametrize("lie", ["a run that runs for ever", "cancelled, and not undone"])
def test_what_is_not_settled_is_told(lie: str) -> None:
    rule, plant = LIES[lie]
    assert rules(unsettled(plant(a_true_history()))) == {rule}


def test_a_killed_process_may_take_one_attempt_with_it() -> None:
    without_row = changed("runs", 1, attempts=())(a_true_history())
    killed = replace(without_row, disturbances=(Disturbance(2.3, "worker"),))
    assert check(killed) == []
    long_after = replace(without_row, disturbances=(Disturbance(60.0, "worker"),))
    assert rules(check(long_after)) == {"attempts are recorded"}


def test_a_session_that_was_not_durable_may_be_lost() -> None:
    """And what was done is undone."""
    brief = replace(FLOW, is_durable=False)
    plant = both(
        changed("executions", 1, status="FAILED", error_code="SESSION_EXPIRED", flow=brief),
        changed("stories", 1, told="SESSION_EXPIRED", acknowledged={"details": DETAILS}),
        without("runs", 7),
    )
    assert check(plant(a_true_history())) == []


def test_a_doubt_is_a_true_state() -> None:
    """What may have been done is UNKNOWN, and not undone."""
    plant = both(
        changed("runs", 6, status="UNKNOWN", result=None),
        without("runs", 8),
        without("effects", 5),
        without("calls", 5),
    )
    assert check(plant(a_true_history())) == []


def test_a_success_behind_the_end_is_undone_when_it_comes() -> None:
    plant = both(
        LIES["the first undone first"][1],
        changed("runs", 6, finished_at=5.5),
    )
    assert check(plant(a_true_history())) == []
