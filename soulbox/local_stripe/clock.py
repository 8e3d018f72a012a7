"""The server's clock: real time, moved by an offset, or standing still."""

from __future__ import annotations

import time


class Clock:
    """Seconds of unix time. Frozen, it moves only when it is told to."""

    def __init__(self, offset_s: float = 0, frozen_at: float | None = None) -> None:
        self.offset_s = offset_s
        self.frozen_at = frozen_at

    def reset(self) -> None:
        """Go back to real time."""
        self.offset_s, self.frozen_at = 0, None

    def now(self) -> int:
        """Return the time in whole seconds, as Stripe's objects have it."""
        return int(time.time() + self.offset_s if self.frozen_at is None else self.frozen_at)

    def set(self, now: float, *, frozen: bool) -> None:
        """Say what time it is, and whether it stays so."""
        self.frozen_at = now if frozen else None
        self.offset_s = now - time.time()
