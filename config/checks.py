"""Wrong settings stop the start: system checks, each a sentence and a hint.

`manage.py` runs them before every command; `config/wsgi.py` before it serves.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import limits
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register, run_checks  # noqa: A004 - its name
from redis.connection import parse_url

from config import crypto, identity, killpoints, task_api
from config.addresses import trusted_networks

MIN_SECRET_CHARACTERS = 32
MIN_METRICS_TOKEN_CHARACTERS = 16
TAG = "handrail"

_NEW_KEY = (
    "Make one with: python -c 'import base64, os; "
    "print(base64.urlsafe_b64encode(os.urandom(32)).decode())'."
)
_NEW_SECRET = "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'."  # noqa: S105 - advice


class SettingsRefused(SystemExit):
    """Wrong settings: ends the process with 1, the sentences on standard error."""


def refuse_wrong_settings() -> None:
    """For servers, which run no checks of their own. Raises SettingsRefused with every sentence."""
    errors = [message for message in run_checks(tags=[TAG]) if message.is_serious()]
    if errors:
        told = "\n".join(f"{error.id}: {error.msg} {error.hint or ''}".rstrip() for error in errors)
        raise SettingsRefused(f"Handrail does not start: wrong settings.\n{told}")


@register(TAG)
def check_settings(**_kwargs: Any) -> list[CheckMessage]:
    """Every problem with the settings, in the order of `.env.example`."""
    return [
        *_unreadable(),
        *_secret_key(),
        *_urls(),
        *_proxies(),
        *_redis(),
        *_task_backend(),
        *_tokens(),
        *_encryption_keys(),
        *_rates(),
        *_metrics(),
        *_kill_point(),
    ]


@register(Tags.security, deploy=True)
def check_deployment(**_kwargs: Any) -> list[CheckMessage]:
    """What is no mistake everywhere, but often one in production."""
    if settings.SECURE_SSL and not settings.TRUSTED_PROXIES:
        return [
            Warning(
                "SECURE_SSL is on and TRUSTED_PROXIES is empty: behind a proxy that ends TLS, "
                "every request is redirected for ever.",
                hint="Name the proxy's network in TRUSTED_PROXIES, or let the server speak TLS.",
                id="handrail.W002",
            )
        ]
    return []


def _unreadable() -> Iterator[CheckMessage]:
    for problem in settings.SETTING_PROBLEMS:
        yield Error(problem.message, hint=problem.hint, id="handrail.E001")


def _secret_key() -> Iterator[CheckMessage]:
    if settings.DEBUG:
        return
    if settings.SECRET_KEY == settings.DEVELOPMENT_SECRET:
        yield Error(
            "SECRET_KEY is the development key, which everybody knows.",
            hint=_NEW_SECRET,
            id="handrail.E002",
        )
    elif len(settings.SECRET_KEY) < MIN_SECRET_CHARACTERS:
        yield Error(
            f"SECRET_KEY has fewer than {MIN_SECRET_CHARACTERS} characters.",
            hint=_NEW_SECRET,
            id="handrail.E002",
        )


def _urls() -> Iterator[CheckMessage]:
    for name in ("PUBLIC_BASE_URL", "TRIGGER_BASE_URL", "JWT_JWKS_URL"):
        value = getattr(settings, name)
        if value and not _is_http_url(value):
            yield Error(
                f"{name} is no http or https URL.",
                hint="Use a URL such as https://api.example.com, without credentials or query.",
                id="handrail.E003",
            )
    if not settings.DEBUG and settings.JWT_JWKS_URL.startswith("http://"):
        yield Error(
            "JWT_JWKS_URL is plain HTTP: whoever sits on the line could sign tokens.",
            hint="Use https.",
            id="handrail.E003",
        )


def _is_http_url(value: str) -> bool:
    if any(character.isspace() or character in '\\"<>' for character in value):
        return False
    try:
        parts = urlsplit(value)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        return False
    has_extras = "@" in parts.netloc or bool(parts.query) or bool(parts.fragment)
    return (
        parts.scheme in {"http", "https"}
        and bool(parts.hostname)
        and port_is_good
        and not has_extras
    )


def _proxies() -> Iterator[CheckMessage]:
    try:
        trusted_networks(tuple(settings.TRUSTED_PROXIES))
    except ValueError:
        yield Error(
            "TRUSTED_PROXIES holds something that is no address and no network.",
            hint="Use a list such as 10.0.0.0/8,192.168.1.4; a network's host bits are zero.",
            id="handrail.E004",
        )


def _redis() -> Iterator[CheckMessage]:
    if not settings.REDIS_URL:
        return
    try:
        parse_url(settings.REDIS_URL)  # type: ignore[no-untyped-call]  # redis has no types for it
    except ValueError:
        yield Error(
            "REDIS_URL cannot be read as a URL.",
            hint="Use redis://host:6379/0, rediss://… for TLS, or unix:///path/to/socket.",
            id="handrail.E005",
        )


def _task_backend() -> Iterator[CheckMessage]:
    if not task_api.is_usable():
        yield Error(
            f"TASK_BACKEND is {settings.TASK_BACKEND!r}, which cannot be loaded as a Tasks backend.",
            hint="Name an installed one, such as django_tasks_db.DatabaseBackend.",
            id="handrail.E010",
        )
    elif settings.TASK_BACKEND.startswith("django_tasks_rq.") and not settings.REDIS_URL:
        yield Error(
            "TASK_BACKEND keeps wake-ups in Redis, and REDIS_URL is not set.",
            hint="Set REDIS_URL.",
            id="handrail.E010",
        )
    else:
        yield from task_api.task_backends[task_api.DEFAULT].check()


def _tokens() -> Iterator[CheckMessage]:
    try:
        identity.check_configuration()
    except identity.TokensMisconfigured as error:
        yield Error(
            f"Bearer tokens cannot be checked: {str(error).rstrip('.')}.",
            hint="Set JWT_SECRET (32 bytes or more), JWT_PUBLIC_KEY (PEM) or JWT_JWKS_URL.",
            id="handrail.E006",
        )
    if not settings.DEBUG and settings.JWT_SECRET == settings.DEVELOPMENT_SECRET:
        yield Error(
            "JWT_SECRET is the development secret, which everybody knows.",
            hint=_NEW_SECRET,
            id="handrail.E006",
        )


def _encryption_keys() -> Iterator[CheckMessage]:
    keys: Sequence[str] = settings.FIELD_ENCRYPTION_KEYS
    if not keys:
        yield Error("FIELD_ENCRYPTION_KEYS is not set.", hint=_NEW_KEY, id="handrail.E007")
    for number, key in enumerate(keys, start=1):
        try:
            crypto.parse_key(key)
        except ValueError as error:
            yield Error(
                f"FIELD_ENCRYPTION_KEYS, key {number}: {error}.", hint=_NEW_KEY, id="handrail.E007"
            )
    if not settings.DEBUG and settings.DEVELOPMENT_ENCRYPTION_KEY in keys:
        yield Error(
            "FIELD_ENCRYPTION_KEYS holds the development key, which everybody knows.",
            hint=_NEW_KEY,
            id="handrail.E007",
        )


def _rates() -> Iterator[CheckMessage]:
    for name in ("RATE_LIMIT_USER", "RATE_LIMIT_ADDRESS", "RATE_LIMIT_SIGN_IN"):
        try:
            limits.parse(getattr(settings, name))
        except ValueError:
            yield Error(
                f"{name} is {getattr(settings, name)[:40]!r}, which is no rate.",
                hint="Use a number and a time, such as 240/minute or 10/second.",
                id="handrail.E008",
            )


def _metrics() -> Iterator[CheckMessage]:
    token = settings.METRICS_TOKEN
    if token and (len(token) < MIN_METRICS_TOKEN_CHARACTERS or not token.isascii()):
        yield Error(
            f"METRICS_TOKEN needs {MIN_METRICS_TOKEN_CHARACTERS} characters or more, all ASCII.",
            hint=_NEW_SECRET,
            id="handrail.E009",
        )
    folder = settings.PROMETHEUS_MULTIPROC_DIR
    if folder and not (Path(folder).is_dir() and os.access(folder, os.W_OK)):
        yield Error(
            "PROMETHEUS_MULTIPROC_DIR is no folder that can be written to.",
            hint="Make it, empty, before the server starts.",
            id="handrail.E009",
        )


def _kill_point() -> Iterator[CheckMessage]:
    if os.environ.get(killpoints.VARIABLE):
        yield Warning(
            f"{killpoints.VARIABLE} is set: this process will kill itself.",
            hint="Only tests set it; unset it.",
            id="handrail.W001",
        )
