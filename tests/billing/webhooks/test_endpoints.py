from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from billing.models import Delivery, Event, EventType, WebhookEndpoint
from billing.services import (
    EndpointChange,
    WebhookRefusedError,
    add_endpoint,
    change_endpoint,
    emit_event,
    forget_old_events,
    ping_endpoint,
    redeliver,
    refuse_url,
    remove_endpoint,
)
from billing.services.outgoing_retention import KEPT
from billing.services.webhook_endpoints import MOST_ENDPOINTS, PINGS_AN_HOUR, SWITCHED_OFF
from tests.billing.usage import NOON, open_account
from tests.billing.webhooks.endpoint import URL

pytestmark = pytest.mark.django_db


def open_endpoint(name: str = "Ada", *types: EventType) -> WebhookEndpoint:
    return add_endpoint(open_account(name).pk, url=URL, event_types=types, now=NOON).row


def emit(row: WebhookEndpoint, key: str = "1") -> Event:
    event_id = emit_event(row.account_id, EventType.INVOICE_PAID, key, {}, NOON)
    return Event.objects.get(pk=event_id)


def test_each_endpoint_has_a_secret_of_its_own() -> None:
    account = open_account()
    first, second = (add_endpoint(account.pk, url=URL, now=NOON) for _ in range(2))
    assert first.secret.startswith("whsec_")
    assert first.secret != second.secret


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://10.0.0.1/", "http://8.8.8.8/"])
def test_a_url_that_nothing_is_sent_to_is_refused_by_its_name(url: str) -> None:
    with pytest.raises(WebhookRefusedError, match=r"^url: ") as refused:
        refuse_url(url)
    assert refused.value.field == "url"


def test_an_account_has_so_many_endpoints() -> None:
    account = open_account()
    rows = [add_endpoint(account.pk, url=URL, now=NOON).row for _ in range(MOST_ENDPOINTS)]
    with pytest.raises(WebhookRefusedError, match="at most 20"):
        add_endpoint(account.pk, url=URL, now=NOON)
    remove_endpoint(rows[0].pk, now=NOON)
    add_endpoint(account.pk, url=URL, now=NOON)


def test_a_change_changes_what_it_names() -> None:
    row = open_endpoint("Ada", EventType.INVOICE_PAID)
    change_endpoint(row.pk, EndpointChange(description="Books"), now=NOON)
    row.refresh_from_db()
    assert (row.url, row.description, row.event_types) == (URL, "Books", ["invoice.paid"])
    change_endpoint(row.pk, EndpointChange(event_types=[]), now=NOON)
    row.refresh_from_db()
    assert row.event_types == []


def test_what_waits_for_an_endpoint_that_is_switched_off_is_given_up() -> None:
    row = open_endpoint()
    emit(row)
    for _ in range(2):
        change_endpoint(row.pk, EndpointChange(is_enabled=False), now=NOON)
    row.refresh_from_db()
    assert (row.disabled_at, row.disabled_reason) == (NOON, SWITCHED_OFF)
    assert Delivery.objects.get().given_up_at == NOON
    change_endpoint(row.pk, EndpointChange(is_enabled=True), now=NOON)
    row.refresh_from_db()
    assert (row.disabled_at, row.disabled_reason) == (None, "")


def test_a_removed_endpoint_is_gone() -> None:
    row = open_endpoint()
    event = emit(row)
    remove_endpoint(row.pk, now=NOON)
    assert Delivery.objects.get().given_up_at == NOON
    with pytest.raises(WebhookRefusedError):
        redeliver(event.pk, now=NOON)
    with pytest.raises(WebhookEndpoint.DoesNotExist):
        change_endpoint(row.pk, EndpointChange(is_enabled=True), now=NOON)


def test_a_ping_goes_to_its_endpoint_alone_whatever_types_it_wants() -> None:
    row = open_endpoint("Ada", EventType.INVOICE_PAID)
    add_endpoint(row.account_id, url=URL, now=NOON)
    events = {ping_endpoint(row.pk, now=NOON).pk for _ in range(2)}
    assert len(events) == 2
    assert set(Delivery.objects.values_list("endpoint", "event")) == {(row.pk, e) for e in events}
    change_endpoint(row.pk, EndpointChange(is_enabled=False), now=NOON)
    with pytest.raises(WebhookRefusedError, match="Enable it first"):
        ping_endpoint(row.pk, now=NOON)


def test_there_are_so_many_pings_an_hour() -> None:
    row = open_endpoint()
    for _ in range(PINGS_AN_HOUR):
        ping_endpoint(row.pk, now=NOON)
    with pytest.raises(WebhookRefusedError, match="60 pings an hour"):
        ping_endpoint(row.pk, now=NOON + timedelta(minutes=59))
    ping_endpoint(row.pk, now=NOON + timedelta(hours=1))


def test_an_event_is_sent_again_to_those_who_want_it_now() -> None:
    row = open_endpoint()
    event = emit(row)
    Delivery.objects.update(delivered_at=NOON, attempts=3)
    later = add_endpoint(row.account_id, url=URL, now=NOON).row
    add_endpoint(row.account_id, url=URL, event_types=[EventType.BUDGET_REACHED], now=NOON)
    at = NOON + timedelta(hours=1)
    for _ in range(2):
        deliveries = redeliver(event.pk, now=at)
        assert {delivery.endpoint for delivery in deliveries} == {row, later}
    waiting = Delivery.objects.filter(delivered_at=None, attempts=0, try_at=at)
    assert waiting.count() == Delivery.objects.count() == 2
    Delivery.objects.update(delivered_at=NOON)
    (one,) = redeliver(event.pk, endpoint_id=later.pk, now=at)
    assert one.endpoint == later


def test_an_event_is_not_sent_to_an_endpoint_of_somebody_else() -> None:
    event = emit(open_endpoint())
    others = open_endpoint("Bob")
    with pytest.raises(WebhookRefusedError):
        redeliver(event.pk, endpoint_id=others.pk, now=NOON)
    with pytest.raises(Event.DoesNotExist):
        redeliver(uuid4(), now=NOON)
    assert not Delivery.objects.filter(endpoint=others).exists()


def test_events_are_kept_for_thirty_days() -> None:
    row = open_endpoint()
    emit(row)
    remove_endpoint(row.pk, now=NOON)
    assert forget_old_events(NOON + KEPT) is False
    assert Event.objects.count() == Delivery.objects.count() == 1
    forget_old_events(NOON + KEPT + timedelta(seconds=1))
    assert not Event.objects.exists()
    assert not Delivery.objects.exists()
    assert not WebhookEndpoint.objects.exists()
