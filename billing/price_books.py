"""Reads price books out of the tables, as rating takes them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal

from django.db.models import Q

import metering.queries
from billing.charges import (
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


def priced_usage(
    account: Account, books: Sequence[tuple[Period, int]], period: Period
) -> tuple[PricedUsage, ...]:
    """Return the account's usage in `period`, cut where other prices begin to hold.

    `books` says which price book holds when, in windows, over the whole period.
    """
    versions = _versions_of({book for _, book in books}, period)
    spans = join_equal(
        priced
        for span, book in books
        for priced in cover(span, versions.get(book, ()), between=None)
    )
    return tuple(
        PricedUsage(
            period=span,
            usage=metering.queries.usage_totals(account.pk, span),
            prices=prices,
            events=_events(account, span, prices),
        )
        for span, prices in spans
    )


def price_of(row: PriceRow) -> Price:
    """Return a price as rating takes it. Raises ValueError when its tiers are no good."""
    return Price(charge=_charge_of(row), free_units=row.free_units, minimum=row.minimum)


def _charge_of(row: PriceRow) -> PerUnit | Graduated | Volume | Package | Percentage:
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


def _versions_of(
    books: Collection[int], period: Period
) -> dict[int, list[tuple[Period, Prices | None]]]:
    """Return, by book, the windows in which each version is in force and its prices."""
    versions: dict[int, list[tuple[Period, Prices | None]]] = {}
    for version in (
        PriceBookVersion.objects.filter(book__in=books, effective_from__lt=period.end)
        .filter(Q(effective_to__isnull=True) | Q(effective_to__gt=period.start))
        .prefetch_related("prices__tiers")
        .order_by("effective_from")
    ):
        in_force = Period(
            max(version.effective_from, period.start),
            min(version.effective_to or period.end, period.end),
        )
        if windows := windows_in(in_force):
            prices = {
                (Meter(price.meter), price.currency): price_of(price)
                for price in version.prices.all()
            }
            versions.setdefault(version.book_id, []).append((windows, Prices(prices)))
    return versions


def _events(account: Account, span: Period, prices: Prices | None) -> int:
    """Return how many sandboxes were started in `span`, where a price is about that."""
    if prices is None or not any(
        isinstance(price.charge, Percentage) and price.charge.fee_per_event
        for price in prices.prices.values()
    ):
        return 0
    return metering.queries.starts(account.pk, span)
