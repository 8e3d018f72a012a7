"""Invoices: made, filled, finalised, and the ways in which they end."""

from __future__ import annotations

from copy import deepcopy

from soulbox.local_stripe import invoice_lines, lists, paying, standing
from soulbox.local_stripe.customers import mark_delinquent, move_balance
from soulbox.local_stripe.drafts import DRAFT_FOR_S, new_invoice, schedule, sum_up
from soulbox.local_stripe.errors import invalid
from soulbox.local_stripe.invoice_lines import editable
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, World, changed, served, with_metadata

DAY_S = 24 * 3600
WRITTEN = (
    "auto_advance",
    "collection_method",
    "custom_fields",
    "days_until_due",
    "default_payment_method",
    "description",
    "due_date",
    "effective_at",
    "footer",
    "metadata",
    "statement_descriptor",
)


def create(call: Call) -> Obj:
    """Make a draft; pending items come with it only where the call says so."""
    world = call.world
    customer = world.get("customer", call.get("customer") or "", param="customer")
    currency = (call.get("currency") or customer["currency"] or "usd").lower()
    invoice = new_invoice(world, customer, currency, "manual")
    try:
        _apply(call, invoice)
    except Exception:
        del world.state.table("invoice")[invoice["id"]]
        raise
    if call.get("pending_invoice_items_behavior") == "include":
        for item in invoice_lines.pending(world, customer["id"], currency):
            invoice_lines.put_on(world, invoice, item)
    sum_up(world, invoice)
    world.emit("invoice.created", invoice)
    return invoice


def update(call: Call) -> Obj:
    """Change a draft, or what may still be changed of a finalised invoice."""
    world = call.world
    invoice = world.get("invoice", call.id)
    if set(call.given) - {"metadata", "auto_advance", "default_payment_method", "expand"}:
        editable(world, call.id)
    before = deepcopy(invoice)
    _apply(call, invoice)
    paying.tell_update(world, invoice, before)
    return invoice


def _apply(call: Call, invoice: Obj) -> None:
    world = call.world
    if method_id := call.get("default_payment_method"):
        method = world.get("payment_method", method_id, param="default_payment_method")
        if method["customer"] != invoice["customer"]:
            raise invalid(
                "The payment method is not the customer's.", param="default_payment_method"
            )
    for name in WRITTEN:
        if name in call.given and name not in ("metadata", "days_until_due"):
            invoice[name] = call.get(name)
    if "metadata" in call.given:
        invoice["metadata"] = with_metadata(invoice["metadata"], call.given["metadata"])
    if invoice["collection_method"] == "send_invoice":
        if days := call.get("days_until_due"):
            invoice["due_date"] = invoice["created"] + days * DAY_S
    elif call.get("days_until_due") or call.get("due_date"):
        raise invalid(
            "You can only set `days_until_due` or `due_date` if the invoice has "
            "`collection_method=send_invoice`.",
            param="days_until_due",
        )
    if invoice["status"] == "draft":
        schedule(world, invoice)


def add_lines(call: Call) -> Obj:
    """Put lines on a draft: items of the customer, or new ones. All or none."""
    world = call.world
    invoice = editable(world, call.id)
    wanted = call.given["lines"]
    held = len(world.state.lines.get(invoice["id"], []))
    if held + len(wanted) > invoice_lines.MOST_LINES:
        raise invalid(
            f"Invoices can have at most {invoice_lines.MOST_LINES} line items.", param="lines"
        )
    unserved = {
        name
        for line in wanted
        for name in line.keys()
        - {"amount", "description", "discountable", "invoice_item"}
        - {"metadata", "period", "pricing", "quantity"}
    }
    if unserved:
        raise invalid(f"The local server does not serve lines with {', '.join(sorted(unserved))}.")
    items = [_item(world, invoice, line, f"lines[{n}]") for n, line in enumerate(wanted)]
    before = deepcopy(invoice)
    for item in items:
        invoice_lines.put_on(world, invoice, item)
    if "invoice_metadata" in call.given:
        invoice["metadata"] = with_metadata(invoice["metadata"], call.given["invoice_metadata"])
    sum_up(world, invoice)
    paying.tell_update(world, invoice, before)
    return invoice


def _item(world: World, invoice: Obj, line: Obj, param: str) -> Obj:
    if item_id := line.get("invoice_item"):
        item = world.get("invoiceitem", item_id, param=f"{param}[invoice_item]")
        if item["customer"] != invoice["customer"] or item["invoice"] is not None:
            raise invalid(
                "The invoice item is another customer's, or on an invoice already.", param=param
            )
        return item
    return invoice_lines.new_item(world, line, invoice["customer"], invoice["currency"], param)


def finalize(call: Call) -> Obj:
    """Close a draft for changes; an invoice with nothing to pay is paid by that."""
    world = call.world
    invoice = world.get("invoice", call.id)
    if invoice["status"] != "draft":
        raise invalid(
            "This invoice is already finalized, you can't re-finalize a non-draft invoice."
        )
    if call.get("auto_advance") is not None:
        invoice["auto_advance"] = call.get("auto_advance")
    finalize_draft(world, invoice)
    return invoice


def finalize_draft(world: World, invoice: Obj) -> None:
    """Give the draft a number, settle the customer's balance, and open the payment."""
    customer = world.get("customer", invoice["customer"])
    before = deepcopy(invoice)
    sum_up(world, invoice)
    owed_after = invoice["total"] + invoice["starting_balance"] - invoice["amount_due"]
    address = f"{world.address}/_local/pages/invoices/{invoice['id']}"
    invoice.update(
        automatically_finalizes_at=None,
        effective_at=invoice["effective_at"] or world.now,
        ending_balance=owed_after,
        hosted_invoice_url=address,
        number=f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04}",
        status="open",
    )
    invoice["status_transitions"]["finalized_at"] = world.now
    world.state.due.pop(invoice["id"], None)
    was = customer["balance"]
    customer["next_invoice_sequence"] += 1
    if owed_after != was:
        move_balance(world, customer, owed_after)
    if invoice["amount_due"]:
        paying.open_payment(world, invoice)
        if invoice["auto_advance"] and invoice["collection_method"] == "charge_automatically":
            world.state.due[invoice["id"]] = world.now + DRAFT_FOR_S
            invoice["next_payment_attempt"] = world.now + DRAFT_FOR_S
    world.emit("invoice.finalized", invoice)
    paying.tell_update(world, invoice, before)
    if not invoice["amount_due"]:
        paying.mark_paid(world, invoice, paid=0)


def pay(call: Call) -> Obj:
    """Charge the customer's card now, or note that they paid elsewhere."""
    world = call.world
    invoice = world.get("invoice", call.id)
    if invoice["status"] == "draft":
        finalize_draft(world, invoice)
        if invoice["status"] == "paid":
            return invoice
    if invoice["status"] == "paid":
        raise invalid("Invoice is already paid")
    if invoice["status"] == "void":
        raise invalid("This invoice can no longer be paid: it is void.")
    if call.get("paid_out_of_band"):
        paying.cancel_payment(world, invoice, "void_invoice")
        invoice["amount_paid_off_stripe"] = invoice["amount_due"]
        paying.mark_paid(world, invoice, paid=invoice["amount_due"])
        return invoice
    method = paying.method_to_charge(world, invoice, call.get("payment_method"))
    off_session = call.get("off_session", default=True)
    paying.attempt(world, invoice, method, off_session=off_session)
    return invoice


def void(call: Call) -> Obj:
    """Declare a finalised, unpaid invoice void; what it settled of the balance is undone."""
    invoice = call.world.get("invoice", call.id)
    if invoice["status"] not in ("open", "uncollectible"):
        raise invalid(
            "You can only pass in open or uncollectible invoices. This invoice isn't open: it is "
            f"{invoice['status']}."
        )
    void_invoice(call.world, invoice)
    return invoice


def void_invoice(world: World, invoice: Obj) -> None:
    """Make an open invoice void."""
    before = deepcopy(invoice)
    paying.cancel_payment(world, invoice, "void_invoice")
    invoice.update(next_payment_attempt=None, status="void")
    invoice["status_transitions"]["voided_at"] = world.now
    world.state.due.pop(invoice["id"], None)
    settled = invoice["ending_balance"] - invoice["starting_balance"]
    if settled:
        customer = world.get("customer", invoice["customer"])
        move_balance(world, customer, customer["balance"] - settled)
    world.emit("invoice.updated", invoice, previous=changed(before, invoice))
    world.emit("invoice.voided", invoice)


def mark_uncollectible(call: Call) -> Obj:
    """Give an open invoice up; it may still be paid."""
    world = call.world
    invoice = world.get("invoice", call.id)
    if invoice["status"] != "open":
        raise invalid(
            "You can only mark an open invoice as uncollectible. This invoice is "
            f"{invoice['status']}."
        )
    before = deepcopy(invoice)
    invoice.update(next_payment_attempt=None, status="uncollectible")
    invoice["status_transitions"]["marked_uncollectible_at"] = world.now
    world.state.due.pop(invoice["id"], None)
    world.emit("invoice.updated", invoice, previous=changed(before, invoice))
    world.emit("invoice.marked_uncollectible", invoice)
    mark_delinquent(world, invoice["customer"], is_so=False)
    return invoice


def retrieve(call: Call) -> Obj:
    """Return an invoice; a draft as it would be now."""
    invoice = call.world.get("invoice", call.id)
    if invoice["status"] == "draft":
        sum_up(call.world, invoice)
    return invoice


def delete(call: Call) -> Obj:
    """Delete a draft; its items are pending again only if they were before: they go with it."""
    world = call.world
    invoice = world.get("invoice", call.id)
    if invoice["status"] != "draft":
        raise invalid("You can only delete draft invoices.")
    for line in world.state.lines.pop(invoice["id"], []):
        if item_id := invoice_lines.item_of(line):
            world.state.table("invoiceitem").pop(item_id, None)
    world.state.due.pop(invoice["id"], None)
    del world.state.table("invoice")[invoice["id"]]
    world.emit("invoice.deleted", invoice)
    return {"id": invoice["id"], "object": "invoice", "deleted": True}


def list_page(call: Call) -> Obj:
    """Return invoices."""
    found = [
        one
        for one in call.world.all("invoice")
        if call.get("customer") in (None, one["customer"])
        and call.get("status") in (None, one["status"])
        and call.get("collection_method") in (None, one["collection_method"])
        and call.get("subscription") in (None, standing.subscription_of(one))
    ]
    return lists.page(call, found, "/v1/invoices")


OPERATIONS: dict[str, Served] = {
    "PostInvoices": served(
        create, *WRITTEN, "customer", "currency", "pending_invoice_items_behavior"
    ),
    "PostInvoicesInvoice": served(update, *WRITTEN),
    "PostInvoicesInvoiceAddLines": served(add_lines, "lines", "invoice_metadata"),
    "PostInvoicesInvoiceFinalize": served(finalize, "auto_advance"),
    "PostInvoicesInvoicePay": served(pay, "payment_method", "off_session", "paid_out_of_band"),
    "PostInvoicesInvoiceVoid": served(void),
    "PostInvoicesInvoiceMarkUncollectible": served(mark_uncollectible),
    "GetInvoicesInvoice": served(retrieve),
    "DeleteInvoicesInvoice": served(delete),
    "GetInvoices": served(
        list_page, "customer", "status", "subscription", "collection_method", *lists.PAGING
    ),
}
