"""Reads price books out of the tables, as rating takes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID

from django.db.models import Q, prefetch_related_objects

import metering.queries
from billing.charges import (
    Charge,
    ChargeModel,
    Graduated,
    Package,
    Percentage,
    PerUnit,
    Price,
    Tier,
    Volume,
)
from billing.models import Account, PriceBookVersion
from billing.models import Price as PriceRow
from billing.periods import cover, join_equal, windows_in
from billing.rating import PricedUsage, Prices
from metering.meters import Meter
from metering.period import Period
from metering.totals import usage_of_spans

_TIERED = (ChargeModel.GRADUATED, ChargeModel.VOLUME)

Books: TypeAlias = Mapping[int, Sequence["Version"]]
"""The versions of each price book, in order."""


@dataclass(frozen=True, slots=True)
class Version:
    """The prices of a book in `[start, end)`; `end` is None until another version follows.

    `fault` says what is wrong with a price that rating cannot take.
    """

    start: datetime
    end: datetime | None
    prices: Prices
    fault: ValueError | None = None

    def windows_in(self, period: Period) -> Period | None:
        """Return the windows of `period` that are priced by this version, or None."""
        start, end = max(self.start, period.start), min(self.end or period.end, period.end)
        return windows_in(Period(start, end)) if start < end else None


@dataclass(frozen=True, slots=True)
class PricedSpan:
    """A span of an account's time in which one version of the prices is in force, or none."""

    account_id: UUID
    period: Period
    prices: Prices | None


def priced_usage(
    account: Account, books: Sequence[tuple[Period, int]], period: Period
) -> tuple[PricedUsage, ...]:
    """Return the account's usage in `period`, cut where other prices begin to hold.

    `books` says which price book holds when, in windows, over the whole period. Raises
    ValueError when a price is no good.
    """
    versions = read_books({book for _, book in books}, period)
    return tuple(use_spans(priced_spans(account.pk, books, versions, period)))


def read_books(books: Collection[int], span: Period) -> Books:
    """Return the books' versions that are in force in some part of `span`."""
    rows = (
        PriceBookVersion.objects.filter(book__in=books, effective_from__lt=span.end)
        .filter(Q(effective_to__isnull=True) | Q(effective_to__gt=span.start))
        .prefetch_related("prices")
        .order_by("effective_from")
    )
    prices = [price for row in rows for price in row.prices.all()]
    prefetch_related_objects([price for price in prices if price.charge in _TIERED], "tiers")
    found: dict[int, list[Version]] = {}
    for row in rows:
        found.setdefault(row.book_id, []).append(_version(row))
    return found


def priced_spans(
    account_id: UUID, books: Sequence[tuple[Period, int]], versions: Books, period: Period
) -> list[PricedSpan]:
    """Return the spans of `period` by the prices in force; neighbours of equal prices are one.

    Raises ValueError when a price is no good.
    """
    by_book = {book: _in_force(versions.get(book, ()), period) for _, book in books}
    spans = join_equal(
        priced for span, book in books for priced in cover(span, by_book[book], between=None)
    )
    return [PricedSpan(account_id, span, prices) for span, prices in spans]


def use_spans(
    spans: Sequence[PricedSpan],
    used: Callable[[Sequence[tuple[UUID, Period]]], Sequence[Mapping[Meter, int]]] = usage_of_spans,
) -> list[PricedUsage]:
    """Return what was used in each span, as `used` says of all of them at once."""
    usage = used([(span.account_id, span.period) for span in spans])
    return [
        PricedUsage(span.period, quantities, span.prices, _events(span))
        for span, quantities in zip(spans, usage, strict=True)
    ]


def price_of(row: PriceRow) -> Price:
    """Return a price as rating takes it. Raises ValueError when its tiers are no good."""
    return Price(charge=_charge_of(row), free_units=row.free_units, minimum=row.minimum)


def _version(row: PriceBookVersion) -> Version:
    try:
        prices = {(Meter(p.meter), p.currency): price_of(p) for p in row.prices.all()}
    except ValueError as fault:
        # Accounts on other books have nothing to do with it.
        return Version(row.effective_from, row.effective_to, Prices({}), fault)
    return Version(row.effective_from, row.effective_to, Prices(prices))


def _in_force(versions: Sequence[Version], period: Period) -> list[tuple[Period, Prices | None]]:
    spans: list[tuple[Period, Prices | None]] = []
    for version in versions:
        if windows := version.windows_in(period):
            if version.fault:
                raise version.fault
            # A version that nobody gave a price is a mistake, not a gift.
            spans.append((windows, version.prices if version.prices.prices else None))
    return spans


def _charge_of(row: PriceRow) -> Charge:
    match ChargeModel(row.charge):
        case ChargeModel.PER_UNIT:
            return PerUnit(row.unit_price or Decimal(0))
        case ChargeModel.PACKAGE:
            return Package(row.unit_price or Decimal(0), size=row.package_size or Decimal(1))
        case ChargeModel.PERCENTAGE:
            return Percentage(
                row.percent or Decimal(0),
                fee_per_event=row.fee_per_event or Decimal(0),
                maximum=row.maximum,
            )
        case ChargeModel.GRADUATED:
            return Graduated(_tiers_of(row))
        case ChargeModel.VOLUME:
            return Volume(_tiers_of(row))


def _tiers_of(row: PriceRow) -> tuple[Tier, ...]:
    return tuple(Tier(tier.up_to, tier.unit_price, tier.flat_fee) for tier in row.tiers.all())


def _events(span: PricedSpan) -> int:
    """Return how many sandboxes were started in `span`, where a price is about that."""
    if span.prices is None or not any(
        isinstance(price.charge, Percentage) and price.charge.fee_per_event
        for price in span.prices.prices.values()
    ):
        return 0
    return metering.queries.starts(span.account_id, span.period)
