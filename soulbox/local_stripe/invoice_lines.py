"""Lines of invoices, and the items that become lines."""

from __future__ import annotations

from soulbox.local_stripe import lists
from soulbox.local_stripe.errors import INVALID, StripeError, invalid
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, World, served, with_metadata

MOST_LINES = 250
LINES_SHOWN = 10


def priced(world: World, given: Obj, currency: str, param: str) -> tuple[int, Obj | None]:
    """Return a line's amount in minor units, and its pricing: from an amount or a price."""
    if price_id := (given.get("pricing") or {}).get("price"):
        price = world.get("price", price_id, param=f"{param}[pricing][price]")
        if price["currency"] != currency:
            raise invalid(
                f"The price specified only supports `{price['currency']}`. This doesn't match the "
                f"expected currency: `{currency}`.",
                param=param,
            )
        return price["unit_amount"] * given.get("quantity", 1), pricing_of(price)
    if "amount" not in given:
        raise invalid("You must specify either `amount` or `pricing`.", param=param)
    return given["amount"], None


def pricing_of(price: Obj) -> Obj:
    """Return what a line says of the price that made it."""
    return {
        "price_details": {"price": price["id"], "product": price["product"]},
        "type": "price_details",
        "unit_amount_decimal": str(price["unit_amount"]),
    }


def new_item(world: World, given: Obj, customer_id: str, currency: str, param: str) -> Obj:
    """Make an invoice item, not on an invoice yet."""
    amount, pricing = priced(world, given, currency, param)
    quantity = given.get("quantity", 1)
    item: Obj = {
        "id": world.state.new_id("ii"),
        "object": "invoiceitem",
        "amount": amount,
        "currency": currency,
        "customer": customer_id,
        "customer_account": None,
        "date": world.now,
        "description": given.get("description") or None,
        "discountable": given.get("discountable", amount >= 0),
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": with_metadata(None, given.get("metadata", {})),
        "net_amount": amount,
        "parent": None,
        "period": given.get("period") or {"start": world.now, "end": world.now},
        "pricing": pricing,
        "proration": False,
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "tax_rates": [],
        "test_clock": None,
    }
    return world.add(item)


def put_on(world: World, invoice: Obj, item: Obj) -> None:
    """Make a line of the item. Raises Stripe's error of a full invoice."""
    item["invoice"] = invoice["id"]
    if item["parent"] is None:
        parent = {
            "invoice_item_details": {
                "invoice_item": item["id"],
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": None,
            },
            "subscription_item_details": None,
            "type": "invoice_item_details",
        }
    else:
        of = item["parent"]["subscription_details"]
        parent = of_subscription(of["subscription"], of["subscription_item"], item=item["id"])
    line = new_line(world, invoice, item["amount"], parent)
    for name in ("description", "discountable", "metadata", "period", "pricing", "quantity"):
        line[name] = item[name]
    line["quantity_decimal"] = item["quantity_decimal"]


def of_subscription(subscription_id: str, item_id: str, *, item: str | None = None) -> Obj:
    """Return the parent of a subscription's line; an invoice item makes it a proration."""
    return {
        "invoice_item_details": None,
        "subscription_item_details": {
            "invoice_item": item,
            "proration": item is not None,
            "proration_details": {"credited_items": None},
            "subscription": subscription_id,
            "subscription_item": item_id,
        },
        "type": "subscription_item_details",
    }


def new_line(world: World, invoice: Obj, amount: int, parent: Obj) -> Obj:
    """Add a line of so many minor units; the caller fills in the rest."""
    lines = world.state.lines.setdefault(invoice["id"], [])
    if len(lines) >= MOST_LINES:
        raise invalid(f"Invoices can have at most {MOST_LINES} line items.", param="lines")
    line: Obj = {
        "id": world.state.new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": invoice["currency"],
        "description": None,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice["id"],
        "livemode": False,
        "metadata": {},
        "parent": parent,
        "period": {"start": world.now, "end": world.now},
        "pretax_credit_amounts": [],
        "pricing": None,
        "quantity": 1,
        "quantity_decimal": "1",
        "subtotal": amount,
        "taxes": [],
    }
    lines.append(line)
    return line


def show(world: World, invoice: Obj) -> None:
    """Put the first lines on the invoice, as Stripe shows them."""
    lines = world.state.lines.get(invoice["id"], [])
    url = f"/v1/invoices/{invoice['id']}/lines"
    invoice["lines"] = lists.whole(lines, url, LINES_SHOWN)


def editable(world: World, invoice_id: str) -> Obj:
    """Return a draft. Raises invoice_not_editable for any other."""
    invoice = world.get("invoice", invoice_id)
    if invoice["status"] != "draft":
        raise StripeError(
            400,
            INVALID,
            "This invoice is no longer editable because it has been finalized.",
            code="invoice_not_editable",
        )
    return invoice


def line_page(call: Call) -> Obj:
    """Return lines of an invoice, in the order in which they were added."""
    invoice = call.world.get("invoice", call.id)
    lines = call.world.state.lines.get(invoice["id"], [])
    return lists.page(call, lines, f"/v1/invoices/{invoice['id']}/lines")


def pending(
    world: World, customer_id: str, currency: str, *, subscription: str | None = None
) -> list[Obj]:
    """Return the customer's items that are on no invoice, oldest first.

    Those of a subscription are left out, but for the one that is asked for.
    """
    return [
        item
        for item in world.state.table("invoiceitem").values()
        if item["customer"] == customer_id
        and item["invoice"] is None
        and item["currency"] == currency
        and subscription_of_item(item) in (None, subscription)
    ]


def subscription_of_item(item: Obj) -> str | None:
    """Return the id of the subscription that an item prorates."""
    parent = item["parent"]
    return None if parent is None else str(parent["subscription_details"]["subscription"])


def item_of(line: Obj) -> str | None:
    """Return the id of the item that a line came from."""
    parent = line["parent"]
    item_id: str | None = parent[parent["type"]]["invoice_item"]
    return item_id


OPERATIONS: dict[str, Served] = {
    "GetInvoicesInvoiceLines": served(line_page, "limit", "starting_after", "ending_before"),
}
