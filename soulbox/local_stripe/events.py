"""Events as the API lists them."""

from __future__ import annotations

from fnmatch import fnmatchcase

from soulbox.local_stripe import lists
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, World, served

KEPT_FOR_S = 30 * 24 * 3600


def shown(world: World, event: Obj) -> Obj:
    """Return the event with the number of endpoints that have not acknowledged it."""
    return {**event, "pending_webhooks": len(world.state.owed.get(event["id"], []))}


def prune(world: World) -> None:
    """Forget what Stripe no longer lists."""
    kept = world.state.table("event")
    oldest = world.now - KEPT_FOR_S
    for event_id in [event_id for event_id, one in kept.items() if one["created"] < oldest]:
        del kept[event_id]
        world.state.owed.pop(event_id, None)


def retrieve(call: Call) -> Obj:
    """Return an event."""
    return shown(call.world, call.world.get("event", call.id))


def list_page(call: Call) -> Obj:
    """Return events of the last thirty days."""
    world, delivered = call.world, call.get("delivery_success")
    kinds = call.get("types") or ([call.get("type")] if call.get("type") else ["*"])
    found = [
        shown(world, one)
        for one in world.all("event")
        if one["created"] >= world.now - KEPT_FOR_S
        and any(fnmatchcase(one["type"], kind) for kind in kinds)
        and delivered in (None, not world.state.owed.get(one["id"]))
    ]
    return lists.page(call, found, "/v1/events")


OPERATIONS: dict[str, Served] = {
    "GetEventsId": served(retrieve),
    "GetEvents": served(list_page, "type", "types", "delivery_success", *lists.PAGING),
}
