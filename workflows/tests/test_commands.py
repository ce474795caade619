"""add_connection, import_workflow, export_workflow: what they print, keep and refuse."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from config.ids import new_id
from config.jsonvalues import JsonObject
from workflows.connections import connection_by_name
from workflows.golden import save_golden_run
from workflows.models import Connection, Workflow, WorkflowVersion
from workflows.tests.samples import SEED, form, server, workflow

pytestmark = pytest.mark.django_db


def run(*words: str) -> tuple[str, str]:
    """The command's output and its error output."""
    out, err = StringIO(), StringIO()
    call_command(*words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def refused(*words: str) -> tuple[str, int]:
    """The sentence of the refusal and the exit code."""
    with pytest.raises(CommandError) as error:
        run(*words)
    return str(error.value), error.value.returncode


def written(path: Path, document: JsonObject) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def imported(*words: str) -> list[Any]:
    told: list[Any] = json.loads(run("import_workflow", *words, "--json")[0])
    return told


def test_import_tells_machines_the_ids() -> None:
    [told] = imported(str(SEED), "--publish")
    row = Workflow.objects.get()
    steps = row.steps.order_by("order")
    assert told == {
        "id": str(row.pk),
        "name": "Money Transfer",
        "version": 1,
        "steps": [{"id": str(one.pk), "order": one.order, "label": one.label} for one in steps],
    }
    assert len(told["steps"]) == 4


def test_import_alone_publishes_nothing() -> None:
    assert imported(str(SEED))[0]["version"] is None
    assert WorkflowVersion.objects.count() == 0


def test_import_tells_people_what_it_did() -> None:
    out, err = run("import_workflow", str(SEED))
    row = Workflow.objects.get()
    assert out == f"Imported workflow Money Transfer {row.pk} (draft).\n"
    assert err == (
        "Money Transfer: config.apiMapping.senderAccount: userAccount is no data key: "
        "taken to come from the initial context\n"
    )
    out, _ = run("import_workflow", str(SEED), "--publish")
    assert out == (
        f"Changed the draft of the existing workflow Money Transfer {row.pk}, "
        "published as version 1.\n"
    )


def test_import_as_new_makes_another() -> None:
    first, second = imported(str(SEED))[0], imported(str(SEED), "--new")[0]
    assert first["id"] != second["id"]
    assert Workflow.objects.count() == 2


def test_several_files_are_all_or_none(tmp_path: Path) -> None:
    bad = written(tmp_path / "bad.json", workflow(form(when="("), server(1, connection="nobody")))
    assert refused("import_workflow", str(SEED), bad, "--publish") == (
        (
            f"{bad}: steps[0].config.when: does not parse: it ends too early\n"
            f"{bad}: steps[1].config.connection: there is no connection nobody\n"
            "Nothing was imported."
        ),
        1,
    )
    assert Workflow.objects.count() == 0
    assert WorkflowVersion.objects.count() == 0


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b'{"name":"x","steps":[],"steps":[]}', 'it has the key "steps" twice in one object'),
        (b'{"name":NaN,"steps":[]}', "NaN is not JSON"),
        (b"\xef\xbb\xbf{}", "it begins with a byte order mark; save it as UTF-8 without one"),
        (b"\xff\xfe{\x00", "it is not UTF-8 (byte 1)"),
        (b"[" * 70 + b"]" * 70, "nested deeper than 64 levels"),
    ],
)
def test_file_that_is_no_document_is_refused(tmp_path: Path, raw: bytes, sentence: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(raw)
    assert refused("import_workflow", str(path)) == (
        f"{path}: {sentence}\nNothing was imported.",
        1,
    )


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    assert refused("import_workflow", str(path)) == (f"{path}: No such file or directory.", 1)
    assert refused("import_workflow", str(tmp_path)) == (f"{tmp_path}: Is a directory.", 1)


def test_export_of_an_import_is_the_same_document() -> None:
    [told] = imported(str(SEED))
    assert run("export_workflow", told["id"])[0].strip() == SEED.read_text().strip()


def test_export_of_a_version_is_what_was_published(tmp_path: Path) -> None:
    told = imported(written(tmp_path / "a.json", workflow(form(label="A"))), "--publish")[0]
    imported(written(tmp_path / "b.json", workflow(form(label="B"))), "--publish")
    first, second, draft = (
        json.loads(run("export_workflow", told["id"], *words)[0])
        for words in (("--version", "1"), ("--version=2",), ())
    )
    assert first == workflow(form(label="A"))
    assert second == draft == workflow(form(label="B"))


def test_export_of_what_does_not_exist() -> None:
    unknown = str(new_id())
    assert refused("export_workflow", unknown) == (f"There is no workflow {unknown}.", 1)
    [told] = imported(str(SEED))
    assert refused("export_workflow", told["id"], "--version", "2") == (
        f"There is no version 2 of workflow {told['id']}.",
        1,
    )
    assert refused("export_workflow", "x")[1] == 1


def test_connection_is_added_then_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANK_SECRET", "the secret")
    out, _ = run("add_connection", "bank", "https://bank.example")
    assert out == "Added connection bank (https://bank.example).\n"
    words = ("--auth", "BEARER", "--secret-from-env", "BANK_SECRET", "--allow-private", "--json")
    out, err = run("add_connection", "bank", "https://bank.example/v2", *words)
    row = Connection.objects.get()
    assert json.loads(out) == {"id": str(row.pk), "name": "bank", "created": False}
    assert "the secret" not in out + err
    value = connection_by_name("bank")
    assert (value.base_url, value.secret, value.allow_private) == (
        "https://bank.example/v2",
        "the secret",
        True,
    )


def test_callback_secret_comes_from_the_environment_and_goes_by_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CALLBACK_SECRET", "the secret")
    command = ("add_connection", "bank", "https://bank.example")
    out, err = run(*command, "--callback-secret-from-env", "CALLBACK_SECRET")
    assert "the secret" not in out + err
    found = [connection_by_name("bank").callback_secret]
    for words in ((), ("--no-callback-secret",)):
        run(*command, *words)
        found.append(connection_by_name("bank").callback_secret)
    assert found == ["the secret", "the secret", ""]


def test_connection_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    assert refused("add_connection", "bank", "bank.example", "--auth", "bearer") == (
        "base_url: a URL begins with http:// or https:// and a host\nsecret: is required for BEARER",
        1,
    )
    assert refused("add_connection", "b", "https://b.example", "--secret-from-env", "NO_SUCH") == (
        "The environment variable NO_SUCH is not set.",
        2,
    )
    assert Connection.objects.count() == 0


def test_publishing_what_is_live_says_so(tmp_path: Path) -> None:
    file = written(tmp_path / "a.json", workflow(form(label="A")))
    run("import_workflow", file, "--publish")
    out, _ = run("import_workflow", file, "--publish")
    row = Workflow.objects.get()
    assert out == (
        f"Changed the draft of the existing workflow Flow {row.pk}: "
        "unchanged, version 1 stays live.\n"
    )
    assert row.versions.count() == 1


def test_failing_golden_run_stops_an_import_until_accepted(tmp_path: Path) -> None:
    file = written(tmp_path / "a.json", workflow(form(dataKey="form")))
    row = Workflow.objects.get(pk=imported(file)[0]["id"])
    save_golden_run(row.pk, name="Small", context={}, expected={"sum": 1}, by="eve")
    assert refused("import_workflow", file, "--publish") == (
        f"{file}: Small: the payload is another one than expected\nNothing was imported.",
        1,
    )
    told = imported(file, "--publish", "--accept-failing-golden-runs")
    assert told[0]["version"] == 1
