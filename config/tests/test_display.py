"""The small parts of the back office's pages: what they say, and that text stays text."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from django.template import Context, Template

from config.display import TONES, badge, duration, json_block, moment, text_block

SCRIPT = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (None, "-"),
        (0, "0 ms"),
        (840, "840 ms"),
        (999.6, "1000 ms"),
        (1000, "1.0 s"),
        (59_949, "59.9 s"),
        (59_950, "1 min"),  # never "60.0 s"
        (65_000, "1 min 5 s"),
        (3_599_600, "1 h"),  # never "59 min 60 s"
        (12_000_000, "3 h 20 min"),
        (187_200_000, "2 d 4 h"),
        (8_640_000_000, "100 d"),
    ],
)
def test_duration_is_told_as_long_as_needed(milliseconds: float | None, words: str) -> None:
    assert duration(milliseconds) == words


def test_moment_is_utc_whatever_zone_it_came_in() -> None:
    at = datetime(2026, 3, 1, 1, 30, 5, tzinfo=timezone(timedelta(hours=2)))
    assert moment(at) == (
        '<time class="hr-moment" datetime="2026-02-28T23:30:05+00:00" title="UTC">'
        "2026-02-28 23:30:05</time>"
    )
    assert moment(None) == "-"


def test_badge_says_the_status_in_words() -> None:
    assert badge("IN_PROGRESS") == (
        '<span class="hr-badge hr-badge-busy" data-status="IN_PROGRESS">In progress</span>'
    )
    assert 'hr-badge-plain" data-status="&lt;b&gt;">&lt;b&gt;<' in badge("<b>")


def test_every_tone_has_its_colours() -> None:
    sheet = (Path(__file__).resolve().parents[1] / "static/handrail/admin.css").read_text()
    assert {tone for tone in TONES.values() if f".hr-badge-{tone} " not in sheet} == set()


@pytest.mark.parametrize("size", [1, 60_000], ids=["coloured", "plain"])
def test_json_shows_script_as_text(size: int) -> None:
    shown = json_block({"<b>": SCRIPT, "n": 12345678901234567890, "long": "x" * size})
    assert "<script" not in shown
    assert "<b>" not in shown
    assert "&lt;script&gt;" in shown
    assert "12345678901234567890" in shown
    assert "<script" not in text_block(SCRIPT)


def test_tags_are_the_same_parts() -> None:
    template = Template(
        "{% load handrail %}{{ s|badge }}{{ ms|duration }}{{ j|json_block }}{{ at|moment }}"
        "{{ s|in_words }}{% empty title text %}"
    )
    context = {"s": "PASSED", "ms": 5, "j": [SCRIPT], "at": datetime(2026, 1, 2, tzinfo=UTC)}
    shown = template.render(Context({**context, "title": SCRIPT, "text": SCRIPT}))
    assert "<script" not in shown
    assert badge("PASSED") in shown
    assert "5 ms" in shown
    assert "2026-01-02 00:00:00" in shown
    assert "alert(1)" in shown
