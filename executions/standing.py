"""Where one execution stands right now: its session, decoded, with the compiled version it runs."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from uuid import UUID

from django.conf import settings

from config.jsonvalues import JsonObject, JsonValue, dump_compact
from executions import state
from executions.enums import RunKind, RunStatus
from executions.errors import SessionUnavailable
from executions.ledger import LONGEST_SECONDS
from executions.models import StepRun, session_id_of
from executions.run_data import open_data
from executions.session_store import SessionSnapshot, get_session_store
from executions.state import MarkStatus, PastRun, Progress
from workflows import conditions
from workflows.compiled import CompiledStep, CompiledWorkflow
from workflows.enums import TriggerTiming
from workflows.versions import compiled_version


@dataclass(frozen=True)
class Standing:
    """A consistent picture of one execution, as of `sequence`. Reading the context unseals lazily.

    `arrived` are async results that are in the context here, but not in the session yet: the next
    change takes them in.
    """

    execution_id: UUID
    user_id: str
    compiled: CompiledWorkflow
    started_at: datetime
    sequence: int
    progress: Progress
    context: Mapping[str, JsonValue] = field(repr=False)
    size: int
    arrived: Mapping[str, JsonValue] = field(default_factory=dict, repr=False)

    @property
    def session_id(self) -> str:
        """The name of the session in the store."""
        return session_id_of(self.execution_id)

    @property
    def base_ttl_seconds(self) -> int:
        """The sliding time to live that the workflow or the setting gives."""
        return self.compiled.session_ttl_seconds or settings.SESSION_TTL_SECONDS

    def ttl_seconds(self, now: datetime) -> int:
        """Seconds a session lives when it is renewed now; never past a day after the start."""
        last = self.started_at + timedelta(seconds=LONGEST_SECONDS)
        return max(1, min(self.base_ttl_seconds, int((last - now).total_seconds())))

    def is_skipped(self, index: int) -> bool:
        """Whether the step's `when` is false in the present context."""
        return is_skipped(self.compiled.steps[index], self.context)

    @cached_property
    def next_step(self) -> CompiledStep | None:
        """The step to show next; None when nothing is left to show."""
        steps = self.compiled.steps
        index = state.next_step(self.progress, steps, is_skipped=self.is_skipped)
        return None if index is None else steps[index]

    def state_json(self, progress: Progress) -> JsonObject:
        """The session's state with this progress."""
        return session_state(
            user_id=self.user_id,
            version_id=self.compiled.version_id,
            started_at=self.started_at,
            progress=progress,
        )

    def moved(
        self,
        *,
        sequence: int,
        progress: Progress,
        updates: Mapping[str, JsonValue],
        remove: Collection[str] = (),
    ) -> "Standing":
        """The picture after an update of the session, without reading it again."""
        return replace(
            self,
            sequence=sequence,
            progress=progress,
            context=UpdatedContext(self.context, updates=updates, removed=remove),
        )


class UpdatedContext(Mapping[str, JsonValue]):
    """A context with some keys set and others gone; the rest is still unsealed on access only."""

    def __init__(
        self,
        base: Mapping[str, JsonValue],
        *,
        updates: Mapping[str, JsonValue],
        removed: Collection[str] = (),
    ) -> None:
        self._base = base
        self._updates = updates
        self._removed = frozenset(removed)

    def __getitem__(self, key: str) -> JsonValue:
        if key in self._updates:
            return self._updates[key]
        if key in self._removed:
            raise KeyError(key)
        return self._base[key]

    def __contains__(self, key: object) -> bool:
        return key in self._updates or (key not in self._removed and key in self._base)

    def __iter__(self) -> Iterator[str]:
        yield from self._updates
        gone = self._removed.union(self._updates)
        yield from (key for key in self._base if key not in gone)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def is_skipped(step: CompiledStep, context: Mapping[str, JsonValue]) -> bool:
    """Whether the step's `when` says that it is not for this person."""
    return conditions.is_skipped(step.when, context)


def session_state(
    *, user_id: str, version_id: str, started_at: datetime, progress: Progress
) -> JsonObject:
    """What the session keeps beside the context: whose it is, what it runs, how far it has come."""
    return {
        "user": user_id,
        "version": version_id,
        "started": started_at.timestamp(),
        **progress.to_json(),
    }


def find_standing(execution_id: UUID) -> Standing | None:
    """The picture that the session gives, in one round trip; None when there is no session.

    With async runs under way one query more asks what came of them. Raises SessionUnavailable when
    the store cannot answer or the session cannot be read.
    """
    snapshot = get_session_store().get_context(session_id_of(execution_id))
    return None if snapshot is None else standing_of(execution_id, snapshot)


def standing_of(
    execution_id: UUID, snapshot: SessionSnapshot, *, runs: Iterable[StepRun] | None = None
) -> Standing:
    """The picture that this session gives. Raises SessionUnavailable.

    `runs` are all of the execution's, in their order, for who has them.
    """
    standing = _standing(execution_id, snapshot)
    if state.may_have_outcomes(standing.progress, standing.compiled.steps):
        return _with_outcomes(standing, runs)
    return standing


def _with_outcomes(standing: Standing, runs: Iterable[StepRun] | None) -> Standing:
    """The picture with what workers have found out: the rows know it, the session does not yet."""
    if runs is None:
        of_it = StepRun.objects.filter(execution_id=standing.execution_id, due_at__isnull=False)
        runs = of_it.filter(kind=RunKind.STEP).order_by("sequence")
    begun = [run for run in runs if run.kind == RunKind.STEP and run.due_at is not None]
    progress = state.with_outcomes(standing.progress, map(past_run, begun))
    news = [run for run in begun if _is_news(run, standing.progress, progress)]
    arrived = data_of(news)
    return replace(
        standing,
        progress=progress,
        context=UpdatedContext(standing.context, updates=arrived),
        size=standing.size + sum(len(dump_compact(value)) for value in arrived.values()),
        arrived=arrived,
    )


def _is_news(run: StepRun, before: Progress, after: Progress) -> bool:
    at = (run.step_index or 0, TriggerTiming(run.timing))
    return (
        run.status == RunStatus.SUCCEEDED
        and before.mark(*at).status is not MarkStatus.SUCCEEDED
        and after.mark(*at).status is MarkStatus.SUCCEEDED
        and after.mark(*at).visit == run.visit
    )


def data_of(runs: Iterable[StepRun]) -> JsonObject:
    """What these runs, oldest first, brought into the context. Raises SessionUnavailable."""
    data: JsonObject = {}
    for run in runs:
        data |= open_data(run.sealed_data, owner_id=run.id)
    return data


def past_run(run: StepRun) -> PastRun:
    """What the rules need to know of a step's run."""
    return PastRun(
        step_index=run.step_index or 0,
        timing=TriggerTiming(run.timing),
        visit=run.visit,
        status=RunStatus(run.status),
        error_code=run.error_code,
        started_at=run.started_at,
        finished_at=run.finished_at,
        was_queued=run.due_at is not None,
    )


def _standing(execution_id: UUID, snapshot: SessionSnapshot) -> Standing:
    kept = snapshot.state
    try:
        return Standing(
            execution_id=execution_id,
            user_id=str(kept["user"]),
            compiled=compiled_version(UUID(str(kept["version"]))),
            started_at=datetime.fromtimestamp(float(str(kept["started"])), tz=UTC),
            sequence=snapshot.sequence,
            progress=Progress.from_json(kept),
            context=snapshot.context,
            size=snapshot.size,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SessionUnavailable from error
