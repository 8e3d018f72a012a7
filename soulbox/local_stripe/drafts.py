"""Drafts of invoices, and their sums."""

from __future__ import annotations

from soulbox.local_stripe import invoice_lines
from soulbox.local_stripe.charges import smallest
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import World

DRAFT_FOR_S = 3600


def new_invoice(world: World, customer: Obj, currency: str, billing_reason: str) -> Obj:
    """Make an empty draft."""
    invoice: Obj = {
        "id": world.state.new_id("in"),
        "object": "invoice",
        "account_country": "US",
        "account_name": "SoulBox",
        "account_tax_ids": None,
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_paid_off_stripe": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": False,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": None,
        "billing_reason": billing_reason,
        "collection_method": "charge_automatically",
        "created": world.now,
        "currency": currency,
        "custom_fields": None,
        "customer": customer["id"],
        "customer_account": None,
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": customer["phone"],
        "customer_shipping": customer["shipping"],
        "customer_tax_exempt": customer["tax_exempt"],
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "parent": None,
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "period_end": world.now,
        "period_start": world.now,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": 0,
        "statement_descriptor": None,
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "test_clock": None,
        "total": 0,
        "total_discount_amounts": [],
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": world.now,
    }
    sum_up(world, invoice)
    if customer["currency"] is None:
        customer["currency"] = currency
    return world.add(invoice)


def sum_up(world: World, invoice: Obj) -> None:
    """Add the lines up, and settle the customer's balance as far as it can be foreseen."""
    total = sum(line["amount"] for line in world.state.lines.get(invoice["id"], []))
    starting = world.get("customer", invoice["customer"])["balance"]
    due = max(total + starting, 0)
    if due < smallest(invoice["currency"]):
        due = 0
    invoice.update(
        amount_due=due,
        amount_remaining=due,
        starting_balance=starting,
        subtotal=total,
        subtotal_excluding_tax=total,
        total=total,
        total_excluding_tax=total,
    )
    invoice_lines.show(world, invoice)


def schedule(world: World, invoice: Obj) -> None:
    """Let a draft with auto_advance finalise itself an hour after it was made."""
    if invoice["auto_advance"]:
        invoice["automatically_finalizes_at"] = invoice["created"] + DRAFT_FOR_S
        world.state.due[invoice["id"]] = invoice["automatically_finalizes_at"]
    else:
        invoice["automatically_finalizes_at"] = None
        world.state.due.pop(invoice["id"], None)
