from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.charges import PerUnit, Price
from billing.forecast import forecast_usage
from billing.rating import PricedUsage, Prices, rate_usage
from metering.meters import Meter
from metering.period import Period
from tests.billing.periods import DEFAULT, LARGE_ACCOUNT, MAY, utc
from tests.billing.test_rating import page_rows

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


def spans(
    *cuts: datetime,
    usage: Mapping[Meter, int] | None = None,
    prices: Prices = DEFAULT,
    events: int = 0,
) -> list[PricedUsage]:
    """May, cut at these moments; all that was used was used in the first span."""
    edges = [MAY.start, *cuts, MAY.end]
    periods = [Period(start, end) for start, end in pairwise(edges)]
    return [
        PricedUsage(period, (usage or {}) if not at else {}, prices, events if not at else 0)
        for at, period in enumerate(periods)
    ]


def cpu_of(stated: tuple[PricedUsage, ...]) -> list[int]:
    return [span.usage.get(Meter.CPU, 0) for span in stated]


@pytest.mark.parametrize(
    ("used", "now", "forecast"), page_rows("| used so far | at | at the end of May |")
)
def test_the_pages_forecasts_are_what_it_says(used: str, now: str, forecast: str) -> None:
    so_far = spans(usage={Meter.CPU: int(used.replace(",", ""))})
    assert cpu_of(forecast_usage(so_far, now=utc(now))) == [int(forecast.replace(",", ""))]


@pytest.mark.parametrize(
    ("now", "ahead"),
    [
        (MAY.start - DAY, 1000),
        (MAY.start, 1000),
        (MAY.start + timedelta(microseconds=999_999), 1000),
        (MAY.start + SECOND, 1000 * 31 * 86_400),
        (MAY.start + SECOND + timedelta(microseconds=999_999), 1000 * 31 * 86_400),
        (MAY.start + 10 * DAY, 3100),
        (MAY.end - SECOND, 1000),  # 0.0003… more, rounded down
        (MAY.end, 1000),
        (MAY.end + DAY, 1000),
    ],
)
def test_usage_goes_on_at_its_own_rate_by_whole_seconds(now: datetime, ahead: int) -> None:
    assert cpu_of(forecast_usage(spans(usage={Meter.CPU: 1000}), now=now)) == [ahead]


def test_an_account_opened_inside_the_period_goes_on_at_its_rate_since_then() -> None:
    so_far = spans(usage={Meter.CPU: 1000})
    ahead = forecast_usage(so_far, now=MAY.start + 11 * DAY, since=MAY.start + DAY)
    assert cpu_of(ahead) == [3000]


def test_what_was_not_used_is_not_forecast() -> None:
    assert cpu_of(forecast_usage(spans(), now=MAY.start + DAY)) == [0]
    assert forecast_usage(spans(usage={Meter.CPU: 0}), now=MAY.start + DAY)[0].usage == {
        Meter.CPU: 0
    }


def test_a_period_that_is_over_stays_as_it_was() -> None:
    over = spans(MAY.start + DAY, usage={Meter.CPU: 1000})
    assert forecast_usage(over, now=MAY.end) == tuple(over)


def test_what_is_added_is_rounded_down() -> None:
    # 1.6 a second so far, and one second is left.
    used = 16 * (31 * 86_400 - 1) // 10
    ahead = forecast_usage(spans(usage={Meter.CPU: used}), now=MAY.end - SECOND)
    assert cpu_of(ahead) == [used + 1]


def test_starts_of_sandboxes_go_on_too() -> None:
    [whole] = forecast_usage(spans(events=7), now=MAY.start + 10 * DAY)
    assert whole.events == 21  # 21.7


def test_what_is_left_is_spread_over_the_spans_that_are_left() -> None:
    cuts = (MAY.start + 5 * DAY, MAY.start + 20 * DAY, MAY.start + 25 * DAY)
    so_far = spans(*cuts, usage={Meter.CPU: 1000, Meter.GPU: 7})
    ahead = forecast_usage(so_far, now=MAY.start + 10 * DAY)
    # Ten days more in the second span, five and six in the others.
    assert cpu_of(ahead) == [1000, 1000, 500, 600]
    assert [span.usage[Meter.GPU] for span in ahead] == [7, 7, 3, 4]
    assert [span.period for span in ahead] == [span.period for span in so_far]


def test_a_span_that_ends_now_grows_no_more() -> None:
    ahead = forecast_usage(
        spans(MAY.start + 10 * DAY, usage={Meter.CPU: 1000}), now=MAY.start + 10 * DAY
    )
    assert cpu_of(ahead) == [1000, 2100]


def test_each_span_ahead_is_at_its_own_prices() -> None:
    dear = Prices({(Meter.CPU, "USD"): Price(PerUnit(Decimal(1)))})
    cheap = Prices({(Meter.CPU, "USD"): Price(PerUnit(Decimal("0.1")))})
    before, after = spans(MAY.start + 20 * DAY, usage={Meter.CPU: 10 * 10**9})
    so_far = [
        PricedUsage(before.period, before.usage, dear),
        PricedUsage(after.period, after.usage, cheap),
    ]
    ahead = forecast_usage(so_far, now=MAY.start + 10 * DAY)
    # Twenty seconds at 1 until the change, eleven at 0.1 after it.
    assert rate_usage(ahead, currency="USD").raw_cost == Fraction("21.1")


def test_half_of_the_large_account_forecasts_the_whole() -> None:
    half = {meter: quantity // 2 for meter, quantity in LARGE_ACCOUNT.items()}
    ahead = forecast_usage(spans(usage=half), now=utc("2026-05-16 12:00"))
    assert rate_usage(ahead, currency="USD").raw_cost == 741


seconds = st.integers(0, 31 * 86_400)
used = st.dictionaries(st.sampled_from(Meter), st.integers(0, 10**20))


@given(used, st.lists(seconds, max_size=4, unique=True), seconds)
def test_cuts_change_no_sum_and_nothing_falls_below_what_was_used(
    usage: dict[Meter, int], cuts: list[int], second: int
) -> None:
    now = MAY.start + second * SECOND
    edges = [MAY.start + cut * SECOND for cut in sorted(cuts) if 0 < cut < 31 * 86_400]
    cut = forecast_usage(spans(*edges, usage=usage, events=3), now=now)
    [whole] = forecast_usage(spans(usage=usage, events=3), now=now)
    for meter, quantity in usage.items():
        assert sum(span.usage.get(meter, 0) for span in cut) == whole.usage[meter] >= quantity
    assert sum(span.events for span in cut) == whole.events >= 3
    for span in cut:
        if span.period.end <= now:
            before = usage if span.period.start == MAY.start else {}
            assert span.usage == {meter: before.get(meter, 0) for meter in span.usage}


@given(st.integers(0, 10**12), st.integers(1, 31 * 86_400))
def test_exactly_even_usage_is_forecast_exactly(a_second: int, second: int) -> None:
    so_far = spans(usage={Meter.CPU: a_second * second})
    ahead = forecast_usage(so_far, now=MAY.start + second * SECOND)
    assert cpu_of(ahead) == [a_second * 31 * 86_400]
