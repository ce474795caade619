"""Results: figures with their goals, as a table for people or JSON for machines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `goal` and `stretch` are bounds: lower is better unless `at_least`."""

    name: str
    value: float
    unit: str = ""
    goal: float | None = None
    stretch: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        if self.stretch is not None and self._reaches(self.stretch):
            return "stretch"
        return "met" if self._reaches(self.goal) else "MISSED"

    def _reaches(self, bound: float) -> bool:
        # As precise as it is shown: a single autovacuum among 2,000 flows misses no goal.
        value = round(self.value, 2)
        return value >= bound if self.at_least else value <= bound

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"value": round(self.value, 4), "unit": self.unit}
        if self.goal is not None:
            told |= {"goal": self.goal, "stretch": self.stretch, "verdict": self.verdict}
        return told


@dataclass(frozen=True, slots=True)
class Result:
    """What a scenario found out."""

    scenario: str
    figures: Sequence[Figure]
    latencies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "figures": {each.name: each.to_json() for each in self.figures},
            "latencies_ms": dict(self.latencies),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """A Markdown table of the figures, and one of the latencies."""
        lines = [
            f"### {self.scenario}",
            "",
            "| figure | value | goal | stretch | |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {each.name} | {_number(each.value)} {each.unit} | {_bound(each, each.goal)} "
            f"| {_bound(each, each.stretch)} | {each.verdict} |"
            for each in self.figures
        ]
        if self.latencies:
            lines += [
                "",
                "| latency, ms | p50 | p95 | p99 | max | calls |",
                "|---|---|---|---|---|---|",
            ]
            for name, found in self.latencies.items():
                cells = [f"{found[key]:.1f}" for key in ("p50", "p95", "p99", "max")]
                lines.append(f"| {name} | {' | '.join(cells)} | {found['count']} |")
        lines += ["", *self.notes] if self.notes else []
        return [*lines, ""]


def _bound(figure: Figure, bound: float | None) -> str:
    if bound is None:
        return ""
    return f"{'≥' if figure.at_least else '≤'} {_number(bound)}"


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"
