"""What a run of folds adds up to, so that it is written once and not once a fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from metering.readings import NEVER, Fold, Gap, Reset
from metering.records import join
from metering.samples import Records
from metering.steps import Bools, Ints


@dataclass(slots=True)
class Tally:
    """The readings of one kind of series, moved on fold by fold, and the usage so far.

    `readings` has one row for each series that was met, sorted by `key`.
    """

    key: str
    readings: Records
    usage: list[Records] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    resets: list[Reset] = field(default_factory=list)

    def has(self, ids: Ints) -> Bools:
        """Return which of these series are known."""
        return is_among(ids, self.readings[self.key])

    def learn(self, readings: Records) -> None:
        """Take in series that were not met before."""
        if len(readings):
            joined = join([self.readings, readings], readings.dtype)
            self.readings = np.take(joined, np.argsort(joined[self.key], kind="stable"))

    def add(self, fold: Fold) -> None:
        """Take in a fold onto these readings."""
        self.readings = fold.readings
        self.usage.append(fold.usage)
        self.gaps += fold.gaps
        self.resets += fold.resets

    def total(self) -> Records:
        """Return the usage of all folds, one row for each window of each series."""
        return combine(self.usage, key=self.key)


def is_among(ids: Ints, known: Ints) -> Bools:
    """Return which of `ids` are in `known`, which is sorted."""
    if not len(known):
        return np.zeros(len(ids), np.bool_)
    found: Bools = known[np.minimum(np.searchsorted(known, ids), len(known) - 1)] == ids
    return found


def combine(parts: Sequence[Records], *, key: str) -> Records:
    """Return the rows of folds that followed each other, those of one window made one.

    Opening figures are those of the first fold, closing ones of the last; the rest adds up.
    """
    if len(parts) == 1:
        return parts[0]
    rows = join(parts, parts[0].dtype)
    rows = np.take(rows, np.lexsort((rows["window_ms"], rows[key])))
    begins = np.ones(len(rows), np.bool_)
    begins[1:] = (rows[key][1:] != rows[key][:-1]) | (
        rows["window_ms"][1:] != rows["window_ms"][:-1]
    )
    firsts = np.flatnonzero(begins)
    if len(firsts) == len(rows):
        return rows
    combined = np.take(rows, firsts)
    lasts = np.append(firsts[1:], len(rows)) - 1
    for name in rows.dtype.names or ():
        if name.startswith("closing_"):
            combined[name] = rows[name][lasts]
        elif name == "last_sample_ms":
            combined[name] = np.maximum.reduceat(rows[name], firsts)
        elif name == "first_sample_ms":
            combined[name] = _earliest(rows[name], firsts)
        elif name not in {key, "window_ms"} and not name.startswith("opening_"):
            combined[name] = np.add.reduceat(rows[name], firsts)
    return combined


def _earliest(times_ms: Ints, firsts: Ints) -> Ints:
    far = np.iinfo(np.int64).max
    earliest = np.minimum.reduceat(np.where(times_ms == NEVER, far, times_ms), firsts)
    return np.where(earliest == far, NEVER, earliest)
