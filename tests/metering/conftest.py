from __future__ import annotations

from datetime import datetime

import pytest

from metering.api import views
from tests.metering.runtime import NOON


class Clock(datetime):
    """A clock that stands still at noon."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        del tz
        return NOON


@pytest.fixture
def it_is_noon(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "live_server" not in request.fixturenames:
        monkeypatch.setattr(views, "datetime", Clock)
