from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from pypdf import PdfReader
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from billing import services
from billing.credit_note_documents import PARTIES_OF_NOW, credit_note_document
from billing.credits import CreditKind
from billing.models import Account, CreditNote, Invoice, InvoiceFile, Price
from billing.services import Author
from billing.services.credits import Gift
from tests.billing.admin_pages import page, text_of, viewer
from tests.billing.test_credit_notes import LATER, PAID, invoiced, note_of
from tests.billing.usage import NOON, bill, open_account, record_usage
from tests.problems import errors_of

pytestmark = pytest.mark.django_db

FORMATS = tuple(InvoiceFile.Format)
HOSTILE = '=1+1 #panic("x") <script>alert(1)</script> $x$ "a'


def noted(invoice: Invoice, amount: str, reference: str = "1", reason: str = "Too slow") -> Any:
    by = Author(reason, reference=reference)
    return note_of(services.credit_amount(invoice.pk, Decimal(amount), by=by, now=LATER))


def file_of(note: CreditNote, format_: str) -> bytes:
    return services.credit_note_file(note.pk, format=InvoiceFile.Format(format_)).content


def pdf_text(note: CreditNote) -> str:
    pages = PdfReader(io.BytesIO(file_of(note, "pdf"))).pages
    text = "\n".join(page.extract_text() for page in pages)
    return " ".join(text.replace("\N{NO-BREAK SPACE}", " ").split())


def rows_of(note: CreditNote) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file_of(note, "csv").decode("utf-8-sig"))))


def key_of(account: Account) -> str:
    return services.issue_api_key(account.pk, name="test", now=NOON).key


def get(path: str, key: str, **headers: str) -> Any:
    return Client().get(f"/api/v1/{path}", headers={"Authorization": f"Bearer {key}", **headers})


def test_a_note_says_what_it_takes_back_of_which_invoice_and_why() -> None:
    invoice = invoiced()
    cpu, egress = invoice.lines.order_by("position")
    amounts = {cpu.pk: Decimal("3.10"), egress.pk: Decimal("1.90")}
    by = Author("Too slow", reference="1")
    note = note_of(services.credit_lines(invoice.pk, amounts, by=by, now=LATER))
    # 3.10 + 1.90 = 5.00, and 19 % of it 0.95.
    text = pdf_text(note)
    for words in (
        "Credit note",
        "CN-2026-000001",
        "Corrects invoice 2026-000001",
        "Invoice issued 1 Jun 2026",
        "Issued 2 Jun 2026",
        "Reason: Too slow",
        "Ada",
        "CPU time 3.10",
        "Network egress 1.90",
        "Before tax 5.00",
        "19 % 0.95",
        "Total credited USD 5.95",
        "5.95 USD are taken off what is owed of invoice 2026-000001.",
    ):
        assert words in text
    for words in ("amount due", "due on", "due by", "amount paid", "paid on"):
        assert words not in text.lower()
    told = json.loads(file_of(note, "json"))
    assert told["totals"] == {"net": "5.00", "tax": "0.95", "total": "5.95"}
    assert sum(Decimal(line["amount"]) for line in told["lines"]) == 5
    assert (told["kind"], told["number"]) == ("credit_note", "CN-2026-000001")
    assert Decimal(told["tax"]["rate"]) == Decimal("0.19")
    assert told["credited_invoice"] == {
        "number": "2026-000001",
        "issued_on": "2026-06-01",
        "reason": "Too slow",
        "off_due": "5.95",
        "as_credit": "0.00",
    }
    assert not {"due_on", "paid_on", "payment_terms", "status"} & told.keys()
    assert [(row["credit_note"], row["invoice"], row["amount"]) for row in rows_of(note)] == [
        ("CN-2026-000001", "2026-000001", "3.10"),
        ("CN-2026-000001", "2026-000001", "1.90"),
    ]


def test_a_note_of_inclusive_prices_has_the_tax_inside() -> None:
    note = noted(invoiced(is_inclusive=True), "7")
    # 7 - 7 / 1.19 = 1.12
    text = pdf_text(note)
    assert "Total credited USD 7.00" in text
    assert "19 % 1.12" in text
    assert "Before tax" not in text
    told = json.loads(file_of(note, "json"))
    assert told["totals"] == {"net": "5.88", "tax": "1.12", "total": "7.00"}
    assert [row["amount"] for row in rows_of(note)] == ["7.00"]


def test_what_was_paid_became_prepaid_credit() -> None:
    invoice = invoiced()
    services.mark_paid(invoice.pk, because=PAID, now=LATER)
    text = pdf_text(noted(invoice, "5.95"))
    assert "5.95 USD became prepaid credit" in text
    assert "taken off" not in text


def test_a_note_over_what_is_owed_says_both() -> None:
    account = open_account()
    gift = Gift(CreditKind.PREPAID, Decimal(10), "Top-up", "top-up")
    services.grant_credit(account.pk, gift, now=NOON)
    record_usage(account.pk, cpu_s=1_000_000)
    # 12.00, of which prepaid credit paid 10.00: 2.00 are owed.
    text = pdf_text(noted(bill(account), "7"))
    assert "2.00 USD are taken off what is owed of invoice 2026-000001." in text
    assert "5.00 USD became prepaid credit, which pays later invoices." in text
    assert "Total credited USD 7.00" in text


@pytest.mark.parametrize("format_", FORMATS)
def test_a_note_is_the_same_bytes_whatever_changes_later(format_: str, settings: Settings) -> None:
    invoice = invoiced()
    note = noted(invoice, "5.95")
    before = file_of(note, format_)

    Account.objects.filter(pk=invoice.account_id).update(
        name="Renamed", address="Elsewhere", tax_id="X 1", time_zone="Asia/Kolkata", tax_rate=0
    )
    Price.objects.update(unit_price=7)
    settings.SELLER_NAME = "Another seller"
    settings.SELLER_ADDRESS = "Elsewhere"
    settings.SELLER_TAX_NAME = "GST"
    noted(invoice, "1", "2", "Another")
    services.mark_paid(invoice.pk, because=PAID, now=LATER)

    assert file_of(note, format_) == before
    assert PARTIES_OF_NOW not in credit_note_document(note.pk).notes


def test_a_hostile_reason_is_text_and_changes_no_figure() -> None:
    note = noted(invoiced(), "5.95", reason=HOSTILE)
    text = pdf_text(note)
    assert f"Reason: {HOSTILE}" in text
    assert "Total credited USD 5.95" in text
    told = json.loads(file_of(note, "json"))
    assert told["credited_invoice"]["reason"] == HOSTILE
    assert [row["amount"] for row in rows_of(note)] == ["5.00"]


def test_the_api_lists_notes_newest_first_by_page(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    invoice = invoiced()
    notes = [noted(invoice, "1.19", str(number)) for number in range(3)]
    key = key_of(invoice.account)
    get("credit-notes", key)
    # The key, and the notes with their invoice.
    with django_assert_num_queries(2):
        first = get("credit-notes?page_size=2", key).json()
    assert [row["id"] for row in first["results"]] == [notes[2].pk, notes[1].pk]
    assert first["results"][0] == {
        "id": notes[2].pk,
        "number": "CN-2026-000003",
        "invoice": invoice.pk,
        "invoice_number": "2026-000001",
        "reason": "Too slow",
        "issued_on": "2026-06-02",
        "currency": "USD",
        "net": "1.00",
        "tax": "0.19",
        "total": "1.19",
        "off_due": "1.19",
        "as_credit": "0.00",
    }
    second = Client().get(first["next"], headers={"Authorization": f"Bearer {key}"}).json()
    assert [row["id"] for row in second["results"]] == [notes[0].pk]
    assert second["next"] is None
    assert get("credit-notes?cursor=nonsense", key).json()["code"] == "cursor_invalid"
    shown = get(f"invoices/{invoice.pk}", key).json()["credit_notes"]
    assert [row["number"] for row in shown] == [note.number for note in reversed(notes)]
    assert shown[0] == {
        "id": notes[2].pk,
        "number": "CN-2026-000003",
        "issued_on": "2026-06-02",
        "total": "1.19",
    }


@pytest.mark.parametrize(
    ("format_", "content_type", "start"),
    [
        ("pdf", "application/pdf", b"%PDF-"),
        ("csv", "text/csv; charset=utf-8", b"\xef\xbb\xbfcredit_note,"),
        ("json", "application/json", b"{"),
    ],
)
def test_a_customer_downloads_a_note(format_: str, content_type: str, start: bytes) -> None:
    invoice = invoiced()
    note = noted(invoice, "5.95")
    path = f"credit-notes/{note.pk}/download?format={format_}"
    answer = get(path, key_of(invoice.account), Accept=content_type)
    assert (answer.status_code, answer["Content-Type"]) == (200, content_type)
    name = f"credit-note-CN-2026-000001.{format_}"
    assert answer["Content-Disposition"] == f'attachment; filename="{name}"'
    assert answer.content.startswith(start)
    assert answer.content == file_of(note, format_)


@pytest.mark.parametrize("query", ["", "?format=", "?format=docx", "?format=../pdf"])
def test_another_format_is_refused_by_its_name(query: str) -> None:
    invoice = invoiced()
    note = noted(invoice, "5.95")
    answer = get(f"credit-notes/{note.pk}/download{query}", key_of(invoice.account))
    assert (answer.status_code, list(errors_of(answer))) == (400, ["format"])


def test_another_accounts_note_is_neither_listed_nor_downloaded() -> None:
    note = noted(invoiced(), "5.95")
    eve = key_of(open_account("Eve"))
    for query in ("?format=pdf", ""):
        assert get(f"credit-notes/{note.pk}/download{query}", eve).status_code == 404
    assert get("credit-notes", eve).json()["results"] == []
    for path in ("credit-notes", f"credit-notes/{note.pk}/download?format=pdf"):
        assert get(path, "sbx_live_no").status_code == 401


def test_the_openapi_document_has_credit_notes() -> None:
    written = StringIO()
    call_command("spectacular", "--format=openapi-json", stdout=written)
    paths = json.loads(written.getvalue())["paths"]
    download = paths["/api/v1/credit-notes/{id}/download"]["get"]
    assert set(download["responses"]["200"]["content"]) == {
        "application/pdf",
        "text/csv",
        "application/json",
    }
    assert "/api/v1/credit-notes" in paths


def test_the_notes_page_leads_to_its_files() -> None:
    note = noted(invoiced(), "5.95")
    client = viewer()
    shown = text_of(client.get(page(CreditNote, note.pk, "change")))
    for format_ in FORMATS:
        address = page(CreditNote, note.pk, "file", format_)
        assert f'href="{address}"' in shown
        assert client.get(address).content == file_of(note, format_)
    for wrong in ((note.pk, "file", "docx"), (note.pk + 1, "file", "pdf")):
        assert client.get(page(CreditNote, *wrong)).status_code == 404
    client.logout()
    answer = client.get(page(CreditNote, note.pk, "file", "pdf"))
    assert (answer.status_code, "login" in answer["Location"]) == (302, True)
