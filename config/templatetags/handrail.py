"""The parts of `config.display` for templates: `{% load handrail %}`."""

from datetime import datetime
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from config import display
from config.jsonvalues import JsonValue

register = template.Library()


@register.filter
def badge(status: str) -> SafeString:
    """`{{ execution.status|badge }}`"""
    return display.badge(status)


@register.filter
def moment(at: datetime | None) -> SafeString | str:
    """`{{ execution.started_at|moment }}`"""
    return display.moment(at)


@register.filter
def duration(milliseconds: float | None) -> str:
    """`{{ run.duration_ms|duration }}`"""
    return display.duration(milliseconds)


@register.filter
def json_block(value: JsonValue) -> SafeString:
    """`{{ run.result|json_block }}`"""
    return display.json_block(value)


@register.filter
def in_words(status: str) -> str:
    """`{{ step.execution_mode|in_words }}`"""
    return display.in_words(status)


@register.inclusion_tag("handrail/empty.html")
def empty(title: str, text: str = "", url: str = "", label: str = "") -> dict[str, Any]:
    """`{% empty "No runs yet" "The person has not called any step." %}`, with a button if given."""
    return {"title": title, "text": text, "url": url, "label": label}


@register.simple_tag
def module(name: str) -> SafeString:
    """`{% module "mapping" %}` loads `static/handrail/js/mapping.js` as an ES module."""
    return format_html('<script type="module" src="{}"></script>', static(f"handrail/js/{name}.js"))
