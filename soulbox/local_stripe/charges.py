"""Charges, what they move on the balance, and the smallest that Stripe makes."""

from __future__ import annotations

from soulbox.local_stripe import lists
from soulbox.local_stripe.cards import MESSAGES, Card
from soulbox.local_stripe.payment_methods import card_of
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, World, served

# The smallest charge by currency, in its minor unit, as Stripe publishes them.
SMALLEST = {
    "aed": 200,
    "aud": 50,
    "bgn": 100,
    "brl": 50,
    "cad": 50,
    "chf": 50,
    "czk": 1500,
    "dkk": 250,
    "eur": 50,
    "gbp": 30,
    "hkd": 400,
    "huf": 17500,
    "inr": 50,
    "jpy": 50,
    "mxn": 1000,
    "myr": 200,
    "nok": 300,
    "nzd": 50,
    "pln": 200,
    "ron": 200,
    "sek": 300,
    "sgd": 50,
    "thb": 1000,
    "usd": 50,
}
SMALLEST_OF_OTHERS = 50
LARGEST = 99_999_999
# Stripe's standard fee: 2.9 % and 30 of the smallest unit.
FEE_PER_MILLE = 29
FEE_FIXED = 30
SETTLES_AFTER_S = 2 * 24 * 3600


def smallest(currency: str) -> int:
    """Return the least that can be charged, in minor units."""
    return SMALLEST.get(currency, SMALLEST_OF_OTHERS)


def new_charge(world: World, intent: Obj, method: Obj, *, decline: str | None) -> Obj:
    """Charge the card, or be declined; a good charge is on the balance at once."""
    card = card_of(world, method)
    charge: Obj = {
        "id": world.state.new_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0 if decline else intent["amount"],
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": "SOULBOX",
        "captured": decline is None,
        "created": world.now,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": decline and card_code(card, decline),
        "failure_message": decline and MESSAGES[decline],
        "fraud_details": {},
        "livemode": False,
        "metadata": {},
        "on_behalf_of": None,
        "outcome": outcome(decline),
        "paid": decline is None,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {"card": card_details(method), "type": "card"},
        "receipt_email": None,
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "review": None,
        "shipping": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "failed" if decline else "succeeded",
        "transfer_data": None,
        "transfer_group": None,
    }
    world.add(charge)
    if decline is None:
        fee = (intent["amount"] * FEE_PER_MILLE + 500) // 1000 + FEE_FIXED
        entry = move(world, charge, "charge", intent["amount"], fee=fee)
        charge["balance_transaction"] = entry["id"]
    world.emit("charge.failed" if decline else "charge.succeeded", charge)
    return charge


def card_code(card: Card, decline: str) -> str:
    """Return the error code that a decline code belongs to."""
    return decline if decline == "authentication_required" else card.code


def card_details(method: Obj) -> Obj:
    """Return what a charge says of its card."""
    card = method["card"]
    copied = ("brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding")
    return {
        **{name: card[name] for name in copied},
        "authorization_code": None,
        "installments": None,
        "last4": card["last4"],
        "mandate": None,
        "network": card["brand"],
        "three_d_secure": None,
        "wallet": None,
    }


def outcome(decline: str | None) -> Obj:
    """Return what the bank said."""
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "declined_by_network" if decline else "approved_by_network",
        "reason": decline,
        "risk_level": "normal",
        "risk_score": 20,
        "seller_message": "The bank declined the payment." if decline else "Payment complete.",
        "type": "issuer_declined" if decline else "authorized",
    }


def move(world: World, source: Obj, kind: str, amount: int, *, fee: int = 0) -> Obj:
    """Put an amount on the balance (below zero: take it), in minor units."""
    entry: Obj = {
        "id": world.state.new_id("txn"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": world.now + SETTLES_AFTER_S,
        "balance_type": "payments",
        "created": world.now,
        "currency": source["currency"],
        "description": source.get("description"),
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [
            {
                "amount": fee,
                "application": None,
                "currency": source["currency"],
                "description": "Stripe processing fees",
                "type": "stripe_fee",
            }
        ]
        if fee
        else [],
        "net": amount - fee,
        "reporting_category": "dispute" if kind == "adjustment" else kind,
        "source": source["id"],
        "status": "pending",
        "type": kind,
    }
    return world.add(entry)


def settle(world: World) -> None:
    """Mark what has become available by now."""
    for entry in world.state.table("balance_transaction").values():
        if entry["status"] == "pending" and entry["available_on"] <= world.now:
            entry["status"] = "available"


def retrieve(call: Call) -> Obj:
    """Return a charge."""
    return call.world.get("charge", call.id)


def list_page(call: Call) -> Obj:
    """Return charges, failed ones too."""
    found = [
        one
        for one in call.world.all("charge")
        if call.get("customer") in (None, one["customer"])
        and call.get("payment_intent") in (None, one["payment_intent"])
    ]
    return lists.page(call, found, "/v1/charges")


def balance(call: Call) -> Obj:
    """Return the sums of what is pending and available, after fees."""
    settle(call.world)
    entries = call.world.all("balance_transaction")
    currencies = sorted({entry["currency"] for entry in entries}) or ["usd"]

    def sums(status: str) -> list[Obj]:
        return [
            {
                "amount": sum(
                    entry["net"]
                    for entry in entries
                    if (entry["currency"], entry["status"]) == (currency, status)
                ),
                "currency": currency,
                "source_types": {},
            }
            for currency in currencies
        ]

    return {
        "object": "balance",
        "available": sums("available"),
        "livemode": False,
        "pending": sums("pending"),
    }


def transaction(call: Call) -> Obj:
    """Return an entry of the balance."""
    settle(call.world)
    return call.world.get("balance_transaction", call.id)


def transaction_page(call: Call) -> Obj:
    """Return entries of the balance."""
    settle(call.world)
    found = [
        one
        for one in call.world.all("balance_transaction")
        if call.get("source") in (None, one["source"])
        and call.get("type") in (None, one["type"])
        and call.get("currency") in (None, one["currency"])
    ]
    return lists.page(call, found, "/v1/balance_transactions")


OPERATIONS: dict[str, Served] = {
    "GetChargesCharge": served(retrieve),
    "GetCharges": served(list_page, "customer", "payment_intent", *lists.PAGING),
    "GetBalance": served(balance),
    "GetBalanceTransactionsId": served(transaction),
    "GetBalanceTransactions": served(transaction_page, "source", "type", "currency", *lists.PAGING),
}
