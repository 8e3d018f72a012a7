"""Which secrets there are, and giving each kind that is ours to make a new one.

What the environment gives is rotated there; what is in tables is rotated here, with a time in which
the old one works beside the new. No column of any table is encrypted: keys are kept as hashes, and
customers' webhook secrets as seeds that SECRET_KEY makes secrets of.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Model, QuerySet

from billing import services
from billing.models import ApiKey, OperatorKey, WebhookEndpoint
from billing.services.api_keys import ApiKeyRefusedError, NoSuchApiKeyError
from billing.services.webhook_secrets import SecretLostError, made_by
from metering.bearer_keys import works_at
from metering.keys import KeyRefusedError, rotate_metering_key
from metering.models import MeteringKey

ENDPOINTS_AT_ONCE = 1_000


class RotationRefusedError(Exception):
    """A secret cannot be rotated so; the message says why and the way out."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A kind of secret: how many there are, and how one is rotated."""

    name: str
    count: int
    state: str
    how: str

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Rotated:
    """A new secret, which is shown now or never, and until when the old one works too."""

    what: str
    secret: str
    old_works_until: datetime


def secrets_kept(*, now: datetime) -> list[Kept]:
    """Return every kind of secret that the service knows of."""
    keys = "manage.py rotate_keys --"
    return [
        _secret_key(),
        _keys(
            "metering keys", MeteringKey.objects.all(), f"{keys}metering-key ID, or anew", now=now
        ),
        _keys("operator keys", OperatorKey.objects.all(), f"{keys}operator-key NAME", now=now),
        _keys(
            "API keys",
            ApiKey.objects.exclude(expires_at__lte=now),
            f"{keys}api-key ID; customers do it themselves",
            now=now,
        ),
        _endpoints(f"{keys}webhook-endpoint ID; customers do it themselves"),
        _given(
            "STRIPE_API_KEY",
            [settings.STRIPE_API_KEY],
            "Roll the key at Stripe with an overlap, set the new one, restart web and workers.",
        ),
        _given(
            "STRIPE_WEBHOOK_SECRET",
            settings.STRIPE_WEBHOOK_SECRETS,
            "Roll it at Stripe, set NEW,OLD, restart web; OLD can go after 24 hours.",
        ),
        _given(
            "PLATFORM_HOOK_SECRET",
            [settings.PLATFORM_HOOK_SECRET],
            "Have the platform take both, set the new one, restart the workers.",
        ),
        _given(
            "EMAIL_URL",
            [settings.EMAIL_HOST_PASSWORD],
            "Change it at the mail server, set it, restart the workers.",
        ),
        Kept(
            "passwords of PostgreSQL and Redis",
            0,
            "in DATABASE_URL, DATABASE_OWNER_URL and the REDIS_URLs",
            "Make a second role or ACL user, set its URLs, restart everything, drop the first.",
        ),
    ]


def rotate_metering(key_id: int, *, overlap: timedelta, now: datetime) -> Rotated:
    """Give a runtime a new key to its host. Raises RotationRefusedError."""
    try:
        issued = rotate_metering_key(key_id, overlap=overlap, now=now)
    except KeyRefusedError as error:
        raise RotationRefusedError(str(error)) from None
    return Rotated(f"metering key {issued.row}", issued.key, now + overlap)


def rotate_operator(name: str, *, overlap: timedelta, now: datetime) -> Rotated:
    """Give an operator a new key. Raises RotationRefusedError."""
    try:
        issued = services.rotate_operator_key(name, overlap=overlap, now=now)
    except services.OperatorKeyRefusedError as error:
        raise RotationRefusedError(str(error)) from None
    return Rotated(f"operator key {issued.row}", issued.key, now + overlap)


def rotate_api(key_id: int, *, overlap: timedelta, now: datetime) -> Rotated:
    """Give a customer's program a new key. Raises RotationRefusedError."""
    refused = RotationRefusedError(f"API key: {key_id} is none that works.")
    row = ApiKey.objects.filter(pk=key_id).first()
    if row is None:
        raise refused
    try:
        issued = services.rotate_api_key(row.account_id, key_id, overlap=overlap, now=now)
    except NoSuchApiKeyError:
        raise refused from None
    except ApiKeyRefusedError as error:
        raise RotationRefusedError(f"{error.field}: {error}") from None
    return Rotated(f"API key {issued.row}", issued.key, now + overlap)


def rotate_endpoint(endpoint_id: UUID, *, now: datetime) -> Rotated:
    """Give a customer's webhook endpoint a new secret. Raises RotationRefusedError."""
    if not WebhookEndpoint.objects.filter(pk=endpoint_id, removed_at__isnull=True).exists():
        raise RotationRefusedError(f"webhook endpoint: there is none with the id {endpoint_id}.")
    issued = services.rotate_secret(endpoint_id, now=now)
    until = issued.row.old_secret_until or now
    return Rotated(f"secret of webhook endpoint {endpoint_id}", issued.secret, until)


def _secret_key() -> Kept:
    fallbacks = len(settings.SECRET_KEY_FALLBACKS)
    return Kept(
        "SECRET_KEY",
        1 + fallbacks,
        f"and {fallbacks} in SECRET_KEY_FALLBACKS",
        "Set a new one, the old one first in SECRET_KEY_FALLBACKS, restart everything; it can go "
        "once no webhook endpoint is of it and sessions of two weeks ago are over.",
    )


def _keys(name: str, rows: QuerySet[Any], how: str, *, now: datetime) -> Kept:
    working: QuerySet[Model] = rows.filter(works_at(now))
    oldest = working.order_by("created_at").values_list("created_at", flat=True).first()
    return Kept(
        name, working.count(), f"the oldest of {oldest:%Y-%m-%d}" if oldest else "none", how
    )


def _endpoints(how: str) -> Kept:
    made: Counter[str] = Counter()
    endpoints = WebhookEndpoint.objects.filter(removed_at__isnull=True)
    for endpoint in endpoints.iterator(ENDPOINTS_AT_ONCE):
        try:
            number = made_by(endpoint)
        except SecretLostError:
            made["lost: rotate each"] += 1
        else:
            made[f"of fallback {number}" if number else "of SECRET_KEY"] += 1
    told = ", ".join(f"{count} {of}" for of, count in sorted(made.items()))
    return Kept("secrets of webhook endpoints", made.total(), told or "none", how)


def _given(name: str, values: list[str], how: str) -> Kept:
    count = sum(map(bool, values))
    return Kept(name, count, "set" if count else "not set", how)
