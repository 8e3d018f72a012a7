from __future__ import annotations

import re
from decimal import Decimal

import pytest

from billing import services
from billing.models import Invoice
from metering.meters import Meter
from tests.billing.admin_pages import finance, page, text_of, viewer
from tests.billing.final_invoices import Used, draft_of, issue, usage_line
from tests.billing.usage import bill, open_account, record_usage

pytestmark = pytest.mark.django_db
CPU_S = 10**9


def tampered() -> Invoice:
    """480 s on the line, and 479 in its evidence."""
    cpu = usage_line(Meter.CPU, 480 * CPU_S, "4.80", unit_price=Decimal("0.01"))
    figures = dict.fromkeys(("usage_fee", "total_amount", "amount_due"), Decimal("4.80"))
    used = [Used("<b>sbx</b>", 479 * CPU_S)]
    invoice = draft_of(open_account(), [(cpu, used, ())], **figures)
    return issue(invoice)


def test_the_page_leads_to_files_lines_and_sums() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=3600)
    invoice = bill(account)
    client = viewer()

    shown = text_of(client.get(page(Invoice, invoice.pk, "change")))
    base = f"/admin/billing/invoice/{invoice.pk}"
    for address in ("file/pdf/", "file/csv/", "file/json/", "lines/1/", "conservation/"):
        assert f'href="{base}/{address}"' in shown
        assert client.get(f"{base}/{address}").status_code == 200
    assert "Yes." in shown
    assert client.get(f"{base}/file/pdf/").content.startswith(b"%PDF-")
    for wrong in ("file/docx/", "lines/9/", "lines/1/lives/1/"):
        assert client.get(f"{base}/{wrong}").status_code == 404


def test_a_line_is_shown_down_to_its_windows() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=3600)
    invoice = bill(account)
    client = viewer()

    shown = text_of(client.get(f"/admin/billing/invoice/{invoice.pk}/lines/1/"))
    for words in ("Everything adds up.", "sbx-1", "3,600,000,000,000", "-0.0032", "75 %"):
        assert words in shown
    [windows] = re.findall(r'href="([^"]*/lives/\d+/)"', shown)
    shown = text_of(client.get(windows))
    assert "2026-05-10 12:00" in shown
    assert client.get(f"{windows}?after=noon").status_code == 200


def test_what_does_not_add_up_is_red_on_both_pages() -> None:
    invoice = tampered()
    client = finance()

    shown = text_of(client.get(page(Invoice, invoice.pk, "change")))
    assert "cpu: measured 479000000000, rated 480000000000" in shown
    shown = text_of(client.get(f"/admin/billing/invoice/{invoice.pk}/lines/1/"))
    assert "It does not add up" in shown
    assert shown.count("not equal") == 2
    assert "&lt;b&gt;sbx&lt;/b&gt;" in shown
    told = client.get(f"/admin/billing/invoice/{invoice.pk}/conservation/").json()
    assert told["holds"] is False


def test_who_may_not_see_invoices_gets_none_of_it() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=3600)
    invoice = bill(account)
    client = viewer()
    client.logout()
    for address in ("file/pdf/", "lines/1/", "conservation/", "lines/1/lives/1/"):
        answer = client.get(f"/admin/billing/invoice/{invoice.pk}/{address}")
        assert (answer.status_code, "login" in answer["Location"]) == (302, True)
    services.void_invoice(invoice.pk, because=services.Because("x"), now=invoice.period_end)
