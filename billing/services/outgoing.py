"""Writes events down, each once, together with their deliveries to the endpoints of now."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import transaction

from billing.models import Delivery, Event, EventType, WebhookEndpoint
from billing.models.outgoing import ENABLED

_IDS: Final = UUID("6f0b6a52-3e0c-5e0b-9a53-0f6d7c1d6a11")
"""The name space of events' ids."""


@dataclass(frozen=True, slots=True)
class Happening:
    """What an event is to tell: `subject_key` is its key among events of the type.

    `data` is JSON without floats: amounts are text with a currency beside them, times RFC 3339.
    """

    account_id: UUID
    event_type: EventType
    subject_key: str
    data: Mapping[str, Any]

    @property
    def event_id(self) -> UUID:
        """The event's id, the same whenever it is written."""
        return uuid.uuid5(_IDS, f"{self.event_type} {self.subject_key}")


def emit_event(
    account_id: UUID,
    event_type: EventType,
    subject_key: str,
    data: Mapping[str, Any],
    now: datetime,
) -> UUID:
    """Write down that something happened to an account; return the event's id.

    Call it in the transaction of what happened. Safe to repeat: an event about a subject is
    written once, as it was said first. It waits for nobody: a sweep sends it.
    """
    happening = Happening(account_id, event_type, subject_key, data)
    emit_events([happening], now=now)
    return happening.event_id


def emit_events(happenings: Sequence[Happening], *, now: datetime) -> None:
    """Write down many events. Safe to repeat, and at once, as `emit_event`."""
    if not happenings:
        return
    # Rows refer to accounts, whose locks billing takes in this order too.
    ordered = sorted(happenings, key=lambda each: (each.account_id, each.event_id))
    with transaction.atomic():
        Event.objects.bulk_create(
            [
                Event(
                    id=each.event_id,
                    account_id=each.account_id,
                    type=each.event_type,
                    subject_key=each.subject_key,
                    created_at=now,
                    data=dict(each.data),
                )
                for each in ordered
            ],
            ignore_conflicts=True,
        )
        endpoints = _endpoints_of({each.account_id for each in ordered})
        Delivery.objects.bulk_create(
            [
                Delivery(event_id=each.event_id, endpoint=endpoint, created_at=now, try_at=now)
                for each in ordered
                for endpoint in endpoints.get(each.account_id, ())
                if not endpoint.event_types or each.event_type in endpoint.event_types
            ],
            ignore_conflicts=True,
        )


def _endpoints_of(account_ids: set[UUID]) -> Mapping[UUID, Sequence[WebhookEndpoint]]:
    found: defaultdict[UUID, list[WebhookEndpoint]] = defaultdict(list)
    for endpoint in WebhookEndpoint.objects.filter(ENABLED, account__in=account_ids).order_by("pk"):
        found[endpoint.account_id].append(endpoint)
    return found
