"""Every setting the environment can give, in one list that also makes the reference page."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.core.exceptions import ImproperlyConfigured


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: its default as text, and what it means, with its unit."""

    name: str
    default: str
    meaning: str


VARIABLES: dict[str, Variable] = {
    variable.name: variable
    for variable in (
        Variable("DATABASE_URL", "", "PostgreSQL for the application's role. Empty: embedded."),
        Variable(
            "DATABASE_OWNER_URL",
            "",
            "The same database for the role that owns the tables and migrates. "
            "Required beside DATABASE_URL.",
        ),
        Variable("REDIS_URL", "", "Redis for Celery's broker. Empty: embedded."),
        Variable("STREAM_REDIS_URL", "", "Redis for the metering streams. Empty: as REDIS_URL."),
        Variable("CACHE_REDIS_URL", "", "Redis for the cache. Empty: as REDIS_URL."),
        Variable("SOULBOX_HOME", ".soulbox", "Folder of the embedded services and their data."),
        Variable("SECRET_KEY", "", "Django's secret. Empty: made once, kept in SOULBOX_HOME."),
        Variable(
            "SECRET_KEY_FALLBACKS",
            "",
            "Former values of SECRET_KEY, by comma, newest first: what was signed with them, as "
            "sessions and customers' webhooks, goes on.",
        ),
        Variable("DEBUG", "no", "yes shows tracebacks in the browser; refused on a public host."),
        Variable("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]", "Host names served, by comma."),
        Variable("CSRF_TRUSTED_ORIGINS", "", "Origins of the web page behind a proxy, by comma."),
        Variable(
            "STAFF_TWO_FACTOR",
            "",
            "off, optional or required: whether staff sign in with a second factor. "
            "Empty: required; optional on the embedded services and with DEBUG.",
        ),
        Variable(
            "SIGN_UP",
            "invitation",
            "Who may become a customer at the customer's page: open (anybody with an e-mail "
            "address), invitation (whom an owner invites) or off (nobody new).",
        ),
        Variable("LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR."),
        Variable(
            "LOG_FORMAT",
            "",
            "line (for people) or json (one object an event, for programs). Empty: json; line on "
            "the embedded services and with DEBUG.",
        ),
        Variable(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "",
            "Where traces go, by OTLP over HTTP, as http://collector:4318. Empty: none are made.",
        ),
        Variable("OTEL_EXPORTER_OTLP_HEADERS", "", "Headers for that, as api-key=…; by comma."),
        Variable("OTEL_SERVICE_NAME", "", "Name in traces. Empty: soulbox-web, -worker, -beat."),
        Variable(
            "OTEL_TRACES_SAMPLER",
            "",
            "Which traces are sent, as parentbased_traceidratio. Empty: all.",
        ),
        Variable("OTEL_TRACES_SAMPLER_ARG", "", "Its share of traces, 0 to 1."),
        Variable("WEB_PORT", "8000", "Port of the web server started by `make run`."),
        Variable("FLOWER_PORT", "5555", "Port of Flower started by `make run`."),
        Variable("STRIPE_PORT", "12111", "Port of the local Stripe started by `make run`."),
        Variable("METERING_INTERVAL", "2", "Seconds between two readings of a sandbox."),
        Variable(
            "METERING_STORAGE_INTERVAL", "300", "Seconds between two readings of its storage."
        ),
        Variable(
            "METERING_SOURCE",
            "auto",
            "auto reads the kernel's files where it can; engine never does.",
        ),
        Variable("METERING_HOST_ID", "", "UUID of the host a collecting worker serves."),
        Variable("METERING_CONCURRENCY", "512", "Engine calls in flight at once, for a host."),
        Variable("METERING_CALL_TIMEOUT", "5", "Seconds one call to the engine may take."),
        Variable(
            "METERING_CERT_PATH",
            "",
            "Folder with ca.pem, cert.pem and key.pem for engines at https://…; a folder in it "
            "named as an engine's host is for that one alone.",
        ),
        Variable("METERING_STREAM_RETENTION", "24", "Hours a folded batch stays in its stream."),
        Variable(
            "METERING_STREAM_MAX_BYTES",
            "8589934592",
            "Bytes of Redis memory a host's stream may take; above it folded batches go sooner.",
        ),
        Variable("METERING_USAGE_RETENTION", "90", "Days usage records are kept, whole months."),
        Variable("METERING_SUMMARY_RETENTION", "1095", "Days the summaries of days are kept."),
        Variable("DOCKER_HOST", "unix:///var/run/docker.sock", "The engine `make run` meters."),
        Variable("BILLING_GRACE_MINUTES", "15", "Minutes a draft waits before it is finalised."),
        Variable(
            "BILLING_APPROVAL_THRESHOLD",
            "500",
            "A correction of an invoice by more than this, in the account's currency, either way, "
            "waits for a second person's approval.",
        ),
        Variable(
            "EMAIL_URL",
            "",
            "Mail server: smtp://user:password@host:587 (STARTTLS), smtps://…:465 (TLS), "
            "smtp-plain://host:25 (no TLS), file:///folder or console://. Special characters of "
            "a password as %XX. Empty: a folder of SOULBOX_HOME on the embedded services, else "
            "e-mails wait.",
        ),
        Variable("EMAIL_TIMEOUT", "10", "Seconds the mail server may take for one answer."),
        Variable(
            "MAIL_FROM", "SoulBox Billing <billing@localhost>", "Sender of e-mails, name and all."
        ),
        Variable(
            "HTTPS_ONLY",
            "",
            "no serves plain HTTP too, as for a first look. Empty: yes, but not on the embedded "
            "services.",
        ),
        Variable(
            "BEHIND_PROXY",
            "no",
            "yes where a proxy in front ends TLS, always sets X-Forwarded-Proto itself and adds "
            "the client to X-Forwarded-For.",
        ),
        Variable(
            "API_CALLS_A_MINUTE",
            "600",
            "Calls of the API taken in a minute of one key or member; of an account twice as many.",
        ),
        Variable(
            "METRICS_TOKEN",
            "",
            "What a monitor shows to read /metrics, as a bearer token. Empty: only this machine "
            "may, and anybody on the embedded services.",
        ),
        Variable(
            "PUBLIC_URL",
            "",
            "Address customers reach the API at, for links in e-mails. Empty: no links.",
        ),
        Variable(
            "WEBHOOKS_ALLOW_PRIVATE",
            "no",
            "yes lets customers' webhooks go to private addresses and over http, for development; "
            "refused on a public host.",
        ),
        Variable(
            "CREDIT_EXPIRY_NOTICE_DAYS", "7", "Days before credit expires that it is told by mail."
        ),
        Variable(
            "BILLING_SAFETY_FACTOR",
            "10",
            "An invoice above so many times the account's highest of the last six waits for a "
            "person. 0: none does.",
        ),
        Variable(
            "BILLING_SAFETY_FLOOR",
            "1000",
            "Up to this total, in the account's currency, no invoice waits for a person.",
        ),
        Variable(
            "STRIPE_API_KEY",
            "",
            "Secret or restricted key of Stripe. Empty: invoices wait, and `make run` starts a "
            "local Stripe.",
        ),
        Variable(
            "STRIPE_WEBHOOK_SECRET",
            "",
            "Signing secret of the webhook endpoint; two by comma while it is rotated.",
        ),
        Variable(
            "STRIPE_API_BASE", "https://api.stripe.com", "Where Stripe's API is; a local server's."
        ),
        Variable("STRIPE_TIMEOUT", "10", "Seconds Stripe may take for one answer, up to 30."),
        Variable(
            "PAYMENTS_RETURN_URL",
            "",
            "Where Stripe's customer portal sends customers back to. Empty: PUBLIC_URL.",
        ),
        Variable(
            "CARD_EXPIRY_NOTICE_DAYS", "30", "Days before a card expires that it is told by mail."
        ),
        Variable(
            "REFUND_APPROVAL_THRESHOLD",
            "500",
            "A refund of more than this, in the account's currency, waits for a second person's "
            "approval.",
        ),
        Variable(
            "AUTOMATIC_TOP_UPS_A_DAY", "3", "An account is charged for so many in 24 h at most."
        ),
        Variable(
            "PLATFORM_HOOK_URL",
            "",
            "Asked by POST to stop or resume an account's sandboxes. Empty: requests wait.",
        ),
        Variable("PLATFORM_HOOK_SECRET", "", "Signs those requests (HMAC-SHA256)."),
        Variable("SELLER_NAME", "SoulBox", "Who sells, as printed on invoices."),
        Variable("SELLER_ADDRESS", "", "The seller's address; a semicolon ends a line."),
        Variable("SELLER_TAX_ID", "", "The seller's tax number, with what it is called."),
        Variable("SELLER_TIME_ZONE", "UTC", "Whose days and years invoices are dated by."),
        Variable("SELLER_TAX_NAME", "Tax", "What the tax is called, as in VAT."),
        Variable("SELLER_PAYMENT_TERMS_DAYS", "14", "Days after its date that an invoice is due."),
        Variable(
            "SELLER_PAYMENT_TERMS", "", "How to pay, printed below the total, as a bank account."
        ),
    )
}


def text(name: str) -> str:
    """Return the variable as given, else its default. Raises KeyError when it is not declared."""
    return os.environ.get(name) or VARIABLES[name].default


def short_text(name: str, *, longest: int) -> str:
    """Return the variable as given, else its default. Raises ImproperlyConfigured, naming it."""
    value = text(name)
    if len(value) > longest:
        raise ImproperlyConfigured(f"{name} has {len(value)} characters. Use {longest} at most.")
    return value


def integer(name: str) -> int:
    """Return the variable as a whole number. Raises ImproperlyConfigured, naming it."""
    value = text(name)
    try:
        return int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number.") from None


def flag(name: str) -> bool:
    """Return whether the variable says yes. Raises ImproperlyConfigured, naming it."""
    value = text(name).lower()
    if value in {"yes", "true", "1", "on"}:
        return True
    if value in {"no", "false", "0", "off"}:
        return False
    raise ImproperlyConfigured(f"{name}={value!r} is neither yes nor no.")


def zone(name: str) -> ZoneInfo:
    """Return the variable as a time zone. Raises ImproperlyConfigured, naming it."""
    value = text(name)
    try:
        return ZoneInfo(value)
    except (ValueError, ZoneInfoNotFoundError):
        raise ImproperlyConfigured(f"{name}={value!r} is not an IANA time zone.") from None


def choice(name: str, choices: Collection[str]) -> str:
    """Return the variable, one of the choices or empty. Raises ImproperlyConfigured, naming it."""
    value = text(name).lower()
    if value and value not in choices:
        raise ImproperlyConfigured(f"{name}={value!r} is not one of {', '.join(choices)}.")
    return value


def names(name: str) -> list[str]:
    """Return the variable's parts between commas, without empty ones."""
    return [part.strip() for part in text(name).split(",") if part.strip()]


def path(name: str, *, base: Path) -> Path:
    """Return the variable as an absolute path; a relative one starts at `base`."""
    return (base / text(name)).resolve()
