"""Compiled versions in process: loaded once, bounded, and a guess that can be confirmed."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from pytest_django import DjangoAssertNumQueries

from config.ids import new_id
from workflows import drafts, publishing
from workflows.errors import DefinitionNotFound, WorkflowArchived
from workflows.tests.samples import form, workflow
from workflows.versions import (
    SingleFlightCache,
    compiled_version,
    compiled_versions,
    live_version_id,
)


def test_many_ask_and_one_loads() -> None:
    loads: list[str] = []
    may_end = Event()

    def load(key: str) -> object:
        loads.append(key)
        assert may_end.wait(10)
        return object()

    cache = SingleFlightCache(load, max_entries=2)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(cache.get, "a") for _ in range(8)]
        while not loads:
            time.sleep(0.001)
        may_end.set()
        values = {id(answer.result()) for answer in answers}
    assert (loads, len(values)) == (["a"], 1)


def test_least_recently_used_goes_first() -> None:
    loads: list[str] = []

    def load(key: str) -> str:
        loads.append(key)
        return key

    cache = SingleFlightCache(load, max_entries=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        assert cache.get(key) == key
    assert loads == ["a", "b", "c", "b"]


def test_failed_load_is_not_kept() -> None:
    answers = iter((ValueError("away"), "here"))

    def load(_key: str) -> str:
        answer = next(answers)
        if isinstance(answer, str):
            return answer
        raise answer

    cache = SingleFlightCache(load, max_entries=2)
    with pytest.raises(ValueError, match="away"):
        cache.get("a")
    assert cache.get("a") == "here"


@pytest.mark.django_db
def test_version_is_read_once(django_assert_num_queries: pytest.FixtureRequest) -> None:
    row, _ = drafts.import_document(workflow(form()))
    version = publishing.publish(row.pk, by="operator")
    with django_assert_num_queries(1):  # type: ignore[operator]  # pytest-django's fixture
        first = compiled_version(version.pk)
        assert compiled_version(str(version.pk)) is first
    assert (first.version_id, first.workflow_id, first.number) == (
        str(version.pk),
        str(row.pk),
        1,
    )
    assert [step.id for step in first.steps] == version.step_ids


@pytest.mark.django_db
def test_several_versions_are_one_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    names = ("one", "two", "three")
    rows = [drafts.import_document(workflow(form(), name=name))[0] for name in names]
    versions = [publishing.publish(row.pk, by="operator").pk for row in rows]
    known = compiled_version(versions[0])
    with django_assert_num_queries(1):
        found = {one.version_id: one for one in compiled_versions(versions)}
    assert found.keys() == set(map(str, versions))
    assert found[str(versions[0])] is known
    with django_assert_num_queries(0):
        assert all(compiled_version(each) is found[str(each)] for each in versions)
    with pytest.raises(DefinitionNotFound):
        compiled_versions([*versions, new_id()])


@pytest.mark.django_db
def test_guess_stays_until_it_is_reloaded() -> None:
    row, _ = drafts.import_document(workflow(form()))
    assert live_version_id(row.pk) is None
    first = publishing.publish(row.pk, by="operator")
    assert live_version_id(row.pk) == str(first.pk)
    second = publishing.publish(row.pk, by="operator")
    assert live_version_id(str(row.pk).upper()) == str(first.pk)
    assert live_version_id(row.pk, reload=True) == str(second.pk)
    assert live_version_id(row.pk) == str(second.pk)


@pytest.mark.django_db
def test_archived_and_unknown_workflows_are_refused() -> None:
    row, _ = drafts.import_document(workflow(form()))
    publishing.publish(row.pk, by="operator")
    assert live_version_id(row.pk) is not None
    drafts.archive_workflow(row.pk)
    with pytest.raises(WorkflowArchived):
        live_version_id(row.pk, reload=True)
    with pytest.raises(WorkflowArchived):  # the guess is gone too
        live_version_id(row.pk)
    for unknown in (str(new_id()), "no id", "", "\ud800", "1" * 5_000):
        with pytest.raises(DefinitionNotFound):
            live_version_id(unknown)
        with pytest.raises(DefinitionNotFound):
            compiled_version(unknown)
