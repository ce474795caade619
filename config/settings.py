"""Every setting, read from the environment once. `.env.example` has the same order and words.

A wrong or missing value is noted and reported by `config/checks.py`, which stops the start.
"""

import os
import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django import VERSION

from config import postgresql
from config.environment import Environment, split_url
from config.logs import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent

env = Environment()
env.load_file(Path(os.environ.get("ENV_FILE", BASE_DIR / ".env")))

# What stands in for secrets while DEBUG is on; refused when it is off.
DEVELOPMENT_SECRET = "insecure-development-secret-never-use-this-in-production"  # noqa: S105 - development only
DEVELOPMENT_ENCRYPTION_KEY = "aGFuZHJhaWwtZGV2ZWxvcG1lbnQta2V5LTMyLWJ5dGU="

# --- The server -----------------------------------------------------------------------------------
DEBUG = env.flag("DEBUG", default=False)
SECRET_KEY = env.text("SECRET_KEY", DEVELOPMENT_SECRET if DEBUG else "")
if not SECRET_KEY:
    env.note("SECRET_KEY", "SECRET_KEY is not set.", "Set 50 or more random characters.")
    SECRET_KEY = secrets.token_urlsafe(48)  # keeps Django importable until the checks stop it
PUBLIC_BASE_URL = env.text("PUBLIC_BASE_URL", "http://localhost:8000").rstrip("/")
_public = split_url(PUBLIC_BASE_URL)
ALLOWED_HOSTS = env.items(
    "ALLOWED_HOSTS",
    sorted(
        {"localhost", "127.0.0.1", "[::1]"} | ({_public.hostname} if _public.hostname else set())
    ),
)
SECURE_SSL = env.flag("SECURE_SSL", default=not DEBUG)
TRUSTED_PROXIES = tuple(env.items("TRUSTED_PROXIES"))
LOG_FORMAT = env.text("LOG_FORMAT", "console" if DEBUG else "json", choices=("json", "console"))
LOG_LEVEL = env.text("LOG_LEVEL", "INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))

# --- Stores ---------------------------------------------------------------------------------------
_database = env.database("DATABASE_URL", "sqlite:///var/handrail.sqlite3", base=BASE_DIR)
DATABASE_POOL_SIZE = env.integer("DATABASE_POOL_SIZE", 8, at_least=1, at_most=500)
DATABASE_STATEMENT_SECONDS = env.integer(
    "DATABASE_STATEMENT_SECONDS", 30, at_least=0, at_most=3_600
)
REDIS_URL = env.text("REDIS_URL", "")

# --- People ---------------------------------------------------------------------------------------
JWT_PUBLIC_KEY = env.text("JWT_PUBLIC_KEY", "")
JWT_JWKS_URL = env.text("JWT_JWKS_URL", "")
JWT_SECRET = env.text(
    "JWT_SECRET", DEVELOPMENT_SECRET if DEBUG and not (JWT_PUBLIC_KEY or JWT_JWKS_URL) else ""
)
JWT_ISSUER = env.text("JWT_ISSUER", "")
JWT_AUDIENCE = env.text("JWT_AUDIENCE", "")

# --- Secrets at rest ------------------------------------------------------------------------------
FIELD_ENCRYPTION_KEYS = env.items(
    "FIELD_ENCRYPTION_KEYS", [DEVELOPMENT_ENCRYPTION_KEY] if DEBUG else []
)

# --- Partner calls --------------------------------------------------------------------------------
TRIGGER_BASE_URL = env.text("TRIGGER_BASE_URL", "")
SYNC_BUDGET_MS = env.integer("SYNC_BUDGET_MS", 60_000, at_least=100, at_most=600_000)
LEASE_SECONDS = env.integer("LEASE_SECONDS", 15, at_least=1, at_most=300)
CONNECTION_MAX_CALLS = env.integer("CONNECTION_MAX_CALLS", 32, at_least=1, at_most=10_000)
BREAKER_FAILURES = env.integer("BREAKER_FAILURES", 5, at_least=1, at_most=1_000_000)
BREAKER_COOLDOWN_MS = env.integer("BREAKER_COOLDOWN_MS", 30_000, at_least=100, at_most=3_600_000)
CALLBACK_TTL_SECONDS = env.integer("CALLBACK_TTL_SECONDS", 86_400, at_least=1, at_most=2_592_000)

# --- Workers --------------------------------------------------------------------------------------
TASK_BACKEND = env.text("TASK_BACKEND", "django_tasks_db.DatabaseBackend")

# --- Sessions -------------------------------------------------------------------------------------
SESSION_TTL_SECONDS = env.integer("SESSION_TTL_SECONDS", 3600, at_least=1, at_most=86_400)

# --- Records --------------------------------------------------------------------------------------
RETENTION_DAYS = env.integer("RETENTION_DAYS", 0, at_least=0, at_most=36_500)

# --- Limits ---------------------------------------------------------------------------------------
MAX_BODY_BYTES = env.integer("MAX_BODY_BYTES", 1024**2, at_least=1024, at_most=100 * 1024**2)
MAX_INPUT_BYTES = env.integer("MAX_INPUT_BYTES", 256 * 1024, at_least=1, at_most=100 * 1024**2)
MAX_CONTEXT_BYTES = env.integer("MAX_CONTEXT_BYTES", 1024**2, at_least=1, at_most=100 * 1024**2)
MAX_JSON_DEPTH = env.integer("MAX_JSON_DEPTH", 64, at_least=1, at_most=200)
MAX_QUERY_DEPTH = env.integer("MAX_QUERY_DEPTH", 15, at_least=1, at_most=100)
MAX_QUERY_ALIASES = env.integer("MAX_QUERY_ALIASES", 30, at_least=0, at_most=10_000)
MAX_QUERY_ROOT_FIELDS = env.integer("MAX_QUERY_ROOT_FIELDS", 20, at_least=1, at_most=1000)
MAX_QUERY_TOKENS = env.integer("MAX_QUERY_TOKENS", 2000, at_least=10, at_most=100_000)
MAX_QUERY_FIELDS = env.integer("MAX_QUERY_FIELDS", 1000, at_least=1, at_most=100_000)
MAX_STEPS = env.integer("MAX_STEPS", 200, at_least=1, at_most=2000)
MAX_PAGE_SIZE = env.integer("MAX_PAGE_SIZE", 100, at_least=1, at_most=1000)
RATE_LIMIT_USER = env.text("RATE_LIMIT_USER", "240/minute")
RATE_LIMIT_ADDRESS = env.text("RATE_LIMIT_ADDRESS", "1200/minute")
RATE_LIMIT_SIGN_IN = env.text("RATE_LIMIT_SIGN_IN", "10/minute")

# --- Metrics --------------------------------------------------------------------------------------
METRICS_TOKEN = env.text("METRICS_TOKEN", "")
PROMETHEUS_MULTIPROC_DIR = env.text("PROMETHEUS_MULTIPROC_DIR", "")

# Nothing below reads the environment.
SETTING_PROBLEMS = tuple(env.problems)

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "config.admin_app.BackOfficeConfig",
    "simple_history",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "graphene_django",
    "django_tasks_db",
    "config",
    "workflows",
    "executions",
    "sandbox",
]
# The classes of config.middleware step aside for requests that no browser session made: /graphql
# with a bearer token costs a third less without sessions, CSRF and messages (87 against 150 µs).
MIDDLEWARE = [
    "config.middleware.RequestLog",
    "config.middleware.TrustedEdge",
    "django.middleware.security.SecurityMiddleware",
    "config.middleware.ContentPolicy",
    "config.middleware.WhiteNoiseMiddleware",
    "config.middleware.SessionMiddleware",
    "config.middleware.CommonMiddleware",
    "config.middleware.CsrfViewMiddleware",
    "config.middleware.AuthenticationMiddleware",
    "config.middleware.ActingStaff",
    "config.middleware.MessageMiddleware",
    "config.middleware.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False
DATETIME_FORMAT = "Y-m-d H:i:s"  # UTC, like every time that is shown
DATE_FORMAT = "Y-m-d"
GRAPHENE = {"SCHEMA": "config.schema.schema", "SCHEMA_OUTPUT": "schema.graphql"}

if _database["ENGINE"] == "django.db.backends.sqlite3":
    _database["CONN_MAX_AGE"] = None  # a file of one's own costs nothing to keep open
    _database["OPTIONS"] = {
        # A transaction that begins by reading and then writes would fail at once against another
        # writer; taking the lock at its start lets the busy timeout do the waiting.
        "transaction_mode": "IMMEDIATE",
        "timeout": 10,
        # FULL: what an intent says must survive a power cut, not only a crash of the process.
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
        **_database.get("OPTIONS", {}),
    }
else:
    _database["CONN_HEALTH_CHECKS"] = True
    _database["OPTIONS"] = {
        **postgresql.connection_options(pool_size=DATABASE_POOL_SIZE),
        **_database.get("OPTIONS", {}),
    }
DATABASES: dict[str, dict[str, Any]] = {"default": _database}

CACHES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "handrail"}
}
if REDIS_URL:
    CACHES["default"] = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": {
            # Never pickle: who can write to Redis could run code here.
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
            "SOCKET_CONNECT_TIMEOUT": 0.5,
            "SOCKET_TIMEOUT": 0.5,
        },
    }

# The queue that wakes workers (docs/decisions/tasks.md). "unusable" takes the place of a backend that
# cannot be loaded, so that imports go on until the checks stop the start.
TASK_QUEUE = "handrail"
_tasks_api = "django.tasks" if VERSION >= (6,) else "django_tasks"
TASKS: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": TASK_BACKEND, "QUEUES": [TASK_QUEUE]},
    "unusable": {"BACKEND": f"{_tasks_api}.backends.dummy.DummyBackend", "QUEUES": [TASK_QUEUE]},
}
if TASK_BACKEND.startswith("django_tasks_rq.") and find_spec("django_rq"):
    INSTALLED_APPS.append("django_rq")
    RQ_SHOW_ADMIN_LINK = False
    _rq_queue = {
        "USE_REDIS_CACHE": "default",  # REDIS_URL with its short timeouts
        # Never pickle: who can write to Redis could run code here.
        "SERIALIZER": "rq.serializers.JSONSerializer",
        "DEFAULT_TIMEOUT": 600,  # more than an attempt and its status question can take
    }
    # Answers are asked for where "default" is.
    RQ_QUEUES = {TASK_QUEUE: _rq_queue, "default": _rq_queue}

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATIC_ROOT.mkdir(exist_ok=True)  # WhiteNoise warns about a missing folder
WHITENOISE_USE_FINDERS = DEBUG
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}

AUTHENTICATION_BACKENDS = ["config.staff.StaffBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "/admin/login/"
LOGIN_REDIRECT_URL = "/admin/"
UNFOLD = {
    "SITE_TITLE": "Handrail",
    "SITE_HEADER": "Handrail",
    "SITE_URL": None,  # there is no other site than this one
    "SITE_SYMBOL": "fence",
    "SITE_ICON": "config.admin_site.logo",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "sizes": "any", "href": "config.admin_site.logo"}
    ],
    "STYLES": ["config.admin_site.stylesheet"],
    "SCRIPTS": ["config.admin_site.script"],
    "DASHBOARD_CALLBACK": "executions.dashboard_pages.overview",
    "BORDER_RADIUS": "6px",
    "SIDEBAR": {"navigation": "config.admin_site.navigation"},
    "COLORS": {
        "primary": {
            "50": "oklch(97% .014 254.604)",
            "100": "oklch(93.2% .032 255.585)",
            "200": "oklch(88.2% .059 254.128)",
            "300": "oklch(80.9% .105 251.813)",
            "400": "oklch(70.7% .165 254.624)",
            "500": "oklch(62.3% .214 259.815)",
            "600": "oklch(54.6% .245 262.881)",
            "700": "oklch(48.8% .243 264.376)",
            "800": "oklch(42.4% .199 265.638)",
            "900": "oklch(37.9% .146 265.522)",
            "950": "oklch(28.2% .091 267.935)",
        }
    },
}
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL
SESSION_COOKIE_AGE = 12 * 3600  # a working day: who moves money signs in again tomorrow
SECURE_SSL_REDIRECT = SECURE_SSL
SECURE_REDIRECT_EXEMPT = [
    r"^(healthz|readyz|metrics)$"
]  # asked by machines inside the house, over plain HTTP
SECURE_HSTS_SECONDS = 31_536_000 if SECURE_SSL else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
CSRF_TRUSTED_ORIGINS = [f"{_public.scheme}://{_public.netloc}"] if _public.netloc else []
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = max(MAX_BODY_BYTES, 2 * 1024**2 + 512 * 1024)
DATA_UPLOAD_MAX_NUMBER_FIELDS = 20 * MAX_STEPS  # an admin form may show every step of a workflow
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # whether subdomains speak TLS too is not ours to say
    "security.W021",  # nor whether the domain goes on the browsers' preload list
]

LOGGING_CONFIG = "config.logs.configure"
LOGGING = logging_config(log_format=LOG_FORMAT, level=LOG_LEVEL)
