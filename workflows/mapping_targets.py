"""The places of a draft where a mapping stands, and what each of them means for it. Pure.

What a mapping may read, what a plausible scope is, and what the check of drafts says of each row all
depend on the place only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

from config.jsonvalues import JsonObject, JsonValue
from workflows.documents import WorkflowDocument
from workflows.draft_check import check_draft
from workflows.errors import DefinitionError, Problem
from workflows.mapping import compile_mapping
from workflows.mapping_rows import RowLeaf, RowProblem
from workflows.paths import (
    AvailablePath,
    available_paths,
    call_paths,
    compensation_paths,
    sample_call,
    sample_context,
)
from workflows.routing import ConnectionFacts

API_MAPPING: Final = ("apiMapping",)
REQUEST_MAPPING: Final = ("requestMapping",)
COMPENSATION_MAPPING: Final = ("compensation", "requestMapping")


@dataclass(frozen=True, slots=True)
class RowFindings:
    """What the check of drafts says of rows: what stops publishing, and what to look at."""

    problems: tuple[RowProblem, ...]
    warnings: tuple[RowProblem, ...]


@dataclass(frozen=True, slots=True)
class MappingTarget:
    """One mapping of a draft: `keys` lead to it in the config of the workflow or of the step at `step`."""

    document: WorkflowDocument
    step: int | None
    keys: tuple[str, ...]

    @property
    def config(self) -> JsonObject | None:
        """The config that holds it."""
        document = self.document
        return document.config if self.step is None else document.steps[self.step].config

    @property
    def is_there(self) -> bool:
        """Whether its place is there: a step without a compensation has none for its mapping."""
        return self._holder() is not None

    @property
    def mapping(self) -> JsonValue:
        """The mapping as it is, None for none."""
        return (self._holder() or {}).get(self.keys[-1])

    @property
    def path(self) -> str:
        """Its path in the document."""
        within = "" if self.step is None else f"steps[{self.step}]."
        return f"{within}config.{'.'.join(self.keys)}"

    def config_with(self, mapping: JsonValue) -> JsonObject | None:
        """The config with another mapping in the same place; None takes it out."""
        config = _with(self.config or {}, self.keys, mapping)
        return config or (None if mapping is None else config)

    def paths(self) -> tuple[AvailablePath, ...]:
        """What it may read."""
        if self.step is None:
            return available_paths(self.document, until=None)
        if self.keys == COMPENSATION_MAPPING:
            return compensation_paths(self.document, step=self.step)
        return call_paths(self.document, step=self.step)

    def sample(self) -> JsonObject:
        """A plausible scope with every name that it may read."""
        if self.step is None:
            return sample_context(self.document, until=None)
        call = sample_call(self.document, step=self.step)
        if self.keys == COMPENSATION_MAPPING:
            return {**sample_context(self.document, until=self.step + 1), **call}
        return {name: value for name, value in call.items() if name != "result"}

    def check(
        self, leaves: Sequence[RowLeaf], *, connections: Mapping[str, ConnectionFacts]
    ) -> RowFindings:
        """What the check of drafts says of each row.

        The rows are checked as a list: a path in it names one row, where output names may read alike.
        A row that does not parse, of which the preview tells, would hide what is said of the others.
        """
        if not self.is_there:
            return RowFindings((), ())
        readable = [leaf for leaf in leaves if _compiles(leaf.mapping)]
        flat: JsonValue = [leaf.mapping for leaf in readable]
        report = check_draft(self._document_with(flat), connections=connections)
        return RowFindings(
            tuple(self._at_rows(report.problems, readable)),
            tuple(self._at_rows(report.warnings, readable)),
        )

    def _holder(self) -> JsonObject | None:
        held: JsonValue = self.config or {}
        for key in self.keys[:-1]:
            held = held.get(key) if isinstance(held, dict) else None
        return held if isinstance(held, dict) else None

    def _document_with(self, mapping: JsonValue) -> WorkflowDocument:
        config = self.config_with(mapping)
        if self.step is None:
            return replace(self.document, config=config)
        steps = list(self.document.steps)
        steps[self.step] = replace(steps[self.step], config=config)
        return replace(self.document, steps=tuple(steps))

    def _at_rows(
        self, problems: Iterable[Problem], leaves: Sequence[RowLeaf]
    ) -> Iterable[RowProblem]:
        at_row = re.compile(re.escape(self.path) + r"\[(\d+)\]")
        for problem in problems:
            found = at_row.match(problem.path)
            if found:
                yield RowProblem(leaves[int(found[1])].index, problem.message)


def _compiles(mapping: JsonValue) -> bool:
    try:
        compile_mapping(mapping)
    except DefinitionError:
        return False
    return True


def _with(config: JsonObject, keys: tuple[str, ...], value: JsonValue) -> JsonObject:
    """The config with the value at the keys, every other key in its place."""
    key, *rest = keys
    if rest:
        value = _with(cast("JsonObject", config.get(key) or {}), tuple(rest), value)
    if value is None:
        return {name: member for name, member in config.items() if name != key}
    return {**config, key: value}
