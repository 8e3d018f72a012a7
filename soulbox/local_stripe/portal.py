"""Sessions of the customer portal, where customers manage their own cards."""

from __future__ import annotations

from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, served


def create(call: Call) -> Obj:
    """Make a session: an address that needs no log-in."""
    world = call.world
    customer = world.get("customer", call.get("customer") or "", param="customer")
    session_id = world.state.new_id("bps")
    session = world.add(
        {
            "id": session_id,
            "object": "billing_portal.session",
            "configuration": "bpc_local",
            "created": world.now,
            "customer": customer["id"],
            "customer_account": None,
            "flow": None,
            "livemode": False,
            "locale": None,
            "on_behalf_of": None,
            "return_url": call.get("return_url"),
            "url": f"{world.address}/_local/pages/portal/{session_id}",
        }
    )
    world.emit("billing_portal.session.created", session)
    return session


OPERATIONS: dict[str, Served] = {
    "PostBillingPortalSessions": served(create, "customer", "return_url"),
}
