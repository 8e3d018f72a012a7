from __future__ import annotations

import csv
import io
import json
import re
import time
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client
from pypdf import PdfReader
from pytest_django import Settings

from billing import services
from billing.charges import PartKind
from billing.credits import CreditKind
from billing.documents.document import DocumentKind, TopUp
from billing.documents.pdf import render_pdf
from billing.invoice_documents import document_of
from billing.lifecycle import InvoiceStatus
from billing.models import (
    Account,
    CreditEntry,
    DiscountRule,
    Invoice,
    InvoiceDays,
    InvoiceDiscount,
    InvoiceFile,
    InvoiceLinePart,
    Price,
)
from billing.services.credits import Gift
from metering.meters import GB, Meter
from metering.models import NetworkUsageRecord, UsageRecord
from metering.period import Period
from tests.billing import documents
from tests.billing.documents import money
from tests.billing.final_invoices import Used, draft_of, issue, line, usage_line
from tests.billing.usage import (
    AFTER_MAY,
    MAY,
    NOON,
    bill,
    open_account,
    record_first_invoice,
    record_usage,
)
from tests.problems import errors_of

pytestmark = pytest.mark.django_db

FORMATS = tuple(InvoiceFile.Format)
CPU_S = 10**9
LONGEST_S = 30
DAY = timedelta(days=1)
FIVE = {"subscription_fee": 5, "total_amount": 5, "amount_due": 5}


def part(kind: PartKind, quantity: str, price: str, **columns: Any) -> InvoiceLinePart:
    return InvoiceLinePart(
        kind=kind,
        quantity=Decimal(quantity),
        unit_price=Decimal(price),
        **{"unit_size": 1, **columns},
    )


def everything(account: Account) -> Invoice:
    """An invoice with a line of every kind: 100 + 17.07 - 3.41 - 5 - 2 + tax = 127.00."""
    lines = [
        (line("fee", "99.00", "Pro plan", unit_price=99, unit="periods"), (), ()),
        (
            line(
                "unused_fee",
                "-9.00",
                "Old plan, unused",
                unit_price=10,
                quantity=27 * 86_400,
                unit_size=30 * 86_400,
            ),
            (),
            (),
        ),
        (line("fee_discount", "-1.00", "Yearly", unit_price=1), (), ()),
        (line("true_up", "11.00", "Pro plan, up to the minimum", unit_price=25), (), ()),
        (
            usage_line(Meter.CPU, 1500 * CPU_S, "15.00", unit_price=Decimal("0.01")),
            (Used("sbx-b", 500 * CPU_S), Used("sbx-a", 1000 * CPU_S)),
            (),
        ),
        (
            usage_line(Meter.NETWORK_EGRESS, 3 * GB, "2.07", description="Egress"),
            (Used("sbx-a", GB), Used("sbx-c", 2 * GB)),
            (
                part(PartKind.FREE, str(GB), "0", unit_size=GB),
                part(PartKind.UNITS, str(2 * GB), "1.035", unit_size=GB, tier=1),
            ),
        ),
        (
            line(
                "adjustment",
                "-2.00",
                "Less usage of April",
                meter="cpu",
                quantity=-200,
                period_start=MAY.start - 30 * DAY,
                period_end=MAY.start,
            ),
            (),
            (),
        ),
    ]
    invoice = draft_of(
        account,
        lines,
        subscription_fee=100,
        usage_fee=Decimal("17.07"),
        discounts=Decimal("3.41"),
        credits_used=5,
        adjustments=-2,
        tax=Decimal("20.27"),
        tax_rate=Decimal("0.19"),
        total_amount=Decimal("126.93"),
        prepaid_used=Decimal("26.93"),
        amount_due=100,
    )
    InvoiceDiscount.objects.create(
        invoice=invoice,
        position=1,
        name="Volume",
        base="usage_fee",
        base_amount=Decimal("17.07"),
        percent=20,
        fixed_amount=0,
        amount=Decimal("3.41"),
    )
    InvoiceDiscount.objects.create(
        invoice=invoice,
        position=2,
        name="Yearly",
        base="annual_fee",
        base_amount=99,
        percent=0,
        fixed_amount=1,
        amount=1,
    )
    for number, (kind, amount, name) in enumerate(
        [
            (CreditKind.PROMOTIONAL, "5.00", "Welcome"),
            (CreditKind.PREPAID, "26.93", "Top-up of March"),
        ]
    ):
        grant = services.grant_credit(
            account.pk, Gift(kind, Decimal(amount), name, f"gift {number}"), now=NOON
        )
        CreditEntry.objects.create(
            grant=grant, kind="use", amount=-Decimal(amount), invoice=invoice, recorded_at=NOON
        )
    InvoiceDays.objects.create(
        invoice=invoice,
        first_day=date(2026, 5, 1),
        amounts=[Decimal("17.07"), *[Decimal(0)] * 30],
    )
    return issue(invoice)


def pdf_text(content: bytes) -> str:
    pages = PdfReader(io.BytesIO(content)).pages
    return "\n".join(page.extract_text() for page in pages).replace("\N{NO-BREAK SPACE}", " ")


def file_of(invoice: Invoice, format: str) -> bytes:  # noqa: A002 - what customers call it
    rendered = services.invoice_file(invoice.pk, format=InvoiceFile.Format(format), now=AFTER_MAY)
    return rendered.content


def test_a_document_has_every_kind_of_line_and_what_it_rests_on() -> None:
    shown = document_of(everything(open_account()).pk)

    assert [(fee.kind, fee.basis, fee.amount.text) for fee in shown.fees] == [
        ("fee", "", "99.00"),
        ("unused_fee", "10.00 USD × 27 ÷ 30 days", "-9.00"),
        ("fee_discount", "1.00 USD", "-1.00"),
        (
            "true_up",
            "Committed minimum of 25.00 USD, less what usage came to after discounts",
            "11.00",
        ),
    ]
    assert [(group.meter, group.name, group.unit) for group in shown.meters] == [
        ("cpu", "usage", "cpu_seconds"),
        ("network_egress", "Egress", "network_egress_gb"),
    ]
    cpu, egress = shown.usage_lines
    assert (cpu.quantity, cpu.unit_price, cpu.parts) == ("1500", "0.01", ())
    assert [(p.kind, p.tier, p.quantity, p.unit_price) for p in egress.parts] == [
        ("free", None, "1", "0"),
        ("units", 1, "2", "1.035"),
    ]
    assert [(d.name, d.percent, d.amount) for d in shown.discounts] == [
        ("Volume", Decimal(20), money("3.4100"))
    ]
    assert [(c.name, c.amount.text) for c in shown.credits] == [("Welcome", "5.00")]
    assert [(c.name, c.amount.text) for c in shown.prepaid] == [("Top-up of March", "26.93")]
    [adjustment] = shown.adjustments
    assert adjustment.period == Period(MAY.start - 30 * DAY, MAY.start)
    assert (shown.seller, shown.buyer) == (documents.SELLER, documents.BUYER)
    assert (shown.tax_name, shown.due_on) == ("VAT", date(2026, 6, 15))
    assert shown.days[0] == documents.days(money("17.0700"))[0]
    assert shown.notes == ()


def test_sandboxes_bear_each_line_by_what_they_used_of_it() -> None:
    shown = document_of(everything(open_account()).pk)

    # cpu 15.00 by 500 and 1000; egress 2.07 by 1 and 2.
    assert [(entry.sandbox, entry.amount.text) for entry in shown.sandboxes] == [
        ("sbx-a", "10.69"),
        ("sbx-b", "5.00"),
        ("sbx-c", "1.38"),
    ]


def test_every_format_has_every_line() -> None:
    invoice = everything(open_account())

    rows = list(csv.DictReader(io.StringIO(file_of(invoice, "csv").decode("utf-8-sig"))))
    assert [row["kind"] for row in rows] == [
        "fee",
        "unused_fee",
        "fee_discount",
        "true_up",
        "usage",
        "usage",
        "adjustment",
    ]
    total = sum(Decimal(row["amount"]) for row in rows)
    assert total == 100 + Decimal("17.07") - 2
    told = json.loads(file_of(invoice, "json"))
    assert told["adjustments"][0]["amount"] == "-2.00"
    assert told["totals"]["amount_due"] == "100.00"
    text = pdf_text(file_of(invoice, "pdf"))
    for words in ("Less usage of April", "Adjustment of 1–30 Apr 2026", "27 ÷ 30 days", "Welcome"):
        assert words in text


def test_a_final_document_is_the_same_whatever_changes_later(settings: Settings) -> None:
    account = open_account()
    invoice = everything(account)
    before = render_pdf(document_of(invoice.pk))

    Account.objects.filter(pk=account.pk).update(
        name="Renamed", address="Elsewhere", tax_id="X 1", time_zone="Asia/Kolkata"
    )
    Price.objects.update(unit_price=7)
    DiscountRule.objects.update(name="Renamed")
    settings.SELLER_NAME = "Another seller"
    settings.SELLER_TAX_NAME = "GST"
    services.mark_payment_failed(invoice.pk, because=services.Because("No"), now=AFTER_MAY)

    assert render_pdf(document_of(invoice.pk)) == before


def test_a_final_document_outlives_the_usage_records() -> None:
    account = open_account()
    record_usage(account.pk, NOON, cpu_s=360_000)
    record_usage(account.pk, NOON + 2 * DAY, cpu_s=720_000)
    invoice = bill(account)
    services.keep_invoice_days(AFTER_MAY)
    shown = document_of(invoice.pk)
    assert [entry.amount.text for entry in shown.days[9:12]] == ["4.32", "0.00", "8.64"]

    UsageRecord.objects.all().delete()
    NetworkUsageRecord.objects.all().delete()

    assert document_of(invoice.pk) == shown
    assert [entry.amount.text for entry in shown.sandboxes] == ["12.96"]


def test_thousands_of_sandboxes_roll_up_by_meter_with_an_annex() -> None:
    account = open_account()
    count = 3_000
    total = count * (count + 1) // 2
    lines = [
        (
            usage_line(Meter.CPU, total * CPU_S, "54.02", unit_price=Decimal("0.000012")),
            [Used(f"sbx-{at:04}", at * CPU_S) for at in range(1, count + 1)],
            (),
        ),
    ]
    due = dict.fromkeys(("usage_fee", "total_amount", "amount_due"), Decimal("54.02"))
    invoice = issue(draft_of(account, lines, **due))

    started = time.monotonic()
    content = file_of(invoice, "pdf")
    took = time.monotonic() - started

    shown = document_of(invoice.pk)
    assert len(shown.sandboxes) == count
    assert sum(entry.amount.amount for entry in shown.sandboxes) == Decimal("54.02")
    text = pdf_text(content)
    assert "The annex lists the cost of each of the 3,000 sandboxes." in text
    assert "sbx-0001" in text
    assert "sbx-3000" in text
    # Some 1.5 s and 1.4 MB; many times that would be another way of working.
    assert took < LONGEST_S
    assert len(content) < 3_000_000
    assert sum(1 for _ in csv.reader(io.StringIO(file_of(invoice, "csv").decode()))) == 2


def test_a_file_once_given_out_stays_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    invoice = everything(open_account())
    first = {form: file_of(invoice, form) for form in FORMATS}
    assert {form: file_of(invoice, form) for form in FORMATS} == first

    def refuse(_invoice_id: int) -> None:
        raise AssertionError("It was made again.")

    monkeypatch.setattr("billing.services.invoice_files.document_of", refuse)
    assert {form: file_of(invoice, form) for form in FORMATS} == first
    assert InvoiceFile.objects.filter(invoice=invoice).count() == len(FORMATS)


@pytest.mark.parametrize("change", ["UPDATE {} SET {}", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("billing_invoicefile", "content = ''"),
        ("billing_invoicedays", "first_day = first_day"),
    ],
)
def test_files_and_days_cannot_be_changed(change: str, table: str, column: str) -> None:
    file_of(everything(open_account()), "csv")
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(change.format(table, column))


def test_a_spoilt_file_is_not_given_out() -> None:
    invoice = everything(open_account())
    InvoiceFile.objects.create(
        invoice=invoice,
        format="csv",
        edition="issued",
        content=b"spoilt",
        sha256="0" * 64,
        rendered_at=NOON,
    )
    with pytest.raises(ValueError, match="is not what was written"):
        file_of(invoice, "csv")


def test_what_is_void_has_a_file_that_says_so() -> None:
    invoice = everything(open_account())
    issued = file_of(invoice, "pdf")
    services.void_invoice(invoice.pk, because=services.Because("wrong"), now=AFTER_MAY)

    void = file_of(invoice, "pdf")
    assert "Void: nothing is due." in pdf_text(void)
    assert "Void: nothing is due." not in pdf_text(issued)
    kept = InvoiceFile.objects.get(invoice=invoice, edition="issued")
    assert bytes(kept.content) == issued


def test_what_was_paid_since_has_a_file_that_says_so() -> None:
    invoice = everything(open_account())
    issued = file_of(invoice, "pdf")
    later = AFTER_MAY + timedelta(days=3)
    services.mark_paid(invoice.pk, because=services.Because("Bank transfer"), now=later)

    paid = file_of(invoice, "pdf")
    assert re.search(r"Paid on\s+4 Jun", pdf_text(paid))
    assert "Paid on" not in pdf_text(issued)
    assert file_of(invoice, "pdf") == paid
    kept = InvoiceFile.objects.get(invoice=invoice, edition="issued")
    assert bytes(kept.content) == issued


def test_what_a_credit_note_closed_was_not_paid() -> None:
    invoice = everything(open_account())
    by = services.Author("Too much", reference="all of it")
    services.credit_in_full(invoice.pk, by=by, now=AFTER_MAY)
    invoice.refresh_from_db()
    assert invoice.status == InvoiceStatus.PAID
    assert "Paid on" not in pdf_text(file_of(invoice, "pdf"))


def test_a_draft_says_that_it_is_one_and_is_not_kept() -> None:
    account = open_account()
    record_first_invoice(account.pk)
    draft = services.draft_invoice(account.pk, period=MAY, now=MAY.end)

    shown = document_of(draft.pk)
    assert (shown.status, shown.number) == (InvoiceStatus.DRAFT, None)
    assert shown.buyer.name == account.name
    assert sum(entry.amount.amount for entry in shown.days) == Decimal("0.27")
    assert "The figures of a draft may still change." in pdf_text(file_of(draft, "pdf"))
    assert not InvoiceFile.objects.exists()


def test_an_invoice_from_before_parties_were_kept_says_whose_they_are() -> None:
    account = open_account("Ada")
    Account.objects.filter(pk=account.pk).update(address="1 Street\nTown", tax_id="VAT 12")
    invoice = draft_of(account, [(line("fee", "5"), (), ())], **FIVE)
    columns: dict[str, Any] = {
        "seller": {},
        "buyer": {},
        "issued_on": None,
        "due_on": None,
        "time_zone": "",
    }
    shown = document_of(issue(invoice, **columns).pk)

    assert (shown.buyer.name, shown.buyer.address) == ("Ada", ("1 Street", "Town"))
    assert shown.issued_on == date(2026, 6, 1)
    assert "before names and addresses were kept" in shown.notes[0]


def test_a_top_up_is_sold_before_tax() -> None:
    account = open_account()
    invoice = draft_of(
        account,
        [(line("top_up", "50", "Prepaid credit"), (), ())],
        kind="top_up",
        top_up=50,
        total_amount=50,
        amount_due=50,
    )
    shown = document_of(issue(invoice).pk)

    assert shown.kind is DocumentKind.TOP_UP
    assert shown.top_ups == (TopUp("Prepaid credit", money("50.0000")),)
    text = pdf_text(render_pdf(shown))
    assert "Invoice for prepaid credit" in text
    assert "It is taxed when it is spent." in text


def test_days_are_those_of_the_accounts_zone_and_lines() -> None:
    account = services.open_account(name="Ada", now=MAY.start, time_zone="Asia/Kolkata")
    # 19:00 in UTC is 00:30 of the next day in Kolkata.
    late = NOON.replace(hour=19)
    for at in (NOON, late):
        record_usage(account.pk, at, cpu_s=100_000)
    period = account.open_period
    invoice = bill(account, period)
    services.keep_invoice_days(AFTER_MAY)

    row = InvoiceDays.objects.get(invoice=invoice)
    days = {row.first_day + at * DAY: amount for at, amount in enumerate(row.amounts) if amount}
    assert days == {date(2026, 5, 10): Decimal("1.20"), date(2026, 5, 11): Decimal("1.20")}
    assert services.keep_invoice_days(AFTER_MAY) == 0


def test_without_the_records_no_days_are_made_up() -> None:
    account = open_account()
    record_usage(account.pk, NOON, cpu_s=360_000)
    invoice = bill(account)
    UsageRecord.objects.all().delete()

    assert services.keep_invoice_days(AFTER_MAY) == 1
    assert InvoiceDays.objects.get(invoice=invoice).amounts == []
    assert document_of(invoice.pk).days == ()


def download(invoice: Invoice, key: str, query: str, **headers: str) -> Any:
    path = f"/api/v1/invoices/{invoice.pk}/download{query}"
    return Client().get(path, headers={"Authorization": f"Bearer {key}", **headers})


def key_of(account: Account) -> str:
    return services.issue_api_key(account.pk, name="test", now=NOON).key


@pytest.mark.parametrize(
    ("format_", "content_type", "start"),
    [
        ("pdf", "application/pdf", b"%PDF-"),
        ("csv", "text/csv; charset=utf-8", b"\xef\xbb\xbfinvoice,"),
        ("json", "application/json", b"{"),
    ],
)
def test_a_customer_downloads_an_invoice(format_: str, content_type: str, start: bytes) -> None:
    account = open_account()
    invoice = everything(account)
    answer = download(invoice, key_of(account), f"?format={format_}", Accept=content_type)

    assert answer.status_code == 200
    assert answer["Content-Type"] == content_type
    assert answer["Content-Disposition"] == (
        f'attachment; filename="invoice-2026-000001.{format_}"'
    )
    assert answer.content.startswith(start)
    assert answer.content == file_of(invoice, format_)


@pytest.mark.parametrize("query", ["", "?format=", "?format=docx", "?format=../pdf"])
def test_another_format_is_refused_by_its_name(query: str) -> None:
    account = open_account()
    answer = download(everything(account), key_of(account), query)
    assert (answer.status_code, list(errors_of(answer))) == (400, ["format"])


def test_another_accounts_invoice_is_not_downloaded() -> None:
    invoice = everything(open_account())
    key = key_of(open_account("Bob"))
    assert download(invoice, key, "?format=pdf").status_code == 404
    assert download(invoice, "sbx_live_no", "?format=pdf").status_code in {401, 403}
    assert not InvoiceFile.objects.exists()


def test_a_number_from_elsewhere_makes_a_safe_name() -> None:
    account = open_account()
    invoice = draft_of(account, [(line("fee", "5"), (), ())], kind="subscription", **FIVE)
    issue(invoice, number='A"; x=\r\nSet-Cookie: y')
    answer = download(invoice, key_of(account), "?format=csv")
    name = "invoice-A___x___Set-Cookie__y.csv"
    assert answer["Content-Disposition"] == f'attachment; filename="{name}"'
