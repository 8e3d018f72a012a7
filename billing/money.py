from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import MAX_PREC, Context, Decimal
from fractions import Fraction

# Shifting the point is never a reason to round.
_EXACT = Context(prec=MAX_PREC)

# ISO 4217: how many decimals a currency's smallest unit has, where that is not two.
_DECIMALS = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF"), 0),
    **dict.fromkeys(("UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
MOST_DECIMALS = 4
"""No currency of ISO 4217 has more decimals than this; columns of amounts keep as many."""

_CODE_LENGTH = 3


class CurrencyMismatchError(ValueError):
    """Two currencies met where one amount was expected."""


def decimals_of(currency: str) -> int:
    """Return how many decimals the currency's smallest unit has."""
    return _DECIMALS.get(currency, 2)


def rounded_units(numerator: int, denominator: int, currency: str) -> int:
    """Return the exact amount in whole smallest units of the currency, a half away from zero."""
    scale: int = 10 ** decimals_of(currency)
    # On integers, because Decimal's own division would round once before we do.
    doubled = 2 * abs(numerator) * scale + denominator
    return (-1 if numerator < 0 else 1) * (doubled // (2 * denominator))


@dataclass(frozen=True, slots=True)
class Money:
    """An amount and its currency. Raises ValueError when either is not one."""

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        if not self.amount.is_finite():
            raise ValueError(f"Money.amount is not finite: {self.amount!r}.")
        code = self.currency
        if not (len(code) == _CODE_LENGTH and code.isascii() and code.isalpha() and code.isupper()):
            raise ValueError(f"Money.currency is not an ISO 4217 code: {code!r}.")

    @classmethod
    def zero(cls, currency: str) -> Money:
        """Return nothing, in `currency`."""
        return cls(Decimal(0), currency)

    @classmethod
    def rounded(cls, exact: Fraction, currency: str) -> Money:
        """Return `exact` in whole smallest units of the currency, a half away from zero."""
        return cls.of_minor_units(rounded_units(*exact.as_integer_ratio(), currency), currency)

    @classmethod
    def of_minor_units(cls, units: int, currency: str) -> Money:
        """Return `units` of the currency's smallest unit."""
        return cls(_EXACT.scaleb(Decimal(units), -decimals_of(currency)), currency)

    @classmethod
    def total(cls, parts: Iterable[Money], currency: str) -> Money:
        """Return the sum of `parts`; of none, zero. Raises CurrencyMismatchError."""
        return sum(parts, start=cls.zero(currency))

    @property
    def text(self) -> str:
        """The amount with exactly as many decimals as the currency has."""
        return f"{self.amount:.{decimals_of(self.currency)}f}"

    def __str__(self) -> str:
        return f"{self.text} {self.currency}"

    def __add__(self, other: Money) -> Money:
        return Money(self.amount + self._amount_of(other), self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.amount - self._amount_of(other), self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.amount < self._amount_of(other)

    def _amount_of(self, other: Money) -> Decimal:
        if other.currency != self.currency:
            raise CurrencyMismatchError(f"{self} and {other} are in two currencies.")
        return other.amount
