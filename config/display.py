"""How the back office shows values: badges, times, durations, JSON. HTML is built with `format_html`.

Apart from `back_office`: Unfold renders a widget while it is imported, which loads template tags.
"""

import json
from datetime import UTC, datetime
from typing import Final

from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers.data import JsonLexer

from config.jsonvalues import JsonValue

NOTHING: Final = "-"

TONES: Final = {
    # executions
    "PENDING": "waiting",
    "IN_PROGRESS": "busy",
    "COMPLETED": "good",
    "FAILED": "bad",
    "CANCELLED": "plain",
    # runs and operator actions
    "QUEUED": "waiting",
    "WAITING": "waiting",
    "RUNNING": "busy",
    "STARTED": "busy",
    "SUCCEEDED": "good",
    "REJECTED": "doubt",
    "UNKNOWN": "doubt",
    "PARKED": "bad",
    "NOT_SENT": "plain",
    "SETTLED": "plain",
    # steps
    "OPEN": "plain",
    "CURRENT": "busy",
    "PASSED": "good",
    "SKIPPED": "plain",
    # partners
    "OK": "good",
    "DEGRADED": "doubt",
    "BLOCKED": "bad",
}
"""A badge's colour by its status. Colour says nothing that the text does not say too."""


def badge(status: str, text: str = "") -> SafeString:
    """A status with its colour; without a text of its own it is the status in words."""
    tone = TONES.get(status, "plain")
    return format_html(
        '<span class="hr-badge hr-badge-{}" data-status="{}">{}</span>',
        tone,
        status,
        text or in_words(status),
    )


def in_words(status: str) -> str:
    """`IN_PROGRESS` as people say it: In progress."""
    return status.replace("_", " ").capitalize()


def moment(at: datetime | None) -> SafeString | str:
    """A time in UTC to the second; the script puts the reader's own time into the title."""
    if at is None:
        return NOTHING
    at = at.astimezone(UTC)
    return format_html(
        '<time class="hr-moment" datetime="{}" title="UTC">{}</time>',
        at.isoformat(),
        at.strftime("%Y-%m-%d %H:%M:%S"),
    )


def duration(milliseconds: float | None) -> str:
    """As long as it needs to be told: 840 ms, 2.3 s, 1 min 5 s, 3 h 20 min, 2 d 4 h."""
    if milliseconds is None:
        return NOTHING
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 59_950:
        return f"{milliseconds / 1000:.1f} s"
    seconds = round(milliseconds / 1000)
    for below, unit, name, part, part_name in _UNITS:
        if seconds < below:
            rest = seconds % unit // part
            return f"{seconds // unit} {name}" + (f" {rest} {part_name}" if rest else "")
    return f"{seconds // 86_400} d"


_UNITS: Final = (
    (3600, 60, "min", 1, "s"),
    (86_400, 3600, "h", 60, "min"),
    (8_640_000, 86_400, "d", 3600, "h"),
)


def json_block(value: JsonValue) -> SafeString:
    """JSON, indented and coloured, with its text escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if len(text) > _COLOURED_CHARACTERS:
        return format_html('<pre class="hr-json" tabindex="0">{}</pre>', text)
    coloured = highlight(text, JsonLexer(), HtmlFormatter(nowrap=True, classprefix="hl-"))
    escaped = mark_safe(coloured)  # noqa: S308 - Pygments escapes what it colours
    return format_html('<pre class="hr-json" tabindex="0">{}</pre>', escaped)


_COLOURED_CHARACTERS: Final = 50_000  # colouring takes 1 ms for 5,000


def text_block(text: str) -> SafeString:
    """Text as it was written, line breaks included."""
    return format_html('<div class="hr-text">{}</div>', text)
