"""Numbers of invoices and credit notes: without gaps, in each series and year."""

from __future__ import annotations

import re
from datetime import datetime

from django.conf import settings
from django.db.models import F

from billing.models import NumberSeries
from billing.models.invoices import Series

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
