"""How much one document may ask for, measured before anything expensive looks at it. PURE.

A definition (operation or fragment) is summed up once, and a fragment's sum is used for each of its
spreads: fragments that double one another cost one addition each, whatever they expand to, and a
cycle ends at itself (validation refuses it later). Depth counts nested fields; fragments, inline or
spread, add none of their own. Fields, aliases and root fields are counted as expanded.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from graphql.language import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    IntValueNode,
    Node,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    StringValueNode,
)

from config.jsonvalues import MAX_INTEGER_DIGITS, JsonRefused, check_storable

_INTROSPECTION = frozenset({"__schema", "__type", "__typename"})


@dataclass(frozen=True, slots=True)
class Limits:
    """The most a document may ask for."""

    depth: int = 15
    aliases: int = 30
    root_fields: int = 20
    fields: int = 1_000
    tokens: int = 2_000
    repeats: int = 100


class TooComplex(ValueError):
    """The document asks for more than it may; the message names the limit."""


class UnusableLiteral(ValueError):
    """The document holds a value that cannot be stored or read."""


@dataclass(slots=True)
class Measure:
    """What an operation or fragment asks for, expanded; conditions are @skip and @include."""

    depth: int = 0
    fields: int = 0
    aliases: int = 0
    root_fields: int = 0
    root_names: set[str] = field(default_factory=set)
    has_conditions: bool = False

    @property
    def is_introspection(self) -> bool:
        """Whether it asks for the schema only."""
        return self.root_names <= _INTROSPECTION


def measure_operation(
    operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]
) -> Measure:
    """What the operation asks for when all its fragments are expanded; linear in the document."""
    return _Measurer(fragments).definition(operation)


def check_measure(measure: Measure, limits: Limits) -> None:
    """Raise TooComplex, naming the first limit that is exceeded."""
    for found, most, what in (
        (measure.depth, limits.depth, "levels deep"),
        (measure.root_fields, limits.root_fields, "root fields"),
        (measure.aliases, limits.aliases, "aliases"),
        (measure.fields, limits.fields, "fields after its fragments are expanded"),
    ):
        if found > most:
            raise TooComplex(f"The query may have {most} {what}, not more.")


def check_nodes(document: DocumentNode, limits: Limits) -> None:
    """Raise UnusableLiteral for a text or integer that cannot be kept, TooComplex for repetitions.

    Validation compares the fields of one name pairwise: five hundred `a{b} a{b}` cost it 0.5 s.
    Plain repetitions (`id id`) change nothing and are dropped here; of others a hundred may be.
    """
    repeats: Counter[str] = Counter()
    for node in _nodes(document):
        if isinstance(node, StringValueNode):
            _check_text(node.value)
        elif isinstance(node, IntValueNode) and len(node.value) > MAX_INTEGER_DIGITS:
            raise UnusableLiteral(f"An integer may have {MAX_INTEGER_DIGITS} digits.")
        elif isinstance(node, SelectionSetNode):
            _drop_plain_repeats(node)
        elif isinstance(node, FieldNode) and node.selection_set:
            repeats[node.alias.value if node.alias else node.name.value] += 1
    if repeats and max(repeats.values()) > limits.repeats:
        raise TooComplex(f"The query may ask for a nested field {limits.repeats} times, not more.")


def _check_text(text: str) -> None:
    try:
        check_storable(text)
    except JsonRefused as error:
        raise UnusableLiteral(f"A text in the document is refused: {error}.") from None


def _drop_plain_repeats(node: SelectionSetNode) -> None:
    kept = {_repeat_key(selection): selection for selection in node.selections}
    if len(kept) < len(node.selections):
        node.selections = tuple(kept.values())


def _repeat_key(selection: SelectionNode) -> object:
    if selection.directives:
        return id(selection)
    if isinstance(selection, FragmentSpreadNode):
        return selection.name.value
    if isinstance(selection, FieldNode) and not selection.selection_set and not selection.arguments:
        return (selection.alias and selection.alias.value, selection.name.value)
    return id(selection)


def _nodes(document: DocumentNode) -> Iterator[Node]:
    pending: list[Node] = [document]
    while pending:
        node = pending.pop()
        yield node
        for key in node.keys:
            child = getattr(node, key, None)
            if isinstance(child, Node):
                pending.append(child)
            elif isinstance(child, tuple | list):
                pending.extend(item for item in child if isinstance(item, Node))


class _Measurer:
    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._measured: dict[str, Measure] = {}

    def definition(self, node: OperationDefinitionNode | FragmentDefinitionNode) -> Measure:
        measure = Measure()
        pending: list[tuple[SelectionSetNode, int]] = [(node.selection_set, 0)]
        while pending:
            selections, level = pending.pop()
            for selection in selections.selections:
                measure.has_conditions |= bool(selection.directives)
                if isinstance(selection, FragmentSpreadNode):
                    self._add_spread(measure, self._fragment(selection.name.value), level)
                    continue
                below = level
                if isinstance(selection, FieldNode):
                    below += 1
                    _add_field(measure, selection, below)
                if isinstance(selection, FieldNode | InlineFragmentNode) and (
                    nested := selection.selection_set
                ):
                    pending.append((nested, below))
        return measure

    def _fragment(self, name: str) -> Measure:
        if name not in self._measured:
            self._measured[name] = Measure()  # what a cycle back to it adds: nothing
            if name in self._fragments:
                self._measured[name] = self.definition(self._fragments[name])
        return self._measured[name]

    @staticmethod
    def _add_spread(measure: Measure, fragment: Measure, level: int) -> None:
        measure.depth = max(measure.depth, level + fragment.depth)
        measure.fields += fragment.fields
        measure.aliases += fragment.aliases
        measure.has_conditions |= fragment.has_conditions
        if level == 0:
            measure.root_fields += fragment.root_fields
            measure.root_names |= fragment.root_names


def _add_field(measure: Measure, node: FieldNode, level: int) -> None:
    measure.depth = max(measure.depth, level)
    measure.fields += 1
    measure.aliases += node.alias is not None
    if level == 1:
        measure.root_fields += 1
        measure.root_names.add(node.name.value)
