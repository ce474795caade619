"""People and their apps: each walks one flow, repeats what was not answered, and remembers all of it.

An app does what docs/app-guide.md asks for: one idempotencyKey for one intention, the same again when
the line was lost or the answer is retryable, and on where the server says the person stands.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from chaos.evidence import Story
from chaos.flows import CHECK, CONFIRMATION, DETAILS, TRANSFER
from config.jsonvalues import JsonValue
from executions.tests.servers import (
    CANCEL,
    COMPLETE,
    START,
    STEP,
    Doorstep,
    LineLost,
    Reply,
    send,
)
from workflows.compiled import CompiledWorkflow

PAUSE_SECONDS = (0.05, 0.3)
SHOW = """
query Show($id: ID!) { workflowExecution(id: $id) { status context currentStep { order } } }"""
_ENDS = ("SESSION_EXPIRED", "EXECUTION_ENDED", "STEP_LOCKED")
_NEEDS_ANOTHER_LOOK = ("STEP_OUT_OF_ORDER", "STEPS_INCOMPLETE")
_RETRIED = ("INTERNAL", "SERVICE_UNAVAILABLE", "RATE_LIMITED")
_STATUS_RETRIED = (429, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Door:
    """A port that one of several servers answers at."""

    port: int


@dataclass(frozen=True, slots=True)
class Told:
    """What an app makes of a reply: an answer with any error in it is an error."""

    code: str
    data: Mapping[str, Any]
    is_retryable: bool

    @classmethod
    def by(cls, reply: Reply) -> Self:
        """Raises ValueError, KeyError for what is no GraphQL reply."""
        for error in reply.body.get("errors", []):
            said = error["extensions"]
            code = str(said["code"])
            is_retryable = said.get("retryable") is True or code in _RETRIED
            return cls(code, {}, is_retryable or reply.status in _STATUS_RETRIED)
        (data,) = reply.body["data"].values()
        return cls(data.get("errorCode") or "", data, data.get("retryable") is True)


class GaveUp(Exception):
    """The person has had enough."""


class Ended(Exception):
    """The server said that the flow has ended."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who walks, where, and for how long at most."""

    door: Doorstep
    flows: Sequence[CompiledWorkflow]
    seed: int
    patience_seconds: float
    cancels: float = 0.2
    """So many of all cancel somewhere on the way."""

    def walk(
        self,
        count: int,
        *,
        at_a_time: int,
        first: int = 0,
        on_end: Callable[[Story], None] = lambda _story: None,
    ) -> list[Story]:
        """Let `count` people walk, so many at a time; what each was told.

        People are known by their number, from `first` on.
        """

        def one(number: int) -> Story:
            person = Person(self, number)
            person.walk()
            on_end(person.story)
            return person.story

        with ThreadPoolExecutor(at_a_time, thread_name_prefix="person") as pool:
            return list(pool.map(one, range(first, first + count)))

    def look_at_unended(self, stories: Sequence[Story]) -> None:
        """Let those whose flow has not ended look once more at what it shows."""
        for number, story in enumerate(stories):
            if story.execution_ids and story.told != "COMPLETED":
                Person(self, number, story).look()


class Person:
    """One person, who walks one flow once."""

    def __init__(self, crowd: Crowd, number: int, story: Story | None = None) -> None:
        self._crowd = crowd
        self._random = random.Random(f"{crowd.seed} {number}")
        self._flow = crowd.flows[number % len(crowd.flows)]
        self._deadline = time.monotonic() + crowd.patience_seconds
        self._cancels_before = self._random.choice([TRANSFER, CHECK, CONFIRMATION, 4])
        self.story = story or Story(f"person-{crowd.seed}-{number}")
        self.story.wanted_to_cancel |= self._random.random() < crowd.cancels
        self._number = number
        self._execution_id = next(iter(self.story.execution_ids), "")
        self._refused = 0

    def walk(self) -> None:
        """From the start to an end, or until the patience is over."""
        begun = time.monotonic()
        try:
            self._start()
            index: int | None = DETAILS
            while index is not None:
                index = self._go_on(index)
        except (GaveUp, Ended):
            pass
        finally:
            self.story.last_seconds = time.monotonic() - begun

    def look(self) -> None:
        """Note what the API shows of the context."""
        reply = self._told(lambda: self._send(SHOW))
        if not reply.code:
            self.story.context = reply.data["context"]

    def _start(self) -> None:
        reply = self._told(
            lambda: send(
                self._crowd.door,
                START,
                user_id=self.story.user_id,
                workflowId=self._flow.workflow_id,
                pageId="home",
                initialContext={},
                key="start",
            )
        )
        if reply.code:
            raise GaveUp
        self._execution_id = str(UUID(reply.data["id"]))
        self.story.execution_ids.add(self._execution_id)

    def _go_on(self, index: int) -> int | None:
        """Do what comes at this place; where to go on, None at the end."""
        if self.story.wanted_to_cancel and index >= self._cancels_before:
            self._cancel()
            return None
        if index == len(self._flow.steps):
            return self._complete()
        return self._step(index)

    def _step(self, index: int) -> int | None:
        step = self._flow.steps[index]
        value = self._input(index)
        key = f"step-{index}-{self._refused}"
        reply = self._told(
            lambda: self._send(STEP, stepId=step.id, input=value, timing="AFTER_STEP", key=key)
        )
        if reply.code:
            return self._after_refusal(reply.code, index)
        if index in (DETAILS, CONFIRMATION):
            self.story.acknowledged[step.data_key] = value
        elif index == TRANSFER:
            self.story.results[step.id] = reply.data["result"]
        return index + 1

    def _complete(self) -> int | None:
        reply = self._told(lambda: self._send(COMPLETE, key=f"complete-{self._refused}"))
        if reply.code == "SUBMISSION_FAILED":
            self._refused += 1
            return len(self._flow.steps)
        if reply.code:
            return self._after_refusal(reply.code, len(self._flow.steps))
        self.story.told = "COMPLETED"
        self.story.told_result = reply.data["result"]
        return None

    def _cancel(self) -> None:
        reply = self._told(lambda: self._send(CANCEL, reason="changed my mind", key="cancel"))
        self.story.told = reply.code or str(reply.data["status"])

    def _after_refusal(self, code: str, index: int) -> int | None:
        """Another key for another try, at the place where the server sees the person."""
        if code in _ENDS:
            self.story.told = code
            raise Ended
        self._refused += 1
        if code not in _NEEDS_ANOTHER_LOOK:
            return index
        shown = self._told(lambda: self._send(SHOW))
        if shown.code:
            raise GaveUp
        current = shown.data["currentStep"]
        place = index if current is None else int(current["order"])
        if place < index and self._flow.steps[place].data_key in self.story.acknowledged:
            # What stands behind a step that has to be made again is only confirmed again.
            self.story.asked_again.append(self._flow.steps[place].data_key)
        return place

    def _input(self, index: int) -> JsonValue:
        if index == DETAILS:
            return {
                "amount": 1 + self._number % 50,
                "recipientAccount": "9876543210",
                "documentNumber": f"D{self._number}",
                "note": f"{self.story.user_id}'s own words",
            }
        return {"accepted": True, "by": self.story.user_id} if index == CONFIRMATION else None

    def _send(self, query: str, **variables: object) -> Reply:
        return send(
            self._crowd.door,
            query,
            user_id=self.story.user_id,
            id=self._execution_id,
            **variables,
        )

    def _told(self, call: Callable[[], Reply]) -> Told:
        """The first answer that is worth listening to. Raises GaveUp when there is none in time."""
        while time.monotonic() < self._deadline:
            try:
                told = Told.by(call())
            except (LineLost, OSError, ValueError, KeyError) as error:
                self._note(type(error).__name__)
            else:
                if told.code:
                    self._note(told.code)
                if not told.is_retryable:
                    return told
            time.sleep(self._random.uniform(*PAUSE_SECONDS))
        raise GaveUp

    def _note(self, code: str) -> None:
        self.story.codes[code] = self.story.codes.get(code, 0) + 1
