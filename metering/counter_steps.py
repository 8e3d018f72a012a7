"""Why a life's usage of a counter need not be the difference of the counter's two ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from metering.meters import Meter
from metering.models import CounterReset, InterfaceReading, LifeReading
from metering.period import WINDOW
from metering.totals import LIFE_COLUMNS, NETWORK_COLUMNS

_COUNTERS = {**LIFE_COLUMNS, **NETWORK_COLUMNS}


@dataclass(frozen=True, slots=True)
class Measured:
    """One life's records of one meter: from which window to which, both included."""

    life_id: int
    meter: Meter
    first_window: datetime
    last_window: datetime


@dataclass(frozen=True, slots=True)
class CounterSteps:
    """What lies between a counter's growth and its two ends, in base units.

    `fell`: by how much it fell in and around these windows, over all interfaces; that was billed
    before it fell. `unbilled`: where it stood at the life's first sample, which is not billed.
    """

    fell: int
    unbilled: int


def counter_steps(measured: Sequence[Measured]) -> list[CounterSteps]:
    """Return the steps of each, in their order; nothing where the facts are not kept any more."""
    lives = {one.life_id for one in measured}
    falls: defaultdict[tuple[int, str], list[tuple[datetime, int]]] = defaultdict(list)
    for reset in CounterReset.objects.filter(life__in=lives):
        falls[reset.life_id, reset.counter].append((reset.at, reset.before - reset.after))
    bases = _bases(lives) if lives else {}
    steps = []
    for one in measured:
        counter = _COUNTERS[one.meter]
        # One that fell at an edge may be counted in the window before or after it.
        start, end = one.first_window - WINDOW, one.last_window + 2 * WINDOW
        fell = sum(fall for at, fall in falls[one.life_id, counter] if start <= at < end)
        steps.append(CounterSteps(fell, bases.get((one.life_id, counter), 0)))
    return steps


def _bases(lives: set[int]) -> dict[tuple[int, str], int]:
    bases: defaultdict[tuple[int, str], int] = defaultdict(int)
    for reading in LifeReading.objects.filter(life__in=lives):
        for name in ("cpu_ns", "disk_read_bytes", "disk_write_bytes"):
            bases[reading.life_id, name] += getattr(reading, f"base_{name}")
    for interface in InterfaceReading.objects.filter(life__in=lives):
        for name in ("rx_bytes", "tx_bytes"):
            bases[interface.life_id, name] += getattr(interface, f"base_{name}")
    return dict(bases)
