"""Does a made-up context still give the payload that it should? The check of golden runs.

The payload is made by the code that makes it in production, and compared as JSON: 250 is not 250.0,
and the order of keys is nothing. A mapping that does not compile or lacks a value is a failure that says
why. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from config.jsonvalues import JsonObject, JsonValue, dump_canonical
from workflows.documents import WorkflowDocument, WorkflowSettings
from workflows.errors import DefinitionError, ExpressionFailed, MappingIncomplete
from workflows.mapping import compile_mapping, final_payload


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """What a context gives: its payload, or the output fields without a value, or why there is none."""

    payload: JsonValue = None
    missing: tuple[str, ...] = ()
    failure: str = ""

    @property
    def has_payload(self) -> bool:
        return not self.missing and not self.failure

    def passes(self, expected: JsonValue) -> bool:
        """Whether this is the expected payload."""
        return self.has_payload and dump_canonical(self.payload) == dump_canonical(expected)

    def why_not(self) -> str:
        """In a sentence, for who expected another payload."""
        if self.missing:
            return f"MAPPING_INCOMPLETE: no value for {', '.join(self.missing)}"
        return self.failure or "the payload is another one than expected"


def payloads_of(
    document: WorkflowDocument, contexts: Iterable[JsonObject]
) -> tuple[GoldenResult, ...]:
    """What completing the workflow would send, or keep, for each context."""
    settings = WorkflowSettings.of(document)
    is_sent = settings.final_api is not None
    try:
        mapping = None if settings.api_mapping is None else compile_mapping(settings.api_mapping)
    except DefinitionError as error:
        failure = f"The mapping does not compile: {error.message}."
        return tuple(GoldenResult(failure=failure) for _ in contexts)
    results = []
    for context in contexts:
        try:
            results.append(GoldenResult(final_payload(mapping, context, is_sent=is_sent)))
        except MappingIncomplete as error:
            results.append(GoldenResult(missing=error.fields))
        except ExpressionFailed as error:
            results.append(GoldenResult(failure=error.message))
    return tuple(results)
