"""Stripe's test cards: their tokens, and what each does when it is attached or charged."""

from __future__ import annotations

from dataclasses import dataclass

MESSAGES = {
    "generic_decline": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "expired_card": "Your card has expired.",
    "lost_card": "Your card was declined.",
    "authentication_required": "Your card was declined. This transaction requires authentication.",
}


@dataclass(frozen=True, slots=True)
class Card:
    """A test card. `decline` is the decline code of every charge; None is a good card."""

    brand: str
    last4: str
    decline: str | None = None
    authenticates: bool = False
    is_disputed: bool = False
    # How a refund to it begins.
    refund: str = "succeeded"
    # Stripe checks a card that is attached through its API: a bad one is refused there already.
    attaches: bool = True

    @property
    def code(self) -> str:
        """The error's code, of which the decline code is the detail."""
        if self.decline in ("expired_card", "authentication_required"):
            return self.decline
        return "card_declined"


TOKENS: dict[str, Card] = {
    "pm_card_visa": Card("visa", "4242"),
    "pm_card_visa_debit": Card("visa", "5556"),
    "pm_card_mastercard": Card("mastercard", "4444"),
    "pm_card_amex": Card("amex", "8431"),
    "pm_card_chargeCustomerFail": Card("visa", "0341", "generic_decline"),
    "pm_card_visa_chargeDeclined": Card("visa", "0002", "generic_decline", attaches=False),
    "pm_card_visa_chargeDeclinedInsufficientFunds": Card(
        "visa", "9995", "insufficient_funds", attaches=False
    ),
    "pm_card_chargeDeclinedExpiredCard": Card("visa", "0069", "expired_card", attaches=False),
    "pm_card_visa_chargeDeclinedLostCard": Card("visa", "9987", "lost_card", attaches=False),
    "pm_card_authenticationRequired": Card("visa", "3184", authenticates=True),
    "pm_card_createDispute": Card("visa", "0259", is_disputed=True),
    "pm_card_pendingRefund": Card("visa", "7726", refund="pending"),
}
# Stripe has both spellings of some.
TOKENS["pm_card_chargeDeclined"] = TOKENS["pm_card_visa_chargeDeclined"]
TOKENS["pm_card_chargeDeclinedInsufficientFunds"] = TOKENS[
    "pm_card_visa_chargeDeclinedInsufficientFunds"
]
