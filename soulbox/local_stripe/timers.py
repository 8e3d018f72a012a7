"""What happens by itself as the clock moves on."""

from __future__ import annotations

from contextlib import suppress

from soulbox.local_stripe import cycles
from soulbox.local_stripe.errors import StripeError
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import World


def next_due(world: World) -> int | None:
    """Return when something happens next, in unix seconds."""
    return min(world.state.due.values(), default=None)


def run_due(world: World) -> None:
    """Do what is due by now, what was due first coming first."""
    world.request = {}
    while True:
        waiting = [(at, object_id) for object_id, at in world.state.due.items() if at <= world.now]
        if not waiting:
            return
        _at, object_id = min(waiting)
        del world.state.due[object_id]
        found = world.state.find(object_id)
        if found is not None:
            ADVANCE[found["object"]](world, found)


def move_to(world: World, now: float) -> None:
    """Move the clock, stopping wherever something is due on the way, so that it has its time."""
    clock = world.clock
    is_frozen = clock.frozen_at is not None
    while (due := next_due(world)) is not None and due <= now:
        clock.set(max(due, world.now), frozen=is_frozen)
        run_due(world)
    clock.set(now, frozen=is_frozen)


def _advance_invoice(world: World, invoice: Obj) -> None:
    with suppress(StripeError):
        if invoice["status"] == "draft":
            cycles.close(world, invoice)
        elif invoice["status"] == "open":
            invoice["next_payment_attempt"] = None
            cycles.collect(world, invoice)


def _advance_subscription(world: World, subscription: Obj) -> None:
    if subscription["status"] == "incomplete":
        cycles.expire(world, subscription)
    elif subscription["status"] in ("active", "past_due"):
        cycles.renew(world, subscription)


ADVANCE = {"invoice": _advance_invoice, "subscription": _advance_subscription}
