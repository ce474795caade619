"""The load generator, a process of its own: N phones that walk flows over kept connections.

    python -m bench.phones <plan.json >result.json

One thread and raw sockets, so that it costs little beside the server it drives: a phone is a
generator that yields a call and is sent the answer. A phone begins its next flow when the last one
has ended, or at a fixed pace. Ends after so many flows or seconds, whatever comes first.
"""

import json
import re
import selectors
import socket
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeAlias

Answer: TypeAlias = dict[str, Any]
Call: TypeAlias = tuple[str, bytes]
"""The operation's name for the report, and the request's body."""

Walk: TypeAlias = Generator[Call, Answer, None]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_GIVE_UP_SECONDS = 30.0


class WalkFailed(Exception):
    """An answer that a walk cannot go on from."""


# --- the walks ------------------------------------------------------------------------------------


def walk_transfer(plan: Mapping[str, Any], _number: int) -> Walk:
    """The money transfer: six calls."""
    form, validation, confirmation, transfer = plan["steps"]
    answer = yield _start(plan)
    execution_id = answer["startWorkflowExecution"]["id"]
    details = {"amount": 5000, "recipientAccount": "9876543210", "recipientName": "John Doe"}
    yield _step(plan, "form", execution_id, form, details)
    yield _step(plan, "validation", execution_id, validation, None, timing="BEFORE_STEP")
    yield _step(plan, "confirmation", execution_id, confirmation, {"accepted": True})
    yield _step(plan, "transfer", execution_id, transfer, None)
    yield "complete", _body(plan["operations"]["complete"], executionId=execution_id)


def walk_forms(plan: Mapping[str, Any], _number: int) -> Walk:
    """A start with `context_bytes` of context, and every form, one after the other."""
    pieces = 16
    piece = "x" * (plan["context_bytes"] // pieces)
    context = {f"key{number}": piece for number in range(pieces)}
    answer = yield _start(plan, initialContext=context)
    execution_id = answer["startWorkflowExecution"]["id"]
    for step in plan["steps"]:
        yield _step(plan, "form", execution_id, step, {"amount": 5000})


def walk_async(plan: Mapping[str, Any], _number: int) -> Walk:
    """A start, and one step that is accepted for a worker."""
    answer = yield _start(plan)
    execution_id = answer["startWorkflowExecution"]["id"]
    yield _step(plan, "accept", execution_id, plan["steps"][0], {"amount": 5000})


def walk_empty(plan: Mapping[str, Any], _number: int) -> Walk:
    """Six calls that the floor answers; of the size of the others."""
    body = _step(plan, "empty", "0" * 36, "0" * 36, {"amount": 5000})
    for _ in range(6):
        yield body


def walk_list(plan: Mapping[str, Any], _number: int) -> Walk:
    """One person's list."""
    yield "list", _body(plan["operations"]["user-executions"], userId=plan["person"], limit=20)


def walk_page(_plan: Mapping[str, Any], _number: int) -> Walk:
    """A page of the back office, without a body."""
    yield "page", b""


WALKS: dict[str, Callable[[Mapping[str, Any], int], Walk]] = {
    "transfer": walk_transfer,
    "forms": walk_forms,
    "async": walk_async,
    "empty": walk_empty,
    "list": walk_list,
    "page": walk_page,
}


def _start(plan: Mapping[str, Any], **more: Any) -> Call:
    query = plan["operations"]["start"]
    return "start", _body(query, workflowId=plan["workflow"], pageId="home", **more)


def _step(
    plan: Mapping[str, Any],
    name: str,
    execution_id: str,
    step_id: str,
    value: Any,
    *,
    timing: str = "AFTER_STEP",
) -> Call:
    return name, _body(
        plan["operations"]["execute-step"],
        executionId=execution_id,
        stepId=step_id,
        input=value,
        timing=timing,
    )


def _body(query: str, **variables: Any) -> bytes:
    return json.dumps({"query": query, "variables": variables}).encode()


# --- the phones -----------------------------------------------------------------------------------


class Phone:
    """One kept connection, and the walk it is on."""

    def __init__(self, plan: Mapping[str, Any], number: int) -> None:
        self.number = number
        self.socket = socket.create_connection(tuple(plan["address"]), timeout=_GIVE_UP_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = (
            f"{plan['method']} {plan['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"{plan['headers'][number % len(plan['headers'])]}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._is_api = plan["method"] == "POST"
        self._walk: Walk | None = None
        self._received = b""
        self.name = ""
        self.sent_at = 0.0

    def begin(self, walk: Walk) -> None:
        """Send the walk's first call."""
        self._walk = walk
        self._send(next(walk))

    def receive(self) -> Answer | None:
        """The answer, once it is whole. Raises WalkFailed for one that is not what was hoped for."""
        piece = self.socket.recv(262_144)
        if not piece:
            raise WalkFailed(f"{self.name}: the server closed the line")
        self._received += piece
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return None
        length = _LENGTH.search(head)
        if length is None:
            raise WalkFailed(f"{self.name}: an answer without a length")
        if len(body) < int(length[1]):
            return None
        self._received = b""
        return self._checked(head, body)

    def go_on(self, answer: Answer) -> bool:
        """Send the walk's next call; False when it has ended."""
        assert self._walk is not None
        try:
            self._send(self._walk.send(answer))
        except StopIteration:
            return False
        return True

    def _send(self, call: Call) -> None:
        self.name, body = call
        self.sent_at = time.perf_counter()
        self.socket.sendall(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))

    def _checked(self, head: bytes, body: bytes) -> Answer:
        if not head.startswith(b"HTTP/1.1 200"):
            raise WalkFailed(f"{self.name}: {head[:40]!r} {body[:300]!r}")
        if not self._is_api:
            return {}
        content: Answer = json.loads(body)
        data: Answer = content.get("data") or {}
        for answer in data.values():
            if isinstance(answer, dict) and answer.get("success") is False:
                raise WalkFailed(f"{self.name}: {body[:300]!r}")
        if "errors" in content:
            raise WalkFailed(f"{self.name}: {body[:300]!r}")
        return data


class Crowd:
    """All phones, and what became of their calls."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._plan = plan
        self._walk = WALKS[plan["walk"]]
        self._selector = selectors.DefaultSelector()
        self._idle = deque(Phone(plan, number) for number in range(plan["phones"]))
        for phone in self._idle:
            self._selector.register(phone.socket, selectors.EVENT_READ, phone)
        self._busy = 0
        self._begun = 0
        self.ended = 0
        self.latencies: defaultdict[str, list[float]] = defaultdict(list)
        self.failures: list[str] = []

    def walk(self) -> float:
        """Walk until the plan's end; the seconds it took."""
        started = time.perf_counter()
        last = started + self._plan["seconds"]
        while True:
            now = time.perf_counter()
            if now < last:
                self._begin_due(now - started)
            if not self._busy and (now >= last or self._begun >= self._plan["flows"]):
                return time.perf_counter() - started
            if now > last + _GIVE_UP_SECONDS:
                self.failures.append("flows that had begun did not end in time")
                return time.perf_counter() - started
            for key, _ in self._selector.select(0.002 if self._plan["rate"] else 1.0):
                self._hear(key.data)

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.socket.close()
        self._selector.close()

    def _begin_due(self, elapsed: float) -> None:
        due: float = self._plan["flows"]
        if self._plan["rate"]:
            due = min(due, elapsed * self._plan["rate"] + 1)
        while self._idle and self._begun < int(due):
            phone = self._idle.popleft()
            self._begun += 1
            self._busy += 1
            phone.begin(self._walk(self._plan, phone.number))

    def _hear(self, phone: Phone) -> None:
        try:
            answer = phone.receive()
            if answer is None:
                return
            self.latencies[phone.name].append((time.perf_counter() - phone.sent_at) * 1000)
            if phone.go_on(answer):
                return
            self.ended += 1
        except (WalkFailed, OSError) as failure:
            self.failures.append(str(failure))
            self._selector.unregister(phone.socket)
            phone.socket.close()
            phone = self._replacement(phone)
        self._busy -= 1
        self._idle.append(phone)

    def _replacement(self, phone: Phone) -> Phone:
        fresh = Phone(self._plan, phone.number)
        self._selector.register(fresh.socket, selectors.EVENT_READ, fresh)
        return fresh


def percentiles(latencies: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest, in ms, and how many there were."""
    ordered = sorted(latencies)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 3)

    return {"count": len(ordered), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1)}


def _figures(crowd: Crowd, seconds: float) -> Iterator[tuple[str, Any]]:
    yield "flows", crowd.ended
    yield "seconds", seconds
    yield "failures", len(crowd.failures)
    yield "first_failures", crowd.failures[:3]
    yield "latencies", {name: percentiles(found) for name, found in crowd.latencies.items()}
    yield "cpu_ms", time.process_time() * 1000


def main() -> None:
    crowd = Crowd(json.load(sys.stdin))
    try:
        seconds = crowd.walk()
    finally:
        crowd.close()
    json.dump(dict(_figures(crowd, seconds)), sys.stdout)


if __name__ == "__main__":
    main()
