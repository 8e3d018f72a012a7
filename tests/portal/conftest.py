from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from django.core.cache import cache

from tests.portal.members import PORTAL_CLOCKS

SetClock = Callable[[datetime], None]


@pytest.fixture(autouse=True)
def _no_tries_yet() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Stop the portal's clock at a moment of the test's choice."""

    def set_to(moment: datetime) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # a fixed clock
                del tz
                return moment

        for module in PORTAL_CLOCKS:
            monkeypatch.setattr(f"{module}.datetime", Clock)

    return set_to
