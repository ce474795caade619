"""What changed between two published documents, in words an operator can read. Pure.

Steps are told apart by their ids, which are stable over publishes: a renamed step is not a removed
and an added one. Values are told only where they are short and never a person's or a secret.
"""

from collections.abc import Mapping, Sequence

from config.jsonvalues import JsonObject, JsonValue, dump_canonical
from workflows.documents import WorkflowDocument, dump_document, dump_step

_TOLD_VALUES = frozenset(
    {"type", "order", "executionMode", "triggerTiming", "triggerEndpoint", "timeoutMs"}
)


def describe_changes(
    old: WorkflowDocument,
    old_ids: Sequence[str],
    new: WorkflowDocument,
    new_ids: Sequence[str],
) -> list[str]:
    """One sentence per change, the workflow's own first; "nothing changed" when there is none."""
    before = dict(zip(old_ids, map(dump_step, old.steps), strict=True))
    after = dict(zip(new_ids, map(dump_step, new.steps), strict=True))
    sentences = describe_member_changes("", _without_steps(old), _without_steps(new))
    sentences += [f"step '{before[one]['label']}' removed" for one in old_ids if one not in after]
    for one in new_ids:
        if one not in before:
            sentences.append(f"step '{after[one]['label']}' added")
        else:
            sentences += _step_changes(before[one], after[one])
    return sentences or ["nothing changed"]


def _without_steps(document: WorkflowDocument) -> JsonObject:
    return {key: value for key, value in dump_document(document).items() if key != "steps"}


def _step_changes(before: JsonObject, after: JsonObject) -> list[str]:
    sentences = []
    if before["label"] != after["label"]:
        sentences.append(f"step '{before['label']}' renamed '{after['label']}'")
    changed = describe_member_changes(f"step '{after['label']}': ", before, after)
    return sentences + [one for one in changed if not one.endswith(": label changed")]


def describe_member_changes(
    prefix: str, before: Mapping[str, JsonValue], after: Mapping[str, JsonValue], path: str = ""
) -> list[str]:
    """One sentence per member that differs, each beginning with the prefix."""
    sentences = []
    for key in dict.fromkeys((*before, *after)):
        at = f"{path}{key}"
        old, new = before.get(key), after.get(key)
        if key not in after:
            sentences.append(f"{prefix}{at} removed")
        elif key not in before:
            sentences.append(f"{prefix}{at} added")
        elif _is_same(old, new):
            continue
        elif key == "config" and isinstance(old, dict) and isinstance(new, dict):
            sentences += describe_member_changes(prefix, old, new, f"{at}.")
        elif key in _TOLD_VALUES:
            sentences.append(f"{prefix}{at} changed from {old} to {new}")
        else:
            sentences.append(f"{prefix}{at} changed")
    return sentences


def _is_same(old: JsonValue, new: JsonValue) -> bool:
    """As JSON: to Python, true is 1 and 1.0 as well."""
    return dump_canonical(old) == dump_canonical(new)
