"""How a quantity becomes a cost: the charge models, exact and without rounding."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class PerUnit:
    """Every unit at one price. Raises ValueError when the price is negative or no number."""

    unit_price: Decimal

    def __post_init__(self) -> None:
        _refuse_unless_amount("PerUnit.unit_price", self.unit_price)


@dataclass(frozen=True, slots=True)
class Price:
    """What a meter costs in one currency, in one version of a price book."""

    charge: PerUnit

    def cost(self, quantity: int, *, unit_size: int) -> Fraction:
        """Return the exact cost of `quantity` stored units, `unit_size` of which are one shown."""
        return quantity * Fraction(self.charge.unit_price) / unit_size


def _refuse_unless_amount(name: str, value: Decimal) -> None:
    if not value.is_finite():
        raise ValueError(f"{name} is {value}. Give a number.")
    if value < 0:
        raise ValueError(f"{name} is negative: {value}. Give zero or more.")
