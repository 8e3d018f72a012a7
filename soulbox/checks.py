"""Settings that would lose usage or money are refused, each by its name and with a way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.utils import parseaddr
from typing import Any
from urllib.parse import urlsplit

import redis
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db import OperationalError, connections

from payments.platform_hook import fault_of

OLDEST_POSTGRESQL = 15
OLDEST_REDIS = (6, 2)
REDIS_TIMEOUT_S = 3
LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]", "::1", "testserver"}

DEBUG_IS_PUBLIC = "soulbox.E001"
POSTGRESQL_IS_OLD = "soulbox.E002"
POSTGRESQL_IS_UNSAFE = "soulbox.E003"
POSTGRESQL_IS_SILENT = "soulbox.E004"
REDIS_IS_OLD = "soulbox.E005"
REDIS_IS_UNSAFE = "soulbox.E006"
REDIS_IS_SILENT = "soulbox.E007"
WEBHOOKS_GO_INSIDE = "soulbox.E008"
MAIL_IS_NOT_SENT = "soulbox.W001"
SENDER_IS_NO_ADDRESS = "soulbox.W002"
SECOND_FACTOR_IS_OFF = "soulbox.W003"
PLATFORM_IS_NOT_ASKED = "soulbox.W004"
WEBHOOKS_ARE_REFUSED = "soulbox.W005"

# Not unsafe, only not there: a server may still come, and is looked at then.
SILENT = {POSTGRESQL_IS_SILENT, REDIS_IS_SILENT}

_DURABILITY = {
    "fsync": "a power cut would break the database",
    "full_page_writes": "a power cut would leave half-written pages",
    "synchronous_commit": "a crash would lose invoices that were already confirmed",
}


@register(Tags.security)
def debug_is_not_public(
    app_configs: Sequence[AppConfig] | None, **_options: Any
) -> list[CheckMessage]:
    """Refuse tracebacks, which show settings and data, on a host that others reach."""
    del app_configs
    public = _public_hosts()
    if not (settings.DEBUG and public):
        return []
    return [
        Error(
            f"DEBUG is on and ALLOWED_HOSTS names {', '.join(public)}.",
            hint="Set DEBUG=no, or ALLOWED_HOSTS=localhost.",
            id=DEBUG_IS_PUBLIC,
        )
    ]


@register(Tags.security)
def webhooks_stay_outside(
    app_configs: Sequence[AppConfig] | None, **_options: Any
) -> list[CheckMessage]:
    """Refuse to let strangers' webhooks reach what is inside, on a host that others reach."""
    del app_configs
    public = _public_hosts()
    if not (settings.WEBHOOKS_ALLOW_PRIVATE and public):
        return []
    return [
        Error(
            f"WEBHOOKS_ALLOW_PRIVATE is on and ALLOWED_HOSTS names {', '.join(public)}.",
            hint="Set WEBHOOKS_ALLOW_PRIVATE=no, or ALLOWED_HOSTS=localhost.",
            id=WEBHOOKS_GO_INSIDE,
        )
    ]


def _public_hosts() -> list[str]:
    # A wildcard subdomain of localhost is as local as localhost itself.
    return [
        host
        for host in settings.ALLOWED_HOSTS
        if host not in LOCAL_HOSTS and not host.endswith(".localhost")
    ]


@register()
def mail_is_sent(app_configs: Sequence[AppConfig] | None, **_options: Any) -> list[CheckMessage]:
    """Warn where e-mails would wait for a mail server, or come from an address nobody has."""
    del app_configs
    if not settings.MAIL_IS_SET_UP:
        return [
            CheckWarning(
                "EMAIL_URL is not set: e-mails are written down and wait.",
                hint="Set EMAIL_URL, as in smtp://user:password@mail.example.com:587.",
                id=MAIL_IS_NOT_SENT,
            )
        ]
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].partition("@")[2]
    if settings.EMBEDDED is None and domain in {"", *LOCAL_HOSTS}:
        return [
            CheckWarning(
                f"MAIL_FROM is {settings.DEFAULT_FROM_EMAIL!r}; mail servers refuse that sender.",
                hint="Set MAIL_FROM, as in Example Billing <billing@example.com>.",
                id=SENDER_IS_NO_ADDRESS,
            )
        ]
    return []


@register()
def webhooks_are_believed(
    app_configs: Sequence[AppConfig] | None, **_options: Any
) -> list[CheckMessage]:
    """Warn where Stripe is asked for money, and cannot tell what became of it."""
    del app_configs
    is_deaf = settings.STRIPE_API_KEY and not settings.STRIPE_WEBHOOK_SECRETS
    if not is_deaf or settings.EMBEDDED is not None:
        return []
    return [
        CheckWarning(
            "STRIPE_API_KEY is set and STRIPE_WEBHOOK_SECRET is not: what Stripe tells is refused.",
            hint="Set STRIPE_WEBHOOK_SECRET to the signing secret of the webhook endpoint.",
            id=WEBHOOKS_ARE_REFUSED,
        )
    ]


@register(Tags.security)
def staff_give_a_second_factor(
    app_configs: Sequence[AppConfig] | None, **_options: Any
) -> list[CheckMessage]:
    """Warn where a password alone lets somebody into the admin of a public installation."""
    del app_configs
    is_local = settings.DEBUG or settings.EMBEDDED is not None
    if is_local or settings.STAFF_TWO_FACTOR == "required":
        return []
    return [
        CheckWarning(
            f"STAFF_TWO_FACTOR={settings.STAFF_TWO_FACTOR}: a password alone lets staff in.",
            hint="Set STAFF_TWO_FACTOR=required, or leave it empty.",
            id=SECOND_FACTOR_IS_OFF,
        )
    ]


@register()
def platform_can_be_asked(
    app_configs: Sequence[AppConfig] | None, **_options: Any
) -> list[CheckMessage]:
    """Warn where the platform's hook is given, and nothing would be sent to it."""
    del app_configs
    if not settings.PLATFORM_HOOK_URL:
        return []
    fault = fault_of(settings.PLATFORM_HOOK_URL, settings.PLATFORM_HOOK_SECRET)
    hint = "Set PLATFORM_HOOK_URL and PLATFORM_HOOK_SECRET; docs/payments.md says what is sent."
    return [CheckWarning(fault, hint=hint, id=PLATFORM_IS_NOT_ASKED)] if fault else []


@register(Tags.database)
def postgresql_is_safe(
    app_configs: Sequence[AppConfig] | None,
    databases: Sequence[str] | None = None,
    **_options: Any,
) -> list[CheckMessage]:
    """Refuse a PostgreSQL that is old or forgets what it confirmed."""
    del app_configs
    found: list[CheckMessage] = []
    for alias in databases or ():
        setting = "DATABASE_OWNER_URL" if alias == "owner" else "DATABASE_URL"
        try:
            with connections[alias].cursor() as cursor:
                cursor.execute(
                    "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)",
                    [[*_DURABILITY, "server_version_num"]],
                )
                values = dict(cursor.fetchall())
        except OperationalError as error:
            reason = " ".join(str(error).split())
            found.append(_silent("PostgreSQL", setting, reason, POSTGRESQL_IS_SILENT))
        else:
            found += postgresql_problems(values, setting=setting)
    return found


def postgresql_problems(values: Mapping[str, str], *, setting: str) -> list[CheckMessage]:
    """Return what is wrong with a server that has these settings."""
    found: list[CheckMessage] = []
    if (version := int(values["server_version_num"]) // 10_000) < OLDEST_POSTGRESQL:
        found.append(
            Error(
                f"{setting}: PostgreSQL {version} is too old.",
                hint=f"Use PostgreSQL {OLDEST_POSTGRESQL} or later.",
                id=POSTGRESQL_IS_OLD,
            )
        )
    found += [
        Error(
            f"{setting}: PostgreSQL runs with {name} = off; {consequence}.",
            hint=f"Set {name} = on for the server, the database and the role.",
            id=POSTGRESQL_IS_UNSAFE,
        )
        for name, consequence in _DURABILITY.items()
        if values[name] == "off"
    ]
    return found


@register(Tags.database)
def redis_is_safe(
    app_configs: Sequence[AppConfig] | None,
    databases: Sequence[str] | None = None,
    **_options: Any,
) -> list[CheckMessage]:
    """Refuse a Redis that is old, or drops queues and samples. The cache's own may drop."""
    del app_configs
    if not databases:
        return []
    found: list[CheckMessage] = []
    for setting, url in _redis_urls().items():
        try:
            with redis.Redis.from_url(
                url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S
            ) as client:
                info = client.info()
        except redis.RedisError as error:
            found.append(_silent("Redis", setting, str(error), REDIS_IS_SILENT))
        else:
            found += redis_problems(info, setting=setting)
    return found


def _redis_urls() -> dict[str, str]:
    urls = {"REDIS_URL": settings.REDIS_URL}
    if _server(settings.STREAM_REDIS_URL) != _server(settings.REDIS_URL):
        urls["STREAM_REDIS_URL"] = settings.STREAM_REDIS_URL
    return urls


def _server(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.netloc, parts.path if parts.scheme == "unix" else ""


def redis_problems(info: Mapping[str, Any], *, setting: str) -> list[CheckMessage]:
    """Return what is wrong with a server whose INFO this is."""
    found: list[CheckMessage] = []
    version = str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        found.append(
            Error(
                f"{setting}: Redis {version} is too old.",
                hint="Use Redis {}.{} or later.".format(*OLDEST_REDIS),
                id=REDIS_IS_OLD,
            )
        )
    if not info["aof_enabled"]:
        found.append(
            Error(
                f"{setting}: Redis runs with appendonly no; a restart would lose the samples.",
                hint="Set appendonly yes in redis.conf.",
                id=REDIS_IS_UNSAFE,
            )
        )
    if (policy := info["maxmemory_policy"]) != "noeviction":
        found.append(
            Error(
                f"{setting}: Redis runs with maxmemory-policy {policy}; "
                "when full it would drop queues and samples without a word.",
                hint="Set maxmemory-policy noeviction in redis.conf.",
                id=REDIS_IS_UNSAFE,
            )
        )
    return found


def _silent(server: str, setting: str, reason: str, check_id: str) -> CheckMessage:
    return Error(
        f"{setting}: {server} does not answer: {reason}",
        hint=f"Start it, or correct {setting}.",
        id=check_id,
    )
