"""When what an endpoint did not take is sent once more."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Final
from uuid import UUID

PAUSES: Final = (
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=8),
    timedelta(hours=20),
    timedelta(hours=40),
)
"""After the first failure, the second, and so on; the try after the last one is the eighth."""
JITTER_PERCENT: Final = 15
"""Up to so much sooner, so that what failed together does not come back together."""


def pause_after(failures: int, *, delivery_id: UUID) -> timedelta | None:
    """Return how long to wait after so many failures, 1 or more; None: it is given up.

    The same for the same delivery and failure.
    """
    if failures > len(PAUSES):
        return None
    drawn = hashlib.sha256(f"{delivery_id} {failures}".encode()).digest()
    percent = int.from_bytes(drawn[:4]) % (JITTER_PERCENT + 1)
    return PAUSES[failures - 1] * (100 - percent) / 100
