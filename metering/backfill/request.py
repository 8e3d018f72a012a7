"""What a backfill is asked for, and what it reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from metering.period import WINDOW, Period, to_ms
from metering.source import ACCOUNT_LABEL, Container


@dataclass(frozen=True, slots=True)
class Request:
    """What to recompute: the windows of `period`, of these accounts, or with none given of all.

    Windows whose records count more samples than there are now are kept, unless
    `fewer_samples` lets them go. With `is_dry` every transaction is rolled back.
    """

    period: Period
    accounts: frozenset[UUID] = frozenset()
    fewer_samples: bool = False
    is_dry: bool = False

    @property
    def start_ms(self) -> int:
        """The start of the first window."""
        return to_ms(self.period.start)

    @property
    def end_ms(self) -> int:
        """The end of the last window."""
        return to_ms(self.period.end)

    def includes(self, container: Container) -> bool:
        """Return whether a container's account is one of those asked for."""
        return not self.accounts or UUID(container.labels[ACCOUNT_LABEL]) in self.accounts

    def windows(self) -> int:
        """Return how many windows there are."""
        return self.period.duration // WINDOW


@dataclass(slots=True)
class Report:
    """What a backfill did. `usage` has before and after, by account and stored quantity."""

    lives: int = 0
    unknown_lives: int = 0
    kept_windows: int = 0
    usage: dict[UUID, dict[str, tuple[int, int]]] = field(default_factory=dict)

    def add(self, account_id: UUID, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        """Add what one life used before and after."""
        usage = self.usage.setdefault(account_id, {})
        for name in before.keys() | after.keys():
            was, is_now = usage.get(name, (0, 0))
            usage[name] = (was + before.get(name, 0), is_now + after.get(name, 0))
