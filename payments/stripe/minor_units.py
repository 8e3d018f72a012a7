"""Stripe's whole numbers: what one of them is worth, and the least that it charges.

docs.stripe.com/currencies, as of API version 2026-05-27: amounts are in the smallest unit of the
currency, with these exceptions.
"""

from __future__ import annotations

from decimal import MAX_PREC, Context, Decimal

from billing.money import Money, decimals_of
from payments.provider import RefusedError

_EXACT = Context(prec=MAX_PREC)

# In hundredths for old times' sake, though the currency has no coin of that size.
_IN_HUNDREDTHS = frozenset({"ISK", "UGX"})
# Three decimals, of which the last is always 0.
_IN_TENS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
_NOT_CHARGED = frozenset({"CLF", "UYW", "IQD", "LYD"})

# The least that Stripe charges a card, where it says one; elsewhere what half a US dollar is.
_SMALLEST = {
    "USD": "0.50",
    "AED": "2.00",
    "AUD": "0.50",
    "BRL": "0.50",
    "CAD": "0.50",
    "CHF": "0.50",
    "CZK": "15.00",
    "DKK": "2.50",
    "EUR": "0.50",
    "GBP": "0.30",
    "HKD": "4.00",
    "HUF": "175.00",
    "INR": "0.50",
    "JPY": "50",
    "MXN": "10.00",
    "MYR": "2.00",
    "NOK": "3.00",
    "NZD": "0.50",
    "PLN": "2.00",
    "RON": "2.00",
    "SEK": "3.00",
    "SGD": "0.50",
    "THB": "10.00",
}
_ELSEWHERE = Decimal("0.50")


def minor_units(money: Money) -> int:
    """Return the amount as Stripe counts it. Raises RefusedError when it cannot be said so."""
    units = _EXACT.scaleb(money.amount, _places(money.currency))
    if units != units.to_integral_value() or (money.currency in _IN_TENS and units % 10):
        raise RefusedError(f"Stripe cannot charge {money}: that is no whole coin to it.")
    return int(units)


def from_minor_units(units: int, currency: str) -> Money:
    """Return Stripe's whole number as money. `currency` in any letters."""
    code = currency.upper()
    return Money(_EXACT.scaleb(Decimal(units), -_places(code)), code)


def smallest_charge(currency: str) -> Money:
    """Return the least that Stripe charges in the currency."""
    return Money(Decimal(_SMALLEST.get(currency, _ELSEWHERE)), currency)


def _places(currency: str) -> int:
    if currency in _NOT_CHARGED:
        raise RefusedError(f"Stripe does not charge in {currency}.")
    return 2 if currency in _IN_HUNDREDTHS else decimals_of(currency)
