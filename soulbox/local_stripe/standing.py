"""What becomes of a subscription as its invoices are paid or not."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import World, changed

# Of a subscription whose first invoice is being paid: nobody has heard of it yet.
NEW = "new"


def subscription_of(invoice: Obj) -> str | None:
    """Return the id of the subscription that an invoice belongs to."""
    details = (invoice["parent"] or {}).get("subscription_details")
    return None if details is None else details["subscription"]


def update(world: World, subscription: Obj, **changes: Any) -> None:
    """Change a subscription, and tell of it if anything did change."""
    before = deepcopy(subscription)
    subscription.update(changes)
    tell_update(world, subscription, before)


def tell_update(world: World, subscription: Obj, before: Obj) -> None:
    """Emit customer.subscription.updated with what changed."""
    if previous := changed(before, subscription):
        world.emit("customer.subscription.updated", subscription, previous=previous)


def after_payment(world: World, invoice: Obj) -> None:
    """Make a subscription active whose newest invoice is paid."""
    subscription = world.state.find(subscription_of(invoice) or "")
    if (
        subscription is not None
        and subscription["latest_invoice"] == invoice["id"]
        and subscription["status"] in ("incomplete", "past_due", "unpaid")
    ):
        was_incomplete = subscription["status"] == "incomplete"
        update(world, subscription, status="active")
        if was_incomplete:
            world.state.due[subscription["id"]] = period_end(subscription)


def after_failure(world: World, invoice: Obj) -> None:
    """Make an active subscription past due."""
    subscription = world.state.find(subscription_of(invoice) or "")
    if subscription is not None and subscription["status"] == "active":
        update(world, subscription, status="past_due")


def period_end(subscription: Obj) -> int:
    """Return when the running period ends, in unix seconds."""
    ends: list[int] = [item["current_period_end"] for item in subscription["items"]["data"]]
    return min(ends)


def end(world: World, subscription: Obj, *, reason: str) -> None:
    """Cancel a subscription now. What it has invoiced is no longer collected by itself."""
    details = {**subscription["cancellation_details"], "reason": reason}
    subscription.update(
        canceled_at=subscription["canceled_at"] or world.now,
        cancellation_details=details,
        ended_at=world.now,
        status="canceled",
    )
    world.state.due.pop(subscription["id"], None)
    for invoice in world.state.table("invoice").values():
        if subscription_of(invoice) == subscription["id"] and invoice["status"] == "open":
            world.state.due.pop(invoice["id"], None)
            invoice.update(auto_advance=False, next_payment_attempt=None)
    world.emit("customer.subscription.deleted", subscription)
