"""Numbers of invoices and credit notes: without gaps, in each series and year."""

from __future__ import annotations

import logging
import re
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import F

from billing.models import NumberSeries
from billing.models.invoices import Series

logger = logging.getLogger(__name__)

_PREFIXES = {Series.INVOICE: "", Series.CREDIT_NOTE: "CN-"}
_OURS = re.compile(r"(CN-)?[0-9]{4}-[0-9]{6,}")


def may_be_ours(number: str) -> bool:
    """Return whether a number reads like one that a series gives, or gave."""
    return bool(_OURS.fullmatch(number))


def take_numbers(series: Series, count: int, *, now: datetime) -> list[str]:
    """Return the next `count` numbers of the series, of the seller's year that `now` is in.

    Take them last in a transaction: the counter's row is locked from here to its end, for
    everybody, so that numbers of a transaction that fails are used by the next.
    """
    year = now.astimezone(settings.SELLER_TIME_ZONE).year
    counter = NumberSeries.objects.filter(series=series, year=year)
    if not counter.update(last_number=F("last_number") + count):
        # The year's first. Whoever comes second here waits, and finds the row.
        NumberSeries.objects.get_or_create(series=series, year=year)
        counter.update(last_number=F("last_number") + count)
    last = counter.values_list("last_number", flat=True).get()
    prefix = _PREFIXES[series]
    return [f"{prefix}{year}-{number:06d}" for number in range(last - count + 1, last + 1)]


class NumberRefusedError(ValueError):
    """It is no number of the series; the message says what one looks like."""


@transaction.atomic
def skip_numbers(number: str) -> int:
    """Never give this number, or one before it, again; return how many are left out by that.

    For numbers that a database put back to an earlier state forgot, and that customers have. Safe
    to repeat. Raises NumberRefusedError.
    """
    if not may_be_ours(number):
        raise NumberRefusedError(f"{number!r} is no number such as 2026-000123 or CN-2026-000012.")
    series = Series.CREDIT_NOTE if number.startswith("CN-") else Series.INVOICE
    year, _, last = number.removeprefix("CN-").partition("-")
    NumberSeries.objects.get_or_create(series=series, year=int(year))
    row = NumberSeries.objects.select_for_update().get(series=series, year=int(year))
    skipped = max(int(last) - row.last_number, 0)
    if skipped:
        row.last_number = int(last)
        row.save(update_fields=["last_number"])
        logger.warning("numbers left out", extra={"up_to": number, "count": skipped})
    return skipped
