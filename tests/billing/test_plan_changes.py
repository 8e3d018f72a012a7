from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing import services
from billing.fees import Interval
from billing.models import (
    Account,
    CreditEntry,
    DiscountRule,
    Invoice,
    Plan,
    PriceBook,
    Subscription,
)
from billing.queries import preview_period
from metering.period import Period
from tests.billing.usage import (
    AFTER_MAY,
    JUNE,
    MAY,
    NOON,
    OPENED,
    bill,
    open_account,
    read_streams_until,
    record_usage,
)

pytestmark = pytest.mark.django_db

MIDDLE = datetime(2026, 5, 17, tzinfo=UTC)


def entries() -> list[tuple[str, str]]:
    return [(entry.kind, f"{entry.amount:.2f}") for entry in CreditEntry.objects.all()]


def spans(account: Account) -> list[tuple[str, datetime, datetime | None]]:
    rows = account.subscriptions.order_by("started_at")
    return [(row.plan.code, row.started_at, row.expires_at) for row in rows]


def lines_of(invoice: Invoice) -> list[tuple[str, str]]:
    return [(line.description, f"{line.amount:.2f}") for line in invoice.lines.all()]


def test_an_upgrade_chosen_by_the_customer_holds_at_once() -> None:
    account = open_account(plan_code="professional")
    services.choose_plan(account.pk, plan_code="team", now=MIDDLE)
    assert spans(account) == [("professional", OPENED, MIDDLE), ("team", MIDDLE, None)]
    # 16 of 31 days of 99.00 and 15 of 31 days of 299.00.
    assert lines_of(bill(account, MAY)) == [
        ("Professional plan", "51.10"),
        ("Team plan", "144.68"),
    ]


def test_a_downgrade_waits_for_the_next_period() -> None:
    account = open_account(plan_code="team")
    services.choose_plan(account.pk, plan_code="professional", now=MIDDLE)
    assert spans(account) == [("team", OPENED, MAY.end), ("professional", MAY.end, None)]
    assert entries() == [("grant", "300.00")]
    assert lines_of(bill(account, MAY)) == [("Team plan", "299.00")]
    assert lines_of(bill(account, JUNE)) == [("Professional plan", "99.00")]


def test_a_downgrade_is_chosen_twice_and_waits_once() -> None:
    account = open_account(plan_code="team")
    for _ in range(2):
        services.choose_plan(account.pk, plan_code="professional", now=MIDDLE)
    services.choose_plan(account.pk, plan_code="developer", now=MIDDLE)
    assert spans(account) == [("team", OPENED, MAY.end), ("developer", MAY.end, None)]


def test_choosing_the_plan_it_is_on_takes_a_downgrade_back() -> None:
    account = open_account(plan_code="team")
    services.choose_plan(account.pk, plan_code="professional", now=MIDDLE)
    services.choose_plan(account.pk, plan_code="team", now=MIDDLE)
    assert spans(account) == [("team", OPENED, None)]


def test_an_upgrade_drops_a_downgrade_that_waits() -> None:
    account = open_account(plan_code="professional")
    services.choose_plan(account.pk, plan_code="developer", now=NOON)
    services.choose_plan(account.pk, plan_code="team", now=MIDDLE)
    assert spans(account) == [("professional", OPENED, MIDDLE), ("team", MIDDLE, None)]


def test_a_cancellation_to_the_end_can_be_resumed_until_then() -> None:
    account = open_account(plan_code="professional")
    for _ in range(2):
        services.cancel_subscription(account.pk, now=MIDDLE)
    assert spans(account) == [("professional", OPENED, MAY.end)]
    services.resume_subscription(account.pk, now=MAY.end - timedelta(seconds=1))
    assert spans(account) == [("professional", OPENED, None)]
    services.cancel_subscription(account.pk, now=MIDDLE)
    with pytest.raises(services.SubscriptionRefusedError, match="Choose a plan"):
        services.resume_subscription(account.pk, now=MAY.end)


def test_after_the_end_there_is_no_fee_and_usage_is_at_developer_prices() -> None:
    account = open_account(plan_code="professional")
    services.cancel_subscription(account.pk, now=MIDDLE)
    assert lines_of(bill(account, MAY)) == [("Professional plan", "99.00")]
    record_usage(account.pk, JUNE.start, cpu_s=10**6)
    assert lines_of(bill(account, JUNE)) == [("CPU time", "12.00")]
    assert entries() == [("grant", "100.00"), ("expire", "-100.00")]


def test_cancelled_at_once_the_period_ends_with_its_window() -> None:
    account = open_account(plan_code="professional")
    now = MIDDLE + timedelta(minutes=7, seconds=3)
    for _ in range(2):
        services.cancel_subscription_now(account.pk, now=now)
    end = MIDDLE + timedelta(minutes=15)
    account.refresh_from_db()
    assert spans(account) == [("professional", OPENED, end)]
    assert account.open_period == Period(OPENED, end)
    # 16 days and a quarter of an hour of 31 days.
    assert entries() == [("grant", "100.00"), ("revoke", "-48.35")]
    invoice = bill(account, account.open_period)
    assert (invoice.kind, lines_of(invoice)) == ("final", [("Professional plan", "51.13")])
    account.refresh_from_db()
    assert account.open_period == Period(end, MAY.end)
    # The rest of the month has no subscription and no usage: nothing to invoice.
    services.draft_due_invoices(AFTER_MAY)
    services.finalise_due_invoices(AFTER_MAY)
    account.refresh_from_db()
    assert account.open_period == JUNE
    assert Invoice.objects.count() == 1


def test_a_draft_of_the_whole_period_goes_when_it_is_cut() -> None:
    account = open_account(plan_code="professional")
    services.draft_current_period(account.pk, now=MIDDLE)
    services.cancel_subscription_now(account.pk, now=MIDDLE)
    assert not Invoice.objects.exists()
    account.refresh_from_db()
    assert bill(account, account.open_period).kind == "final"


def test_cancelled_at_once_while_the_month_before_is_still_open() -> None:
    account = open_account(plan_code="professional")
    services.cancel_subscription_now(account.pk, now=JUNE.start + timedelta(minutes=1))
    assert lines_of(bill(account, MAY)) == [("Professional plan", "99.00")]
    account.refresh_from_db()
    cut = JUNE.start + timedelta(minutes=15)
    assert account.open_period == Period(JUNE.start, cut)
    # A quarter of an hour of 30 days.
    assert lines_of(bill(account, account.open_period)) == [("Professional plan", "0.03")]


def test_a_plan_chosen_in_the_last_window_starts_after_it() -> None:
    account = open_account(plan_code="professional")
    services.cancel_subscription_now(account.pk, now=MIDDLE)
    for _ in range(2):
        services.choose_plan(
            account.pk, plan_code="professional", now=MIDDLE + timedelta(minutes=1)
        )
    end = MIDDLE + timedelta(minutes=15)
    assert spans(account) == [("professional", OPENED, end), ("professional", end, None)]
    services.grant_due_credits(end)
    assert entries() == [("grant", "100.00"), ("revoke", "-48.35"), ("grant", "48.35")]
    account.refresh_from_db()
    first = bill(account, account.open_period)
    account.refresh_from_db()
    second = bill(account, account.open_period)
    assert (first.kind, first.subscription_fee) == ("final", Decimal("51.13"))
    assert (second.kind, second.subscription_fee) == ("usage", Decimal("47.87"))
    assert first.subscription_fee + second.subscription_fee == 99


def test_what_was_cancelled_at_once_is_not_resumed() -> None:
    account = open_account(plan_code="professional")
    services.cancel_subscription_now(account.pk, now=MIDDLE)
    with pytest.raises(services.SubscriptionRefusedError, match="cancelled at once"):
        services.resume_subscription(account.pk, now=MIDDLE)


def test_without_a_subscription_there_is_nothing_to_cancel() -> None:
    account = open_account()
    for change in (services.cancel_subscription, services.cancel_subscription_now):
        with pytest.raises(services.SubscriptionRefusedError, match="no active subscription"):
            change(account.pk, now=NOON)


def test_a_trial_has_no_fee_and_is_given_once() -> None:
    Plan.objects.filter(code="team").update(trial_days=14)
    account = open_account(plan_code="team")
    trial_end = OPENED + timedelta(days=14)
    assert account.subscriptions.get().trial_ends_at == trial_end
    # 17 of 31 days.
    assert lines_of(bill(account, MAY)) == [("Team plan", "163.97")]
    services.cancel_subscription(account.pk, now=JUNE.start)
    services.subscribe(account.pk, plan_code="team", now=JUNE.end)
    assert account.subscriptions.get(started_at=JUNE.end).trial_ends_at is None


def test_cancelled_in_its_trial_a_plan_ends_with_it_and_costs_nothing() -> None:
    Plan.objects.filter(code="team").update(trial_days=14)
    account = open_account(plan_code="team")
    services.cancel_subscription(account.pk, now=NOON)
    assert account.subscriptions.get().expires_at == OPENED + timedelta(days=14)
    record_usage(account.pk, NOON, cpu_s=10**6)
    preview = services.draft_current_period(account.pk, now=NOON)
    assert lines_of(preview) == [("CPU time", "12.00")]
    invoice = bill(account, MAY)
    # The credits of 14 of 31 days are left.
    assert entries() == [
        ("grant", "300.00"),
        ("revoke", "-164.52"),
        ("use", "-12.00"),
        ("expire", "-123.48"),
    ]
    assert (invoice.credits_used, preview.credits_used) == (12, 12)


def test_a_year_is_paid_where_it_starts_and_an_upgrade_gives_back_what_is_unused() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="professional", now=OPENED, interval=Interval.ANNUAL)
    assert entries() == [("grant", "100.00")]
    assert lines_of(bill(account, MAY)) == [("Professional plan", "1188.00")]
    services.choose_plan(
        account.pk, plan_code="team", now=JUNE.start + timedelta(days=10), interval=Interval.ANNUAL
    )
    # 324 of 365 days are left of the year.
    assert lines_of(bill(account, JUNE)) == [
        ("Professional plan, unused part of the year", "-1054.55"),
        ("Team plan", "3588.00"),
    ]


def test_a_year_does_not_end_on_the_edge_of_a_closed_period() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="professional", now=OPENED, interval=Interval.ANNUAL)
    bill(account, MAY)
    with pytest.raises(services.SubscriptionRefusedError, match="that period is closed"):
        services.subscribe(account.pk, plan_code="team", now=JUNE.start)


def test_annual_billing_ends_with_its_year() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="team", now=NOON, interval=Interval.ANNUAL)
    services.choose_plan(account.pk, plan_code="professional", now=MIDDLE)
    year_end = datetime(2027, 5, 10, 12, tzinfo=UTC)
    assert spans(account) == [("team", NOON, year_end), ("professional", year_end, None)]
    services.cancel_subscription(account.pk, now=MIDDLE)
    assert spans(account) == [("team", NOON, year_end)]


def test_from_monthly_to_annual_billing_at_once() -> None:
    account = open_account(plan_code="professional")
    Plan.objects.filter(code="professional").update(annual_fee=Decimal(1300))
    services.choose_plan(account.pk, plan_code="professional", now=MIDDLE, interval=Interval.ANNUAL)
    assert [row.interval for row in account.subscriptions.order_by("started_at")] == [
        "monthly",
        "annual",
    ]


def test_an_unused_year_that_is_more_than_the_rest_becomes_prepaid_credit() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="professional", now=OPENED, interval=Interval.ANNUAL)
    bill(account, MAY)
    services.cancel_subscription_now(account.pk, now=JUNE.start)
    account.refresh_from_db()
    invoice = bill(account, account.open_period)
    # 333 days and 23.75 hours of 365 days: a day and more have gone by.
    assert invoice.total_amount == 0
    assert invoice.credited == -invoice.subscription_fee == Decimal("1087.07")
    grant = account.credit_grants.get(kind="prepaid")
    assert grant.entries.get().amount == Decimal("1087.07")
    assert invoice.status == "paid"


def committed(account: Account, minimum: str = "200", months: int = 12) -> Subscription:
    terms = services.AgreedTerms(commitment_minimum=Decimal(minimum), commitment_months=months)
    return services.subscribe(account.pk, plan_code="professional", now=OPENED, agreed=terms)


def test_spend_below_the_committed_minimum_is_made_up_for() -> None:
    account = open_account()
    committed(account)
    record_usage(account.pk, NOON, cpu_s=10**7)
    invoice = bill(account, MAY)
    assert lines_of(invoice) == [
        ("Professional plan", "99.00"),
        ("Professional plan, up to the committed minimum", "80.00"),
        ("CPU time", "120.00"),
    ]
    # Credits pay usage only, so the minimum is spent all the same.
    assert (invoice.credits_used, invoice.total_amount) == (100, 199)


def test_a_commitment_is_cancelled_to_its_end_only() -> None:
    account = open_account()
    committed(account)
    with pytest.raises(services.SubscriptionRefusedError, match="committed until 2027-05-01"):
        services.cancel_subscription_now(account.pk, now=MIDDLE)
    services.cancel_subscription(account.pk, now=MIDDLE)
    assert account.subscriptions.get().expires_at == datetime(2027, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(("minimum", "months"), [("200", None), (None, 12)])
def test_a_commitment_without_minimum_or_term_is_refused(
    minimum: str | None, months: int | None
) -> None:
    terms = services.AgreedTerms(
        commitment_minimum=None if minimum is None else Decimal(minimum),
        commitment_months=months,
    )
    with pytest.raises(services.SubscriptionRefusedError, match="both a minimum and a term"):
        services.subscribe(open_account().pk, plan_code="team", now=OPENED, agreed=terms)


def test_an_enterprise_plan_is_not_chosen_by_oneself() -> None:
    account = open_account()
    with pytest.raises(services.SubscriptionRefusedError, match="Contact sales"):
        services.choose_plan(account.pk, plan_code="enterprise", now=NOON)
    book = PriceBook.objects.create(code="ada", name="Ada's", account=account)
    terms = services.AgreedTerms(fee=Decimal(5000), price_book=book)
    services.subscribe(account.pk, plan_code="enterprise", now=NOON, agreed=terms)
    with pytest.raises(services.SubscriptionRefusedError, match="agreed terms"):
        services.choose_plan(account.pk, plan_code="team", now=MIDDLE)


def test_a_plan_that_is_not_offered_any_more_is_not_chosen() -> None:
    Plan.objects.filter(code="team").update(is_offered=False)
    with pytest.raises(services.SubscriptionRefusedError, match="not offered"):
        services.choose_plan(open_account().pk, plan_code="team", now=NOON)


def test_annual_billing_that_a_plan_does_not_offer_is_refused() -> None:
    Plan.objects.filter(code="team").update(annual_fee=None)
    with pytest.raises(services.SubscriptionRefusedError, match="no annual fee"):
        services.choose_plan(
            open_account().pk, plan_code="team", now=NOON, interval=Interval.ANNUAL
        )


def test_a_trial_resumed_in_its_last_period_has_that_period_s_credits() -> None:
    Plan.objects.filter(code="professional").update(trial_days=14)
    account = open_account()
    services.subscribe(account.pk, plan_code="professional", now=MAY.end - timedelta(days=5))
    services.cancel_subscription(account.pk, now=MAY.end - timedelta(days=1))
    services.grant_due_credits(MAY.end)
    assert preview_period(account, JUNE).remaining_credits.amount == Decimal("30.00")
    by = services.ByHand(reason="Support", reference="hour")
    with pytest.raises(services.CreditRefusedError, match=r"30\.00 USD of credit are left"):
        services.use_credit(account.pk, Decimal(31), by=by, now=MAY.end)
    services.resume_subscription(account.pk, now=MAY.end + timedelta(days=1))
    assert preview_period(account, JUNE).remaining_credits.amount == Decimal("100.00")


def test_a_trial_not_resumed_in_its_last_period_keeps_what_it_earned() -> None:
    Plan.objects.filter(code="professional").update(trial_days=14)
    account = open_account()
    services.subscribe(account.pk, plan_code="professional", now=MAY.end - timedelta(days=5))
    services.cancel_subscription(account.pk, now=MAY.end - timedelta(days=1))
    services.draft_due_invoices(AFTER_MAY)
    services.finalise_due_invoices(AFTER_MAY)
    services.grant_due_credits(AFTER_MAY)
    record_usage(account.pk, JUNE.start, cpu_s=10**7)
    assert bill(account, JUNE).credits_used == Decimal("30.00")


def test_a_cancellation_taken_back_within_its_last_window_costs_no_credits() -> None:
    Plan.objects.filter(code="professional").update(trial_days=14)
    account = open_account(plan_code="professional")
    trial_end = OPENED + timedelta(days=14)
    services.cancel_subscription(account.pk, now=trial_end - timedelta(minutes=5))
    services.resume_subscription(account.pk, now=trial_end - timedelta(minutes=4))
    assert entries() == [("grant", "100.00")]


def test_an_upgrade_is_no_way_out_of_a_commitment() -> None:
    account = open_account()
    committed(account)
    with pytest.raises(services.SubscriptionRefusedError, match="committed until 2027-05-01"):
        services.choose_plan(account.pk, plan_code="team", now=MIDDLE)
    assert spans(account) == [("professional", OPENED, None)]
    over = datetime(2027, 5, 1, tzinfo=UTC)
    assert services.choose_plan(account.pk, plan_code="team", now=over).started_at == over


def test_a_plan_for_the_end_follows_a_year_that_was_cancelled_at_once() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="team", now=OPENED, interval=Interval.ANNUAL)
    services.cancel_subscription_now(account.pk, now=MIDDLE)
    end = MIDDLE + timedelta(minutes=15)
    services.change_plan_at_end(account.pk, plan_code="professional", now=MIDDLE)
    assert spans(account) == [("team", OPENED, end), ("professional", end, None)]


def test_a_change_whose_credit_a_faster_clock_brought_is_not_dropped() -> None:
    account = open_account(plan_code="team")
    services.choose_plan(account.pk, plan_code="professional", now=MIDDLE)
    services.grant_due_credits(MAY.end)
    with pytest.raises(services.SubscriptionRefusedError, match="Professional from 2026-06-01"):
        services.resume_subscription(account.pk, now=MAY.end - timedelta(seconds=1))
    assert spans(account) == [("team", OPENED, MAY.end), ("professional", MAY.end, None)]


def test_an_unused_year_goes_back_at_what_was_paid_for_it_then() -> None:
    account = open_account()
    sale = DiscountRule.objects.create(name="Sale", kind="annual", percent=Decimal(50))
    services.subscribe(account.pk, plan_code="team", now=OPENED, interval=Interval.ANNUAL)
    assert bill(account, MAY).subscription_fee == 1794
    DiscountRule.objects.filter(pk=sale.pk).update(is_active=False)
    services.cancel_subscription_now(account.pk, now=JUNE.start)
    account.refresh_from_db()
    # 333 days and 23 hours 45 minutes of 365 days, of the half that was paid.
    assert bill(account, account.open_period).credited == Decimal("1641.58")


def test_a_year_sold_at_full_price_goes_back_at_full_price() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="team", now=OPENED, interval=Interval.ANNUAL)
    bill(account, MAY)
    DiscountRule.objects.create(name="Sale", kind="annual", percent=Decimal(50))
    services.cancel_subscription_now(account.pk, now=JUNE.start)
    account.refresh_from_db()
    assert bill(account, account.open_period).credited == Decimal("3283.16")


def test_a_rule_of_one_plan_takes_nothing_off_the_year_of_another() -> None:
    account = open_account(plan_code="professional")
    professional = Plan.objects.get(code="professional")
    DiscountRule.objects.create(
        name="Pro", kind="annual", percent=Decimal(50), scope="plan", plan=professional
    )
    services.subscribe(account.pk, plan_code="team", now=NOON, interval=Interval.ANNUAL)
    lines = lines_of(bill(account, MAY))
    assert ("Team plan", "3588.00") in lines
    assert not any(name == "Pro" for name, _ in lines)


def test_a_year_is_charged_whatever_zone_the_account_moved_to() -> None:
    account = services.open_account(
        name="Ada", now=datetime(2027, 3, 13, tzinfo=UTC), anchor_day=13
    )
    services.subscribe(
        account.pk,
        plan_code="team",
        now=datetime(2027, 3, 13, tzinfo=UTC),
        interval=Interval.ANNUAL,
    )
    years = 0
    for month in range(16):
        account.refresh_from_db()
        if month == 11:
            services.change_cycle(
                account.pk, now=account.open_period_start, time_zone="America/New_York"
            )
            account.refresh_from_db()
        period = account.open_period
        now = period.end + timedelta(minutes=15)
        read_streams_until(now)
        draft = services.draft_invoice(account.pk, period=period, now=now)
        invoice = services.finalise_invoice(draft.pk, now=now)
        years += bool(invoice and invoice.subscription_fee >= 3588)
    assert years == 2
