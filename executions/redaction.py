"""What a workflow calls `sensitive` is shown to nobody: records, logs and metrics get a mark.

A path matches where a chain of member names ends with it, however deep and through lists: `pin` any
member of that name, `card.number` the `number` of any `card`. Partners echo what they were sent, so
values that stand at sensitive paths are also replaced wherever they turn up: whole leaves from
three characters, parts of texts from four. Shorter ones, booleans and null would hide too much.
Names of members are searched too, but for words of letters alone: a name says what a value is, and
`male` entered once must not take `maleOrFemale` out of an answer.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from config.jsonvalues import JsonObject, JsonValue

REDACTED = "[redacted]"
MIN_SECRET_CHARACTERS = 3
MIN_PART_CHARACTERS = 4
# How many characters may be searched, times secrets: about a tenth of a second at worst. Texts
# beyond it are hidden whole: a person can enter thousands of secrets, a partner send a megabyte.
SEARCH_BUDGET = 100_000_000

Path = tuple[str, ...]
# The paths that the way so far has begun: what is left of each.
Open = tuple[Path, ...]


class Redactor:
    """The redaction of one workflow; kept with its compiled version."""

    __slots__ = ("_by_name",)

    def __init__(self, paths: Iterable[str]) -> None:
        by_name: dict[str, list[Path]] = {}
        for path in dict.fromkeys(paths):
            first, *rest = path.split(".")
            by_name.setdefault(first, []).append(tuple(rest))
        self._by_name = {name: tuple(rests) for name, rests in by_name.items()}

    def secrets(self, context: Mapping[str, JsonValue]) -> frozenset[str]:
        """The texts of all values at or below sensitive paths, for `redact` and `redact_text`."""
        if not self._by_name:
            return frozenset()
        found = (text for value in self._sensitive(context) for text in _leaf_texts(value))
        return frozenset(text for text in found if len(text) >= MIN_SECRET_CHARACTERS)

    def redact(
        self, value: JsonValue, secrets: frozenset[str] = frozenset(), *, at: str | None = None
    ) -> JsonValue:
        """The value with "[redacted]" in place of what is sensitive; the same object without any.

        `at` is the context key under which the value stands or would stand: `card.number` hides
        the `number` of what stands at `card`.
        """
        if not self._by_name and not secrets:
            return value
        is_sensitive, begun = (False, ()) if at is None else self._step(at, ())
        return REDACTED if is_sensitive else self._redact(value, begun, _Secrets(secrets))

    def redact_text(self, text: str, secrets: frozenset[str]) -> str:
        """The text with "[redacted]" in place of every secret."""
        return _Secrets(secrets).redact(text) if secrets else text

    def _step(self, name: str, begun: Open) -> tuple[bool, Open]:
        """Whether a path ends with this member, and the paths that go on below it."""
        rests = self._by_name.get(name, ())
        if begun:
            rests += tuple(path[1:] for path in begun if path[0] == name)
        if not rests:
            return False, ()
        return () in rests, tuple(path for path in rests if path)

    def _sensitive(self, context: Mapping[str, JsonValue]) -> Iterator[JsonValue]:
        pending: list[tuple[JsonValue | Mapping[str, JsonValue], Open]] = [(context, ())]
        while pending:
            value, begun = pending.pop()
            if isinstance(value, list):
                pending.extend((item, begun) for item in value)
            elif isinstance(value, Mapping):
                for name, member in value.items():
                    is_sensitive, further = self._step(name, begun)
                    if is_sensitive:
                        yield member
                    else:
                        pending.append((member, further))

    def _redact(self, value: JsonValue, begun: Open, secrets: "_Secrets") -> JsonValue:
        if isinstance(value, dict):
            members: JsonObject = {}
            for name, member in value.items():
                shown = secrets.redact_name(name)
                while shown in members:
                    shown = f"{shown} {len(members)}"
                members[shown] = self._redact_member(name, member, begun, secrets)
            changed = any(members.get(name) is not member for name, member in value.items())
            return members if changed or members.keys() != value.keys() else value
        if isinstance(value, list):
            items = [self._redact(item, begun, secrets) for item in value]
            changed = any(new is not old for new, old in zip(items, value, strict=True))
            return items if changed else value
        return secrets.redact_leaf(value)

    def _redact_member(
        self, name: str, member: JsonValue, begun: Open, secrets: "_Secrets"
    ) -> JsonValue:
        is_sensitive, further = self._step(name, begun)
        return REDACTED if is_sensitive else self._redact(member, further, secrets)


@lru_cache(maxsize=512)
def redactor_of(sensitive: Path) -> Redactor:
    """The redactor of a workflow's sensitive paths."""
    return Redactor(sensitive)


class _Secrets:
    """Secrets to be looked for in one value: whole ones in a set, parts one by one."""

    __slots__ = ("_budget", "_in_names", "_parts", "_whole")

    def __init__(self, secrets: frozenset[str]) -> None:
        self._whole = secrets
        parts = [text for text in secrets if len(text) >= MIN_PART_CHARACTERS]
        # The longest first, so that none leaves its own tail behind.
        self._parts = sorted(parts, key=len, reverse=True)
        self._in_names = any(not text.isalpha() for text in secrets)
        self._budget = SEARCH_BUDGET

    def redact_leaf(self, value: JsonValue) -> JsonValue:
        if not self._whole or value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.redact(value)
        return REDACTED if _text(value) in self._whole else value

    def redact(self, text: str) -> str:
        if text in self._whole:
            return REDACTED
        found = self._found_in(text)
        return REDACTED if found is None else _without(text, found) if found else text

    def redact_name(self, name: str) -> str:
        if not self._in_names or name.isalpha():
            return name
        found = self._found_in(name)
        if found is None or name in self._whole:
            return REDACTED
        found = [secret for secret in found if not secret.isalpha()]
        return _without(name, found) if found else name

    def _found_in(self, text: str) -> list[str] | None:
        """The secrets that are part of the text; None when looking for them would take too long."""
        self._budget -= len(text) * len(self._parts)
        if self._budget < 0 and len(text) > MIN_PART_CHARACTERS:
            return None
        return [secret for secret in self._parts if secret in text]


def _without(text: str, secrets: Iterable[str]) -> str:
    # Cut first and joined last: a secret such as "redacted" must not be found in a mark.
    pieces = [text]
    for secret in secrets:
        pieces = [piece for whole in pieces for piece in whole.split(secret)]
    return REDACTED.join(pieces)


def _leaf_texts(value: JsonValue) -> Iterator[str]:
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            pending.extend(current.values())
        elif isinstance(current, list):
            pending.extend(current)
        elif current is not None and not isinstance(current, bool):
            yield _text(current)


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else repr(value)
