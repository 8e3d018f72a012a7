from __future__ import annotations

import logging
import secrets
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static
from django.urls import reverse_lazy

from soulbox import environment, stripe_here
from soulbox.content_policy import STRICT
from soulbox.embedded import APPLICATION_ROLE, OWNER_ROLE, Embedded
from soulbox.logs import logging_of
from soulbox.mail import mail_server

BASE_DIR = Path(__file__).resolve().parent.parent
HOME = environment.path("SOULBOX_HOME", base=BASE_DIR)

# Services. With neither URL given, a real PostgreSQL and Redis come from wheels (embedded.py).

DATABASE_URL = environment.text("DATABASE_URL")
DATABASE_OWNER_URL = environment.text("DATABASE_OWNER_URL")
REDIS_URL = environment.text("REDIS_URL")
EMBEDDED: Embedded | None = None

if not (DATABASE_URL or REDIS_URL):
    EMBEDDED = Embedded(HOME)
    DATABASE_URL = EMBEDDED.database_url(APPLICATION_ROLE)
    DATABASE_OWNER_URL = EMBEDDED.database_url(OWNER_ROLE)
    REDIS_URL = EMBEDDED.redis_url(0)
    STREAM_REDIS_URL = EMBEDDED.redis_url(1)
    CACHE_REDIS_URL = EMBEDDED.redis_url(2)
elif not (DATABASE_URL and REDIS_URL and DATABASE_OWNER_URL):
    raise ImproperlyConfigured(
        "Set DATABASE_URL, DATABASE_OWNER_URL and REDIS_URL together, or none of them to run on "
        "the embedded services."
    )
else:
    STREAM_REDIS_URL = environment.text("STREAM_REDIS_URL") or REDIS_URL
    CACHE_REDIS_URL = environment.text("CACHE_REDIS_URL") or REDIS_URL

CONNECTION_AGE_S = 60


def _database(url: str, **more: str) -> dict[str, object]:
    # A cut connection is noticed, and a locked row does not hold a worker for ever.
    parameters = {"lock_timeout": "30s", **more}
    options = " ".join(f"-c {name}={value}" for name, value in parameters.items())
    return {
        **dj_database_url.parse(
            url,
            engine="psqlextra.backend",
            # Opening one takes longer than storing a webhook.
            conn_max_age=CONNECTION_AGE_S,
            conn_health_checks=True,
        ),
        "OPTIONS": {"connect_timeout": 5, "options": options},
    }


# Two roles: `default` uses the tables, `owner` makes them. `migrate` runs as the owner.
DATABASES = {
    # A process that stands still in a transaction loses it, and the locks with it.
    "default": _database(DATABASE_URL, idle_in_transaction_session_timeout="45s"),
    "owner": _database(DATABASE_OWNER_URL),
}
DATABASE_ROUTERS = ["soulbox.routers.OwnerMigrates"]
# Django's own, with its statements counted.
POSTGRES_EXTRA_DB_BACKEND_BASE = "django_prometheus.db.backends.postgresql"
# Seconds; what is slower than ten has no use of finer ones.
PROMETHEUS_LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, float("inf"))
# Each migration names the extensions it needs; nothing is made behind its back.
POSTGRES_EXTRA_AUTO_EXTENSION_SET_UP = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    "default": {
        "BACKEND": "soulbox.process_metrics.CountedCache",
        "LOCATION": CACHE_REDIS_URL,
        "OPTIONS": {"socket_timeout": 0.1, "socket_connect_timeout": 0.1},
    }
}


def _secret_key() -> str:
    if given := environment.text("SECRET_KEY"):
        return given
    if EMBEDDED is None:
        raise ImproperlyConfigured("SECRET_KEY is not set. Give it a long random text.")
    HOME.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = HOME / "secret-key"
    if not kept.exists():
        kept.touch(mode=0o600)
        kept.write_text(secrets.token_urlsafe(48))
    return kept.read_text()


SECRET_KEY = _secret_key()
SECRET_KEY_FALLBACKS = environment.names("SECRET_KEY_FALLBACKS")
DEBUG = environment.flag("DEBUG")
ALLOWED_HOSTS = environment.names("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = environment.names("CSRF_TRUSTED_ORIGINS")

# In the open, everything goes over TLS. Who asks for figures or health from inside asks without.
HTTPS_ONLY = environment.flag("HTTPS_ONLY") if environment.text("HTTPS_ONLY") else not EMBEDDED
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS_ONLY
SECURE_REDIRECT_EXEMPT = [r"^api/schema/$"]
SECURE_HSTS_SECONDS = 365 * 86_400 if HTTPS_ONLY else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS_ONLY
BEHIND_PROXY = environment.flag("BEHIND_PROXY")
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# To be in browsers' lists is for who owns the whole domain to ask.
SILENCED_SYSTEM_CHECKS = ["security.W021"]
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.import_export",
    "soulbox",
    "soulbox.portal",
    "payments",
    "billing",
    "metering",
    "import_export",
    "psqlextra",
    "pgtrigger",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
]
MIDDLEWARE = [
    "soulbox.health.probes",
    "soulbox.doors.request_id",
    "soulbox.doors.client_address",
    # Before the limits, as it has its own.
    "soulbox.doors.scrapes",
    "soulbox.doors.api_limits",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "soulbox.content_policy.ContentPolicy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "soulbox.doors.ConditionalAnswers",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "soulbox.staff.middleware.second_factor_first",
    "soulbox.staff.middleware.who_is_asking",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "soulbox.process_metrics.CountRequests",
]
CONTENT_SECURITY_POLICY = {"DIRECTIVES": STRICT}
ROOT_URLCONF = "soulbox.urls"
WSGI_APPLICATION = "soulbox.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
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
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",  # of passwords set before
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# Staff's second factor. In the open it is required; on one machine the demo log-ins work at once.
STAFF_TWO_FACTOR = environment.choice("STAFF_TWO_FACTOR", ("off", "optional", "required")) or (
    "optional" if EMBEDDED or DEBUG else "required"
)
OTP_TOTP_ISSUER = "SoulBox Billing"
# Seconds to wait after a wrong code, doubled by each one that follows.
OTP_TOTP_THROTTLE_FACTOR = OTP_STATIC_THROTTLE_FACTOR = 1

# The customer's page.
SIGN_UP = environment.choice("SIGN_UP", ("open", "invitation", "off"))
LOGIN_URL = "portal:sign-in"
# Of the links that are mailed to choose a new password.
PASSWORD_RESET_TIMEOUT = 3 * 60 * 60

STATIC_URL = "static/"
# On the embedded services there is no collectstatic step: files come from their packages.
STATIC_ROOT = None if EMBEDDED else BASE_DIR / "staticfiles"
WHITENOISE_USE_FINDERS = EMBEDDED is not None

TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
# Django's own formats of the language come before DATETIME_FORMAT here, and after these.
FORMAT_MODULE_PATH = "soulbox.formats"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "billing.api.authentication.ApiKeyAuthentication",
        "billing.api.authentication.MemberAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["billing.api.permissions.HasScope"],
    "DEFAULT_THROTTLE_CLASSES": ["billing.api.throttles.FairShare"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["billing.api.parsing.JsonParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "billing.api.pages.Pages",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_METADATA_CLASS": None,
    "EXCEPTION_HANDLER": "billing.api.problems.answer_with_problem",
    # `format` is a parameter of downloads, and picks no renderer.
    "URL_FORMAT_OVERRIDE": None,
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
    "COERCE_DECIMAL_TO_STRING": True,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "SoulBox Billing",
    "DESCRIPTION": "What your sandboxes used, what it costs, and the invoices.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_PERMISSIONS": [],
    "SERVE_AUTHENTICATION": [],
    # Stays, whatever else gets a kind or a status.
    "ENUM_NAME_OVERRIDES": {
        "InvoiceKindEnum": "billing.models.Invoice.Kind",
        "InvoiceStatusEnum": "billing.models.Invoice.Status",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "billing.api.document.complete",
    ],
}


def _favicon(_request: object) -> str:
    return static("soulbox/favicon.svg")


UNFOLD = {
    "SITE_TITLE": "SoulBox Billing",
    "SITE_HEADER": "SoulBox Billing",
    "SITE_URL": reverse_lazy("docs"),
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": _favicon}],
    "SHOW_HISTORY": True,
    "DASHBOARD_CALLBACK": "billing.admin.desk.dashboard",
    "SIDEBAR": {"show_search": True, "navigation": "billing.admin.navigation.navigation"},
    "ACCOUNT": {
        "navigation": [
            {"title": "Two-factor sign-in", "link": reverse_lazy("second-factor-set-up")},
            {"title": "Change password", "link": reverse_lazy("admin:password_change")},
        ]
    },
}

METRICS_TOKEN = environment.text("METRICS_TOKEN")
API_CALLS_A_MINUTE = environment.integer("API_CALLS_A_MINUTE")

# Metering

METERING_INTERVAL_S = environment.integer("METERING_INTERVAL")
METERING_STORAGE_INTERVAL_S = environment.integer("METERING_STORAGE_INTERVAL")
METERING_SOURCE = environment.text("METERING_SOURCE")
METERING_CONCURRENCY = environment.integer("METERING_CONCURRENCY")
METERING_CALL_TIMEOUT_S = environment.integer("METERING_CALL_TIMEOUT")
METERING_CERT_PATH = environment.text("METERING_CERT_PATH")
METERING_STREAM_RETENTION_H = environment.integer("METERING_STREAM_RETENTION")
METERING_STREAM_MAX_BYTES = environment.integer("METERING_STREAM_MAX_BYTES")
METERING_USAGE_RETENTION_D = environment.integer("METERING_USAGE_RETENTION")
METERING_SUMMARY_RETENTION_D = environment.integer("METERING_SUMMARY_RETENTION")
STREAM_TIMEOUT_S = 5

# Billing

BILLING_GRACE_MINUTES = environment.integer("BILLING_GRACE_MINUTES")
CREDIT_EXPIRY_NOTICE_DAYS = environment.integer("CREDIT_EXPIRY_NOTICE_DAYS")
PUBLIC_URL = environment.text("PUBLIC_URL").rstrip("/")
WEBHOOKS_ALLOW_PRIVATE = environment.flag("WEBHOOKS_ALLOW_PRIVATE")
BILLING_APPROVAL_THRESHOLD = environment.integer("BILLING_APPROVAL_THRESHOLD")
BILLING_SAFETY_FACTOR = environment.integer("BILLING_SAFETY_FACTOR")
BILLING_SAFETY_FLOOR = environment.integer("BILLING_SAFETY_FLOOR")
SELLER_NAME = environment.text("SELLER_NAME")
SELLER_ADDRESS = environment.text("SELLER_ADDRESS")
SELLER_TAX_ID = environment.text("SELLER_TAX_ID")
SELLER_TIME_ZONE = environment.zone("SELLER_TIME_ZONE")
SELLER_TAX_NAME = environment.short_text("SELLER_TAX_NAME", longest=32)
SELLER_PAYMENT_TERMS_DAYS = environment.integer("SELLER_PAYMENT_TERMS_DAYS")
SELLER_PAYMENT_TERMS = environment.text("SELLER_PAYMENT_TERMS")

# Payments

STRIPE_API_KEY = environment.text("STRIPE_API_KEY")
STRIPE_WEBHOOK_SECRETS = environment.names("STRIPE_WEBHOOK_SECRET")
STRIPE_API_BASE = environment.text("STRIPE_API_BASE").rstrip("/")
# Without a key the embedded services have a Stripe of their own, once `make run` has started it.
STRIPE_HERE = None if STRIPE_API_KEY or not EMBEDDED else stripe_here.read(HOME)
if STRIPE_HERE:
    STRIPE_API_KEY, STRIPE_API_BASE = STRIPE_HERE.api_key, STRIPE_HERE.url
    STRIPE_WEBHOOK_SECRETS = [STRIPE_HERE.webhook_secret]
STRIPE_IS_TEST = STRIPE_API_KEY.startswith(("sk_test_", "rk_test_"))
STRIPE_TIMEOUT_S: float = environment.integer("STRIPE_TIMEOUT")
PAYMENTS_RETURN_URL = environment.text("PAYMENTS_RETURN_URL") or PUBLIC_URL
CARD_EXPIRY_NOTICE_DAYS = environment.integer("CARD_EXPIRY_NOTICE_DAYS")
REFUND_APPROVAL_THRESHOLD = environment.integer("REFUND_APPROVAL_THRESHOLD")
AUTOMATIC_TOP_UPS_A_DAY = environment.integer("AUTOMATIC_TOP_UPS_A_DAY")
PLATFORM_HOOK_URL = environment.text("PLATFORM_HOOK_URL")
PLATFORM_HOOK_SECRET = environment.text("PLATFORM_HOOK_SECRET")

# E-mail. With no server given, the embedded services write them into a folder; elsewhere they wait.

EMAIL_URL = environment.text("EMAIL_URL") or ((HOME / "mail").as_uri() if EMBEDDED else "")
MAIL_IS_SET_UP = bool(EMAIL_URL)
_MAIL = mail_server(EMAIL_URL)
EMAIL_BACKEND = f"django.core.mail.backends.{_MAIL.backend}.EmailBackend"
EMAIL_FILE_PATH = _MAIL.folder
EMAIL_HOST, EMAIL_PORT = _MAIL.host, _MAIL.port
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _MAIL.user, _MAIL.password
EMAIL_USE_TLS, EMAIL_USE_SSL = _MAIL.starts_tls, _MAIL.is_tls
EMAIL_TIMEOUT = environment.integer("EMAIL_TIMEOUT")
DEFAULT_FROM_EMAIL = SERVER_EMAIL = environment.text("MAIL_FROM")

# Celery. A message is a hint and the work list is a table, since Celery on Redis loses some
# messages and runs others twice: whatever is not done is found again by the next sweep.

_VISIBILITY_TIMEOUT_S = 300
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://").replace(
    "?db=", "?virtual_host="
)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# A Redis that is full refuses to take an acknowledgement; without this the worker would end.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": _VISIBILITY_TIMEOUT_S,
    # A dead worker's messages come back after the timeout, not a hundred sweeps later.
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "health_check_interval": 10,
    "retry_on_timeout": True,
}
CELERY_VISIBILITY_TIMEOUT = _VISIBILITY_TIMEOUT_S
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_TIME_LIMIT = 120
CELERY_TASK_SOFT_TIME_LIMIT = 90
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_MAX_TASKS_PER_CHILD = 1000
CELERY_WORKER_MAX_MEMORY_PER_CHILD = 300_000  # kB
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 60.0
CELERY_WORKER_ENABLE_SOFT_SHUTDOWN_ON_IDLE = True
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_WORKER_ETA_TASK_LIMIT = 1000
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_ENABLE_UTC = True

LOGGING = logging_of(is_for_people=EMBEDDED is not None or DEBUG)
# A warning is an event too, and may be of several lines.
logging.captureWarnings(LOGGING["handlers"]["stderr"]["formatter"] == "json")
