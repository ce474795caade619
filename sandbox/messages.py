"""A request as the sandbox partner reads it and an answer as it gives it. Pure values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from config.jsonvalues import MAX_DEPTH, JsonObject, JsonValue, check_storable, dump_compact

Headers = tuple[tuple[str, str], ...]

_CALLBACK_NAME = "callbackUrl"


class NotAnObject(ValueError):
    """JSON, but not the object that was expected."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call; header names are in lower case, `path` is as it was sent, `query` undecoded."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return self.headers.get("idempotency-key", "")

    @property
    def callback_url(self) -> str:
        """Where the caller wants a result that comes later; "" when it names no place."""
        return callback_url_of(self.headers, self.body)

    @property
    def segments(self) -> list[str]:
        return [unquote(segment) for segment in self.path.split("/")[1:]]

    @property
    def parameters(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Later:
    """A result that goes to the callback URL; `delay_ms` None is the partner's usual delay."""

    body: JsonValue
    delay_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a status, the bytes of the body, and headers besides type and length.

    With `later` the result follows by a callback, for each repeat of the call anew.
    """

    status: int
    body: bytes
    headers: Headers = ()
    content_type: str = "application/json"
    later: Later | None = None


def json_answer(value: JsonValue, status: int = 200, headers: Headers = ()) -> Answer:
    return Answer(status, dump_compact(value), headers)


def message_answer(status: int, message: str, headers: Headers = (), **more: JsonValue) -> Answer:
    """A refusal in the partner's one shape: `{"message": …}` and what else helps."""
    return json_answer({"message": message, **more}, status, headers)


def parse_json(body: bytes) -> JsonValue:
    """The value of a UTF-8 JSON text; ValueError for everything that cannot be answered as JSON."""
    try:
        value: JsonValue = json.loads(body.decode(), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    # Only escapes can smuggle surrogates in, and only many brackets can nest deeply.
    if b"\\u" in body or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        check_storable(value)
    return value


def parse_json_object(body: bytes) -> JsonObject:
    """As `parse_json`, and the value has to be an object."""
    value = parse_json(body)
    if not isinstance(value, dict):
        raise NotAnObject("the body must be a JSON object")
    return value


def callback_url_of(headers: Mapping[str, str], body: bytes) -> str:
    """The header X-Callback-Url, else the body's own `callbackUrl`, else ""."""
    given = headers.get("x-callback-url", "")
    if given or _CALLBACK_NAME.encode() not in body:
        return given
    try:
        value = parse_json(body)
    except ValueError:
        return ""
    url = value.get(_CALLBACK_NAME) if isinstance(value, dict) else None
    return url if isinstance(url, str) else ""


def is_callback_url(url: str) -> bool:
    """Can a callback be posted there? An http or https URL with a host and no credentials."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and has_host and "@" not in parts.netloc


def without_callback_url(value: JsonValue) -> JsonValue:
    """What was asked, without the place that the answer goes to."""
    if not isinstance(value, dict):
        return value
    return {name: part for name, part in value.items() if name != _CALLBACK_NAME}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
