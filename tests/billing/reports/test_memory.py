from __future__ import annotations

import tracemalloc
from datetime import date

import pytest

from billing.reports.catalogue import REPORTS, Asked
from billing.reports.chunks import CHUNK
from billing.reports.month import Month
from billing.reports.writing import Format, write
from tests.billing.reports.many import METERS, bill_many
from tests.billing.reports.world import MID_JUNE

pytestmark = pytest.mark.django_db

FEW, MANY = CHUNK, 4 * CHUNK


def peak_of(name: str) -> tuple[int, int]:
    """Return the bytes that were held at most while the report was written, and its length."""
    report = REPORTS[name]
    asked = Asked(now=MID_JUNE, month=Month(2026, 5), as_of=date(2026, 6, 15))
    tracemalloc.start()
    length = sum(map(len, write(report.row_type, report.rows(asked), Format.CSV)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, length


@pytest.mark.parametrize("name", ["usage", "focus"])
def test_a_longer_report_is_written_in_the_same_memory(name: str) -> None:
    bill_many(FEW)
    few, short = peak_of(name)
    bill_many(MANY - FEW)
    many, long = peak_of(name)
    assert long > 3 * short > FEW * len(METERS)
    assert many < 1.3 * few
