"""Accounts whose periods follow a payment provider's, while it collects their fee."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from django.db import DatabaseError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from billing import services
from billing.history import schedule_in
from billing.models import Account, CreditEntry, Invoice, Plan, ProviderPeriod
from billing.periods import Cycle, Followed, Schedule, add_months
from metering.period import WINDOW, Period, window_start
from tests.billing.periods import page_period, utc
from tests.billing.usage import (
    GRACE,
    JUNE,
    MAY,
    OPENED,
    bill,
    credits_left,
    open_account,
    read_streams_until,
    record_usage,
)

db = pytest.mark.django_db
IN_UTC = ZoneInfo("UTC")
BEGAN = utc("2026-05-15T10:03:07")
RENEWED = utc("2026-06-15T10:03:07")
THEIRS = Period(BEGAN, RENEWED)
FOLLOWING = Period(utc("2026-05-15T10:00"), utc("2026-06-15T10:00"))
A_MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("told", "following"),
    [
        ("2026-01-31T23:59:59 to 2026-02-28T23:59:59", "2026-02-28T23:45 to 2026-03-31T23:45"),
        ("2026-02-28T12:00:01 to 2026-03-31T12:00:01", "2026-03-31T12:00 to 2026-04-30T12:00"),
        ("2028-01-30T00:00:00 to 2028-02-29T00:00:00", "2028-02-29T00:00 to 2028-03-30T00:00"),
        ("2026-02-28T08:00:00 to 2026-03-28T08:00:00", "2026-03-28T08:00 to 2026-04-28T08:00"),
        ("2026-12-15T10:03:07 to 2027-01-15T10:03:07", "2027-01-15T10:00 to 2027-02-15T10:00"),
        # A trial: months count from its end.
        ("2026-05-31T10:03:07 to 2026-06-14T10:03:07", "2026-06-14T10:00 to 2026-07-14T10:00"),
    ],
)
def test_a_providers_months_go_on_as_the_provider_counts_them(told: str, following: str) -> None:
    first = page_period(told)
    followed = Followed(first, window_start(first.start))
    assert followed.whole(window_start(first.end)) == page_period(following)
    assert followed.whole(first.start - WINDOW) is None


def test_a_trial_is_a_part_of_the_month_that_ends_with_it() -> None:
    trial = Period(utc("2026-05-15T10:03:07"), utc("2026-05-29T10:03:07"))
    followed = Followed(trial, utc("2026-05-15T10:00"))
    month = Period(utc("2026-04-29T10:00"), utc("2026-05-29T10:00"))
    assert followed.whole(utc("2026-05-20T00:00")) == month
    schedule = Schedule(Cycle(IN_UTC), followed=(followed,))
    assert schedule.starting(followed.start) == Period(followed.start, month.end)


def test_they_are_followed_up_to_where_others_take_over_or_they_renew_no_more() -> None:
    followed = Followed(THEIRS, FOLLOWING.start, stop=FOLLOWING.end)
    assert followed.whole(FOLLOWING.end - WINDOW) == FOLLOWING
    assert followed.whole(FOLLOWING.end) is None
    assert followed.exact(FOLLOWING.end) is None
    ended = Followed(THEIRS, FOLLOWING.start, renews_until=RENEWED)
    assert ended.whole(FOLLOWING.end - WINDOW) == FOLLOWING
    assert ended.whole(FOLLOWING.end) is None
    assert ended.exact(RENEWED) is None
    # It renews once more where it begins before that.
    renewed = Followed(THEIRS, FOLLOWING.start, renews_until=RENEWED + A_MINUTE)
    assert renewed.whole(FOLLOWING.end) == Period(FOLLOWING.end, utc("2026-07-15T10:00"))


def test_the_providers_own_periods_are_told_to_the_second_the_later_told_one_first() -> None:
    followed = Followed(THEIRS, FOLLOWING.start)
    july = Period(RENEWED, utc("2026-07-15T10:03:07"))
    second = timedelta(seconds=1)
    moments = (BEGAN - second, BEGAN, RENEWED - second, RENEWED)
    assert [followed.exact(moment) for moment in moments] == [None, THEIRS, THEIRS, july]
    # Told again, with a day more: it holds for what it covers, and the first for the rest.
    again = Period(BEGAN + timedelta(days=1), RENEWED + timedelta(days=1))
    later = Followed(again, window_start(again.start))
    schedule = Schedule(Cycle(IN_UTC), followed=(followed, later))
    assert schedule.exact(BEGAN - second) is None
    assert schedule.exact(BEGAN) == THEIRS
    assert schedule.exact(again.start) == again
    assert Schedule(Cycle(IN_UTC)).exact(BEGAN) is None


@pytest.fixture
def _machine_elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_machine_elsewhere")
def test_a_provider_counts_in_utc_wherever_the_machine_stands() -> None:
    # In New York it is still the 30th, and a month with clocks that change.
    first = page_period("2026-01-31T03:00:00 to 2026-02-28T03:00:00")
    followed = Followed(first, first.start)
    assert followed.whole(first.end) == page_period("2026-02-28T03:00 to 2026-03-31T03:00")


anchors = st.datetimes(datetime(2025, 1, 1), datetime(2028, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants its bounds so
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"])


@given(
    anchor=anchors,
    zone=zones,
    day=st.integers(1, 31),
    months=st.integers(0, 14),
    late=st.integers(-3, 40),
)
def test_followed_time_has_neither_overlap_nor_hole_and_gives_back_to_the_cycle(
    anchor: datetime, zone: str, day: int, months: int, late: int
) -> None:
    anchor = anchor.replace(microsecond=0)
    told = Period(anchor, add_months(anchor, 1, IN_UTC))
    cycle = Cycle(ZoneInfo(zone), day)
    over = add_months(anchor, 1 + months, IN_UTC, day=anchor.day)
    start = window_start(anchor)
    again = add_months(anchor, 3, IN_UTC, day=anchor.day) + timedelta(days=late)
    chain = [Followed(told, start, renews_until=over)]
    if over > again:
        later = Period(again, add_months(again, 1, IN_UTC))
        chain = [
            Followed(told, start, stop=window_start(again), renews_until=over),
            Followed(later, window_start(again), renews_until=over),
        ]
    schedule = Schedule(cycle, followed=tuple(chain))
    opened = cycle.containing(start)
    first = schedule.starting(opened.start)
    assert first.end == (start if opened.start < start else window_start(told.end))
    periods = [first]
    while periods[-1].end < over + timedelta(days=70):
        periods.append(schedule.starting(periods[-1].end))
    assert all(before.end == after.start for before, after in pairwise(periods))
    bounds = {bound for period in periods for bound in (period.start, period.end)}
    assert start in bounds
    # After the last of the provider's periods the cycle holds: the next end is its own.
    assert periods[-1].end == cycle.containing(periods[-1].start).end
    for period in periods:
        assert schedule.following(first, period.start) == period
        assert schedule.following(first, period.end - WINDOW) == period


@pytest.fixture(autouse=True)
def _collected(request: pytest.FixtureRequest) -> None:
    """Let the provider collect the fee of Professional."""
    if request.node.get_closest_marker("django_db"):
        request.getfixturevalue("db")
        Plan.objects.filter(code="professional").update(stripe_price_id="price_pro")


@pytest.fixture
def account() -> Account:
    """Return an account that began on a collected plan on 15 May, and is told so."""
    account = open_account()
    services.subscribe(account.pk, plan_code="professional", now=BEGAN)
    return services.take_provider_period(account.pk, THEIRS, now=BEGAN + A_MINUTE)


def entries(account: Account) -> list[tuple[str, str]]:
    rows = CreditEntry.objects.filter(grant__account=account)
    return [(row.kind, f"{row.amount:.2f}") for row in rows]


def close(account: Account) -> Period:
    """Close the account's open period and return the one that is open after."""
    account.refresh_from_db()
    now = account.open_period_end + GRACE
    read_streams_until(now)
    draft = services.draft_invoice(account.pk, period=account.open_period, now=now)
    services.finalise_invoice(draft.pk, now=now)
    account.refresh_from_db()
    return account.open_period


@db
def test_the_open_period_ends_where_the_providers_begins(account: Account) -> None:
    assert account.open_period == Period(OPENED, FOLLOWING.start)
    # What came for the rest of May is taken back, and the month that is paid for has all.
    assert entries(account) == [("grant", "53.49"), ("revoke", "-53.49"), ("grant", "100.00")]
    assert close(account) == FOLLOWING
    assert close(account) == Period(FOLLOWING.end, utc("2026-07-15T10:00"))
    assert not Invoice.objects.exists()


@db
def test_usage_is_invoiced_once_over_the_seams(account: Account) -> None:
    for at in (FOLLOWING.start - WINDOW, FOLLOWING.start, FOLLOWING.end - WINDOW, FOLLOWING.end):
        record_usage(account.pk, at, cpu_s=10**7)
    for _ in range(3):
        close(account)
    invoices = Invoice.objects.order_by("period_start")
    billed = [(i.period_start, int(i.usage_fee), int(i.credits_used)) for i in invoices]
    # The plan's prices hold from the window in which it began; without credit before it.
    assert billed == [
        (OPENED, 120, 0),
        (FOLLOWING.start, 240, 100),
        (FOLLOWING.end, 120, 100),
    ]


@db
def test_telling_again_changes_nothing_and_an_earlier_period_neither(account: Account) -> None:
    before = entries(account)
    for _ in range(2):
        services.take_provider_period(account.pk, THEIRS, now=BEGAN + A_MINUTE)
    earlier = Period(BEGAN - timedelta(days=1), RENEWED - timedelta(days=1))
    services.take_provider_period(account.pk, earlier, now=BEGAN + A_MINUTE)
    assert ProviderPeriod.objects.count() == 1
    assert entries(account) == before


@db
def test_a_renewal_is_what_was_expected_and_may_come_late(account: Account) -> None:
    renewal = Period(RENEWED, utc("2026-07-15T10:03:07"))
    close(account)
    expected = close(account)
    services.take_provider_period(account.pk, renewal, now=RENEWED + timedelta(days=20))
    account.refresh_from_db()
    assert account.open_period == expected == Period(FOLLOWING.end, utc("2026-07-15T10:00"))


@db
def test_a_renewal_is_taken_while_the_month_before_is_open(account: Account) -> None:
    close(account)
    renewal = Period(RENEWED, utc("2026-07-15T10:03:07"))
    services.take_provider_period(account.pk, renewal, now=RENEWED + A_MINUTE)
    account.refresh_from_db()
    assert account.open_period == FOLLOWING
    record_usage(account.pk, FOLLOWING.start, cpu_s=10**7)
    close(account)
    invoice = Invoice.objects.get()
    assert (invoice.period, invoice.credits_used) == (FOLLOWING, 100)


@db
def test_another_anchor_cuts_the_open_period(account: Account) -> None:
    close(account)
    services.draft_current_period(account.pk, now=utc("2026-06-09T00:00"))
    moved = Period(utc("2026-06-10T08:20:00"), utc("2026-07-10T08:20:00"))
    services.take_provider_period(account.pk, moved, now=moved.start + A_MINUTE)
    account.refresh_from_db()
    assert account.open_period == Period(FOLLOWING.start, utc("2026-06-10T08:15"))
    # The draft to the old end is gone; the sweep makes the new one.
    assert not Invoice.objects.exists()
    assert close(account) == Period(utc("2026-06-10T08:15"), utc("2026-07-10T08:15"))


@db
def test_what_is_closed_stays_and_a_period_that_is_over_is_too_late(account: Account) -> None:
    record_usage(account.pk, FOLLOWING.start, cpu_s=10**6)
    close(account)
    close(account)
    told = Period(BEGAN + A_MINUTE, RENEWED - A_MINUTE)
    with pytest.raises(services.ProviderPeriodTooLateError, match="Its invoices stay"):
        services.take_provider_period(account.pk, told, now=RENEWED + timedelta(days=3))
    assert ProviderPeriod.objects.count() == 1


@db
def test_a_period_that_began_in_closed_time_bounds_what_is_open() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="professional", now=BEGAN)
    record_usage(account.pk, OPENED, cpu_s=10**6)
    may = bill(account)
    services.take_provider_period(account.pk, THEIRS, now=JUNE.start + timedelta(days=2))
    account.refresh_from_db()
    assert account.open_period == Period(MAY.end, FOLLOWING.end)
    assert schedule_in(account, may.period).whole(may.period_end - WINDOW) == MAY
    assert services.difference_of(may.pk) is None


@db
def test_closed_periods_are_stated_as_they_were_when_the_provider_is_gone(
    account: Account,
) -> None:
    record_usage(account.pk, OPENED, cpu_s=10**7)
    record_usage(account.pk, FOLLOWING.start, cpu_s=10**7)
    services.cancel_subscription(account.pk, now=utc("2026-05-20T00:00"))
    for _ in range(3):
        close(account)
    assert account.open_period_start < close(account).start
    for invoice in Invoice.objects.all():
        assert services.difference_of(invoice.pk) is None


@db
def test_after_the_end_the_accounts_own_cycle_holds(account: Account) -> None:
    cancelled = services.cancel_subscription(account.pk, now=utc("2026-05-20T00:00"))
    assert cancelled.expires_at == RENEWED
    assert close(account) == FOLLOWING
    assert close(account) == Period(FOLLOWING.end, utc("2026-07-01T00:00"))
    assert close(account) == Period(utc("2026-07-01T00:00"), utc("2026-08-01T00:00"))


@db
def test_a_change_at_the_end_is_at_the_providers_second(account: Account) -> None:
    services.change_plan_at_end(account.pk, plan_code="team", now=utc("2026-05-20T00:00"))
    close(account)
    assert close(account) == Period(FOLLOWING.end, utc("2026-07-01T00:00"))
    invoice = bill(account, account.open_period)
    # Team is ours from the second on that the provider collects no more: 1,346,213 s of 30 days.
    [line] = invoice.lines.all()
    assert line.period_start == RENEWED
    assert line.quantity == 1_346_213
    assert invoice.subscription_fee == Decimal("155.29")


@db
def test_an_end_that_waits_moves_with_the_period_and_what_follows_too() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="professional", now=BEGAN)
    services.change_plan_at_end(account.pk, plan_code="team", now=BEGAN + A_MINUTE)
    ends = account.subscriptions.values_list("started_at", "expires_at").order_by("started_at")
    assert list(ends.all()) == [(BEGAN, MAY.end), (MAY.end, None)]
    services.take_provider_period(account.pk, THEIRS, now=BEGAN + 2 * A_MINUTE)
    assert list(ends.all()) == [(BEGAN, RENEWED), (RENEWED, None)]
    shorter = Period(BEGAN, RENEWED - timedelta(days=9))
    services.take_provider_period(account.pk, shorter, now=BEGAN + 3 * A_MINUTE)
    assert list(ends.all()) == [(BEGAN, shorter.end), (shorter.end, None)]


@db
def test_a_cancellation_at_once_ends_the_period_and_the_following(account: Account) -> None:
    close(account)
    services.cancel_subscription_now(account.pk, now=utc("2026-05-20T12:03:20"))
    account.refresh_from_db()
    cut = utc("2026-05-20T12:15")
    assert account.open_period == Period(FOLLOWING.start, cut)
    assert entries(account)[-1] == ("revoke", "-83.57")
    assert close(account) == Period(cut, MAY.end)
    # Back on the plan, and with another period of the provider's.
    again = Period(utc("2026-05-25T09:00:01"), utc("2026-06-25T09:00:01"))
    services.subscribe(account.pk, plan_code="professional", now=again.start)
    services.take_provider_period(account.pk, again, now=again.start)
    account.refresh_from_db()
    assert account.open_period == Period(cut, utc("2026-05-25T09:00"))
    assert close(account) == Period(utc("2026-05-25T09:00"), utc("2026-06-25T09:00"))


@db
def test_an_upgrade_to_a_fee_of_ours_keeps_the_providers_period_to_its_end(
    account: Account,
) -> None:
    close(account)
    services.subscribe(account.pk, plan_code="team", now=utc("2026-05-30T10:00:00"))
    invoice = bill(account, FOLLOWING)
    # 16 of the 31 days that are the whole period here.
    assert invoice.subscription_fee == Decimal("154.32")
    account.refresh_from_db()
    assert account.open_period == Period(FOLLOWING.end, utc("2026-07-01T00:00"))


@db
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kathmandu"])
def test_a_year_of_months_follows_the_provider_whatever_the_zone(zone: str) -> None:
    account = services.open_account(name="Ada", now=OPENED, time_zone=zone, anchor_day=31)
    anchor = utc("2026-05-31T22:59:59")
    services.subscribe(account.pk, plan_code="professional", now=anchor)
    bounds = [add_months(anchor, months, IN_UTC, day=31) for months in range(14)]
    for start, end in pairwise(bounds):
        services.take_provider_period(account.pk, Period(start, end), now=start + A_MINUTE)
        account.refresh_from_db()
        while account.open_period_start < window_start(start):
            close(account)
        assert account.open_period == Period(window_start(start), window_start(end))
        assert credits_left(account, account.open_period).amount in (0, 100)
    kinds = [kind for kind, amount in entries(account) if amount == "100.00"]
    assert kinds == ["grant"] * 13


@db
def test_a_new_time_zone_waits_for_the_end_of_the_providers_period() -> None:
    account = open_account()
    services.change_cycle(account.pk, now=BEGAN, time_zone="Asia/Kolkata", anchor_day=5)
    services.subscribe(account.pk, plan_code="professional", now=BEGAN)
    services.take_provider_period(account.pk, THEIRS, now=BEGAN)
    services.cancel_subscription(account.pk, now=BEGAN + A_MINUTE)
    account.refresh_from_db()
    assert account.cycle_changes_at == FOLLOWING.end
    close(account)
    assert account.time_zone == "UTC"
    assert close(account) == Period(FOLLOWING.end, utc("2026-07-04T18:30"))
    assert account.time_zone == "Asia/Kolkata"


@db
@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (Period(utc("2026-03-01T00:00"), utc("2026-04-01T00:00")), "too late"),
        (Period(BEGAN + timedelta(hours=1), RENEWED), "has not begun"),
        (Period(BEGAN, BEGAN + timedelta(minutes=2)), "shorter than a window"),
        (Period(utc("2026-04-15T10:00:00"), BEGAN), "no plan whose fee"),
    ],
)
def test_a_period_that_cannot_be_followed_is_refused(told: Period, reason: str) -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="professional", now=BEGAN)
    with pytest.raises(services.ProviderPeriodRefusedError, match=reason):
        services.take_provider_period(account.pk, told, now=BEGAN)
    assert not ProviderPeriod.objects.exists()


@db
def test_parts_of_a_second_are_refused(account: Account) -> None:
    told = Period(BEGAN + timedelta(microseconds=1), RENEWED)
    with pytest.raises(ValueError, match="whole number of seconds"):
        services.take_provider_period(account.pk, told, now=BEGAN)


@db
@pytest.mark.parametrize("statement", ["UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {}"])
def test_what_a_provider_told_is_a_fact(account: Account, statement: str) -> None:
    table = ProviderPeriod._meta.db_table
    with (
        pytest.raises(DatabaseError, match="permission denied"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement.format(table))
    assert ProviderPeriod.objects.filter(account=account).count() == 1
