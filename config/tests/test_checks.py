"""Wrong settings stop the start with a sentence: each check, and the start itself in a process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage

from config.checks import check_deployment, check_settings

pytestmark = pytest.mark.own_stores

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
PRODUCTION = {
    "SECRET_KEY": "s" * 50,
    "JWT_SECRET": "j" * 32,
    "FIELD_ENCRYPTION_KEYS": KEY,
    "DATABASE_URL": "sqlite://:memory:",
}


@pytest.fixture
def production(settings: Any) -> Any:
    """Settings as they should be with DEBUG off; a test spoils one."""
    settings.DEBUG = False
    settings.SETTING_PROBLEMS = ()
    settings.SECRET_KEY = PRODUCTION["SECRET_KEY"]
    settings.JWT_SECRET = PRODUCTION["JWT_SECRET"]
    settings.JWT_PUBLIC_KEY = settings.JWT_JWKS_URL = ""
    settings.FIELD_ENCRYPTION_KEYS = [KEY]
    return settings


def ids(found: list[CheckMessage]) -> list[str]:
    return [str(message.id) for message in found]


def test_good_settings_have_no_problem(production: Any) -> None:
    assert check_settings() == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SECRET_KEY", "short", "handrail.E002"),
        ("SECRET_KEY", "insecure-development-secret-never-use-this-in-production", "handrail.E002"),
        ("PUBLIC_BASE_URL", "handrail.example.com", "handrail.E003"),
        ("PUBLIC_BASE_URL", "https://user:pass@handrail.example.com", "handrail.E003"),
        ("TRIGGER_BASE_URL", "ftp://bank.example.com", "handrail.E003"),
        ("TRIGGER_BASE_URL", "http://a\\@b/", "handrail.E003"),
        ("TRIGGER_BASE_URL", "http://bank.example.com:99999", "handrail.E003"),
        ("TRUSTED_PROXIES", ("10.0.0.1/8",), "handrail.E004"),
        ("TRUSTED_PROXIES", ("proxy",), "handrail.E004"),
        ("REDIS_URL", "http://redis:6379", "handrail.E005"),
        ("JWT_SECRET", "", "handrail.E006"),
        ("JWT_SECRET", "j" * 31, "handrail.E006"),
        ("JWT_SECRET", "insecure-development-secret-never-use-this-in-production", "handrail.E006"),
        ("JWT_PUBLIC_KEY", "both a secret and a key", "handrail.E006"),
        ("FIELD_ENCRYPTION_KEYS", [], "handrail.E007"),
        ("FIELD_ENCRYPTION_KEYS", [KEY, "dG9vIHNob3J0"], "handrail.E007"),
        (
            "FIELD_ENCRYPTION_KEYS",
            ["aGFuZHJhaWwtZGV2ZWxvcG1lbnQta2V5LTMyLWJ5dGU="],
            "handrail.E007",
        ),
        ("RATE_LIMIT_USER", "often", "handrail.E008"),
        ("RATE_LIMIT_ADDRESS", "10/fortnight", "handrail.E008"),
        ("METRICS_TOKEN", "short", "handrail.E009"),
        ("PROMETHEUS_MULTIPROC_DIR", "no/such/folder", "handrail.E009"),
    ],
)
def test_wrong_setting_is_one_error_with_a_hint(
    production: Any, name: str, value: object, expected: str
) -> None:
    setattr(production, name, value)
    found = check_settings()
    assert ids(found) == [expected]
    assert found[0].hint
    assert found[0].is_serious()


def test_keys_are_not_told(production: Any) -> None:
    production.FIELD_ENCRYPTION_KEYS = ["dG9vIHNob3J0"]
    production.JWT_SECRET = "y" * 31
    told = "".join(f"{message.msg}{message.hint}" for message in check_settings())
    assert "dG9vIHNob3J0" not in told
    assert "yyy" not in told


def test_key_set_over_plain_http_is_refused(production: Any) -> None:
    production.JWT_SECRET = ""
    production.JWT_JWKS_URL = "http://login.example.com/keys"
    assert ids(check_settings()) == ["handrail.E003"]


def test_task_backend_on_redis_needs_redis(production: Any) -> None:
    production.TASK_BACKEND = "django_tasks_rq.RQBackend"
    production.REDIS_URL = ""
    assert ids(check_settings()) == ["handrail.E010"]


def test_kill_point_is_a_warning(production: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDRAIL_KILL_POINT", "after-intent")
    assert ids(check_settings()) == ["handrail.W001"]


def test_tls_behind_an_unnamed_proxy_is_a_deployment_warning(settings: Any) -> None:
    settings.SECURE_SSL = True
    settings.TRUSTED_PROXIES = ()
    assert ids(check_deployment()) == ["handrail.W002"]
    settings.TRUSTED_PROXIES = ("10.0.0.0/8",)
    assert check_deployment() == []


def start(arguments: list[str], **variables: str) -> "subprocess.CompletedProcess[str]":
    """A process with these variables and no other setting."""
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": "", **variables}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


IMPORT_WSGI = ["-c", "import config.wsgi"]
COMMAND = ["manage.py", "check"]


@pytest.mark.parametrize("arguments", [IMPORT_WSGI, COMMAND])
def test_production_starts_when_everything_is_set(arguments: list[str]) -> None:
    ended = start(arguments, **PRODUCTION)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [IMPORT_WSGI, COMMAND])
def test_nothing_set_names_all_that_is_missing_without_a_traceback(arguments: list[str]) -> None:
    ended = start(arguments, DATABASE_URL="sqlite://:memory:")
    assert ended.returncode == 1
    assert "SECRET_KEY is not set." in ended.stderr
    assert "none of JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS_URL is set." in ended.stderr
    assert "FIELD_ENCRYPTION_KEYS is not set." in ended.stderr
    assert "Traceback" not in ended.stderr


WRONG = {
    "DEBUG": ("maybe", "DEBUG is 'maybe', which is neither yes nor no."),
    "SESSION_TTL_SECONDS": ("0", "SESSION_TTL_SECONDS is 0, which is out of range."),
    "SYNC_BUDGET_MS": ("1 minute", "SYNC_BUDGET_MS is '1 minute', which is no whole number."),
    "LOG_FORMAT": ("xml", "LOG_FORMAT is 'xml'."),
    "DATABASE_URL": ("nonsense", "DATABASE_URL is no PostgreSQL or SQLite URL."),
    "REDIS_URL": ("redis://h:port/0", "REDIS_URL cannot be read as a URL."),
    "PUBLIC_BASE_URL": ("http://[::1", "PUBLIC_BASE_URL is no http or https URL."),
    "TASK_BACKEND": ("nowhere.Backend", "TASK_BACKEND is 'nowhere.Backend', which cannot be "),
    "JWT_PUBLIC_KEY": ("no PEM", "Bearer tokens cannot be checked"),
}
OTHERWISE_WRONG = {
    "TASK_BACKEND": ("json.JSONDecoder", "TASK_BACKEND is 'json.JSONDecoder', which cannot be "),
}


@pytest.mark.parametrize("wrong", [WRONG, OTHERWISE_WRONG], ids=["many", "one"])
def test_wrong_values_stop_the_server_with_a_sentence_each(
    wrong: dict[str, tuple[str, str]],
) -> None:
    ended = start(IMPORT_WSGI, **PRODUCTION | {name: value for name, (value, _) in wrong.items()})
    assert ended.returncode == 1
    told = ended.stderr.splitlines()
    assert [s for _, s in wrong.values() if not any(s in line for line in told)] == []
    assert len(told) == 1 + len(wrong)
    assert "Traceback" not in ended.stderr
