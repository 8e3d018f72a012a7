"""Figures for a monitor that take too long for a scrape: taken in the background, and kept.

They are for people and alerts. Nothing is billed by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product

from billing.adjustments import Unbilled
from billing.expiring import expiring_sums
from billing.queries import unbilled_late_counts, unpriced_counts
from billing.rating import BY_DESIGN, Unpriced
from metering.meters import Meter
from metering.running import running_by_told_account, summarised_at, unsampled
from payments.queries import ledger_by_currency
from soulbox.models import KeptFigures

EXPIRY_DAYS = (7, 30)

Rows = Iterator[tuple[str, Sequence[str], float]]
"""A series' name, the values of its labels, and its value."""


@dataclass(frozen=True, slots=True)
class Series:
    """What a kept series is called, says and is labelled by."""

    name: str
    text: str
    labels: Sequence[str] = ()


SERIES = (
    Series(
        "soulbox_unpriced_usage_accounts",
        "Accounts with usage in an open period that has no price, by meter and reason.",
        ["meter", "reason"],
    ),
    Series(
        "soulbox_unbilled_late_usage_accounts",
        "Accounts with late usage that no invoice can ask for, by meter and reason.",
        ["meter", "reason"],
    ),
    Series(
        "soulbox_payments_balance",
        "What came through the payment provider and is still here, before its fees.",
        ["currency"],
    ),
    Series("soulbox_active_sandboxes", "Sandboxes that run, by account.", ["account_id"]),
    Series("soulbox_unsampled_sandboxes", "Sandboxes that run with no reading for six minutes."),
    Series(
        "soulbox_summaries_age_seconds",
        "Time since the days of what runs were summarised; 0 where nothing does.",
    ),
    Series(
        "soulbox_credits_expiring",
        "Credit that is left and lapses within so many days.",
        ["currency", "days"],
    ),
    Series(
        "soulbox_credits_expiring_accounts",
        "Accounts with credit that lapses within so many days.",
        ["currency", "days"],
    ),
)


def _unpriced(_now: datetime) -> Rows:
    """Yield zeros too: a series that goes away is no sign that all is well again."""
    counts = {(meter, reason): count for meter, reason, count in unpriced_counts()}
    for meter, reason in product(Meter, Unpriced):
        labels = [meter.value, reason.value]
        yield "soulbox_unpriced_usage_accounts", labels, counts.get((meter, reason), 0)


def _unbilled(_now: datetime) -> Rows:
    counts = {(meter, reason): count for meter, reason, count in unbilled_late_counts()}
    mistakes = [reason for reason in Unpriced if reason not in BY_DESIGN]
    for meter, reason in product(Meter, [*Unbilled, *mistakes]):
        labels = [meter.value, reason.value]
        yield "soulbox_unbilled_late_usage_accounts", labels, counts.get((meter, reason), 0)


def _balance(_now: datetime) -> Rows:
    for currency, balance in ledger_by_currency().items():
        yield "soulbox_payments_balance", [currency], float(balance)


def _sandboxes(_now: datetime) -> Rows:
    for name, count in running_by_told_account().items():
        yield "soulbox_active_sandboxes", [name], count


def _unsampled(now: datetime) -> Rows:
    yield "soulbox_unsampled_sandboxes", [], unsampled(now=now)


def _summaries(now: datetime) -> Rows:
    at = summarised_at(now=now)
    yield "soulbox_summaries_age_seconds", [], (now - at).total_seconds() if at else 0


def _credits(now: datetime) -> Rows:
    for expiring in expiring_sums(EXPIRY_DAYS, now=now):
        labels = [expiring.currency, str(expiring.days)]
        yield "soulbox_credits_expiring", labels, float(expiring.left)
        yield "soulbox_credits_expiring_accounts", labels, expiring.accounts


_TAKEN: Mapping[str, Callable[[datetime], Rows]] = {
    "unpriced usage": _unpriced,
    "late usage": _unbilled,
    "payments' balance": _balance,
    "active sandboxes": _sandboxes,
    "unsampled sandboxes": _unsampled,
    "day summaries": _summaries,
    "expiring credit": _credits,
}


def take_figures(*, now: datetime) -> None:
    """Take all figures anew. Safe to repeat and to run at once: each is replaced as a whole."""
    for name, take in _TAKEN.items():
        rows = [[series, list(labels), value] for series, labels, value in take(now)]
        KeptFigures.objects.update_or_create(name=name, defaults={"taken_at": now, "rows": rows})


@dataclass(frozen=True, slots=True)
class Kept:
    """The kept figures: how old each kind is, and what the series' samples are."""

    ages: Mapping[str, timedelta | None]
    samples: Mapping[str, Sequence[tuple[Sequence[str], float]]]


def kept_figures(*, now: datetime) -> Kept:
    """Return the figures as they were last taken, in one query; of none yet the age is None."""
    ages: dict[str, timedelta | None] = dict.fromkeys(_TAKEN)
    samples: dict[str, list[tuple[Sequence[str], float]]] = {one.name: [] for one in SERIES}
    for kept in KeptFigures.objects.filter(name__in=_TAKEN):
        ages[kept.name] = now - kept.taken_at
        for series, labels, value in kept.rows:
            # The version before may have kept series that are no more.
            if series in samples:
                samples[series].append((labels, value))
    return Kept(ages, samples)
