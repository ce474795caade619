"""JSON Schema: does a value fit, and if not, where and why, without repeating the value.

Draft 2020-12 unless `$schema` names another; `format` is checked. Integers of any size are compared
exactly. References lead to places inside the schema: nothing is ever fetched or opened. Patterns
run in linear time, so look-around and back-references are refused when the schema is compiled.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NoReturn, TypeAlias

import jsonschema_rs

from config.jsonvalues import JsonValue
from workflows.errors import Problem, SchemaInvalid

MAX_VIOLATIONS = 100
MAX_LISTED_VALUES = 2_000

_SchemaJson: TypeAlias = "dict[str, Any] | bool"

_DRAFT_2020_12 = "https://json-schema.org/draft/2020-12/schema"
_MAX_CHOICES_LENGTH = 200
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")

# By the keyword that was broken. Texts of the library hold the refused value, so none is used.
_MESSAGES = {
    "required": "is required",
    "additionalProperties": "is not allowed",
    "unevaluatedProperties": "is not allowed",
    "propertyNames": "is not an allowed name",
    "falseSchema": "is not allowed",
    "additionalItems": "may have at most {limit} items",
    "unevaluatedItems": "has items that are not allowed",
    "minimum": "must be at least {limit}",
    "maximum": "must be at most {limit}",
    "exclusiveMinimum": "must be more than {limit}",
    "exclusiveMaximum": "must be less than {limit}",
    "multipleOf": "must be a multiple of {multiple_of}",
    "minLength": "must have at least {limit} characters",
    "maxLength": "must have at most {limit} characters",
    "minItems": "must have at least {limit} items",
    "maxItems": "must have at most {limit} items",
    "minProperties": "must have at least {limit} properties",
    "maxProperties": "must have at most {limit} properties",
    "uniqueItems": "must not have the same item twice",
    "contains": "does not have the items that it must have",
    "pattern": "must match the pattern {pattern}",
    "format": "is not a valid {format}",
    "contentEncoding": "is not in the encoding {content_encoding}",
    "contentMediaType": "is not of the media type {content_media_type}",
    "anyOf": "fits none of the allowed forms",
    "oneOf": "must fit exactly one of the allowed forms",
    "not": "has a form that is not allowed",
}

_SINGULARS = (("characters", "character"), ("items", "item"), ("properties", "property"))


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """A compiled JSON Schema."""

    _validator: jsonschema_rs.Validator

    def violations(self, value: JsonValue) -> list[tuple[str, str]]:
        """What breaks the schema, as (JSON pointer, message); empty when the value fits.

        A missing property is named by the path it should have, a surplus one by its own. Messages
        say what the schema asks for and never hold the value. At most MAX_VIOLATIONS, and only the
        first one of a value with more than MAX_LISTED_VALUES parts.
        """
        if self._validator.is_valid(value):
            return []
        errors = self._errors(value)
        found = chain.from_iterable(_describe(error, value) for error in errors)
        return list(dict.fromkeys(islice(found, MAX_VIOLATIONS)))

    def _errors(self, value: JsonValue) -> Iterable[jsonschema_rs.ValidationError]:
        if _has_at_most(MAX_LISTED_VALUES, value):
            return self._validator.iter_errors(value)
        # The library makes all errors before it gives the first: 600 MB for 256 KiB of wrong items.
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return [error]
        return []


def compile_schema(schema: JsonValue) -> Schema:
    """The compiled schema. Raises SchemaInvalid with each problem and its path in the schema."""
    if not isinstance(schema, dict | bool):
        raise SchemaInvalid([Problem("", "a JSON Schema is an object or a boolean")])
    try:
        return Schema(_validator(schema))
    except jsonschema_rs.ValidationError as error:
        problems = _reference_problems(schema, error) or _schema_problems(schema, error)
    except ValueError:
        problems = [Problem("", "is not a JSON Schema that can be used")]
    raise SchemaInvalid(problems)


def _refuse_to_fetch(uri: str) -> NoReturn:
    raise ValueError(uri)


def _validator(schema: _SchemaJson) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(
        schema,
        retriever=_refuse_to_fetch,
        validate_formats=True,
        pattern_options=jsonschema_rs.RegexOptions(),
    )


def _is_linear_pattern(pattern: str) -> bool:
    try:
        _validator({"pattern": pattern})
    except jsonschema_rs.ValidationError:
        return False
    return True


_SCHEMA_OF_SCHEMAS = jsonschema_rs.validator_for(
    {"$ref": _DRAFT_2020_12},
    retriever=_refuse_to_fetch,
    validate_formats=True,
    formats={"regex": _is_linear_pattern},
)


def _describe(error: jsonschema_rs.ValidationError, value: JsonValue) -> Iterator[tuple[str, str]]:
    message = _message(error.kind)
    path = "".join(map(_pointer, error.instance_path))
    names = _names(error, value)
    if names is None:
        yield path, message
    else:
        for name in names:
            yield path + _pointer(name), message


def _names(error: jsonschema_rs.ValidationError, value: JsonValue) -> Iterable[str] | None:
    """The properties that the error is about; None when it is about the value at its path."""
    kind: Any = error.kind
    if kind.name == "required":
        return [kind.property]
    if kind.name in ("additionalProperties", "unevaluatedProperties"):
        return list(kind.unexpected)
    if kind.name == "propertyNames":
        return [kind.error.instance]
    if kind.name == "falseSchema":
        # `additionalProperties: false` alone is told of the first surplus value, without its name.
        place = _value_at(value, error.instance_path)
        if isinstance(place, dict) and place != error.instance:
            return place
    return None


def _has_at_most(limit: int, value: JsonValue) -> bool:
    pending: list[JsonValue] = [value]
    count = 1
    while pending and count <= limit:
        current = pending.pop()
        if isinstance(current, list | dict):
            count += len(current)
            pending.extend(current.values() if isinstance(current, dict) else current)
    return count <= limit


def _value_at(value: Any, path: list[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value


def _message(kind: Any) -> str:
    if kind.name == "type":
        return f"must be of type {' or '.join(kind.types)}"
    if kind.name == "enum":
        return f"must be one of {_as_json(kind.options, 'the allowed values')}"
    if kind.name == "const":
        return f"must be {_as_json([kind.expected_value], 'the one allowed value')}"
    limits = kind.as_dict()
    message = _MESSAGES.get(kind.name, "is not valid").format_map(limits)
    if limits.get("limit") == 1:
        for many, one in _SINGULARS:
            message = message.replace(many, one)
    return message


def _as_json(values: list[JsonValue], otherwise: str) -> str:
    text = ", ".join(json.dumps(value, ensure_ascii=False) for value in values)
    return text if len(text) <= _MAX_CHOICES_LENGTH else otherwise


def _pointer(step: str | int) -> str:
    return "/" + str(step).replace("~", "~0").replace("/", "~1")


def _schema_problems(schema: _SchemaJson, error: jsonschema_rs.ValidationError) -> list[Problem]:
    """Every problem of a schema of the usual draft, the first one of another."""
    errors = [error]
    if isinstance(schema, dict) and schema.get("$schema", _DRAFT_2020_12) == _DRAFT_2020_12:
        errors = list(islice(_SCHEMA_OF_SCHEMAS.iter_errors(schema), MAX_VIOLATIONS)) or errors
    return list(map(_schema_problem, errors))


def _schema_problem(error: jsonschema_rs.ValidationError) -> Problem:
    kind: Any = error.kind
    path = error.instance_path
    if kind.name == "propertyNames":  # the patterns of patternProperties
        kind, path = kind.error.kind, [*path, kind.error.instance]
    return Problem(_dotted(path), _schema_message(kind))


def _schema_message(kind: Any) -> str:
    if kind.name == "format" and kind.format == "regex":
        return "must be a regular expression without look-around and back-references"
    if kind.name == "$ref":
        return f"cannot be resolved: {kind.error.message}"
    return _message(kind)


def _reference_problems(schema: _SchemaJson, error: jsonschema_rs.ValidationError) -> list[Problem]:
    if error.kind.name != "$ref":
        return []
    return [
        Problem(path, "only references inside the schema (#/...) are followed")
        for path, reference in _references(schema, ())
        if not reference.startswith("#")
    ]


def _references(value: JsonValue, path: tuple[str | int, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, child in value.items():
            if name in _REFERENCES and isinstance(child, str):
                yield _dotted((*path, name)), child
            yield from _references(child, (*path, name))
    elif isinstance(value, list):
        for at, child in enumerate(value):
            yield from _references(child, (*path, at))


def _dotted(path: tuple[str | int, ...] | list[str | int]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")
