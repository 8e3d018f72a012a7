"""Names that mean something to typst, sheets, browsers or mail, from the tables to each way out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import pytest
from django.core import mail
from django.http import HttpResponseBase
from django.test import Client
from django.utils.html import escape
from pypdf import PdfReader
from pytest_django.fixtures import Settings

from billing import services
from billing.credits import CreditKind
from billing.documents.text import one_line
from billing.models import (
    Account,
    Budget,
    Correction,
    CreditGrant,
    CreditNote,
    DiscountRule,
    Invoice,
    InvoiceFile,
    MailMessage,
)
from billing.reports.catalogue import REPORTS
from metering.models import Sandbox
from tests.billing.admin_pages import finance, page
from tests.billing.mail import add_member, send_waiting, start_mailing
from tests.billing.usage import AFTER_MAY, OPENED, bill, open_account, record_usage

pytestmark = pytest.mark.django_db

OVERRIDE = "\N{RIGHT-TO-LEFT OVERRIDE}"
NAMES = {
    "typst": '#panic("x") $x$ \\\\ #read("/etc/passwd")',
    "formula": "=1+1",
    "plus": "+1",
    "minus": "-1",
    "at": "@x",
    "tab": "\t=1",
    "return": "\r=1",
    "script": "<script>alert(1)</script>",
    "attribute": '"><img src=x onerror=alert(1)>',
    "hebrew": "שלום עולם",
    "override": f"{OVERRIDE}drawer",
    "emoji": "👩‍🚀 🏳️‍🌈",
    "control": "a\x01b\x1bc\x7f",
    "header": "Ada\r\nBcc: eve@example.com",
    "long": "word " * 2_000,
}
MARKUP = ("<script>alert", "<img src=x")
STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class World:
    """One account whose every text is the name, with an invoice, a credit note and a budget."""

    name: str
    account: Account
    invoice: Invoice
    finance: Client


@pytest.fixture(params=list(NAMES.values()), ids=list(NAMES))
def world(
    request: pytest.FixtureRequest,
    settings: Settings,
    set_clock: Callable[[datetime], None],
) -> World:
    name: str = request.param
    set_clock(AFTER_MAY)
    start_mailing()
    settings.SELLER_NAME, settings.SELLER_TAX_NAME = name, name[:32]
    settings.SELLER_ADDRESS = settings.SELLER_TAX_ID = settings.SELLER_PAYMENT_TERMS = name
    account = open_account("Ada")
    Account.objects.filter(pk=account.pk).update(
        name=name[:200], address=name, tax_id=name[:64], tax_rate=Decimal("0.19")
    )
    account.refresh_from_db()
    add_member(account, "ada@example.com")
    DiscountRule.objects.create(
        name=name[:100], kind="volume", percent=Decimal(10), min_amount=Decimal(1)
    )
    gift = services.Gift(
        CreditKind.PROMOTIONAL, Decimal(5), reason=name[:200], reference=name[:100]
    )
    services.grant_credit(account.pk, gift, now=OPENED)
    record_usage(account.pk, cpu_s=10_000_000)
    Sandbox.objects.update(sandbox_id=name[:128])
    invoice = bill(account)
    by = services.Author(name[:200], reference=name[:100])
    services.credit_amount(invoice.pk, Decimal(1), by=by, now=AFTER_MAY)
    Budget.objects.create(account=account, name=name[:100], amount=Decimal(5))
    return World(name, account, invoice, finance())


def body(response: HttpResponseBase) -> str:
    assert response.status_code == 200
    streaming = getattr(response, "streaming_content", None)
    said = response.content if streaming is None else b"".join(streaming)  # type: ignore[attr-defined]  # one or the other
    return str(said.decode("utf-8-sig"))


def cells(text: str) -> Iterator[tuple[str, str]]:
    for row in csv.DictReader(io.StringIO(text, newline="")):
        # A text that ended its cell would make a row of another length.
        assert None not in row
        assert None not in row.values()
        yield from row.items()


def no_formula(text: str) -> None:
    found = list(cells(text))
    assert found
    for column, cell in found:
        if cell.startswith(STARTS_FORMULA):
            # A number below zero is a number.
            assert Decimal(cell).is_finite(), (column, cell)
            assert column not in ("account", "description", "sandbox", "name", "reason")


def document(world: World, form: InvoiceFile.Format) -> bytes:
    return bytes(services.invoice_file(world.invoice.pk, format=form, now=AFTER_MAY).content)


def test_the_pdf_says_the_name_as_text(world: World) -> None:
    pages = PdfReader(io.BytesIO(document(world, InvoiceFile.Format.PDF))).pages
    said = "".join(part.extract_text() for part in pages).replace("\N{ZERO WIDTH SPACE}", "")
    assert OVERRIDE not in said
    assert str(world.invoice.number) in said
    assert not set(said) & {"\x01", "\x1b", "\x7f"}
    # What these say is copied from a PDF in another order, or has marks in place of characters.
    if world.name in [NAMES[name] for name in ("hebrew", "emoji", "override", "control")]:
        return
    shown = "".join(world.name[:50].split())
    # The seller and the buyer, by name and address, the discount, the credit and the terms.
    assert "".join(said.split()).count(shown) >= 6


def test_the_sheet_and_the_json_hold_the_name_in_one_place_each(world: World) -> None:
    no_formula(document(world, InvoiceFile.Format.CSV).decode("utf-8-sig"))
    told = json.loads(document(world, InvoiceFile.Format.JSON))
    assert told["buyer"]["name"] == world.account.name
    assert told["seller"]["name"] == world.name


def test_no_page_of_the_admin_takes_the_name_for_markup(world: World) -> None:
    rows = (
        world.account,
        world.invoice,
        CreditGrant.objects.get(),
        CreditNote.objects.get(),
        Correction.objects.get(),
        DiscountRule.objects.get(name=world.name[:100]),
        Budget.objects.get(),
    )
    paths = [page(type(row), row.pk, "change") for row in rows]
    paths += [page(type(row)) for row in rows]
    line = world.invoice.lines.order_by("position")[0].position
    paths += [
        f"/admin/billing/invoice/{world.invoice.pk}/lines/{line}/",
        "/admin/",
        "/admin/reports/",
        "/admin/billing/audittrail/",
        "/admin/billing/creditentry/",
        page(MailMessage),
    ]
    named = 0
    for path in paths:
        shown = body(world.finance.get(path))
        assert not [markup for markup in MARKUP if markup in shown], path
        named += escape(world.name[:20].strip()) in shown
    assert named >= 8


def test_a_mail_has_one_subject_and_no_markup_of_the_name(world: World) -> None:
    assert services.write_due_messages(AFTER_MAY) >= 1
    send_waiting(AFTER_MAY)
    assert mail.outbox
    for sent in mail.outbox:
        assert isinstance(sent, mail.EmailMultiAlternatives)
        assert "\n" not in sent.subject
        assert "\r" not in sent.subject
        assert sent.recipients() == ["ada@example.com"]
        assert "Bcc" not in sent.message()
        ((html, _kind),) = sent.alternatives
        assert not [markup for markup in MARKUP if markup in str(html)]
        assert OVERRIDE not in sent.body + str(html)
        shown = one_line(world.account.name)[:20].strip()
        assert shown in sent.body
        assert escape(shown) in str(html)


@pytest.mark.parametrize("report", REPORTS)
def test_no_report_starts_a_cell_as_a_formula(world: World, report: str) -> None:
    about = REPORTS[report].about
    said = {"month": "2026-05"} if about.value == "month" else {"as_of": "2026-06-01"}
    asked = {"report": report, "format": "csv", **said}
    answered = world.finance.get("/admin/reports/", asked)
    no_formula(body(answered))
