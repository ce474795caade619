import pytest

from config.jsonvalues import JsonValue
from sandbox.faults import (
    Fault,
    FaultEffect,
    FaultKind,
    FaultQueue,
    find_magic,
    make_fault,
    parse_fault,
)


@pytest.mark.parametrize(
    ("kind", "status", "effect"),
    [
        (FaultKind.LATENCY, 200, FaultEffect.BEFORE),
        (FaultKind.STATUS, 503, FaultEffect.NONE),
        (FaultKind.STATUS, 202, FaultEffect.BEFORE),
        (FaultKind.ANSWER, 200, FaultEffect.BEFORE),
        (FaultKind.ANSWER, 409, FaultEffect.NONE),
        (FaultKind.CUT_BEFORE, 200, FaultEffect.NONE),
        (FaultKind.CUT_AFTER, 200, FaultEffect.BEFORE),
        (FaultKind.CUT_MIDDLE, 200, FaultEffect.BEFORE),
        (FaultKind.GARBAGE, 200, FaultEffect.BEFORE),
        (FaultKind.HANG, 200, FaultEffect.NONE),
        (FaultKind.REDIRECT, 302, FaultEffect.NONE),
    ],
)
def test_effect_that_a_kind_has_by_itself(
    kind: FaultKind, status: int, effect: FaultEffect
) -> None:
    assert make_fault(kind, status=status).effect is effect


def test_document_becomes_a_fault() -> None:
    document: JsonValue = {
        "kind": "status",
        "status": 429,
        "retryAfter": "Wed, 21 Oct 2099 07:28:00 GMT",
        "headers": {"X-Reason": "busy"},
        "effect": "before",
    }
    assert parse_fault(document) == Fault(
        kind=FaultKind.STATUS,
        effect=FaultEffect.BEFORE,
        status=429,
        headers=(("X-Reason", "busy"), ("Retry-After", "Wed, 21 Oct 2099 07:28:00 GMT")),
    )


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (None, 'fault: must be an object with a "kind"'),
        ({"status": 503}, 'fault: must be an object with a "kind"'),
        ({"kind": "explode"}, "fault.kind: must be one of latency, status,"),
        ({"kind": "answer_later", "status": 503}, "fault.status: answer_later acknowledges"),
        ({"kind": "answer_later", "effect": "none"}, "fault.effect: answer_later always has one"),
        ({"kind": "hang", "seconds": 3}, "fault.seconds: unknown"),
        ({"kind": "hang", "ms": "3"}, "fault.ms: has the wrong type"),
        ({"kind": "hang", "ms": True}, "fault.ms: has the wrong type"),
        ({"kind": "hang", "ms": 600_001}, "fault.ms: must be between 0 and 600000"),
        ({"kind": "status", "status": 100}, "fault.status: must be between 200 and 599"),
        ({"kind": "huge", "size": 2**40}, "fault.size: must be between 0 and 67108864"),
        ({"kind": "status", "effect": "later"}, "fault.effect: must be one of before, none, after"),
        ({"kind": "status", "effect": "after"}, "fault.effect: only latency and hang"),
        ({"kind": "latency", "effect": "none"}, "fault.effect: latency always has one"),
        ({"kind": "cut_before", "effect": "before"}, "fault.effect: cut_before never has one"),
        ({"kind": "status", "headers": {"A\r\nB": "c"}}, "fault.headers: a name or value"),
        ({"kind": "status", "retryAfter": "1\r\nX: y"}, "fault.headers: a name or value"),
        ({"kind": "redirect", "location": "/\r\nX: y"}, "fault.location: cannot be sent"),
    ],
)
def test_fault_that_makes_no_sense_is_refused(document: JsonValue, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^fault") as caught:
        parse_fault(document)
    assert str(caught.value).startswith(problem)


def test_queue_gives_faults_in_order_as_often_as_asked() -> None:
    queue: FaultQueue[Fault] = FaultQueue()
    queue.add("/api/a", make_fault("garbage"), times=2)
    queue.add("/api/*", make_fault("html"))
    queue.add("/api/b", make_fault("empty"), times=None)

    taken = [queue.take(path) for path in ("/api/a", "/api/a", "/api/a", "/api/a", "/other")]

    kinds = [fault.kind.value if fault else None for fault in taken]
    assert kinds == ["garbage", "garbage", "html", None, None]
    assert queue.documents() == [{"path": "/api/b", "times": None, "kind": "empty"}]
    assert {queue.take("/api/b") for _ in range(3)} == {make_fault("empty")}
    queue.clear()
    assert queue.take("/api/b") is None


@pytest.mark.parametrize("times", [0, -1, 10**7])
def test_queue_refuses_impossible_times(times: int) -> None:
    with pytest.raises(ValueError, match=r"times: must be between 1 and 1000000"):
        FaultQueue[Fault]().add("/api/a", make_fault("garbage"), times=times)


@pytest.mark.parametrize(
    ("number", "has_effect", "expected"),
    [
        ("5030000000", True, (FaultKind.STATUS, 503, 0)),
        ("5030000002", True, (FaultKind.STATUS, 503, 2)),
        ("5030000002", False, None),
        ("1503000002", False, (FaultKind.STATUS, 503, 2)),
        ("1503000002", True, None),
        ("4290000001", True, (FaultKind.STATUS, 429, 1)),
        ("6020000001", True, (FaultKind.CUT_AFTER, 200, 1)),
        ("6100000000", True, (FaultKind.EMPTY, 200, 0)),
        ("6110000000", True, None),
        ("2000000000", True, None),
        ("1234567890", True, None),
        ("9876543210", True, None),
        ("50300000021", True, None),
    ],
)
def test_magic_numbers(
    number: str, has_effect: bool, expected: tuple[FaultKind, int, int] | None
) -> None:
    magic = find_magic(["", number], has_effect=has_effect)
    found = magic and (magic.fault.kind, magic.fault.status, magic.times)
    assert found == expected
