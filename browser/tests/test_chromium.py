"""Which browser is taken, and what is said where there is none."""

from pathlib import Path

import pytest

from browser.chromium import NoBrowser, find_chromium


def test_given_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMIUM", "/somewhere/chromium")
    assert find_chromium(__file__) == "/somewhere/chromium"


def test_systems_comes_before_playwrights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_chromium(__file__) == __file__
    program = tmp_path / "chromium"
    program.write_text("")
    program.chmod(0o755)
    assert find_chromium(__file__) == str(program)


def test_none_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoBrowser, match="no Chromium on the path"):
        find_chromium(str(tmp_path / "none"))
