"""Subscriptions move on the clock: they invoice, finalise and pay by themselves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import stripe
from stripe import StripeClient

from tests.local_stripe import LocalStripe
from tests.soulbox.local_stripe.invoices import customer_with

PRO, TEAM = "price_soulbox_pro_monthly", "price_soulbox_team_monthly"
HOUR_S, DAY_S = 3600, 24 * 3600


def at(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


def subscribe(client: StripeClient, customer: str, price: str = PRO) -> stripe.Subscription:
    return client.v1.subscriptions.create(
        {
            "customer": customer,
            "items": [{"price": price}],
            "metadata": {"tier": "pro"},
            "payment_behavior": "allow_incomplete",
        }
    )


def period_of(subscription: stripe.Subscription) -> tuple[int, int]:
    item = subscription["items"]["data"][0]
    return item["current_period_start"], item["current_period_end"]


def invoices_of(
    client: StripeClient, subscription: str
) -> list[tuple[str | None, int, str | None]]:
    """Return billing reason, total and status of its invoices, oldest first."""
    found = client.v1.invoices.list({"subscription": subscription, "limit": 100}).data
    return [(one.billing_reason, one.total, one.status) for one in reversed(found)]


def test_a_period_is_invoiced_at_its_start_and_paid_an_hour_later(
    client: StripeClient, local: LocalStripe
) -> None:
    local.set_clock(at(2026, 1, 31))
    made = subscribe(client, customer_with(client, local, "pm_card_visa").id)
    assert (made.status, period_of(made)) == ("active", (at(2026, 1, 31), at(2026, 2, 28)))
    assert made.latest_invoice is not None
    first = client.v1.invoices.retrieve(str(made.latest_invoice))
    assert (first.billing_reason, first.amount_paid, first.status) == (
        "subscription_create",
        9900,
        "paid",
    )
    assert first.parent is not None
    assert first.parent.subscription_details is not None
    assert first.parent.subscription_details.to_dict()["metadata"] == {"tier": "pro"}
    local.advance(to=at(2026, 2, 28))
    renewed = client.v1.subscriptions.retrieve(made.id)
    # The anchor is the 31st, so March has its 31st again.
    assert period_of(renewed) == (at(2026, 2, 28), at(2026, 3, 31))
    assert invoices_of(client, made.id)[1] == ("subscription_cycle", 9900, "draft")
    local.advance(HOUR_S)
    assert invoices_of(client, made.id)[1] == ("subscription_cycle", 9900, "paid")
    assert local.ledger()["usd"]["charged"] == 2 * 9900
    paid = client.v1.events.list({"type": "invoice.paid"}).data
    assert [event.created for event in paid] == [at(2026, 2, 28) + HOUR_S, at(2026, 1, 31)]


def test_a_part_of_the_price_is_charged_to_the_anchor(
    client: StripeClient, local: LocalStripe
) -> None:
    local.set_clock(at(2026, 4, 16))
    customer = customer_with(client, local, "pm_card_visa")
    made = client.v1.subscriptions.create(
        {
            "customer": customer.id,
            "items": [{"price": PRO}],
            "billing_cycle_anchor": at(2026, 5, 1),
            "proration_behavior": "create_prorations",
        }
    )
    assert period_of(made) == (at(2026, 4, 16), at(2026, 5, 1))
    assert invoices_of(client, made.id) == [("subscription_create", 4950, "paid")]
    local.advance(to=at(2026, 5, 2))
    assert invoices_of(client, made.id)[1:] == [("subscription_cycle", 9900, "paid")]


def test_an_upgrade_invoices_the_difference_at_once(
    client: StripeClient, local: LocalStripe
) -> None:
    local.set_clock(at(2026, 4, 1))
    made = subscribe(client, customer_with(client, local, "pm_card_visa").id)
    local.advance(to=at(2026, 4, 16))
    client.v1.subscriptions.update(
        made.id,
        {
            "items": [{"id": made["items"]["data"][0]["id"], "price": TEAM}],
            "proration_behavior": "always_invoice",
        },
    )
    assert invoices_of(client, made.id)[1] == ("subscription_update", 14950 - 4950, "paid")
    lines = client.v1.invoices.list({"subscription": made.id}).data[0].lines.data
    assert sorted(line.amount for line in lines) == [-4950, 14950]


def test_prorations_wait_for_the_next_period_unless_told_otherwise(
    client: StripeClient, local: LocalStripe
) -> None:
    local.set_clock(at(2026, 4, 1))
    made = subscribe(client, customer_with(client, local, "pm_card_visa").id)
    local.advance(to=at(2026, 4, 16))
    client.v1.subscriptions.update(
        made.id, {"items": [{"id": made["items"]["data"][0]["id"], "price": TEAM}]}
    )
    assert len(invoices_of(client, made.id)) == 1
    local.advance(to=at(2026, 5, 2))
    assert invoices_of(client, made.id)[1] == ("subscription_cycle", 29900 + 10000, "paid")


def test_a_subscription_ends_with_its_period(client: StripeClient, local: LocalStripe) -> None:
    local.set_clock(at(2026, 4, 1))
    made = subscribe(client, customer_with(client, local, "pm_card_visa").id)
    ending = client.v1.subscriptions.update(made.id, {"cancel_at_period_end": True})
    assert (ending.status, ending.cancel_at) == ("active", at(2026, 5, 1))
    local.advance(to=at(2026, 5, 1))
    ended = client.v1.subscriptions.retrieve(made.id)
    assert (ended.status, ended.ended_at) == ("canceled", at(2026, 5, 1))
    assert len(invoices_of(client, made.id)) == 1
    kinds = [event.type for event in client.v1.events.list({"limit": 2}).data]
    assert kinds[0] == "customer.subscription.deleted"


def test_a_cancelled_subscription_gives_the_unused_part_to_the_balance(
    client: StripeClient, local: LocalStripe
) -> None:
    local.set_clock(at(2026, 4, 1))
    customer = customer_with(client, local, "pm_card_visa")
    made = subscribe(client, customer.id)
    local.advance(to=at(2026, 4, 16))
    ended = client.v1.subscriptions.cancel(made.id, {"prorate": True, "invoice_now": True})
    assert ended.status == "canceled"
    assert client.v1.customers.retrieve(customer.id).balance == -4950
    assert client.v1.subscriptions.list({"customer": customer.id}).data == []
    found = client.v1.subscriptions.list({"customer": customer.id, "status": "all"})
    assert [one.id for one in found.data] == [made.id]


def test_a_renewal_that_fails_is_tried_again_and_then_ends_the_subscription(
    client: StripeClient, local: LocalStripe
) -> None:
    local.set_clock(at(2026, 4, 1))
    customer = customer_with(client, local, "pm_card_visa")
    made = subscribe(client, customer.id)
    local.attach(customer.id, "pm_card_chargeCustomerFail")
    local.advance(to=at(2026, 5, 1) + HOUR_S)
    assert client.v1.subscriptions.retrieve(made.id).status == "past_due"
    local.advance(3 * DAY_S)
    invoice = client.v1.invoices.list({"subscription": made.id}).data[0]
    assert (invoice.attempt_count, invoice.status) == (2, "open")
    local.advance(12 * DAY_S)
    ended = client.v1.subscriptions.retrieve(made.id)
    assert ended.status == "canceled"
    assert ended.cancellation_details is not None
    assert ended.cancellation_details.reason == "payment_failed"


def test_a_past_due_subscription_is_active_again_once_it_is_paid(
    client: StripeClient, local: LocalStripe
) -> None:
    local.set_clock(at(2026, 4, 1))
    customer = customer_with(client, local, "pm_card_visa")
    made = subscribe(client, customer.id)
    local.attach(customer.id, "pm_card_chargeCustomerFail")
    local.advance(to=at(2026, 5, 1) + HOUR_S)
    local.attach(customer.id, "pm_card_visa")
    local.advance(3 * DAY_S)
    assert client.v1.subscriptions.retrieve(made.id).status == "active"
    assert invoices_of(client, made.id)[1] == ("subscription_cycle", 9900, "paid")


@pytest.mark.parametrize("behavior", ["allow_incomplete", "error_if_incomplete"])
def test_a_first_payment_that_fails_leaves_it_incomplete_or_makes_none(
    client: StripeClient, local: LocalStripe, behavior: str
) -> None:
    customer = customer_with(client, local, "pm_card_chargeCustomerFail")
    local.set_clock(at(2026, 4, 1))
    asked = {
        "customer": customer.id,
        "items": [{"price": PRO}],
        "payment_behavior": behavior,
    }
    if behavior == "error_if_incomplete":
        with pytest.raises(stripe.CardError):
            client.raw_request("post", "/v1/subscriptions", **asked)
        assert client.v1.subscriptions.list({"status": "all"}).data == []
        return
    client.raw_request("post", "/v1/subscriptions", **asked)
    [made] = client.v1.subscriptions.list({"status": "all"}).data
    assert made.status == "incomplete"
    local.advance(24 * HOUR_S)
    assert client.v1.subscriptions.retrieve(made.id).status == "incomplete_expired"
    assert invoices_of(client, made.id) == [("subscription_create", 9900, "void")]


def test_staff_may_cancel_in_the_dashboard(client: StripeClient, local: LocalStripe) -> None:
    made = subscribe(client, customer_with(client, local, "pm_card_visa").id)
    local.cancel_subscription(made.id, at_period_end=True)
    assert client.v1.subscriptions.retrieve(made.id).cancel_at_period_end
    local.cancel_subscription(made.id)
    assert client.v1.subscriptions.retrieve(made.id).status == "canceled"


def test_prices_and_products_are_there(client: StripeClient, local: LocalStripe) -> None:
    del local
    found = client.v1.prices.list({"active": True}).data
    assert {price.id: price.unit_amount for price in found} == {PRO: 9900, TEAM: 29900}
    product = client.v1.products.retrieve(str(client.v1.prices.retrieve(PRO).product))
    assert product.name == "SoulBox Professional"
