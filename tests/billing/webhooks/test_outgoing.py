from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import DatabaseError, connection, transaction

from billing.models import Delivery, Event, EventType, WebhookEndpoint
from billing.services import emit_event
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db

DATA = {"plan": "team", "fee": "299.00", "currency": "USD"}


def endpoint_of(account_name: str, *event_types: EventType, **said: object) -> WebhookEndpoint:
    return WebhookEndpoint.objects.create(
        account=open_account(account_name),
        url="https://hooks.example.com/",
        event_types=list(event_types),
        created_at=NOON,
        **said,
    )


def test_an_event_is_written_once_with_a_delivery_to_each_endpoint() -> None:
    endpoint = endpoint_of("Ada")
    endpoint_of("Bob")
    changed = EventType.SUBSCRIPTION_CHANGED
    first = emit_event(endpoint.account_id, changed, "subscription 7", DATA, NOON)
    again = emit_event(endpoint.account_id, changed, "subscription 7", {}, NOON + timedelta(1))
    event = Event.objects.get()
    assert first == again == event.pk
    assert (event.account_id, event.created_at, event.data) == (endpoint.account_id, NOON, DATA)
    delivery = Delivery.objects.get()
    assert (delivery.event, delivery.endpoint, delivery.try_at) == (event, endpoint, NOON)


@pytest.mark.parametrize(
    ("types", "said", "deliveries"),
    [
        ((), {}, 1),
        ((EventType.SUBSCRIPTION_CHANGED, EventType.INVOICE_PAID), {}, 1),
        ((EventType.INVOICE_PAID,), {}, 0),
        ((), {"disabled_at": NOON, "disabled_reason": "Switched off."}, 0),
        ((), {"removed_at": NOON}, 0),
    ],
)
def test_only_endpoints_that_want_it_are_sent_it(
    types: tuple[EventType, ...], said: dict[str, object], deliveries: int
) -> None:
    endpoint = endpoint_of("Ada", *types, **said)
    emit_event(endpoint.account_id, EventType.SUBSCRIPTION_CHANGED, "subscription 7", DATA, NOON)
    assert Event.objects.count() == 1
    assert Delivery.objects.count() == deliveries


def test_an_event_goes_with_the_transaction_that_it_tells_of() -> None:
    endpoint = endpoint_of("Ada")
    with transaction.atomic():
        emit_event(endpoint.account_id, EventType.INVOICE_PAID, "1", DATA, NOON)
        transaction.set_rollback(True)
    assert not Event.objects.exists()
    assert not Delivery.objects.exists()


def test_no_event_is_changed() -> None:
    endpoint = endpoint_of("Ada")
    emit_event(endpoint.account_id, EventType.INVOICE_PAID, "1", DATA, NOON)
    with pytest.raises(DatabaseError, match="permission denied"), transaction.atomic():
        Event.objects.update(data={})


def test_a_trigger_keeps_events_from_the_owner_too() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = 'billing_event'::regclass")
        assert ("event_stays",) in cursor.fetchall()
