"""Customers, and their balance, which the next invoice settles."""

from __future__ import annotations

from copy import deepcopy

from soulbox.local_stripe import lists
from soulbox.local_stripe.errors import invalid
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, World, changed, served, with_metadata

PLAIN = ("address", "description", "email", "name", "phone", "shipping")
PREFIX_LENGTH = 8


def create(call: Call) -> Obj:
    """Make a customer."""
    world = call.world
    customer: Obj = {
        "id": world.state.new_id("cus", 14),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": world.now,
        "currency": None,
        "customer_account": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "email": None,
        "invoice_prefix": world.state.new_id("x", PREFIX_LENGTH)[2:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }
    if token := call.get("payment_method"):
        raise invalid(
            f"The local server attaches no card while it makes a customer ({token}).",
            param="payment_method",
        )
    _apply(call, customer)
    world.add(customer)
    world.state.written_at[customer["id"]] = world.now
    world.emit("customer.created", customer)
    return customer


def update(call: Call) -> Obj:
    """Change what is given."""
    customer = call.world.get("customer", call.id)
    before = deepcopy(customer)
    _apply(call, customer)
    tell_change(call.world, customer, before)
    return customer


def tell_change(world: World, customer: Obj, before: Obj) -> None:
    """Emit the event of a change, if anything did change."""
    world.state.written_at[customer["id"]] = world.now
    if previous := changed(before, customer):
        world.emit("customer.updated", customer, previous=previous)


def _apply(call: Call, customer: Obj) -> None:
    settings = call.given.get("invoice_settings", {})
    if method_id := settings.get("default_payment_method"):
        method = call.world.get(
            "payment_method", method_id, param="invoice_settings[default_payment_method]"
        )
        if method["customer"] != customer["id"]:
            raise invalid(
                f"The customer does not have a payment method with the ID {method_id}. The payment "
                "method must be attached to the customer.",
                code="resource_missing",
                param="invoice_settings[default_payment_method]",
            )
    for name in PLAIN:
        if name in call.given:
            customer[name] = call.get(name)
    if customer["address"] is not None:
        parts = ("city", "country", "line1", "line2", "postal_code", "state")
        customer["address"] = {part: customer["address"].get(part) or None for part in parts}
    for name in ("balance", "invoice_prefix", "preferred_locales", "tax_exempt"):
        if call.get(name) is not None:
            customer[name] = call.get(name)
    for name, value in settings.items():
        customer["invoice_settings"][name] = value or None
    if "metadata" in call.given:
        customer["metadata"] = with_metadata(customer["metadata"], call.given["metadata"])


def retrieve(call: Call) -> Obj:
    """Return a customer."""
    return call.world.get("customer", call.id)


def list_page(call: Call) -> Obj:
    """Return customers; an e-mail address is matched exactly, as Stripe does."""
    email = call.get("email")
    found = [one for one in call.world.all("customer") if email in (None, one["email"])]
    return lists.page(call, found, "/v1/customers")


def search(call: Call) -> Obj:
    """Return customers that a query finds. The index lags: what is new is not found yet."""
    world = call.world
    newest = world.now - world.search_lag_s
    indexed = [one for one in world.all("customer") if world.state.written_at[one["id"]] <= newest]
    return lists.search(call, indexed, "/v1/customers/search")


def move_balance(world: World, customer: Obj, balance: int) -> None:
    """Set what the customer owes (above zero) or is owed (below), in minor units."""
    before = deepcopy(customer)
    customer["balance"] = balance
    tell_change(world, customer, before)


def mark_delinquent(world: World, customer_id: str, *, is_so: bool) -> None:
    """Note whether the customer's newest invoice could not be collected by itself."""
    customer = world.get("customer", customer_id)
    before = deepcopy(customer)
    customer["delinquent"] = is_so
    tell_change(world, customer, before)


WRITTEN = (
    *PLAIN,
    "balance",
    "invoice_prefix",
    "invoice_settings",
    "metadata",
    "preferred_locales",
    "tax_exempt",
)
OPERATIONS: dict[str, Served] = {
    "PostCustomers": served(create, *WRITTEN),
    "PostCustomersCustomer": served(update, *WRITTEN),
    "GetCustomersCustomer": served(retrieve),
    "GetCustomers": served(list_page, "email", *lists.PAGING),
    "GetCustomersSearch": served(search, "query", "limit", "page"),
}
