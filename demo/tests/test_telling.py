"""What people and machines read."""

import json

from demo.telling import LinesForMachines, LinesForPeople


def lines(
    *, is_coloured: bool = False, encoding: str = "utf-8"
) -> tuple[list[str], LinesForPeople]:
    written: list[str] = []
    return written, LinesForPeople(written.append, is_coloured=is_coloured, encoding=encoding)


def test_a_request_is_a_label_a_sign_and_words() -> None:
    written, tell = lines()
    tell.request("Pay Bill", "paid", mark="good", answer={"success": True})
    assert written == ["  Pay Bill                  ✓ paid"]


def test_a_terminal_that_knows_no_signs_gets_others() -> None:
    written, tell = lines(encoding="ascii")
    tell.request("Pay Bill", "paid")
    assert written == ["  Pay Bill                  ? paid"]


def test_colours_are_for_terminals() -> None:
    written, tell = lines(is_coloured=True)
    tell.verdict("Well done.", is_good=True)
    assert written == ["", "\x1b[32mWell done.\x1b[0m"]


def test_a_screen_without_a_message_is_its_title() -> None:
    written, tell = lines()
    tell.screen("Which bill?", "")
    tell.screen("", "Really?")
    assert [line.split("  ")[-1].strip() for line in written] == ["Which bill?", "“Really?”"]


def test_a_long_document_goes_on_below() -> None:
    written, tell = lines()
    tell.document("its payload", {"text": "word " * 30})
    assert len(written) == 2
    assert written[0].startswith('  its payload               {"text":')
    assert written[1].startswith(" " * 28 + "word")


def test_machines_get_an_object_a_line() -> None:
    written: list[str] = []
    tell = LinesForMachines(written.append)
    tell.chapter("Bill Payment")
    tell.fact("server", "http://127.0.0.1:1", url="http://127.0.0.1:1")
    assert [json.loads(line) for line in written] == [
        {"event": "chapter", "title": "Bill Payment", "note": ""},
        {
            "event": "fact",
            "name": "server",
            "text": "http://127.0.0.1:1",
            "url": "http://127.0.0.1:1",
        },
    ]
