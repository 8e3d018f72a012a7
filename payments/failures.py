"""Why a payment failed, in words for the customer."""

from __future__ import annotations

from typing import Final

NO_METHOD: Final = "no_payment_method"
CONFIRM: Final = "Your bank wants you to confirm the payment."
_DECLINED: Final = "The bank declined the card."

# What is not here is told as declined: of a card that is lost, stolen or suspected the bank's word
# is not for who holds it.
_WORDS: Final = {
    NO_METHOD: "There is no payment method.",
    "authentication_required": CONFIRM,
    "invoice_payment_intent_requires_action": CONFIRM,
    "insufficient_funds": "There is not enough money on the card's account.",
    "withdrawal_count_limit_exceeded": "The card's limit is reached.",
    "card_velocity_exceeded": "The card's limit is reached.",
    "expired_card": "The card has expired.",
    "incorrect_cvc": "The card's security code is not right.",
    "invalid_cvc": "The card's security code is not right.",
    "incorrect_number": "The card's number is not right.",
    "invalid_number": "The card's number is not right.",
    "invalid_expiry_month": "The card's expiry is not right.",
    "invalid_expiry_year": "The card's expiry is not right.",
    "card_not_supported": "The card does not allow this kind of payment.",
    "currency_not_supported": "The card does not allow payments in this currency.",
    "new_account_information_available": "The card was replaced by another one.",
    "issuer_not_available": "The bank could not be reached.",
    "processing_error": "The card could not be charged.",
    "try_again_later": "The card could not be charged.",
    "not_paid": "The payment was not completed.",
}


def failure_words(code: str, decline_code: str = "") -> str:
    """Return a sentence for the provider's codes; the decline code is the more exact one."""
    return _WORDS.get(decline_code) or _WORDS.get(code, _DECLINED)
