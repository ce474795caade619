"""Logs: one line an event, as JSON or for a console, with the id of the request it belongs to.

Lines go to standard error, so that a command's standard output stays data. No line holds a personal
value: requests are named by their route, never by path or query string, and tracebacks carry no
local variables, nor what PostgreSQL adds to an error: the row. Leaf: imports nothing of ours.
"""

import logging
import logging.config
import re
import secrets
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any

import structlog

request_id: ContextVar[str] = ContextVar("request_id", default="")

# Until the traceback that follows, or the end: a value may hold any lines.
_DETAIL = re.compile(
    r"^(?:DETAIL|CONTEXT|LINE \d+):.*?(?=^\n(?:The above exception|During handling)|\Z)",
    re.DOTALL | re.MULTILINE,
)
_SECRET_PATH = re.compile(r"(/callbacks/)[^/?\s]+")
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def usable_request_id(given: str) -> str:
    """The caller's X-Request-Id when it is harmless in a log line, else a new one."""
    return given if _GIVEN_ID.fullmatch(given) else secrets.token_hex(8)


def _add_request_id(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    if current := request_id.get():
        event["request_id"] = current
    return event


def _name_component(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event["component"] = event["_record"].name
    return event


def _without_rows(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    if trace := event.get("exception"):
        event["exception"] = _DETAIL.sub("DETAIL: [left out]\n", trace)
    return event


_SHARED: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    _add_request_id,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


class MaskedPaths(logging.Filter):
    """For lines of libraries, which may hold a request's path: a callback's is a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Take the secret out, and let every line pass."""
        message = record.getMessage()
        if "/callbacks/" in message:
            record.msg, record.args = _SECRET_PATH.sub(r"\1[token]", message), None
        return True


def _rendering(log_format: str) -> list[structlog.types.Processor]:
    trace: list[structlog.types.Processor] = [structlog.processors.format_exc_info, _without_rows]
    if log_format == "console":
        return [
            *trace,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                sort_keys=False,
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    return [*trace, structlog.processors.JSONRenderer(default=str)]


def logging_config(*, log_format: str, level: str) -> dict[str, Any]:
    """Django's LOGGING; `configure` adds structlog to it."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [*_SHARED, _name_component],
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *_rendering(log_format),
                ],
            }
        },
        "filters": {"masked_paths": {"()": MaskedPaths}},
        "handlers": {
            "stderr": {
                "filters": ["masked_paths"],
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "line",
            }
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Without Django's own handlers, which know nothing of masked paths.
            "django": {"level": "INFO"},
            # Its lines below ERROR repeat our request line, and hold the path.
            "django.request": {"level": "ERROR"},
            # A stranger's Host is a 400 in the request line, not a traceback.
            "django.security.DisallowedHost": {"level": "CRITICAL"},
            # runserver's access lines hold query strings.
            "django.server": {"level": "ERROR"},
            "psycopg.pool": {"level": "ERROR"},
        },
    }


def configure(config: Mapping[str, Any]) -> None:
    """Set up logging and structlog: what LOGGING_CONFIG names."""
    logging.config.dictConfig(dict(config))
    formatter = config["formatters"]["line"]
    structlog.configure(
        # Straight to the stream, past the standard library's records: a request's line costs a
        # fifth.
        processors=[*_SHARED, *formatter["processors"][1:]],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[config["root"]["level"]]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> structlog.types.FilteringBoundLogger:
    """A logger whose lines carry `component=name`; keyword arguments become fields."""
    logger: structlog.types.FilteringBoundLogger = structlog.get_logger(component=name)
    return logger
