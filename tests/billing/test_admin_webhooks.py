from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.test import Client

from billing import services
from billing.models import Account, Delivery, Event, EventType, WebhookEndpoint
from billing.models.outgoing import WAITING
from tests.billing import admin_pages
from tests.billing.admin_pages import act, page, press, text_of
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db

LATER = NOON + timedelta(minutes=1)
HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(autouse=True)
def _it_is_later(set_clock: Callable[[datetime], None]) -> None:
    set_clock(LATER)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def endpoint_of(account: Account, path: str = "hook") -> WebhookEndpoint:
    return services.add_endpoint(account.pk, url=f"https://example.com/{path}", now=NOON).row


def event_of(account: Account, key: str = "1") -> Event:
    data = {"amount": "1.00", "name": HOSTILE}
    event_id = services.emit_event(account.pk, EventType.INVOICE_PAID, key, data, NOON)
    return Event.objects.get(pk=event_id)


def pages_of(*rows: Event | Delivery | WebhookEndpoint) -> list[str]:
    return [
        address for row in rows for address in (page(type(row)), page(type(row), row.pk, "change"))
    ]


def test_what_was_sent_where_is_shown_without_secrets(finance: Client) -> None:
    endpoint = endpoint_of(open_account())
    event = event_of(endpoint.account)
    Delivery.objects.update(
        given_up_at=LATER, response_status=500, response_excerpt=HOSTILE, last_error="HTTP 500"
    )
    delivery = Delivery.objects.get()
    services.rotate_secret(endpoint.pk, now=NOON)
    endpoint.refresh_from_db()
    secrets = (
        endpoint.secret_seed,
        endpoint.secret_check,
        endpoint.old_secret_seed,
        endpoint.old_secret_check,
    )
    assert all(secrets)
    for address in pages_of(event, delivery, endpoint):
        content = finance.get(address).content.decode()
        assert HOSTILE not in content
        assert "https://example.com/hook" in content or address == page(Event)
        assert not any(secret in content for secret in secrets)
    shown = text_of(finance.get(page(Delivery, delivery.pk, "change")))
    assert "HTTP 500" in shown
    assert "&lt;script&gt;" in shown


@pytest.mark.parametrize(
    ("columns", "state"),
    [({}, "waiting"), ({"delivered_at": LATER}, "delivered"), ({"given_up_at": LATER}, "given up")],
)
def test_deliveries_are_found_by_account_type_and_state(
    finance: Client, columns: dict[str, datetime], state: str
) -> None:
    endpoint = endpoint_of(open_account())
    event_of(endpoint.account)
    Delivery.objects.update(**columns)
    other = open_account("Bob").pk
    row = f"/{Delivery.objects.get().pk}/change/"
    for name in ("waiting", "delivered", "given up"):
        listed = text_of(finance.get(page(Delivery), {"state": name}))
        assert (row in listed) == (name == state)
    for said, is_found in (
        ({"event__account__id__exact": str(endpoint.account_id)}, True),
        ({"event__account__id__exact": str(other)}, False),
        ({"event__type__exact": "invoice.paid"}, True),
        ({"event__type__exact": "ping"}, False),
        ({"endpoint__id__exact": str(endpoint.pk)}, True),
        ({"q": "Bob"}, False),
    ):
        assert (row in text_of(finance.get(page(Delivery), said))) == is_found, said
    counted = text_of(finance.get(page(Event)))
    for name, column in (("delivered", "delivered"), ("waiting", "waiting"), ("lost", "given up")):
        assert f"field-{name}" in counted
        assert f"{int(column == state)}" in counted


def test_events_are_found_by_account_and_type(finance: Client) -> None:
    event = event_of(open_account())
    other = open_account("Bob").pk
    for said, is_found in (
        ({"account__id__exact": str(event.account_id)}, True),
        ({"account__id__exact": str(other)}, False),
        ({"type__exact": "invoice.paid"}, True),
        ({"type__exact": "ping"}, False),
        ({"q": str(event.pk)}, True),
    ):
        listed = text_of(finance.get(page(Event), said))
        assert (f"/{event.pk}/change/" in listed) == is_found, said


def test_what_was_given_up_is_sent_again_to_one_endpoint_or_to_all(finance: Client) -> None:
    account = open_account()
    first, second = endpoint_of(account, "first"), endpoint_of(account, "second")
    event = event_of(account)
    Delivery.objects.update(given_up_at=NOON, attempts=8)
    delivery = Delivery.objects.get(endpoint=first)
    shown = text_of(press(finance, delivery, "send_again"))
    assert "It is sent within a minute to https://example.com/first." in shown
    assert [each.endpoint for each in Delivery.objects.filter(WAITING)] == [first]
    delivery.refresh_from_db()
    assert (delivery.attempts, delivery.try_at) == (0, LATER)
    press(finance, event, "send_again")
    assert {each.endpoint for each in Delivery.objects.filter(WAITING)} == {first, second}
    Delivery.objects.update(given_up_at=NOON)
    act(finance, Event, "send_chosen_again", event.pk)
    assert Delivery.objects.filter(WAITING).count() == 2


def test_an_event_that_nobody_wants_says_so_and_is_sent_nowhere(finance: Client) -> None:
    endpoint = endpoint_of(open_account())
    event = event_of(endpoint.account)
    services.change_endpoint(endpoint.pk, services.EndpointChange(is_enabled=False), now=NOON)
    assert "No enabled endpoint wants this event." in text_of(press(finance, event, "send_again"))
    assert not Delivery.objects.filter(WAITING).exists()


def test_an_endpoint_is_switched_off_and_on(finance: Client) -> None:
    endpoint = endpoint_of(open_account())
    event_of(endpoint.account)
    assert "Nothing is sent there any more." in text_of(press(finance, endpoint, "disable"))
    endpoint.refresh_from_db()
    assert (endpoint.disabled_at, endpoint.disabled_reason) == (LATER, "It was switched off.")
    assert not Delivery.objects.filter(WAITING).exists()
    assert f"/{endpoint.pk}/" in text_of(finance.get(page(WebhookEndpoint), {"state": "disabled"}))
    act(finance, WebhookEndpoint, "enable_chosen", endpoint.pk)
    endpoint.refresh_from_db()
    assert endpoint.disabled_at is None
    act(finance, WebhookEndpoint, "disable_chosen", endpoint.pk)
    press(finance, endpoint, "enable")
    endpoint.refresh_from_db()
    assert endpoint.disabled_at is None


def test_an_endpoint_that_the_customer_removed_stays_removed(finance: Client) -> None:
    endpoint = endpoint_of(open_account())
    services.remove_endpoint(endpoint.pk, now=NOON)
    assert "The customer has removed it." in text_of(press(finance, endpoint, "enable"))
    listed = text_of(finance.get(page(WebhookEndpoint), {"state": "removed"}))
    assert f"/{endpoint.pk}/" in listed


@pytest.mark.parametrize("model", [Event, Delivery, WebhookEndpoint])
def test_a_list_asks_as_much_for_many_rows_as_for_few(
    finance: Client, model: type[Event], django_assert_max_num_queries: Callable[..., object]
) -> None:
    account = open_account()
    for number in range(5):
        endpoint_of(account, f"hook-{number}")
        event_of(account, str(number))
    with django_assert_max_num_queries(12):  # type: ignore[attr-defined]
        finance.get(page(model))
