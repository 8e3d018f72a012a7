from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from metering.meters import Meter


class LateWindow(NamedTuple):
    """What one life used in one window beyond its record there, in base units.

    Over all interfaces. Negative where the record holds too much.
    """

    sandbox_id: str
    life_id: int
    meter: Meter
    window_start: datetime
    quantity: int
