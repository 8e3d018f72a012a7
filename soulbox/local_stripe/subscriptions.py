"""Subscriptions: made, changed and cancelled through the API."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from typing import Any

from soulbox.local_stripe import cycles, invoices, lists, standing
from soulbox.local_stripe.errors import StripeError, invalid
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, World, served, with_metadata

ENDED = ("canceled", "incomplete_expired")


def create(call: Call) -> Obj:
    """Make a subscription; its first invoice is finalised and paid at once."""
    world = call.world
    customer = world.get("customer", call.get("customer") or "", param="customer")
    if not call.get("items"):
        raise invalid("Missing required param: items.", code="parameter_missing", param="items")
    behavior = call.get("payment_behavior") or "allow_incomplete"
    method_id = call.get("default_payment_method")
    _check_method(world, customer, method_id, behavior)
    subscription = _new(call, customer)
    for number, asked in enumerate(call.get("items")):
        subscription["items"]["data"].append(_item(world, subscription, asked, number))
    anchor = call.get("billing_cycle_anchor")
    start = _first_period(world, subscription, anchor)
    world.add(subscription)
    try:
        invoice = cycles.draft(world, subscription, "subscription_create")
        since = _charged_since(call, anchor, start)
        cycles.add_period(world, invoice, subscription, since=since)
        cycles.draft_and_tell(world, invoice)
        _pay_first(world, subscription, invoice, behavior)
    except StripeError:
        if behavior == "error_if_incomplete":
            del world.state.table("subscription")[subscription["id"]]
            raise
    if subscription["status"] == standing.NEW:
        subscription["status"] = "incomplete"
        world.state.due[subscription["id"]] = world.now + cycles.INCOMPLETE_FOR_S
    else:
        world.state.due[subscription["id"]] = standing.period_end(subscription)
    world.emit("customer.subscription.created", subscription)
    return subscription


def _new(call: Call, customer: Obj) -> Obj:
    world = call.world
    subscription_id = world.state.new_id("sub")
    return {
        "id": subscription_id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": call.get("billing_cycle_anchor") or world.now,
        "billing_cycle_anchor_config": None,
        "billing_mode": {"flexible": None, "type": "classic"},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": call.get("collection_method") or "charge_automatically",
        "created": world.now,
        "currency": "usd",
        "customer": customer["id"],
        "customer_account": None,
        "days_until_due": call.get("days_until_due"),
        "default_payment_method": call.get("default_payment_method"),
        "default_source": None,
        "default_tax_rates": [],
        "description": call.get("description"),
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": {
            "object": "list",
            "data": [],
            "has_more": False,
            "url": f"/v1/subscription_items?subscription={subscription_id}",
        },
        "latest_invoice": None,
        "livemode": False,
        "metadata": with_metadata(None, call.given.get("metadata", {})),
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": world.now,
        "status": standing.NEW,
        "test_clock": None,
        "transfer_data": None,
        "trial_end": None,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": None,
    }


def _item(world: World, subscription: Obj, asked: Obj, number: int) -> Obj:
    price = _price(world, asked, f"items[{number}]")
    subscription["currency"] = price["currency"]
    return {
        "id": world.state.new_id("si", 14),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": world.now,
        "current_period_end": 0,
        "current_period_start": 0,
        "discounts": [],
        "metadata": with_metadata(None, asked.get("metadata", {})),
        "price": price,
        "quantity": asked.get("quantity", 1),
        "subscription": subscription["id"],
        "tax_rates": [],
    }


def _price(world: World, asked: Obj, param: str) -> Obj:
    if unserved := asked.keys() - {"id", "price", "quantity", "metadata"}:
        raise invalid(f"The local server does not serve {', '.join(sorted(unserved))} of {param}.")
    price = world.get("price", asked.get("price", ""), param=f"{param}[price]")
    if price["type"] != "recurring":
        raise invalid(
            "The price specified is set to `type=one_time` but this field only accepts prices with "
            "`type=recurring`.",
            param=f"{param}[price]",
        )
    return price


def _first_period(world: World, subscription: Obj, anchor: int | None) -> int:
    """Set the first period: to the anchor, or a whole one from now. Returns its start."""
    now = world.now
    cycles.move_period(subscription, now)
    if anchor is not None:
        for item in subscription["items"]["data"]:
            item["current_period_start"] = now
            if not now < anchor <= cycles.boundary(now, item["price"]["recurring"], 1):
                raise invalid(
                    "billing_cycle_anchor cannot be later than next natural billing date, nor in "
                    "the past.",
                    param="billing_cycle_anchor",
                )
    return now


def _charged_since(call: Call, anchor: int | None, start: int) -> int | None:
    if anchor is None:
        return None
    if call.get("proration_behavior") == "none":
        return anchor
    return start


def _check_method(world: World, customer: Obj, method_id: str | None, behavior: str) -> None:
    default = customer["invoice_settings"]["default_payment_method"]
    if method_id:
        method = world.get("payment_method", method_id, param="default_payment_method")
        if method["customer"] != customer["id"]:
            raise invalid(
                f"The customer does not have a payment method with the ID {method_id}.",
                code="resource_missing",
                param="default_payment_method",
            )
    if not (method_id or default) and behavior != "default_incomplete":
        raise invalid(
            "This customer has no attached payment source or default payment method. Please "
            "consider adding a default payment method.",
            code="resource_missing",
        )


def _pay_first(world: World, subscription: Obj, invoice: Obj, behavior: str) -> None:
    if behavior == "default_incomplete" and invoice["amount_due"]:
        invoices.finalize_draft(world, invoice)
        world.state.due.pop(invoice["id"], None)
        return
    try:
        cycles.close(world, invoice)
    except StripeError:
        if behavior == "error_if_incomplete":
            invoices.void_invoice(world, invoice)
        raise
    subscription["status"] = "active"


def update(call: Call) -> Obj:
    """Change price, metadata or end; a new price is prorated as the call says."""
    world = call.world
    subscription = world.get("subscription", call.in_path["subscription_exposed_id"])
    if subscription["status"] in ENDED and set(call.given) - {"metadata", "cancellation_details"}:
        raise invalid(
            "A canceled subscription can only update its cancellation_details and metadata."
        )
    before = deepcopy(subscription)
    if method_id := call.get("default_payment_method"):
        customer = world.get("customer", subscription["customer"])
        _check_method(world, customer, method_id, "allow_incomplete")
        subscription["default_payment_method"] = method_id
    for name in ("description", "collection_method"):
        if name in call.given:
            subscription[name] = call.get(name)
    if "metadata" in call.given:
        subscription["metadata"] = with_metadata(subscription["metadata"], call.given["metadata"])
    if "cancellation_details" in call.given:
        details = {name: value or None for name, value in call.get("cancellation_details").items()}
        subscription["cancellation_details"].update(details)
    if "cancel_at_period_end" in call.given:
        end_with_period(world, subscription, ends=call.get("cancel_at_period_end"))
    is_new_price = _change_items(call, subscription)
    standing.tell_update(world, subscription, before)
    if is_new_price and call.get("proration_behavior") == "always_invoice":
        _invoice_now(world, subscription, before, call.get("payment_behavior"))
    return subscription


def end_with_period(world: World, subscription: Obj, *, ends: bool) -> None:
    """Let the subscription end with its period, or take that back."""
    if ends == subscription["cancel_at_period_end"]:
        return
    subscription.update(
        cancel_at=standing.period_end(subscription) if ends else None,
        cancel_at_period_end=ends,
        canceled_at=world.now if ends else None,
    )
    subscription["cancellation_details"]["reason"] = "cancellation_requested" if ends else None


def _change_items(call: Call, subscription: Obj) -> bool:
    """Set prices and quantities; say whether anything is prorated by that."""
    world, prorated = call.world, False
    since = call.get("proration_date") or world.now
    for number, asked in enumerate(call.get("items") or []):
        held = {item["id"]: item for item in subscription["items"]["data"]}
        item = held.get(asked.get("id", ""))
        if item is None:
            # Without its id Stripe would add a second item beside the first: nobody means that.
            raise invalid(
                f"No such subscription item: {asked.get('id')}. The local server changes items by "
                "their id, and adds none.",
                param=f"items[{number}][id]",
            )
        price = _price(world, {"price": item["price"]["id"], **asked}, f"items[{number}]")
        if price["recurring"] != item["price"]["recurring"]:
            raise invalid("The local server does not change a subscription's interval.")
        new = {**item, "price": price, "quantity": asked.get("quantity", item["quantity"])}
        if "metadata" in asked:
            new["metadata"] = with_metadata(item["metadata"], asked["metadata"])
        is_dearer_or_cheaper = cycles.amount_of(new) != cycles.amount_of(item)
        if is_dearer_or_cheaper and call.get("proration_behavior") != "none":
            cycles.prorate(world, subscription, item, sign=-1, since=since)
            cycles.prorate(world, subscription, new, sign=1, since=since)
            prorated = True
        item.update(new)
    return prorated


def _invoice_now(world: World, subscription: Obj, before: Obj, behavior: Any) -> None:
    """Invoice what was prorated, and pay it; the call's behaviour says what a decline does."""
    was = deepcopy(subscription)
    invoice = cycles.draft(world, subscription, "subscription_update")
    cycles.draft_and_tell(world, invoice)
    try:
        cycles.close(world, invoice)
    except StripeError:
        if behavior == "error_if_incomplete":
            invoices.void_invoice(world, invoice)
            subscription.clear()
            subscription.update(before)
            raise
    standing.tell_update(world, subscription, was)


def cancel(call: Call) -> Obj:
    """End a subscription now, with the unused part given back where the call says so."""
    world = call.world
    subscription = world.get("subscription", call.in_path["subscription_exposed_id"])
    if subscription["status"] in ENDED:
        raise invalid(f"No such subscription: '{subscription['id']}'", code="resource_missing")
    if "cancellation_details" in call.given:
        subscription["cancellation_details"].update(call.get("cancellation_details"))
    if call.get("prorate"):
        for item in subscription["items"]["data"]:
            cycles.prorate(world, subscription, item, sign=-1, since=world.now)
    standing.end(world, subscription, reason="cancellation_requested")
    if call.get("invoice_now"):
        invoice = cycles.draft(world, subscription, "manual")
        cycles.draft_and_tell(world, invoice)
        with suppress(StripeError):
            cycles.close(world, invoice)
    return subscription


def retrieve(call: Call) -> Obj:
    """Return a subscription."""
    return call.world.get("subscription", call.in_path["subscription_exposed_id"])


def list_page(call: Call) -> Obj:
    """Return subscriptions, by default those that have not ended."""
    status, price = call.get("status"), call.get("price")

    def is_wanted(one: Obj) -> bool:
        if status is None:
            return bool(one["status"] != "canceled")
        if status == "ended":
            return one["status"] in ENDED
        return status in ("all", one["status"])

    found = [
        one
        for one in call.world.all("subscription")
        if is_wanted(one)
        and call.get("customer") in (None, one["customer"])
        and (price is None or price in [item["price"]["id"] for item in one["items"]["data"]])
    ]
    return lists.page(call, found, "/v1/subscriptions")


OPERATIONS: dict[str, Served] = {
    "PostSubscriptions": served(
        create,
        "customer",
        "items",
        "metadata",
        "description",
        "default_payment_method",
        "payment_behavior",
        "billing_cycle_anchor",
        "proration_behavior",
        "collection_method",
        "days_until_due",
        "off_session",
    ),
    "PostSubscriptionsSubscriptionExposedId": served(
        update,
        "items",
        "metadata",
        "description",
        "default_payment_method",
        "payment_behavior",
        "proration_behavior",
        "proration_date",
        "collection_method",
        "cancel_at_period_end",
        "cancellation_details",
        "off_session",
    ),
    "DeleteSubscriptionsSubscriptionExposedId": served(
        cancel, "prorate", "invoice_now", "cancellation_details"
    ),
    "GetSubscriptionsSubscriptionExposedId": served(retrieve),
    "GetSubscriptions": served(list_page, "customer", "status", "price", *lists.PAGING),
}
