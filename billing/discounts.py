from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from billing.fees import Commitment
from billing.money import Money

WHOLE = Decimal(100)
"""A discount of so many percent takes everything."""


class RuleKind(StrEnum):
    """What a discount is given for."""

    VOLUME = "volume"
    COMMITMENT = "commitment"
    ANNUAL = "annual"


@dataclass(frozen=True, slots=True)
class DiscountRule:
    """A discount and what has to be reached for it.

    `min_amount` is compared with the usage fee; of a commitment rule, with the committed
    minimum, and `min_months` with its term. Raises ValueError.
    """

    name: str
    kind: RuleKind
    percent: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)
    min_amount: Decimal = Decimal(0)
    min_months: int = 0
    # The lower comes first.
    priority: int = 0
    rule_id: int | None = None
    # The plan it is for; an annual rule takes nothing off another plan's year. None: any.
    plan_id: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= WHOLE:
            raise ValueError(f"percent of {self.name!r} is {self.percent}. Use 0 to 100.")
        for name in ("amount", "min_amount", "min_months"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name} of {self.name!r} is {value}. Use 0 or more.")
        if not self.percent and not self.amount:
            raise ValueError(f"{self.name!r} takes nothing off. Give it a percent or an amount.")


@dataclass(frozen=True, slots=True)
class Discount:
    """What one rule takes off `base`, rounded once."""

    name: str
    base: Money
    percent: Decimal
    # The rule's own amount; what it came to together with the percent is `amount`.
    fixed: Decimal
    amount: Money
    rule_id: int | None = None


def apply_discounts(
    usage_fee: Money,
    rules: Iterable[DiscountRule],
    *,
    commitments: Sequence[Commitment] = (),
    bills_annually: bool = False,
) -> tuple[Discount, ...]:
    """Return what each rule that holds takes off the usage fee, in order, never past it.

    Each is computed on the whole usage fee, and they add up. Of the volume rules only the
    highest that is reached holds. Rules that come to nothing are left out.
    """
    holding = [
        rule
        for rule in rules
        if _holds(rule, usage_fee, commitments=commitments, bills_annually=bills_annually)
    ]
    left = usage_fee
    discounts: list[Discount] = []
    for rule in _in_order(holding):
        exact = Fraction(usage_fee.amount) * Fraction(rule.percent) / 100 + Fraction(rule.amount)
        amount = min(left, Money.rounded(exact, usage_fee.currency))
        if amount:
            discounts.append(
                Discount(rule.name, usage_fee, rule.percent, rule.amount, amount, rule.rule_id)
            )
            left -= amount
    return tuple(discounts)


def discount_annual_fee(
    fee: Money, rules: Iterable[DiscountRule], *, plan_id: int | None = None
) -> tuple[Discount, ...]:
    """Return what the annual rules' percentages take off a year's fee, in order, never past it.

    The fee is of the plan `plan_id`.
    """
    left = fee
    discounts: list[Discount] = []
    holding = [
        rule for rule in rules if rule.kind is RuleKind.ANNUAL and rule.plan_id in {None, plan_id}
    ]
    for rule in _in_order(holding):
        amount = min(left, fee.times(Fraction(rule.percent) / 100))
        if amount:
            discounts.append(
                Discount(rule.name, fee, rule.percent, Decimal(0), amount, rule.rule_id)
            )
            left -= amount
    return tuple(discounts)


def _holds(
    rule: DiscountRule,
    usage_fee: Money,
    *,
    commitments: Sequence[Commitment],
    bills_annually: bool,
) -> bool:
    match rule.kind:
        case RuleKind.COMMITMENT:
            return any(
                commitment.minimum.amount >= rule.min_amount
                and commitment.months >= rule.min_months
                for commitment in commitments
            )
        case RuleKind.ANNUAL:
            return bills_annually and usage_fee.amount >= rule.min_amount
        case RuleKind.VOLUME:
            return usage_fee.amount >= rule.min_amount


def _in_order(rules: Iterable[DiscountRule]) -> list[DiscountRule]:
    """Return the rules by priority, and of the volume rules only the one of the most."""
    ordered = sorted(rules, key=lambda rule: (rule.priority, rule.name))
    volume = [rule for rule in ordered if rule.kind is RuleKind.VOLUME]
    # max() keeps the first of equals, which is the one of the better priority.
    highest = max(volume, key=lambda rule: rule.min_amount, default=None)
    return [rule for rule in ordered if rule.kind is not RuleKind.VOLUME or rule is highest]
