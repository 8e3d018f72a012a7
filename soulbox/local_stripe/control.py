"""`/_local/`: what tests and demos ask of the server that Stripe's API does not have."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from copy import deepcopy
from dataclasses import asdict
from typing import Any

from aiohttp import web

from soulbox.local_stripe import (
    delivery,
    disputes,
    events,
    paying,
    payment_methods,
    standing,
    subscriptions,
    timers,
)
from soulbox.local_stripe.cards import TOKENS
from soulbox.local_stripe.customers import tell_change
from soulbox.local_stripe.delivery import Policy
from soulbox.local_stripe.errors import StripeError, invalid
from soulbox.local_stripe.faults import HOLD_S, Rule
from soulbox.local_stripe.server import LocalStripe
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import changed

SUMMED_AS = {
    "charge": "charged",
    "refund": "refunded",
    "refund_failure": "refunded",
    "adjustment": "disputed",
}

Given = dict[str, Any]
Control = Callable[[LocalStripe, str, Given], Any]


async def answer(server: LocalStripe, request: web.Request) -> web.Response:
    """Answer a request of the control API: JSON in, JSON out."""
    route = (request.method, request.match_info.route.resource.canonical)  # type: ignore[union-attr]
    body = await request.text()
    try:
        given = json.loads(body) if body else dict(request.query)
        made = CONTROLS[route](server, request.match_info.get("id", ""), given)
        if isinstance(made, Awaitable):
            made = await made
        server.check_events()
        server.save()
        await server.delivery.flush()
    except StripeError as error:
        server.save()
        await server.delivery.flush()
        return web.json_response(error.body("req_local"), status=error.status)
    except (ValueError, TypeError, KeyError) as error:
        return web.json_response({"error": {"message": repr(error)}}, status=400)
    return web.json_response(made)


def tell_clock(server: LocalStripe, _id: str, _given: Given) -> Obj:
    """Return the time."""
    return {"now": server.world.now, "frozen": server.world.clock.frozen_at is not None}


def set_clock(server: LocalStripe, _id: str, given: Given) -> Obj:
    """Set the time, with nothing happening on the way; it stands still unless told otherwise."""
    server.world.clock.set(given["now"], frozen=given.get("frozen", True))
    return tell_clock(server, "", {})


def advance_clock(server: LocalStripe, _id: str, given: Given) -> Obj:
    """Move the time on, by seconds or to a time, with everything that is due on the way."""
    to = given["to"] if "to" in given else server.world.now + given["seconds"]
    timers.move_to(server.world, to)
    server.keys.prune()
    events.prune(server.world)
    return tell_clock(server, "", {})


def reset(server: LocalStripe, _id: str, given: Given) -> Obj:
    """Forget everything but violations, endpoints too unless `keep_endpoints`."""
    if not given.get("keep_endpoints"):
        server.world.endpoints.clear()
    server.reset(given.get("seed"))
    server.world.search_lag_s = given.get("search_lag_s", 60)
    return {}


def tell_violations(server: LocalStripe, _id: str, _given: Given) -> list[Obj]:
    """Return requests that Stripe would not know, and answers that Stripe would not give."""
    return server.violations


def clear_violations(server: LocalStripe, _id: str, _given: Given) -> Obj:
    """Forget those."""
    server.violations.clear()
    return {}


def tell_log(server: LocalStripe, _id: str, _given: Given) -> list[Obj]:
    """Return the calls of Stripe's API, oldest first."""
    return list(server.log)


def add_fault(server: LocalStripe, _id: str, given: Given) -> list[Given]:
    """Let a call to come go wrong."""
    server.faults.add(Rule(**given))
    return server.faults.told()


def random_faults(server: LocalStripe, _id: str, given: Given) -> Obj:
    """Let calls go wrong by chance."""
    server.faults.at_random(
        seed=given.get("seed", 0),
        probabilities=given["probabilities"],
        operations=given.get("operations", ["*"]),
        seconds=given.get("seconds", HOLD_S),
    )
    return {}


def tell_faults(server: LocalStripe, _id: str, _given: Given) -> list[Given]:
    """Return the faults still to come."""
    return server.faults.told()


def clear_faults(server: LocalStripe, _id: str, _given: Given) -> Obj:
    """Let nothing go wrong any more."""
    server.faults.clear()
    return {}


def set_webhooks(server: LocalStripe, _id: str, given: Given) -> Obj:
    """Set endpoints and policy; what is not named stays."""
    if "endpoints" in given:
        server.world.endpoints[:] = [
            delivery.endpoint(number, one) for number, one in enumerate(given.pop("endpoints"))
        ]
    server.delivery.apply(Policy(**{**asdict(server.delivery.policy), **given}))
    return tell_webhooks(server, "", {})


def tell_webhooks(server: LocalStripe, _id: str, _given: Given) -> Obj:
    """Return endpoints, policy, held events and what was delivered."""
    return {
        "endpoints": server.world.endpoints,
        "policy": asdict(server.delivery.policy),
        "held": server.delivery.held,
        "deliveries": list(server.delivery.log),
        "owed": {event_id: owed for event_id, owed in server.world.state.owed.items() if owed},
    }


async def deliver(server: LocalStripe, _id: str, given: Given) -> Obj:
    """Deliver what is held, or named events again; return when it has been."""
    if events := given.pop("events", None):
        before = server.delivery.policy
        server.delivery.apply(Policy(**{**asdict(before), **given}))
        try:
            await server.delivery.deliver(events)
        finally:
            server.delivery.policy = before
        return {"events": len(events)}
    return {"events": await server.delivery.deliver_held(**given)}


async def settle(server: LocalStripe, _id: str, _given: Given) -> Obj:
    """Return when no delivery is under way."""
    await server.delivery.settled()
    return {}


def tell_charges(server: LocalStripe, _id: str, _given: Given) -> list[Obj]:
    """Return every charge with its invoice and that one's metadata, oldest first."""
    state = server.world.state
    paid_by = {
        one["payment"]["payment_intent"]: state.table("invoice")[one["invoice"]]
        for one in state.table("invoice_payment").values()
    }
    return [
        {**charge, "invoice": invoice["id"], "invoice_metadata": invoice["metadata"]}
        for charge in state.table("charge").values()
        if (invoice := paid_by[charge["payment_intent"]])
    ]


def tell_ledger(server: LocalStripe, _id: str, _given: Given) -> Obj:
    """Return by currency what was charged, refunded, disputed and kept, in minor units."""
    ledger: dict[str, Counter[str]] = {}
    for entry in server.world.state.table("balance_transaction").values():
        sums = ledger.setdefault(entry["currency"], Counter())
        sums[SUMMED_AS[entry["type"]]] += entry["amount"]
        sums["fees"] += entry["fee"]
        sums["net"] += entry["net"]
        sums["gross"] += entry["amount"]
    names = ("charged", "refunded", "disputed", "gross", "fees", "net")
    return {currency: {name: sums[name] for name in names} for currency, sums in ledger.items()}


def attach(server: LocalStripe, customer_id: str, given: Given) -> Obj:
    """Add a test card as its customer does, the default unless told otherwise."""
    world = server.world
    customer = world.get("customer", customer_id)
    if given["token"] not in TOKENS:
        raise invalid(f"No such test card; there are {', '.join(TOKENS)}", param="token")
    method = payment_methods.from_token(world, given["token"])
    method["card"].update(given.get("card", {}))
    payment_methods.attach_to(world, method, customer["id"])
    if given.get("default", True):
        make_default(server, method["id"], {})
    return method


def make_default(server: LocalStripe, method_id: str, _given: Given) -> Obj:
    """Make a card the one that invoices are charged to, as its customer does in the portal."""
    method = server.world.get("payment_method", method_id)
    customer = server.world.get("customer", method["customer"])
    before = deepcopy(customer)
    customer["invoice_settings"]["default_payment_method"] = method_id
    tell_change(server.world, customer, before)
    return customer


def detach(server: LocalStripe, method_id: str, _given: Given) -> Obj:
    """Remove a card as its customer does in the portal."""
    method = server.world.get("payment_method", method_id)
    return payment_methods.detach_from_customer(server.world, method)


def become(server: LocalStripe, method_id: str, given: Given) -> Obj:
    """Let a card that is on file behave as another from now on, as lost ones do.

    `card` is what its bank tells of it, such as a new `exp_year`.
    """
    method = server.world.get("payment_method", method_id)
    if token := given.get("token"):
        if token not in TOKENS:
            raise invalid(f"No such test card; there are {', '.join(TOKENS)}", param="token")
        server.world.state.cards[method_id] = token
    if card := given.get("card"):
        before = deepcopy(method)
        method["card"].update(card)
        server.world.emit(
            "payment_method.automatically_updated", method, previous=changed(before, method)
        )
    return method


def authenticate(server: LocalStripe, invoice_id: str, given: Given) -> Obj:
    """Complete the bank's check on the hosted page, and pay."""
    return _pay(server, invoice_id, given, is_authenticated=True)


def pay(server: LocalStripe, invoice_id: str, given: Given) -> Obj:
    """Pay on the hosted page; a card that asks for authentication is refused."""
    return _pay(server, invoice_id, given, is_authenticated=False)


def _pay(server: LocalStripe, invoice_id: str, given: Given, *, is_authenticated: bool) -> Obj:
    world = server.world
    invoice = world.get("invoice", invoice_id)
    if invoice["status"] not in ("open", "uncollectible"):
        raise invalid(f"This invoice is {invoice['status']}.")
    method_id = given.get("payment_method")
    if token := given.get("token"):
        method_id = attach(server, invoice["customer"], {"token": token, "default": False})["id"]
    method = paying.method_to_charge(world, invoice, method_id)
    paying.attempt(world, invoice, method, off_session=False, is_authenticated=is_authenticated)
    return invoice


def open_dispute(server: LocalStripe, charge_id: str, given: Given) -> Obj:
    """Let the cardholder dispute a charge."""
    charge = server.world.get("charge", charge_id)
    return disputes.open_dispute(server.world, charge, given.get("reason", "fraudulent"))


def close_dispute(server: LocalStripe, dispute_id: str, given: Given) -> Obj:
    """Let the bank decide a dispute: `outcome` is won or lost."""
    if given["outcome"] not in ("won", "lost"):
        raise ValueError("outcome is won or lost")
    dispute = server.world.get("dispute", dispute_id)
    return disputes.close_dispute(server.world, dispute, won=given["outcome"] == "won")


def refund(server: LocalStripe, charge_id: str, given: Given) -> Obj:
    """Refund a charge as staff does in Stripe's dashboard."""
    charge = server.world.get("charge", charge_id)
    reason = given.get("reason", "requested_by_customer")
    return disputes.refund(server.world, charge, given.get("amount"), reason=reason, metadata={})


def finish_refund(server: LocalStripe, refund_id: str, _given: Given) -> Obj:
    """Let a refund that is under way reach the card."""
    return disputes.finish_refund(server.world, server.world.get("refund", refund_id))


def fail_refund(server: LocalStripe, refund_id: str, given: Given) -> Obj:
    """Let a refund come back from the bank: the money is ours again."""
    refunded = server.world.get("refund", refund_id)
    return disputes.fail_refund(
        server.world, refunded, given.get("reason", "expired_or_canceled_card")
    )


def cancel_subscription(server: LocalStripe, subscription_id: str, given: Given) -> Obj:
    """Cancel a subscription as staff does in Stripe's dashboard, now or with its period."""
    world = server.world
    subscription = world.get("subscription", subscription_id)
    if given.get("at_period_end"):
        before = deepcopy(subscription)
        subscriptions.end_with_period(world, subscription, ends=True)
        standing.tell_update(world, subscription, before)
    else:
        standing.end(world, subscription, reason="cancellation_requested")
    return subscription


def settings(server: LocalStripe, _id: str, given: Given) -> Obj:
    """Set how long a search lags behind."""
    server.world.search_lag_s = given["search_lag_s"]
    return {}


CONTROLS: dict[tuple[str, str], Control] = {
    ("GET", "/_local/clock"): tell_clock,
    ("PUT", "/_local/clock"): set_clock,
    ("POST", "/_local/clock/advance"): advance_clock,
    ("POST", "/_local/reset"): reset,
    ("PUT", "/_local/settings"): settings,
    ("GET", "/_local/violations"): tell_violations,
    ("DELETE", "/_local/violations"): clear_violations,
    ("GET", "/_local/log"): tell_log,
    ("GET", "/_local/faults"): tell_faults,
    ("POST", "/_local/faults"): add_fault,
    ("PUT", "/_local/faults/random"): random_faults,
    ("DELETE", "/_local/faults"): clear_faults,
    ("GET", "/_local/webhooks"): tell_webhooks,
    ("PUT", "/_local/webhooks"): set_webhooks,
    ("POST", "/_local/webhooks/deliver"): deliver,
    ("POST", "/_local/webhooks/settle"): settle,
    ("GET", "/_local/charges"): tell_charges,
    ("GET", "/_local/ledger"): tell_ledger,
    ("POST", "/_local/customers/{id}/attach"): attach,
    ("POST", "/_local/payment_methods/{id}/detach"): detach,
    ("POST", "/_local/payment_methods/{id}/become"): become,
    ("POST", "/_local/payment_methods/{id}/default"): make_default,
    ("POST", "/_local/invoices/{id}/authenticate"): authenticate,
    ("POST", "/_local/invoices/{id}/pay"): pay,
    ("POST", "/_local/charges/{id}/dispute"): open_dispute,
    ("POST", "/_local/charges/{id}/refund"): refund,
    ("POST", "/_local/refunds/{id}/fail"): fail_refund,
    ("POST", "/_local/refunds/{id}/finish"): finish_refund,
    ("POST", "/_local/disputes/{id}/close"): close_dispute,
    ("POST", "/_local/subscriptions/{id}/cancel"): cancel_subscription,
}
