"""Periods of subscriptions, and the invoices that each of them brings."""

from __future__ import annotations

import calendar
from copy import deepcopy
from datetime import UTC, datetime, timedelta

from soulbox.local_stripe import drafts, invoice_lines, invoices, paying, standing
from soulbox.local_stripe.customers import mark_delinquent
from soulbox.local_stripe.errors import StripeError
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import World

INCOMPLETE_FOR_S = 23 * 3600
DAY_S = 24 * 3600
# Stripe tries again after so many days, and cancels the subscription when that fails too.
RETRY_AFTER_DAYS = (3, 5, 7)
NOT_TRIED_AGAIN = (standing.NEW, "incomplete", "canceled")
MONTHS = {"month": 1, "year": 12}
DAYS = {"day": 1, "week": 7}


def boundary(anchor: int, recurring: Obj, number: int) -> int:
    """Return where the numbered period from the anchor begins; the anchor's is number 0."""
    start = datetime.fromtimestamp(anchor, UTC)
    count = number * recurring["interval_count"]
    if recurring["interval"] in DAYS:
        return int((start + timedelta(days=count * DAYS[recurring["interval"]])).timestamp())
    months = start.month - 1 + count * MONTHS[recurring["interval"]]
    year, month = start.year + months // 12, months % 12 + 1
    # The 31st of a shorter month is its last day; the anchor brings the 31st back.
    day = min(start.day, calendar.monthrange(year, month)[1])
    return int(start.replace(year=year, month=month, day=day).timestamp())


def period_at(anchor: int, recurring: Obj, now: int) -> tuple[int, int]:
    """Return start and end of the period that holds this moment."""
    number = 0
    while boundary(anchor, recurring, number) > now:
        number -= 1
    while boundary(anchor, recurring, number + 1) <= now:
        number += 1
    return boundary(anchor, recurring, number), boundary(anchor, recurring, number + 1)


def part(amount: int, *, of: tuple[int, int], since: int) -> int:
    """Return the part of a period's amount that is left at a moment, rounded half up."""
    start, end = of
    left, whole = max(end - max(since, start), 0), end - start
    return (2 * amount * left + whole) // (2 * whole)


def whole_period(subscription: Obj, item: Obj) -> tuple[int, int]:
    """Return the whole period that an item's price is for, of which the first may be a part."""
    last = item["current_period_end"] - 1
    return period_at(subscription["billing_cycle_anchor"], item["price"]["recurring"], last)


def amount_of(item: Obj) -> int:
    """Return what an item costs for a whole period, in minor units."""
    amount: int = item["price"]["unit_amount"] * item["quantity"]
    return amount


def draft(world: World, subscription: Obj, billing_reason: str) -> Obj:
    """Make the subscription's next invoice, with what waits for it but no period's price yet."""
    customer = world.get("customer", subscription["customer"])
    invoice = drafts.new_invoice(world, customer, subscription["currency"], billing_reason)
    invoice.update(
        auto_advance=True,
        collection_method=subscription["collection_method"],
        parent={
            "quote_details": None,
            "subscription_details": {
                "metadata": subscription["metadata"],
                "subscription": subscription["id"],
            },
            "type": "subscription_details",
        },
    )
    for item in invoice_lines.pending(
        world, customer["id"], subscription["currency"], subscription=subscription["id"]
    ):
        invoice_lines.put_on(world, invoice, item)
    subscription["latest_invoice"] = invoice["id"]
    return invoice


def add_period(world: World, invoice: Obj, subscription: Obj, *, since: int | None = None) -> None:
    """Add the price of each item's period to an invoice, or of what is left of it."""
    for item in subscription["items"]["data"]:
        period = (item["current_period_start"], item["current_period_end"])
        amount = amount_of(item)
        if since is not None:
            amount = part(amount, of=whole_period(subscription, item), since=since)
        parent = invoice_lines.of_subscription(subscription["id"], item["id"])
        line = invoice_lines.new_line(world, invoice, amount, parent)
        price, product = item["price"], world.get("product", item["price"]["product"])
        line.update(
            description=f"{item['quantity']} × {product['name']} (at "
            f"{price['unit_amount'] / 100:.2f} {price['currency'].upper()} / "
            f"{price['recurring']['interval']})",
            period={"start": period[0], "end": period[1]},
            pricing=invoice_lines.pricing_of(price),
            quantity=item["quantity"],
            quantity_decimal=str(item["quantity"]),
            subscription=subscription["id"],
        )


def prorate(world: World, subscription: Obj, item: Obj, *, sign: int, since: int) -> None:
    """Leave an item waiting: what is left of the period is owed (1) or given back (-1)."""
    amount = sign * part(amount_of(item), of=whole_period(subscription, item), since=since)
    name = world.get("product", item["price"]["product"])["name"]
    day = datetime.fromtimestamp(since, UTC).strftime("%d %b %Y")
    made = invoice_lines.new_item(
        world,
        {
            "amount": amount,
            "description": f"{'Remaining' if sign > 0 else 'Unused'} time on {name} after {day}",
            "discountable": False,
            "period": {"start": since, "end": item["current_period_end"]},
            "quantity": item["quantity"],
        },
        subscription["customer"],
        subscription["currency"],
        "",
    )
    made.update(
        parent={
            "subscription_details": {
                "subscription": subscription["id"],
                "subscription_item": item["id"],
            },
            "type": "subscription_details",
        },
        pricing=invoice_lines.pricing_of(item["price"]),
        proration=True,
    )
    world.emit("invoiceitem.created", made)


def close(world: World, invoice: Obj) -> None:
    """Finalise a subscription's invoice and pay it now. Raises Stripe's error of the payment."""
    world.state.due.pop(invoice["id"], None)
    invoices.finalize_draft(world, invoice)
    # Paid here, not in an hour.
    world.state.due.pop(invoice["id"], None)
    if invoice["status"] == "open" and invoice["collection_method"] == "charge_automatically":
        collect(world, invoice)


def collect(world: World, invoice: Obj) -> None:
    """Charge the customer's card by itself. Raises Stripe's error; then it is tried again."""
    retry = invoice["attempt_count"]
    try:
        method = paying.method_to_charge(world, invoice, None)
        invoice["attempt_count"] = retry + 1
        paying.attempt(world, invoice, method, off_session=True)
    except StripeError as error:
        if error.status != 402:
            before = deepcopy(invoice)
            invoice.update(attempted=True, attempt_count=retry + 1)
            paying.tell_failure(world, invoice, before)
        mark_delinquent(world, invoice["customer"], is_so=True)
        _try_again(world, invoice)
        raise


def _try_again(world: World, invoice: Obj) -> None:
    subscription = world.state.find(standing.subscription_of(invoice) or "")
    if subscription is not None and subscription["status"] in NOT_TRIED_AGAIN:
        return
    tries = invoice["attempt_count"]
    if tries <= len(RETRY_AFTER_DAYS):
        at = world.now + RETRY_AFTER_DAYS[tries - 1] * DAY_S
        invoice["next_payment_attempt"] = world.state.due[invoice["id"]] = at
        return
    invoice["next_payment_attempt"] = None
    if subscription is not None:
        standing.end(world, subscription, reason="payment_failed")


def draft_and_tell(world: World, invoice: Obj) -> None:
    """Sum a subscription's draft up, tell of it, and let it finalise itself in an hour."""
    drafts.sum_up(world, invoice)
    drafts.schedule(world, invoice)
    world.emit("invoice.created", invoice)


def renew(world: World, subscription: Obj) -> None:
    """End a period: the subscription ends with it, or the next period begins and is invoiced."""
    if subscription["cancel_at_period_end"]:
        standing.end(world, subscription, reason="cancellation_requested")
        return
    before = deepcopy(subscription)
    ended = subscription["items"]["data"][0]
    old_period = (ended["current_period_start"], ended["current_period_end"])
    move_period(subscription, world.now)
    invoice = draft(world, subscription, "subscription_cycle")
    invoice.update(period_start=old_period[0], period_end=old_period[1])
    add_period(world, invoice, subscription)
    draft_and_tell(world, invoice)
    standing.tell_update(world, subscription, before)
    world.state.due[subscription["id"]] = standing.period_end(subscription)


def move_period(subscription: Obj, now: int) -> None:
    """Set every item's period to the one that holds this moment."""
    for item in subscription["items"]["data"]:
        start, end = period_at(
            subscription["billing_cycle_anchor"], item["price"]["recurring"], now
        )
        item.update(current_period_start=start, current_period_end=end)


def expire(world: World, subscription: Obj) -> None:
    """Give up on a subscription whose first invoice was not paid, and void that."""
    invoice = world.get("invoice", subscription["latest_invoice"])
    standing.update(world, subscription, status="incomplete_expired", ended_at=world.now)
    invoices.void_invoice(world, invoice)
