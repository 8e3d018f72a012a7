from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.fees import (
    FeeKind,
    FeeLine,
    Interval,
    Subscribed,
    earned_credits,
    fee_lines,
    year_of,
)
from billing.money import Money
from billing.periods import Cycle, Schedule
from billing.proration import share
from metering.period import Period
from tests.billing.periods import (
    IN_UTC,
    MAY,
    annual,
    dollars,
    monthly,
    page_amounts,
    page_period,
    utc,
)
from tests.billing.test_rating import page_rows

ZONE_CHANGES = [
    # from, to, where the next period starts and ends
    ("UTC", "America/New_York", "2026-02-01T00:00", "2026-02-01T05:00"),
    ("America/New_York", "UTC", "2026-02-01T05:00", "2026-03-01T00:00"),
    ("UTC", "Asia/Kathmandu", "2026-02-01T00:00", "2026-02-28T18:15"),
    ("Pacific/Kiritimati", "Pacific/Pago_Pago", "2026-01-31T10:00", "2026-02-01T11:00"),
]

PAGE_PLANS = {
    name: tuple(terms) for name, *terms in page_rows("| plan | fee | billing | monthly credits |")
}


def fees_of(
    *subscriptions: Subscribed, period: Period = MAY, schedule: Schedule = IN_UTC
) -> list[str]:
    lines = fee_lines(subscriptions, period=period, schedule=schedule)
    return [line.amount.text for line in lines]


def months(start: datetime, count: int, schedule: Schedule = IN_UTC) -> list[Period]:
    """So many periods in order, from the one around `start` on."""
    periods = [schedule.whole(start)]
    while len(periods) < count:
        periods.append(schedule.starting(periods[-1].end))
    return periods


def read_subscriptions(cell: str) -> tuple[list[Subscribed], Schedule]:
    """Return the subscriptions, and how time is cut, that a cell of the page tells."""
    stated, schedule = [], IN_UTC
    for item in cell.split("; "):
        told, *more = item.split(", ")
        name, span = told.split(" from ")
        start, *end = span.split(" to ")
        if name.startswith("zone "):
            schedule = change_of_zone("UTC", name.removeprefix("zone "), start)
            continue
        fee, interval, credits_ = PAGE_PLANS[name]
        terms = monthly(fee, start, *end, credits_=credits_)
        for words in more:
            if words == "cancelled at once":
                terms = replace(terms, ends_period=True)
            else:
                terms = replace(terms, trial_end=utc(words.removeprefix("trial to ")))
        stated.append(replace(terms, interval=Interval(interval)))
    return stated, schedule


def change_of_zone(old: str, new: str, moment: str) -> Schedule:
    return Schedule(Cycle(ZoneInfo(old)), Cycle(ZoneInfo(new)), utc(moment))


@pytest.mark.parametrize(
    ("happens", "subscriptions", "period", "fees", "credits_"),
    page_rows("| what happens | subscriptions | period | fees | monthly credits |"),
)
def test_the_pages_fees_are_what_it_says(
    happens: str, subscriptions: str, period: str, fees: str, credits_: str
) -> None:
    stated, schedule = read_subscriptions(subscriptions)
    of = page_period(period)
    lines = fee_lines(stated, period=of, schedule=schedule)
    assert [line.amount for line in lines] == page_amounts(fees), happens
    earned = [earned_credits(one, period=of, schedule=schedule) for one in stated]
    assert [amount for amount in earned if amount] == page_amounts(credits_), happens


@pytest.mark.parametrize(
    ("anchor_day", "zones", "moment", "period"),
    page_rows("| anchor day | zone | moment | period |"),
)
def test_the_pages_periods_are_what_it_says(
    anchor_day: str, zones: str, moment: str, period: str
) -> None:
    old, *new = zones.split(", then ")
    schedule = Schedule(Cycle(ZoneInfo(old), int(anchor_day)))
    if new:
        schedule = Schedule(schedule.cycle, Cycle(ZoneInfo(new[0]), int(anchor_day)), utc(moment))
    assert schedule.starting(utc(moment)) == page_period(period)


def test_a_fee_line_says_how_its_amount_comes_about() -> None:
    [line] = fee_lines([monthly("99", "2026-05-17")], period=MAY, schedule=IN_UTC)
    assert line == FeeLine(
        kind=FeeKind.FEE,
        plan="Plan",
        interval=Interval.MONTHLY,
        period=Period(utc("2026-05-17"), MAY.end),
        seconds=15 * 86_400,
        whole_seconds=31 * 86_400,
        rate=dollars("99"),
        amount=dollars("47.90"),
    )
    assert line.at_rate(dollars("62")).amount == dollars("30")


@pytest.mark.parametrize(
    ("start", "end", "fees"),
    [
        ("2026-05-01", None, ["267.84"]),
        ("2026-04-30T23:59:59", None, ["267.84"]),
        # One of 2,678,400 seconds costs a hundredth of a cent; half a cent is the first to show.
        ("2026-05-31T23:59:59", None, []),
        ("2026-05-31T23:59:11", None, []),
        ("2026-05-31T23:59:10", None, ["0.01"]),
        ("2026-05-01", "2026-05-01T00:01:40", ["0.01"]),
        ("2026-06-01", None, []),
        ("2026-04-01", "2026-05-01", []),
        ("2026-04-01", "2026-05-01T00:01:40", ["0.01"]),
        ("2026-04-01", "2026-06-01", ["267.84"]),
        ("2026-04-01", "2026-06-01T00:00:01", ["267.84"]),
    ],
)
def test_a_fee_goes_by_the_seconds_of_the_period(
    start: str, end: str | None, fees: list[str]
) -> None:
    assert fees_of(monthly("267.84", start, end)) == fees


def test_a_plan_without_a_fee_has_no_line() -> None:
    assert fees_of(monthly("0", "2026-05-01"), annual("0", "2026-05-01")) == []
    assert fees_of() == []


@pytest.mark.parametrize(
    ("currency", "amount"), [("JPY", "484"), ("KWD", "483.871"), ("CLF", "483.8710")]
)
def test_a_fee_is_rounded_to_its_currencys_smallest_unit(currency: str, amount: str) -> None:
    fee = Money(Decimal(1000), currency)
    assert fees_of(Subscribed("Plan", utc("2026-05-17"), None, fee, fee)) == [amount]


@pytest.mark.parametrize(
    ("trial_end", "fees"),
    [
        ("2026-04-30", ["267.84"]),
        ("2026-05-01", ["267.84"]),
        ("2026-05-16T12:00", ["133.92"]),
        ("2026-05-31T23:58:20", ["0.01"]),
        ("2026-06-01", []),
        ("2026-06-01T00:00:01", []),
    ],
)
def test_no_fee_is_due_before_the_end_of_the_trial(trial_end: str, fees: list[str]) -> None:
    tried = monthly("267.84", "2026-04-20", trial_end=utc(trial_end))
    assert fees_of(tried) == fees
    # Its credits come from the first day on.
    assert earned_credits(tried, period=MAY, schedule=IN_UTC) == dollars("100")


def test_a_subscription_that_ends_in_its_trial_costs_nothing() -> None:
    for of in (monthly, annual):
        tried = of("99", "2026-05-01", "2026-05-15", trial_end=utc("2026-05-15"))
        assert fees_of(tried) == []


def test_a_year_that_is_tried_first_starts_where_the_trial_ends() -> None:
    tried = annual("365", "2026-04-20", trial_end=utc("2026-05-04"))
    assert year_of(tried, utc("2026-05-03T23:59:59"), IN_UTC) is None
    year = Period(utc("2026-05-04"), utc("2027-05-04"))
    assert year_of(tried, utc("2026-05-04"), IN_UTC) == year
    assert fees_of(tried) == ["365.00"]


def test_cancelling_now_ends_the_period_and_shares_by_the_whole_month() -> None:
    end = utc("2026-05-11T12:15")
    cancelled = monthly("2678.40", "2026-05-01", "2026-05-11T12:15", ends_period=True)
    cut = Schedule(IN_UTC.cycle, cuts=(end,))
    assert cut.starting(MAY.start) == Period(MAY.start, end)
    assert fees_of(cancelled, period=Period(MAY.start, end), schedule=cut) == ["908.10"]
    # The rest of the month is a period of its own, without a fee.
    assert cut.starting(end) == Period(end, MAY.end)
    assert fees_of(cancelled, period=Period(end, MAY.end), schedule=cut) == []
    again = monthly("2678.40", "2026-05-11T12:15")
    assert fees_of(again, period=Period(end, MAY.end), schedule=cut) == ["1770.30"]


@pytest.mark.parametrize(("old", "new", "start", "end"), ZONE_CHANGES)
def test_the_short_period_after_a_change_of_zone_costs_its_seconds(
    old: str, new: str, start: str, end: str
) -> None:
    schedule = change_of_zone(old, new, start)
    period = schedule.starting(utc(start))
    assert period == Period(utc(start), utc(end))
    whole = Cycle(ZoneInfo(new)).containing(utc(start))
    [line] = fee_lines([monthly("99", "2025-01-01")], period=period, schedule=schedule)
    assert line.whole_seconds == whole.duration.total_seconds()
    assert line.amount == dollars("99").times(Fraction(line.seconds, line.whole_seconds))


def test_five_hours_after_a_move_to_new_york_cost_five_hours_of_its_january() -> None:
    schedule = change_of_zone("UTC", "America/New_York", "2026-02-01")
    period = schedule.starting(utc("2026-02-01"))
    assert fees_of(monthly("744", "2025-01-01"), period=period, schedule=schedule) == ["5.00"]


seconds_of_may = st.integers(1, 31 * 86_400 - 1)


@given(seconds_of_may, st.integers(0, 10**9))
def test_the_unrounded_fees_of_both_sides_of_a_change_add_up(second: int, cents: int) -> None:
    cut, fee = MAY.start + timedelta(seconds=second), Decimal(cents).scaleb(-2)
    parts = [Period(MAY.start, cut), Period(cut, MAY.end)]
    exact = [Fraction(fee) * share(part, IN_UTC.whole(part.start)) for part in parts]
    assert sum(exact) == fee
    before = Subscribed("Plan", MAY.start, cut, dollars(fee), dollars(fee))
    after = Subscribed("Plan", cut, None, dollars(fee), dollars(fee))
    lines = fee_lines([before, after], period=MAY, schedule=IN_UTC)
    # Each line is rounded once.
    total = sum(line.amount.amount for line in lines)
    assert abs(total - fee) <= Decimal("0.01")


@given(
    st.integers(0, 31 * 86_400),
    st.integers(1, 40 * 86_400),
    st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]),
    st.integers(1, 31),
)
def test_a_cut_anywhere_changes_no_exact_fee(offset: int, length: int, zone: str, day: int) -> None:
    cycle = Cycle(ZoneInfo(zone), day)
    whole = cycle.containing(MAY.start + timedelta(seconds=offset))
    cut = whole.start + timedelta(seconds=length)
    schedule = Schedule(cycle, cuts=(cut,))
    period, shares = schedule.starting(whole.start), Fraction(0)
    while period.start < whole.end:
        shares += share(period, schedule.whole(period.start))
        period = schedule.starting(period.end)
    assert shares == 1


@pytest.mark.parametrize(
    ("start", "moment", "year"),
    [
        ("2026-05-17", "2026-05-17", ("2026-05-17", "2027-05-17")),
        ("2026-05-17", "2027-05-16T23:59:59", ("2026-05-17", "2027-05-17")),
        ("2026-05-17", "2027-05-17", ("2027-05-17", "2028-05-17")),
        ("2024-02-29", "2024-03-01", ("2024-02-29", "2025-02-28")),
        ("2024-02-29", "2025-02-28", ("2025-02-28", "2026-02-28")),
        ("2024-02-29", "2028-02-28T23:59:59", ("2027-02-28", "2028-02-29")),
        ("2024-02-29", "2028-02-29", ("2028-02-29", "2029-02-28")),
        ("2026-05-17T10:20:30", "2026-06-01", ("2026-05-17T10:20:30", "2027-05-17T10:20:30")),
    ],
)
def test_a_year_runs_to_the_same_day_of_the_next(
    start: str, moment: str, year: tuple[str, str]
) -> None:
    found = year_of(annual("1188", start), utc(moment), IN_UTC)
    assert found == Period(utc(year[0]), utc(year[1]))


def test_a_year_keeps_its_local_time() -> None:
    berlin = Schedule(Cycle(ZoneInfo("Europe/Berlin")))
    # Clocks go forward on 29 March in 2026, after this midnight, and on 28 March in 2027.
    year = year_of(annual("1188", "2026-03-28T23:00"), utc("2026-05-01"), berlin)
    assert year == Period(utc("2026-03-28T23:00"), utc("2027-03-28T22:00"))


def test_a_year_is_counted_in_the_zone_that_it_began_in() -> None:
    # The evening of 28 February in New York is the 29th in UTC.
    terms = annual("1188", "2028-02-29T02:00")
    for changed, end in (("2028-01-15", "2029-03-01T02:00"), ("2028-03-15", "2029-02-28T02:00")):
        schedule = change_of_zone("UTC", "America/New_York", changed)
        assert year_of(terms, terms.start, schedule) == Period(terms.start, utc(end))


def test_before_its_start_there_is_no_year() -> None:
    assert year_of(annual("1188", "2026-05-17"), utc("2026-05-16T23:59:59"), IN_UTC) is None


@pytest.mark.parametrize(
    ("start", "end", "first", "fees"),
    [
        # Each year's fee stands where the year starts.
        ("2026-05-17", None, "2026-05-01", {"2026-05-01": ["365.00"], "2027-05-01": ["365.00"]}),
        ("2026-05-01", None, "2026-04-01", {"2026-05-01": ["365.00"], "2027-05-01": ["365.00"]}),
        # It ends with its year: nothing is given back.
        ("2026-05-17", "2027-05-17", "2026-05-01", {"2026-05-01": ["365.00"]}),
        # The year over 29 February 2028 has 366 days.
        (
            "2027-05-01",
            "2027-05-02",
            "2027-05-01",
            {"2027-05-01": ["365.00", "-364.00"]},
        ),
        (
            "2027-05-01",
            "2028-04-30",
            "2027-05-01",
            {"2027-05-01": ["365.00"], "2028-04-01": ["-1.00"]},
        ),
        # Started and ended in one period.
        ("2026-05-10", "2026-05-15", "2026-05-01", {"2026-05-01": ["365.00", "-360.00"]}),
        # Ended exactly on a period's edge: in the last period that it was in.
        ("2026-05-01", "2026-06-01", "2026-05-01", {"2026-05-01": ["365.00", "-334.00"]}),
        (
            "2026-05-01",
            "2026-06-01T00:00:01",
            "2026-05-01",
            {"2026-05-01": ["365.00"], "2026-06-01": ["-334.00"]},
        ),
        # In its second year.
        (
            "2026-05-01",
            "2027-08-15",
            "2026-05-01",
            {"2026-05-01": ["365.00"], "2027-05-01": ["365.00"], "2027-08-01": ["-259.29"]},
        ),
    ],
)
def test_a_years_fee_is_due_where_it_starts_and_unused_where_it_ends(
    start: str, end: str | None, first: str, fees: dict[str, list[str]]
) -> None:
    subscription = annual("365", start, end)
    found = {
        f"{period.start:%Y-%m-%d}": of
        for period in months(utc(first), 24)
        if (of := fees_of(subscription, period=period))
    }
    assert found == fees


@given(
    st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"]),
    st.integers(1, 31),
    st.integers(0, 400 * 86_400),
    st.integers(1, 800 * 86_400),
)
def test_each_year_is_charged_once_and_its_unused_part_given_back_once(
    zone: str, anchor_day: int, offset: int, length: int
) -> None:
    start = MAY.start + timedelta(seconds=offset)
    end = start + timedelta(seconds=length)
    fee = dollars("1188")
    subscription = Subscribed("Plan", start, end, fee, fee, Interval.ANNUAL)
    schedule = Schedule(Cycle(ZoneInfo(zone), anchor_day))
    lines = [
        line
        for period in months(start, 30, schedule)
        for line in fee_lines([subscription], period=period, schedule=schedule)
    ]
    years = [line.period for line in lines if line.kind is FeeKind.FEE]
    assert years[0].start == start
    assert all(one.end == other.start for one, other in pairwise(years))
    unused = [line.period for line in lines if line.kind is FeeKind.UNUSED_FEE]
    assert unused == ([Period(end, years[-1].end)] if end < years[-1].end else [])


def test_an_upgrade_inside_the_year_gives_back_the_unused_seconds() -> None:
    change = "2026-06-11T00:00:01"
    lines = fee_lines(
        [annual("365", "2026-05-01", change), annual("730", change)],
        period=Period(utc("2026-06-01"), utc("2026-07-01")),
        schedule=IN_UTC,
    )
    assert [(line.kind, line.seconds, line.amount.text) for line in lines] == [
        (FeeKind.UNUSED_FEE, 324 * 86_400 - 1, "-324.00"),
        (FeeKind.FEE, 365 * 86_400, "730.00"),
    ]


def test_cancelling_a_year_now_gives_the_rest_back_on_the_final_invoice() -> None:
    end = utc("2026-06-11T12:15")
    cancelled = annual("365", "2026-05-01", "2026-06-11T12:15", ends_period=True)
    cut = Schedule(IN_UTC.cycle, cuts=(end,))
    final = cut.starting(utc("2026-06-01"))
    assert fees_of(cancelled, period=final, schedule=cut) == ["-323.49"]
    assert fees_of(cancelled, period=cut.starting(end), schedule=cut) == []


@pytest.mark.parametrize(
    ("start", "end", "credits_"),
    [
        ("2026-04-01", None, "100"),
        ("2026-05-17", None, "48.39"),
        ("2026-05-01", "2026-05-17", "51.61"),
        ("2026-05-31T23:59:59", None, "0"),
        ("2026-06-01", None, "0"),
        ("2026-04-01", "2026-05-01", "0"),
    ],
)
def test_credits_come_by_the_second(start: str, end: str | None, credits_: str) -> None:
    for terms in (monthly("99", start, end), annual("1188", start, end)):
        assert earned_credits(terms, period=MAY, schedule=IN_UTC) == dollars(credits_)


@pytest.mark.parametrize(
    ("start", "end", "credits_"),
    [
        # Half of May's 31 days, from the window that it begins in, and up to that it ends in.
        ("2026-05-16T12:07", None, "50"),
        ("2026-04-01", "2026-05-16T12:07", "50"),
        ("2026-04-01", None, "100"),
        ("2026-05-03T10:01", "2026-05-03T10:14", "0"),
        ("2026-04-01", "2026-05-01T00:14", "0"),
        ("2026-06-01", None, "0"),
    ],
)
def test_credits_of_a_fee_that_is_collected_come_by_the_window(
    start: str, end: str | None, credits_: str
) -> None:
    terms = replace(monthly("99", start, end), provider_collects=True)
    assert earned_credits(terms, period=MAY, schedule=IN_UTC) == dollars(credits_)


def test_who_pays_the_provider_owes_no_fee_and_others_on_the_period_do() -> None:
    collected = replace(monthly("99", "2026-04-01"), provider_collects=True)
    ours = monthly("31", "2026-04-01")
    for subscriptions in ((collected, ours), (ours, collected)):
        [line] = fee_lines(subscriptions, period=MAY, schedule=IN_UTC)
        assert line.amount == dollars("31")
