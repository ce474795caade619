"""Views every page in a process of its own, which has seen none before, and once more; tells JSON.

`House.ask` runs it in Handrail's settings; the file that BENCH_PAGES names has what `office_world`
told. The process forks once for each view and opens no connection itself: a child knows what a
worker of the server knows when it has just begun. What a page asks is counted below Django's ORM.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from wsgiref.util import setup_testing_defaults

from django.conf import settings
from django.db import connection

from bench.plans import nodes_of
from config.wsgi import application

TOKEN = "t" * 32
"""Of a form: cookie and header say the same, which only the site itself can bring about."""


def main() -> None:
    """Look at each page as the person whom it names."""
    told = json.loads(Path(os.environ["BENCH_PAGES"]).read_text())
    seen = [
        _in_a_child(partial(_views, page, told["sessions"][page["who"]])) for page in told["pages"]
    ]
    json.dump(seen, sys.stdout)


def _in_a_child(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a fork of this process makes of it."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writable, "w") as pipe:
                json.dump(look(), pipe)
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        found: dict[str, Any] = json.load(pipe)
    os.waitpid(child, 0)
    return found


def _views(page: Mapping[str, Any], cookie: str) -> dict[str, Any]:
    asked: list[tuple[str, Any]] = []

    def note(execute: Callable[..., Any], sql: str, params: Any, *more: Any) -> Any:
        asked.append((sql, params))
        return execute(sql, params, *more)

    with connection.execute_wrapper(note):
        begun = time.perf_counter()
        status, _ = view(page, cookie)
        first_ms = (time.perf_counter() - begun) * 1000
        first = list(asked)
        asked.clear()
        _, size = view(page, cookie)
        warm = len(asked)
    nodes = sorted({node for sql, params in first for node in nodes_of(sql, params)})
    return {
        "status": status,
        "first": len(first),
        "firstMs": first_ms,
        "warm": warm,
        "bytes": size,
        "nodes": nodes,
    }


def view(page: Mapping[str, Any], cookie: str) -> tuple[int, int]:
    """Status and size of the answer of Handrail's own WSGI application."""
    statuses: list[str] = []
    environ = _environ(page, cookie)
    answer = application(environ, lambda status, _headers, *_: statuses.append(status))  # type: ignore[arg-type]  # any callable
    size = sum(map(len, answer))
    answer.close()
    return int(statuses[0].split()[0]), size


def _environ(page: Mapping[str, Any], cookie: str) -> dict[str, Any]:
    address = urlsplit(page["address"])
    environ: dict[str, Any] = {
        "PATH_INFO": address.path,
        "QUERY_STRING": address.query,
        "HTTP_HOST": "127.0.0.1",
        "HTTP_COOKIE": f"{settings.SESSION_COOKIE_NAME}={cookie}; csrftoken={TOKEN}",
        "REMOTE_ADDR": "127.0.0.1",
    }
    if page["posted"]:
        body = urlencode(page["posted"], doseq=True).encode()
        environ |= {
            "REQUEST_METHOD": "POST",
            "HTTP_X_CSRFTOKEN": TOKEN,
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": BytesIO(body),
        }
    setup_testing_defaults(environ)
    return environ
