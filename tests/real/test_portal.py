"""The customer's page in a real browser: what its members do, and how each page looks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, expect
from pytest_django.live_server_helper import LiveServer

from billing.models import Account, Budget
from metering.summaries import summarise_usage
from tests.billing.usage import NOON, open_account, record_usage
from tests.portal.conftest import SetClock, set_clock
from tests.portal.members import PASSWORD, add_member
from tests.real.browser import Desk, chromium

__all__ = ["set_clock"]  # A fixture that these tests share with those of the portal's pages.

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

Look = Literal["light", "dark"]
SMALL, LARGE = (360, 740), (1280, 900)
AUDITS = Path(__file__).with_name("audits.js")


class Visitor(Desk):
    """Somebody at the customer's page."""

    def sign_in_as(self, name: str) -> None:
        """Sign in with the password."""
        self.open("/sign-in")
        self.page.get_by_label("E-mail address or user name").fill(name)
        self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("heading", name="Overview")).to_be_visible()

    def check_page(self) -> None:
        """Hold the page to what every page has: no overflow, names, reach by keyboard."""
        assert self.page.evaluate("audit.overflow()") == [0, []], self.page.url
        assert self.page.evaluate("audit.nameless()") == [], self.page.url
        assert self.page.evaluate("audit.small()") == [], self.page.url

    def tab_through(self) -> None:
        """Go through the page with the tab key alone: all controls come by, each seen in focus."""
        stops = self.page.evaluate("audit.stops()")
        self.page.evaluate("audit.start()")
        seen = 0
        for _ in range(stops + 3):
            self.page.keyboard.press("Tab")
            seen, is_over, unseen = self.page.evaluate("audit.focused()")
            assert not unseen
            if is_over:
                break
        assert seen >= stops > 0, (self.page.url, seen, stops)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with pytest.MonkeyPatch.context() as patch:
        # Playwright runs a loop in this thread, in which Django would refuse its tables.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        with chromium() as started:
            yield started


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures go: PORTAL_PICTURES, to be looked at, or a folder that is thrown away."""
    folder = Path(os.environ.get("PORTAL_PICTURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def visiting(
    browser: Browser,
    address: str,
    folder: Path,
    size: tuple[int, int] = LARGE,
    look: Look = "light",
) -> Iterator[Visitor]:
    """Let somebody visit in a window of their own; no page may cause a fault."""
    context: BrowserContext = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=look
    )
    context.add_init_script(path=AUDITS)
    visitor = Visitor(context, address)
    try:
        yield visitor
        assert visitor.faults == []
    except (AssertionError, Error) as failure:
        picture = folder / "failed.png"
        visitor.page.screenshot(path=picture)
        failure.add_note(f"{visitor.page.url}, as in {picture}; faults: {visitor.faults}")
        raise
    finally:
        context.close()


def busy_account() -> Account:
    """Return an account on a plan that used something on each of some days of May."""
    account = open_account("Ada's very own company for sandboxes", plan_code="professional")
    for back in range(9):
        record_usage(
            account.pk,
            NOON - timedelta(days=back),
            cpu_s=1_500_000 + 400_000 * (back % 4),
            memory_gb_s=900_000 * (back % 3),
            egress_bytes=(120 + 60 * (back % 5)) * 2**30,
        )
    summarise_usage(account.pk, [date(2026, 5, day) for day in range(1, 11)], now=NOON)
    Budget.objects.create(account=account, name="Month", amount=500)
    Budget.objects.create(account=account, name="Alarm", amount=100)
    return account


PAGES = {"overview": "/"}


@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["360", "1280"])
def test_every_page_fits_is_named_and_reached_by_keyboard(
    browser: Browser,
    live_server: LiveServer,
    set_clock: SetClock,
    pictures: Path,
    size: tuple[int, int],
    look: Look,
) -> None:
    set_clock(NOON)
    add_member(busy_account(), "ada")
    with visiting(browser, live_server.url, pictures, size, look) as visitor:
        visitor.open("/sign-in")
        visitor.check_page()
        visitor.page.screenshot(path=pictures / f"sign-in-{size[0]}-{look}.png", full_page=True)
        visitor.sign_in_as("ada")
        for name, path in PAGES.items():
            visitor.open(path)
            visitor.check_page()
            visitor.page.screenshot(path=pictures / f"{name}-{size[0]}-{look}.png", full_page=True)
            visitor.tab_through()
