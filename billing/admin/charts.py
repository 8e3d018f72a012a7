"""The home page's charts. Every one has its figures as a table too."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    """Which currency and meter are drawn, and what there is to pick from."""

    currency: str
    meter: Meter
    currencies: Sequence[str] = ()
    meters: Sequence[Meter] = tuple(Meter)


@dataclass(frozen=True, slots=True)
class _Bars:
    """One colour of a chart: its name and its values by place."""

    name: str
    values: Mapping[date, Decimal]
    colour: str


def charts_of(
    query: Mapping[str, str], *, today: date, sees_money: bool, sees_usage: bool
) -> tuple[Picked, list[Chart]]:
    """Return the charts of the last days and months that may be seen, of what `query` picks.

    What it does not know, it does not pick: then the currency of the most invoices is drawn.
    """
    meter = query.get("meter", "")
    picked = Picked("", Meter(meter) if meter in set(Meter) else Meter.CPU)
    if not (sees_money or sees_usage):
        return picked, []
    days, months = _days(today), _months(today)
    by_day = desk_queries.by_day(days[0])
    by_month = desk_queries.by_month(months[0])
    charts: list[Chart] = []
    if sees_money:
        since = datetime(months[0].year, months[0].month, 1, tzinfo=UTC)
        revenue = desk_queries.revenue_by_month(since)
        picked = _with_currency(picked, query.get("currency", ""), revenue, by_month)
        of = picked.currency
        charts = [
            _revenue(months, revenue, of),
            _cost("Cost of usage by day", days, by_day, of),
            _cost("Cost of usage by month", months, by_month, of),
        ]
    if sees_usage:
        charts += [
            _usage("by day", days, by_day, picked.meter),
            _usage("by month", months, by_month, picked.meter),
        ]
    return picked, charts


def _with_currency(
    picked: Picked, wanted: str, revenue: Sequence[Revenue], sums: Sequence[DaySum]
) -> Picked:
    count: Counter[str] = Counter({row.currency: 0 for row in sums})
    for row in revenue:
        count[row.currency] += row.invoices
    currencies = sorted(count)
    # max() keeps the first of equals.
    most = max(currencies, key=lambda currency: count[currency], default="")
    return replace(
        picked, currency=wanted if wanted in count else most, currencies=tuple(currencies)
    )


def _revenue(months: Sequence[date], revenue: Sequence[Revenue], currency: str) -> Chart:
    net = {row.month: row.net for row in revenue if row.currency == currency}
    return _chart(
        f"Revenue by month, {currency}" if currency else "Revenue by month",
        "Invoices by the month they were finalised in (UTC), without tax.",
        months,
        [_Bars(currency, net, _COLOURS[0])] if net else [],
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
