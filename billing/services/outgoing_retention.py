"""Forgets events and deliveries that are old."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Exists, OuterRef

from billing.models import Delivery, Event, WebhookEndpoint

KEPT: Final = timedelta(days=30)
EVENTS_A_BATCH: Final = 2000


def forget_old_events(now: datetime) -> bool:
    """Delete a batch of events older than 30 days with their deliveries; return whether more are.

    Removed endpoints go with their last delivery. Safe to repeat.
    """
    old = Event.objects.filter(created_at__lt=now - KEPT).order_by("created_at")
    with transaction.atomic():
        ids = list(old.values_list("pk", flat=True)[:EVENTS_A_BATCH])
        Delivery.objects.filter(event__in=ids).delete()
        Event.objects.filter(pk__in=ids).delete()
    left = Delivery.objects.filter(endpoint=OuterRef("pk"))
    WebhookEndpoint.objects.filter(~Exists(left), removed_at__lt=now - KEPT).delete()
    return len(ids) == EVENTS_A_BATCH
