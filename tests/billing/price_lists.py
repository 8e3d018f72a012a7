"""Price books of a test's own."""

from __future__ import annotations

from decimal import Decimal

from billing.models import Account, Price, PriceBook, PriceBookVersion, PriceTier
from metering.meters import Meter
from tests.billing.usage import OPENED


def make_book(code: str, *, account: Account | None = None, **unit_prices: str) -> PriceBook:
    """Make a book in force since May with a price per unit of each meter named."""
    book = PriceBook.objects.create(code=code, name=code.title(), account=account)
    version = PriceBookVersion.objects.create(book=book, effective_from=OPENED)
    for meter, unit_price in unit_prices.items():
        Price.objects.create(
            version=version, meter=Meter(meter), unit_price=Decimal(unit_price), charge="per_unit"
        )
    return book


def add_tiered_price(
    book: PriceBook, meter: Meter, tiers: list[tuple[str | None, str, str]], charge: str
) -> Price:
    """Add a price of tiers, each up_to, unit price and flat fee, to the book's only version."""
    price = Price.objects.create(version=book.versions.get(), meter=meter, charge=charge)
    PriceTier.objects.bulk_create(
        PriceTier(
            price=price,
            position=position,
            up_to=None if up_to is None else Decimal(up_to),
            unit_price=Decimal(unit_price),
            flat_fee=Decimal(flat_fee),
        )
        for position, (up_to, unit_price, flat_fee) in enumerate(tiers, start=1)
    )
    return price
