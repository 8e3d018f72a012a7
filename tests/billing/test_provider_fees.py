"""Fees that the payment provider collects in advance: on no invoice of ours, and all else is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from billing import services
from billing.fees import Interval, Subscribed, fee_lines
from billing.models import Account, Invoice, Plan, PriceBook, Subscription
from billing.proration import share
from billing.queries import preview_period
from billing.what_if import ask, compare
from metering.period import Period
from tests.billing.periods import IN_UTC, dollars
from tests.billing.usage import (
    AFTER_MAY,
    JUNE,
    MAY,
    NOON,
    OPENED,
    bill,
    credits_left,
    open_account,
    record_usage,
)

db = pytest.mark.django_db
PRICES = {"professional": "price_pro", "team": "price_team"}
MIDDLE = datetime(2026, 5, 17, tzinfo=UTC)


@pytest.fixture
def _collected() -> None:
    """Let the provider collect the fees of Professional and of Team."""
    for code, price in PRICES.items():
        Plan.objects.filter(code=code).update(stripe_price_id=price)


def lines_of(invoice: Invoice) -> list[tuple[str, str]]:
    return [(line.description, f"{line.amount:.2f}") for line in invoice.lines.all()]


def price_of(account: Account) -> str:
    return account.subscriptions.latest("started_at").provider_price_id


@db
@pytest.mark.usefixtures("_collected")
def test_every_way_onto_a_plan_takes_its_provider_along() -> None:
    account = open_account(plan_code="professional")
    assert price_of(account) == "price_pro"
    services.choose_plan(account.pk, plan_code="team", now=NOON)
    assert price_of(account) == "price_team"
    services.change_plan_at_end(account.pk, plan_code="professional", now=NOON)
    assert price_of(account) == "price_pro"
    services.cancel_subscription_now(account.pk, now=NOON)
    services.choose_plan(account.pk, plan_code="team", now=NOON + timedelta(minutes=1))
    assert price_of(account) == "price_team"


@db
@pytest.mark.usefixtures("_collected")
def test_years_agreed_terms_and_free_plans_stay_ours() -> None:
    account = open_account(plan_code="developer")
    assert price_of(account) == ""
    services.choose_plan(account.pk, plan_code="team", interval=Interval.ANNUAL, now=NOON)
    assert price_of(account) == ""
    terms = [
        services.AgreedTerms(fee=Decimal(250)),
        services.AgreedTerms(price_book=PriceBook.objects.create(name="Own", account=account)),
        services.AgreedTerms(monthly_credits=Decimal(10)),
        services.AgreedTerms(commitment_minimum=Decimal(50), commitment_months=3),
    ]
    for days, agreed in enumerate(terms, start=1):
        now = NOON + timedelta(days=days)
        services.subscribe(account.pk, plan_code="team", agreed=agreed, now=now)
        assert price_of(account) == ""


@db
@pytest.mark.usefixtures("_collected")
def test_a_lower_fee_at_the_provider_waits_for_the_end() -> None:
    account = open_account(plan_code="team")
    with pytest.raises(services.SubscriptionRefusedError, match="Change to Professional at the en"):
        services.subscribe(account.pk, plan_code="professional", now=NOON)
    services.choose_plan(account.pk, plan_code="professional", now=NOON)
    assert list(account.subscriptions.values_list("fee", flat=True)) == [99, 299]
    # To a plan whose fee is ours it may change at once.
    services.subscribe(account.pk, plan_code="developer", now=NOON)
    assert price_of(account) == ""


@db
def test_a_plan_that_is_collected_from_now_on_is_so_for_new_subscriptions() -> None:
    account = open_account(plan_code="team")
    Plan.objects.filter(code="team").update(stripe_price_id="price_team")
    assert lines_of(bill(account)) == [("Team plan", "299.00")]
    services.subscribe(account.pk, plan_code="team", now=JUNE.start + timedelta(days=15))
    # Half of June was on our invoices, and the provider's price holds from then on.
    assert price_of(account) == "price_team"
    assert lines_of(bill(account, JUNE)) == [("Team plan", "149.50")]


@db
@pytest.mark.usefixtures("_collected")
def test_our_invoice_leaves_the_fee_out_and_keeps_all_else() -> None:
    account = open_account(plan_code="professional")
    record_usage(account.pk, NOON, cpu_s=10**7)
    totals = preview_period(account, MAY).totals
    assert (totals.subscription_fee, totals.credits_used) == (dollars("0"), dollars("100"))
    invoice = bill(account)
    assert lines_of(invoice) == [("CPU time", "120.00")]
    assert (invoice.subscription_fee, invoice.credits_used, invoice.amount_due) == (0, 100, 20)


@db
@pytest.mark.usefixtures("_collected")
def test_a_month_without_usage_has_no_invoice_and_its_credit_lapses() -> None:
    account = open_account(plan_code="professional")
    assert credits_left(account, MAY).amount == 100
    services.draft_due_invoices(AFTER_MAY)
    services.finalise_due_invoices(AFTER_MAY)
    account.refresh_from_db()
    assert (account.open_period, Invoice.objects.count()) == (JUNE, 0)
    assert credits_left(account, MAY).amount == 0


@db
def test_a_month_that_changes_sides_asks_for_each_second_once() -> None:
    Plan.objects.filter(code="team").update(stripe_price_id="price_team")
    account = open_account(plan_code="professional")
    services.choose_plan(account.pk, plan_code="team", now=MIDDLE)
    # 16 of 31 days of Professional are ours; Team is the provider's from then on.
    assert lines_of(bill(account)) == [("Professional plan", "51.10")]


@db
@pytest.mark.usefixtures("_collected")
def test_a_year_that_ends_for_a_collected_month_is_given_back_by_us() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="team", interval=Interval.ANNUAL, now=OPENED)
    services.subscribe(account.pk, plan_code="team", now=MIDDLE)
    year, rest = lines_of(bill(account))
    assert year[0] == "Team plan"
    assert rest[0] == "Team plan, unused part of the year"


@db
@pytest.mark.usefixtures("_collected")
def test_what_it_would_have_cost_counts_fees_whoever_collects_them() -> None:
    account = open_account(plan_code="professional")
    record_usage(account.pk, NOON, cpu_s=10**6)
    bill(account)
    account.refresh_from_db()
    compared = compare(account, ask(months=1, plan_code="professional"))
    assert compared is not None
    assert compared.as_it_is == compared.other == compared.plans["professional"]
    assert compared.as_it_is.cost.amount == 99


@db
@pytest.mark.parametrize(
    "wrong",
    [{"interval": "annual"}, {"fee": 0}, {"commitment_minimum": 5, "commitment_months": 1}],
)
@pytest.mark.usefixtures("_collected")
def test_the_database_knows_what_a_provider_may_collect(wrong: dict[str, object]) -> None:
    account = open_account(plan_code="team")
    with (
        pytest.raises(IntegrityError, match="provider_collects_a_plans_own_monthly_fee_only"),
        transaction.atomic(),
    ):
        Subscription.objects.filter(account=account).update(**wrong)


@db
def test_a_plan_without_a_monthly_fee_has_no_price_at_a_provider() -> None:
    for code in ("developer", "enterprise"):
        with (
            pytest.raises(IntegrityError, match="has_a_monthly_fee"),
            transaction.atomic(),
        ):
            Plan.objects.filter(code=code).update(stripe_price_id="price_x")


seconds = st.integers(0, int(MAY.duration.total_seconds()))


@given(
    cuts=st.lists(seconds, max_size=5, unique=True).map(sorted),
    collected=st.lists(st.booleans(), min_size=6, max_size=6),
    trial=seconds,
)
def test_each_second_of_a_month_is_asked_for_by_one_side(
    cuts: list[int], collected: list[bool], trial: int
) -> None:
    edges = [MAY.start, *(MAY.start + timedelta(seconds=cut) for cut in cuts), JUNE.end]
    edges = sorted(set(edges))
    rows = [
        Subscribed(
            plan=str(number),
            start=start,
            end=end,
            # Dear enough for each second to be more than a cent.
            fee=dollars("100000000"),
            monthly_credits=dollars("0"),
            trial_end=MAY.start + timedelta(seconds=trial) if number == 1 else None,
            provider_collects=theirs,
        )
        for number, (start, end, theirs) in enumerate(
            zip(edges, edges[1:], collected, strict=False)
        )
    ]
    ours = fee_lines(rows, period=MAY, schedule=IN_UTC)
    theirs = [part for row in rows if row.provider_collects and (part := row.paid_part_of(MAY))]
    tried = [
        Period(row.start, min(row.paid_from, row.end, MAY.end))
        for row in rows
        if row.end and row.paid_from > row.start and row.start < MAY.end
    ]
    asked = sorted([line.period for line in ours] + theirs + tried, key=lambda span: span.start)
    assert [span.start for span in asked] == [MAY.start, *(span.end for span in asked[:-1])]
    assert asked[-1].end == MAY.end
    for line in ours:
        assert line.amount == line.rate.times(share(line.period, MAY))
