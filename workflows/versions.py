"""Published versions, compiled once a process.

A version is immutable, so nothing here is ever invalidated; the cache is bounded and loads each
version in one thread while others wait for it. Which version is *live* can change:
`live_version_id` is a guess that its caller confirms, as the start of an execution does in the
statement that writes it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from workflows.compiled import CompiledWorkflow, compile_workflow
from workflows.documents import parse_document
from workflows.errors import DefinitionNotFound, WorkflowArchived
from workflows.models import Workflow, WorkflowVersion

MAX_CACHED_VERSIONS: Final = 256
MAX_CACHED_GUESSES: Final = 4_096

_Value = TypeVar("_Value")


class SingleFlightCache(Generic[_Value]):
    """A bounded LRU cache. A value is loaded by one caller; the others get its outcome.

    What a load raised is handed to everyone who waited for it and is not kept.
    """

    def __init__(self, load: Callable[[str], _Value], *, max_entries: int) -> None:
        self._load = load
        self._max_entries = max_entries
        self._entries: OrderedDict[str, Future[_Value]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, load: Callable[[str], _Value] | None = None) -> _Value:
        """The value; one that is not kept is loaded by `load`, for who can do it better."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
                is_ours = False
            else:
                entry = self._entries[key] = Future()
                is_ours = True
                if len(self._entries) > self._max_entries:
                    self._entries.popitem(last=False)
        if is_ours:
            self._fill(key, entry, load or self._load)
        return entry.result()

    def has(self, key: str) -> bool:
        """Whether the value is kept, or on its way."""
        return key in self._entries

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def _fill(self, key: str, entry: Future[_Value], load: Callable[[str], _Value]) -> None:
        try:
            entry.set_result(load(key))
        except BaseException as error:  # noqa: BLE001 - those who wait must hear of it, whatever it is
            with self._lock:
                if self._entries.get(key) is entry:
                    del self._entries[key]
            entry.set_exception(error)


def compiled_version(version_id: UUID | str) -> CompiledWorkflow:
    """The version, ready to run. Raises DefinitionNotFound."""
    return _versions.get(str(version_id))


def compiled_versions(version_ids: Iterable[UUID]) -> list[CompiledWorkflow]:
    """These versions; one query for all that are new to this process. Raises DefinitionNotFound."""
    keys = {str(each) for each in version_ids}
    new = [key for key in keys if not _versions.has(key)]
    rows = WorkflowVersion.objects.filter(pk__in=new).values_list("pk", *_COLUMNS) if new else ()
    read = {str(pk): columns for pk, *columns in rows}
    return [
        _versions.get(key, partial(_compiled, read[key]) if key in read else None) for key in keys
    ]


def live_version_id(workflow_id: UUID | str, *, reload: bool = False) -> str | None:
    """The version that a new execution would run, None when nothing is published yet.

    Without `reload` it may be one that was replaced meanwhile. Raises DefinitionNotFound and
    WorkflowArchived.
    """
    key = str(as_uuid(str(workflow_id)))
    guess = None if reload else _live_guesses.get(key)
    if guess is not None:
        return guess
    _live_guesses.pop(key, None)
    live = _read_live_version_id(key)
    if live is not None:
        if len(_live_guesses) >= MAX_CACHED_GUESSES:
            _live_guesses.clear()
        _live_guesses[key] = live
    return live


def forget_everything() -> None:
    """Empty both caches, for tests that reuse a database."""
    _versions.clear()
    _live_guesses.clear()


def as_uuid(text: str) -> UUID:
    """The id that a caller sent; raises DefinitionNotFound when it cannot be one."""
    try:
        return UUID(text)
    except ValueError:
        raise DefinitionNotFound from None


def _read_live_version_id(workflow_id: str) -> str | None:
    row = (
        Workflow.objects.filter(pk=as_uuid(workflow_id))
        .values_list("live_version_id", "archived_at")
        .first()
    )
    if row is None:
        raise DefinitionNotFound
    live, archived_at = row
    if archived_at is not None:
        raise WorkflowArchived
    return None if live is None else str(live)


_COLUMNS: Final = ("workflow_id", "number", "document", "step_ids")


def _load_version(version_id: str) -> CompiledWorkflow:
    row = WorkflowVersion.objects.filter(pk=as_uuid(version_id)).values_list(*_COLUMNS).first()
    if row is None:
        raise DefinitionNotFound
    return _compiled(row, version_id)


def _compiled(columns: Sequence[Any], version_id: str) -> CompiledWorkflow:
    workflow_id, number, document, step_ids = columns
    return compile_workflow(
        version_id=version_id,
        workflow_id=str(workflow_id),
        number=number,
        document=parse_document(document),
        step_ids=step_ids,
    )


_versions = SingleFlightCache(_load_version, max_entries=MAX_CACHED_VERSIONS)
# Single reads and writes of a dict are atomic, and a lost guess costs one query: no lock.
_live_guesses: dict[str, str] = {}
