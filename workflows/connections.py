"""Partner systems as the engine calls them, and the one function that registers or changes them.

Read at every trigger, so each is kept in process for two seconds: a changed credential or
permission counts that much later. `default` is `TRIGGER_BASE_URL` unless a connection of that name
is registered. Credentials are sealed with the connection's id and never shown again, in no text and
no `repr`.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from config.crypto import Unsealable, seal, unseal
from workflows.egress import check_header_name, is_absolute, origin_of, resolve_endpoint
from workflows.enums import AuthKind
from workflows.errors import DefinitionError, EndpointForbidden, Problem
from workflows.models import Connection
from workflows.routing import (
    DEFAULT_CONNECTION,
    ConnectionFacts,
    choose_by_origin,
    credential_header,
)

logger = logging.getLogger("handrail.workflows")

KEPT_SECONDS: Final = 2.0
MAX_KEPT: Final = 256

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class ConnectionValue:
    """One partner system: where it is, how to prove who is calling, and what is allowed.

    A `callback_secret` of "" means that its callbacks need no signature.
    """

    name: str
    base_url: str
    allow_private: bool = False
    auth_kind: AuthKind = AuthKind.NONE
    username: str = ""
    secret: str = field(default="", repr=False)
    header_name: str = ""
    callback_secret: str = field(default="", repr=False)


def connection_by_name(name: str) -> ConnectionValue:
    """The connection. Raises EndpointForbidden when there is none of that name."""
    return _kept.get(f"name:{name}", lambda: _load_by_name(name))


def connection_for(name: str, endpoint: str) -> tuple[ConnectionValue, str]:
    """The connection that may call the rendered endpoint, and the absolute URL to call.

    Without a name an absolute endpoint belongs to the one connection of its origin, a relative one
    to `default`. Raises EndpointForbidden.
    """
    if name or not is_absolute(endpoint):
        connection = connection_by_name(name or DEFAULT_CONNECTION)
    else:
        origin = origin_of(endpoint)
        connection = _kept.get(f"origin:{origin}", lambda: _load_by_origin(origin))
    return connection, resolve_endpoint(endpoint=endpoint, base_url=connection.base_url)


def keep_connections(names: Iterable[str]) -> None:
    """Read those that are not kept, all in one query, for who will ask for several of them.

    "" stands for `default`. One that cannot be opened is refused when it is asked for.
    """
    wanted = {name or DEFAULT_CONNECTION for name in names}
    new = {name for name in wanted if not _kept.has(f"name:{name}")}
    if not new:
        return
    rows = {row.name: row for row in Connection.objects.filter(name__in=new)}
    for name in new:
        with suppress(EndpointForbidden):
            _kept.get(f"name:{name}", partial(_value_or_default, name, rows.get(name)))


def connection_facts() -> dict[str, ConnectionFacts]:
    """Every connection by its name, for checking a draft. One query, no credentials are opened."""
    facts = {}
    if settings.TRIGGER_BASE_URL:
        facts[DEFAULT_CONNECTION] = ConnectionFacts(settings.TRIGGER_BASE_URL)
    for row in Connection.objects.only("name", "base_url", "auth_kind", "header_name"):
        header = credential_header(AuthKind(row.auth_kind), row.header_name)
        facts[row.name] = ConnectionFacts(row.base_url, header)
    return facts


def set_connection(
    *,
    name: str,
    base_url: str,
    auth_kind: AuthKind = AuthKind.NONE,
    secret: str | None = None,
    username: str = "",
    header_name: str = "",
    allow_private: bool = False,
    callback_secret: str | None = None,
    only_new: bool = False,
) -> tuple[Connection, bool]:
    """Register the connection or change the one of that name; says whether it is new.

    `only_new`: who registers one may not be allowed to change the one that has the name already.

    A `secret` of None keeps the one there is, if origin and kind of authentication stay: nobody
    gets a secret sent elsewhere without knowing it. A `callback_secret` of None keeps the one there
    is, "" removes it. Raises DefinitionError with every problem.
    """
    with transaction.atomic():
        row = Connection.objects.select_for_update().filter(name=name).first()
        is_new = row is None
        row = row or Connection(name=name)
        keeps_secret = secret is None and _may_keep_secret(row, base_url, auth_kind)
        problems = _connection_problems(
            name=name,
            base_url=base_url,
            auth_kind=auth_kind,
            has_secret=keeps_secret or bool(secret),
            secret=secret or "",
            username=username,
            header_name=header_name,
            callback_secret=callback_secret or "",
        )
        if only_new and not is_new:
            problems.append(Problem("name", "is that of another connection"))
        if problems:
            raise DefinitionError(problems)
        row.base_url = base_url
        row.origin = origin_of(base_url)
        row.auth_kind = auth_kind.value
        row.username = username
        row.header_name = header_name
        row.allow_private = allow_private
        row.updated_at = timezone.now()
        if not keeps_secret:
            row.secret = _sealed(secret, binding=_binding(row))
        if callback_secret is not None:
            row.callback_secret = _sealed(callback_secret, binding=_callback_binding(row))
        if not is_new and (secret or callback_secret is not None):
            row._change_reason = "credentials changed"  # type: ignore[attr-defined]  # noqa: SLF001 - simple-history's
        _save(row)
    forget_connections()
    return row, is_new


def _save(row: Connection) -> None:
    """Raises DefinitionError when somebody else was faster to register the name."""
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError as error:
        if not Connection.objects.filter(name=row.name).exclude(pk=row.pk).exists():
            raise
        problem = Problem("name", "is that of a connection registered just now; look at it first")
        raise DefinitionError([problem]) from error


def forget_connections() -> None:
    """Read every connection anew at its next use."""
    _kept.clear()


class _KeptForSeconds:
    """A bounded cache whose entries live two seconds."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[float, ConnectionValue]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, load: Callable[[], ConnectionValue]) -> ConnectionValue:
        now = time.monotonic()
        entry = self._entries.get(key)
        if entry is not None and now < entry[0]:
            return entry[1]
        value = load()
        with self._lock:
            self._entries[key] = (now + KEPT_SECONDS, value)
            self._entries.move_to_end(key)
            if len(self._entries) > MAX_KEPT:
                self._entries.popitem(last=False)
        return value

    def has(self, key: str) -> bool:
        entry = self._entries.get(key)
        return entry is not None and time.monotonic() < entry[0]

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()


_kept = _KeptForSeconds()


def _load_by_name(name: str) -> ConnectionValue:
    return _value_or_default(name, Connection.objects.filter(name=name).first())


def _value_or_default(name: str, row: Connection | None) -> ConnectionValue:
    if row is not None:
        return _value_of(row)
    if name == DEFAULT_CONNECTION and settings.TRIGGER_BASE_URL:
        return _default_connection()
    raise _forbidden(f"there is no connection {name}")


def _load_by_origin(origin: str) -> ConnectionValue:
    rows = {row.name: row for row in Connection.objects.filter(origin=origin)}
    bases = {name: row.base_url for name, row in rows.items()}
    if settings.TRIGGER_BASE_URL and not _default_is_registered():
        bases[DEFAULT_CONNECTION] = settings.TRIGGER_BASE_URL
    name = choose_by_origin(origin, bases)
    return _value_of(rows[name]) if name in rows else _default_connection()


def _default_is_registered() -> bool:
    return Connection.objects.filter(name=DEFAULT_CONNECTION).exists()


def _default_connection() -> ConnectionValue:
    return ConnectionValue(
        name=DEFAULT_CONNECTION, base_url=settings.TRIGGER_BASE_URL, allow_private=True
    )


def _value_of(row: Connection) -> ConnectionValue:
    return ConnectionValue(
        name=row.name,
        base_url=row.base_url,
        allow_private=row.allow_private,
        auth_kind=AuthKind(row.auth_kind),
        username=row.username,
        secret=_opened(row.secret, binding=_binding(row), name=row.name),
        header_name=row.header_name,
        callback_secret=_opened(row.callback_secret, binding=_callback_binding(row), name=row.name),
    )


def _opened(sealed: bytes | memoryview | None, *, binding: bytes, name: str) -> str:
    """The secret. One that does not open forbids the connection: "" would ask for no proof."""
    if sealed is None:
        return ""
    try:
        return unseal(bytes(sealed), binding=binding).decode()
    except Unsealable as error:
        logger.error(  # noqa: TRY400 - a traceback would tell nothing more
            "The credentials of connection %s cannot be opened: %s", name, error.reason
        )
        raise _forbidden(f"the credentials of connection {name} cannot be opened") from None


def _sealed(secret: str | None, *, binding: bytes) -> bytes | None:
    return seal(secret.encode(), binding=binding) if secret else None


def _may_keep_secret(row: Connection, base_url: str, auth_kind: AuthKind) -> bool:
    try:
        is_same_origin = row.origin == origin_of(base_url)
    except EndpointForbidden:
        return False
    return row.secret is not None and row.auth_kind == auth_kind and is_same_origin


def _binding(row: Connection) -> bytes:
    return b"connection:" + row.id.bytes


def _callback_binding(row: Connection) -> bytes:
    return b"connection-callback:" + row.id.bytes


def _connection_problems(
    *,
    name: str,
    base_url: str,
    auth_kind: AuthKind,
    has_secret: bool,
    secret: str,
    username: str,
    header_name: str,
    callback_secret: str,
) -> list[Problem]:
    problems = [*_base_url_problems(base_url), *_header_problems(auth_kind, header_name)]
    if not _NAME.fullmatch(name):
        problems.append(
            Problem("name", "must be up to 100 letters, digits, dots, hyphens and underscores")
        )
    if auth_kind is AuthKind.NONE and secret:
        problems.append(Problem("secret", "has no use without authentication"))
    if auth_kind is not AuthKind.NONE and not has_secret:
        problems.append(Problem("secret", f"is required for {auth_kind.value}"))
    for field_name, value in (("secret", secret), ("callback_secret", callback_secret)):
        if any(character in value for character in "\r\n\x00"):
            problems.append(Problem(field_name, "must not hold line breaks or NUL"))
    if (auth_kind is AuthKind.BASIC) is not bool(username):
        wrong = "is required for BASIC" if auth_kind is AuthKind.BASIC else "belongs to BASIC only"
        problems.append(Problem("username", wrong))
    if ":" in username or not username.isprintable() or len(username) > 200:
        problems.append(Problem("username", "must be up to 200 characters without a colon"))
    return problems


def _base_url_problems(base_url: str) -> list[Problem]:
    if len(base_url) > 500:
        return [Problem("base_url", "must have at most 500 characters")]
    if "?" in base_url:
        return [Problem("base_url", "must not have a query")]
    try:
        resolve_endpoint(endpoint="/", base_url=base_url)
    except EndpointForbidden as error:
        return [Problem("base_url", problem.message) for problem in error.problems]
    return []


def _header_problems(auth_kind: AuthKind, header_name: str) -> list[Problem]:
    if auth_kind is not AuthKind.API_KEY:
        return [Problem("header_name", "belongs to API_KEY only")] if header_name else []
    if not header_name:
        return [Problem("header_name", "is required for API_KEY")]
    try:
        check_header_name(header_name)
    except EndpointForbidden as error:
        return [Problem("header_name", problem.message) for problem in error.problems]
    return []


def _forbidden(reason: str) -> EndpointForbidden:
    return EndpointForbidden([Problem("", reason)])
