"""Each role's month at the desk, in a real browser: what they can do, see, and cannot do."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from pypdf import PdfReader
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from billing import services
from billing.credits import CreditKind
from billing.models import (
    Account,
    Correction,
    CreditEntry,
    CreditGrant,
    CreditNote,
    DiscountRule,
    Invoice,
    InvoiceTransition,
)
from soulbox.staff.roles import Role
from tests.billing.admin_pages import page
from tests.billing.conftest import READERS_OF_THE_CLOCK
from tests.billing.usage import (
    AFTER_MAY,
    NOON,
    bill,
    open_account,
    read_streams_until,
    record_usage,
)
from tests.real.browser import Desk, at_desk, chromium

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

LATER = AFTER_MAY + timedelta(hours=1)
CPU_S = 10_000_000
"""At 0.000012, a usage fee of 120.00."""
THRESHOLD = 50

SetClock = Callable[[datetime], None]
SitDown = Callable[[Role], AbstractContextManager[Desk]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with pytest.MonkeyPatch.context() as patch:
        # Playwright runs a loop in this thread, in which Django would refuse its tables.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        with chromium() as started:
            yield started


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    def set_to(moment: datetime) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # a fixed clock
                del tz
                return moment

        for module in (*READERS_OF_THE_CLOCK, "billing.admin.desk", "billing.admin.discounts"):
            monkeypatch.setattr(f"{module}.datetime", Clock)

    set_to(LATER)
    return set_to


@pytest.fixture
def sit_down(
    browser: Browser,
    live_server: LiveServer,
    settings: Settings,
    set_clock: SetClock,
    tmp_path: Path,
) -> SitDown:
    del set_clock
    settings.STAFF_TWO_FACTOR = "required"
    settings.BILLING_APPROVAL_THRESHOLD = THRESHOLD
    settings.SELLER_NAME = "SoulBox"
    return partial(at_desk, browser, live_server.url, folder=tmp_path)


def account_with_usage(name: str) -> Account:
    account = open_account(name)
    record_usage(account.pk, NOON, cpu_s=CPU_S)
    return account


def invoiced(name: str) -> Invoice:
    return bill(account_with_usage(name))


def history(invoice: Invoice) -> list[tuple[str, str, str | None, str]]:
    """Return the states that people or the run took an invoice to, with who and why."""
    changes = InvoiceTransition.objects.filter(invoice=invoice).order_by("pk")
    return list(changes.values_list("from_status", "to_status", "by__username", "reason"))


def open_invoice(desk: Desk, account: str) -> None:
    desk.go("Invoices")
    desk.row(account).get_by_role("link").first.click()


def test_finance_drafts_discounts_credits_finalises_and_corrects(
    sit_down: SitDown, set_clock: SetClock
) -> None:
    invoiced("Bea")
    ada = account_with_usage("Ada")
    with sit_down(Role.FINANCE) as desk:
        set_clock(NOON + timedelta(days=5))
        desk.sees("Outstanding")
        desk.go("Accounts")
        desk.choose("Draft the current period's invoice", "Ada")
        desk.sees("Ada: 120.00 USD so far.")
        set_clock(LATER)
        read_streams_until(LATER)
        preview_and_add_a_rule(desk)
        grant_credit(desk)
        desk.go("Invoices")
        desk.choose("Bring drafts up to date", "Ada")
        desk.sees("Ada, Draft for 2026-05: Draft")
        desk.choose("Finalise", "Ada")
        desk.sees("Ada, Draft for 2026-05: Pending")
        invoice = Invoice.objects.get(account=ada)
        figures = (invoice.usage_fee, invoice.discounts, invoice.credits_used, invoice.amount_due)
        assert figures == (120, 12, 8, 100)
        assert history(invoice)[-1] == ("draft", "pending", "finance", "Finalised by finance")
        open_invoice(desk, "Ada")
        download_and_explain(desk, invoice)
        said = {"reason": "Outage", "reference": "o-1", "what": "amount", "amount": "25"}
        desk.press("Issue a credit note", menu="Correct", **said)
        desk.sees("Credit note CN-2026-000001 of 25.00 USD.")
        note = CreditNote.objects.get()
        assert (note.invoice, note.off_due, note.author.username) == (invoice, 25, "finance")
        said = {"amount": "75", "reference": "TX-1", "received_on": "2026-06-01"}
        desk.press("Record a payment", menu="Payment", **said)
        desk.sees("75.00 USD are recorded. 2026-000002: Paid.")
    because = "Paid another way: TX-1"
    assert history(invoice)[-1] == ("pending", "paid", "finance", because)


def preview_and_add_a_rule(desk: Desk) -> None:
    desk.go("Discount rules")
    desk.page.get_by_title("Add discount rule").click()
    said = {"name": "Spring", "kind": "volume", "currency": "USD", "percent": "10"}
    for name, value in (said | {"min_amount": "100"}).items():
        desk.fill(name, value)
    desk.page.get_by_role("button", name="Preview on last month").click()
    effect = desk.page.locator("#rule-preview")
    expect(effect.get_by_text("12.00").first).to_be_visible()
    # It follows what is typed, and nothing is saved by it.
    desk.fill("percent", "20")
    expect(effect.get_by_text("24.00").first).to_be_visible()
    assert not DiscountRule.objects.filter(name="Spring").exists()
    desk.fill("percent", "10")
    desk.page.get_by_role("button", name="Save", exact=True).click()
    desk.sees("was added successfully")
    assert DiscountRule.objects.get(name="Spring").percent == 10


def grant_credit(desk: Desk) -> None:
    desk.go("Credits")
    desk.page.get_by_title("Add credit grant").click()
    desk.page.locator(".select2-selection").first.click()
    desk.page.locator(".select2-search__field").fill("Ada")
    desk.page.locator(".select2-results__option", has_text="Ada").click()
    said = {"kind": "promotional", "amount": "8", "reason": "Welcome", "reference": "w-1"}
    # From now on it would be for June.
    since = {"effective_at_0": "2026-05-01", "effective_at_1": "00:00:00"}
    for name, value in (said | since).items():
        desk.fill(name, value)
    desk.page.get_by_role("button", name="Save", exact=True).click()
    desk.sees("was added successfully")
    entry = CreditEntry.objects.get()
    assert (entry.grant.account.name, entry.amount, entry.kind) == ("Ada", 8, "grant")
    assert entry.recorded_by is not None
    assert entry.recorded_by.username == "finance"


def download_and_explain(desk: Desk, invoice: Invoice) -> None:
    with desk.page.expect_download() as started:
        desk.page.get_by_role("link", name="PDF", exact=True).click()
    pdf = PdfReader(io.BytesIO(Path(started.value.path()).read_bytes()))
    said = "".join(part.extract_text() for part in pdf.pages)
    assert str(invoice.number) in said
    assert "SoulBox" in said
    desk.page.get_by_role("link", name="Explain").first.click()
    desk.sees("sbx-1")
    desk.page.go_back()


def test_a_manager_approves_what_finance_asked_for_and_issues_again(sit_down: SitDown) -> None:
    invoice = invoiced("Ada")
    with sit_down(Role.FINANCE) as finance:
        open_invoice(finance, "Ada")
        for gone in ("Void", "Void and issue again", "Write off"):
            expect(finance.button(gone)).to_have_count(0)
        said = {"reason": "Wrong host", "reference": "h-1", "what": "amount", "amount": "60"}
        finance.press("Issue a credit note", menu="Correct", **said)
        finance.sees("waits for a second person's approval")
        correction = Correction.objects.get()
        assert (correction.status, correction.author.username) == ("proposed", "finance")
        assert not CreditNote.objects.exists()
        finance.go("Corrections")
        finance.row("Wrong host").get_by_role("link").first.click()
        finance.sees("Wrong host")
        for gone in ("Approve", "Reject"):
            expect(finance.button(gone)).to_have_count(0)
    with sit_down(Role.FINANCE_MANAGER) as manager:
        manager.go("Corrections")
        manager.row("Wrong host").get_by_role("link").first.click()
        manager.press("Approve")
        note = CreditNote.objects.get()
        manager.sees(str(note.number))
        assert (note.total, note.off_due, note.approved_by.username) == (60, 60, "finance-manager")
        assert history(invoice)[-1][1] == "pending"
        # What one proposes oneself is for somebody else to approve, whatever rights one has.
        open_invoice(manager, "Ada")
        said = {"reason": "All", "reference": "h-2", "what": "full"}
        manager.press("Issue a credit note", menu="Correct", **said)
        own = Correction.objects.get(reference="h-2")
        manager.open(page(Correction, own.pk, "change"))
        expect(manager.button("Reject")).to_be_visible()
        expect(manager.button("Approve")).to_have_count(0)
        manager.post(page(Correction, own.pk, "approve"), answered="1")
        own.refresh_from_db()
        assert own.status == "proposed"
        manager.open(page(Correction, own.pk, "change"))
        manager.press("Reject")
        manager.sees("is rejected.")
    own.refresh_from_db()
    assert (own.status, CreditNote.objects.count()) == ("rejected", 1)


def test_a_manager_voids_and_issues_again(sit_down: SitDown) -> None:
    wrong, twice = invoiced("Ada"), invoiced("Bea")
    with sit_down(Role.FINANCE_MANAGER) as manager:
        open_invoice(manager, "Ada")
        manager.press("Void and issue again", menu="Correct", reason="Old address")
        manager.sees("2026-000003: Pending.")
        again = Invoice.objects.get(replaces=wrong)
        assert (again.number, again.status, again.amount_due) == ("2026-000003", "pending", 120)
        open_invoice(manager, "Bea")
        manager.press("Void", menu="Correct", reason="Test account")
        manager.sees("2026-000002: Void.")
    for invoice, reason in ((wrong, "Old address"), (twice, "Test account")):
        assert history(invoice)[-1] == ("pending", "void", "finance-manager", reason)


MONEY = {
    "invoice": (
        "accept_amount",
        "send",
        "record_payment",
        "collect_anew",
        "retry_payment",
        "write_off",
        "void",
        "issue_again",
        "credit",
        "re_rate",
    ),
    "account": ("change_cycle", "set_top_up", "use_credit"),
    "creditgrant": ("revoke",),
}
"""The buttons that change money or what it is made of."""


def refused(desk: Desk, rows: dict[str, object]) -> None:
    """Send what each button, action and form would, and see it refused."""
    said = {"answered": "1", "reason": "x", "reference": "x", "what": "full", "amount": "1"}
    for model, buttons in MONEY.items():
        for name in buttons:
            path = f"/admin/billing/{model}/{rows[model]}/{name}/"
            assert desk.post(path, **said) == 403, path
    for model in ("creditgrant", "discountrule", "account", "plan", "price", "subscription"):
        assert desk.post(f"/admin/billing/{model}/add/", **said) == 403, model
    actions = (
        ("invoice", "finalise"),
        ("invoice", "draft_again"),
        ("account", "draft_current_period"),
        ("creditgrant", "revoke_chosen"),
    )
    for model, name in actions:
        desk.post(
            f"/admin/billing/{model}/", action=name, _selected_action=str(rows[model]), **said
        )


def state_of_money() -> object:
    """Return all that a change of money would show in."""
    return (
        list(Invoice.objects.order_by("pk").values()),
        list(CreditEntry.objects.order_by("pk").values()),
        list(DiscountRule.objects.order_by("pk").values()),
        list(Account.objects.order_by("pk").values()),
        Correction.objects.count(),
        InvoiceTransition.objects.count(),
    )


def rows_of_money() -> dict[str, object]:
    """Make an invoice that is due, an account with a draft, and credit; return their keys."""
    invoice = invoiced("Ada")
    services.draft_current_period(invoice.account_id, now=LATER)
    gift = services.Gift(
        kind=CreditKind.PREPAID, amount=Decimal(5), reason="Outage", reference="o-1"
    )
    services.grant_credit(invoice.account_id, gift, now=LATER)
    return {
        "invoice": invoice.pk,
        "account": invoice.account_id,
        "creditgrant": CreditGrant.objects.get().pk,
    }


def test_support_sees_everything_and_changes_nothing(sit_down: SitDown) -> None:
    rows = rows_of_money()
    invoice = Invoice.objects.get(number="2026-000001")
    before = state_of_money()
    with sit_down(Role.SUPPORT) as desk:
        desk.sees("Outstanding")
        open_invoice(desk, str(invoice.number))
        desk.sees("120.00")
        for name in ("Mark paid", "Void", "Issue a credit note", "Re-rate", "Send by e-mail"):
            expect(desk.button(name)).to_have_count(0)
        download_and_explain(desk, invoice)
        for title in ("Accounts", "Credits", "Discount rules", "Corrections", "Mail messages"):
            desk.go(title)
            expect(desk.page.locator("a.addlink")).to_have_count(0)
            expect(desk.page.locator("select[name=action]")).to_have_count(0)
        refused(desk, rows)
    assert state_of_money() == before


def test_an_operator_unparks_an_account_and_changes_no_money(sit_down: SitDown) -> None:
    rows = rows_of_money()
    parked = open_account("Parked")
    services.park_account(parked.pk, reason="No price", now=LATER)
    with sit_down(Role.OPERATOR) as desk:
        desk.sees("Parked accounts")
        desk.sees("No price")
        desk.page.locator("#nav-sidebar-apps h2", has_text="Metering").click()
        desk.go("Sandboxes")
        desk.sees("sbx-1")
        desk.go("Accounts")
        desk.choose("Unpark", "Parked")
        desk.sees("The next sweep tries again.")
        parked.refresh_from_db()
        assert (parked.parked_at, parked.parked_reason) == (None, "")
        before = state_of_money()
        open_invoice(desk, "Ada")
        for name in ("Mark paid", "Void", "Issue a credit note", "Re-rate"):
            expect(desk.button(name)).to_have_count(0)
        refused(desk, rows)
    assert state_of_money() == before
