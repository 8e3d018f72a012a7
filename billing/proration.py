from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

from metering.period import Period

_SECOND = timedelta(seconds=1)


def whole_seconds(period: Period) -> int:
    """Return the seconds of `period`. Raises ValueError when its length is not whole seconds."""
    seconds, rest = divmod(period.duration, _SECOND)
    if rest:
        raise ValueError(f"{period} is not a whole number of seconds long.")
    return seconds


def share(part: Period, whole: Period) -> Fraction:
    """Return how much of `whole` is in `part`, from 0 to 1, by seconds.

    The shares of neighbouring parts add up to the share of both.
    """
    shared = part.overlap(whole)
    return Fraction(whole_seconds(shared), whole_seconds(whole)) if shared else Fraction(0)
