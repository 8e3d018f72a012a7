"""The customer's page in a real browser: what its members do, and how each page looks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Request,
    Response,
    expect,
)
from pypdf import PdfReader
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from billing.models import Account, Budget, EventType, Invitation, Membership
from billing.services import Actor, invite, issue_api_key
from billing.services.invitations import _token_of
from billing.services.webhook_endpoints import EndpointChange, add_endpoint, change_endpoint
from metering.summaries import summarise_usage
from payments.models import PaymentMethod
from tests.billing.usage import NOON, bill, open_account, record_usage
from tests.local_stripe import LocalStripe
from tests.payments.conftest import _local_stripe_process, local_stripe, stripe
from tests.portal.conftest import SetClock, set_clock
from tests.portal.members import PASSWORD, add_member
from tests.real.browser import Desk, chromium

# Fixtures that these tests share with others.
__all__ = ["_local_stripe_process", "local_stripe", "set_clock", "stripe"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

NOW = NOON + timedelta(days=31)
Look = Literal["light", "dark"]
SMALL, LARGE = (360, 740), (1280, 900)
AUDITS = Path(__file__).with_name("audits.js")


class Visitor(Desk):
    """Somebody at the customer's page, who may be led to `allowed`, another address."""

    allowed = ""

    def _see_request(self, request: Request) -> None:
        if not (self.allowed and request.url.startswith(self.allowed)):
            super()._see_request(request)

    def _see_response(self, response: Response) -> None:
        # What is not ours has faults of its own, as no icon.
        if response.url.startswith(self.address):
            super()._see_response(response)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.location["url"].startswith(self.address):
            super()._hear(said)

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
        assert self.page.evaluate("audit.aside()") == [], self.page.url
        assert self.page.evaluate("audit.faint()") == [], self.page.url
        assert self.page.evaluate("audit.frame()") == [1, 1, [], []], self.page.url

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
    # At rest: a colour on its way to another is neither of the two that are held to be legible.
    context: BrowserContext = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=look, reduced_motion="reduce"
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
    """Return an account on a plan, with an invoice of May, in the middle of a busy June."""
    account = open_account("Ada's very own company for sandboxes", plan_code="professional")
    record_usage(account.pk, NOON, cpu_s=12_345_678, memory_gb_s=7_000_000)
    bill(account)
    for back in range(9):
        record_usage(
            account.pk,
            NOW - timedelta(days=back),
            cpu_s=1_500_000 + 400_000 * (back % 4),
            memory_gb_s=900_000 * (back % 3),
            egress_bytes=(120 + 60 * (back % 5)) * 2**30,
        )
    summarise_usage(account.pk, [date(2026, 6, day) for day in range(1, 11)], now=NOW)
    Budget.objects.create(account=account, name="Month", amount=500)
    Budget.objects.create(account=account, name="Alarm", amount=100)
    method = {"account": account, "kind": "card", "brand": "visa", "added_at": NOW}
    expiry = {"expires_month": 9, "expires_year": 2028}
    PaymentMethod.objects.create(
        provider_id="pm_1", last4="4242", is_default=True, **method, **expiry
    )
    PaymentMethod.objects.create(provider_id="pm_2", last4="1881", **method, **expiry)
    add_member(account, "grace", Membership.Role.VIEWER)
    issue_api_key(account.pk, name="FinOps script", now=NOON)
    add_endpoint(account.pk, url="https://example.com/hooks/soulbox", now=NOON)
    long_url = f"https://hooks.example.com/{'a-long-path/' * 5}"
    types = [EventType.INVOICE_PAID, EventType.INVOICE_FINALIZED, EventType.BUDGET_CAPPED]
    off = add_endpoint(account.pk, url=long_url, event_types=types, now=NOON).row
    change_endpoint(off.pk, EndpointChange(is_enabled=False), now=NOW)
    owner = Actor(Membership.Role.OWNER)
    invite(account.pk, email="bea@example.com", role=Membership.Role.BILLING, by=owner, now=NOW)
    return account


OUTSIDE = {
    "sign-in": "/sign-in",
    "password": "/password",
    "password-mailed": "/password/mailed",
    "sign-up": "/sign-up",
    "invitation": "/invitations/{token}",
}
PAGES = {
    "overview": "/",
    "invoices": "/invoices",
    "invoice": "/invoices/{invoice}",
    "credits": "/credits",
    "plan": "/plan",
    "plan-preview": "/plan/preview?plan=team&interval=monthly",
    "methods": "/payment-methods",
    "members": "/members",
    "sandboxes": "/sandboxes",
    "budgets": "/budgets",
    "budget": "/budgets/{budget}",
    "api-keys": "/api-keys",
    "webhooks": "/webhooks",
    "account": "/account",
    "account-close": "/account/close",
}


@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["360", "1280"])
def test_every_page_fits_is_named_and_reached_by_keyboard(
    browser: Browser,
    live_server: LiveServer,
    settings: Settings,
    set_clock: SetClock,
    pictures: Path,
    size: tuple[int, int],
    look: Look,
) -> None:
    settings.SIGN_UP = "open"
    set_clock(NOW)
    account = busy_account()
    add_member(account, "ada")
    token = _token_of(Invitation.objects.get().pk)
    rows = {"invoice": account.invoices.get().pk, "budget": account.budgets.all()[0].pk}
    with visiting(browser, live_server.url, pictures, size, look) as visitor:

        def check(name: str) -> None:
            visitor.check_page()
            visitor.page.screenshot(path=pictures / f"{name}-{size[0]}-{look}.png", full_page=True)
            visitor.tab_through()

        for name, path in OUTSIDE.items():
            visitor.open(path.format(token=token))
            check(name)
        visitor.sign_in_as("ada")
        for name, path in PAGES.items():
            visitor.open(path.format(**rows))
            check(name)
        # What comes after a form: a refusal, and a secret.
        visitor.open("/budgets")
        visitor.fill("name", "Month")
        visitor.fill("amount", "0")
        visitor.page.get_by_role("button", name="Keep the budget").click()
        expect(visitor.page.locator("[aria-invalid=true], [role=alert]").first).to_be_visible()
        check("budget-refused")
        visitor.open("/api-keys")
        visitor.fill("name", "Nightly")
        visitor.page.get_by_role("button", name="Make the key").click()
        visitor.sees("It is shown this once.")
        check("secret")


def test_the_keyboard_skips_the_menu_and_opens_it(
    browser: Browser, live_server: LiveServer, set_clock: SetClock, pictures: Path
) -> None:
    set_clock(NOW)
    add_member(open_account("Ada Ltd"), "ada")
    with visiting(browser, live_server.url, pictures, SMALL) as visitor:
        page = visitor.page
        visitor.sign_in_as("ada")
        visitor.open("/credits")
        page.keyboard.press("Tab")
        skip = page.get_by_role("link", name="Skip to content")
        expect(skip).to_be_in_viewport()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.locator("main :focus")).to_have_count(1)
        menu = page.get_by_role("navigation", name="Pages")
        expect(menu).to_be_hidden()
        page.get_by_role("button", name="Menu").press("Enter")
        expect(menu).to_be_visible()
        visitor.check_page()
        page.screenshot(path=pictures / "menu-360-light.png")
        page.keyboard.press("Tab")
        expect(menu.get_by_role("button", name="Close")).to_be_focused()
        page.keyboard.press("Tab")
        expect(menu.get_by_role("link", name="Overview")).to_be_focused()
        page.keyboard.press("Escape")
        expect(menu).to_be_hidden()
        page.get_by_role("button", name="Menu").press("Enter")
        menu.get_by_role("button", name="Close").press("Enter")
        expect(menu).to_be_hidden()
        expect(page.get_by_role("button", name="Menu")).to_be_focused()


def test_a_customer_reads_usage_changes_plan_adds_a_card_and_downloads_a_pdf(
    browser: Browser,
    live_server: LiveServer,
    stripe: LocalStripe,
    settings: Settings,
    set_clock: SetClock,
    pictures: Path,
) -> None:
    settings.PAYMENTS_RETURN_URL = live_server.url
    settings.STRIPE_TIMEOUT_S = 10
    set_clock(NOW)
    account = open_account("Ada Ltd", plan_code="professional")
    record_usage(account.pk, NOON, cpu_s=30_000_000)
    invoice = bill(account)
    record_usage(account.pk, NOW, cpu_s=10_000_000)
    summarise_usage(account.pk, [NOW.date()], now=NOW)
    add_member(account, "ada")
    with visiting(browser, live_server.url, pictures) as visitor:
        visitor.allowed = stripe.url
        page = visitor.page
        visitor.sign_in_as("ada")
        read_usage(visitor)
        # The change is seen before it is made, and made once.
        page.get_by_role("link", name="Plan", exact=True).click()
        page.get_by_role("button", name="Look at Team, monthly").click()
        visitor.sees("The change is made at once.")
        expect(page.get_by_role("row", name="The fee changes by")).to_contain_text("136.67 USD")
        assert plan_of(account) == "professional"
        page.get_by_role("button", name="Change to Team").click()
        visitor.sees("You are on Team.")
        assert plan_of(account) == "team"
        # A card is added on Stripe's page, which leads back.
        page.get_by_role("link", name="Payment methods").click()
        page.get_by_role("button", name="Add a payment method").click()
        page.wait_for_url(f"{stripe.url}/**")
        page.get_by_role("button", name="Add card").click()
        page.get_by_role("link", name="Go back").click()
        visitor.sees("Visa •••• 4242")
        assert PaymentMethod.objects.get(account=account).is_default
        page.get_by_role("link", name="Invoices").click()
        with page.expect_download() as download:
            page.get_by_role("link", name=f"PDF of {invoice.number}").click()
        text = PdfReader(download.value.path()).pages[0].extract_text()
        assert str(invoice.number) in text


def test_what_runs_refreshes_by_itself(
    browser: Browser, live_server: LiveServer, set_clock: SetClock, pictures: Path
) -> None:
    set_clock(NOON)
    account = open_account("Ada Ltd")
    add_member(account, "ada")
    with visiting(browser, live_server.url, pictures) as visitor:
        visitor.sign_in_as("ada")
        visitor.page.get_by_role("link", name="Sandboxes").click()
        visitor.sees("Nothing runs at the moment.")
        record_usage(account.pk, NOON)
        # The page is left alone: it asks by itself.
        visitor.sees("1 running. As of 12:00:00.")
        expect(visitor.page.get_by_role("row", name="sbx-1")).to_be_visible()


def read_usage(visitor: Visitor) -> None:
    """See what the page says of 120 USD of cpu time, with the mouse left alone."""
    page = visitor.page
    visitor.sees("10,000,000 s")
    # Drawn, it listens; a key before that scrolls the page.
    expect(page.locator("#cost-legend")).to_have_text("CPU time")
    page.locator("#cost-chart").focus()
    page.keyboard.press("End")
    expect(page.locator("#cost-reading")).to_have_text("Jun 10: 120.00 USD")
    page.get_by_text("The figures as a table").click()
    expect(page.get_by_role("row", name="10 Jun")).to_contain_text("120.00")


def plan_of(account: Account) -> str:
    """Return the code of the plan that the account is on now."""
    return account.subscriptions.get(started_at__lte=NOW, expires_at=None).plan.code
