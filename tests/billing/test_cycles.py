from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing import services
from billing.models import Account, Invoice
from metering.models import AccountRegistration
from metering.period import Period
from tests.billing.usage import (
    JUNE,
    MAY,
    NOON,
    OPENED,
    open_account,
    read_streams_until,
    record_usage,
)

pytestmark = pytest.mark.django_db


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def bill_open_period(account: Account) -> Period:
    """Close the account's open period and return the one that is open after."""
    account.refresh_from_db()
    now = account.open_period_end + timedelta(minutes=15)
    read_streams_until(now)
    draft = services.draft_invoice(account.pk, period=account.open_period, now=now)
    services.finalise_invoice(draft.pk, now=now)
    account.refresh_from_db()
    return account.open_period


def test_a_new_zone_takes_effect_at_the_next_period() -> None:
    account = open_account(plan_code="professional")
    services.change_cycle(account.pk, now=NOON, time_zone="America/New_York")
    account.refresh_from_db()
    assert (account.time_zone, account.cycle_changes_at) == ("UTC", MAY.end)
    short = Period(MAY.end, utc("2026-06-01T04:00"))
    assert bill_open_period(account) == short
    assert (account.time_zone, account.next_time_zone) == ("America/New_York", "")
    assert AccountRegistration.objects.get().time_zone == "America/New_York"
    record_usage(account.pk, MAY.end, cpu_s=10**6)
    assert bill_open_period(account) == Period(short.end, utc("2026-07-01T04:00"))
    invoice = Invoice.objects.get(period_start=short.start)
    # Four hours of the 31 days of New York's May: of the fee, and of the credits.
    assert (invoice.subscription_fee, invoice.credits_used) == (Decimal("0.53"), Decimal("0.54"))


def test_a_zone_to_the_east_makes_the_next_period_shorter() -> None:
    account = open_account(plan_code="professional")
    services.change_cycle(account.pk, now=NOON, time_zone="Asia/Kolkata")
    assert bill_open_period(account) == Period(MAY.end, utc("2026-06-30T18:30"))
    assert bill_open_period(account).start == utc("2026-06-30T18:30")
    june = Invoice.objects.get(period_start=MAY.end)
    # 29 days and 18.5 hours of 30 days.
    assert june.subscription_fee == Decimal("98.24")


def test_a_change_made_while_the_month_before_is_open_waits_for_the_end_of_this_one() -> None:
    account = open_account()
    services.change_cycle(account.pk, now=JUNE.start + timedelta(hours=1), anchor_day=15)
    assert bill_open_period(account) == JUNE
    assert bill_open_period(account) == Period(JUNE.end, utc("2026-07-15T00:00"))
    assert bill_open_period(account) == Period(utc("2026-07-15T00:00"), utc("2026-08-15T00:00"))


def test_asking_for_what_holds_already_takes_a_change_back() -> None:
    account = open_account()
    services.change_cycle(account.pk, now=NOON, time_zone="Asia/Kolkata", anchor_day=5)
    services.change_cycle(account.pk, now=NOON, time_zone="UTC", anchor_day=1)
    assert bill_open_period(account) == JUNE


def test_anniversary_periods_keep_their_day() -> None:
    account = services.open_account(name="Ada", now=utc("2026-01-31T10:20"), anchor_day=31)
    assert account.open_period == Period(utc("2026-01-31T00:00"), utc("2026-02-28T00:00"))
    assert bill_open_period(account) == Period(utc("2026-02-28T00:00"), utc("2026-03-31T00:00"))
    assert bill_open_period(account) == Period(utc("2026-03-31T00:00"), utc("2026-04-30T00:00"))


@pytest.mark.parametrize("anchor_day", [0, 32])
def test_an_anchor_day_that_no_month_has_is_refused(anchor_day: int) -> None:
    with pytest.raises(services.AccountRefusedError, match="1 to 31"):
        services.open_account(name="Ada", now=OPENED, anchor_day=anchor_day)


def test_an_unknown_zone_is_refused_and_changes_nothing() -> None:
    account = open_account()
    with pytest.raises(services.UnknownTimeZoneError, match="Europe/Berlin"):
        services.change_cycle(account.pk, now=NOON, time_zone="Mars/Olympus")
    account.refresh_from_db()
    assert account.next_time_zone == ""


def test_an_unknown_currency_is_refused() -> None:
    with pytest.raises(services.UnknownCurrencyError, match="ISO 4217"):
        services.open_account(name="Ada", now=OPENED, currency="XTS")


@pytest.mark.parametrize(
    "zone",
    [
        "Pacific/Kiritimati",
        "America/St_Johns",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
        "America/Los_Angeles",
    ],
)
def test_a_year_of_periods_has_neither_overlap_nor_hole(zone: str) -> None:
    account = services.open_account(name="Ada", now=OPENED, time_zone=zone)
    period = account.open_period
    for _ in range(13):
        following = bill_open_period(account)
        assert following.start == period.end
        period = following
    assert period.start.year == 2027


def test_a_change_asked_for_again_after_its_moment_is_not_put_off() -> None:
    account = open_account()
    services.change_cycle(account.pk, now=NOON, time_zone="America/New_York")
    late = JUNE.start + timedelta(minutes=5)
    draft = services.draft_current_period(account.pk, now=late)
    services.change_cycle(account.pk, now=late, time_zone="America/New_York")
    assert bill_open_period(account) == draft.period
    assert bill_open_period(account).end == utc("2026-07-01T04:00")


def test_another_change_waits_until_one_whose_moment_is_over_was_made() -> None:
    account = open_account()
    services.change_cycle(account.pk, now=NOON, anchor_day=15)
    late = JUNE.start + timedelta(days=20)
    draft = services.draft_current_period(account.pk, now=late)
    for day in (1, 20):
        with pytest.raises(services.AccountRefusedError, match="closed"):
            services.change_cycle(account.pk, now=late, anchor_day=day)
    bill_open_period(account)
    assert bill_open_period(account) == draft.period
    services.change_cycle(account.pk, now=late, anchor_day=1)
    assert bill_open_period(account) == Period(draft.period_end, utc("2026-08-01T00:00"))
