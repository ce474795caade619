"""The benchmark's own arithmetic: what is counted, and when a goal counts as met."""

import os
import subprocess
import sys

import pytest

from bench import usage
from bench.__main__ import main
from bench.cleanup_process import Watch
from bench.phones import percentiles
from bench.report import Figure, Result

BURN = "import time\nwhile time.process_time() < 0.3: pass"


def test_cpu_of_ended_children_counts() -> None:
    before = usage.cpu_ms(os.getpid())
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert usage.cpu_ms(os.getpid()) - before >= 290


def test_cpu_of_living_grandchildren_counts() -> None:
    code = f"{BURN}\ntime.sleep(60)"
    spawn = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen([sys.executable, "-c", spawn], start_new_session=True) as parent:
        try:
            while usage.cpu_ms(parent.pid) < 290:
                assert parent.poll() is None
        finally:
            os.killpg(parent.pid, 9)
    assert usage.cpu_ms(parent.pid) == 0


def test_a_process_that_is_gone_has_used_nothing() -> None:
    assert usage.cpu_ms(2**22 + 1) == 0
    assert usage.largest_resident_mb(2**22 + 1) == 0


def test_percentiles_are_measured_values() -> None:
    assert percentiles([float(number) for number in range(100, 0, -1)]) == {
        "count": 100,
        "p50": 51.0,
        "p95": 96.0,
        "p99": 100.0,
        "max": 100.0,
    }
    assert percentiles([7.0])["p99"] == 7.0


@pytest.mark.parametrize(
    ("value", "at_least", "verdict"),
    [
        (7.0, False, "stretch"),
        (7.004, False, "stretch"),  # as it is shown
        (7.01, False, "met"),
        (10.0, False, "met"),
        (10.1, False, "MISSED"),
        (10.0, True, "MISSED"),
        (120.0, True, "stretch"),
        (100.0, True, "met"),
    ],
)
def test_verdict_compares_with_both_bounds(value: float, at_least: bool, verdict: str) -> None:
    goal, stretch = (100, 120) if at_least else (10, 7)
    assert Figure("x", value, "", goal, stretch, at_least=at_least).verdict == verdict


@pytest.mark.django_db
def test_rows_count_as_locked_from_the_first_statement_that_does_until_the_commit() -> None:
    watch = Watch()
    for sql in (
        'SELECT "executions_steprun"."id" FROM "executions_steprun"',
        'DELETE FROM "executions_runfigures"',
        'SELECT "id" FROM "executions_workflowexecution" LIMIT 1 FOR UPDATE SKIP LOCKED',
        'DELETE FROM "executions_steprun" WHERE "id" IN (1)',
    ):
        assert watch.statement(lambda *_given: "rows", sql, (), False, {}) == "rows"
    assert (len(watch.lasted_ms), watch.batches, watch.held_ms) == (2, 1, 0.0)
    committed: list[bool] = []
    watch.commit(lambda: committed.append(True))
    assert committed == [True]
    assert watch.held_ms > watch.longest[0] > 0
    held = watch.held_ms
    watch.commit(lambda: None)
    assert watch.held_ms == held


def test_result_is_a_table_and_json() -> None:
    result = Result("flows", [Figure("CPU", 3.456, "ms", 10, 7), Figure("plain", 2000)])
    assert result.lines()[4:6] == [
        "| CPU | 3.46 ms | ≤ 10 | ≤ 7 | stretch |",
        "| plain | 2,000  |  |  |  |",
    ]
    assert result.to_json()["figures"] == {
        "CPU": {"value": 3.456, "unit": "ms", "goal": 10, "stretch": 7, "verdict": "stretch"},
        "plain": {"value": 2000, "unit": ""},
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--phones", "0"],
            "argument --phones: must be a whole number from 1 to 1024; see --help",
        ),
        (["--flow", "x"], "argument --flows: must be a whole number from 1 to 1000000; see --help"),
        (["fast"], "unrecognized arguments: fast; see --help"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"script/bench: {sentence}\n"
