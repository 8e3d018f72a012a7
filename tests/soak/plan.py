"""How much is loaded, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

FLEET_ACCOUNTS = 10
"""An endpoint of the simulator has room for so many."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes on at once. `cards` of the subscriptions are charged; the others paid ahead."""

    minutes: float
    sandboxes: int
    subscriptions: int
    cards: int
    calls_a_second: int
    webhooks_a_second: int
    drain_minutes: float

    @property
    def seconds(self) -> int:
        """How long all of it lasts."""
        return round(self.minutes * 60)

    @property
    def month_ends_after_s(self) -> int:
        """When the subscriptions become due: what goes on before is the ordinary state."""
        return min(self.seconds // 5, 120)
