"""Documents, read once: parsed, measured and validated by their text, then kept.

Parsing and validating costs a typical mutation 1.5 ms, forty times its execution, and apps send the
same few texts for ever. What is kept is bounded in entries and in characters; only valid documents
are kept, apart for staff (who may introspect) and apps. Thread safe.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from graphql import (
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    NoSchemaIntrospectionCustomRule,
    parse,
    specified_rules,
    validate,
)
from graphql.language import (
    DocumentNode,
    FragmentDefinitionNode,
    OperationDefinitionNode,
    OperationType,
)

from config.graphql import BadUserInput, QueryTooComplex
from config.graphql_limits import (
    Limits,
    TooComplex,
    UnusableLiteral,
    check_measure,
    check_nodes,
    measure_operation,
)

_MAX_ENTRIES = 256
_MAX_CHARACTERS = 262_144
_MAX_KEPT_LENGTH = 16_384  # longer texts are rare and would push out many short ones
_MAX_VALIDATION_ERRORS = 20
_PUBLIC_RULES = (*specified_rules, NoSchemaIntrospectionCustomRule)


class DocumentRefused(Exception):
    """The document cannot be executed; `errors` are what the client is told."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__(len(errors))
        self.errors = tuple(errors)


@dataclass(frozen=True, slots=True)
class PreparedOperation:
    """One operation of a valid document.

    `is_fixed` says that it has no @skip or @include. `readers`, `subfields` and `parsers` belong to
    `config.graphql_execution`: what it has worked out that holds for every execution.
    """

    node: OperationDefinitionNode
    fragments: dict[str, FragmentDefinitionNode]
    is_introspection: bool
    is_fixed: bool
    readers: dict[Any, Any] = field(default_factory=dict)
    subfields: dict[Any, Any] = field(default_factory=dict)
    parsers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A valid document within the limits."""

    operations: Mapping[str | None, PreparedOperation]

    def operation(self, name: str | None) -> PreparedOperation:
        """The operation with this name; without a name the only one. Raises BadUserInput."""
        if name is None and len(self.operations) == 1:
            return next(iter(self.operations.values()))
        if name is None:
            raise BadUserInput("operationName is needed: the document holds several operations.")
        found = self.operations.get(name)
        if found is None:
            raise BadUserInput("The document holds no operation of this operationName.")
        return found


class DocumentCache:
    """The prepared documents of one schema."""

    def __init__(self, schema: GraphQLSchema, limits: Limits) -> None:
        self._schema = schema
        self._limits = limits
        self._kept: OrderedDict[tuple[str, bool], PreparedDocument] = OrderedDict()
        self._characters = 0
        self._lock = Lock()

    def prepare(self, text: str, *, privileged: bool) -> PreparedDocument:
        """The document of this text, valid and within the limits. Raises DocumentRefused."""
        key = (text, privileged)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        prepared = prepare_document(self._schema, text, limits=self._limits, privileged=privileged)
        if len(text) <= _MAX_KEPT_LENGTH:
            self._keep(key, prepared)
        return prepared

    def _keep(self, key: tuple[str, bool], prepared: PreparedDocument) -> None:
        with self._lock:
            if key not in self._kept:
                self._characters += len(key[0])
            self._kept[key] = prepared
            while len(self._kept) > _MAX_ENTRIES or self._characters > _MAX_CHARACTERS:
                (dropped, _), _ = self._kept.popitem(last=False)
                self._characters -= len(dropped)


def prepare_document(
    schema: GraphQLSchema, text: str, *, limits: Limits, privileged: bool
) -> PreparedDocument:
    """Parse, measure, validate. Raises DocumentRefused; `privileged` may introspect."""
    try:
        document = parse(text, max_lexical_tokens=limits.tokens, max_comments=limits.tokens)
        prepared = _measured(document, limits)
        errors = validate(
            schema,
            document,
            specified_rules if privileged else _PUBLIC_RULES,
            max_errors=_MAX_VALIDATION_ERRORS,
            hide_suggestions=not privileged,
        )
    except GraphQLSyntaxError as error:
        raise DocumentRefused([_syntax_error(error)]) from None
    except UnusableLiteral as error:
        raise DocumentRefused([BadUserInput(str(error))]) from None
    except TooComplex as error:
        raise DocumentRefused([QueryTooComplex(str(error))]) from None
    except RecursionError:
        raise DocumentRefused([QueryTooComplex("The query is nested too deeply.")]) from None
    if errors:
        raise DocumentRefused(errors)
    return prepared


def _measured(document: DocumentNode, limits: Limits) -> PreparedDocument:
    definitions = document.definitions
    fragments = {
        node.name.value: node for node in definitions if isinstance(node, FragmentDefinitionNode)
    }
    operations: dict[str | None, PreparedOperation] = {}
    for node in definitions:
        if isinstance(node, OperationDefinitionNode):
            measure = measure_operation(node, fragments)
            check_measure(measure, limits)
            operations[node.name.value if node.name else None] = PreparedOperation(
                node=node,
                fragments=fragments,
                is_introspection=measure.is_introspection,
                is_fixed=not measure.has_conditions,
            )
            if node.operation is OperationType.SUBSCRIPTION:
                raise UnusableLiteral("There are no subscriptions.")
    if not operations:
        raise UnusableLiteral("The document holds no operation.")
    check_nodes(document, limits)
    return PreparedDocument(operations=operations)


def _syntax_error(error: GraphQLSyntaxError) -> GraphQLError:
    """The parser tells of its limits by syntax errors too."""
    if error.message.endswith("Parsing aborted."):
        return QueryTooComplex(error.message.removeprefix("Syntax Error: "))
    return error
