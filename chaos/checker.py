"""Whether a history keeps Handrail's promises: a pure function from evidence to violations.

Every rule stands alone and names what breaks it, so that a planted lie is told by the rule that it
breaks. The people of a campaign never go back to a step that has succeeded: so a step has one effect,
whatever its visits were.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from chaos.evidence import Attempt, Call, Effect, Evidence, Execution, Run, Story

EXPLAINED_SECONDS = 20.0
"""An attempt without a row began so long, at most, before the disturbance that took its row."""

CLOCK_SECONDS = 0.25
"""Within so much, the partner's and our reading of one moment may differ."""

LIVE = ("PENDING", "IN_PROGRESS")
UNFINISHED = ("QUEUED", "RUNNING", "WAITING")
_MAY_HAVE_ACTED = ("SUCCEEDED", "UNKNOWN", "PARKED", *UNFINISHED)
_NEVER_ASKED = ("SESSION_EXPIRED",)


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One broken promise: which, and where."""

    rule: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.where}: {self.what}"


class Book:
    """The evidence, with what belongs together side by side."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    @cached_property
    def executions(self) -> dict[str, Execution]:
        return {each.id: each for each in self.evidence.executions}

    @cached_property
    def runs_by_id(self) -> dict[str, Run]:
        return {run.id: run for run in self.evidence.runs}

    @cached_property
    def runs_of(self) -> dict[str, list[Run]]:
        found: dict[str, list[Run]] = defaultdict(list)
        for run in sorted(self.evidence.runs, key=lambda run: run.sequence):
            found[run.execution_id].append(run)
        return found

    @cached_property
    def runs_under(self) -> dict[str, list[Run]]:
        found: dict[str, list[Run]] = defaultdict(list)
        for run in sorted(self.evidence.runs, key=lambda run: run.sequence):
            if run.key:
                found[run.key].append(run)
        return found

    @cached_property
    def effects_under(self) -> dict[str, list[Effect]]:
        found: dict[str, list[Effect]] = defaultdict(list)
        for effect in self.evidence.effects:
            found[effect.key].append(effect)
        return found

    @cached_property
    def calls_under(self) -> dict[str, list[Call]]:
        found: dict[str, list[Call]] = defaultdict(list)
        for call in self.evidence.calls:
            found[call.key].append(call)
        return found

    def effects_of(self, run: Run) -> list[Effect]:
        return self.effects_under.get(run.key, []) if run.key else []

    def of_kind(self, execution_id: str, kind: str) -> list[Run]:
        return [run for run in self.runs_of.get(execution_id, []) if run.kind == kind]


Rule = Callable[[Book], Iterator[Violation]]


def check(evidence: Evidence) -> list[Violation]:
    """Every broken promise of a history that has come to rest."""
    book = Book(evidence)
    return sorted(violation for rule in RULES for violation in rule(book))


def unsettled(evidence: Evidence) -> list[Violation]:
    """What still looks as if somebody were at work, or is not undone yet."""
    book = Book(evidence)
    return sorted([*_nothing_under_way(book), *_ended_is_undone(book)])


# --- keys and effects -----------------------------------------------------------------------------


def _one_effect_per_key(book: Book) -> Iterator[Violation]:
    rule = "one effect per key"
    for key, effects in book.effects_under.items():
        if len(effects) > 1:
            yield Violation(rule, key, f"{len(effects)} effects")
    for key, calls in book.calls_under.items():
        if len({(call.path, call.request) for call in calls}) > 1:
            yield Violation(rule, key, "stood for two requests")
        elif any(call.was_refused for call in calls):
            yield Violation(rule, key, "the partner knew it from another request")


def _one_key_per_effect(book: Book) -> Iterator[Violation]:
    """A step, a submission and a compensation each act once in an execution."""
    keys: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for key in book.effects_under:
        for run in book.runs_under.get(key, [])[:1]:
            keys[run.execution_id, run.kind, run.step_id, run.timing, run.compensates].add(key)
    for (execution_id, kind, step_id, *_), found in keys.items():
        if len(found) > 1:
            yield Violation(
                "one key per effect",
                execution_id,
                f"{kind} {step_id} acted under {len(found)} keys",
            )


def _effects_are_recorded(book: Book) -> Iterator[Violation]:
    """Nothing happens at a partner that no row admits."""
    for key, effects in book.effects_under.items():
        runs = book.runs_under.get(key, [])
        if not runs:
            yield Violation("effect has its record", key, f"{effects[0].path}: no run has this key")
        elif runs[-1].status not in _MAY_HAVE_ACTED:
            yield Violation(
                "effect has its record",
                runs[-1].execution_id,
                f"{effects[0].path} was done, the last run says {runs[-1].status}",
            )


def _success_has_effect(book: Book) -> Iterator[Violation]:
    for run in book.evidence.runs:
        if not run.key or run.status != "SUCCEEDED":
            continue
        effects = book.effects_of(run)
        if not effects:
            yield Violation(
                "success has its effect",
                run.execution_id,
                f"{run.kind} {run.id} succeeded, the partner did nothing",
            )
        elif run.result is not None and run.result != effects[0].result and not _is_late(run, book):
            yield Violation(
                "success has its effect",
                run.execution_id,
                f"{run.kind} {run.id} keeps another answer than the partner gave",
            )


def _is_late(run: Run, book: Book) -> bool:
    """Answered by a callback, whose body is not in the book of effects."""
    execution = book.executions.get(run.execution_id)
    return execution is not None and isinstance(run.result, dict) and "verified" in run.result


# --- the end --------------------------------------------------------------------------------------


def _completed_has_proof(book: Book) -> Iterator[Violation]:
    rule = "COMPLETED has its proof"
    for execution in book.evidence.executions:
        if execution.status != "COMPLETED":
            continue
        done = [
            run for run in book.of_kind(execution.id, "SUBMISSION") if run.status == "SUCCEEDED"
        ]
        if len(done) != 1:
            yield Violation(rule, execution.id, f"{len(done)} submissions succeeded")
        elif len(book.effects_of(done[0])) != 1:
            yield Violation(
                rule, execution.id, f"the partner took {len(book.effects_of(done[0]))} submissions"
            )
        succeeded = {
            run.step_id for run in book.of_kind(execution.id, "STEP") if run.status == "SUCCEEDED"
        }
        for step_id in sorted(set(execution.flow.data_keys) - succeeded):
            yield Violation(rule, execution.id, f"step {step_id} has not succeeded")


def _only_completed_submits(book: Book) -> Iterator[Violation]:
    """Whose submission is known to have been taken is COMPLETED."""
    for run in book.evidence.runs:
        if run.kind != "SUBMISSION" or run.status != "SUCCEEDED":
            continue
        execution = book.executions.get(run.execution_id)
        if execution is None or execution.status != "COMPLETED":
            said = "gone" if execution is None else execution.status
            yield Violation("COMPLETED has its proof", run.execution_id, f"submitted, and {said}")


def _undone_once(book: Book) -> Iterator[Violation]:
    rule = "undone once"
    acted: Counter[str] = Counter()
    for run in book.evidence.runs:
        if run.kind != "COMPENSATION":
            continue
        execution = book.executions.get(run.execution_id)
        undone = book.runs_by_id.get(run.compensates)
        if book.effects_of(run):
            acted[run.compensates] += 1
        if execution is None or execution.status not in ("CANCELLED", "FAILED"):
            yield Violation(rule, run.execution_id, "undone, and not ended that way")
        if undone is None or undone.status != "SUCCEEDED":
            yield Violation(rule, run.execution_id, "what was undone had not succeeded")
    for run_id, count in acted.items():
        if count > 1:
            yield Violation(rule, run_id, f"undone {count} times")


def _last_is_undone_first(book: Book) -> Iterator[Violation]:
    rule = "the last is undone first"
    for execution in book.evidence.executions:
        undoing = [
            (run, book.effects_of(run)[0].at, book.runs_by_id[run.compensates])
            for run in book.of_kind(execution.id, "COMPENSATION")
            if run.compensates in book.runs_by_id and book.effects_of(run)
        ]
        for (_, at, undone), (later, later_at, undone_later) in pairwise(undoing):
            if at > later_at:
                yield Violation(rule, execution.id, f"{later.id} did not wait for its turn")
            is_late = undone_later.finished_at > execution.ended_at
            if undone.sequence < undone_later.sequence and not is_late:
                yield Violation(rule, execution.id, f"{later.id} was queued behind an earlier step")


def _ended_is_undone(book: Book) -> Iterator[Violation]:
    """After a cancellation or an expiry, what succeeded is undone, or operators are told."""
    for execution in book.evidence.executions:
        if not _is_undone(execution):
            continue
        undoing = {run.compensates: run for run in book.of_kind(execution.id, "COMPENSATION")}
        for run in book.of_kind(execution.id, "STEP"):
            if run.step_id not in execution.flow.undoable or run.status != "SUCCEEDED":
                continue
            undo = undoing.get(run.id)
            if undo is None:
                yield Violation("ended is undone", execution.id, f"{run.id} stands")
            elif undo.status != "SUCCEEDED" and not undo.needs_attention:
                yield Violation("ended is undone", execution.id, f"{undo.id} is {undo.status}")


def _is_undone(execution: Execution) -> bool:
    if execution.status == "CANCELLED":
        return True
    return execution.status == "FAILED" and execution.error_code != "SUBMISSION_FAILED"


# --- what people were told ------------------------------------------------------------------------


def _one_execution_per_start(book: Book) -> Iterator[Violation]:
    rule = "one execution per start"
    owned: Counter[str] = Counter(each.user_id for each in book.evidence.executions)
    for story in book.evidence.stories:
        if len(story.execution_ids) > 1 or owned[story.user_id] > 1:
            yield Violation(rule, story.user_id, f"{owned[story.user_id]} executions")
        for execution_id in story.execution_ids - set(book.executions):
            yield Violation(rule, story.user_id, f"{execution_id} was told, and is no row")


def _input_is_kept(book: Book) -> Iterator[Violation]:
    """What was acknowledged is submitted or shown, or the execution has truthfully ended."""
    rule = "accepted input is kept"
    for story, execution in _told(book):
        for data_key in story.asked_again:
            yield Violation(rule, execution.id, f"{data_key} was acknowledged, and asked again")
        kept: Mapping[str, object] | None
        if execution.status == "COMPLETED":
            kept = _submitted(execution, book)
        elif execution.status in LIVE:
            kept = story.context
        elif execution.error_code == "SESSION_EXPIRED" and execution.flow.is_durable:
            yield Violation(rule, execution.id, "a durable session was lost")
            continue
        else:
            continue
        for data_key, value in story.acknowledged.items():
            if kept is None or kept.get(data_key) != value:
                yield Violation(rule, execution.id, f"{data_key} is not what was acknowledged")


def _submitted(execution: Execution, book: Book) -> Mapping[str, object] | None:
    for run in book.of_kind(execution.id, "SUBMISSION"):
        for effect in book.effects_of(run):
            if isinstance(effect.body, dict):
                return effect.body
    return None


def _apps_were_told_the_truth(book: Book) -> Iterator[Violation]:
    rule = "apps are told the truth"
    for story, execution in _told(book):
        if story.told in ("COMPLETED", "CANCELLED") and execution.status != story.told:
            yield Violation(rule, execution.id, f"told {story.told}, and is {execution.status}")
        if story.told == "COMPLETED" and execution.result != story.told_result:
            yield Violation(rule, execution.id, "told another result than the record's")
        if execution.status == "CANCELLED" and not story.wanted_to_cancel:
            yield Violation(rule, execution.id, "cancelled, and nobody wanted to")
        succeeded = {
            run.step_id: run.result
            for run in book.of_kind(execution.id, "STEP")
            if run.status == "SUCCEEDED"
        }
        for step_id, result in story.results.items():
            if succeeded.get(step_id, _MISSING) != result:
                yield Violation(rule, execution.id, f"step {step_id} was told otherwise")


_MISSING = object()


def _told(book: Book) -> Iterator[tuple[Story, Execution]]:
    for story in book.evidence.stories:
        for execution_id in story.execution_ids & set(book.executions):
            yield story, book.executions[execution_id]


# --- at rest --------------------------------------------------------------------------------------


def _nothing_under_way(book: Book) -> Iterator[Violation]:
    rule = "every state is true"
    for run in book.evidence.runs:
        if run.status in UNFINISHED:
            yield Violation(rule, run.execution_id, f"{run.kind} {run.id} is {run.status}")
        if run.is_leased:
            yield Violation(rule, run.execution_id, f"{run.kind} {run.id} is held")
        if run.status == "PARKED" and not run.needs_attention:
            yield Violation(rule, run.execution_id, f"{run.id} is parked, and nobody is told")
    for execution in book.evidence.executions:
        if execution.is_leased:
            yield Violation(rule, execution.id, "is held")


# --- attempts -------------------------------------------------------------------------------------


def _attempts_are_recorded(book: Book) -> Iterator[Violation]:
    """A call without its row was taken by something that broke while it was under way."""
    broken = sorted(each.at for each in book.evidence.disturbances)
    for key, calls in book.calls_under.items():
        runs = book.runs_under.get(key, [])
        attempts = [attempt for run in runs for attempt in run.attempts]
        for call in _unmatched(calls, attempts):
            begun = call.received_at - CLOCK_SECONDS
            if not any(begun <= at <= begun + EXPLAINED_SECONDS for at in broken):
                where = runs[-1].execution_id if runs else key
                yield Violation("attempts are recorded", where, f"{call.path}: a call has no row")


def _unmatched(calls: Iterable[Call], attempts: Iterable[Attempt]) -> list[Call]:
    """The calls that no attempt covers, each attempt covering one."""
    left = sorted(attempts, key=lambda attempt: attempt.started_at)
    missing = []
    for call in sorted(calls, key=lambda call: call.received_at):
        for attempt in left:
            begin = attempt.started_at - CLOCK_SECONDS
            end = attempt.started_at + attempt.seconds + CLOCK_SECONDS
            if begin <= call.received_at <= end:
                left.remove(attempt)
                break
        else:
            missing.append(call)
    return missing


RULES: tuple[Rule, ...] = (
    _one_effect_per_key,
    _one_key_per_effect,
    _effects_are_recorded,
    _success_has_effect,
    _completed_has_proof,
    _only_completed_submits,
    _undone_once,
    _last_is_undone_first,
    _ended_is_undone,
    _one_execution_per_start,
    _input_is_kept,
    _apps_were_told_the_truth,
    _nothing_under_way,
    _attempts_are_recorded,
)
