from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.credits import Credit, CreditKind
from billing.discounts import DiscountRule, RuleKind
from billing.fees import Commitment, FeeKind, Subscribed
from billing.money import CurrencyMismatchError, Money
from billing.rating import PricedUsage, Prices, decimal_text
from billing.statement import PeriodFacts, Statement, state_period
from billing.totals import Tax
from metering.meters import Meter
from metering.period import Period
from tests.billing.periods import (
    DEFAULT,
    FIRST_INVOICE,
    LARGE_ACCOUNT,
    MAY,
    SEEDED_RULES,
    annual,
    credit,
    dollars,
    facts,
    monthly,
    monthly_credit,
    utc,
)
from tests.billing.prices import prices
from tests.billing.test_rating import page_rows

VAT = Decimal("0.19")
ANNUAL_RULE = DiscountRule("Annual", RuleKind.ANNUAL, percent=Decimal(10))
TEAM = monthly("299", "2026-05-01", credits_="300")


def large_account(tax: Tax | None = None, *more: Credit) -> Statement:
    return state_period(
        facts(
            LARGE_ACCOUNT,
            subscriptions=(TEAM,),
            rules=SEEDED_RULES,
            credits_held=(monthly_credit("300"), *more),
            tax=tax,
        )
    )


def test_the_pages_preview_of_the_large_account_is_what_it_says() -> None:
    stated = large_account(Tax(VAT), credit("600", kind=CreditKind.PREPAID, credit_id=2))
    totals = stated.totals
    [discount] = stated.discounts
    found = {
        "raw cost": decimal_text(stated.rating.raw_cost),
        "usage fee": totals.usage_fee.text,
        discount.name: discount.amount.text,
        "credits used": totals.credits_used.text,
        "subscription fee": totals.subscription_fee.text,
        "tax": totals.tax.text,
        "total": totals.total_amount.text,
        "prepaid used": totals.prepaid_used.text,
        "amount due": totals.amount_due.text,
    }
    assert found == {name: value for name, value, _ in page_rows("| figure | value | how |")}


def test_the_large_account_comes_to_403_95() -> None:
    stated = large_account()
    assert stated.rating.raw_cost == 741
    assert [line.amount.text for line in stated.rating.lines] == [
        "432.00",
        "288.00",
        "20.00",
        "1.00",
    ]
    assert [(found.name, found.amount) for found in stated.discounts] == [
        ("Volume 500", dollars("37.05"))
    ]
    totals = stated.totals
    assert totals.usage_fee - totals.discounts == dollars("703.95")
    assert totals.credits_used == dollars("300")
    assert totals.usage_fee - totals.discounts - totals.credits_used == dollars("403.95")
    assert totals.total_amount == dollars("702.95")
    assert stated.remaining_credits == dollars("0")
    # By largest remainder: 21.60, 14.40, 1.00 and 0.05 come out even.
    assert [part.text for part in stated.line_discounts] == ["21.60", "14.40", "1.00", "0.05"]


def test_nothing_comes_to_nothing() -> None:
    stated = state_period(facts({}, rules=SEEDED_RULES, tax=Tax(VAT)))
    assert (stated.fees, stated.discounts, stated.credits_used) == ((), (), ())
    assert stated.line_discounts == []
    assert {figure.text for figure in figures(stated)} == {"0.00"}


def figures(stated: Statement) -> list[Money]:
    totals = stated.totals
    return [getattr(totals, name) for name in totals.__slots__]


@pytest.mark.parametrize(
    ("is_inclusive", "tax", "total"), [(False, "18.81", "117.81"), (True, "15.81", "99.00")]
)
def test_tax_is_on_the_fee_and_on_what_credits_leave(
    is_inclusive: bool,  # noqa: FBT001 - a column of the table
    tax: str,
    total: str,
) -> None:
    stated = state_period(
        facts(
            FIRST_INVOICE,
            subscriptions=(monthly("99", "2026-05-01"),),
            credits_held=(monthly_credit("100"),),
            tax=Tax(VAT, is_inclusive),
        )
    )
    assert (stated.totals.tax, stated.totals.total_amount) == (dollars(tax), dollars(total))
    assert stated.remaining_credits == dollars("99.72")


def test_monthly_then_promotional_credits_pay_usage_and_prepaid_pays_the_rest() -> None:
    stated = large_account(
        Tax(Decimal("0.1")),
        credit("1000", kind=CreditKind.PREPAID, credit_id=2),
        credit("100", kind=CreditKind.PROMOTIONAL, credit_id=3),
    )
    assert [(drawn.credit_id, drawn.amount) for drawn in stated.credits_used] == [
        (1, dollars("300")),
        (3, dollars("100")),
    ]
    # 299 of fee and 303.95 of usage, and a tenth of both.
    assert [(drawn.credit_id, drawn.amount.text) for drawn in stated.prepaid_used] == [
        (2, "663.25")
    ]
    assert stated.totals.amount_due == dollars("0")
    assert (stated.remaining_credits, stated.remaining_prepaid) == (
        dollars("0"),
        dollars("336.75"),
    )


def test_credits_do_not_pay_a_fee() -> None:
    stated = state_period(facts({}, subscriptions=(TEAM,), credits_held=(monthly_credit("300"),)))
    assert stated.totals.total_amount == dollars("299")
    assert stated.remaining_credits == dollars("300")


def test_a_credit_that_is_not_in_force_pays_nothing_and_is_not_left() -> None:
    early = replace(monthly_credit("300"), expires_at=MAY.start)
    late = replace(credit("300", kind=CreditKind.PREPAID), effective_at=MAY.end)
    stated = state_period(facts(LARGE_ACCOUNT, credits_held=(early, late)))
    assert stated.totals.amount_due == dollars("741")
    assert (stated.remaining_credits, stated.remaining_prepaid) == (dollars("0"), dollars("0"))


def test_a_true_up_is_a_fee_after_discounts_that_credits_do_not_pay() -> None:
    commitment = Commitment(dollars("1000"), 12, MAY.start)
    stated = state_period(
        facts(
            LARGE_ACCOUNT,
            subscriptions=(monthly("0", "2026-05-01", commitment=commitment),),
            rules=SEEDED_RULES,
            credits_held=(monthly_credit("300"),),
        )
    )
    [line] = stated.fees
    assert (line.kind, line.amount) == (FeeKind.TRUE_UP, dollars("296.05"))
    assert stated.totals.subscription_fee == dollars("296.05")
    assert stated.totals.total_amount == dollars("700")


def test_a_commitment_discounts_the_usage() -> None:
    rule = DiscountRule("Committed", RuleKind.COMMITMENT, Decimal(20), min_amount=Decimal(500))
    for minimum, discounted in (("500", "148.20"), ("499.99", "0")):
        commitment = Commitment(dollars(minimum), 12, MAY.start)
        terms = monthly("0", "2026-05-01", commitment=commitment)
        stated = state_period(facts(LARGE_ACCOUNT, subscriptions=(terms,), rules=(rule,)))
        assert stated.totals.discounts == dollars(discounted)


def test_a_plans_own_annual_rule_takes_its_percent_off_that_plans_fee_only() -> None:
    rules = (replace(ANNUAL_RULE, plan_id=3),)
    for plan_id, fee in ((3, "1069.20"), (4, "1188")):
        year = replace(annual("1188", "2026-05-01"), plan_id=plan_id)
        stated = state_period(facts({}, subscriptions=(year,), rules=rules))
        assert stated.totals.subscription_fee == dollars(fee)


def test_an_annual_rule_takes_its_percent_off_the_years_fee() -> None:
    stated = state_period(
        facts(FIRST_INVOICE, subscriptions=(annual("1188", "2026-05-01"),), rules=(ANNUAL_RULE,))
    )
    [off] = stated.fee_discounts
    assert (off.name, off.base, off.amount) == ("Annual", dollars("1188"), dollars("118.80"))
    assert stated.fees[0].amount == dollars("1188")
    assert stated.totals.subscription_fee == dollars("1069.20")
    # And off the usage: 10 % of 0.28.
    assert stated.totals.discounts == dollars("0.03")


def test_an_annual_rule_takes_nothing_off_monthly_fees() -> None:
    stated = state_period(facts(LARGE_ACCOUNT, subscriptions=(TEAM,), rules=(ANNUAL_RULE,)))
    assert (stated.fee_discounts, stated.discounts) == ((), ())


def test_annual_billing_discounts_usage_where_no_year_starts_too() -> None:
    stated = state_period(
        facts(LARGE_ACCOUNT, subscriptions=(annual("1188", "2026-04-01"),), rules=(ANNUAL_RULE,))
    )
    assert stated.fee_discounts == ()
    assert stated.totals.discounts == dollars("74.10")


def test_what_is_unused_of_a_discounted_year_is_given_back_at_what_was_paid() -> None:
    ended = annual("1188", "2026-05-01", "2026-06-11")
    june = Period(utc("2026-06-01"), utc("2026-07-01"))
    stated = state_period(facts({}, subscriptions=(ended,), rules=(ANNUAL_RULE,), period=june))
    [line] = stated.fees
    assert (line.kind, line.rate) == (FeeKind.UNUSED_FEE, dollars("1069.20"))
    assert line.amount == dollars("-949.10")
    assert (stated.totals.total_amount, stated.totals.credited.text) == (dollars("0"), "949.10")


def test_what_was_taken_off_a_year_that_began_before_is_what_was_told() -> None:
    # The rules of now are not those that its fee was sold at.
    ended = replace(annual("1188", "2026-05-01", "2026-06-11"), subscription_id=7)
    june = Period(utc("2026-06-01"), utc("2026-07-01"))
    stated = facts({}, subscriptions=(ended,), rules=(ANNUAL_RULE,), period=june)
    [line] = state_period(replace(stated, year_discounts={7: dollars("188")})).fees
    assert line.rate == dollars("1000")
    # Of another subscription, or of one that has no number yet, nothing was told.
    for others in (ended, replace(ended, subscription_id=None)):
        of_others = replace(stated, subscriptions=(others,), year_discounts={1: dollars("188")})
        [line] = state_period(of_others).fees
        assert line.rate == dollars("1069.20")


def test_a_plans_own_annual_rule_counts_in_what_its_unused_year_gives_back() -> None:
    ended = replace(annual("1188", "2026-05-01", "2026-05-11"), plan_id=3)
    for plan_id, rate in ((3, "1069.20"), (4, "1188")):
        rule = replace(ANNUAL_RULE, plan_id=plan_id)
        stated = state_period(facts({}, subscriptions=(ended,), rules=(rule,)))
        assert [line.rate for line in stated.fees] == [dollars("1188"), dollars(rate)]


@pytest.mark.parametrize("percent", ["0.01", "33.33", "99.99", "100"])
def test_a_year_ended_at_once_never_brings_money(percent: str) -> None:
    rule = replace(ANNUAL_RULE, percent=Decimal(percent))
    ended = annual("1188", "2026-05-01", "2026-05-01T00:00:01")
    totals = state_period(facts({}, subscriptions=(ended,), rules=(rule,))).totals
    assert totals.credited == dollars("0")
    assert 0 <= totals.total_amount.amount < Decimal("0.01")


def test_an_unused_year_that_is_more_than_the_rest_is_credited_with_its_tax() -> None:
    stated = state_period(
        facts(
            {},
            subscriptions=(annual("365", "2026-04-01", "2026-05-11"),),
            credits_held=(credit("50", kind=CreditKind.PREPAID),),
            tax=Tax(Decimal("0.1")),
        )
    )
    totals = stated.totals
    assert (totals.subscription_fee, totals.tax) == (dollars("-325"), dollars("-32.50"))
    assert (totals.credited, totals.total_amount) == (dollars("357.50"), dollars("0"))
    assert (stated.prepaid_used, stated.remaining_prepaid) == ((), dollars("50"))


def test_two_currencies_do_not_meet_on_an_invoice() -> None:
    euros = Money(Decimal(1), "EUR")
    paid_in_euros = Subscribed("Plan", MAY.start, None, euros, euros)
    with pytest.raises(CurrencyMismatchError):
        state_period(facts({}, subscriptions=(paid_in_euros,)))


amounts = st.integers(0, 10**7).map(lambda count: Decimal(count).scaleb(-2))
rules = st.lists(
    st.builds(
        DiscountRule,
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(RuleKind),
        percent=st.integers(1, 10_000).map(lambda count: Decimal(count).scaleb(-2)),
        amount=amounts,
        min_amount=amounts,
        priority=st.integers(0, 2),
    ),
    max_size=3,
).map(tuple)
held = st.lists(
    st.builds(credit, amounts, kind=st.sampled_from(CreditKind), credit_id=st.integers(1, 9)),
    max_size=3,
).map(tuple)
taxes = st.builds(
    Tax, st.integers(0, 9999).map(lambda count: Decimal(count).scaleb(-4)), st.booleans()
)
plans = st.sampled_from(
    [
        (),
        (TEAM,),
        (monthly("99", "2026-05-01", "2026-05-17"), TEAM),
        (annual("1188", "2026-05-02"),),
        (annual("1188", "2025-06-01", "2026-05-17"), annual("3588", "2026-05-17")),
        (monthly("0", "2026-05-09", commitment=Commitment(dollars("900"), 3, MAY.start)),),
    ]
)
used = st.dictionaries(st.sampled_from([Meter.CPU, Meter.GPU]), st.integers(0, 10**18))
metered = st.fixed_dictionaries({(Meter.CPU, "USD"): prices()})


@st.composite
def periods(draw: st.DrawFn) -> PeriodFacts:
    """Draw the facts of a May with a change of prices inside."""
    middle = MAY.start + timedelta(days=draw(st.integers(1, 30)))
    stated = facts(
        {},
        subscriptions=draw(plans),
        rules=draw(rules),
        credits_held=draw(held),
        tax=draw(taxes),
    )
    spans = (
        PricedUsage(Period(MAY.start, middle), draw(used), DEFAULT),
        PricedUsage(Period(middle, MAY.end), draw(used), Prices(draw(metered)), 3),
    )
    return replace(stated, usage=spans)


@given(periods())
def test_what_is_printed_adds_up(facts_: PeriodFacts) -> None:
    # It raises no NegativeTotalError either: discounts and credits never take too much.
    stated = state_period(facts_)
    totals, lines = stated.totals, stated.rating.lines
    assert totals.usage_fee == Money.total((line.amount for line in lines), "USD")
    for line in lines:
        assert sum((part.cost for part in line.parts), start=Fraction(0)) == line.cost
    assert totals.subscription_fee == Money.total(
        (line.amount for line in stated.fees), "USD"
    ) - Money.total((found.amount for found in stated.fee_discounts), "USD")
    assert totals.discounts == Money.total((found.amount for found in stated.discounts), "USD")
    assert totals.credits_used == Money.total((d.amount for d in stated.credits_used), "USD")
    assert totals.prepaid_used == Money.total((d.amount for d in stated.prepaid_used), "USD")
    on_top = Money.zero("USD") if facts_.tax.is_inclusive else totals.tax
    parts = totals.subscription_fee + totals.usage_fee - totals.discounts - totals.credits_used
    assert totals.total_amount == parts + totals.adjustments + totals.credited + on_top
    assert totals.amount_due == totals.total_amount - totals.prepaid_used
    assert min(totals.amount_due, totals.credited, totals.usage_fee - totals.discounts).amount >= 0
    assert min(stated.remaining_credits, stated.remaining_prepaid).amount >= 0
    # Every usage line bears its part of the discounts.
    assert Money.total(stated.line_discounts, "USD") == totals.discounts
    for line, discount in zip(lines, stated.line_discounts, strict=True):
        assert 0 <= discount.amount <= line.amount.amount


@given(periods(), st.integers(0, 10**6))
def test_more_credit_never_makes_a_period_dearer(facts_: PeriodFacts, cents: int) -> None:
    given_too = credit(Decimal(cents).scaleb(-2), kind=CreditKind.PROMOTIONAL, credit_id=99)
    more = replace(facts_, credits_held=(*facts_.credits_held, given_too))
    without, with_it = state_period(facts_).totals, state_period(more).totals
    assert with_it.total_amount.amount <= without.total_amount.amount
    assert with_it.usage_fee == without.usage_fee
    assert with_it.discounts == without.discounts
