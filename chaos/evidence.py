"""What is known after a campaign: the rows, the partner's book, and what people's apps were told.

Plain values, so that the checker can be shown any history, true or not. `gathering.py` reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from config.jsonvalues import JsonValue


@dataclass(frozen=True, slots=True)
class FlowFacts:
    """What the checker has to know of a workflow: its steps by id, and what is to be expected."""

    data_keys: Mapping[str, str]
    """Of every step, the root under which its data goes to the final submission."""

    calling: frozenset[str]
    """The steps whose call has an effect at the partner."""

    undoable: frozenset[str]
    """The steps with a compensation."""

    is_durable: bool


@dataclass(frozen=True, slots=True)
class Execution:
    """One row of executions."""

    id: str
    user_id: str
    flow: FlowFacts
    status: str
    error_code: str = ""
    is_leased: bool = False
    result: JsonValue = None
    ended_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One row of attempts: when it began, and how long it took."""

    started_at: float
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One row of runs. `key` is the Idempotency-Key that it sends, "" for none."""

    id: str
    execution_id: str
    kind: str
    status: str
    sequence: int
    step_id: str = ""
    timing: str = ""
    visit: int = 0
    key: str = ""
    compensates: str = ""
    is_leased: bool = False
    needs_attention: bool = False
    result: JsonValue = None
    attempts: tuple[Attempt, ...] = ()
    finished_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Effect:
    """What the partner did under a key, and what it answered."""

    key: str
    path: str
    body: JsonValue
    result: JsonValue
    at: float


@dataclass(frozen=True, slots=True)
class Call:
    """What the partner was asked; `request` is the body without the address for a late answer."""

    key: str
    path: str
    execution_id: str
    request: bytes
    received_at: float
    was_refused: bool = False
    """The partner had been asked something else under this key."""


@dataclass(slots=True)
class Story:
    """What one person's app asked for and was told, the last word included."""

    user_id: str
    execution_ids: set[str] = field(default_factory=set)
    """What its one start was answered with, however often it was repeated."""

    acknowledged: dict[str, JsonValue] = field(default_factory=dict)
    """The inputs that were answered with success, by data key."""

    results: dict[str, JsonValue] = field(default_factory=dict)
    """The results that came with a success, by step id."""

    asked_again: list[str] = field(default_factory=list)
    """Data keys of steps that were acknowledged, and that the server then wanted once more."""

    wanted_to_cancel: bool = False
    told: str = ""
    """COMPLETED, CANCELLED, an error code that ends a flow, or "" when the app gave up."""

    told_result: JsonValue = None
    context: Mapping[str, JsonValue] | None = None
    """What the API shows of an execution that has not ended."""

    codes: dict[str, int] = field(default_factory=dict)
    """How often which refusal or loss of the line was met."""

    last_seconds: float = 0.0
    """How long the whole walk took."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Something that was broken at a moment: why an attempt may have no row."""

    at: float
    what: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known."""

    executions: tuple[Execution, ...] = ()
    runs: tuple[Run, ...] = ()
    effects: tuple[Effect, ...] = ()
    calls: tuple[Call, ...] = ()
    stories: tuple[Story, ...] = ()
    disturbances: tuple[Disturbance, ...] = ()
