"""On whose behalf: the innermost door's word, asked for only when it is wanted."""

import getpass

import pytest

from config.actors import acting, acting_as, command_line


def test_the_innermost_door_counts_and_then_the_outer_again() -> None:
    with acting_as("staff"):
        with acting_as(lambda: "token-subject"):
            assert acting() == "token-subject"
        assert acting() == "staff"


def test_without_a_door_it_is_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "pat")
    assert acting() == "command line (pat)"
    with acting_as(""):
        assert acting() == "command line (pat)"


def test_a_process_without_a_user_name_has_a_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError(12345)

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert command_line() == "command line"


def test_nobody_is_asked_before_it_is_wanted() -> None:
    asked = []

    def who() -> str:
        asked.append(1)
        return "x" * 300

    with acting_as(who):
        assert asked == []
        assert acting() == "x" * 255
