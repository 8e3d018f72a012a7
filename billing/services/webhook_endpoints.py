"""What customers do with their webhook endpoints: make, change, rotate, remove, try, send again."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction

from billing.models import Delivery, Event, EventType, WebhookEndpoint
from billing.models.outgoing import WAITING
from billing.services.accounts import lock_account
from billing.services.webhook_secrets import new_secret
from billing.webhooks.addresses import UnsafeAddressError
from billing.webhooks.sender import check_url
from billing.webhooks.signing import secret_text

MOST_ENDPOINTS: Final = 20
"""Of an account."""
BOTH_SECRETS: Final = timedelta(hours=24)
"""After a rotation what is sent is signed with the old secret too, for so long."""
PINGS_AN_HOUR: Final = 60
"""Of an account: an endpoint is tried with them, and no server is kept busy."""
SWITCHED_OFF: Final = "It was switched off."


class WebhookRefusedError(ValueError):
    """The endpoint cannot be as asked for. `field` names what is wrong, the message the way out."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class IssuedEndpoint:
    """An endpoint with a new secret. `secret` exists nowhere else: show it now or never."""

    row: WebhookEndpoint
    secret: str


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """What is to be different; None: as it is."""

    url: str | None = None
    description: str | None = None
    event_types: Sequence[EventType] | None = None
    is_enabled: bool | None = None


def refuse_url(url: str) -> None:
    """Raise WebhookRefusedError where nothing may be sent to the URL.

    It looks the host up, so it is called outside of transactions. Sending checks again.
    """
    try:
        check_url(url, allow_private=settings.WEBHOOKS_ALLOW_PRIVATE)
    except UnsafeAddressError as error:
        raise WebhookRefusedError(f"url: {error}", field="url") from None


def add_endpoint(
    account_id: UUID,
    *,
    url: str,
    description: str = "",
    event_types: Sequence[EventType] = (),
    now: datetime,
) -> IssuedEndpoint:
    """Send the account's events to `url` from now on: those of the types, or all where none is.

    Each call makes another. The caller has had the URL checked by `refuse_url`. Raises
    WebhookRefusedError, Account.DoesNotExist.
    """
    secret = new_secret()
    with transaction.atomic():
        account = lock_account(account_id)
        if account.webhook_endpoints.filter(removed_at=None).count() >= MOST_ENDPOINTS:
            raise WebhookRefusedError(
                f"An account has at most {MOST_ENDPOINTS} endpoints. Remove one first."
            )
        row = WebhookEndpoint.objects.create(
            account=account,
            url=url,
            description=description,
            event_types=sorted(set(event_types)),
            secret_seed=secret.seed,
            secret_check=secret.check,
            created_at=now,
        )
    return IssuedEndpoint(row, secret_text(secret.key))


def change_endpoint(endpoint_id: UUID, change: EndpointChange, *, now: datetime) -> WebhookEndpoint:
    """Change what is given of an endpoint. Safe to repeat.

    The caller has had a new URL checked by `refuse_url`. What waits for an endpoint that is
    switched off is given up. Raises WebhookEndpoint.DoesNotExist.
    """
    with transaction.atomic():
        row = _lock(endpoint_id)
        if change.url is not None:
            row.url = change.url
        if change.description is not None:
            row.description = change.description
        if change.event_types is not None:
            row.event_types = sorted(set(change.event_types))
        if change.is_enabled is True and row.disabled_at:
            row.disabled_at, row.disabled_reason, row.failing_since = None, "", None
        elif change.is_enabled is False and not row.disabled_at:
            row.disabled_at, row.disabled_reason = now, SWITCHED_OFF
            give_up_waiting(row, now=now)
        row.save(
            update_fields=[
                "url",
                "description",
                "event_types",
                "disabled_at",
                "disabled_reason",
                "failing_since",
            ]
        )
    return row


def rotate_secret(endpoint_id: UUID, *, now: datetime) -> IssuedEndpoint:
    """Give an endpoint a new secret; for 24 h what is sent is signed with the last one too.

    Each call makes another. Raises WebhookEndpoint.DoesNotExist.
    """
    secret = new_secret()
    with transaction.atomic():
        row = _lock(endpoint_id)
        row.old_secret_seed, row.old_secret_check = row.secret_seed, row.secret_check
        row.old_secret_until = now + BOTH_SECRETS
        row.secret_seed, row.secret_check = secret.seed, secret.check
        row.save(
            update_fields=[
                "secret_seed",
                "secret_check",
                "old_secret_seed",
                "old_secret_check",
                "old_secret_until",
            ]
        )
    return IssuedEndpoint(row, secret_text(secret.key))


def remove_endpoint(endpoint_id: UUID, *, now: datetime) -> None:
    """Send nothing there any more. Raises WebhookEndpoint.DoesNotExist."""
    with transaction.atomic():
        row = _lock(endpoint_id)
        row.removed_at = now
        row.save(update_fields=["removed_at"])
        give_up_waiting(row, now=now)


def ping_endpoint(endpoint_id: UUID, *, now: datetime) -> Event:
    """Send an endpoint an event that tells of nothing, whatever types it wants.

    Each call sends another. Raises WebhookRefusedError, WebhookEndpoint.DoesNotExist.
    """
    with transaction.atomic():
        row = _lock(endpoint_id)
        if row.disabled_at:
            raise WebhookRefusedError("The endpoint is disabled. Enable it first.")
        lately = Event.objects.filter(
            account=row.account_id, type=EventType.PING, created_at__gt=now - timedelta(hours=1)
        )
        if lately.count() >= PINGS_AN_HOUR:
            raise WebhookRefusedError(f"There are at most {PINGS_AN_HOUR} pings an hour. Wait.")
        event_id = uuid.uuid4()
        event = Event.objects.create(
            id=event_id,
            account_id=row.account_id,
            type=EventType.PING,
            subject_key=str(event_id),
            created_at=now,
            data={"endpoint_id": str(row.pk)},
        )
        Delivery.objects.create(event=event, endpoint=row, created_at=now, try_at=now)
    return event


def redeliver(event_id: UUID, *, endpoint_id: UUID | None = None, now: datetime) -> list[Delivery]:
    """Let an event be sent by the next sweep, whatever became of it before.

    To one endpoint of its account, or to all that want its type now. Returns the deliveries. Safe
    to repeat: one that waits is sent once. Raises WebhookRefusedError, Event.DoesNotExist.
    """
    event = Event.objects.get(pk=event_id)
    with transaction.atomic():
        found = (
            WebhookEndpoint.objects.select_for_update()
            .filter(account=event.account_id, removed_at=None)
            .order_by("pk")
        )
        if endpoint_id is not None:
            endpoints = list(found.filter(pk=endpoint_id))
        else:
            endpoints = [
                row for row in found if not row.event_types or event.type in row.event_types
            ]
        enabled = [row for row in endpoints if not row.disabled_at]
        if not enabled:
            raise WebhookRefusedError("No enabled endpoint wants this event.", field="endpoint_id")
        Delivery.objects.bulk_create(
            [Delivery(event=event, endpoint=row, created_at=now, try_at=now) for row in enabled],
            ignore_conflicts=True,
        )
        deliveries = Delivery.objects.filter(event=event, endpoint__in=enabled)
        deliveries.update(try_at=now, attempts=0, delivered_at=None, given_up_at=None)
        return list(deliveries.select_related("endpoint").order_by("endpoint"))


def give_up_waiting(endpoint: WebhookEndpoint, *, now: datetime) -> None:
    """Send none of what waits for an endpoint."""
    endpoint.deliveries.filter(WAITING).update(given_up_at=now)


def _lock(endpoint_id: UUID) -> WebhookEndpoint:
    """Return the row, locked, of an endpoint that was not removed."""
    return WebhookEndpoint.objects.select_for_update().get(pk=endpoint_id, removed_at=None)
