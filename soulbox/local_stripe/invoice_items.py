"""Invoice items through the API: on a draft, or waiting for the customer's next invoice."""

from __future__ import annotations

from typing import Any

from soulbox.local_stripe import lists
from soulbox.local_stripe.drafts import sum_up
from soulbox.local_stripe.errors import invalid
from soulbox.local_stripe.invoice_lines import editable, item_of, new_item, put_on
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, served


def create_item(call: Call) -> Obj:
    """Make an item for the customer's next invoice, or for a draft of theirs."""
    world, given = call.world, call.given
    customer = world.get("customer", given.get("customer", ""), param="customer")
    invoice = None
    if invoice_id := call.get("invoice"):
        invoice = editable(world, invoice_id)
        if invoice["customer"] != customer["id"]:
            raise invalid("The invoice belongs to another customer.", param="invoice")
    currency = given.get("currency") or (invoice or customer)["currency"] or "usd"
    if invoice is not None and currency != invoice["currency"]:
        raise invalid(
            f"The currency of the invoice is {invoice['currency']}, not {currency}.",
            param="currency",
        )
    item = new_item(world, given, customer["id"], currency, "")
    if invoice is not None:
        put_on(world, invoice, item)
        sum_up(world, invoice)
    world.emit("invoiceitem.created", item)
    return item


def retrieve_item(call: Call) -> Obj:
    """Return an item."""
    return call.world.get("invoiceitem", call.id)


def item_page(call: Call) -> Obj:
    """Return items of a customer or of an invoice, or those on no invoice."""
    wanted: Any = call.get("pending")
    found = [
        item
        for item in call.world.all("invoiceitem")
        if call.get("customer") in (None, item["customer"])
        and call.get("invoice") in (None, item["invoice"])
        and wanted in (None, item["invoice"] is None)
    ]
    return lists.page(call, found, "/v1/invoiceitems")


def delete_item(call: Call) -> Obj:
    """Delete an item, and its line if it is on a draft."""
    world = call.world
    item = world.get("invoiceitem", call.id)
    if item["invoice"]:
        invoice = editable(world, item["invoice"])
        lines = world.state.lines[item["invoice"]]
        lines[:] = [line for line in lines if item_of(line) != item["id"]]
        sum_up(world, invoice)
    del world.state.table("invoiceitem")[item["id"]]
    world.emit("invoiceitem.deleted", item)
    return {"id": item["id"], "object": "invoiceitem", "deleted": True}


OPERATIONS: dict[str, Served] = {
    "PostInvoiceitems": served(
        create_item,
        "customer",
        "amount",
        "currency",
        "description",
        "discountable",
        "invoice",
        "metadata",
        "period",
        "pricing",
        "quantity",
    ),
    "GetInvoiceitemsInvoiceitem": served(retrieve_item),
    "GetInvoiceitems": served(item_page, "customer", "invoice", "pending", *lists.PAGING),
    "DeleteInvoiceitemsInvoiceitem": served(delete_item),
}
