"""Which prices have to stay."""

from __future__ import annotations

from datetime import datetime

from billing.models import PriceBookVersion

STAYS = (
    "Prices that hold for somebody stay. Start a new version on the price book's page, and change "
    "the price there before it is in force."
)


def is_settled(version: PriceBookVersion, now: datetime) -> bool:
    """Return whether a version's prices hold or held for somebody, so that they have to stay.

    A book that no plan and no subscription names prices nothing yet.
    """
    book = version.book
    return version.effective_from <= now and (book.plans.exists() or book.subscriptions.exists())
