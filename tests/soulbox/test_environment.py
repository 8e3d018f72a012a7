"""What the environment gives is refused by name where it is no good."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ImproperlyConfigured

from soulbox import environment


def test_a_time_zone_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELLER_TIME_ZONE", "Asia/Kolkata")
    assert environment.zone("SELLER_TIME_ZONE") == ZoneInfo("Asia/Kolkata")


@pytest.mark.parametrize("name", ["Mars/Base", "../etc/passwd", "/etc/localtime"])
def test_what_is_no_time_zone_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SELLER_TIME_ZONE", name)
    with pytest.raises(ImproperlyConfigured, match="SELLER_TIME_ZONE"):
        environment.zone("SELLER_TIME_ZONE")


def test_a_text_that_no_column_has_room_for_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SELLER_TAX_NAME", "x" * 32)
    assert environment.short_text("SELLER_TAX_NAME", longest=32) == "x" * 32
    monkeypatch.setenv("SELLER_TAX_NAME", "x" * 33)
    with pytest.raises(ImproperlyConfigured, match="SELLER_TAX_NAME has 33 characters"):
        environment.short_text("SELLER_TAX_NAME", longest=32)
