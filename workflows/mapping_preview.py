"""What edited rows give for a sample: the payload, the value of each row, and what is wrong with it.

Computed by `mapping.py`, as an execution would: the payload as a whole, and each row's leaf alone, so
that two rows whose output fields read alike are told apart. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from config.jsonvalues import JsonObject, JsonValue
from workflows.errors import DefinitionError, ExpressionFailed, MappingIncomplete
from workflows.mapping import compile_mapping
from workflows.mapping_rows import BuiltMapping, RowProblem

_MISSING = "has no value in the sample, and no default: MAPPING_INCOMPLETE, nothing would be sent"


@dataclass(frozen=True, slots=True)
class MappingPreview:
    """`has_payload` is false when an execution would send nothing; `general` are sentences on the whole."""

    has_payload: bool
    payload: JsonValue = None
    values: Mapping[int, JsonValue] = field(default_factory=dict)
    problems: tuple[RowProblem, ...] = ()
    general: tuple[str, ...] = ()


def preview_of(built: BuiltMapping, sample: JsonObject) -> MappingPreview:
    """What the mapping gives for the sample, which holds every name that it may read."""
    values: dict[int, JsonValue] = {}
    problems = [*built.problems]
    for leaf in built.leaves:
        value, message = _tried(leaf.mapping, sample)
        if message:
            problems.append(RowProblem(leaf.index, message))
        else:
            values[leaf.index] = value
    if built.problems or built.mapping is None:
        return MappingPreview(has_payload=False, values=values, problems=tuple(problems))
    payload, general = _whole(built.mapping, sample)
    has_payload = not general
    if problems:  # said at the rows
        general = ()
    return MappingPreview(has_payload, payload, values, tuple(problems), general)


def _tried(mapping: JsonValue, sample: JsonObject) -> tuple[JsonValue, str]:
    """The value of one row, or why there is none."""
    try:
        compiled = compile_mapping(mapping)
        return compiled.apply(sample), ""
    except DefinitionError as error:
        return None, "; ".join(str(problem) for problem in error.problems)
    except MappingIncomplete:
        return None, _why(mapping, sample)
    except ExpressionFailed as error:
        return None, error.message


def _why(mapping: JsonValue, sample: JsonObject) -> str:
    (source,) = compile_mapping(mapping).sources
    try:
        source.expression.evaluate(sample)
    except ExpressionFailed as error:
        return error.message
    return _MISSING


def _whole(mapping: JsonValue, sample: JsonObject) -> tuple[JsonValue, tuple[str, ...]]:
    try:
        return compile_mapping(mapping).apply(sample), ()
    except DefinitionError as error:
        return None, tuple(str(problem) for problem in error.problems)
    except MappingIncomplete as error:
        return None, (f"MAPPING_INCOMPLETE: {', '.join(error.fields)}",)
    except ExpressionFailed as error:
        return None, (error.message,)
