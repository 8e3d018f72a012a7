from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.proration import share, whole_seconds
from metering.period import Period

MAY = Period(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))
seconds_of_may = st.integers(min_value=0, max_value=31 * 86_400)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (MAY, Fraction(1)),
        (Period(MAY.start, MAY.start + timedelta(seconds=1)), Fraction(1, 31 * 86_400)),
        (Period(datetime(2026, 5, 17, tzinfo=UTC), MAY.end), Fraction(15, 31)),
        (Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)), Fraction(1)),
        (Period(MAY.end, MAY.end + timedelta(days=1)), Fraction(0)),
        (Period(MAY.start - timedelta(days=1), MAY.start), Fraction(0)),
    ],
)
def test_a_share_is_counted_by_the_second(part: Period, expected: Fraction) -> None:
    assert share(part, MAY) == expected


@given(seconds_of_may)
def test_the_shares_of_both_sides_of_a_cut_add_up(second: int) -> None:
    cut = MAY.start + timedelta(seconds=second)
    left = share(Period(MAY.start, cut), MAY) if cut > MAY.start else Fraction(0)
    right = share(Period(cut, MAY.end), MAY) if cut < MAY.end else Fraction(0)
    assert left + right == 1


def test_a_part_of_a_second_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number of seconds"):
        whole_seconds(Period(MAY.start, MAY.start + timedelta(milliseconds=1500)))
