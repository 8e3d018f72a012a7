from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import MAX_PREC, Context, Decimal
from fractions import Fraction
from math import lcm

# Neither a sum nor shifting the point is a reason to round, which Python's own context does past
# 28 digits.
_EXACT = Context(prec=MAX_PREC)

_WITHOUT_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_WITH_THREE = "BHD IQD JOD KWD LYD OMR TND"
_WITH_FOUR = "CLF UYW"
_WITH_TWO = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF "
    "CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD "
    "HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA "
    "MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN "
    "QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP "
    "TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
)

DECIMALS: dict[str, int] = {
    code: decimals
    for decimals, codes in (
        (0, _WITHOUT_DECIMALS),
        (2, _WITH_TWO),
        (3, _WITH_THREE),
        (4, _WITH_FOUR),
    )
    for code in codes.split()
}
"""The currencies of ISO 4217 and how many decimals the smallest unit of each has."""

MOST_DECIMALS = 4
"""No currency of ISO 4217 has more decimals than this; columns of amounts keep as many."""


class CurrencyMismatchError(ValueError):
    """Two currencies met where one amount was expected."""


def decimals_of(currency: str) -> int:
    """Return how many decimals the currency's smallest unit has. Raises KeyError."""
    return DECIMALS[currency]


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
        if self.currency not in DECIMALS:
            raise ValueError(f"Money.currency is not an ISO 4217 code: {self.currency!r}.")

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

    def times(self, factor: Fraction | Decimal) -> Money:
        """Return the amount times `factor`, rounded once."""
        return Money.rounded(Fraction(self.amount) * Fraction(factor), self.currency)

    def split(self, weights: Sequence[Money | Fraction | int]) -> list[Money]:
        """Return parts in proportion to `weights`, in whole smallest units, that sum to this.

        By largest remainder; of equal remainders the earlier comes first. Where every weight is
        zero, the parts are as equal as they can be. Raises ValueError when a weight is negative,
        when there is none to give to, or when this is not in whole smallest units.
        """
        units = _EXACT.scaleb(self.amount, decimals_of(self.currency))
        if units != units.to_integral_value():
            raise ValueError(f"{self.amount} {self.currency} is not in whole smallest units.")
        shares = [Fraction(w.amount if isinstance(w, Money) else w) for w in weights]
        if any(share < 0 for share in shares):
            raise ValueError(f"A weight is negative: {min(shares)}.")
        if not shares:
            if self.amount:
                raise ValueError(f"There is nothing to split {self} over.")
            return []
        # In whole numbers: many times as fast as fractions, for it is done for every day of
        # every line, and as exact.
        scale = lcm(*(share.denominator for share in shares))
        counts = [share.numerator * (scale // share.denominator) for share in shares]
        if not any(counts):
            counts = [1] * len(counts)
        whole, sign = abs(int(units)), -1 if units < 0 else 1
        total = sum(counts)
        exact = [divmod(whole * count, total) for count in counts]
        parts = [part for part, _ in exact]
        # The sort keeps the order of equals.
        by_remainder = sorted(range(len(parts)), key=lambda at: -exact[at][1])
        for at in by_remainder[: whole - sum(parts)]:
            parts[at] += 1
        return [Money.of_minor_units(sign * part, self.currency) for part in parts]

    @property
    def text(self) -> str:
        """The amount with exactly as many decimals as the currency has."""
        return f"{self.amount:.{decimals_of(self.currency)}f}"

    def __str__(self) -> str:
        return f"{self.text} {self.currency}"

    def __add__(self, other: Money) -> Money:
        return Money(_EXACT.add(self.amount, self._amount_of(other)), self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(_EXACT.subtract(self.amount, self._amount_of(other)), self.currency)

    def __neg__(self) -> Money:
        return Money(_EXACT.minus(self.amount), self.currency)

    def __bool__(self) -> bool:
        return bool(self.amount)

    def __lt__(self, other: Money) -> bool:
        return self.amount < self._amount_of(other)

    def _amount_of(self, other: Money) -> Decimal:
        if other.currency != self.currency:
            raise CurrencyMismatchError(f"{self} and {other} are in two currencies.")
        return other.amount
