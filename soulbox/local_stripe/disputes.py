"""Disputes and refunds: money that goes back to a card."""

from __future__ import annotations

from copy import deepcopy

from soulbox.local_stripe import charges, lists
from soulbox.local_stripe.errors import invalid
from soulbox.local_stripe.payment_methods import card_of
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, World, changed, served, with_metadata

ANSWER_WITHIN_S = 9 * 24 * 3600
DISPUTE_FEE = 1500


def open_dispute(world: World, charge: Obj, reason: str) -> Obj:
    """Let the cardholder take the charge back; the money is gone until it is won."""
    if charge["status"] != "succeeded" or charge["disputed"]:
        raise invalid(f"Charge {charge['id']} cannot be disputed.")
    evidence = dict.fromkeys(
        name
        for name in world.document.schemas["dispute_evidence"]["properties"]
        if name != "enhanced_evidence"
    )
    dispute: Obj = {
        "id": world.state.new_id("du"),
        "object": "dispute",
        "amount": charge["amount"] - charge["amount_refunded"],
        "balance_transactions": [],
        "charge": charge["id"],
        "created": world.now,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {**evidence, "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": world.now + ANSWER_WITHIN_S,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": charge["payment_method_details"]["card"]["brand"],
                "case_type": "chargeback",
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        "reason": reason,
        "status": "needs_response",
    }
    world.add(dispute)
    before = deepcopy(charge)
    charge["disputed"] = True
    world.emit("charge.updated", charge, previous=changed(before, charge))
    taken = charges.move(world, dispute, "adjustment", -dispute["amount"], fee=DISPUTE_FEE)
    dispute["balance_transactions"].append(taken)
    world.emit("charge.dispute.created", dispute)
    world.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def close_dispute(world: World, dispute: Obj, *, won: bool) -> Obj:
    """Let the bank decide. A dispute that is won brings amount and fee back."""
    if dispute["status"] in ("won", "lost"):
        raise invalid(f"Dispute {dispute['id']} is closed.")
    before = deepcopy(dispute)
    dispute["status"] = "won" if won else "lost"
    if won:
        given = charges.move(world, dispute, "adjustment", dispute["amount"], fee=-DISPUTE_FEE)
        dispute["balance_transactions"].append(given)
        world.emit("charge.dispute.funds_reinstated", dispute)
    world.emit("charge.dispute.closed", dispute, previous=changed(before, dispute))
    return dispute


def refund(
    world: World, charge: Obj, amount: int | None, *, reason: str | None, metadata: Obj
) -> Obj:
    """Give back so many minor units, or all that is left."""
    if charge["status"] != "succeeded":
        raise invalid(f"Charge {charge['id']} was not paid, so it cannot be refunded.")
    if charge["refunded"]:
        raise invalid(
            f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded"
        )
    if charge["disputed"]:
        raise invalid(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.",
            code="charge_disputed",
        )
    left = charge["amount"] - charge["amount_refunded"]
    if amount is None:
        amount = left
    if amount < 1:
        raise invalid("Invalid positive integer", code="parameter_invalid_integer", param="amount")
    if amount > left:
        raise invalid(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
            param="amount",
        )
    made: Obj = {
        "id": world.state.new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": world.now,
        "currency": charge["currency"],
        "destination_details": {
            "card": {
                "reference_status": "pending",
                "reference_type": "acquirer_reference_number",
                "type": "refund",
            },
            "type": "card",
        },
        "metadata": metadata,
        "payment_intent": charge["payment_intent"],
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": card_of(world, world.get("payment_method", charge["payment_method"])).refund,
        "transfer_reversal": None,
    }
    world.add(made)
    made["balance_transaction"] = charges.move(world, made, "refund", -amount)["id"]
    before = deepcopy(charge)
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    world.emit("refund.created", made)
    world.emit("charge.refunded", charge, previous=changed(before, charge))
    return made


def fail_refund(world: World, refunded: Obj, reason: str) -> Obj:
    """Take a refund back that the card's bank could not take."""
    if refunded["status"] not in ("pending", "succeeded"):
        raise invalid(f"Refund {refunded['id']} is {refunded['status']}.")
    before = deepcopy(refunded)
    given = charges.move(world, refunded, "refund_failure", refunded["amount"])
    refunded.update(failure_balance_transaction=given["id"], failure_reason=reason, status="failed")
    charge = world.get("charge", refunded["charge"])
    charge["amount_refunded"] -= refunded["amount"]
    charge["refunded"] = False
    previous = changed(before, refunded)
    world.emit("refund.failed", refunded)
    world.emit("refund.updated", refunded, previous=previous)
    world.emit("charge.refund.updated", refunded, previous=previous)
    return refunded


def finish_refund(world: World, refunded: Obj) -> Obj:
    """Let a refund that is under way reach the card."""
    if refunded["status"] != "pending":
        raise invalid(f"Refund {refunded['id']} is {refunded['status']}.")
    before = deepcopy(refunded)
    refunded["status"] = "succeeded"
    previous = changed(before, refunded)
    world.emit("refund.updated", refunded, previous=previous)
    world.emit("charge.refund.updated", refunded, previous=previous)
    return refunded


def create_refund(call: Call) -> Obj:
    """Refund a charge, named by itself or by its payment intent."""
    world = call.world
    charge_id = call.get("charge")
    if intent_id := call.get("payment_intent"):
        intent = world.get("payment_intent", intent_id, param="payment_intent")
        charge_id = intent["latest_charge"]
        if intent["status"] != "succeeded":
            raise invalid(
                f"This PaymentIntent ({intent_id}) does not have a successful charge to refund.",
                code="payment_intent_unexpected_state",
                param="payment_intent",
            )
    if charge_id is None:
        raise invalid(
            "One of the following params should be provided for this request: payment_intent or "
            "charge.",
            code="parameter_missing",
        )
    return refund(
        world,
        world.get("charge", charge_id, param="charge"),
        call.get("amount"),
        reason=call.get("reason"),
        metadata=with_metadata(None, call.given.get("metadata", {})),
    )


def retrieve_refund(call: Call) -> Obj:
    """Return a refund."""
    return call.world.get("refund", call.id)


def refund_page(call: Call) -> Obj:
    """Return refunds, of a charge or of a payment intent."""
    return _page(call, "refund", "/v1/refunds")


def retrieve_dispute(call: Call) -> Obj:
    """Return a dispute."""
    return call.world.get("dispute", call.id)


def dispute_page(call: Call) -> Obj:
    """Return disputes, of a charge or of a payment intent."""
    return _page(call, "dispute", "/v1/disputes")


def _page(call: Call, kind: str, url: str) -> Obj:
    found = [
        one
        for one in call.world.all(kind)
        if call.get("charge") in (None, one["charge"])
        and call.get("payment_intent") in (None, one["payment_intent"])
    ]
    return lists.page(call, found, url)


OPERATIONS: dict[str, Served] = {
    "PostRefunds": served(
        create_refund, "charge", "payment_intent", "amount", "reason", "metadata"
    ),
    "GetRefundsRefund": served(retrieve_refund),
    "GetRefunds": served(refund_page, "charge", "payment_intent", *lists.PAGING),
    "GetDisputesDispute": served(retrieve_dispute),
    "GetDisputes": served(dispute_page, "charge", "payment_intent", *lists.PAGING),
}
