from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.period import WINDOW, Period, from_ms, to_ms, window_start

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone itself


@pytest.mark.parametrize("end", [NOON, NOON - MINUTE])
def test_an_empty_or_backward_period_is_refused(end: datetime) -> None:
    with pytest.raises(ValueError, match="not after its start"):
        Period(NOON, end)


def test_a_bound_outside_utc_is_refused_by_name() -> None:
    paris = NOON.astimezone(timezone(timedelta(hours=1)))
    with pytest.raises(ValueError, match=r"Period\.end is not in UTC"):
        Period(NOON, paris + MINUTE)
    with pytest.raises(ValueError, match=r"Period\.start is not in UTC"):
        Period(paris, NOON + MINUTE)


@pytest.mark.parametrize(
    ("moment", "inside"),
    [(NOON - MINUTE, False), (NOON, True), (NOON + MINUTE, True), (NOON + 2 * MINUTE, False)],
)
def test_a_period_holds_its_start_and_not_its_end(moment: datetime, *, inside: bool) -> None:
    assert (moment in Period(NOON, NOON + 2 * MINUTE)) is inside


def test_neighbours_do_not_overlap() -> None:
    first = Period(NOON, NOON + MINUTE)
    assert first.overlap(Period(NOON + MINUTE, NOON + 2 * MINUTE)) is None
    assert first.overlap(Period(NOON - MINUTE, NOON + MINUTE / 2)) == Period(
        NOON, NOON + MINUTE / 2
    )


def test_windows_cover_the_edges_whole() -> None:
    period = Period(NOON + MINUTE, NOON + WINDOW + MINUTE)
    assert list(period.windows()) == [
        Period(NOON, NOON + WINDOW),
        Period(NOON + WINDOW, NOON + 2 * WINDOW),
    ]


def test_a_period_that_ends_with_a_window_shares_no_time_with_the_next() -> None:
    assert list(Period(NOON, NOON + WINDOW).windows()) == [Period(NOON, NOON + WINDOW)]


def test_milliseconds_are_whole_and_rounded_down() -> None:
    at = to_ms(NOON + timedelta(microseconds=1999))
    assert isinstance(at, int)
    assert at == to_ms(NOON) + 1
    assert from_ms(-1) == datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)


@given(moment=moments)
def test_a_moment_lies_in_its_window_and_milliseconds_come_back(moment: datetime) -> None:
    start = window_start(moment)
    assert moment in Period(start, start + WINDOW)
    assert timedelta(0) <= moment - from_ms(to_ms(moment)) < timedelta(milliseconds=1)
