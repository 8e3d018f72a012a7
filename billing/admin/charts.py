"""The home page's charts. Every one has its figures as a table too."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from billing import desk_queries
from billing.admin.listing import grouped_money
from billing.desk_queries import DaySum, Revenue
from metering.meters import UNITS, Meter

DAYS, MONTHS = 30, 12
# Told apart by most who see colours differently, on white and on black.
_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#b8a800",
    "#999999",
    "#8c6bb1",
    "#a6761d",
)
_TEXT = "#8b93a1"
"""Legible on white and on black."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars over days or months: what the drawing takes as JSON, and the same as a table."""

    title: str
    note: str
    bars: str
    options: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def text(self) -> str:
        """What is read to who does not see the drawing."""
        return f"{self.title}. The figures are in the table below it."


@dataclass(frozen=True, slots=True)
class Picked:
    """Which currency and meter are drawn. No currency: that of the most cost."""

    currency: str
    meter: Meter
    meters: Sequence[Meter] = tuple(Meter)


@dataclass(frozen=True, slots=True)
class _Bars:
    """One colour of a chart: its name and its values by place."""

    name: str
    values: Mapping[date, Decimal]
    colour: str


def pick(query: Mapping[str, str]) -> Picked:
    """Return what the address asks to be drawn; what it does not know, it does not ask for."""
    meter = query.get("meter", "")
    return Picked(
        query.get("currency", "").upper()[:3],
        Meter(meter) if meter in set(Meter) else Meter.CPU,
    )


def charts_of(
    picked: Picked, *, today: date, sees_money: bool, sees_usage: bool
) -> Iterator[Chart]:
    """Yield the charts of the last days and months, those that may be seen."""
    if not (sees_money or sees_usage):
        return
    days = _days(today)
    months = _months(today)
    by_day = desk_queries.by_day(days[0])
    by_month = desk_queries.by_month(months[0])
    currency = picked.currency or _most_frequent(by_month)
    if sees_money:
        since = datetime(months[0].year, months[0].month, 1, tzinfo=UTC)
        revenue = desk_queries.revenue_by_month(since)
        for of in _currencies(revenue, picked.currency):
            yield _revenue(months, revenue, of)
        yield _cost("Cost of usage by day", days, by_day, currency)
        yield _cost("Cost of usage by month", months, by_month, currency)
    if sees_usage:
        yield _usage("by day", days, by_day, picked.meter)
        yield _usage("by month", months, by_month, picked.meter)


def _revenue(months: Sequence[date], revenue: Sequence[Revenue], currency: str) -> Chart:
    net = {row.month: row.net for row in revenue if row.currency == currency}
    return _chart(
        f"Revenue by month, {currency}",
        "Invoices by the month they were finalised in (UTC), without tax.",
        months,
        [_Bars(currency, net, _COLOURS[0])],
        lambda amount: grouped_money(amount, currency),
        is_months=True,
    )


def _cost(title: str, places: Sequence[date], sums: Iterable[DaySum], currency: str) -> Chart:
    costs: defaultdict[str, dict[date, Decimal]] = defaultdict(dict)
    for row in sums:
        if row.currency == currency and row.cost:
            costs[row.meter][row.day] = row.cost
    return _chart(
        f"{title}, {currency}" if currency else title,
        "Before discounts, fees, credit and tax; the days of a period add up to its usage.",
        places,
        [
            _Bars(meter.replace("_", " "), costs[meter], _COLOURS[at])
            for at, meter in enumerate(Meter)
            if meter in costs
        ],
        lambda amount: grouped_money(amount, currency),
        is_months="month" in title,
    )


def _usage(how: str, places: Sequence[date], sums: Iterable[DaySum], meter: Meter) -> Chart:
    quantities: defaultdict[date, Decimal] = defaultdict(Decimal)
    unit = UNITS[meter]
    for row in sums:
        if row.meter == meter:
            quantities[row.day] += Decimal(row.quantity) / unit.size
    name = meter.replace("_", " ")
    return _chart(
        f"Usage {how}: {name}",
        f"In {unit.shown.replace('_', ' ')}, of all accounts, on their local days.",
        places,
        [_Bars(name, quantities, _COLOURS[list(Meter).index(meter)])] if quantities else [],
        lambda quantity: f"{quantity:,.1f}",
        is_months="month" in how,
    )


def _chart(  # one argument a part of the chart
    title: str,
    note: str,
    places: Sequence[date],
    bars: Sequence[_Bars],
    text: Callable[[Decimal], str],
    *,
    is_months: bool,
) -> Chart:
    labels = [f"{place:%Y-%m}" if is_months else f"{place:%m-%d}" for place in places]
    nothing = Decimal(0)
    rows = []
    for place in reversed(places):
        values = [of.values.get(place, nothing) for of in bars]
        total = [text(sum(values, start=nothing))] if len(bars) > 1 else []
        name = f"{place:%Y-%m}" if is_months else str(place)
        rows.append([name, *(text(value) for value in values), *total])
    return Chart(
        title,
        note,
        json.dumps(
            {
                "labels": labels,
                "datasets": [
                    {
                        "label": of.name,
                        "data": [f"{of.values.get(place, nothing):f}" for place in places],
                        "backgroundColor": of.colour,
                        "maxBarThickness": 26,
                    }
                    for of in bars
                ],
            }
        ),
        _options(has_legend=len(bars) > 1),
        ["month" if is_months else "day", *(of.name for of in bars), *["total"] * (len(bars) > 1)],
        rows if bars else [],
    )


def _options(*, has_legend: bool) -> str:
    ticks = {"color": _TEXT, "maxRotation": 0, "autoSkipPadding": 12}
    return json.dumps(
        {
            "maintainAspectRatio": False,
            "animation": False,
            "interaction": {"mode": "index", "intersect": False},
            "plugins": {
                "legend": {
                    "display": has_legend,
                    "position": "bottom",
                    "labels": {"color": _TEXT, "boxWidth": 10, "boxHeight": 10},
                }
            },
            "scales": {
                "x": {"stacked": True, "ticks": ticks, "grid": {"display": False}},
                "y": {
                    "stacked": True,
                    "beginAtZero": True,
                    "ticks": {"color": _TEXT, "maxTicksLimit": 6},
                    "grid": {},
                    "border": {"display": False},
                },
            },
        }
    )


def _days(today: date) -> list[date]:
    first = desk_queries.days_before(today, DAYS)
    return [first + timedelta(days=at) for at in range(DAYS)]


def _months(today: date) -> list[date]:
    number = today.year * 12 + today.month - 1
    return [date(at // 12, at % 12 + 1, 1) for at in range(number - MONTHS + 1, number + 1)]


def _most_frequent(sums: Sequence[DaySum]) -> str:
    """Return the currency of the most rows; amounts of two do not compare."""
    count: defaultdict[str, int] = defaultdict(int)
    for row in sums:
        count[row.currency] += 1
    return max(sorted(count), key=lambda currency: count[currency], default="")


def _currencies(revenue: Sequence[Revenue], picked: str) -> list[str]:
    """Return the picked currency, else that of the most invoices."""
    if picked:
        return [picked]
    count: defaultdict[str, int] = defaultdict(int)
    for row in revenue:
        count[row.currency] += row.invoices
    return [max(sorted(count), key=lambda currency: count[currency])] if count else []
