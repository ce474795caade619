"""What a campaign came to, for people and for machines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of everything that was done, and the promises that were broken."""

    seed: int
    minutes: float
    broken: Mapping[str, int]
    people: int
    told: Mapping[str, int]
    executions: Mapping[str, int]
    runs: Mapping[str, int]
    attempts: int
    calls: int
    effects: int
    repeats: Mapping[str, int]
    walk_seconds: Mapping[str, float]
    settled_seconds: float
    violations: Sequence[str]

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    def lines(self) -> list[str]:
        """A Markdown table, and a line for each violation."""
        rows = [
            ("seed", str(self.seed)),
            ("under load and broken", f"{self.minutes} min"),
            ("broken", _counts(self.broken)),
            ("people", f"{self.people}: {_counts(self.told)}"),
            ("executions", _counts(self.executions)),
            ("runs", _counts(self.runs)),
            ("partner", f"{self.calls} calls, {self.effects} effects, {self.attempts} attempts"),
            ("what apps met, and repeated", _counts(self.repeats)),
            ("a walk took", _counts(self.walk_seconds) + " s"),
            ("every state was true after", f"{self.settled_seconds} s"),
            ("violations", str(len(self.violations))),
        ]
        table = [f"| {name} | {value} |" for name, value in rows]
        return ["| what | how much |", "|---|---|", *table, *self.violations]


def percentile(values: Sequence[float], share: float) -> float:
    """A measured value such that so many are not above it; 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)


def _counts(counted: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(counted.items())) or "none"
