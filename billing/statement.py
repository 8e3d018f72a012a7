"""What a period comes to: the one function behind preview, invoice, re-rating and what-if."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from billing.adjustments import NOTHING_CARRIED, Adjustment, Carried
from billing.credits import (
    Credit,
    Draw,
    balance_of,
    draw,
    prepaid_credit_for,
    total_of,
    usage_credit_for,
)
from billing.discounts import Discount, DiscountRule, apply_discounts, discount_annual_fee
from billing.fees import (
    FeeKind,
    FeeLine,
    Interval,
    Subscribed,
    commitments_in,
    fee_lines,
    true_up_line,
)
from billing.money import Money
from billing.periods import Schedule
from billing.rating import PricedUsage, Rating, rate_usage
from billing.totals import InvoiceTotals, Tax, add_up
from metering.period import Period


@dataclass(frozen=True, slots=True)
class PeriodFacts:
    """Everything that what a period comes to depends on.

    `usage` covers the period in order; `credits_held` are the credits with something left;
    `rules` are the discount rules in force for the account in this period. `year_discounts` says,
    by subscription, what was taken off a year that began before the period and ends in it.
    """

    period: Period
    schedule: Schedule
    currency: str
    tax: Tax
    subscriptions: tuple[Subscribed, ...]
    usage: tuple[PricedUsage, ...]
    rules: tuple[DiscountRule, ...] = ()
    credits_held: tuple[Credit, ...] = ()
    year_discounts: Mapping[int, Money] = field(default_factory=dict)
    # What closed periods leave to this one; `credits_held` are as that leaves them.
    carried: Carried = NOTHING_CARRIED


@dataclass(frozen=True)
class Statement:
    """What a period comes to, line by line and in total."""

    facts: PeriodFacts
    rating: Rating
    fees: tuple[FeeLine, ...]
    # Off the year's fees; the fee lines' own amounts are before them.
    fee_discounts: tuple[Discount, ...]
    # Off the usage fee, in order.
    discounts: tuple[Discount, ...]
    credits_used: tuple[Draw, ...]
    prepaid_used: tuple[Draw, ...]
    totals: InvoiceTotals

    @cached_property
    def line_discounts(self) -> list[Money]:
        """What each usage line bears of the discounts; the parts sum to the whole."""
        if not self.rating.lines:
            return []
        return self.totals.discounts.split([line.amount for line in self.rating.lines])

    @property
    def adjustments(self) -> tuple[Adjustment, ...]:
        """The lines about earlier periods; they sum to the total's adjustments."""
        return self.facts.carried.adjustments

    @property
    def remaining_credits(self) -> Money:
        """What is left of the credits that could pay this period's usage."""
        held = usage_credit_for(self.facts.credits_held, self.facts.period)
        return balance_of(held, self.facts.currency) - self.totals.credits_used

    @property
    def remaining_prepaid(self) -> Money:
        """What is left of the prepaid credit."""
        held = prepaid_credit_for(self.facts.credits_held, self.facts.period)
        return balance_of(held, self.facts.currency) - self.totals.prepaid_used


def state_period(facts: PeriodFacts) -> Statement:
    """Return what the period comes to.

    In this order: usage is rated; discounts come off the usage fee; a commitment's minimum is
    made up for; monthly and promotional credits pay usage; what earlier periods came to differently
    is added; tax; prepaid credit pays what is left.
    Raises NegativeTotalError, ValueError.
    """
    period, schedule, currency = facts.period, facts.schedule, facts.currency
    rating = rate_usage(facts.usage, currency=currency)
    usage_fee = rating.usage_fee
    discounts = apply_discounts(
        usage_fee,
        facts.rules,
        commitments=commitments_in(facts.subscriptions, period=period, schedule=schedule),
        bills_annually=_bills_annually(facts),
    )
    discounted = Money.total((discount.amount for discount in discounts), currency)
    spent = usage_fee - discounted

    fees = [
        _at_what_was_paid(line, facts)
        for line in fee_lines(facts.subscriptions, period=period, schedule=schedule)
    ]
    fee_discounts = tuple(
        discount
        for line in fees
        if line.interval is Interval.ANNUAL and line.kind is FeeKind.FEE
        for discount in discount_annual_fee(line.amount, facts.rules, plan_id=line.plan_id)
    )
    true_up = true_up_line(facts.subscriptions, spent, period=period, schedule=schedule)
    if true_up:
        fees.append(true_up)

    credits_used = draw(usage_credit_for(facts.credits_held, period), spent)
    prepaid = prepaid_credit_for(facts.credits_held, period)
    totals = add_up(
        subscription_fee=Money.total((line.amount for line in fees), currency)
        - Money.total((discount.amount for discount in fee_discounts), currency),
        usage_fee=usage_fee,
        discounts=discounted,
        credits_used=total_of(credits_used, currency),
        adjustments=Money.total((line.amount for line in facts.carried.adjustments), currency),
        tax=facts.tax,
        prepaid_available=balance_of(prepaid, currency),
    )
    return Statement(
        facts=facts,
        rating=rating,
        fees=tuple(line for line in fees if line.amount),
        fee_discounts=fee_discounts,
        discounts=discounts,
        credits_used=credits_used,
        prepaid_used=draw(prepaid, totals.prepaid_used),
        totals=totals,
    )


def _bills_annually(facts: PeriodFacts) -> bool:
    return any(
        subscription.interval is Interval.ANNUAL and subscription.part_of(facts.period)
        for subscription in facts.subscriptions
    )


def _at_what_was_paid(line: FeeLine, facts: PeriodFacts) -> FeeLine:
    """Return a fee line, what is given back of a year at the year's fee less its discounts.

    At the full fee, a year that was sold at a discount and ended soon after would bring money.
    """
    if line.kind is not FeeKind.UNUSED_FEE:
        return line
    taken = facts.year_discounts.get(line.subscription_id or 0)
    if taken is None:
        # The year began in this period too, so that its discounts are those of now.
        discounts = discount_annual_fee(line.rate, facts.rules, plan_id=line.plan_id)
        taken = Money.total((discount.amount for discount in discounts), facts.currency)
    return line.at_rate(line.rate - taken)
