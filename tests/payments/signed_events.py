"""Events as Stripe sends them: made, signed and posted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from django.http import HttpResponse
from django.test import Client

from payments.models import WebhookEvent
from payments.signatures import sign
from payments.stripe.client import API_VERSION

PATH = "/api/v1/webhook/stripe"
SECRET, OTHER_SECRET = "whsec_new", "whsec_old"
HAPPENED_AT = datetime(2026, 6, 1, 12, tzinfo=UTC)


def event(event_id: str = "evt_1", kind: str = "invoice.paid", **said: Any) -> dict[str, Any]:
    """Return an event about the invoice `in_1`."""
    return {
        "id": event_id,
        "object": "event",
        "type": kind,
        "api_version": API_VERSION,
        "created": int(HAPPENED_AT.timestamp()),
        "livemode": False,
        "data": {"object": {"id": "in_1", "object": "invoice"}},
        **said,
    }


def body_of(told: object) -> bytes:
    """Return the bytes that are sent, spaced as Stripe spaces them."""
    return json.dumps(told, indent=2).encode()


def post(
    client: Client,
    body: bytes,
    *,
    secret: str = SECRET,
    at: datetime | None = None,
    signed: bytes | None = None,
    **more: Any,
) -> HttpResponse:
    """Post a body; the header is of now and of that body, unless said otherwise."""
    header = sign(body if signed is None else signed, secret=secret, now=at or datetime.now(UTC))
    given = {"content_type": "application/json", "headers": {"Stripe-Signature": header}, **more}
    return client.post(PATH, body, **given)  # type: ignore[return-value]


def store(event_id: str = "evt_1", kind: str = "invoice.paid", **columns: Any) -> WebhookEvent:
    """Store an event as if it had come when it happened."""
    row = {
        "event_id": event_id,
        "type": kind,
        "object_type": "invoice",
        "object_id": "in_1",
        "api_version": API_VERSION,
        "is_live_mode": False,
        "source": WebhookEvent.Source.WEBHOOK,
        "happened_at": HAPPENED_AT,
        "received_at": HAPPENED_AT,
        "body": event(event_id, kind),
        "try_at": HAPPENED_AT,
    }
    return WebhookEvent.objects.create(**{**row, **columns})
