"""Invoices that are not of usage: top-ups, and copies of a payment provider's own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.core import mail

from billing import services
from billing.conservation_queries import conservation_of
from billing.desk_queries import revenue_by_month
from billing.models import Account, Invoice, MailCursor, MailMessage, Plan
from billing.money import Money
from tests.billing.usage import AFTER_MAY, MAY, NOON, bill, open_account, record_usage

pytestmark = pytest.mark.django_db
USD = "USD"


@pytest.fixture
def account() -> Account:
    Plan.objects.filter(code="team").update(stripe_price_id="price_team", monthly_credits=0)
    account = open_account(plan_code="team")
    Account.objects.filter(pk=account.pk).update(
        tax_rate=Decimal("0.19"),
        address="1 Main St\nBonn",
        tax_id="VAT DE1",
        billing_email="a@x.io",
    )
    return account


def mirrored() -> services.MirroredInvoice:
    return services.MirroredInvoice(
        number="STRIPE-0001",
        period=MAY,
        lines=[services.MirroredLine("Team plan", MAY, Money(Decimal(299), USD))],
        tax=Money(Decimal("56.81"), USD),
        total=Money(Decimal("355.81"), USD),
        is_paid=True,
    )


def test_a_top_up_that_was_paid_has_one_paid_invoice(account: Account) -> None:
    top_up = services.request_top_up(account.pk, Decimal(50), now=NOON)
    for _ in range(2):
        services.grant_top_up(top_up.pk, now=NOON + timedelta(hours=1))
    invoice = Invoice.objects.get()
    top_up.refresh_from_db()
    assert top_up.invoice == invoice
    assert (invoice.kind, invoice.status, invoice.number) == ("top_up", "paid", "2026-000001")
    assert (invoice.top_up, invoice.tax, invoice.total_amount, invoice.amount_due) == (
        50,
        0,
        50,
        50,
    )
    assert invoice.buyer["address"] == ["1 Main St", "Bonn"]
    steps = [(t.from_status, t.to_status, t.reason) for t in invoice.transitions.all()]
    assert steps == [
        ("draft", "pending", "Prepaid credit was bought"),
        ("pending", "paid", "Paid with the top-up"),
    ]
    assert conservation_of([invoice.pk], now=AFTER_MAY)[invoice.pk].holds
    assert services.invoice_pdf(invoice.pk, now=AFTER_MAY).content.startswith(b"%PDF")


def test_a_top_up_is_revenue_when_it_is_spent(account: Account) -> None:
    services.grant_top_up(services.request_top_up(account.pk, Decimal(50), now=NOON).pk, now=NOON)
    record_usage(account.pk, cpu_s=10**6)
    invoice = bill(account)
    assert (invoice.total_amount, invoice.prepaid_used) == (Decimal("14.28"), Decimal("14.28"))
    [revenue] = revenue_by_month(MAY.start)
    assert (revenue.net, revenue.tax) == (Decimal(12), Decimal("2.28"))


def test_nobody_is_told_that_a_paid_top_up_is_due(account: Account) -> None:
    MailCursor.objects.update(looked_until=MAY.start)
    top_up = services.request_top_up(account.pk, Decimal(50), now=NOON)
    services.grant_top_up(top_up.pk, now=NOON)
    assert services.write_due_messages(NOON) == 0
    assert not MailMessage.objects.exists()


def test_a_providers_invoice_is_kept_once_under_its_number(account: Account) -> None:
    for _ in range(2):
        invoice = services.mirror_invoice(account.pk, mirrored(), now=NOON)
    assert Invoice.objects.get() == invoice
    assert (invoice.kind, invoice.status, invoice.number) == ("subscription", "paid", "STRIPE-0001")
    assert (invoice.subscription_fee, invoice.tax) == (299, Decimal("56.81"))
    assert invoice.amount_due == Decimal("355.81")
    # It uses no number of ours.
    record_usage(account.pk, cpu_s=10**6)
    assert bill(account).number == "2026-000001"


def test_an_unpaid_copy_waits_for_its_payment(account: Account) -> None:
    invoice = services.mirror_invoice(account.pk, replace(mirrored(), is_paid=False), now=NOON)
    assert (invoice.status, invoice.paid_at) == ("pending", None)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(mirrored(), total=Money(Decimal(355), USD)),
        replace(mirrored(), tax=Money(Decimal(0), USD)),
    ],
)
def test_a_copy_that_does_not_add_up_is_refused(
    account: Account, wrong: services.MirroredInvoice
) -> None:
    with pytest.raises(services.MirrorRefusedError, match=f"do not make {wrong.total}"):
        services.mirror_invoice(account.pk, wrong, now=NOON)
    assert not Invoice.objects.exists()


def test_a_number_that_is_taken_is_refused(account: Account) -> None:
    other = open_account("Bob")
    services.mirror_invoice(account.pk, mirrored(), now=NOON)
    Account.objects.filter(pk=other.pk).update(tax_rate=Decimal("0.19"))
    with pytest.raises(services.MirrorRefusedError, match="STRIPE-0001 is another"):
        services.mirror_invoice(other.pk, mirrored(), now=NOON)


@pytest.mark.parametrize("number", ["2026-000001", "CN-2026-000001"])
def test_a_number_that_our_own_invoices_will_have_is_refused(account: Account, number: str) -> None:
    with pytest.raises(services.MirrorRefusedError, match="one of ours"):
        services.mirror_invoice(account.pk, replace(mirrored(), number=number), now=NOON)


def test_what_a_provider_gives_back_of_a_fee_is_a_line_of_its_own(account: Account) -> None:
    lines = [*mirrored().lines, services.MirroredLine("Unused", MAY, Money(Decimal(-99), USD))]
    copied = replace(
        mirrored(),
        lines=lines,
        tax=Money(Decimal(38), USD),
        total=Money(Decimal(238), USD),
    )
    invoice = services.mirror_invoice(account.pk, copied, now=NOON)
    assert [(line.kind, line.amount) for line in invoice.lines.all()] == [
        ("fee", 299),
        ("unused_fee", -99),
    ]
    assert services.invoice_pdf(invoice.pk, now=AFTER_MAY).content.startswith(b"%PDF")


def test_a_copy_that_asks_for_less_than_nothing_is_refused(account: Account) -> None:
    below = services.MirroredLine("Unused", MAY, Money(Decimal(-99), USD))
    copied = replace(
        mirrored(), lines=[below], tax=Money(Decimal(0), USD), total=Money(Decimal(-99), USD)
    )
    with pytest.raises(services.MirrorRefusedError, match="credit note"):
        services.mirror_invoice(account.pk, copied, now=NOON)


def test_an_invoice_is_mailed_with_its_pdf_and_again_when_a_person_says_so(
    account: Account,
) -> None:
    MailCursor.objects.update(looked_until=MAY.start)
    record_usage(account.pk, cpu_s=10**6)
    invoice = bill(account)
    assert services.write_due_messages(AFTER_MAY) == 1
    assert services.send_next_message(AFTER_MAY)
    [email] = mail.outbox
    pdf = services.invoice_pdf(invoice.pk, now=AFTER_MAY)
    assert email.attachments == [("invoice-2026-000001.pdf", pdf.content, "application/pdf")]
    assert services.send_invoice(invoice.pk, now=AFTER_MAY) == 1
    assert services.send_next_message(AFTER_MAY)
    assert len(mail.outbox) == 2
    assert MailMessage.objects.count() == 1


def test_a_draft_is_not_sent(account: Account) -> None:
    draft = services.draft_invoice(account.pk, period=MAY, now=NOON)
    with pytest.raises(services.MessageRefusedError, match="Finalise it first"):
        services.send_invoice(draft.pk, now=NOON)


def test_an_invoice_that_nobody_was_told_of_is_sent_to_the_addresses_of_now(
    account: Account,
) -> None:
    record_usage(account.pk, cpu_s=10**6)
    assert services.send_invoice(bill(account).pk, now=AFTER_MAY) == 1
    assert MailMessage.objects.get().recipient == "a@x.io"
